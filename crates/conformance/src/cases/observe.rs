//! Promises 13 and 14: what can be seen from outside, and how idle places are kept.

use super::*;
use crate::faulty::{Act, REFUSE, condemned, passing, permanent};
use crate::world::{lazy, quick, until};
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::Span as _;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trace_destination_core::{
    Capabilities, Destination, DropReason, Error, Guarantee, LocationState, LocationUri,
    TraceBatch, TraceLocation, TraceSink, Written,
};

pub(crate) async fn stats_follow_a_span(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    let stats = |what: &str| {
        rig.stats(&a)
            .ok_or_else(|| Failure::new(format!("{what}: unknown")))
    };
    let span = rig.start("span", &a.context());
    let s = stats("an open span")?;
    ensure_eq!(
        (s.accepted, s.open_spans, s.state),
        (0, 1, LocationState::Closed),
        "an open span"
    );
    a.end(span);
    let s = stats("an ended span")?;
    ensure_eq!(
        (s.accepted, s.queued + s.in_flight, s.open_spans),
        (1, 1, 0),
        "an ended span"
    );
    ensure!(s.bytes > 0, "an ended span takes no room");
    a.control
        .script([Act::Wait, Act::Fail(passing()), Act::Wait]);
    let flush = rig.pipeline.flush(crate::world::SOON);
    until("the sink has it", || a.control.waiting() > 0).await?;
    let s = stats("a span in flight")?;
    ensure_eq!(
        (s.in_flight, s.queued, s.stored),
        (1, 0, 0),
        "a span in flight"
    );
    a.control.open_gate();
    ensure!(flush.await.is_complete(), "the flush was not complete");
    let s = stats("a stored span")?;
    ensure_eq!(
        (s.stored, s.queued, s.in_flight, s.bytes, s.state),
        (1, 0, 0, 0, LocationState::Open),
        "a stored span"
    );
    a.control.close_gate();
    a.control.script([Act::Fail(passing()), Act::Wait]);
    a.end(rig.start("span", &a.context()));
    let flush = rig.pipeline.flush(crate::world::SOON);
    until("the lane retries", || a.control.waiting() > 0).await?;
    let s = stats("a retried span")?;
    ensure_eq!(
        (s.state, s.retries > 0),
        (LocationState::Retrying, true),
        "a retried span"
    );
    ensure!(s.last_error.is_some(), "there is no last error");
    a.control.open_gate();
    ensure!(flush.await.is_complete(), "the flush was not complete");
    ensure_eq!(
        stats("recovered")?.state,
        LocationState::Open,
        "state after recovery"
    );
    a.control.set(Act::Fail(permanent()));
    rig.spans_at(&a, 1);
    rig.try_flush().await?;
    let s = stats("a span at a failing place")?;
    ensure_eq!(
        (s.state, s.queued + s.in_flight, s.dropped.total()),
        (LocationState::Failing, 1, 0),
        "a span at a failing place"
    );
    a.control.set(Act::Pass);
    w.verify(&rig).await
}

