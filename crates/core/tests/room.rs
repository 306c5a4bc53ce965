//! Sharing room, forgetting locations and reporting losses, where lanes stand in each other's way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use async_trait::async_trait;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::*;

fn sized(tracer: &SdkTracer, to: &Destination, bytes: usize) {
    let cx = to.in_context(&Context::new());
    let cx = cx.with_span(tracer.start_with_context("sized", &cx));
    cx.span()
        .set_attribute(KeyValue::new("payload", "x".repeat(bytes)));
}

fn gated(name: &str, slow: Duration) -> (Place, Arc<AtomicBool>) {
    let gate: Arc<AtomicBool> = Arc::default();
    let open = gate.clone();
    let place = Place::on_write(name, move |_, _| match open.load(Ordering::SeqCst) {
        true => Step::Sleep(slow),
        false => Step::Fail(shaky()),
    });
    (place, gate)
}

/// One dead place beside idle ones: nobody else is "active", so it gets everything.
#[test]
fn one_dead_place_does_not_take_the_whole_budget() {
    let pipeline = quick().with_budget(1 << 20, 1 << 20).build().unwrap();
    let tracer = tracer(&pipeline);
    let (dead, _) = gated("a-dead", Duration::ZERO);
    let good = Place::new("a-good");
    sized(&tracer, &good.to(), 10);
    flush(&pipeline);
    for i in 0..3_000 {
        sized(&tracer, &dead.to(), 1024);
        if i % 100 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for _ in 0..100 {
        sized(&tracer, &good.to(), 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = pipeline.flush(Duration::from_millis(300)).wait();
    assert_eq!(good.len(), 101, "{:?}", good.stats(&pipeline));
}

fn crowd(
    pipeline: &Pipeline,
    tracer: &SdkTracer,
    prefix: &str,
    n: usize,
    open: bool,
) -> Vec<Context> {
    let mut roots = Vec::new();
    for i in 0..n {
        let (_, to) = memory(&format!("{prefix}-{i}"));
        let cx = root(tracer, &to, "root");
        drop(tracer.start_with_context("child", &cx));
        if open {
            roots.push(cx);
        }
    }
    flush(pipeline);
    roots
}

/// More than 16 Ki locations: sweeps come every 250 ms, and linger and age are counted in sweeps.
#[test]
fn many_locations_do_not_shorten_the_linger() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let roots = crowd(&pipeline, &tracer, "b", 17_000, true);
    let (_, to) = memory("b-mine");
    let cx = root(&tracer, &to, "root");
    let parent = cx.span().span_context().clone();
    drop(cx);
    std::thread::sleep(Duration::from_secs(4));
    let bare = Context::new().with_remote_span_context(parent);
    drop(tracer.start_with_context("late", &bare));
    assert_eq!(
        pipeline.stats().orphaned,
        0,
        "it lingers for 30 s, this was after 4"
    );
    drop(roots);
}

/// A location that is forgotten and comes back while a flush is under way.
#[test]
fn a_location_forgotten_during_a_flush_does_not_kill_delivery() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let x = Place::on_write("c-x", |_, _| Step::Refuse(&["bad"]));
    span_to(&tracer, &x.to(), "bad");
    flush(&pipeline);
    let slow = Place::on_write("c-slow", |_, _| Step::Sleep(Duration::from_secs(25)));
    span_to(&tracer, &slow.to(), "slow");
    let under_way = pipeline.flush(Duration::from_secs(40));
    for i in 0..17_000 {
        span_to(&tracer, &memory(&format!("c-{i}")).1, "s");
    }
    eventually("x is forgotten", || {
        pipeline.stats().location(x.uri()).is_none()
    });
    println!("x is forgotten");
    span_to(&tracer, &x.to(), "good");
    let report = under_way.wait();
    assert!(report.error.is_none(), "{:?}", report.error);
    let lost = report.location(x.uri()).map_or(0, |l| l.lost);
    assert!(lost < 10, "{lost}");
}

/// With 1,000 locations, batches of a lane that has not proven itself hold 4 KiB.
#[test]
fn a_burst_to_a_new_place_is_not_cut_into_hundreds_of_batches() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..1_000 {
        span_to(&tracer, &memory(&format!("d-{i}")).1, "s");
    }
    flush(&pipeline);
    let new = Place::on_write("d-new", |_, _| Step::Sleep(Duration::from_millis(50)));
    for _ in 0..1_024 {
        sized(&tracer, &new.to(), 100);
    }
    let began = Instant::now();
    flush(&pipeline);
    println!("{} batches in {:?}", new.attempts(), began.elapsed());
    assert!(
        new.attempts() < 20,
        "{} batches in {:?}",
        new.attempts(),
        began.elapsed()
    );
}

