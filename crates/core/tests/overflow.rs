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
    // What is dropped is what does not fit beside the room that is left for lanes that drain, but
    // for the little that was taken ahead. A span is about 1.4 KiB.
    assert!(held * 1400 > limit as u64 / 2, "{held}");
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

/// How neighbours behave that do not drain.
fn bad_neighbour(name: &str, kind: usize) -> Place {
    match kind % 4 {
        0 => Place::on_write(name, |_, _| Step::Fail(shaky())),
        1 => Place::on_write(name, |_, _| Step::Fail(broken())),
        2 => Place::on_open(name, |_| Step::Hang),
        _ => Place::on_write(name, |_, _| Step::Hang),
    }
}

#[test]
fn any_number_of_lanes_that_do_not_drain_cost_one_that_does_nothing() {
    for bad in [4, 64, 1_000] {
        let limit = 8 << 20;
        let pipeline = quick().with_budget(limit, limit / 4).build().unwrap();
        let tracer = tracer(&pipeline);
        let places: Vec<_> = (0..bad)
            .map(|i| bad_neighbour(&format!("fair-{bad}-{i}"), i))
            .collect();
        // Several times what fits.
        for place in &places {
            for _ in 0..(4 * limit / 10_000 / bad).max(4) {
                sized_span(&tracer, &place.to(), 10_000);
            }
        }
        assert!(pipeline.stats().bytes <= limit);
        // So long that those that hang are seen to.
        std::thread::sleep(Duration::from_millis(600));
        let good = Place::new(&format!("fair-good-{bad}"));
        for i in 0..5_000 {
            sized_span(&tracer, &good.to(), 100);
            if i % 50 == 0 {
                // The others go on.
                sized_span(&tracer, &places[i % bad].to(), 10_000);
                std::thread::sleep(Duration::from_millis(5));
                assert!(pipeline.stats().bytes <= limit);
            }
        }
        eventually("the good one has nothing left", || {
            let stats = good.stats(&pipeline);
            stats.stored + stats.dropped.total() == 5_000
        });
        assert_eq!(good.len(), 5_000, "beside {bad}");
        for place in &places {
            let stats = place.stats(&pipeline);
            assert_eq!(
                stats.dropped.total(),
                stats.dropped.by(DropReason::Overflow)
            );
        }
        balanced(&pipeline);
        let _ = pipeline.shutdown(Duration::from_millis(1)).wait();
    }
}

#[test]
fn lanes_that_do_not_drain_share_what_is_left_fairly() {
    let limit = 4 << 20;
    let pipeline = quick().with_budget(limit, limit).build().unwrap();
    let tracer = tracer(&pipeline);
    let (first, gate) = gated("fair-first");
    let (second, second_gate) = gated("fair-second");
    let small = Place::on_write("fair-small", |_, _| Step::Fail(shaky()));
    sized_span(&tracer, &small.to(), 1_000);
    // The first has taken all it can before the second comes.
    for _ in 0..8_000 {
        sized_span(&tracer, &first.to(), 1_000);
    }
    for _ in 0..200 {
        for _ in 0..40 {
            sized_span(&tracer, &second.to(), 1_000);
            sized_span(&tracer, &first.to(), 1_000);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let bytes = |place: &Place| place.stats(&pipeline).bytes;
    let (a, b) = (bytes(&first), bytes(&second));
    assert!(a.abs_diff(b) < limit / 8, "{a} and {b} of {limit}");
    assert!(a + b > limit / 3, "{a} and {b} of {limit}");
    assert_eq!(small.stats(&pipeline).dropped.total(), 0);
    balanced(&pipeline);
    // What was kept is stored when they come back.
    gate.store(true, Ordering::SeqCst);
    second_gate.store(true, Ordering::SeqCst);
    eventually("they are stored", || {
        [&first, &second].iter().all(|place| {
            let stats = place.stats(&pipeline);
            stats.stored + stats.dropped.total() == stats.accepted
        })
    });
    assert!(first.len() > 500 && second.len() > 500);
    balanced(&pipeline);
}

#[test]
fn a_lane_that_drains_again_gets_its_room_back() {
    let limit = 4 << 20;
    let pipeline = quick().with_budget(limit, limit).build().unwrap();
    let tracer = tracer(&pipeline);
    let (stuck, gate) = gated("back-stuck");
    let other = Place::on_write("back-other", |_, _| Step::Fail(shaky()));
    for _ in 0..4_000 {
        sized_span(&tracer, &stuck.to(), 1_000);
        sized_span(&tracer, &other.to(), 1_000);
    }
    gate.store(true, Ordering::SeqCst);
    eventually("it drains", || stuck.stats(&pipeline).queued == 0);
    let before = stuck.stats(&pipeline).dropped.total();
    for _ in 0..20 {
        // More at once than it had while it was stuck.
        for _ in 0..60 {
            sized_span(&tracer, &stuck.to(), 1_000);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(stuck.stats(&pipeline).dropped.total(), before);
}

#[test]
fn block_never_waits_because_of_a_neighbour() {
    let limit = 1 << 20;
    let pipeline = quick()
        .with_budget(limit, limit)
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let stuck: Vec<_> = (0..8).map(|i| gated(&format!("block-stuck-{i}"))).collect();
    let good = Place::new("block-good");
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (place, _) in &stuck {
            let (tracer, done) = (&tracer, done.clone());
            scope.spawn(move || {
                // Waits for its own lane before long.
                while !done.load(Ordering::SeqCst) {
                    sized_span(tracer, &place.to(), 1_000);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        for _ in 0..2_000 {
            sized_span(&tracer, &good.to(), 100);
        }
        let took = began.elapsed();
        done.store(true, Ordering::SeqCst);
        for (_, gate) in &stuck {
            gate.store(true, Ordering::SeqCst);
        }
        assert!(took < PATIENCE / 3, "{took:?}");
    });
    flush(&pipeline);
    assert_eq!(good.len(), 2_000);
    settled(&pipeline);
}

#[test]
fn ingested_spans_larger_than_a_lane_together_pass_one_by_one() {
    use trace_destination_core::{AnyValue, Resource, Scope, SpanRecord};
    let pipeline = quick().with_budget(64 << 20, 2 << 20).build().unwrap();
    let place = Place::new("ingest-large");
    let record = |i: u64| {
        SpanRecord::new(
            opentelemetry::trace::TraceId::from_bytes([1; 16]),
            opentelemetry::trace::SpanId::from_bytes(i.to_be_bytes()),
            "large",
            1,
            2,
        )
        .with_attribute("payload", AnyValue::from("x".repeat(300 << 10)))
    };
    // 64 of them are nine times what the lane may hold.
    let mut left: Vec<_> = (1..=64).map(record).collect();
    let mut offers = 0;
    while !left.is_empty() {
        offers += 1;
        assert!(offers < 200, "{} are left", left.len());
        let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
        let sent = pipeline.ingest(resource, scope, left, &place.to());
        assert!(sent.accepted > 0, "a lane that is empty takes a span");
        left = sent.refused.into_iter().flat_map(|r| r.spans).collect();
        assert_eq!(sent.dropped as usize, left.len());
        flush(&pipeline);
    }
    assert_eq!(place.len(), 64);
    settled(&pipeline);
}
