//! Several processes on one file, and processes that die in the middle.
//!
//! The other processes are this test binary again, running the ignored test `child`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Retry, TraceLocation};

const FILE: &str = "TEST_CHILD_FILE";
const NUMBER: &str = "TEST_CHILD_NUMBER";
const TRACES: &str = "TEST_CHILD_TRACES";

fn spawn(path: &Path, number: u64, traces: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(NUMBER, number.to_string())
        .env(TRACES, traces.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The traces of one child are numbered from here.
fn base(number: u64) -> u128 {
    u128::from(number) << 32
}

#[test]
#[ignore = "the part of a child process"]
fn child() {
    let var = |name| std::env::var(name).unwrap();
    let path = var(FILE);
    let number: u64 = var(NUMBER).parse().unwrap();
    let traces: u64 = var(TRACES).parse().unwrap();
    run(async {
        let location = at(Path::new(&path), "shared");
        let sink = loop {
            match location.open().await {
                Ok(sink) => break sink,
                Err(e) => {
                    assert_eq!(e.retry(), Retry::Backoff, "{e:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        for i in 0..traces {
            let mut spans = conversation(base(number) + u128::from(i));
            // One span in a trace that all children write to.
            let usage = r#"{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}"#;
            spans.push(
                span(
                    u128::MAX - u128::from(i % 10),
                    number * 100_000 + i + 1,
                    Some(9),
                    "part",
                )
                .with_attribute("mlflow.chat.tokenUsage", usage),
            );
            let written = persist(&*sink, &batch(spans)).await;
            assert!(written.refused.is_empty(), "{:?}", written.refused);
            let mut out = std::io::stdout().lock();
            writeln!(out, "stored {i}").unwrap();
            out.flush().unwrap();
        }
        sink.close().await.unwrap();
    });
}

#[test]
fn processes_that_start_together_on_an_absent_file_lose_and_double_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new/x.db");
    let (children, traces) = (4, 60);
    let running: Vec<_> = (1..=children).map(|n| spawn(&path, n, traces)).collect();
    for mut child in running {
        // Drained, so that a child never waits for its reader.
        let out = BufReader::new(child.stdout.take().unwrap());
        let stored = out
            .lines()
            .filter(|l| l.as_ref().unwrap().starts_with("stored"))
            .count();
        assert!(child.wait().unwrap().success());
        assert_eq!(stored as u64, traces);
    }
    let (children, traces) = (children as i64, traces as i64);
    assert_eq!(count(&path, "experiments"), 1);
    assert_eq!(count(&path, "trace_info"), children * traces + 10);
    assert_eq!(count(&path, "spans"), children * traces * 3);
    // The shared traces add up what came from everywhere.
    let expected = children * traces / 10;
    assert_eq!(
        texts(
            &path,
            "SELECT value FROM trace_request_metadata WHERE \"key\" = 'mlflow.trace.tokenUsage' \
             AND request_id LIKE 'tr-ffffffff%'"
        ),
        vec![
            format!(
                "{{\"input_tokens\": {expected}, \"output_tokens\": {expected}, \"total_tokens\": {}}}",
                expected * 2
            );
            10
        ]
    );
    assert_sound(&path);
}

#[test]
fn what_was_reported_stored_survives_kill_9_at_any_moment() {
    let dir = TempDir::new().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut reported_in_all = 0;
    for round in 0..50u64 {
        // Half of the rounds die near the making of the file.
        let path = match round % 2 {
            0 => dir.path().join(format!("{round}.db")),
            _ => dir.path().join("common.db"),
        };
        let mut child = spawn(&path, round + 1, 1_000_000);
        let out = BufReader::new(child.stdout.take().unwrap());
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let delay = Duration::from_micros((random >> 33) % 250_000);
        let reader = std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .filter(|l| l.starts_with("stored "))
                .count()
        });
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let reported = reader.join().unwrap() as i64;
        reported_in_all += reported;

        // Another writer comes and finds everything, whole.
        run(async {
            let sink = at(&path, "shared").open().await.unwrap();
            sink.write(&batch(conversation(base(round + 1) + (1 << 31))))
                .await
                .unwrap();
            sink.close().await.unwrap();
        });
        assert_sound(&path);
        let own = format!("LIKE 'tr-{:024x}%'", round + 1);
        let found: i64 = texts(
            &path,
            &format!(
                "SELECT count(*) FROM trace_info WHERE request_id {own} AND status = 'OK' \
                 AND (SELECT count(*) FROM spans WHERE trace_id = request_id) = 2"
            ),
        )[0]
        .parse()
        .unwrap();
        let any: i64 = texts(
            &path,
            &format!("SELECT count(*) FROM trace_info WHERE request_id {own}"),
        )[0]
        .parse()
        .unwrap();
        assert_eq!(found, any, "round {round}: a trace is there in part");
        // The last report may have been cut off before its line was out.
        assert!(
            found - 1 == reported || found - 1 == reported + 1,
            "round {round}: {reported} reported, {} found",
            found - 1
        );
    }
    assert!(reported_in_all > 100, "killed too early to show anything");
}

#[test]
fn tasks_on_many_locations_of_one_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let mut tasks = Vec::new();
        for n in 0..40u64 {
            let location = at(&path, &format!("e{}", n % 20));
            tasks.push(tokio::spawn(async move {
                let mut sink = location.open().await.unwrap();
                for i in 0..20 {
                    let spans = conversation(base(n + 1) + i);
                    let written = persist(&*sink, &batch(spans)).await;
                    assert!(written.refused.is_empty());
                    if i == 10 {
                        sink.close().await.unwrap();
                        sink = location.open().await.unwrap();
                    }
                }
                sink.close().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(count(&path, "experiments"), 20);
    assert_eq!(count(&path, "trace_info"), 800);
    assert_eq!(
        texts(
            &path,
            "SELECT count(*) FROM spans JOIN trace_info ON trace_id = request_id \
             WHERE spans.experiment_id = trace_info.experiment_id"
        ),
        ["1600"]
    );
    // The file is closed: its log is gone.
    assert!(!dir.path().join("x.db-wal").exists());
    assert_sound(&path);
}

#[test]
fn a_batch_without_its_experiment_does_not_hold_up_others() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let (good, bad) = (at(&path, "good"), at(&path, "bad"));
        let (good, bad) = (good.open().await.unwrap(), bad.open().await.unwrap());
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'bad'")
            .unwrap();
        let (a, b) = (batch(conversation(1)), batch(conversation(2)));
        let (stored, refused) = tokio::join!(good.write(&a), bad.write(&b));
        stored.unwrap();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(count(&path, "trace_info"), 1);
    });
}
