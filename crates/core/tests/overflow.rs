//! Promise 10: memory is bounded, and what does not fit is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{BatchLimits, Destination, DropReason, Overflow};

fn sized_span(tracer: &SdkTracer, destination: &Destination, bytes: usize) {
    let cx = destination.in_context(&opentelemetry::Context::new());
    let span = tracer.start_with_context("sized", &cx);
    let cx = cx.with_span(span);
    cx.span()
        .set_attribute(KeyValue::new("payload", "x".repeat(bytes)));
}

/// A place that takes nothing until the switch is on.
fn gated(name: &str) -> (Place, Arc<AtomicBool>) {
    let gate: Arc<AtomicBool> = Arc::default();
    let open = gate.clone();
    let place = Place::on_write(name, move |_, _| {
        if open.load(Ordering::SeqCst) {
            Step::Do
        } else {
            Step::Fail(shaky())
        }
    });
    (place, gate)
}

#[test]
fn drop_newest_bounds_a_lane_and_counts_and_leaves_others_alone() {
    let pipeline = quick().with_budget(1 << 20, 64 << 10).build().unwrap();
    let tracer = tracer(&pipeline);
    let (stuck, gate) = gated("lane-bound");
    let good = Place::new("lane-good");
    for _ in 0..200 {
        sized_span(&tracer, &stuck.to(), 1024);
        assert!(stuck.stats(&pipeline).bytes <= 64 << 10);
    }
    for _ in 0..200 {
        sized_span(&tracer, &good.to(), 1024);
        if good.stats(&pipeline).queued > 20 {
            flush_of(&pipeline);
        }
    }
    balanced(&pipeline);
    gate.store(true, Ordering::SeqCst);
    flush(&pipeline);
    settled(&pipeline);
    let stats = stuck.stats(&pipeline);
    assert_eq!(stats.accepted, 200);
    let dropped = stats.dropped.by(DropReason::Overflow);
    assert!((100..200).contains(&dropped), "{dropped}");
    assert_eq!(stats.dropped.total(), dropped);
    assert_eq!(stuck.len() as u64, 200 - dropped);
    assert_eq!(good.len(), 200);
}

#[test]
fn room_taken_ahead_for_a_run_of_spans_comes_back_unused() {
    // Large enough for room to be taken ahead, and filled to the brim by runs to two places.
    let limit = 2 << 20;
    let pipeline = quick().with_budget(limit, limit).build().unwrap();
    let tracer = tracer(&pipeline);
    let (one, gate) = gated("ahead-one");
    let (other, other_gate) = gated("ahead-other");
    for i in 0..4_000 {
        let place = if i % 20 < 10 { &one } else { &other };
        sized_span(&tracer, &place.to(), 1024);
        assert!(pipeline.stats().bytes <= limit);
    }
    let queued = |place: &Place| place.stats(&pipeline).queued + place.stats(&pipeline).in_flight;
    let held = queued(&one) + queued(&other);
    // What is dropped is what does not fit, but for the little that was taken ahead.
    assert!(held * 1024 > limit as u64 / 2, "{held}");
    balanced(&pipeline);
    gate.store(true, Ordering::SeqCst);
    other_gate.store(true, Ordering::SeqCst);
    flush(&pipeline);
    settled(&pipeline);
    assert_eq!(pipeline.stats().bytes, 0);
}

/// Lets what is queued move; the stuck lane keeps it from being complete.
fn flush_of(pipeline: &trace_destination_core::Pipeline) {
    let _ = pipeline.flush(Duration::from_millis(50)).wait();
}

#[test]
fn the_process_budget_bounds_all_lanes_together() {
    let limit = 64 << 10;
    let pipeline = quick().with_budget(limit, 1 << 30).build().unwrap();
    let tracer = tracer(&pipeline);
    let places: Vec<_> = (0..10).map(|i| gated(&format!("process-{i}"))).collect();
    for _ in 0..20 {
        for (place, _) in &places {
            sized_span(&tracer, &place.to(), 1024);
            assert!(pipeline.stats().bytes <= limit);
        }
    }
    balanced(&pipeline);
    for (_, gate) in &places {
        gate.store(true, Ordering::SeqCst);
    }
    flush(&pipeline);
    settled(&pipeline);
    let stats = pipeline.stats();
    let sum = |f: fn(&trace_destination_core::LocationStats) -> u64| -> u64 {
        stats.locations.iter().map(f).sum()
    };
    assert_eq!(sum(|l| l.accepted), 200);
    assert!(sum(|l| l.dropped.by(DropReason::Overflow)) >= 100);
    assert_eq!(
        sum(|l| l.stored),
        places.iter().map(|p| p.0.len() as u64).sum::<u64>()
    );
}

