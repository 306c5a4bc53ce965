//! Files that are restored, moved, overwritten and deleted while they are open, and by whom was
//! killed: no file is damaged, and no span that was reported as stored is in neither.
//!
//! The writer that is killed is this test binary again, running the ignored test `writer`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "figures of the long run")]

mod support;

use rusqlite::Connection;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Destination, ErrorKind, Pipeline, Retry, TraceLocation, TraceSink};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How a backup comes over the file.
#[derive(Clone, Copy, Debug)]
enum Restore {
    /// `mv backup live`
    Move,
    /// `cp backup live`: the file stays, its content changes.
    Copy,
    /// As `cp`, but without cutting the file first, as `rsync --inplace` does.
    Overwrite,
}

const RESTORES: [Restore; 3] = [Restore::Move, Restore::Copy, Restore::Overwrite];

fn restore(how: Restore, backup: &Path, live: &Path) {
    match how {
        Restore::Move => {
            let copy = beside(backup, ".moved");
            fs::copy(backup, &copy).unwrap();
            fs::rename(copy, live).unwrap();
        }
        Restore::Copy => {
            fs::copy(backup, live).unwrap();
        }
        Restore::Overwrite => {
            let content = fs::read(backup).unwrap();
            let mut file = fs::File::options().write(true).open(live).unwrap();
            file.write_all(&content).unwrap();
            file.set_len(content.len() as u64).unwrap();
        }
    }
}

/// How a backup is made.
#[derive(Clone, Copy, Debug)]
enum Backup {
    /// `sqlite3 live '.backup …'`, in the mode of the file or in `delete`.
    Api { wal: bool },
    /// `VACUUM INTO`
    Vacuum,
}

const BACKUPS: [Backup; 3] = [
    Backup::Api { wal: true },
    Backup::Api { wal: false },
    Backup::Vacuum,
];

fn back_up(how: Backup, live: &Path, backup: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(backup, suffix));
    }
    let from = Connection::open(live).unwrap();
    match how {
        Backup::Api { wal } => {
            from.execute_batch("BEGIN").unwrap();
            from.execute_batch(&format!("COMMIT; VACUUM INTO '{}'", backup.display()))
                .unwrap();
            let to = Connection::open(backup).unwrap();
            let mode = if wal { "wal" } else { "delete" };
            to.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
                .unwrap();
        }
        Backup::Vacuum => from
            .execute_batch(&format!("VACUUM INTO '{}'", backup.display()))
            .unwrap(),
    }
}

/// Names of the spans in a file, and how many there are.
fn names(path: &Path) -> Vec<String> {
    texts(
        path,
        "SELECT name || ' ' || count(*) FROM spans GROUP BY name ORDER BY 1",
    )
}

fn spans(trace: u128, name: &'static str, count: u64) -> Vec<trace_destination_core::SpanRecord> {
    (0..count)
        .map(|id| span(trace, id + 1, None, name).with_attribute("text", "x".repeat(300)))
        .collect()
}

#[test]
fn a_backup_that_is_restored_over_an_open_file() {
    for how in RESTORES {
        for backup in BACKUPS {
            let dir = TempDir::new().unwrap();
            let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
            run(async {
                let sink = at(&live, "a").open().await.unwrap();
                persist(&*sink, &batch(spans(1, "before", 300))).await;
                back_up(backup, &live, &saved);
                for n in 0..6 {
                    persist(&*sink, &batch(spans(n + 2, "lost", 400))).await;
                }
                restore(how, &saved, &live);
                persist(&*sink, &batch(spans(100, "after", 10))).await;
                sink.close().await.unwrap();
            });
            assert_sound(&live);
            assert_eq!(
                names(&live),
                ["after 10", "before 300"],
                "{how:?} {backup:?}"
            );
            assert!(!beside(&live, "-wal").exists());
        }
    }
}

/// A restore that nobody writes after: closing must not undo it, nor leave a log that does.
#[test]
fn a_backup_that_is_restored_over_an_idle_file() {
    for how in RESTORES {
        for merged in [false, true] {
            let dir = TempDir::new().unwrap();
            let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
            run(async {
                let sink = at(&live, "a").open().await.unwrap();
                persist(&*sink, &batch(spans(1, "before", 300))).await;
                back_up(BACKUPS[0], &live, &saved);
                persist(&*sink, &batch(spans(2, "lost", 400))).await;
                while merged && fs::metadata(beside(&live, "-wal")).unwrap().len() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                restore(how, &saved, &live);
                // Until it is clear that nobody is still writing it.
                tokio::time::sleep(Duration::from_millis(1100)).await;
                sink.close().await.unwrap();
            });
            assert_sound(&live);
            assert_eq!(names(&live), ["before 300"], "{how:?}");
        }
    }
}

