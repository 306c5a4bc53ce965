//! Promises 11 and 12: flush and shutdown, from anywhere, and what they report.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{
    Destination, DropReason, Error, ErrorKind, FlushReport, LocationState, Overflow, Pipeline,
};

fn stored_once(flush: impl FnOnce(&Pipeline) -> FlushReport) {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("anywhere", |_, _| Step::Sleep(Duration::from_millis(50)));
    span_to(&tracer, &place.to(), "a");
    let report = flush(&pipeline);
    assert!(report.all_stored(), "{report}");
    assert_eq!(report.location(place.uri()).unwrap().stored, 1);
    assert_eq!(place.names(), ["a"]);
    settled(&pipeline);
}

#[test]
fn flush_from_a_plain_thread() {
    stored_once(|p| p.flush(PATIENCE).wait());
    stored_once(|p| p.shutdown(PATIENCE).wait());
}

#[test]
fn flush_from_a_current_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    stored_once(|p| runtime.block_on(p.flush(PATIENCE)));
    stored_once(|p| runtime.block_on(async { p.flush(PATIENCE).wait() }));
    stored_once(|p| runtime.block_on(p.shutdown(PATIENCE)));
    stored_once(|p| runtime.block_on(async { p.shutdown(PATIENCE).wait() }));
}

#[test]
fn flush_from_a_multi_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let task = |p: &Pipeline, wait: bool, end: bool| {
        let p = p.clone();
        runtime
            .block_on(runtime.spawn(async move {
                let flush = if end {
                    p.shutdown(PATIENCE)
                } else {
                    p.flush(PATIENCE)
                };
                if wait { flush.wait() } else { flush.await }
            }))
            .unwrap()
    };
    for (wait, end) in [(true, true), (true, false), (false, true), (false, false)] {
        stored_once(|p| task(p, wait, end));
    }
}

#[test]
fn flush_inside_a_sink_ends_at_its_deadline_and_not_never() {
    let slot: Arc<OnceLock<Pipeline>> = Arc::default();
    let reports: Arc<Mutex<Vec<FlushReport>>> = Arc::default();
    let (inner, told) = (slot.clone(), reports.clone());
    let place = Place::on_write("flushes", move |_, _| {
        let pipeline = inner.get().unwrap();
        told.lock()
            .unwrap()
            .push(pipeline.flush(Duration::from_millis(200)).wait());
        Step::Do
    });
    let pipeline = quick().build().unwrap();
    let _ = slot.set(pipeline.clone());
    let tracer = tracer(&pipeline);
    span_to(&tracer, &place.to(), "a");
    eventually("it is stored", || place.len() == 1);
    assert!(reports.lock().unwrap()[0].timed_out);
    flush(&pipeline);
    settled(&pipeline);
}

#[test]
fn shutdown_inside_a_sink_ends_too() {
    let slot: Arc<OnceLock<Pipeline>> = Arc::default();
    let inner = slot.clone();
    let place = Place::on_write("shuts-down", move |_, _| {
        inner
            .get()
            .unwrap()
            .shutdown(Duration::from_millis(200))
            .wait();
        Step::Do
    });
    let pipeline = quick().build().unwrap();
    let _ = slot.set(pipeline.clone());
    let tracer = tracer(&pipeline);
    span_to(&tracer, &place.to(), "a");
    settled(&pipeline);
}

#[test]
fn the_deadline_holds_with_a_sink_that_hangs() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (hanging, good) = (
        Place::on_write("flush-hang", |_, _| Step::Hang),
        Place::new("flush-ok"),
    );
    span_to(&tracer, &hanging.to(), "a");
    span_to(&tracer, &good.to(), "b");
    let began = Instant::now();
    let report = pipeline.flush(Duration::from_millis(300)).wait();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(report.timed_out && !report.is_complete());
    let (h, g) = (
        report.location(hanging.uri()).unwrap(),
        report.location(good.uri()).unwrap(),
    );
    assert_eq!((h.stored, h.pending, g.stored, g.pending), (0, 1, 1, 0));

    let report = pipeline.shutdown(Duration::from_millis(300)).wait();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(report.timed_out);
    settled(&pipeline);
    assert_eq!(hanging.stats(&pipeline).dropped.by(DropReason::Shutdown), 1);
    assert_eq!(good.closes(), 1, "the other sink is closed properly");
}

#[test]
fn the_deadline_holds_with_a_sink_that_blocks() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let blocking = Place::on_write("shutdown-block", |_, _| Step::Block(Duration::from_secs(3)));
    span_to(&tracer, &blocking.to(), "a");
    eventually("it blocks", || blocking.attempts() == 1);
    span_to(&tracer, &blocking.to(), "b");
    let began = Instant::now();
    assert!(
        pipeline
            .shutdown(Duration::from_millis(100))
            .wait()
            .timed_out
    );
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
    // What it stores after all is counted one way or the other.
    settled(&pipeline);
    assert_eq!(blocking.stats(&pipeline).accepted, 2);
}