#[test]
fn a_span_larger_than_the_budget_passes_alone() {
    for overflow in [Overflow::DropNewest, Overflow::Block(PATIENCE)] {
        let pipeline = quick()
            .with_budget(10_000, 10_000)
            .with_overflow(overflow)
            .build()
            .unwrap();
        let tracer = tracer(&pipeline);
        let place = Place::new(&format!("oversized-{overflow:?}"));
        sized_span(&tracer, &place.to(), 100_000);
        flush(&pipeline);
        assert_eq!(place.len(), 1);
        sized_span(&tracer, &place.to(), 10);
        if matches!(overflow, Overflow::Block(_)) {
            // It waits until the small one is stored.
            sized_span(&tracer, &place.to(), 100_000);
        }
        flush(&pipeline);
        assert_eq!(place.stats(&pipeline).dropped.total(), 0);
        settled(&pipeline);
    }
}

#[test]
fn block_waits_for_room_and_loses_nothing() {
    let pipeline = quick()
        .with_budget(1 << 20, 16 << 10)
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("block-slow", |_, _| Step::Sleep(Duration::from_millis(1)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    sized_span(&tracer, &place.to(), 1024);
                }
            });
        }
    });
    flush(&pipeline);
    assert_eq!(place.len(), 400);
    assert_eq!(place.stats(&pipeline).dropped.total(), 0);
    settled(&pipeline);
}

#[test]
fn block_gives_up_after_its_time() {
    let pipeline = quick()
        .with_budget(10_000, 10_000)
        .with_overflow(Overflow::Block(Duration::from_millis(100)))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let (stuck, gate) = gated("block-stuck");
    sized_span(&tracer, &stuck.to(), 9_000);
    let began = Instant::now();
    sized_span(&tracer, &stuck.to(), 9_000);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(stuck.stats(&pipeline).dropped.by(DropReason::Overflow), 1);
    gate.store(true, Ordering::SeqCst);
    flush(&pipeline);
    settled(&pipeline);
}

#[test]
fn a_batch_that_still_grows_does_not_keep_the_room_it_takes() {
    // Nothing is old or large enough to be written by itself.
    let never = BatchLimits {
        spans: usize::MAX,
        bytes: usize::MAX,
        age: Duration::MAX,
    };
    for lanes in [1, 50] {
        let pipeline = quick()
            .with_batch_limits(never)
            .with_budget(100_000, if lanes == 1 { 50_000 } else { 100_000 })
            .with_overflow(Overflow::Block(PATIENCE))
            .build()
            .unwrap();
        let tracer = tracer(&pipeline);
        let places: Vec<_> = (0..lanes)
            .map(|i| Place::new(&format!("grows-{lanes}-{i}")))
            .collect();
        let began = Instant::now();
        for i in 0..300 {
            sized_span(&tracer, &places[i % lanes].to(), 2_000);
        }
        assert!(began.elapsed() < PATIENCE / 2);
        flush(&pipeline);
        assert_eq!(places.iter().map(Place::len).sum::<usize>(), 300);
        settled(&pipeline);
    }
}

#[test]
fn a_sink_that_ends_spans_never_waits_for_room() {
    let pipeline = quick()
        .with_budget(1, 1)
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let other = Place::new("inner").to();
    let (inner_tracer, inner_to) = (tracer.clone(), other);
    let place = Place::on_write("outer", move |_, _| {
        // Unsuppressed on purpose: the worst a sink can do.
        let _clean = opentelemetry::Context::new().attach();
        for _ in 0..3 {
            span_to(&inner_tracer, &inner_to, "inner");
        }
        Step::Do
    });
    let began = Instant::now();
    span_to(&tracer, &place.to(), "outer");
    eventually("it is stored", || place.len() == 1);
    assert!(began.elapsed() < PATIENCE / 2);
    settled(&pipeline);
}
