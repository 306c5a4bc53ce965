//! What the pipeline says through `tracing`: once, from its own threads, with what to do about it.
//! One test, because it listens to the whole process.

use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trace_destination_conformance::{Act, Control, Faulty, REFUSE, passing, permanent};
use trace_destination_core::{Destination, GlobalSlot, MemoryLocation, Pipeline};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};

/// One line, with the thread it came from.
#[derive(Clone, Debug)]
struct Line {
    level: tracing::Level,
    text: String,
    thread: String,
}

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Line>>>);

impl Ear {
    /// The lines that contain a text.
    fn heard(&self, text: &str) -> Vec<Line> {
        let lines = self.0.lock().expect("no listener panics");
        lines
            .iter()
            .filter(|l| l.text.contains(text))
            .cloned()
            .collect()
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        // OpenTelemetry's own chatter is not ours.
        if !event.metadata().target().starts_with("trace_destination") {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("no listener panics").push(Line {
            level: *event.metadata().level(),
            text: text.0,
            thread: std::thread::current().name().unwrap_or_default().to_owned(),
        });
    }
}

fn place(name: &str) -> (Destination, Control) {
    let faulty = Faulty::new(Arc::new(MemoryLocation::new(name)));
    let control = faulty.control().clone();
    (Destination::new(faulty), control)
}

fn spans(tracer: &SdkTracer, at: &Destination, count: usize) {
    let cx = at.in_context(&Context::new());
    for _ in 0..count {
        let mut span = tracer.start_with_context("span", &cx);
        span.set_attribute(KeyValue::new(REFUSE, true));
        span.end();
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it never came about that {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_thing_is_said_once_and_by_the_delivery_thread() {
    let ear = Ear::default();
    let subscriber = tracing_subscriber::registry().with(ear.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let pipeline = Pipeline::builder()
        .with_global(Arc::new(GlobalSlot::new()))
        .with_linger(Duration::from_millis(20))
        .build()
        .unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("log");
    let flush = || pipeline.flush(Duration::from_secs(20)).wait();

    // Spans without a destination, ten times.
    for _ in 0..10 {
        tracer.start_with_context("nowhere", &Context::new()).end();
        flush();
    }
    until("unrouted spans are warned of", || {
        !ear.heard("no destination").is_empty()
    });

    // A scope inside a trace that is bound elsewhere, ten times.
    let (a, _) = place("log-a");
    let (b, _) = place("log-b");
    for _ in 0..10 {
        let cx = Context::new()
            .with_span(tracer.start_with_context("r", &a.in_context(&Context::new())));
        tracer.start_with_context("child", &b.in_context(&cx)).end();
        cx.span().end();
    }
    until("scopes without effect are warned of", || {
        !ear.heard("had no effect").is_empty()
    });

    // A place that refuses spans, one that fails for good, one that fails and recovers.
    let (picky, control) = place("log-picky");
    control.set(Act::RefuseMarked);
    let (broken, control) = place("log-broken");
    control.set(Act::Fail(permanent()));
    let (shaky, control) = place("log-shaky");
    for round in 0..10 {
        if round == 0 {
            control.script(vec![Act::Fail(passing()); 3]);
        }
        for at in [&picky, &broken, &shaky] {
            spans(&tracer, at, 3);
        }
        flush();
    }
    until("recovery is told", || {
        !ear.heard("being stored again").is_empty()
    });

    for (what, level, count) in [
        ("no destination", tracing::Level::WARN, 1),
        ("had no effect", tracing::Level::WARN, 1),
        ("memory:log-picky", tracing::Level::WARN, 1),
        ("cannot be stored", tracing::Level::ERROR, 1),
        ("will be tried again", tracing::Level::WARN, 1),
        ("being stored again", tracing::Level::INFO, 1),
    ] {
        let lines = ear.heard(what);
        assert_eq!(lines.len(), count, "{what}: {lines:?}");
        assert!(lines.iter().all(|l| l.level == level), "{what}: {lines:?}");
    }
    // An error says where and what to do.
    let broken = ear.heard("memory:log-broken");
    assert!(broken.len() <= 2, "{broken:?}");
    assert!(
        broken
            .iter()
            .all(|l| l.text.contains("grant the permission")),
        "{broken:?}"
    );
    // Nothing is said on the application's threads.
    for line in ear.heard("") {
        assert_eq!(line.thread, "trace-delivery", "{line:?}");
    }
}