/// The same for a place that failed once: small batches keep it late, and late keeps them small.
#[test]
fn a_place_that_failed_once_gets_its_throughput_back() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..1_000 {
        span_to(&tracer, &memory(&format!("d2-{i}")).1, "s");
    }
    flush(&pipeline);
    let down = Instant::now() + Duration::from_secs(3);
    let place = Place::on_write("d2-place", move |n, _| {
        match n > 3 && Instant::now() < down {
            true => Step::Fail(shaky()),
            false => Step::Sleep(Duration::from_millis(50)),
        }
    });
    // 1,000 spans a second, for 10 s; 20 batches a second can be written.
    for tick in 0..100 {
        for _ in 0..100 {
            sized(&tracer, &place.to(), 100);
        }
        std::thread::sleep(Duration::from_millis(100));
        if tick % 10 == 9 {
            let l = place.stats(&pipeline);
            println!(
                "{tick}: {} batches, {} stored, {} queued",
                l.batches, l.stored, l.queued
            );
        }
    }
    let queued = place.stats(&pipeline).queued;
    assert!(queued < 2_000, "{queued} wait, 6 s after it came back");
}

/// A lane that recovered keeps the cap it had, as long as the fill stays between 8/16 and 9/16.
#[test]
fn the_cap_of_a_place_that_recovered_is_lifted() {
    let pipeline = quick().with_budget(16 << 20, 4 << 20).build().unwrap();
    let tracer = tracer(&pipeline);
    let stuck: Vec<_> = (0..30)
        .map(|i| gated(&format!("e-{i}"), Duration::ZERO))
        .collect();
    let (a, a_gate) = gated("e-a", Duration::ZERO);
    let (v, v_gate) = gated("e-v", Duration::from_millis(200));
    for round in 0..500 {
        for place in stuck.iter().map(|(p, _)| p).chain([&a, &v]) {
            sized(&tracer, &place.to(), 1024);
        }
        if round % 20 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    a_gate.store(true, Ordering::SeqCst);
    v_gate.store(true, Ordering::SeqCst);
    eventually("both drained", || {
        a.stats(&pipeline).bytes == 0 && v.stats(&pipeline).bytes == 0
    });
    println!("held {} of {}", pipeline.stats().bytes, 16 << 20);
    let before = v.stats(&pipeline).dropped.total();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..1_000 {
        sized(&tracer, &v.to(), 1024);
    }
    println!("held {} of {}", pipeline.stats().bytes, 16 << 20);
    assert_eq!(v.stats(&pipeline).dropped.total() - before, 0);
}

#[derive(Debug, Clone)]
struct InStore(Place);

impl fmt::Display for InStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for InStore {
    fn uri(&self) -> &LocationUri {
        self.0.uri()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent).with_exclusive_store("the store")
    }
    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.0.open().await
    }
}

/// A lane that never got a span has no slot, and `dropped_before` is taken from slots.
#[test]
fn what_was_lost_before_a_flush_is_not_lost_again_by_each() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let owner = InStore(Place::new("f-owner"));
    let other = InStore(Place::new("f-other"));
    let cx = root(&tracer, &Destination::new(owner.clone()), "root");
    let id = cx.span().span_context().trace_id();
    let parent = SpanContext::new(
        id,
        SpanId::from(7),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let foreign = Destination::new(other.clone())
        .in_context(&Context::new().with_remote_span_context(parent));
    drop(tracer.start_with_context("foreign", &foreign));
    let _ = pipeline.flush(PATIENCE).wait();
    let second = pipeline.flush(PATIENCE).wait();
    assert_eq!(second.location(other.uri()).unwrap().lost, 0);
    let _ = TraceId::INVALID;
}

