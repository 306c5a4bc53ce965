//! Several processes on one file, and processes that are killed.

use super::equality::sound;
use crate::mlflow::check_answers;
use crate::sample::{self, Writing};
use crate::stored::{self, Spans, Writer};
use crate::{CaseResult, Live, process, progress};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EXPERIMENT: &str = "shared";
const WRITERS: u64 = 3;
/// Between two flushes of a writer, so that reading everything back stays quick.
const PAUSE_MS: &str = "40";
/// Traces of which a part comes through the server and a part through our pipeline.
const SHARED_TRACES: u128 = 20;
/// Traces that come through the server alone.
const SERVER_TRACES: u128 = 40;
const FINISH: Duration = Duration::from_secs(240);

/// A live MLflow server and several of our processes write one file at once: nothing is lost,
/// nothing is doubled, and both sides read everything.
pub(super) fn concurrent_server(live: &mut Live) -> CaseResult {
    let folder = live.work("concurrent_server")?;
    let db = folder.join("shared.db");
    let mlflow = live.mlflow()?;
    let trace = |n: u128| 0xc0_0000_0000_0000_0000_0000_0000_0000_u128 + n;

    // The file is ours; the server upgrades it when it starts.
    let uri = sample::uri(&db, EXPERIMENT)?;
    let writing = Writing::open(&uri)?;
    let first = sample::request("first", vec![sample::span(trace(0), 1)]);
    writing.request(&first)?;
    let server = mlflow.serve(&db)?;
    let experiment = mlflow.experiment_id(&server, EXPERIMENT)?;

    let shared = |numbers: std::ops::RangeInclusive<u64>| -> Vec<Vec<u8>> {
        let spans = |n| numbers.clone().map(|s| sample::span(trace(n), s)).collect();
        (1..=SHARED_TRACES)
            .map(|n| sample::request("shared", spans(n)))
            .collect()
    };
    let (theirs, ours) = (shared(1..=3), shared(4..=6));
    let alone: Vec<_> = (1..=SERVER_TRACES)
        .map(|n| {
            sample::request(
                "server",
                (1..=5).map(|s| sample::span(trace(1000 + n), s)).collect(),
            )
        })
        .collect();
    let posted: Vec<Vec<u8>> = theirs.iter().chain(&alone).cloned().collect();
    let mut files: Vec<PathBuf> = Vec::new();
    for (i, request) in posted.iter().enumerate() {
        files.push(save(&folder, &format!("{i:03}"), request)?);
    }

    // The server's first request takes seconds to prepare; it is not to be slower than the writers.
    let warm = sample::request("server", vec![sample::span(trace(9999), 1)]);
    mlflow.post(&server, &experiment, &[save(&folder, "warm", &warm)?])?;
    let enough = folder.join("enough");
    let enough_text = enough.to_string_lossy();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|n| {
            let name = format!("writer {n}");
            Writer::start(
                &live.program,
                &live.root.join("home"),
                &live
                    .root
                    .join("logs")
                    .join(format!("concurrent-writer-{n}")),
                &[
                    "--uri",
                    &uri,
                    "--until",
                    &enough_text,
                    "--pause",
                    PAUSE_MS,
                    "--name",
                    &name,
                ],
            )
        })
        .collect::<Result<_, _>>()?;
    let said = |writers: &[Writer]| -> Result<Vec<usize>, String> {
        writers
            .iter()
            .map(|w| w.said().map(|s| stored::count(&s)))
            .collect()
    };
    let deadline = Instant::now() + FINISH;
    while said(&writers)?.contains(&0) {
        for writer in &mut writers {
            writer.still_running()?;
        }
        if Instant::now() > deadline {
            return Err("a writer stored nothing".to_owned().into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = said(&writers)?;
    std::thread::scope(|scope| -> Result<(), String> {
        let posting = scope.spawn(|| {
            let mut command = mlflow.post_command(&server, &experiment, &files);
            let answer = process::run_json(&mut command, &mlflow.log("concurrent-post"), FINISH)?;
            check_answers(&answer, &files)
        });
        for request in &ours {
            writing.request(request)?;
        }
        posting
            .join()
            .map_err(|_| "the posting thread panicked".to_owned())?
    })?;
    let after = said(&writers)?;
    if before
        .iter()
        .zip(&after)
        .any(|(before, after)| after <= before)
    {
        return Err(
            format!("a writer stood still while the server wrote: {before:?}, {after:?}").into(),
        );
    }
    fs::write(&enough, "").map_err(|e| format!("write {}: {e}", enough.display()))?;
    let requests = [vec![first, warm], posted, ours].concat();
    let mut expected = stored::of_requests(&requests)?;
    for writer in writers {
        expected.extend(writer.finish(FINISH)?);
    }
    writing.close()?;

    let by_server = mlflow.dump_server(&server)?;
    server.stop()?;
    let by_file = mlflow.dump(&db)?;
    sound(&by_file)?;
    let count = stored::count(&expected);
    for (what, found) in [
        (
            "the server's search_traces",
            stored::shown(&by_server, "search_traces")?,
        ),
        (
            "the server's get_trace",
            stored::shown(&by_server, "get_trace")?,
        ),
        ("MLflow on the file", stored::shown(&by_file, "get_trace")?),
        ("SQLite", stored::spans(&db)?),
    ] {
        stored::contains(&found, &expected).map_err(|e| format!("{what}: {e}"))?;
        if found != expected {
            return Err(
                format!("{what}: {} spans instead of {count}", stored::count(&found)).into(),
            );
        }
    }
    for n in 1..=SHARED_TRACES {
        let state = &by_file["rows"]["traces"][format!("tr-{:032x}", trace(n))]["info"]["status"];
        if state != "OK" {
            return Err(format!("shared trace {n} is {state}").into());
        }
    }
    Ok(format!(
        "{WRITERS} writer processes, one pipeline here and the server: {} traces, {count} spans; {} of \
         them by the writers while the server took {} requests; {SHARED_TRACES} traces written from \
         both sides",
        expected.len(),
        after.iter().sum::<usize>() - before.iter().sum::<usize>(),
        files.len()
    ))
}

fn save(folder: &Path, name: &str, request: &[u8]) -> Result<PathBuf, String> {
    let file = folder.join(format!("{name}.binpb"));
    fs::write(&file, request).map_err(|e| format!("write {}: {e}", file.display()))?;
    Ok(file)
}

const ROUNDS: u32 = 50;
/// Every so many rounds begin a new file, so that creation is interrupted too.
const ROUNDS_PER_FILE: u32 = 10;
/// MLflow opens the file after every so many rounds.
const ROUNDS_PER_OPEN: u32 = 25;
/// Half of the time a writer writes, half it waits: what it stores has to be read 50 times over.
const KILL_PAUSE_MS: &str = "3";
const LONGEST_LIFE: Duration = Duration::from_millis(300);

/// A writer is killed at random moments, from before it created the file to well after: whatever a
/// returned flush reported as stored is there, the file is sound, and MLflow opens it.
pub(super) fn kill_nine(live: &mut Live) -> CaseResult {
    let folder = live.work("kill_nine")?;
    let mlflow = live.mlflow()?;
    let seed: u64 = rand::rng().random();
    progress(&format!("live: kill_nine: seed {seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let mut files: Vec<(PathBuf, Spans)> = Vec::new();
    let mut silent = 0;
    for round in 0..ROUNDS {
        let context = |e: String| format!("seed {seed}, round {round}: {e}");
        if round % ROUNDS_PER_FILE == 0 {
            files.push((folder.join(format!("killed-{round:02}.db")), Spans::new()));
        }
        let Some((db, said)) = files.last_mut() else {
            continue;
        };
        let mut writer = Writer::start(
            &live.program,
            &live.root.join("home"),
            &live.root.join("logs").join(format!("kill-{round:02}")),
            &[
                "--uri",
                &sample::uri(db, EXPERIMENT)?,
                "--pause",
                KILL_PAUSE_MS,
            ],
        )?;
        // The first rounds of a file end early: half of them while it is being created.
        let longest = if round % ROUNDS_PER_FILE < 2 {
            LONGEST_LIFE / 10
        } else {
            LONGEST_LIFE
        };
        std::thread::sleep(random.random_range(Duration::ZERO..longest));
        writer.still_running().map_err(context)?;
        writer.group.kill()?;
        let stored_now = writer.said().map_err(context)?;
        silent += u32::from(stored_now.is_empty());
        said.extend(stored_now);
        if !db.exists() {
            continue;
        }
        let found = stored::spans(db).map_err(context)?;
        stored::contains(&found, said).map_err(context)?;
        if (round + 1) % ROUNDS_PER_OPEN == 0 {
            mlflow.open(db).map_err(context)?;
        }
    }
    let mut spans = 0;
    for (i, (db, said)) in files.iter().enumerate() {
        let context = |e: String| format!("seed {seed}, {}: {e}", db.display());
        // Reading thousands of spans through MLflow takes long: all of one file, and of the others
        // the traces.
        let last = i + 1 == files.len();
        let dump = if last {
            mlflow.dump(db)
        } else {
            mlflow.dump_infos(db)
        }
        .map_err(context)?;
        sound(&dump).map_err(context)?;
        let shown = stored::shown(&dump, "search_traces").map_err(context)?;
        if last {
            stored::contains(&shown, said).map_err(context)?;
        }
        if let Some(id) = said.keys().find(|id| !shown.contains_key(*id)) {
            return Err(context(format!("MLflow does not list {id}")).into());
        }
        stored::contains(&stored::spans(db)?, said).map_err(context)?;
        spans += stored::count(said);
    }
    if silent == ROUNDS {
        return Err(format!("seed {seed}: no writer stored anything before it was killed").into());
    }
    Ok(format!(
        "{ROUNDS} kills in {} files (seed {seed}); {spans} spans reported stored, all there; {silent} \
         kills before the first flush returned",
        files.len()
    ))
}
