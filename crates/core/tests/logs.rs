//! Promise 13: what the log says, once, from the delivery threads only.
//!
//! A subscriber for the process is set here, so these tests have a program of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::trace::{TraceContextExt, Tracer};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{
    Capabilities, Destination, Error, GlobalSlot, Guarantee, LocationState, LocationUri, Pipeline,
    RetryPolicy, TraceLocation, TraceSink,
};
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
        let blocks = text.contains("subscriber-blocks");
        self.0.0.lock().unwrap().push(Line {
            level: *event.metadata().level(),
            text,
            thread: std::thread::current().name().map(str::to_owned),
        });
        if blocks {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        if rude {
            // It may look at the pipeline, and it may have a defect.
            let _ = RUDE.get().map(Pipeline::stats);
            std::panic::panic_any(Bomb(3));
        }
    }
}

/// Panics when it is dropped, with another of its kind.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1) {
            std::panic::panic_any(Bomb(left));
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
    let pipeline = quick()
        .with_retry(RetryPolicy {
            deadline: Duration::from_millis(20),
            initial: Duration::from_millis(5),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
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
        let _ = pipeline.flush(PATIENCE).wait();
        std::thread::sleep(Duration::from_millis(10));
    }
    healed.store(true, Ordering::SeqCst);
    eventually("it heals", || {
        span_to(&tracer, &place.to(), "a");
        let _ = pipeline.flush(PATIENCE).wait();
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
        !lines("example=\"nowhere\"").is_empty() && !lines("bound elsewhere").is_empty()
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines("example=\"nowhere\"").len(), 1);
    assert_eq!(lines("bound elsewhere").len(), 1);
}

#[test]
fn traces_below_the_scopes_are_told_once() {
    LazyLock::force(&LINES);
    let slot = Arc::new(GlobalSlot::new());
    let (global, scoped) = (Place::new("log-below"), Place::new("log-in-scope"));
    slot.set(global.to());
    let pipeline = quick().with_global(slot).build().unwrap();
    let tracer = tracer(&pipeline);
    span_to(&tracer, &scoped.to(), "in a scope");
    // With the current context it goes where everybody can see that it will.
    drop(tracer.start("current"));
    flush(&pipeline);
    assert_eq!(pipeline.stats().unscoped_roots, 0);
    for _ in 0..20 {
        drop(tracer.start_with_context("own context", &opentelemetry::Context::new()));
        flush(&pipeline);
    }
    assert_eq!(pipeline.stats().unscoped_roots, 20);
    assert_eq!(lines("while others have one of their own").len(), 1);
    assert_eq!((global.len(), scoped.len()), (21, 1));
}

#[test]
fn a_short_program_hears_of_unrouted_spans() {
    LazyLock::force(&LINES);
    for (builder, name, advice) in [
        (quick(), "short-open", "`set_global`"),
        (quick().strict(), "short-strict", "this pipeline is strict"),
    ] {
        let pipeline = builder.build().unwrap();
        drop(tracer(&pipeline).start(name));
        let _ = pipeline.shutdown(PATIENCE).wait();
        let told = lines(name);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].text.contains("spans have no destination"));
        assert!(told[0].text.contains(advice), "{told:#?}");
        assert_eq!(told[0].text.contains("set_global"), name == "short-open");
    }
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

#[test]
fn a_subscriber_that_blocks_holds_up_nothing() {
    LazyLock::force(&LINES);
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let bad: Vec<_> = (0..8)
        .map(|i| {
            Place::on_write(&format!("subscriber-blocks-{i}"), |_, _| {
                Step::Fail(broken())
            })
        })
        .collect();
    let good = Place::new("log-beside-blocked");
    for round in 0..50 {
        for place in &bad {
            span_to(&tracer, &place.to(), "a");
        }
        span_to(&tracer, &good.to(), "a");
        let began = Instant::now();
        assert!(!pipeline.flush(PATIENCE).wait().timed_out);
        // The first one waits a moment for the log, the others know better.
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{round}: {:?}",
            began.elapsed()
        );
    }
    assert_eq!(good.len(), 50);
    assert_eq!(
        lines("subscriber-blocks").len(),
        1,
        "it is not called again"
    );
    assert!(pipeline.shutdown(PATIENCE).wait().is_complete());
    settled(&pipeline);
}

