//! What generated faults showed that nothing tested: an unset level when a destination is asked for,
//! sinks that are being closed at shutdown, and spans that are freed while the application rests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the support is for all test programs")]

mod support;

use async_trait::async_trait;
use opentelemetry::trace::{Span as _, Tracer as _};
use opentelemetry::{Context, KeyValue, StringValue, Value};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use support::*;
use trace_destination_core::{
    Capabilities, Destination, Error, GlobalSlot, Guarantee, LocationUri, TraceBatch,
    TraceLocation, TraceSink, Written,
};

/// Longer than anything takes that happens at all.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_unset_level_is_passed_over_when_a_destination_is_asked_for() {
    let global = Arc::new(GlobalSlot::new());
    let (_, local) = memory("unset-local");
    let (_, below) = memory("unset-global");
    let (_, last) = memory("unset-environment");
    let pipeline = quick()
        .with_global(global.clone())
        .with_environment(last.clone())
        .build()
        .unwrap();
    let empty = Context::new();
    let unset = Destination::unset().in_context(&empty);
    let resolved = |cx: &Context| pipeline.resolve(cx).map(|found| found.to_string());
    let name = |destination: &Destination| Some(destination.to_string());

    assert_eq!(resolved(&empty), name(&last));
    assert_eq!(resolved(&unset), name(&last), "context unset");
    global.set(Destination::unset());
    assert_eq!(resolved(&empty), name(&last), "global unset");
    assert_eq!(resolved(&unset), name(&last), "both unset");
    global.set(below.clone());
    assert_eq!(resolved(&unset), name(&below), "context unset, global set");
    assert_eq!(resolved(&local.in_context(&empty)), name(&local));

    let nowhere = quick()
        .with_global(Arc::new(GlobalSlot::new()))
        .with_environment(Destination::unset())
        .build()
        .unwrap();
    assert!(nowhere.resolve(&unset).is_none(), "every level unset");
}

/// A place whose sink takes its time to close, and says when it begins to.
#[derive(Clone)]
struct Closing {
    uri: LocationUri,
    begun: Arc<Mutex<mpsc::Sender<()>>>,
    closed: Arc<AtomicBool>,
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Closing {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl TraceSink for Closing {
    async fn write(&self, _: &TraceBatch) -> Result<Written, Error> {
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.begun.lock().unwrap().send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn shutdown_ends_after_an_idle_sink_that_is_being_closed() {
    let pipeline = quick()
        .with_idle_close(Duration::from_millis(1))
        .build()
        .unwrap();
    let (begun, begins) = mpsc::channel();
    let place = Closing {
        uri: "closing:slowly".parse().unwrap(),
        begun: Arc::new(Mutex::new(begun)),
        closed: Arc::default(),
    };
    span_to(&tracer(&pipeline), &Destination::new(place.clone()), "a");
    flush(&pipeline);
    begins.recv_timeout(LONG).unwrap();
    // It is being closed because it is idle, which has nothing to do with the shutdown.
    pipeline.shutdown(LONG).wait();
    assert!(place.closed.load(Ordering::SeqCst));
}

#[test]
fn written_spans_are_freed_while_the_application_rests() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    // Keeps nothing of what it is given.
    let place = Place::on_write("freed", |_, _| Step::Refuse(&["a"]));
    let text: Arc<str> = "held by spans alone".into();
    let cx = place.to().in_context(&Context::new());
    // So many that spans are written, and come back to be freed, while others still end.
    for _ in 0..50_000 {
        let mut span = tracer.start_with_context("a", &cx);
        let value = Value::String(StringValue::from(text.clone()));
        span.set_attribute(KeyValue::new("text", value));
    }
    flush(&pipeline);
    // No span comes any more that could free others.
    eventually("the spans are freed", || Arc::strong_count(&text) == 1);
}
