//! As many tenants as a platform has, each with a table of its own, in one process: threads and
//! memory. Alone in its program, since both are of the whole process.
//!
//! `TENANTS=10000 cargo test --release --test tenants -- --nocapture` prints the figures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trace_destination_core::{Destination, Pipeline, Resource, Scope, SpanRecord};
use trace_destination_unity_catalog::UnityCatalogLocation;

const FLUSH: Duration = Duration::from_secs(600);
/// Threads of this process, those of the test harness and of the watch included.
const THREADS: u64 = 64;

/// A line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn tenants_share_a_few_threads() {
    let tenants = std::env::var("TENANTS").map_or(1_000, |n| n.parse::<u64>().unwrap());
    let dir = TempDir::new().unwrap();
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let (over, peak) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let watch = {
        let (over, peak) = (over.clone(), peak.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(status("Threads:"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let before = status("VmRSS:");
    let destinations: Vec<Destination> = (0..tenants)
        .map(|i| {
            let location = UnityCatalogLocation::builder()
                .with_name(format!("main.tenant_{i}.shop"))
                .with_root(dir.path().display().to_string())
                .build();
            Destination::new(location.unwrap())
        })
        .collect();
    let named = status("VmRSS:");
    let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
    // First every table is made, then all are open.
    for round in [1_u128, 2] {
        let began = Instant::now();
        for (tenant, destination) in destinations.iter().enumerate() {
            let trace = TraceId::from((round << 64) | (tenant as u128 + 1));
            let spans = (1..=3)
                .map(|id| SpanRecord::new(trace, SpanId::from(id), "work", 1_000_000, 2_000_000))
                .collect();
            let sent = pipeline.ingest(resource.clone(), scope.clone(), spans, destination);
            assert_eq!(sent.dropped, 0);
        }
        let report = pipeline.flush(FLUSH).wait();
        assert!(report.all_stored(), "{report}");
        println!("round {round}: {:?}", began.elapsed());
    }
    let open = status("VmRSS:");
    over.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let peak = peak.load(Ordering::Relaxed);
    println!(
        "{tenants} tenants: {peak} threads at most; KiB each: {:.2} named, {:.2} open",
        (named.saturating_sub(before)) as f64 / tenants as f64,
        (open.saturating_sub(before)) as f64 / tenants as f64,
    );
    assert!(peak <= THREADS, "{peak} threads");
    assert!(pipeline.shutdown(FLUSH).wait().all_stored());
}
