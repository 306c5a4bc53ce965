//! A process that forks: what the child inherits is refused at once and says so, whatever the
//! parent's threads were doing, and a pipeline that the child builds works.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use fork::{Fork, fork, waitpid_nohang};
use opentelemetry::Context;
use opentelemetry::trace::Tracer as _;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{
    DropReason, FlushReport, MemoryStore, Overflow, Pipeline, update_current_trace,
};

/// What is answered at once takes no longer, on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Runs `child` in a process that is forked here, and insists that it ends well and soon.
fn in_child(child: impl FnOnce()) {
    let pid = match fork().unwrap() {
        Fork::Child => {
            let ended = catch_unwind(AssertUnwindSafe(child));
            // Not `exit`: it takes a lock of the standard library that a thread of the parent may
            // have held when this process was forked.
            let end = if ended.is_ok() { "true" } else { "false" };
            let error = std::process::Command::new(end).exec();
            panic!("the child cannot end: {error}");
        }
        Fork::Parent(pid) => pid,
    };
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = waitpid_nohang(pid).unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let kill = std::process::Command::new("kill");
            let _ = { kill }.args(["-9", &pid.to_string()]).status();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(status, 0, "the child failed: exit {}", status >> 8);
}

fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = call();
    assert!(began.elapsed() < AT_ONCE, "{what}: {:?}", began.elapsed());
    result
}

/// Polls once, for a future that must be ready.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("pending"),
    }
}

fn is_refused(report: &FlushReport) {
    let error = report.error.as_ref().unwrap();
    assert!(error.to_string().contains("build a new pipeline"));
    assert!(!report.is_complete() && !report.all_stored() && !report.timed_out);
    assert!(report.locations.iter().all(|l| l.pending == 0));
    assert!(report.to_string().starts_with(&error.to_string()));
}

/// What every call of an inherited pipeline has to do.
fn is_left_behind(pipeline: Pipeline) {
    is_refused(&at_once("flush", || pipeline.flush(PATIENCE).wait()));
    is_refused(&at_once("flush, awaited", || {
        ready(pipeline.flush(PATIENCE))
    }));
    let stats = at_once("stats", || pipeline.stats());
    assert_eq!(stats.bytes, 0);
    for l in &stats.locations {
        assert_eq!((l.queued, l.in_flight), (0, 0));
        assert_eq!(l.accepted, l.stored + l.dropped.total(), "{l:?}");
    }
    at_once("a guard", || drop(pipeline.flush_guard(PATIENCE)));
    is_refused(&at_once("shutdown", || pipeline.shutdown(PATIENCE).wait()));
    is_refused(&at_once("shutdown, awaited", || {
        ready(pipeline.shutdown(PATIENCE))
    }));
    at_once("the last handle", || drop(pipeline));
}

/// A pipeline of the child's own stores what it is given.
fn works(name: &str) {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (location, to) = memory(name);
    for _ in 0..100 {
        span_to(&tracer, &to, "child");
    }
    let cx = root(&tracer, &to, "root");
    let attached = cx.attach();
    assert!(update_current_trace(
        |t| t.session_id = Some("me".to_owned())
    ));
    drop(attached);
    assert!(pipeline.flush(PATIENCE).wait().all_stored());
    assert!(location.store().len() >= 100);
    assert!(pipeline.shutdown(PATIENCE).wait().is_complete());
}

#[test]
fn a_child_is_told_at_once_and_builds_its_own() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let provider = provider(&pipeline);
    let place = Place::new("fork-idle");
    let tracer = tracer(&pipeline);
    for _ in 0..10 {
        span_to(&tracer, &place.to(), "parent");
    }
    let place = &place;
    let inherited = pipeline.flush(PATIENCE);
    in_child(|| {
        let before = pipeline.stats().location(place.uri()).unwrap().clone();
        span_to(&tracer, &place.to(), "child");
        let after = pipeline.stats().location(place.uri()).unwrap().clone();
        assert_eq!(after.dropped.total(), before.dropped.total() + 1);
        assert_eq!(
            after.dropped.by(DropReason::Shutdown),
            after.dropped.total()
        );
        let error = at_once("the provider", || provider.force_flush().unwrap_err());
        assert!(
            error.to_string().contains("build a new pipeline"),
            "{error}"
        );
        is_refused(&at_once("a flush of the parent", || inherited.wait()));
        is_left_behind(pipeline.clone());
        works("fork-idle-child");
    });
    flush(&pipeline);
    assert_eq!(place.len(), 10);
    settled(&pipeline);
}

#[test]
fn a_child_whose_room_is_used_up_waits_for_nothing() {
    let pipeline = quick()
        .with_budget(20_000, 20_000)
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("fork-full", |n, _| match n {
        0 => Step::Block(Duration::from_secs(2)),
        _ => Step::Do,
    });
    span_to(&tracer, &place.to(), "parent");
    eventually("it is written", || place.attempts() == 1);
    // The child has the last handles.
    in_child(move || {
        at_once("a thousand spans", || {
            for _ in 0..1_000 {
                span_to(&tracer, &place.to(), "child");
            }
        });
        drop(tracer);
        is_left_behind(pipeline);
    });
}

#[test]
fn forks_of_a_busy_process_neither_hang_nor_lose() {
    let pipeline = quick()
        .with_overflow(Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    let places: Vec<_> = (0..8).map(|i| Place::new(&format!("fork-{i}"))).collect();
    let stop = AtomicBool::new(false);
    let spans = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for place in &places {
            scope.spawn(|| {
                let tracer = tracer(&pipeline);
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..20 {
                        span_to(&tracer, &place.to(), "parent");
                        spans.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(MemoryStore::named("fork-busy"));
                    let _ = update_current_trace(|_| {});
                    let _ = pipeline.stats();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = pipeline.flush(PATIENCE).wait();
                let mut task = TaskContext::from_waker(Waker::noop());
                let _ = pin!(pipeline.flush(PATIENCE)).poll(&mut task);
                drop(quick().build().unwrap());
            }
        });
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..20 {
                // No runtime is started there: with tokio's feature `parking_lot`, which `deltalake`
                // turns on, a lock of that crate may be held by a thread of the parent.
                in_child(|| is_left_behind(pipeline.clone()));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(ended.is_ok());
    });
    in_child(|| works("fork-after-busy"));
    flush(&pipeline);
    settled(&pipeline);
    let stored: usize = places.iter().map(Place::len).sum();
    assert_eq!(stored as u64, spans.into_inner());
}

#[test]
fn a_grandchild_is_a_child_too() {
    in_child(|| {
        let pipeline = quick().build().unwrap();
        let tracer = tracer(&pipeline);
        let (_, to) = memory("fork-grand");
        span_to(&tracer, &to, "child");
        in_child(|| {
            drop(tracer.start_with_context("grandchild", &to.in_context(&Context::new())));
            is_left_behind(pipeline.clone());
            works("fork-grand-own");
        });
        assert!(pipeline.flush(PATIENCE).wait().all_stored());
    });
}
