//! Closed means closed: no log is left, and a plain copy of the file has everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Destination, ErrorKind, Pipeline, TraceLocation};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn ingest(pipeline: &Pipeline, destination: &Destination, trace: u128) {
    let (resource, scope) = (Arc::default(), Arc::default());
    let taken = pipeline.ingest(resource, scope, conversation(trace), destination);
    assert_eq!(taken.accepted, 2);
}

/// Spans in a copy of the main file alone.
fn in_copy(path: &Path) -> i64 {
    let copy = beside(path, ".copy");
    std::fs::copy(path, &copy).unwrap();
    assert_sound(&copy);
    count(&copy, "spans")
}

fn assert_closed(path: &Path, spans: i64) {
    for suffix in ["-wal", "-shm", "-journal", "-mark"] {
        assert!(!beside(path, suffix).exists(), "{suffix} is left");
    }
    assert_eq!(in_copy(path), spans);
}

#[test]
fn shutdown_leaves_no_log() {
    let dir = TempDir::new().unwrap();
    for round in 0..40 {
        let path = dir.path().join(format!("{round}.db"));
        let pipeline = Pipeline::builder().build().unwrap();
        // Two locations of one file.
        let destinations = [at(&path, "a"), at(&path, "b")].map(Destination::new);
        for n in 0..200 {
            ingest(&pipeline, &destinations[n % 2], n as u128 + 1);
        }
        let report = pipeline.shutdown(Duration::from_secs(30)).wait();
        assert!(report.all_stored(), "{report}");
        assert_closed(&path, 400);
    }
}

/// One location of the file cannot be opened, and is tried again and again. An attempt that is on
/// its way when the pipeline ends is not waited for.
#[test]
fn a_location_that_cannot_be_opened_leaves_nothing_open() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let missing = uri(&format!("sqlite:///{}?experiment_id=99", path.display())).unwrap();
    let pipeline = Pipeline::builder().build().unwrap();
    ingest(&pipeline, &Destination::new(at(&path, "a")), 1);
    ingest(&pipeline, &Destination::new(missing.clone()), 2);
    let report = pipeline.shutdown(Duration::from_secs(30)).wait();
    assert!(!report.all_stored());
    let began = Instant::now();
    while beside(&path, "-wal").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "never closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_closed(&path, 2);
    // Nor alone.
    assert!(run(missing.open()).is_err());
    assert_closed(&path, 2);
}

#[test]
fn the_last_of_several_pipelines_closes_the_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let destination = Destination::new(at(&path, "a"));
    let pipelines: Vec<_> = (0..3)
        .map(|_| Pipeline::builder().build().unwrap())
        .collect();
    for (n, pipeline) in pipelines.iter().enumerate() {
        ingest(pipeline, &destination, n as u128 + 1);
        assert!(pipeline.flush(Duration::from_secs(30)).wait().all_stored());
    }
    for pipeline in &pipelines {
        let report = pipeline.shutdown(Duration::from_secs(30)).wait();
        assert!(report.all_stored(), "{report}");
        // Also while others have the file open.
        assert_eq!(in_copy(&path), 6);
    }
    assert_closed(&path, 6);
}

#[test]
fn a_pipeline_that_leaves_a_shared_file_leaves_its_spans_in_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let stays = at(&path, "a").open().await.unwrap();
        let leaves = at(&path, "b").open().await.unwrap();
        stays.write(&batch(conversation(1))).await.unwrap();
        leaves.write(&batch(conversation(2))).await.unwrap();
        leaves.close().await.unwrap();
        assert_eq!(in_copy(&path), 4);
        stays.write(&batch(conversation(3))).await.unwrap();
        stays.close().await.unwrap();
    });
    assert_closed(&path, 6);
}

#[test]
fn idle_locations_are_closed_with_their_log() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let pipeline = Pipeline::builder()
        .with_idle_close(Duration::from_millis(50))
        .build()
        .unwrap();
    ingest(&pipeline, &Destination::new(at(&path, "a")), 1);
    assert!(pipeline.flush(Duration::from_secs(30)).wait().all_stored());
    let began = Instant::now();
    while beside(&path, "-wal").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "never closed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(in_copy(&path), 2);
    pipeline.shutdown(Duration::from_secs(30)).wait();
    assert_closed(&path, 2);
}

/// Two seconds are promised; a machine that runs tests may be slow.
#[test]
fn some_time_after_a_flush_a_copy_of_the_open_file_has_everything() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        for n in 0..5 {
            sink.write(&batch(conversation(n + 1))).await.unwrap();
            let began = Instant::now();
            // Looking into the file must not help it.
            while std::fs::metadata(beside(&path, "-wal")).unwrap().len() > 0 {
                assert!(began.elapsed() < Duration::from_secs(60), "never merged");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(in_copy(&path), 2 * (n as i64 + 1));
        }
        sink.close().await.unwrap();
    });
    assert_closed(&path, 10);
}

#[test]
fn a_reader_that_is_in_the_way_is_told_of_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let location = at(&path, "a");
    run(store(&location, &batch(conversation(1)))).unwrap();
    let reader = Connection::open(&path).unwrap();
    let read = "SELECT count(*) FROM spans";
    let spans = || reader.query_row(read, [], |row| row.get::<_, i64>(0));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(spans().unwrap(), 2);
    run(async {
        let sink = location.open().await.unwrap();
        sink.write(&batch(conversation(2))).await.unwrap();
        let error = sink.close().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains("-wal"), "{error}");
    });
    assert_eq!(spans().unwrap(), 2);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(spans().unwrap(), 4);
    run(store(&location, &batch(conversation(3)))).unwrap();
    drop(reader);
    assert_closed(&path, 6);
}

/// The file grows in steps of 4 MiB of log, and the log by not much more.
#[test]
fn the_log_stays_small_under_load() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        let text = "x".repeat(20_000);
        let mut most = 0;
        for n in 0..40u128 {
            let spans = (0..50)
                .map(|i| span(n + 1, i + 1, None, "s").with_attribute("t", text.clone()))
                .collect();
            sink.write(&batch(spans)).await.unwrap();
            most = most.max(std::fs::metadata(beside(&path, "-wal")).unwrap().len());
        }
        assert!(std::fs::metadata(&path).unwrap().len() > 30 << 20);
        assert!(most < 16 << 20, "{most}");
        sink.close().await.unwrap();
    });
    assert_closed(&path, 2000);
}
