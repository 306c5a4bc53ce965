//! What traces without a destination hold, measured for a whole process: alone, since other tests
//! hold memory too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use std::alloc::System;
use std::time::Duration;
use support::*;
use trace_destination_core::{TraceBinding, bind_current_trace, update_current_trace};
use trace_destination_testkit::live_bytes;
use trace_destination_testkit::stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TRACES: u64 = 100_000;
const ROOM: usize = 16 << 20;

/// Bytes in use by `TRACES` open traces without a destination, each with a span that ended and a
/// value, and how much of that the pipeline counts; the trace ids come from outside or not.
fn open_traces(late: bool, foreign: bool) -> (usize, usize) {
    let bytes = if late { ROOM } else { 0 };
    let pipeline = quick()
        .strict()
        .with_late_binding(Duration::from_secs(3_600), bytes)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let mut open = Vec::with_capacity(TRACES as usize);
    let before = live_bytes();
    for id in 1..=u128::from(TRACES) {
        let parent = SpanContext::new(
            TraceId::from(id << 32),
            SpanId::from(7),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        let cx = match foreign {
            true => Context::new().with_remote_span_context(parent),
            false => Context::new(),
        };
        let root = cx.with_span(tracer.start_with_context("request", &cx));
        drop(tracer.start_with_context("authenticate", &root));
        {
            let _running = root.clone().attach();
            assert!(update_current_trace(|t| t.session_id = Some("s".repeat(40))));
        }
        open.push(root);
    }
    let held = live_bytes().saturating_sub(before);
    let stats = pipeline.stats();
    let waiting = stats.undecided;
    assert!(waiting.bytes <= ROOM, "{waiting:?}");
    assert_eq!(waiting.spans + stats.unrouted, TRACES, "{stats:?}");
    assert_eq!(
        waiting.updates + stats.unrouted_updates,
        TRACES,
        "{stats:?}"
    );
    if late {
        // It is used, by the first ones.
        assert!(
            waiting.bytes > ROOM - 1_024 && waiting.traces > 1_000,
            "{waiting:?}"
        );
        let acme = Place::new("memory-acme");
        let _running = open[0].clone().attach();
        assert_eq!(bind_current_trace(&acme.to()), TraceBinding::Bound);
        flush(&pipeline);
        assert_eq!(acme.names(), ["authenticate"]);
    }
    drop(open);
    let report = pipeline.shutdown(PATIENCE).wait();
    assert_eq!(report.undecided, Default::default());
    assert_eq!(pipeline.stats().bytes, 0);
    (held, waiting.bytes)
}

#[test]
fn a_hundred_thousand_open_traces_stay_inside_the_room() {
    for foreign in [false, true] {
        let (without, _) = open_traces(false, foreign);
        let (with, counted) = open_traces(true, foreign);
        // Beyond what open traces cost anyway, what waits costs what is counted, or less.
        let more = with.saturating_sub(without);
        println!("foreign {foreign}: {without} bytes without, {with} with, {counted} counted");
        assert!(more <= ROOM, "{more} bytes more; foreign: {foreign}");
        assert!(more > ROOM / 4, "{more} bytes more: nothing waited?");
    }
}
