//! Promises 8, 9, 14 and 15: every location has a fate of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{
    BatchLimits, Capabilities, Destination, DropReason, Error, ErrorKind, Guarantee, LocationState,
    LocationUri, RetryPolicy, TraceBatch, TraceLocation, TraceSink, Transformed, Written,
};

/// `count` places that misbehave as `step` says delay and lose nothing of a healthy one.
fn does_not_disturb(name: &str, count: usize, step: fn() -> Step) {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let bad: Vec<_> = (0..count)
        .map(|i| Place::on_write(&format!("{name}-bad-{i}"), move |_, _| step()))
        .collect();
    let good = Place::new(&format!("{name}-good"));
    for place in &bad {
        span_to(&tracer, &place.to(), "bad");
    }
    eventually("all of them are stuck", || {
        bad.iter().all(|p| p.attempts() > 0)
    });
    let began = Instant::now();
    for i in 0..100 {
        span_to(&tracer, &good.to(), format!("good-{i}"));
        std::thread::sleep(Duration::from_millis(1));
    }
    eventually("the good ones are stored", || {
        good.stats(&pipeline).stored == 100
    });
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    balanced(&pipeline);
    let good = good.stats(&pipeline);
    assert_eq!((good.stored, good.dropped.total()), (100, 0));
}

#[test]
fn a_sink_that_blocks_its_thread_delays_no_other() {
    does_not_disturb("block", 1, || Step::Block(Duration::from_secs(10)));
}

#[test]
fn three_sinks_that_block_their_threads_delay_no_other() {
    does_not_disturb("block3", 3, || Step::Block(Duration::from_secs(10)));
}

#[test]
fn forty_sinks_that_block_their_threads_delay_no_other() {
    does_not_disturb("block40", 40, || Step::Block(Duration::from_secs(10)));
}

#[test]
fn a_sink_that_hangs_delays_no_other() {
    does_not_disturb("hang", 3, || Step::Hang);
}

#[test]
fn a_sink_that_panics_disturbs_no_other() {
    does_not_disturb("panic", 3, || Step::Panic);
}

#[test]
fn a_sink_that_fails_disturbs_no_other() {
    does_not_disturb("fail", 3, || Step::Fail(shaky()));
    does_not_disturb("broken", 3, || Step::Fail(broken()));
}

#[test]
fn an_open_that_hangs_delays_no_other_and_is_given_up() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(50),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let hanging = Place::on_open("open-hangs", |n| if n == 0 { Step::Hang } else { Step::Do });
    let good = Place::new("open-good");
    span_to(&tracer, &hanging.to(), "stuck");
    span_to(&tracer, &good.to(), "good");
    eventually("the good one is stored", || good.len() == 1);
    eventually("the attempt is given up", || {
        hanging
            .stats(&pipeline)
            .dropped
            .by(DropReason::RetryDeadline)
            == 1
    });
    let error = hanging.stats(&pipeline).last_error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.location(), Some(hanging.uri()));
    span_to(&tracer, &hanging.to(), "next");
    eventually("the next one is stored", || hanging.names() == ["next"]);
    settled(&pipeline);
}

#[test]
fn a_sink_that_panics_is_opened_anew_and_its_batch_comes_again() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::with(
        "panics-twice",
        |n, _| if n == 1 { Step::Panic } else { Step::Do },
        |n, _| if n == 0 { Step::Panic } else { Step::Do },
    );
    span_to(&tracer, &place.to(), "a");
    flush(&pipeline);
    assert_eq!(place.names(), ["a"]);
    assert_eq!(place.opens(), 3);
    assert_eq!(place.closes(), 1);
    assert_eq!(place.stats(&pipeline).retries, 2);
    settled(&pipeline);
}

/// Panics in the call itself, before there is a future.
#[derive(Debug)]
struct Hasty {
    uri: LocationUri,
    open: bool,
}

impl std::fmt::Display for Hasty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(f)
    }
}

type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl TraceLocation for Hasty {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    fn open<'a: 'b, 'b>(&'a self) -> Boxed<'b, Box<dyn TraceSink>>
    where
        Self: 'b,
    {
        assert!(!self.open, "panics before it returns a future");
        Box::pin(async { Ok(Box::new(HastySink) as Box<dyn TraceSink>) })
    }
}

struct HastySink;

