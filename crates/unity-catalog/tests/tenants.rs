//! As many tenants as a platform has, each with a table of its own, in one process: threads and
//! memory. Alone in its program, since both are of the whole process.
//!
//! `TENANTS=10000 cargo test --release --test tenants -- --nocapture` prints the figures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the figures are for people")]
#![cfg(target_os = "linux")]

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trace_destination_core::{
    BatchId, Destination, Pipeline, Resource, Scope, SpanGroup, SpanRecord, TraceBatch,
    TraceLocation as _,
};
use trace_destination_unity_catalog::UnityCatalogLocation;

const FLUSH: Duration = Duration::from_secs(600);
/// Threads of this process, those of the test harness and of the watch included.
const THREADS: u64 = 64;
/// KiB of an open table, what the process needs once included.
const MEMORY: f64 = 1024.0;

/// A line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The highest number of threads while `run` runs.
fn threads_of(run: impl FnOnce()) -> u64 {
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
    run();
    over.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    peak.load(Ordering::Relaxed)
}

fn location(dir: &TempDir, tenant: u64) -> UnityCatalogLocation {
    UnityCatalogLocation::builder()
        .with_name(format!("main.tenant_{tenant}.shop"))
        .with_root(dir.path().display().to_string())
        .build()
        .unwrap()
}

fn spans(trace: u128) -> Vec<SpanRecord> {
    let trace = TraceId::from(trace);
    let span = |id| SpanRecord::new(trace, SpanId::from(id), "work", 1_000_000, 2_000_000);
    (1..=3).map(span).collect()
}

#[test]
fn tenants_share_a_few_threads_and_little_memory() {
    let tenants = std::env::var("TENANTS").map_or(500, |n| n.parse::<u64>().unwrap());
    let peak = threads_of(|| sinks(tenants));
    println!("{tenants} tables opened and written at once: {peak} threads at most");
    assert!(peak <= THREADS, "{peak} threads");
    let peak = threads_of(|| pipeline(tenants));
    println!("{tenants} tenants of a pipeline: {peak} threads at most");
}

/// All tables at once, as tasks of one runtime.
fn sinks(tenants: u64) {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
        let writing: Vec<_> = (0..tenants)
            .map(|tenant| {
                let location = location(&dir, tenant);
                let group = SpanGroup {
                    resource: resource.clone(),
                    scope: scope.clone(),
                    spans: spans(u128::from(tenant) + 1)
                        .into_iter()
                        .map(Into::into)
                        .collect(),
                };
                tokio::spawn(async move {
                    let sink = location.open().await.unwrap();
                    let id = BatchId {
                        writer: uuid::Uuid::from_u128(u128::from(tenant)),
                        sequence: 0,
                    };
                    let batch = TraceBatch::new(id, vec![group], Vec::new());
                    let written = sink.write(&batch).await.unwrap();
                    assert!(written.refused.is_empty(), "{written:?}");
                })
            })
            .collect();
        for written in writing {
            written.await.unwrap();
        }
    });
}

fn pipeline(tenants: u64) {
    let dir = TempDir::new().unwrap();
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let before = status("VmRSS:");
    let destinations: Vec<Destination> = (0..tenants)
        .map(|tenant| Destination::new(location(&dir, tenant)))
        .collect();
    let named = status("VmRSS:");
    let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
    // First every table is made, then all are open.
    for round in [1_u128, 2] {
        let began = Instant::now();
        for (tenant, destination) in destinations.iter().enumerate() {
            let spans = spans((round << 64) | (tenant as u128 + 1));
            let sent = pipeline.ingest(resource.clone(), scope.clone(), spans, destination);
            assert_eq!(sent.dropped, 0);
        }
        let report = pipeline.flush(FLUSH).wait();
        assert!(report.all_stored(), "{report}");
        println!("round {round}: {:?}", began.elapsed());
    }
    let open = status("VmRSS:");
    let each = |now: u64| now.saturating_sub(before) as f64 / tenants as f64;
    println!("KiB each: {:.2} named, {:.2} open", each(named), each(open));
    assert!(each(open) < MEMORY, "{} KiB for each tenant", each(open));
    assert!(pipeline.shutdown(FLUSH).wait().all_stored());
}