#[test]
fn a_file_that_is_moved_away_takes_everything_along() {
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live.db");
    run(async {
        let sink = at(&live, "a").open().await.unwrap();
        for n in 0..5u128 {
            persist(&*sink, &batch(spans(n + 1, "s", 50))).await;
            let moved = dir.path().join(format!("moved{n}.db"));
            fs::rename(&live, &moved).unwrap();
            // With the next batch, or when the file is closed.
            if n < 4 {
                persist(&*sink, &batch(spans(n + 100, "next", 10))).await;
                assert_sound(&moved);
                let before = if n == 0 { 0 } else { 10 };
                assert_eq!(count(&moved, "spans"), 50 + before);
                assert_eq!(names(&live), ["next 10"]);
            } else {
                sink.close().await.unwrap();
                assert_eq!(names(&moved), ["next 10", "s 50"]);
                break;
            }
        }
    });
    assert!(!live.exists());
    assert!(!beside(&live, "-wal").exists());
}

/// Nothing more is written, and the process does not end.
#[test]
fn an_idle_file_that_is_moved_away_takes_everything_along() {
    let dir = TempDir::new().unwrap();
    let (live, moved) = (dir.path().join("live.db"), dir.path().join("moved.db"));
    run(async {
        let sink = at(&live, "a").open().await.unwrap();
        persist(&*sink, &batch(spans(1, "s", 50))).await;
        fs::rename(&live, &moved).unwrap();
        let began = Instant::now();
        while beside(&live, "-wal").exists() {
            assert!(began.elapsed() < Duration::from_secs(60), "never noticed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_sound(&moved);
        assert_eq!(names(&moved), ["s 50"]);
        sink.close().await.unwrap();
    });
    assert!(!live.exists());
}

#[test]
fn files_that_are_deleted_one_by_one() {
    for suffixes in [
        &[""][..],
        &["-wal"],
        &["-shm"],
        &["-wal", "-shm"],
        &["", "-wal", "-shm"],
    ] {
        let dir = TempDir::new().unwrap();
        let live = dir.path().join("live.db");
        run(async {
            let sink = at(&live, "a").open().await.unwrap();
            persist(&*sink, &batch(spans(1, "before", 50))).await;
            for suffix in suffixes {
                fs::remove_file(beside(&live, suffix)).unwrap();
            }
            persist(&*sink, &batch(spans(2, "after", 10))).await;
            persist(&*sink, &batch(spans(3, "after", 10))).await;
            sink.close().await.unwrap();
        });
        assert_sound(&live);
        match suffixes[0] {
            "" => assert_eq!(names(&live), ["after 20"], "{suffixes:?}"),
            _ => assert_eq!(names(&live), ["after 20", "before 50"], "{suffixes:?}"),
        }
    }
}

/// Whoever makes a new log in the place of the deleted one goes on from the file as it is: merging
/// the deleted one into it would damage it.
#[test]
fn a_deleted_log_that_another_program_replaced() {
    for written in [true, false] {
        let dir = TempDir::new().unwrap();
        let live = dir.path().join("live.db");
        run(async {
            let sink = at(&live, "a").open().await.unwrap();
            persist(&*sink, &batch(spans(1, "before", 50))).await;
            let output = Command::new("sqlite3")
                .arg(&live)
                .arg("create table theirs (x); pragma wal_checkpoint(truncate)")
                .output();
            assert!(output.unwrap().status.success());
            persist(&*sink, &batch(spans(2, "lost", 400))).await;
            for suffix in ["-wal", "-shm"] {
                fs::remove_file(beside(&live, suffix)).unwrap();
            }
            let mut other = Command::new("sqlite3")
                .arg(&live)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut asks = other.stdin.take().unwrap();
            let mut answers = BufReader::new(other.stdout.take().unwrap()).lines();
            let mut ask = |sql: &str| {
                writeln!(asks, "{sql};\n.print done").unwrap();
                assert!(answers.any(|line| line.unwrap() == "done"));
            };
            let insert = "insert into theirs with recursive n(i) as (select 1 union all select \
                          i + 1 from n where i < 100) select zeroblob(4000) from n";
            ask("select count(*) from spans");
            if written {
                ask(insert);
            }
            sink.write(&batch(spans(3, "after", 10))).await.unwrap();
            if !written {
                ask(insert);
            }
            drop(asks);
            other.wait().unwrap();
            sink.close().await.unwrap();
        });
        assert_sound(&live);
        let mut found = names(&live);
        // On a slow machine it may have been merged before the other program came.
        found.retain(|name| name != "lost 400");
        assert_eq!(found, ["after 10", "before 50"], "{written}");
        assert_eq!(count(&live, "theirs"), 100);
    }
}

/// Everything is in the file that was there before, so nothing is in the way of the next.
#[test]
fn a_restore_below_another_program_once_everything_is_merged() {
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    run(async {
        let sink = at(&live, "a").open().await.unwrap();
        persist(&*sink, &batch(spans(1, "before", 300))).await;
        back_up(BACKUPS[0], &live, &saved);
        persist(&*sink, &batch(spans(2, "lost", 10))).await;
        while fs::metadata(beside(&live, "-wal")).unwrap().len() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        restore(Restore::Move, &saved, &live);
        let mut other = Command::new("sqlite3")
            .arg(&live)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut asks = other.stdin.take().unwrap();
        let mut answers = BufReader::new(other.stdout.take().unwrap()).lines();
        writeln!(asks, "select count(*) from spans;\n.print done").unwrap();
        assert!(answers.any(|line| line.unwrap() == "done"));
        sink.write(&batch(spans(3, "after", 10))).await.unwrap();
        drop(asks);
        other.wait().unwrap();
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["after 10", "before 300"]);
}

/// A copy that takes its time: what is there in the meantime is not taken for a database.
#[test]
fn a_backup_that_is_copied_slowly() {
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    run(async {
        let sink = at(&live, "a").open().await.unwrap();
        persist(&*sink, &batch(spans(1, "before", 300))).await;
        back_up(BACKUPS[0], &live, &saved);
        persist(&*sink, &batch(spans(2, "lost", 300))).await;
        let content = fs::read(&saved).unwrap();
        let mut file = fs::File::create(&live).unwrap();
        for part in content.chunks(content.len() / 8 + 1) {
            let error = sink.write(&batch(spans(3, "after", 1))).await.unwrap_err();
            assert_eq!(error.retry(), Retry::Backoff, "{error}");
            file.write_all(part).unwrap();
        }
        drop(file);
        persist(&*sink, &batch(spans(3, "after", 1))).await;
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["after 1", "before 300"]);
}

/// Another program has the file, and with it the log, open: whatever is done is wrong, so nothing
/// is done.
#[cfg(target_os = "linux")]
#[test]
fn a_restore_below_another_program_is_an_error_until_that_ends() {
    // On a slow machine the sink may have noticed before the other program came.
    let told = (0..10).any(|_| restored_below_another(Restore::Copy));
    assert!(told, "it is always merged");
    for _ in 0..3 {
        restored_below_another(Restore::Move);
    }
}

/// Whether a process holds locks on a file.
#[cfg(target_os = "linux")]
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.contains(&format!(":{} ", fs::metadata(path).unwrap().ino()))
}

/// False where the log was merged, or the sink had noticed, before the other program had the file,
/// or that gave the file up again because it found it damaged.
#[cfg(target_os = "linux")]
fn restored_below_another(how: Restore) -> bool {
    use std::os::unix::fs::MetadataExt;
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    let log = || fs::metadata(beside(&live, "-wal")).ok();
    let told = run(async {
        let sink = at(&live, "a").open().await.unwrap();
        persist(&*sink, &batch(spans(1, "before", 300))).await;
        back_up(BACKUPS[0], &live, &saved);
        persist(&*sink, &batch(spans(2, "lost", 300))).await;
        let before = log().unwrap().ino();
        let mut other = Command::new("sqlite3")
            .arg(&live)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut asks = other.stdin.take().unwrap();
        let mut answers = BufReader::new(other.stdout.take().unwrap()).lines();
        let mut ask = |sql: &str| {
            writeln!(asks, "{sql}").unwrap();
            assert!(answers.any(|line| line.unwrap() == "done"));
        };
        if let Restore::Move = how {
            restore(how, &saved, &live);
        }
        // It may well find the file damaged: it gets the log of the one before.
        ask("select count(*) from spans;\n.print done");
        if let Restore::Copy = how {
            restore(how, &saved, &live);
        }
        let told =
            log().is_some_and(|log| log.len() > 0 && log.ino() == before) && is_locked(&live);
        if told {
            // Until nobody is taken to be writing it still.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let content = fs::read(&live).unwrap();
            let error = sink.write(&batch(spans(3, "after", 5))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            let text = error.to_string();
            assert!(text.contains("restart the other program"), "{text}");
            assert_eq!(fs::read(&live).unwrap(), content, "not one byte");
        }
        // Killed: it would merge the log into the file when it ends.
        other.kill().unwrap();
        other.wait().unwrap();
        persist(&*sink, &batch(spans(3, "after", 5))).await;
        sink.close().await.unwrap();
        told
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["after 5", "before 300"], "{how:?}");
    told
}

/// A file that another program merges while it is open is no replaced one.
#[test]
fn merges_of_another_program_are_no_restore() {
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live.db");
    run(async {
        let sink = at(&live, "a").open().await.unwrap();
        for n in 0..20 {
            let written = sink.write(&batch(spans(n + 1, "s", 20))).await.unwrap();
            assert!(written.refused.is_empty());
            let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][n as usize % 4];
            let output = Command::new("sqlite3")
                .arg(&live)
                .arg(format!("PRAGMA wal_checkpoint({mode})"))
                .output()
                .unwrap();
            assert!(output.status.success());
        }
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["s 400"]);
    let all: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(all.len(), 1, "{all:?}");
}

/// MLflow's server merges by itself and writes on while the sink is idle: nothing is wrong with the
/// file, neither now nor after it was killed.
#[test]
fn another_program_merges_makes_the_file_grow_and_writes_on() {
    for killed in [false, true] {
        let dir = TempDir::new().unwrap();
        let live = dir.path().join("live.db");
        run(async {
            let sink = at(&live, "a").open().await.unwrap();
            persist(&*sink, &batch(spans(1, "before", 300))).await;
            while fs::metadata(beside(&live, "-wal")).unwrap().len() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let len = fs::metadata(&live).unwrap().len();
            let mut other = Command::new("sqlite3")
                .arg(&live)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut asks = other.stdin.take().unwrap();
            let mut answers = BufReader::new(other.stdout.take().unwrap()).lines();
            writeln!(
                asks,
                "create table theirs (x); insert into theirs with recursive n(i) as (select 1 union \
                 all select i + 1 from n where i < 2000) select zeroblob(4000) from n;\n\
                 insert into theirs values (1);\ninsert into theirs values (2);\n.print done"
            )
            .unwrap();
            assert!(answers.any(|line| line.unwrap() == "done"));
            assert!(fs::metadata(&live).unwrap().len() > len, "it was merged");
            assert!(fs::metadata(beside(&live, "-wal")).unwrap().len() > 0);
            if killed {
                other.kill().unwrap();
            }
            // At once, not when it is tried again.
            sink.write(&batch(spans(2, "after", 10))).await.unwrap();
            assert_eq!(count(&live, "theirs"), 2002);
            drop(asks);
            other.wait().unwrap();
            sink.close().await.unwrap();
        });
        assert_sound(&live);
        assert_eq!(names(&live), ["after 10", "before 300"]);
        assert_eq!(count(&live, "theirs"), 2002);
        let all: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(all.len(), 1, "{all:?}");
    }
}

const FILE: &str = "TEST_WRITER_FILE";
const ROUND: &str = "TEST_WRITER_ROUND";

#[test]
#[ignore = "the part of a process that is killed"]
fn writer() {
    let path = PathBuf::from(std::env::var(FILE).unwrap());
    let round: u128 = std::env::var(ROUND).unwrap().parse().unwrap();
    let pipeline = Pipeline::builder().build().unwrap();
    let destination = Destination::new(at(&path, "a"));
    for n in 0..u128::MAX {
        let trace = (round << 32) + n + 1;
        let began = now();
        let spans = spans(trace, "s", 1 + (n % 40) as u64);
        let taken = pipeline.ingest(Default::default(), Default::default(), spans, &destination);
        assert!(taken.accepted > 0);
        let report = pipeline.flush(Duration::from_secs(60)).wait();
        assert!(report.all_stored(), "{report}");
        let mut out = std::io::stdout().lock();
        writeln!(out, "stored {trace:032x} {} {began} .", 1 + n % 40).unwrap();
        out.flush().unwrap();
    }
}

/// Nanoseconds, by a clock that all processes share.
fn now() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_nanos()
}

/// Traces that the writer reported as stored, with their number of spans, and when it began each.
type Reported = Vec<(String, u128)>;

fn all(reported: &Reported) -> BTreeSet<String> {
    reported.iter().map(|(trace, _)| trace.clone()).collect()
}

/// Runs the writer for a while and kills it; what it reported as stored.
fn killed(path: &Path, round: u64, time: Duration) -> BTreeSet<String> {
    all(&killed_amid(path, round, time, || ()))
}

/// Runs and kills the writer until it leaves something in the log: on a slow machine that may just
/// have been merged.
fn killed_with_log(path: &Path) -> BTreeSet<String> {
    let mut reported = BTreeSet::new();
    for round in 1..20 {
        reported.extend(killed(path, round, Duration::from_millis(10)));
        if fs::metadata(beside(path, "-wal")).unwrap().len() > 0 {
            return reported;
        }
    }
    panic!("the log is always empty");
}

fn killed_amid(path: &Path, round: u64, time: Duration, amid: impl FnOnce()) -> Reported {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (begun, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .filter_map(|line| {
                let mut words = line.strip_prefix("stored ")?.split(' ');
                let (id, spans, began) = (words.next()?, words.next()?, words.next()?);
                // The last line may be cut.
                words.next()?;
                Some((format!("{id} {spans}"), began.parse().unwrap()))
            })
            .inspect(|_| {
                let _ = begun.send(());
            })
            .collect()
    });
    first
        .recv_timeout(Duration::from_secs(120))
        .expect("it stores something");
    std::thread::sleep(time);
    amid();
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn stored(path: &Path) -> BTreeSet<String> {
    let sql = "SELECT substr(trace_id, 4) || ' ' || count(*) FROM spans GROUP BY trace_id";
    texts(path, sql).into_iter().collect()
}

/// Kills a writer, restores backups over the file, moves it away and starts again, in turn.
fn rounds(count: u64) {
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    // What is at the path: everything reported since it was put there.
    let mut expected = BTreeSet::new();
    let mut in_backup = BTreeSet::new();
    let mut reported = 0;
    for round in 1..=count {
        let time = Duration::from_millis(next(120));
        let what = next(6);
        let how = RESTORES[next(3) as usize];
        let backup = BACKUPS[next(3) as usize];
        let mut amid_restore = None;
        let fresh = killed_amid(&live, round, time, || {
            // Also while it lives, where the file is found by what comes after.
            if what == 5 && saved.exists() {
                // Who copies over the file itself at the very moment at which it is merged or
                // committed damages it, whatever the program does; the docs tell.
                restore(Restore::Move, &saved, &live);
                amid_restore = Some(now());
            }
        });
        reported += fresh.len();
        if let Some(at) = amid_restore {
            // What was reported before is gone with the file, and what came after is there.
            expected = in_backup.clone();
            let since = fresh.iter().filter(|(_, began)| *began > at);
            expected.extend(since.map(|(trace, _)| trace.clone()));
        } else {
            expected.extend(all(&fresh));
        }
        let text = format!("round {round}: {what} {how:?} {backup:?}");
        match what {
            0 if saved.exists() => {
                restore(how, &saved, &live);
                expected = in_backup.clone();
            }
            1 => {
                let moved = dir.path().join(format!("moved{round}.db"));
                // With its log, as somebody does who knows SQLite.
                for suffix in ["-wal", "-shm", "-journal", ""] {
                    let from = beside(&live, suffix);
                    if from.exists() {
                        fs::rename(from, beside(&moved, suffix)).unwrap();
                    }
                }
                assert_sound(&moved);
                let there = stored(&moved);
                assert!(there.is_superset(&expected), "{text}");
                expected.clear();
            }
            _ => {}
        }
        // Restarted, with one more span.
        let trace = (u128::from(round) << 32) + (1 << 31);
        run(async {
            let sink = open(&live).await;
            persist(&*sink, &batch(spans(trace, "restart", 1))).await;
            sink.close().await.unwrap();
        });
        expected.insert(format!("{trace:032x} 1"));
        assert_sound(&live);
        assert!(!beside(&live, "-wal").exists(), "{text}");
        let there = stored(&live);
        let lost: Vec<_> = expected.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "{text}: {} lost of {}",
            lost.len(),
            there.len()
        );
        expected = there;
        if next(3) == 0 || round == 2 {
            back_up(backup, &live, &saved);
            in_backup = stored(&saved);
        }
    }
    println!("{count} rounds, {reported} traces reported as stored");
}

/// Opens as a lane does, again and again.
async fn open(path: &Path) -> Box<dyn TraceSink> {
    let began = Instant::now();
    loop {
        match at(path, "a").open().await {
            Ok(sink) => return sink,
            Err(e) => {
                assert_eq!(e.retry(), Retry::Backoff, "{e:?}");
                assert!(began.elapsed() < Duration::from_secs(60), "{e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[test]
fn killed_restored_moved_and_restarted() {
    rounds(12);
}

#[test]
#[ignore = "50 rounds take a minute: `cargo test -p trace-destination-experiment --test replaced -- --ignored fifty`"]
fn killed_restored_moved_and_restarted_fifty_times() {
    rounds(50);
}

/// After a kill the log is there. A backup that comes over the file must not get it.
#[test]
fn a_log_that_a_killed_writer_left_beside_a_restored_file() {
    for how in RESTORES {
        for backup in BACKUPS {
            let dir = TempDir::new().unwrap();
            let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
            run(store(&at(&live, "a"), &batch(spans(1, "before", 300)))).unwrap();
            back_up(backup, &live, &saved);
            killed_with_log(&live);
            restore(how, &saved, &live);
            run(async {
                let sink = open(&live).await;
                persist(&*sink, &batch(spans(2, "after", 10))).await;
                sink.close().await.unwrap();
            });
            assert_sound(&live);
            assert_eq!(
                names(&live),
                ["after 10", "before 300"],
                "{how:?} {backup:?}"
            );
            assert!(
                beside(&live, "-stale1-wal").exists(),
                "kept under another name"
            );
        }
    }
}

/// As after a power failure, or where it could not be written any more: a mark that is older than
/// the log proves nothing against it.
#[test]
fn an_old_mark_beside_a_good_log() {
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live.db");
    let mark = beside(&live, "-mark");
    let mut reported = killed_with_log(&live);
    let old = fs::read(&mark).unwrap();
    let len = fs::metadata(&live).unwrap().len();
    for round in 100.. {
        // Long enough to merge what the one before left, not what it writes itself.
        reported.extend(killed(&live, round, Duration::from_millis(1)));
        let has_log = fs::metadata(beside(&live, "-wal")).unwrap().len() > 0;
        if has_log && fs::metadata(&live).unwrap().len() != len {
            break;
        }
        assert!(round < 120, "the log is always empty");
    }
    fs::write(&mark, old).unwrap();
    run(async {
        let sink = open(&live).await;
        persist(&*sink, &batch(spans(2, "after", 10))).await;
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert!(stored(&live).is_superset(&reported));
    let all: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(all.len(), 1, "{all:?}");
}

/// Restored twice, with a writer that is killed before it has merged anything.
#[test]
fn the_same_backup_again_and_again() {
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    run(store(&at(&live, "a"), &batch(spans(1, "before", 300)))).unwrap();
    back_up(BACKUPS[1], &live, &saved);
    for round in 0..6 {
        killed(&live, round + 1, Duration::from_millis(1));
        restore(RESTORES[round as usize % 3], &saved, &live);
    }
    run(async {
        let sink = open(&live).await;
        persist(&*sink, &batch(spans(2, "after", 10))).await;
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["after 10", "before 300"]);
}

/// The main file alone is moved away after a kill: its log stays, under a name that fits.
#[test]
fn a_log_whose_file_was_moved_away_is_kept() {
    let dir = TempDir::new().unwrap();
    let (live, moved) = (dir.path().join("live.db"), dir.path().join("moved.db"));
    let reported = killed_with_log(&live);
    fs::rename(&live, &moved).unwrap();
    run(store(&at(&live, "a"), &batch(spans(1, "after", 10)))).unwrap();
    assert_sound(&live);
    assert_eq!(names(&live), ["after 10"]);
    // As the page on SQLite advises.
    fs::rename(beside(&live, "-stale1-wal"), beside(&moved, "-wal")).unwrap();
    assert_sound(&moved);
    assert!(stored(&moved).is_superset(&reported));
}

/// Everything together is copied elsewhere after a kill: the log belongs.
#[test]
fn what_a_killed_writer_left_can_be_moved_and_opened_elsewhere() {
    for copied in [false, true] {
        let dir = TempDir::new().unwrap();
        let (live, moved) = (dir.path().join("live.db"), dir.path().join("moved.db"));
        let reported = killed_with_log(&live);
        for suffix in ["", "-wal", "-shm", "-mark"] {
            match copied {
                true if suffix == "-mark" => {}
                true => drop(fs::copy(beside(&live, suffix), beside(&moved, suffix)).unwrap()),
                false => fs::rename(beside(&live, suffix), beside(&moved, suffix)).unwrap(),
            }
        }
        run(store(&at(&moved, "a"), &batch(spans(1, "after", 10)))).unwrap();
        assert_sound(&moved);
        assert!(stored(&moved).is_superset(&reported));
    }
}

/// Where neither count nor mark decides, nothing is written, and the error's advice works.
#[test]
fn a_log_of_which_nobody_can_tell_is_an_error() {
    for rename in [true, false] {
        let dir = TempDir::new().unwrap();
        let live = dir.path().join("live.db");
        let reported = killed_with_log(&live);
        // As it was, but written by somebody.
        let content = fs::read(&live).unwrap();
        fs::write(&live, content).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        let before = fs::read(&live).unwrap();
        let opened = run(at(&live, "a").open());
        let Err(error) = opened else {
            panic!("the file may be another one");
        };
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Corrupt, Retry::Backoff)
        );
        assert!(error.to_string().contains("rename the log"), "{error}");
        assert_eq!(fs::read(&live).unwrap(), before);
        match rename {
            true => fs::rename(beside(&live, "-wal"), beside(&live, "-old")).unwrap(),
            false => {
                let output = Command::new("sqlite3")
                    .arg(&live)
                    .arg("select count(*) from spans")
                    .output();
                assert!(output.unwrap().status.success());
            }
        }
        run(store(&at(&live, "a"), &batch(spans(1, "after", 10)))).unwrap();
        assert_sound(&live);
        assert_eq!(stored(&live).is_superset(&reported), !rename);
    }
}

/// A rollback journal is a log too: that of a killed writer would undo the restored file.
#[test]
fn a_rollback_journal_beside_a_restored_file() {
    let dir = TempDir::new().unwrap();
    let (live, saved) = (dir.path().join("live.db"), dir.path().join("saved.db"));
    let location = uri(&format!(
        "sqlite:///{}?experiment_name=a&journal_mode=delete",
        live.display()
    ))
    .unwrap();
    run(store(&location, &batch(spans(1, "before", 300)))).unwrap();
    fs::copy(&live, &saved).unwrap();
    run(store(&location, &batch(spans(2, "lost", 300)))).unwrap();
    // A transaction that ends with its process leaves its journal.
    let mut other = Command::new("sqlite3")
        .arg(&live)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asks = other.stdin.take().unwrap();
    writeln!(
        asks,
        "pragma cache_size = 1; begin immediate; update spans set name = 'half'; \
         update trace_info set status = 'x'; select 1;"
    )
    .unwrap();
    let began = Instant::now();
    let journal = beside(&live, "-journal");
    while !fs::metadata(&journal).is_ok_and(|meta| meta.len() > 100_000) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    other.kill().unwrap();
    other.wait().unwrap();
    let hot = fs::read(&journal).unwrap();
    // Beside its own file it is replayed.
    run(store(&location, &batch(spans(3, "next", 10)))).unwrap();
    assert_eq!(names(&live), ["before 300", "lost 300", "next 10"]);
    assert_sound(&live);
    // Beside a backup it is not.
    fs::write(&journal, hot).unwrap();
    restore(Restore::Copy, &saved, &live);
    run(async {
        let sink = location_open(&location).await;
        persist(&*sink, &batch(spans(3, "next", 10))).await;
        sink.close().await.unwrap();
    });
    assert_sound(&live);
    assert_eq!(names(&live), ["before 300", "next 10"]);
    assert!(beside(&live, "-stale1-journal").exists());
}

async fn location_open(
    location: &trace_destination_experiment::ExperimentLocation,
) -> Box<dyn TraceSink> {
    loop {
        match location.open().await {
            Ok(sink) => return sink,
            Err(e) => {
                assert_eq!(e.retry(), Retry::Backoff, "{e:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