/// Everything a meter provider exported, as `name{attributes} value`.
fn series(exporter: &InMemoryMetricExporter) -> Result<Vec<(String, Vec<KeyValue>, f64)>, Failure> {
    let mut all = Vec::new();
    for resource in exporter.get_finished_metrics()? {
        for metric in resource.scope_metrics().flat_map(|s| s.metrics()) {
            let name = metric.name().to_owned();
            let mut add = |attributes: Vec<KeyValue>, value: f64| {
                all.push((name.clone(), attributes, value));
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    for p in sum.data_points() {
                        add(p.attributes().cloned().collect(), p.value() as f64);
                    }
                }
                AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                    for p in sum.data_points() {
                        add(p.attributes().cloned().collect(), p.value() as f64);
                    }
                }
                AggregatedMetrics::I64(MetricData::Gauge(gauge)) => {
                    for p in gauge.data_points() {
                        add(p.attributes().cloned().collect(), p.value() as f64);
                    }
                }
                AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
                    for p in gauge.data_points() {
                        add(p.attributes().cloned().collect(), p.value() as f64);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

pub(crate) async fn metrics(w: Arc<World>) -> Verdict {
    let (good, picky, broken) = (
        w.place("good").await?,
        w.place("picky").await?,
        w.place("broken").await?,
    );
    let exporter = InMemoryMetricExporter::default();
    let meters = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .build();
    let rig = w.rig_with(|b| {
        b.with_batch_limits(lazy())
            .with_meter(meters.meter("conformance"))
    })?;
    picky.control.set(Act::RefuseMarked);
    broken.control.set(Act::Fail(condemned()));
    rig.spans_at(&good, 5);
    for _ in 0..2 {
        let mut marked = rig.start("marked", &picky.context());
        marked.set_attribute(KeyValue::new(REFUSE, true));
        marked.end();
    }
    rig.start("lost", &broken.context()).end();
    rig.flush().await?;
    good.control.set(Act::Wait);
    rig.spans_at(&good, 3);
    meters.force_flush()?;
    let all = series(&exporter)?;
    let sum = |name: &str, error: Option<&str>| -> f64 {
        all.iter()
            .filter(|(n, attributes, _)| {
                let found = attributes.iter().find(|a| a.key.as_str() == "error.type");
                n == name && found.map(|a| a.value.as_str().into_owned()).as_deref() == error
            })
            .map(|(_, _, value)| value)
            .sum()
    };
    let processed = "otel.sdk.processor.span.processed";
    ensure_eq!(
        sum(processed, None),
        5.0,
        "{processed} without error in {all:?}"
    );
    for reason in [DropReason::Refused, DropReason::Failed] {
        let expected = if reason == DropReason::Refused {
            2.0
        } else {
            1.0
        };
        ensure_eq!(
            sum(processed, Some(reason.as_str())),
            expected,
            "{processed} {}",
            reason.as_str()
        );
    }
    ensure_eq!(
        sum("otel.sdk.processor.span.queue.size", None),
        3.0,
        "the queue's size"
    );
    for (name, attributes, _) in &all {
        ensure!(
            attributes
                .iter()
                .any(|a| a.key.as_str() == "otel.component.type"),
            "{name} has no otel.component.type"
        );
        ensure!(
            !attributes
                .iter()
                .any(|a| a.value.as_str().contains(good.uri().as_str())),
            "{name} names a location, which is opt-in"
        );
    }
    good.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn idle_lane_is_closed_and_reopened(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_idle_close(Duration::from_millis(60)))?;
    let sequences = Arc::new(Mutex::new(Vec::new()));
    let log = sequences.clone();
    a.control.set_hook(move |batch| {
        if let Ok(mut log) = log.lock() {
            log.push(batch.id());
        }
    });
    for round in 1..=3 {
        rig.spans_at(&a, 4);
        rig.flush().await?;
        until("the idle sink is closed", || a.control.closes() == round).await?;
        until("stats say so", || {
            rig.stats(&a)
                .is_some_and(|s| s.state == LocationState::Closed)
        })
        .await?;
        ensure_eq!(a.control.opens(), round, "opened sinks");
        ensure_eq!(rig.stored(&a), 4 * round as u64, "stored spans");
    }
    let sequences = sequences.lock().map_or_else(|_| Vec::new(), |s| s.clone());
    for pair in sequences.windows(2) {
        ensure!(
            pair[0].writer == pair[1].writer && pair[0].sequence < pair[1].sequence,
            "{:?} came after {:?}",
            pair[1],
            pair[0]
        );
    }
    w.verify(&rig).await
}

/// A location that counts and keeps nothing, so that ten thousand of them cost what the pipeline
/// costs and no more.
#[derive(Clone, Debug)]
struct Null {
    uri: LocationUri,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicUsize,
    closed: AtomicUsize,
    spans: AtomicUsize,
}

impl fmt::Display for Null {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Null {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(NullSink(self.counts.clone())))
    }
}

struct NullSink(Arc<Counts>);

#[async_trait]
impl TraceSink for NullSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        self.0
            .spans
            .fetch_add(batch.span_count(), Ordering::Relaxed);
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

pub(crate) async fn ten_thousand_locations(w: Arc<World>) -> Verdict {
    const MANY: usize = 10_000;
    let rig = w.rig_with(|b| {
        b.with_batch_limits(quick())
            .with_idle_close(Duration::from_millis(200))
    })?;
    let counts = Arc::new(Counts::default());
    let mut places = Vec::with_capacity(MANY);
    for i in 0..MANY {
        places.push(Destination::new(Null {
            uri: format!("null:{i}").parse()?,
            counts: counts.clone(),
        }));
    }
    for round in 1..=2 {
        for place in &places {
            rig.start("span", &place.in_context(&opentelemetry::Context::new()))
                .end();
        }
        rig.flush().await?;
        ensure_eq!(
            counts.spans.load(Ordering::Relaxed),
            round * MANY,
            "stored spans"
        );
        until("all of them are closed", || {
            counts.closed.load(Ordering::Relaxed) == counts.opened.load(Ordering::Relaxed)
        })
        .await?;
        ensure!(
            counts.opened.load(Ordering::Relaxed) >= MANY,
            "not all were opened"
        );
    }
    let stats = rig.pipeline.stats();
    ensure_eq!(stats.locations.len(), MANY, "locations in stats");
    ensure!(
        stats
            .locations
            .iter()
            .all(|l| l.stored == 2 && l.state == LocationState::Closed),
        "a location lost its counters"
    );
    Ok(())
}
