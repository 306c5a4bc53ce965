//! What a case works with: fresh locations, pipelines, and records of expected spans, which are
//! checked at the end.

use crate::failure::{Failure, ensure, ensure_eq};
use crate::faulty::{Control, Faulty};
use crate::harness::{HARNESS_PATIENCE, Harness, Stored};
use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trace_destination_core::{
    BatchLimits, Destination, DropReason, FlushReport, GlobalSlot, Guarantee, LocationStats,
    LocationUri, Pipeline, PipelineBuilder, RetryPolicy, TraceLocation,
};

/// Longest time a case waits for something that should come soon. Long, because the machine may
/// be busy; a case never measures time against it.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The surroundings of one case.
pub(crate) struct World {
    harness: Arc<dyn Harness>,
    case: &'static str,
    places: Mutex<Vec<Place>>,
    notes: Mutex<Vec<String>>,
}

/// A fresh location in a wrapper that the case controls, with the spans that it should hold.
#[derive(Clone)]
pub(crate) struct Place {
    /// The destination with this location alone.
    pub(crate) destination: Destination,
    /// The location without its wrapper.
    pub(crate) inner: Arc<dyn TraceLocation>,
    /// The location with its wrapper.
    pub(crate) location: Arc<dyn TraceLocation>,
    /// Controls the wrapper.
    pub(crate) control: Control,
    books: Arc<Mutex<Books>>,
}

type SpanKey = (TraceId, SpanId);

#[derive(Default)]
struct Books {
    expected: Vec<SpanKey>,
    /// Spans that may be stored or not; the case counts them itself.
    optional: Vec<SpanKey>,
}

/// One pipeline with a provider and a private global slot.
pub(crate) struct Rig {
    pub(crate) pipeline: Pipeline,
    pub(crate) provider: SdkTracerProvider,
    pub(crate) tracer: SdkTracer,
    pub(crate) global: Arc<GlobalSlot>,
    world: Arc<World>,
}

