//! Promise 7 at the end of a thread: spans that start and end in destructors of thread-locals.
//!
//! A panic there aborts the process, so each case runs in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer};
use std::cell::RefCell;
use std::process::Command;
use support::*;
use trace_destination_core::DestinationExt as _;

const CASE: &str = "TRACE_DESTINATION_TEARDOWN";

type AtEnd = Box<dyn FnOnce()>;

/// Runs what it is given when its thread ends.
struct End(Vec<AtEnd>);

impl Drop for End {
    fn drop(&mut self) {
        for f in self.0.drain(..) {
            f();
        }
    }
}

thread_local! {
    static END: RefCell<End> = const { RefCell::new(End(Vec::new())) };
}

fn at_end(f: impl FnOnce() + 'static) {
    END.with_borrow_mut(|end| end.0.push(Box::new(f)));
}

/// Runs `case` on a thread of a process of its own and expects the names stored.
fn alone(
    case: &'static str,
    expected: &[&str],
    body: fn(Place, opentelemetry_sdk::trace::SdkTracer),
) {
    if std::env::var(CASE).as_deref() == Ok(case) {
        let pipeline = quick().build().unwrap();
        let tracer = tracer(&pipeline);
        let place = Place::new("teardown");
        let (p, t) = (place.clone(), tracer.clone());
        std::thread::spawn(move || body(p, t)).join().unwrap();
        flush(&pipeline);
        assert_eq!(place.names(), expected);
        settled(&pipeline);
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--test-threads", "1"])
        .env(CASE, case)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn context_destroyed_first() {
    alone(
        "context_destroyed_first",
        &["explicit", "kept"],
        |place, tracer| {
            // Registered before the context's own thread-local, so destroyed after it.
            at_end(|| {});
            let kept = tracer.start_with_context("kept", &place.to().in_context(&Context::new()));
            at_end(move || drop(kept));
            at_end(move || span_to(&tracer, &place.to(), "explicit"));
        },
    );
}

#[test]
fn context_destroyed_first_and_never_seen_by_us() {
    alone(
        "context_destroyed_first_and_never_seen_by_us",
        &["explicit"],
        |place, tracer| {
            at_end(|| {});
            drop(Context::new().attach());
            at_end(move || span_to(&tracer, &place.to(), "explicit"));
        },
    );
}

#[test]
fn context_destroyed_last() {
    alone(
        "context_destroyed_last",
        &["child", "explicit", "root"],
        |place, tracer| {
            let root = root(&tracer, &place.to(), "root");
            at_end(move || {
                span_to(&tracer, &place.to(), "explicit");
                drop(tracer.start_with_context("child", &root));
            });
        },
    );
}

#[test]
fn no_context_at_all() {
    alone("no_context_at_all", &["explicit"], |place, tracer| {
        at_end(move || span_to(&tracer, &place.to(), "explicit"));
    });
}

#[test]
fn a_scoped_future_dropped_at_the_end() {
    alone(
        "a_scoped_future_dropped_at_the_end",
        &["cleanup"],
        |place, tracer| {
            struct Guard(opentelemetry_sdk::trace::SdkTracer, Place);
            impl Drop for Guard {
                fn drop(&mut self) {
                    span_to(&self.0, &self.1.to(), "cleanup");
                }
            }
            at_end(|| {});
            drop(Context::new().attach());
            let guard = Guard(tracer, place.clone());
            let future = async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
            .with_destination(place.to());
            at_end(move || drop(future));
        },
    );
}

#[test]
fn the_trace_level_api() {
    alone("the_trace_level_api", &[], |_, _| {
        at_end(|| {});
        drop(Context::new().attach());
        at_end(|| {
            assert!(!trace_destination_core::update_current_trace(|_| {}));
            assert_eq!(trace_destination_core::current(), None);
            assert!(!trace_destination_core::new_root().has_active_span());
        });
    });
}
