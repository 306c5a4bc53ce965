//! Promise 13: what the log says, once, from the delivery threads only.
//!
//! A subscriber for the process is set here, so these tests have a program of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::trace::{TraceContextExt, Tracer};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;
use support::*;
use trace_destination_core::{Destination, LocationState, Pipeline};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// One event: its level, what it says and on which thread.
#[derive(Clone, Debug)]
struct Line {
    level: tracing::Level,
    text: String,
    thread: Option<String>,
}

#[derive(Default)]
struct Lines(Mutex<Vec<Line>>);

/// What a subscriber may do to the thread that calls it.
static RUDE: OnceLock<Pipeline> = OnceLock::new();

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

struct Capture(&'static Lines);

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        let rude = text.contains("rude");
        self.0.0.lock().unwrap().push(Line {
            level: *event.metadata().level(),
            text,
            thread: std::thread::current().name().map(str::to_owned),
        });
        if rude {
            // It may look at the pipeline, and it may have a defect.
            let _ = RUDE.get().map(Pipeline::stats);
            panic!("as told");
        }
    }
}

static LINES: LazyLock<&'static Lines> = LazyLock::new(|| {
    let lines: &'static Lines = Box::leak(Box::default());
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Capture(lines)))
        .unwrap();
    lines
});

fn lines(about: &str) -> Vec<Line> {
    let all = LINES.0.lock().unwrap();
    all.iter()
        .filter(|l| l.text.contains(about))
        .cloned()
        .collect()
}

#[test]
fn a_failing_location_is_told_once_and_so_is_its_recovery() {
    LazyLock::force(&LINES);
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let healed = Arc::new(AtomicBool::new(false));
    let switch = healed.clone();
    let place = Place::on_write("log-fails", move |_, _| {
        if switch.load(Ordering::SeqCst) {
            Step::Do
        } else {
            Step::Fail(broken())
        }
    });
    for _ in 0..20 {
        span_to(&tracer, &place.to(), "a");
        flush(&pipeline);
        std::thread::sleep(Duration::from_millis(10));
    }
    healed.store(true, Ordering::SeqCst);
    eventually("it heals", || {
        span_to(&tracer, &place.to(), "a");
        flush(&pipeline);
        place.stats(&pipeline).state == LocationState::Open
    });
    let told = lines("script:log-fails");
    let saying = |text: &str| told.iter().filter(|l| l.text.contains(text)).count();
    assert_eq!(saying("cannot be stored"), 1, "{told:#?}");
    assert_eq!(saying("spans were dropped"), 0, "told with it: {told:#?}");
    assert_eq!(saying("are being stored again"), 1, "{told:#?}");
    assert!(saying("make it") >= 1, "the mend is in the log");
    let error = told
        .iter()
        .find(|l| l.text.contains("cannot be stored"))
        .unwrap();
    assert_eq!(error.level, tracing::Level::ERROR);
    assert!(
        told.iter()
            .all(|l| l.thread.as_deref() == Some("trace-delivery")),
        "{told:#?}"
    );
}

#[test]
fn unrouted_spans_and_scopes_without_effect_are_told_once() {
    LazyLock::force(&LINES);
    let pipeline = quick()
        .with_linger(Duration::from_millis(40))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    for _ in 0..50 {
        drop(tracer.start("nowhere"));
        std::thread::sleep(Duration::from_millis(2));
    }
    let place = Place::new("log-scope");
    let outer = root(&tracer, &place.to(), "root");
    for _ in 0..50 {
        drop(tracer.start_with_context("inside", &Destination::discard().in_context(&outer)));
        std::thread::sleep(Duration::from_millis(2));
    }
    outer.span().end();
    eventually("both are told", || {
        !lines("spans have no destination").is_empty() && !lines("bound elsewhere").is_empty()
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines("spans have no destination").len(), 1);
    assert_eq!(lines("bound elsewhere").len(), 1);
}

#[test]
fn overflow_is_told_once_and_not_for_ever() {
    LazyLock::force(&LINES);
    let pipeline = quick()
        .with_linger(Duration::from_millis(40))
        .with_budget(1, 1)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("log-overflow", |_, _| {
        Step::Sleep(Duration::from_millis(100))
    });
    for _ in 0..10 {
        span_to(&tracer, &place.to(), "a");
    }
    eventually("it is told", || !lines("script:log-overflow").is_empty());
    // Longer than the interval in which a line is not repeated anyway.
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(lines("script:log-overflow").len(), 1);
}

#[test]
fn hooks_say_nothing_on_the_threads_of_the_application() {
    LazyLock::force(&LINES);
    let pipeline = quick().with_budget(1, 1).build().unwrap();
    let tracer = tracer(&pipeline);
    let name = std::thread::current().name().map(str::to_owned);
    let place = Place::on_write("log-hooks", |_, _| Step::Fail(broken()));
    for _ in 0..100 {
        span_to(&tracer, &place.to(), "a");
        drop(tracer.start_with_context("orphan", &opentelemetry::Context::new()));
    }
    pipeline.shutdown(PATIENCE).wait();
    span_to(&tracer, &place.to(), "late");
    let mine = LINES
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|l| l.thread == name)
        .count();
    assert_eq!(mine, 0);
}

#[test]
fn a_rude_subscriber_ends_nothing() {
    LazyLock::force(&LINES);
    let pipeline = quick()
        .with_linger(Duration::from_millis(40))
        .with_budget(1, 1)
        .build()
        .unwrap();
    let _ = RUDE.set(pipeline.clone());
    let tracer = tracer(&pipeline);
    let place = Place::on_write("rude", |n, _| match n {
        0 | 1 => Step::Fail(shaky()),
        2 => Step::Refuse(&["a"]),
        3 => Step::Fail(broken()),
        _ => Step::Sleep(Duration::from_millis(50)),
    });
    for _ in 0..50 {
        span_to(&tracer, &place.to(), "a");
        std::thread::sleep(Duration::from_millis(5));
    }
    eventually("it says a few things", || lines("rude").len() >= 4);
    eventually("delivery goes on", || {
        span_to(&tracer, &place.to(), "a");
        place.stats(&pipeline).stored > 0
    });
    flush(&pipeline);
    settled(&pipeline);
    pipeline.shutdown(PATIENCE).wait();
}