/// Opens the gates: the provider flushes when it is dropped, and would wait for a gate that a
/// failed case left closed.
impl Drop for Rig {
    fn drop(&mut self) {
        self.world.open_gates();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(harness: Arc<dyn Harness>, case: &'static str) -> Arc<Self> {
        Arc::new(Self {
            harness,
            case,
            places: Mutex::default(),
            notes: Mutex::default(),
        })
    }

    pub(crate) fn harness(&self) -> &Arc<dyn Harness> {
        &self.harness
    }

    /// Adds a line to the report, whatever comes of the case.
    pub(crate) fn note(&self, text: impl Into<String>) {
        lock(&self.notes).push(text.into());
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }

    /// A fresh place, in a store of its own where stores are exclusive.
    pub(crate) async fn place(&self, hint: &str) -> Result<Place, Failure> {
        let others: Vec<_> = lock(&self.places).iter().map(|p| p.inner.clone()).collect();
        let fresh = self.harness.apart(hint, &others);
        let inner = patiently(fresh, "make a fresh location").await?;
        Ok(self.adopt(inner))
    }

    /// A fresh place in the same store as another.
    pub(crate) async fn sibling(&self, of: &Place) -> Result<Place, Failure> {
        let inner = patiently(self.harness.sibling(&*of.inner), "make a sibling").await?;
        Ok(self.adopt(inner))
    }

    /// Many fresh places in few stores: each with the number of its store.
    pub(crate) async fn places(
        &self,
        count: usize,
        stores: usize,
    ) -> Result<Vec<(usize, Place)>, Failure> {
        let mut places = Vec::with_capacity(count);
        for i in 0..count {
            let store = i % stores;
            let place = match places.get(store) {
                Some((_, first)) if exclusive(first) => self.sibling(first).await?,
                _ => self.place("many").await?,
            };
            places.push((store, place));
        }
        Ok(places)
    }

    /// Opens every gate.
    fn open_gates(&self) {
        for place in lock(&self.places).iter() {
            place.control.open_gate();
        }
    }

    /// A place with a location of the case's own.
    pub(crate) fn adopt(&self, inner: Arc<dyn TraceLocation>) -> Place {
        let faulty = Faulty::new(inner.clone());
        let control = faulty.control().clone();
        let location: Arc<dyn TraceLocation> = Arc::new(faulty);
        let place = Place {
            destination: Destination::from_location(location.clone()),
            inner,
            location,
            control,
            books: Arc::default(),
        };
        lock(&self.places).push(place.clone());
        place
    }

    /// A pipeline that seals and retries fast, with a global slot of its own.
    pub(crate) fn rig(self: &Arc<Self>) -> Result<Rig, Failure> {
        self.rig_with(|builder| builder)
    }

    /// The same, with other settings on top.
    pub(crate) fn rig_with(
        self: &Arc<Self>,
        set: impl FnOnce(PipelineBuilder) -> PipelineBuilder,
    ) -> Result<Rig, Failure> {
        let global = Arc::new(GlobalSlot::new());
        let builder = Pipeline::builder()
            .with_global(global.clone())
            .with_batch_limits(quick())
            .with_retry(retry());
        let pipeline = set(builder).build()?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        Ok(Rig {
            tracer: provider.tracer("conformance"),
            provider,
            pipeline,
            global,
            world: self.clone(),
        })
    }

    /// Flushes, then compares every place of this case with its expected spans: nothing is missing,
    /// misplaced or stored twice, and the counters add up.
    pub(crate) async fn verify(&self, rig: &Rig) -> Result<(), Failure> {
        rig.flush().await?;
        self.verify_stored().await?;
        self.verify_counters(rig)
    }

    /// The comparison alone.
    pub(crate) async fn verify_stored(&self) -> Result<(), Failure> {
        let places = lock(&self.places).clone();
        for place in &places {
            self.verify_place(place).await?;
        }
        Ok(())
    }

    /// The content of a place, read back by the harness.
    pub(crate) async fn stored(&self, place: &Place) -> Result<Stored, Failure> {
        patiently(self.harness.read_back(&*place.inner), "read back").await
    }

    async fn verify_place(&self, place: &Place) -> Result<(), Failure> {
        let stored = self.stored(place).await?;
        let mut found: BTreeMap<[u8; 24], (usize, String)> = BTreeMap::new();
        for s in &stored.spans {
            let entry = found.entry(sortable(&(s.span.trace_id, s.span.span_id)));
            entry.or_insert_with(|| (0, s.span.name.to_string())).0 += 1;
        }
        let (expected, optional) = {
            let books = lock(&place.books);
            (books.expected.clone(), books.optional.clone())
        };
        let missing: Vec<_> = expected
            .iter()
            .filter(|key| !found.contains_key(&sortable(key)))
            .collect();
        // Only what is declared is checked: such a location may hold a span twice, also because it
        // repeated a request by itself. What the pipeline sent twice is checked below, in the
        // wrapper.
        let may_double = place.location.capabilities().guarantee == Guarantee::AtLeastOnce;
        let doubled = found
            .values()
            .filter(|(n, _)| *n > 1 && !may_double)
            .count();
        // An idempotent location hides what the pipeline sent twice; the wrapper recorded it.
        let sent = place.control.sent();
        ensure!(
            place.control.unknown_outcomes() > 0 || sent <= expected.len() + optional.len(),
            "{} was given {sent} spans, {} expected",
            place.uri(),
            expected.len() + optional.len()
        );
        for key in expected.iter().chain(&optional) {
            found.remove(&sortable(key));
        }
        let foreign: Vec<&String> = found.values().map(|(_, name)| name).take(5).collect();
        ensure!(
            missing.is_empty() && foreign.is_empty() && doubled == 0,
            "{} holds {} spans, {} expected: {} missing, {} foreign {foreign:?}, {doubled} doubled",
            place.uri(),
            stored.spans.len(),
            expected.len(),
            missing.len(),
            found.len(),
        );
        Ok(())
    }

    /// `accepted = stored + queued + in flight + Σ dropped by reason`, at every location.
    pub(crate) fn verify_counters(&self, rig: &Rig) -> Result<(), Failure> {
        for l in &rig.pipeline.stats().locations {
            ensure_eq!(
                l.stored + l.queued + l.in_flight + l.dropped.total(),
                l.accepted,
                "stored {} + queued {} + in flight {} + dropped {} against accepted at {}",
                l.stored,
                l.queued,
                l.in_flight,
                l.dropped.total(),
                l.uri
            );
        }
        Ok(())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({} on {})", self.case, self.harness.name())
    }
}

/// Whether a trace id can exist only once in the store of a place.
pub(crate) fn exclusive(place: &Place) -> bool {
    place.inner.capabilities().exclusive_store.is_some()
}

/// Batches that are sealed soon, so that cases do not wait.
pub(crate) fn quick() -> BatchLimits {
    BatchLimits {
        age: Duration::from_millis(20),
        ..BatchLimits::default()
    }
}

/// Batches that only `flush` seals.
pub(crate) fn lazy() -> BatchLimits {
    BatchLimits {
        spans: 1 << 20,
        bytes: 1 << 30,
        age: Duration::from_secs(3600),
    }
}

/// Retries that come fast and do not give up while the case runs.
pub(crate) fn retry() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::from_secs(60),
        initial: Duration::from_millis(10),
        max: Duration::from_millis(100),
        probe: Duration::from_millis(200),
    }
}