/// One of many locations on a host that is down.
struct OnHost(LocationUri, Error);

impl std::fmt::Debug for OnHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for OnHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl TraceLocation for OnHost {
    fn uri(&self) -> &LocationUri {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Err(self.1.clone())
    }
}

const TENANTS: usize = 5_000;

fn tenants(host: &str, error: &Error) -> Vec<Destination> {
    let tenant = |i: usize| {
        let uri = LocationUri::from_parts("script", Some(host), &format!("/tenant-{i}"), []);
        Destination::new(OnHost(uri.unwrap(), error.clone()))
    };
    (0..TENANTS).map(tenant).collect()
}

/// The number that a field has, summed over lines.
fn sum(lines: &[Line], field: &str) -> usize {
    let value = |line: &Line| {
        let words = line.text.split(' ');
        let value = words.filter_map(|w| {
            w.strip_prefix(field)?
                .strip_prefix('=')?
                .parse::<usize>()
                .ok()
        });
        value.sum::<usize>()
    };
    lines.iter().map(value).sum()
}

#[test]
fn many_tenants_of_a_host_that_is_gone_are_few_lines_and_none_is_left_out() {
    LazyLock::force(&LINES);
    let pipeline = quick()
        .with_budget(1 << 30, 1 << 20)
        .with_batch_limits(unhurried())
        .build()
        .unwrap();
    let provider = provider(&pipeline);
    let tracer = opentelemetry::trace::TracerProvider::tracer(&provider, "t");
    let tenants = tenants("gone.example", &broken());
    for round in 0..3 {
        for to in &tenants {
            span_to(&tracer, to, "a");
        }
        // What the provider reports is one line too. Spans are kept for when the host comes back.
        let error = provider.force_flush().unwrap_err().to_string();
        let spans = format!("{} spans", (round + 1) * TENANTS);
        assert!(
            error.contains(&spans) && error.contains("5000 locations"),
            "{round}: {error}"
        );
        assert_eq!(error.matches("gone.example").count(), 1, "{error}");
    }
    let report = pipeline.shutdown(PATIENCE).wait();
    let text = report.to_string();
    assert!(
        text.lines().count() <= 11 && text.contains("and 4990 more"),
        "{text}"
    );
    let told = lines("gone.example");
    assert!(told.len() <= 10, "{} lines: {:#?}", told.len(), &told[..10]);
    // One that is told again with the spans it lost counts twice.
    assert!(sum(&told, "locations") >= TENANTS, "{told:#?}");
    assert!(told.iter().any(|l| l.text.contains("at several locations")));
    assert!(told.iter().all(|l| l.text.contains("make it")), "the mend");
}

#[test]
fn many_tenants_of_a_host_that_does_not_answer_are_few_lines() {
    LazyLock::force(&LINES);
    let pipeline = quick().with_budget(1 << 30, 1 << 20).build().unwrap();
    let tracer = tracer(&pipeline);
    for to in &tenants("down.example", &shaky()) {
        span_to(&tracer, to, "a");
    }
    let guard = pipeline.flush_guard(Duration::from_secs(2));
    drop(guard);
    let report = pipeline.shutdown(Duration::from_millis(100)).wait();
    assert!(report.timed_out);
    let told = lines("down.example");
    assert!(told.len() <= 6, "{} lines: {told:#?}", told.len());
    let end = lines("the flush at the end");
    assert_eq!(end.len(), 1, "{end:#?}");
    assert_eq!(sum(&end, "spans"), TENANTS);
    assert_eq!(sum(&end, "locations"), TENANTS);
}