impl TraceSink for HastySink {
    fn write<'a: 'c, 'b: 'c, 'c>(&'a self, _: &'b TraceBatch) -> Boxed<'c, Written>
    where
        Self: 'c,
    {
        panic!("panics before it returns a future")
    }

    fn close<'a>(self: Box<Self>) -> Boxed<'a, ()>
    where
        Self: 'a,
    {
        panic!("panics before it returns a future")
    }
}

#[test]
fn a_panic_before_there_is_a_future_is_an_error_like_any_other() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(50),
            initial: Duration::from_millis(5),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    for (name, open) in [("hasty:open", true), ("hasty:write", false)] {
        let uri: LocationUri = name.parse().unwrap();
        let place = Destination::new(Hasty {
            uri: uri.clone(),
            open,
        });
        for _ in 0..2 {
            span_to(&tracer, &place, "lost");
            flush(&pipeline);
        }
        let stats = stats_of(&pipeline, &uri);
        assert_eq!(stats.dropped.by(DropReason::RetryDeadline), 2, "{stats:?}");
        assert_eq!(stats.last_error.unwrap().kind(), ErrorKind::Internal);
    }
    settled(&pipeline);
}

#[test]
fn a_failed_batch_comes_again_with_the_same_id_until_it_is_stored() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("recovers", |n, _| {
        if n < 5 { Step::Fail(shaky()) } else { Step::Do }
    });
    span_to(&tracer, &place.to(), "a");
    eventually("it is being retried", || {
        place.stats(&pipeline).state == LocationState::Retrying
    });
    eventually("it is stored", || place.len() == 1);
    settled(&pipeline);
    let ids: Vec<_> = place.see(|s| s.attempts.iter().map(|a| a.1).collect());
    assert_eq!(ids.len(), 6);
    assert!(ids.iter().all(|id| *id == ids[0]));
    let stats = place.stats(&pipeline);
    assert_eq!((stats.retries, stats.batches, stats.stored), (5, 1, 1));
    assert_eq!(stats.state, LocationState::Open);
    assert_eq!(
        place.opens(),
        1,
        "a passing failure does not close the sink"
    );
}

#[test]
fn an_unknown_outcome_is_written_again() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("unknown-outcome", |n, _| {
        if n == 0 {
            Step::DoAndFail(shaky())
        } else {
            Step::Do
        }
    });
    span_to(&tracer, &place.to(), "a");
    flush(&pipeline);
    assert_eq!(
        place.names(),
        ["a", "a"],
        "at least once is what this place declares"
    );
    assert_eq!(place.stats(&pipeline).stored, 1);
    settled(&pipeline);
}

#[test]
fn at_the_retry_deadline_the_batch_is_dropped_and_the_next_one_is_tried() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(300),
            initial: Duration::from_millis(10),
            max: Duration::from_millis(50),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let place = Place::on_write("deadline", move |_, _| {
        if switch.load(Ordering::SeqCst) {
            Step::Fail(shaky())
        } else {
            Step::Do
        }
    });
    let began = Instant::now();
    span_to(&tracer, &place.to(), "lost");
    eventually("it is given up", || {
        place.stats(&pipeline).dropped.by(DropReason::RetryDeadline) == 1
    });
    assert!(began.elapsed() >= Duration::from_millis(300));
    broken.store(false, Ordering::SeqCst);
    span_to(&tracer, &place.to(), "kept");
    flush(&pipeline);
    assert_eq!(place.names(), ["kept"]);
    settled(&pipeline);
}

