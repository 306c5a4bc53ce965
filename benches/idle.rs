//! Memory of a location that had a trace, was closed, and is bound no more.

use opentelemetry::Context;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use trace_destination_benches::{NullLocation, Result, Run, record};
use trace_destination_core::{Destination, LocationState, Pipeline};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROW: &str = "memory per idle bound location";
const GOAL: f64 = 2048.0;
/// Long enough that all locations are open at once, short enough to wait for.
const IDLE: Duration = Duration::from_millis(500);

/// Bytes held per location after each of `locations` has stored one trace and was closed again;
/// the first figure while it was still open.
fn measure(locations: usize) -> (f64, f64) {
    let pipeline = Pipeline::builder()
        .strict()
        .with_idle_close(IDLE)
        .build()
        .expect("a pipeline with default settings starts");
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("bench");
    let stored = Arc::new(AtomicU64::new(0));
    let root = Context::new();
    let touch = |i: usize| -> Destination {
        let place = NullLocation::new(&format!("tenant-{i:08}"), stored.clone());
        let tenant = Destination::new(place);
        drop(tracer.start_with_context("request", &tenant.in_context(&root)));
        tenant
    };
    // Threads, queues and tables of the pipeline itself are there before the count begins.
    let first = touch(0);
    assert!(pipeline.flush(Duration::from_secs(10)).wait().all_stored());

    let region = Region::new(ALLOCATOR);
    let held = || {
        let change = region.change();
        change.bytes_allocated as f64 - change.bytes_deallocated as f64
    };
    // The application keeps its destinations, as it would: they count.
    let mut tenants: Vec<Destination> = Vec::with_capacity(locations);
    let list = held();
    tenants.extend((1..=locations).map(touch));
    assert!(pipeline.flush(Duration::from_secs(30)).wait().all_stored());
    let open = (held() - list) / locations as f64;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = pipeline.stats();
        let idle = |s: LocationState| s == LocationState::Closed;
        if stats.locations.iter().all(|l| idle(l.state)) {
            break;
        }
        drop(stats);
        assert!(Instant::now() < until, "locations were not closed in time");
        std::thread::sleep(IDLE / 5);
    }
    std::thread::sleep(IDLE / 5);
    let closed = (held() - list) / locations as f64;
    drop((first, tenants));
    (open, closed)
}

#[expect(clippy::print_stdout, reason = "printing is what a bench is for")]
fn main() {
    let run = Run::from_args();
    if run.wants(ROW) {
        let locations = run.choose(10_000, 100);
        let (open, closed) = measure(locations);
        if run.is_smoke() {
            println!("{ROW}: ran, nothing measured");
            return;
        }
        println!(
            "{ROW}: {closed:.0} bytes ({open:.0} before it was closed), goal <= {GOAL}, over {locations} locations"
        );
        let result = Result {
            row: ROW.into(),
            baseline: "counting allocator".into(),
            goal: format!("<= {GOAL:.0} B"),
            median_ratio: closed,
            upper95: closed,
            met: closed <= GOAL,
            n: 1,
            note: format!(
                "bytes, not a ratio; {locations} locations, {open:.0} B each before they were closed"
            ),
        };
        record(result).expect("the target directory can be written");
    }
}