/// `initial: 0` hammers a place that is wrong for good.
#[test]
fn a_place_that_is_wrong_for_good_is_not_asked_in_a_busy_loop() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            initial: Duration::ZERO,
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("g", |_, _| Step::Fail(broken()));
    span_to(&tracer, &place.to(), "s");
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        place.attempts() < 50,
        "{} attempts in a second",
        place.attempts()
    );
}

/// `State::keep` is applied when the attempt ends, however long ago room was short.
#[test]
fn a_batch_is_not_cut_for_want_of_room_that_is_there_again() {
    let pipeline = quick().with_budget(16 << 20, 4 << 20).build().unwrap();
    let tracer = tracer(&pipeline);
    let v = Place::on_write("j-v", |n, _| {
        if n == 0 {
            std::thread::sleep(Duration::from_secs(4));
            return Step::Fail(shaky());
        }
        Step::Do
    });
    for _ in 0..150 {
        sized(&tracer, &v.to(), 1024);
    }
    eventually("v is written", || v.attempts() == 1);
    std::thread::sleep(Duration::from_secs(1));
    let dead: Vec<_> = (0..200)
        .map(|i| gated(&format!("j-{i}"), Duration::ZERO))
        .collect();
    for _ in 0..100 {
        for (place, _) in &dead {
            sized(&tracer, &place.to(), 1024);
        }
    }
    for (_, gate) in &dead {
        gate.store(true, Ordering::SeqCst);
    }
    eventually("the others drained", || pipeline.stats().bytes < 1 << 20);
    assert_eq!(v.attempts(), 1, "the machine is too slow for this test");
    let before = v.stats(&pipeline).dropped.total();
    flush(&pipeline);
    let after = v.stats(&pipeline).dropped.total();
    assert_eq!((before, after), (before, before), "room is there again");
}

/// A flush that a shutdown ends says nothing of what it lost.
#[test]
fn a_flush_that_a_shutdown_ends_tells_what_was_lost() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("o", |_, _| Step::Fail(shaky()));
    span_to(&tracer, &place.to(), "s");
    let under_way = pipeline.flush(PATIENCE);
    std::thread::sleep(Duration::from_millis(100));
    let _ = pipeline.shutdown(Duration::from_millis(100)).wait();
    let report = under_way.wait();
    let l = report.location(place.uri()).unwrap();
    assert_eq!(l.dropped.total(), 1, "{report}");
    assert_eq!(l.lost, 1, "{report}");
}

/// Room is short because of 1,000 dead places; one that was down for a moment.
#[test]
fn a_place_that_failed_beside_many_dead_ones_gets_its_throughput_back() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let dead: Vec<_> = (0..1_000)
        .map(|i| gated(&format!("d3-{i}"), Duration::ZERO))
        .collect();
    for _ in 0..60 {
        for (place, _) in &dead {
            sized(&tracer, &place.to(), 1024);
        }
    }
    let down = Instant::now() + Duration::from_secs(3);
    let place = Place::on_write("d3-place", move |n, _| {
        match n > 3 && Instant::now() < down {
            true => Step::Fail(shaky()),
            false => Step::Sleep(Duration::from_millis(50)),
        }
    });
    for tick in 0..140 {
        for _ in 0..100 {
            sized(&tracer, &place.to(), 100);
        }
        if tick % 2 == 0 {
            for (place, _) in &dead {
                sized(&tracer, &place.to(), 1024);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
        if tick % 10 == 9 {
            let l = place.stats(&pipeline);
            println!(
                "{tick}: {} batches, {} stored, {} queued, {} dropped, {} held",
                l.batches,
                l.stored,
                l.queued,
                l.dropped.total(),
                pipeline.stats().bytes
            );
        }
    }
}