#[test]
fn flush_covers_what_ended_before_it_and_need_not_wait_for_the_rest() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("watermark");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                span_to(&tracer, &place.to(), "noise");
            }
        });
        for i in 0..50 {
            let name = format!("mark-{i}");
            span_to(&tracer, &place.to(), name.clone());
            let report = pipeline.flush(PATIENCE).wait();
            assert!(report.is_complete(), "{report}");
            assert!(
                place.see(|s| s.spans.iter().any(|s| s.name() == name)),
                "{name}"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    flush(&pipeline);
    settled(&pipeline);
}

#[test]
fn what_never_reached_a_location_is_part_of_the_verdicts() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("verdicts");
    span_to(&tracer, &place.to(), "a");
    span_to(&tracer, &Destination::discard(), "on purpose");
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored() && report.nothing_lost(), "{report}");

    drop(tracer.start("nowhere"));
    let first = pipeline.flush(PATIENCE);
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
    assert!(!report.all_stored() && !report.nothing_lost(), "{report}");
    assert_eq!(report.unplaced.unrouted, 1);
    assert!(report.to_string().contains("1 unrouted"), "{report}");
    // A flush that began before that report does not take its loss for told.
    assert!(!first.wait().nothing_lost());

    span_to(&tracer, &place.to(), "b");
    let report = pipeline.shutdown(PATIENCE).wait();
    assert!(report.nothing_lost() && !report.all_stored(), "{report}");
    assert_eq!(report.location(place.uri()).unwrap().stored, 2);
}

#[test]
fn a_loss_is_news_to_one_report_only() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("news", |_, _| Step::Refuse(&["bad"]));
    span_to(&tracer, &place.to(), "bad");
    // Nobody hears of a report that is dropped.
    drop(pipeline.flush(PATIENCE));
    eventually("it is refused", || {
        place.stats(&pipeline).dropped.total() == 1
    });
    assert!(!pipeline.flush(PATIENCE).wait().nothing_lost());
    span_to(&tracer, &place.to(), "good");
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.nothing_lost() && !report.all_stored(), "{report}");
}

#[test]
fn many_flushes_at_once_are_all_answered() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("many-flushes", |_, _| Step::Sleep(Duration::from_millis(5)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    span_to(&tracer, &place.to(), "a");
                    flush(&pipeline);
                }
            });
        }
    });
    assert_eq!(place.len(), 160);
    // A flush that nobody waits for is no harm.
    drop(pipeline.flush(PATIENCE));
    drop(pipeline.flush(Duration::ZERO));
    settled(&pipeline);
}

#[test]
fn shutdown_closes_counts_and_is_idempotent() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (one, two) = (Place::new("down-1"), Place::new("down-2"));
    let both = Destination::all([one.to(), two.to()]).unwrap();
    span_to(&tracer, &both, "a");
    let open = root(&tracer, &one.to(), "open");
    let child = open.with_span(tracer.start_with_context("child", &open));

    let report = pipeline.shutdown(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(report.location(one.uri()).unwrap().open_spans, 2);
    assert_eq!(report.location(two.uri()).unwrap().open_spans, 0);
    assert_eq!((one.closes(), two.closes()), (1, 1));

    drop((child, open));
    span_to(&tracer, &both, "late");
    span_to(&tracer, &Place::new("down-new").to(), "late");
    let again = pipeline.shutdown(PATIENCE).wait();
    assert!(again.is_complete());
    assert!(pipeline.flush(PATIENCE).wait().is_complete());
    assert_eq!(again.location(one.uri()).unwrap().stored, 1);
    settled(&pipeline);
    let stats = one.stats(&pipeline);
    assert_eq!(stats.dropped.by(DropReason::Shutdown), 3);
    assert_eq!(stats.open_spans, 0);
    assert_eq!(stats.state, LocationState::Closed);
    assert_eq!(two.stats(&pipeline).dropped.by(DropReason::Shutdown), 1);
    assert_eq!((one.closes(), two.closes()), (1, 1));
    assert_eq!(one.names(), ["a"]);
}

#[test]
fn shutdown_from_many_threads_while_spans_end_loses_count_of_none() {
    for _ in 0..20 {
        let pipeline = quick().build().unwrap();
        let tracer = tracer(&pipeline);
        let place = Place::new("racing-down");
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..200 {
                        span_to(&tracer, &place.to(), "a");
                    }
                });
                scope.spawn(|| {
                    barrier.wait();
                    pipeline.shutdown(PATIENCE).wait();
                });
            }
        });
        settled(&pipeline);
        let Some(stats) = pipeline.stats().location(place.uri()).cloned() else {
            panic!("never seen");
        };
        assert_eq!(stats.accepted, 400);
        assert_eq!(stats.stored, place.len() as u64);
        assert_eq!(stats.dropped.by(DropReason::Shutdown), 400 - stats.stored);
    }
}