#[test]
fn never_as_a_deadline_or_delay_is_no_overflow() {
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_linger(Duration::MAX)
        .with_idle_close(Duration::MAX)
        .with_max_trace_age(Duration::MAX)
        .with_flush_deadline(Duration::MAX)
        .with_retry(RetryPolicy {
            deadline: Duration::MAX,
            initial: Duration::from_millis(1),
            max: Duration::MAX,
            probe: Duration::MAX,
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("never", |n, _| match n {
        0 => Step::Fail(shaky()),
        1 => Step::Do,
        2 => Step::Fail(broken()),
        _ => Step::Do,
    });
    span_to(&tracer, &place.to(), "a");
    assert!(pipeline.flush(Duration::MAX).wait().all_stored());
    span_to(&tracer, &place.to(), "b");
    let report = pipeline.flush(Duration::MAX).wait();
    assert!(!report.timed_out, "{report}");
    eventually("it is tried again", || {
        pipeline.flush(Duration::MAX).wait().all_stored()
    });

    let throttled = Place::on_write("never-again", |_, _| {
        Step::Fail(shaky().retry_after(Duration::MAX))
    });
    span_to(&tracer, &throttled.to(), "c");
    let report = pipeline.flush(Duration::from_millis(200)).wait();
    assert!(report.timed_out);
    assert_eq!(report.location(throttled.uri()).unwrap().pending, 1);
    assert!(
        pipeline
            .shutdown(Duration::from_millis(100))
            .wait()
            .timed_out
    );
    settled(&pipeline);
    assert_eq!(
        throttled.stats(&pipeline).dropped.by(DropReason::Shutdown),
        1
    );
}

#[test]
fn a_server_given_delay_is_honoured_and_flush_does_not_skip_it() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let delay = Duration::from_secs(2);
    let place = Place::on_write("throttled", move |n, _| {
        if n == 0 {
            Step::Fail(shaky().retry_after(delay))
        } else {
            Step::Do
        }
    });
    span_to(&tracer, &place.to(), "a");
    eventually("it was throttled", || place.attempts() == 1);
    assert!(pipeline.flush(Duration::from_millis(100)).wait().timed_out);
    flush(&pipeline);
    let attempts: Vec<_> = place.see(|s| s.attempts.iter().map(|a| a.0).collect());
    assert_eq!(attempts.len(), 2);
    assert!(
        attempts[1] - attempts[0] >= delay,
        "{:?}",
        attempts[1] - attempts[0]
    );
    settled(&pipeline);
}

fn patient() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::from_secs(600),
        initial: Duration::from_secs(300),
        max: Duration::from_secs(300),
        probe: Duration::from_secs(300),
    }
}

