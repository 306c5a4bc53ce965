//! No room left: nothing half-written, and everything goes on once there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Retry, TraceLocation};
use trace_destination_experiment::test_support::limit_pages;

#[test]
fn a_batch_that_does_not_fit_is_taken_back_whole_and_can_come_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let location = at(&path, "a");
        let sink = location.open().await.unwrap();
        sink.write(&batch(conversation(0x1000))).await.unwrap();
        let pages: u32 = texts(&path, "PRAGMA page_count")[0].parse().unwrap();
        limit_pages(&location, pages + 20).unwrap();

        let mut stored = 1;
        let (failed, error) = loop {
            // Thirty traces at a time, so that a full disk strikes in the middle of a batch.
            let spans = (0..30).flat_map(|i| conversation(stored as u128 * 100 + i));
            let next = batch(spans.collect());
            match sink.write(&next).await {
                Ok(_) => stored += 30,
                Err(error) => break (next, error),
            }
            assert!(stored < 10_000, "never full");
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
        assert_eq!(error.retry(), Retry::Backoff);
        assert_eq!(error.location(), Some(location.uri()));
        assert_eq!(count(&path, "trace_info"), stored);
        assert_eq!(count(&path, "spans"), 2 * stored);
        assert_sound(&path);
        assert_eq!(
            sink.write(&failed).await.unwrap_err().kind(),
            ErrorKind::StorageFull
        );

        limit_pages(&location, 1 << 20).unwrap();
        sink.write(&failed).await.unwrap();
        assert_eq!(count(&path, "trace_info"), stored + 30);
        assert_eq!(count(&path, "spans"), 2 * (stored + 30));
        sink.close().await.unwrap();
    });
    assert_sound(&path);
}
