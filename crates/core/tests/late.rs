//! Trace-level values that a sink tries apart from their batch.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use async_trait::async_trait;
use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trace_destination_core::{
    Capabilities, Destination, Error, ErrorKind, Guarantee, LateUpdate, LocationUri, Pipeline,
    TraceBatch, TraceLocation, TraceSink, Written,
};

/// A place whose sink leaves a value to be tried later, for each batch.
#[derive(Clone)]
struct Place {
    uri: LocationUri,
    late: Arc<Mutex<Vec<LateUpdate>>>,
    begin: fn() -> LateUpdate,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Place {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl TraceSink for Place {
    async fn write(&self, _: &TraceBatch) -> Result<Written, Error> {
        let late = (self.begin)();
        assert!(late.is_counted());
        self.late.lock().unwrap().push(late);
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

fn place(name: &str) -> Place {
    Place {
        uri: format!("test://{name}").parse().unwrap(),
        late: Arc::default(),
        begin: LateUpdate::begin,
    }
}

fn end_a_span(pipeline: &Pipeline, place: &Place) {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let at = Destination::new(place.clone());
    let cx = at.in_context(&opentelemetry::Context::new());
    provider
        .tracer("late")
        .start_with_context("span", &cx)
        .end();
    let report = pipeline.flush(Duration::from_secs(20)).wait();
    // No flush waits for it.
    assert!(report.is_complete(), "{report}");
}

/// Whether all is stored and nothing lost, and how many values are still tried.
fn verdicts(pipeline: &Pipeline, place: &Place) -> (bool, bool, u64) {
    let report = pipeline.flush(Duration::from_secs(20)).wait();
    let of = report.location(&place.uri).unwrap();
    let stats = pipeline.stats();
    let late = stats.location(&place.uri).unwrap().late_updates;
    assert_eq!(of.late_updates, late, "{report}");
    assert_eq!(report.to_string().contains("still tried"), late > 0);
    (report.all_stored(), report.nothing_lost(), late)
}

fn lost(pipeline: &Pipeline, place: &Place) -> (u64, Option<String>) {
    let stats = pipeline.stats();
    let of = stats.location(&place.uri).unwrap();
    let error = of.last_error.as_ref().map(ToString::to_string);
    (of.lost_updates, error)
}

#[test]
fn what_becomes_of_it_is_counted_once() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let place = place("counted");
    let take = || place.late.lock().unwrap().pop().unwrap();
    end_a_span(&pipeline, &place);
    assert_eq!(verdicts(&pipeline, &place), (false, true, 1));
    take().stored();
    assert_eq!(verdicts(&pipeline, &place), (true, true, 0));
    assert_eq!(lost(&pipeline, &place), (0, None));
    end_a_span(&pipeline, &place);
    assert_eq!(verdicts(&pipeline, &place), (false, true, 1));
    drop(take());
    assert_eq!(lost(&pipeline, &place), (1, None));
    assert_eq!(verdicts(&pipeline, &place), (false, false, 0));
    end_a_span(&pipeline, &place);
    take().lost(Error::new(ErrorKind::Unavailable, "complete trace", "away"));
    let (count, error) = lost(&pipeline, &place);
    assert_eq!(count, 2);
    let error = error.unwrap();
    assert!(
        error.contains("away") && error.contains("test://counted"),
        "{error}"
    );
    let report = pipeline.shutdown(Duration::from_secs(20)).wait();
    assert_eq!(
        report.location(&place.uri).unwrap().lost_updates,
        2,
        "{report}"
    );
}

#[test]
fn what_is_left_at_the_end_is_lost() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let place = place("left");
    for _ in 0..3 {
        end_a_span(&pipeline, &place);
    }
    let report = pipeline.shutdown(Duration::from_secs(20)).wait();
    let of = report.location(&place.uri).unwrap();
    assert_eq!((of.lost_updates, of.late_updates), (3, 0), "{report}");
    // Whatever becomes of them now has been counted.
    let mut late = std::mem::take(&mut *place.late.lock().unwrap());
    drop(late.pop());
    late.pop().unwrap().stored();
    late.pop()
        .unwrap()
        .lost(Error::new(ErrorKind::Unavailable, "complete trace", "away"));
    let (values, error) = lost(&pipeline, &place);
    assert_eq!(values, 3);
    assert!(error.unwrap().contains("before the shutdown"));
    let stats = pipeline.stats();
    assert_eq!(stats.location(&place.uri).unwrap().late_updates, 0);
}

#[test]
fn outside_of_a_write_nobody_counts() {
    let late = LateUpdate::begin();
    assert!(!late.is_counted());
    late.lost(Error::new(ErrorKind::Unavailable, "complete trace", "away"));
}

#[test]
fn what_waits_for_its_root_is_neither_late_nor_lost_until_the_end() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let mut place = place("held");
    place.begin = LateUpdate::hold;
    let take = || place.late.lock().unwrap().pop().unwrap();
    for _ in 0..4 {
        end_a_span(&pipeline, &place);
    }
    assert_eq!(verdicts(&pipeline, &place), (true, true, 0));
    take().stored();
    drop(take());
    assert_eq!(lost(&pipeline, &place).0, 1);
    let report = pipeline.shutdown(Duration::from_secs(20)).wait();
    assert!(!report.all_stored());
    assert_eq!(lost(&pipeline, &place).0, 3);
    // What was counted at the end is not counted again.
    take().stored();
    drop(take());
    assert_eq!(lost(&pipeline, &place).0, 3);
}