#[test]
fn flush_skips_the_lanes_own_backoff_once() {
    let pipeline = quick().with_retry(patient()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("backoff", |n, _| {
        if n < 2 { Step::Fail(shaky()) } else { Step::Do }
    });
    span_to(&tracer, &place.to(), "a");
    eventually("it backs off", || place.stats(&pipeline).retries == 1);
    assert!(pipeline.flush(Duration::from_secs(1)).wait().timed_out);
    assert_eq!(place.attempts(), 2, "skipped once and not again");
    flush(&pipeline);
    assert_eq!(place.names(), ["a"]);
    settled(&pipeline);
}

#[test]
fn a_flush_in_the_middle_of_an_attempt_skips_the_backoff_after_it() {
    let pipeline = quick().with_retry(patient()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("mid-attempt", |n, _| match n {
        0 => Step::Sleep(Duration::from_millis(500)),
        1 => Step::Fail(shaky()),
        _ => Step::Do,
    });
    // The first attempt is under way when the flush comes; the one after it fails.
    span_to(&tracer, &place.to(), "a");
    eventually("the first attempt is under way", || place.attempts() == 1);
    let flush = pipeline.flush(PATIENCE);
    assert!(flush.wait().is_complete());
    // What that flush asked for is not kept for a backoff long after it.
    span_to(&tracer, &place.to(), "b");
    eventually("it backs off", || place.stats(&pipeline).retries == 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(place.attempts(), 2);

    let slow = Place::on_write("mid-failing-attempt", |n, _| match n {
        0 => {
            std::thread::sleep(Duration::from_millis(500));
            Step::Fail(shaky())
        }
        _ => Step::Do,
    });
    span_to(&tracer, &slow.to(), "c");
    eventually("the attempt is under way", || slow.attempts() == 1);
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
    assert_eq!(slow.names(), ["c"]);
}

#[test]
fn a_location_that_fails_for_good_says_so_at_once_keeps_its_spans_and_heals() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let healed = Arc::new(AtomicBool::new(false));
    let switch = healed.clone();
    let place = Place::on_open("heals", move |_| {
        if switch.load(Ordering::SeqCst) {
            Step::Do
        } else {
            Step::Fail(broken())
        }
    });
    let began = Instant::now();
    for i in 0..20 {
        span_to(&tracer, &place.to(), format!("{i:02}"));
        let report = pipeline.flush(PATIENCE).wait();
        assert!(!report.timed_out, "a flush does not wait for it");
        let said = report.location(place.uri()).unwrap();
        assert_eq!((said.pending, said.lost), (i + 1, 0), "{report}");
        let error = said.error.as_ref().unwrap();
        assert_eq!(error.location(), Some(place.uri()));
        assert_eq!(error.mend_hint(), Some("make it"));
        assert_eq!(place.stats(&pipeline).state, LocationState::Failing);
    }
    assert!(began.elapsed() < PATIENCE / 2);
    healed.store(true, Ordering::SeqCst);
    eventually("it heals by itself", || place.len() == 20);
    assert_eq!(place.stats(&pipeline).state, LocationState::Open);
    assert_eq!(place.stats(&pipeline).dropped.total(), 0);
    settled(&pipeline);
}

#[test]
fn a_location_that_fails_for_good_is_asked_less_and_less_often_and_given_up_in_the_end() {
    let deadline = Duration::from_millis(600);
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline,
            initial: Duration::from_millis(10),
            probe: Duration::from_millis(160),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("given-up", |_, _| Step::Fail(broken()));
    span_to(&tracer, &place.to(), "a");
    eventually("it is given up", || {
        place.stats(&pipeline).dropped.by(DropReason::Failed) == 1
    });
    // 10, 20, 40, 80 and then 160 ms apart, each drawn from its upper half.
    let attempts = place.attempts();
    assert!((5..=14).contains(&attempts), "{attempts}");
    // What comes later is tried anew.
    span_to(&tracer, &place.to(), "b");
    eventually("it is tried", || place.attempts() > attempts);
    pipeline.shutdown(PATIENCE).wait();
    settled(&pipeline);
}

#[test]
fn a_batch_that_is_at_fault_itself_does_not_condemn_its_place() {
    let pipeline = quick()
        .with_retry(patient())
        .with_batch_limits(BatchLimits {
            spans: 1,
            ..BatchLimits::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("poison", |_, batch| {
        match batch.spans().next().map(|s| s.name()) {
            Some("poison") => Step::Fail(Error::new(ErrorKind::InvalidSpan, "write", "no")),
            Some("double") => Step::Fail(Error::new(ErrorKind::Conflict, "write", "elsewhere")),
            _ => Step::Do,
        }
    });
    for name in ["a", "poison", "b", "double", "c"] {
        span_to(&tracer, &place.to(), name);
    }
    flush(&pipeline);
    assert_eq!(place.names(), ["a", "b", "c"]);
    let stats = place.stats(&pipeline);
    assert_eq!(stats.dropped.by(DropReason::Failed), 2);
    assert_eq!(stats.state, LocationState::Open);
    assert_eq!(place.opens(), 1);
    settled(&pipeline);
}

#[test]
fn a_refused_span_is_refused_alone_with_its_reason() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("refuses", |_, _| Step::Refuse(&["bad"]));
    for name in ["a", "bad", "b", "bad", "c"] {
        span_to(&tracer, &place.to(), name);
    }
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete() && !report.all_stored());
    let place_report = report.location(place.uri()).unwrap();
    assert_eq!((place_report.stored, place_report.lost), (3, 2));
    assert_eq!(place_report.dropped.by(DropReason::Refused), 2);
    assert_eq!(
        place_report.error.as_ref().unwrap().kind(),
        ErrorKind::InvalidSpan
    );
    assert_eq!(place.names(), ["a", "b", "c"]);
    settled(&pipeline);
}

/// Says nonsense about what it refused.
#[derive(Debug, Clone)]
struct Liar(LocationUri);

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Liar {
    fn uri(&self) -> &LocationUri {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl TraceSink for Liar {
    async fn write(&self, _: &TraceBatch) -> Result<Written, Error> {
        let refusal = |index| trace_destination_core::Refusal {
            index,
            error: broken(),
        };
        Ok(Written {
            refused: vec![refusal(0), refusal(0), refusal(99), refusal(usize::MAX)],
            ..Written::default()
        })
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn refusals_that_make_no_sense_do_not_upset_the_sums() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let liar = Liar("liar:x".parse().unwrap());
    for _ in 0..3 {
        span_to(&tracer, &Destination::new(liar.clone()), "a");
    }
    flush(&pipeline);
    let stats = stats_of(&pipeline, &liar.0);
    assert_eq!(
        (stats.stored, stats.dropped.by(DropReason::Refused)),
        (2, 1)
    );
    settled(&pipeline);
}

#[test]
fn a_fan_out_with_one_dead_leg_serves_the_others() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let dead = Place::on_write("leg-dead", |_, _| Step::Fail(broken()));
    let slow = Place::on_write("leg-slow", |_, _| Step::Sleep(Duration::from_millis(300)));
    let good = Place::new("leg-good");
    let all = Destination::all([dead.to(), good.to(), slow.to(), good.to()]).unwrap();
    for i in 0..10 {
        span_to(&tracer, &all, format!("{i}"));
    }
    assert!(!pipeline.flush(PATIENCE).wait().timed_out);
    assert_eq!(good.len(), 10);
    assert_eq!(slow.len(), 10);
    assert_eq!(good.names(), slow.names());
    assert_eq!(
        dead.stats(&pipeline).queued + dead.stats(&pipeline).in_flight,
        10
    );
    assert!(!pipeline.shutdown(PATIENCE).wait().timed_out);
    settled(&pipeline);
    assert_eq!(dead.stats(&pipeline).dropped.by(DropReason::Shutdown), 10);
}

#[test]
fn an_idle_location_is_closed_and_reopened_with_its_counters_and_sequence() {
    let pipeline = quick()
        .with_idle_close(Duration::from_millis(50))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("idle");
    for round in 1..=3 {
        span_to(&tracer, &place.to(), "a");
        flush(&pipeline);
        eventually("it is closed", || {
            place.closes() == round && place.stats(&pipeline).state == LocationState::Closed
        });
        assert_eq!(place.opens(), round);
        assert_eq!(place.stats(&pipeline).stored, u64::from(round));
    }
    let ids: Vec<_> = place.see(|s| s.attempts.iter().map(|a| a.1).collect());
    assert!(
        ids.is_sorted_by(|a, b| a.writer == b.writer && a.sequence < b.sequence),
        "{ids:?}"
    );
    settled(&pipeline);
}

#[test]
fn spans_that_come_while_an_idle_location_closes_are_kept_in_order() {
    let pipeline = quick()
        .with_idle_close(Duration::from_millis(1))
        .with_batch_limits(BatchLimits {
            spans: 1,
            ..BatchLimits::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("closing");
    for i in 0..300 {
        span_to(&tracer, &place.to(), format!("{i:03}"));
        std::thread::sleep(Duration::from_millis(i % 9));
    }
    flush(&pipeline);
    let order: Vec<_> = place.see(|s| s.spans.iter().map(|s| s.name().to_owned()).collect());
    assert_eq!(order.len(), 300);
    assert!(
        order.is_sorted(),
        "batches of a lane are written in sequence"
    );
    assert!(place.closes() > 1, "it was never closed in between");
    settled(&pipeline);
}

#[test]
fn batches_are_cut_by_count_by_bytes_and_by_age() {
    let limits = |spans, bytes, age| BatchLimits { spans, bytes, age };
    let sizes = |name: &str, limits, spans: usize, wait: bool| {
        let pipeline = quick().with_batch_limits(limits).build().unwrap();
        let tracer = tracer(&pipeline);
        let place = Place::new(name);
        for _ in 0..spans {
            span_to(&tracer, &place.to(), "a");
        }
        if wait {
            eventually("the batch is old enough", || place.len() == spans);
        } else {
            flush(&pipeline);
        }
        place.see(|s| s.attempts.iter().map(|a| a.2).collect::<Vec<_>>())
    };
    let far = Duration::from_secs(3600);
    assert_eq!(
        sizes("by-count", limits(4, usize::MAX, far), 10, false),
        [4, 4, 2]
    );
    assert_eq!(sizes("by-bytes", limits(100, 1, far), 3, false), [1, 1, 1]);
    assert_eq!(
        sizes(
            "by-age",
            limits(100, usize::MAX, Duration::from_millis(100)),
            5,
            true
        )
        .iter()
        .sum::<usize>(),
        5
    );
    assert_eq!(
        sizes("nought", limits(0, 0, Duration::ZERO), 2, false),
        [1, 1]
    );
}

#[test]
fn ten_thousand_locations_each_get_their_own() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let tenants: Vec<_> = (0..10_000).map(|i| memory(&format!("many-{i}"))).collect();
    for (i, (_, destination)) in tenants.iter().enumerate() {
        span_to(&tracer, destination, format!("span-{i}"));
    }
    flush(&pipeline);
    for (i, (location, _)) in tenants.iter().enumerate() {
        assert_eq!(names(location), [format!("span-{i}")]);
    }
    assert_eq!(pipeline.stats().locations.len(), 10_000);
    settled(&pipeline);
}

#[test]
fn a_hook_edits_drops_and_may_panic() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_transform(
            move |uri: &LocationUri, span: &mut trace_destination_core::Span| {
                told.lock().unwrap().push(uri.clone());
                match span.name() {
                    "secret" => Transformed::Drop,
                    "bug" => panic!("as told"),
                    _ => {
                        span.record_mut().name = "redacted".into();
                        Transformed::Keep
                    }
                }
            },
        )
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let (one, two) = (Place::new("hook-1"), Place::new("hook-2"));
    let both = Destination::all([one.to(), two.to()]).unwrap();
    for name in ["plain", "secret", "bug"] {
        span_to(&tracer, &both, name);
    }
    flush(&pipeline);
    for place in [&one, &two] {
        assert_eq!(place.names(), ["redacted"]);
        let stats = place.stats(&pipeline);
        assert_eq!(stats.dropped.by(DropReason::Transform), 2);
        assert_eq!(stats.last_error.unwrap().kind(), ErrorKind::Internal);
    }
    assert_eq!(seen.lock().unwrap().len(), 6);
    settled(&pipeline);
}

#[test]
fn a_batch_of_which_a_hook_left_nothing_does_not_heal_a_failing_location() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(20),
            ..patient()
        })
        .with_transform(|_: &LocationUri, span: &mut trace_destination_core::Span| {
            match span.name() {
                "secret" => Transformed::Drop,
                _ => Transformed::Keep,
            }
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("hook-failing", |_, _| Step::Fail(broken()));
    span_to(&tracer, &place.to(), "a");
    eventually("it is given up", || {
        place.stats(&pipeline).dropped.by(DropReason::Failed) == 1
    });
    let attempts = place.attempts();
    span_to(&tracer, &place.to(), "secret");
    flush(&pipeline);
    assert_eq!(place.stats(&pipeline).state, LocationState::Failing);
    assert_eq!(place.attempts(), attempts);
    settled(&pipeline);
}

#[test]
fn two_pipelines_share_a_destination() {
    let (a, b) = (quick().build().unwrap(), quick().build().unwrap());
    let (ta, tb) = (tracer(&a), tracer(&b));
    let (location, shared) = memory("two-pipelines");
    let (_, other) = memory("two-pipelines-other");
    // So that the route has another number in each.
    span_to(&tb, &other, "other");
    for i in 0..100 {
        span_to(&ta, &shared, format!("a{i:02}"));
        span_to(&tb, &shared, format!("b{i:02}"));
    }
    flush(&a);
    flush(&b);
    assert_eq!(location.store().len(), 200);
    assert_eq!(stats_of(&a, location.uri_of()).stored, 100);
    assert_eq!(stats_of(&b, location.uri_of()).stored, 100);
    a.shutdown(PATIENCE).wait();
    span_to(&tb, &shared, "later");
    flush(&b);
    assert_eq!(location.store().len(), 201);
    settled(&a);
    settled(&b);
}

trait UriOf {
    fn uri_of(&self) -> &LocationUri;
}

impl UriOf for trace_destination_core::MemoryLocation {
    fn uri_of(&self) -> &LocationUri {
        TraceLocation::uri(self)
    }
}

#[test]
fn a_hook_that_blocks_delays_no_other_location() {
    let pipeline = quick()
        .with_transform(|uri: &LocationUri, _: &mut trace_destination_core::Span| {
            if uri.path().starts_with("hook-blocks-bad") {
                std::thread::sleep(Duration::from_secs(10));
            }
            Transformed::Keep
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..5 {
        span_to(
            &tracer,
            &Place::new(&format!("hook-blocks-bad-{i}")).to(),
            "bad",
        );
    }
    std::thread::sleep(Duration::from_millis(200));
    let good = Place::new("hook-blocks-good");
    let began = Instant::now();
    span_to(&tracer, &good.to(), "good");
    eventually("the good one is stored", || good.len() == 1);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_server_that_asks_for_no_delay_is_not_hammered() {
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(500),
            initial: Duration::from_millis(50),
            max: Duration::from_millis(50),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("no-delay", |_, _| {
        Step::Fail(shaky().retry_after(Duration::ZERO))
    });
    span_to(&tracer, &place.to(), "a");
    flush(&pipeline);
    assert_eq!(
        place.stats(&pipeline).dropped.by(DropReason::RetryDeadline),
        1
    );
    assert!(place.attempts() <= 22, "{} attempts", place.attempts());
}
