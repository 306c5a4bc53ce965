//! Batches that are ready together are stored together.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures_util::future::join_all;
use std::path::Path;
use support::*;
use tempfile::TempDir;
use trace_destination_core::TraceLocation;

/// Transactions in the write-ahead log, by SQLite's file format: a frame that ends one carries the
/// size of the database.
fn transactions(path: &Path) -> usize {
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let page = number(8) as usize;
    (32..log.len())
        .step_by(24 + page)
        // Frames of before the log was begun anew have other salts.
        .take_while(|at| log[at + 8..at + 16] == log[16..24])
        .filter(|at| number(at + 4) != 0)
        .count()
}

#[test]
fn ready_batches_of_many_experiments_share_a_transaction() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut sinks = Vec::new();
        for n in 0..20 {
            sinks.push(at(&path, &format!("e{n}")).open().await.unwrap());
        }
        let before = transactions(&path);

        // The one thread for blocking work is busy until all batches wait.
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let batches: Vec<_> = (1..=20).map(|n| batch(conversation(n))).collect();
        let writes = join_all(sinks.iter().zip(&batches).map(|(s, b)| s.write(b)));
        let ((), results) = tokio::join!(
            biased;
            async {
                tokio::task::yield_now().await;
                release.send(()).unwrap();
            },
            writes
        );
        for result in results {
            assert!(result.unwrap().refused.is_empty());
        }
        assert_eq!(transactions(&path) - before, 1);
        assert_eq!(
            texts(
                &path,
                "SELECT count(*), count(DISTINCT experiment_id) FROM spans"
            ),
            ["40|20"]
        );
        busy.await.unwrap().unwrap();
        for sink in sinks {
            sink.close().await.unwrap();
        }
    });
}
