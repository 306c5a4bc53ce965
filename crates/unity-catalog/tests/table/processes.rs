//! Several processes on one table, and processes that die in the middle.
//!
//! The other processes are this test binary again, running the ignored test `child`.

use crate::help::*;
use deltalake::kernel::Action;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use trace_destination_core::Retry;
use trace_destination_core::TraceLocation as _;
use trace_destination_unity_catalog::UnityCatalogLocation;

const ROOT: &str = "TEST_CHILD_ROOT";
const WRITER: &str = "TEST_CHILD_WRITER";
const FROM: &str = "TEST_CHILD_FROM";

const WRITERS: u128 = 8;
const COMMITS: u64 = 50;

fn spawn(root: &Path, writer: u128, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--ignored", "--nocapture"])
        .env(ROOT, root)
        .env(WRITER, writer.to_string())
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the part of a child process"]
fn child() {
    let var = |name| std::env::var(name).unwrap();
    let root = var(ROOT);
    let writer: u128 = var(WRITER).parse().unwrap();
    let from: u64 = var(FROM).parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Eight processes that flush one table's log wait for the disk most of the time; what a
        // killed process leaves is the same without.
        let location = UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root(root.clone())
            .with_durable(false)
            .build()
            .unwrap();
        let sink = loop {
            match location.open().await {
                Ok(sink) => break sink,
                Err(e) => {
                    assert_eq!(e.retry(), Retry::Backoff, "{e:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        for sequence in from..COMMITS {
            persist(&*sink, &numbered(writer, sequence)).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "stored {sequence}").unwrap();
            out.flush().unwrap();
        }
        sink.close().await.unwrap();
    });
}

/// Runs a writer until it is through, killing it at random; returns how often.
fn drive(root: &Path, writer: u128) -> u32 {
    let mut random = u64::try_from(writer)
        .unwrap()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        | 1;
    let mut kills = 0;
    // What was said to be stored; the batch after it may be stored as well, and is sent again.
    let stored = Arc::new(AtomicU64::new(0));
    loop {
        let mut child = spawn(root, writer, stored.load(Ordering::SeqCst));
        let out = BufReader::new(child.stdout.take().unwrap());
        let told = stored.clone();
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(n) = line.strip_prefix("stored ") {
                    told.store(n.parse::<u64>().unwrap() + 1, Ordering::SeqCst);
                }
            }
        });
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mercy = kills >= 4;
        if !mercy {
            std::thread::sleep(Duration::from_millis(100 + random % 700));
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        reader.join().unwrap();
        if status.success() {
            return kills;
        }
        assert!(!mercy, "writer {writer} failed by itself");
        kills += 1;
    }
}

#[test]
fn eight_processes_that_are_killed_and_send_again_lose_and_double_nothing() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    let kills: u32 = std::thread::scope(|scope| {
        let running: Vec<_> = (1..=WRITERS)
            .map(|writer| scope.spawn(move || drive(root, writer)))
            .collect();
        running.into_iter().map(|r| r.join().unwrap()).sum()
    });
    assert!(kills >= 8, "only {kills} processes were killed");
    let folder = shop(root);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let writers: Vec<u128> = (1..=WRITERS).collect();
    let expected = expected(&writers, COMMITS);
    assert_eq!(runtime.block_on(stored(&folder)), expected);

    // Every version there is, each readable, each batch in one of them, no file in two.
    let log = commits(&folder);
    let count = u64::try_from(WRITERS).unwrap() * COMMITS;
    assert_eq!(
        log.keys().copied().collect::<Vec<_>>(),
        (0..=count).collect::<Vec<_>>()
    );
    let mut named = Vec::new();
    for commit in log.values() {
        for line in commit {
            let action: Action = serde_json::from_value(line.clone()).unwrap();
            if let Action::Add(add) = action {
                named.push(add.path);
            }
        }
    }
    named.sort();
    named.dedup();
    assert_eq!(named.len() as u64, count);
    assert!(named.iter().all(|n| folder.join(n).exists()));
    // What the dead left behind is no part of the table, and goes.
    let left = parquet_files(&folder).len() - named.len();
    runtime.block_on(async {
        let care = location(root).maintenance().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let removed = care.remove_orphans(Some(Duration::ZERO)).await.unwrap();
        let (partial, whole): (Vec<_>, Vec<_>) = removed.iter().partition(|n| n.contains('#'));
        assert_eq!(whole.len(), left);
        println!("{} of them were never finished", partial.len());
        assert_eq!(stored(&folder).await, expected);
        let again = care.orphans(Some(Duration::ZERO)).await.unwrap();
        assert_eq!(again, [] as [&str; 0]);
    });
    for folder in [folder.clone(), folder.join("_delta_log")] {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        assert!(names.all(|name| !name.contains('#')));
    }
    assert_eq!(parquet_files(&folder), named);
    println!("{kills} processes were killed, {left} files were left behind");
}