#[test]
fn after_shutdown_blocking_overflow_does_not_block() {
    let pipeline = quick()
        .with_budget(1, 1)
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let stuck = Place::on_write("stuck", |_, _| Step::Block(Duration::from_secs(5)));
    span_to(&tracer, &stuck.to(), "a");
    eventually("it is stuck", || stuck.attempts() == 1);
    assert!(
        pipeline
            .shutdown(Duration::from_millis(100))
            .wait()
            .timed_out
    );
    let began = Instant::now();
    span_to(&tracer, &stuck.to(), "b");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(stuck.stats(&pipeline).dropped.by(DropReason::Shutdown), 1);
}

#[test]
fn when_the_last_handle_is_dropped_the_queue_is_still_delivered() {
    let place = Place::on_write("last-handle", |_, _| {
        Step::Sleep(Duration::from_millis(100))
    });
    {
        let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
        let tracer = tracer(&pipeline);
        for _ in 0..10 {
            span_to(&tracer, &place.to(), "a");
        }
    }
    eventually("all are stored", || place.len() == 10);
    eventually("the sink is closed", || place.closes() == 1);
}

#[test]
fn two_providers_on_one_pipeline() {
    let pipeline = quick().build().unwrap();
    let (one, two) = (provider(&pipeline), provider(&pipeline));
    let place = Place::new("two-providers");
    span_to(&one.tracer("t"), &place.to(), "one");
    span_to(&two.tracer("t"), &place.to(), "two");
    one.force_flush().unwrap();
    assert_eq!(place.names(), ["one", "two"]);
    one.shutdown().unwrap();
    span_to(&two.tracer("t"), &place.to(), "still there");
    two.shutdown().unwrap();
    assert_eq!(place.len(), 3);
    assert_eq!(place.closes(), 0, "a provider does not end the pipeline");
    pipeline.shutdown(PATIENCE).wait();
    assert_eq!(place.closes(), 1);
    settled(&pipeline);
}

#[test]
fn a_provider_says_what_its_flush_lost() {
    let pipeline = quick().build().unwrap();
    let provider = provider(&pipeline);
    let condemned = || Error::new(ErrorKind::InvalidSpan, "write", "bad").mend("make it");
    let place = Place::on_write("provider-lost", move |_, _| Step::Fail(condemned()));
    span_to(&provider.tracer("t"), &place.to(), "a");
    let error = provider.force_flush().unwrap_err().to_string();
    assert!(
        error.contains("1 spans") && error.contains("make it"),
        "{error}"
    );
    provider.force_flush().unwrap();
}

#[test]
fn the_guard_flushes_also_while_a_panic_unwinds() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("guard");
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = pipeline.flush_guard(PATIENCE);
        span_to(&tracer, &place.to(), "a");
        panic!("as told");
    }));
    assert!(unwound.is_err());
    assert_eq!(place.names(), ["a"]);
}

#[test]
fn a_span_that_ends_on_another_thread_after_its_scope_is_covered() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("elsewhere");
    let span = {
        let _scope = place.to().enter();
        tracer.start("a")
    };
    std::thread::spawn(move || drop(span)).join().unwrap();
    flush(&pipeline);
    assert_eq!(place.names(), ["a"]);
    assert!(!Context::current().has_active_span());
    settled(&pipeline);
}

#[test]
fn a_long_running_trace_is_visible_while_it_runs() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("long");
    let root = root(&tracer, &place.to(), "root");
    for i in 1..=3 {
        drop(tracer.start_with_context("step", &root));
        eventually("the step is stored", || place.len() == i);
    }
    assert_eq!(place.stats(&pipeline).open_spans, 1);
    drop(root);
    flush(&pipeline);
    assert_eq!(place.names(), ["root", "step", "step", "step"]);
    settled(&pipeline);
}

#[test]
fn shutdown_waits_for_sinks_that_are_being_closed_already() {
    let pipeline = quick()
        .with_idle_close(Duration::from_millis(20))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("closes-slowly");
    span_to(&tracer, &place.to(), "a");
    flush(&pipeline);
    // Idle for long enough that it is being closed, and not long enough that it is.
    std::thread::sleep(Duration::from_millis(100));
    pipeline.shutdown(PATIENCE).wait();
    assert_eq!((place.opens(), place.closes()), (1, 1));
}

#[test]
#[cfg(target_os = "linux")]
fn a_pipeline_leaves_no_thread_behind() {
    // Its threads have a name of their own; other tests of this program may have some too.
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("trace-delivery"))
            .count()
    };
    let mut kept = Vec::new();
    for i in 0..40 {
        let pipeline = quick().build().unwrap();
        let tracer = tracer(&pipeline);
        span_to(&tracer, &Place::new(&format!("threads-{i}")).to(), "a");
        if i % 2 == 0 {
            pipeline.shutdown(PATIENCE).wait();
            kept.push((pipeline, tracer));
        }
    }
    eventually("the threads end", || threads() < 40);
}