async fn patiently<T>(
    future: impl Future<Output = Result<T, Failure>>,
    what: &str,
) -> Result<T, Failure> {
    match tokio::time::timeout(HARNESS_PATIENCE, future).await {
        Ok(result) => result.map_err(|f| f.during(what)),
        Err(_) => Err(Failure::new(format!(
            "{what}: the harness did not come back"
        ))),
    }
}

fn sortable((trace, span): &SpanKey) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&trace.to_bytes());
    bytes[16..].copy_from_slice(&span.to_bytes());
    bytes
}

impl Place {
    pub(crate) fn uri(&self) -> &LocationUri {
        self.inner.uri()
    }

    /// Records that a span must be stored here at the end.
    pub(crate) fn expect(&self, span: &SpanContext) {
        self.expect_ids(span.trace_id(), span.span_id());
    }

    pub(crate) fn expect_ids(&self, trace: TraceId, span: SpanId) {
        lock(&self.books).expected.push((trace, span));
    }

    /// Records that a span may be stored here at the end.
    pub(crate) fn allow(&self, span: &SpanContext) {
        self.allow_ids(span.trace_id(), span.span_id());
    }

    pub(crate) fn allow_ids(&self, trace: TraceId, span: SpanId) {
        lock(&self.books).optional.push((trace, span));
    }

    pub(crate) fn expected_ids(&self) -> Vec<(TraceId, SpanId)> {
        lock(&self.books).expected.clone()
    }

    /// Number of spans that must be here.
    pub(crate) fn expected(&self) -> usize {
        lock(&self.books).expected.len()
    }

    /// Ends a span that belongs here.
    pub(crate) fn end(&self, mut span: Span) {
        self.expect(span.span_context());
        span.end();
    }

    /// A parent context for one root span with this destination.
    pub(crate) fn context(&self) -> Context {
        self.destination.in_context(&Context::new())
    }
}

impl Rig {
    /// Starts a span; it is a root unless `cx` holds a parent.
    pub(crate) fn start(&self, name: &'static str, cx: &Context) -> Span {
        self.tracer.start_with_context(name, cx)
    }

    /// Starts and ends `count` root spans at a place, and expects them there.
    pub(crate) fn spans_at(&self, place: &Place, count: usize) {
        let cx = place.context();
        for _ in 0..count {
            place.end(self.start("filler", &cx));
        }
    }

    /// Flushes, and requires that nothing is pending.
    pub(crate) async fn flush(&self) -> Result<FlushReport, Failure> {
        let patience = self.world.harness().scale().patience;
        let report = self.pipeline.flush(SOON * patience).await;
        ensure!(report.is_complete(), "flush left spans pending: {report}");
        Ok(report)
    }

    /// Flushes; spans of a failing place may stay pending.
    pub(crate) async fn try_flush(&self) -> Result<FlushReport, Failure> {
        let patience = self.world.harness().scale().patience;
        let report = self.pipeline.flush(SOON * patience).await;
        ensure!(
            !report.timed_out,
            "flush waited for a place that fails for good: {report}"
        );
        Ok(report)
    }

    /// The counters of a place; all zero before its first span.
    pub(crate) fn stats(&self, place: &Place) -> Option<LocationStats> {
        self.pipeline.stats().location(place.uri()).cloned()
    }

    pub(crate) fn stored(&self, place: &Place) -> u64 {
        self.stats(place).map_or(0, |s| s.stored)
    }

    pub(crate) fn dropped(&self, place: &Place, reason: DropReason) -> u64 {
        self.stats(place).map_or(0, |s| s.dropped.by(reason))
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + SOON;
    while !holds() {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("it never came about that {what}")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Runs a closure on a plain thread and waits for it without blocking the case.
pub(crate) async fn on_thread<T: Send + 'static>(
    what: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().spawn(move || {
        // Nobody receives it if the case has given up.
        let _ = send.send(run());
    })?;
    match tokio::time::timeout(SOON, receive).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(Failure::new(format!("{what}: the thread panicked"))),
        Err(_) => Err(Failure::new(format!(
            "{what}: the thread did not come back"
        ))),
    }
}
