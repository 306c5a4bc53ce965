//! Resolving a destination, and entering and leaving a scope, against a bare thread-local read.

use criterion::Criterion;
use opentelemetry::Context;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use trace_destination_benches::{Comparison, Goal, Run, criterion};
use trace_destination_core::{Destination, GlobalSlot, MemoryLocation, Pipeline};

const BASELINE: &str = "bare thread-local read";

thread_local! {
    static BARE: Cell<u64> = const { Cell::new(7) };
}

fn bare() -> u64 {
    BARE.with(Cell::get)
}

/// Seconds per call of `f`.
fn time<T>(calls: u32, mut f: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(f());
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}

fn compare<T>(
    c: &mut Criterion,
    run: &Run,
    row: &str,
    goal: f64,
    calls: u32,
    mut ours: impl FnMut() -> T,
) {
    let calls = run.choose(calls, 100);
    Comparison::new(row, BASELINE, Goal::AtMost(goal))
        .with_unit(1e9, "ns")
        .run(run, &mut || Ok(time(calls, &mut ours).into()), &mut || {
            Ok(time(calls, bare).into())
        });
    if !run.is_pairs_only() {
        c.bench_function(row, |b| b.iter(&mut ours));
    }
}

fn main() {
    let run = Run::from_args();
    let mut c = criterion();
    c.bench_function(BASELINE, |b| b.iter(bare));

    let tenant = Destination::new(MemoryLocation::new("tenant"));
    let global = Arc::new(GlobalSlot::new());
    let pipeline = Pipeline::builder()
        .with_global(global.clone())
        .build()
        .expect("a pipeline with default settings starts");
    // What `on_start` does for a local root: the context it is given is a borrowed one.
    let resolve = |cx: &Context| pipeline.resolve_route(black_box(cx));

    let empty = Context::new();
    compare(&mut c, &run, "resolve: none", 15.0, 200_000, || {
        resolve(&empty)
    });
    global.set(tenant.clone());
    compare(&mut c, &run, "resolve: global", 15.0, 200_000, || {
        resolve(&empty)
    });
    // From here on this process has used a scope, and every context is looked into.
    let local = tenant.in_context(&empty);
    global.clear();
    let row = "resolve: none, where scopes are in use";
    compare(&mut c, &run, row, 15.0, 200_000, || resolve(&empty));
    global.set(tenant.clone());
    let row = "resolve: global, where scopes are in use";
    compare(&mut c, &run, row, 15.0, 200_000, || resolve(&empty));
    compare(
        &mut c,
        &run,
        "resolve: context-local",
        40.0,
        200_000,
        || resolve(&local),
    );
    {
        // The value is in the current context only, as with an async scope around a root span.
        let _scope = tenant.enter();
        compare(
            &mut c,
            &run,
            "resolve: context-local, from the current context",
            40.0,
            200_000,
            || resolve(&empty),
        );
    }
    compare(
        &mut c,
        &run,
        "scope: enter and leave",
        500.0,
        20_000,
        || {
            drop(tenant.enter());
        },
    );
    c.final_summary();
}
