//! What the tests share: a place that misbehaves as told, and pipelines that do not wait long.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod late;

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trace_destination_core::{
    BatchEncoder, BatchId, BatchLimits, Capabilities, Destination, Error, ErrorKind, GlobalSlot,
    Guarantee, LocationStats, LocationUri, MemoryLocation, Pipeline, PipelineBuilder, Refusal,
    RetryPolicy, Span, TraceBatch, TraceLocation, TraceSink, TraceUpdate, TraceValues, Written,
};

/// Long enough for a loaded machine; nothing waits that long unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a place does when it is asked.
pub(crate) enum Step {
    /// What it should.
    Do,
    Fail(Error),
    /// Does it and fails all the same: the outcome is unknown to the pipeline.
    DoAndFail(Error),
    /// Refuses the spans with these names.
    Refuse(&'static [&'static str]),
    Panic,
    /// Blocks the thread, then does it.
    Block(Duration),
    /// Waits without blocking, then does it.
    Sleep(Duration),
    /// Never answers.
    Hang,
}

type Script<T> = Box<dyn Fn(u32, &T) -> Step + Send + Sync>;

/// A place that keeps what it is given and does what its script says.
#[derive(Clone)]
pub(crate) struct Place(Arc<Inner>);

struct Inner {
    uri: LocationUri,
    capabilities: Capabilities,
    on_open: Script<()>,
    on_write: Script<TraceBatch>,
    encoder: Option<Arc<dyn BatchEncoder>>,
    seen: Mutex<Seen>,
    opens: AtomicU32,
    closes: AtomicU32,
    attempts: AtomicU32,
    writing: AtomicBool,
}

/// What a place was asked and what it keeps.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) spans: Vec<Span>,
    pub(crate) updates: Vec<TraceUpdate>,
    /// Every attempt: when, which batch, how many spans.
    pub(crate) attempts: Vec<(Instant, BatchId, usize)>,
    pub(crate) opens: Vec<Instant>,
}

impl Place {
    /// A place that does what it should. If its name ends with `closes-slowly`, so it does.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_, _| Step::Do, |_, _| Step::Do)
    }

    pub(crate) fn on_write(
        name: &str,
        script: impl Fn(u32, &TraceBatch) -> Step + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, |_, _| Step::Do, script)
    }

    pub(crate) fn on_open(
        name: &str,
        script: impl Fn(u32) -> Step + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, move |n, _| script(n), |_, _| Step::Do)
    }

    pub(crate) fn with(
        name: &str,
        on_open: impl Fn(u32, &()) -> Step + Send + Sync + 'static,
        on_write: impl Fn(u32, &TraceBatch) -> Step + Send + Sync + 'static,
    ) -> Self {
        Self::made(name, None, on_open, on_write)
    }

    /// A place whose batches are encoded ahead by `encode`.
    pub(crate) fn encoding<T: Send + Sync + 'static>(
        name: &str,
        encode: impl Fn(&TraceBatch) -> Option<T> + Send + Sync + 'static,
        on_write: impl Fn(u32, &TraceBatch) -> Step + Send + Sync + 'static,
    ) -> Self {
        let encoder = Arc::new(EncodesBy(encode));
        Self::made(name, Some(encoder), |_, _| Step::Do, on_write)
    }

    pub(crate) fn made(
        name: &str,
        encoder: Option<Arc<dyn BatchEncoder>>,
        on_open: impl Fn(u32, &()) -> Step + Send + Sync + 'static,
        on_write: impl Fn(u32, &TraceBatch) -> Step + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            uri: LocationUri::from_parts("script", None, name, []).unwrap(),
            capabilities: Capabilities::new(Guarantee::AtLeastOnce)
                .with_trace_values(TraceValues::Stored),
            on_open: Box::new(on_open),
            on_write: Box::new(on_write),
            encoder,
            seen: Mutex::default(),
            opens: AtomicU32::new(0),
            closes: AtomicU32::new(0),
            attempts: AtomicU32::new(0),
            writing: AtomicBool::new(false),
        }))
    }

    /// A place that has spans and nothing else.
    pub(crate) fn of_spans(name: &str) -> Self {
        let mut place = Self::new(name);
        let inner = Arc::get_mut(&mut place.0).unwrap();
        inner.capabilities = Capabilities::new(Guarantee::AtLeastOnce);
        place
    }

    pub(crate) fn to(&self) -> Destination {
        Destination::new(self.clone())
    }

    pub(crate) fn see<T>(&self, f: impl FnOnce(&Seen) -> T) -> T {
        f(&self.0.seen.lock().unwrap())
    }

    /// The names of the spans it keeps, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.see(|s| s.spans.iter().map(|s| s.name().to_owned()).collect());
        names.sort();
        names
    }

    pub(crate) fn len(&self) -> usize {
        self.see(|s| s.spans.len())
    }

    pub(crate) fn opens(&self) -> u32 {
        self.0.opens.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> u32 {
        self.0.closes.load(Ordering::SeqCst)
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.0.attempts.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self, pipeline: &Pipeline) -> LocationStats {
        stats_of(pipeline, &self.0.uri)
    }

    pub(crate) fn uri(&self) -> &LocationUri {
        &self.0.uri
    }
}

pub(crate) fn stats_of(pipeline: &Pipeline, uri: &LocationUri) -> LocationStats {
    pipeline
        .stats()
        .location(uri)
        .unwrap_or_else(|| panic!("{uri} was never seen"))
        .clone()
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.0.uri)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.uri.fmt(f)
    }
}

async fn act(step: &Step) -> Result<bool, Error> {
    match step {
        Step::Fail(error) => return Err(error.clone()),
        Step::Panic => panic!("as told"),
        Step::Block(time) => std::thread::sleep(*time),
        Step::Sleep(time) => tokio::time::sleep(*time).await,
        Step::Hang => std::future::pending().await,
        Step::Do | Step::Refuse(_) | Step::DoAndFail(_) => {}
    }
    Ok(true)
}

#[async_trait]
impl TraceLocation for Place {
    fn uri(&self) -> &LocationUri {
        &self.0.uri
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities.clone()
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.0.seen.lock().unwrap().opens.push(Instant::now());
        let n = self.0.opens.fetch_add(1, Ordering::SeqCst);
        act(&(self.0.on_open)(n, &())).await?;
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl TraceSink for Place {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        assert!(
            !self.0.writing.swap(true, Ordering::SeqCst),
            "two writes of one place at once"
        );
        let _writing = Writing(&self.0.writing);
        self.0
            .seen
            .lock()
            .unwrap()
            .attempts
            .push((Instant::now(), batch.id(), batch.span_count()));
        let n = self.0.attempts.fetch_add(1, Ordering::SeqCst);
        let step = (self.0.on_write)(n, batch);
        act(&step).await?;
        let mut written = Written::default();
        let mut seen = self.0.seen.lock().unwrap();
        for (index, span) in batch.spans().enumerate() {
            if matches!(&step, Step::Refuse(names) if names.contains(&span.name())) {
                written.refused.push(Refusal {
                    index,
                    error: Error::new(ErrorKind::InvalidSpan, "write span", "refused as told"),
                });
            } else {
                seen.spans.push(span.clone());
            }
        }
        seen.updates.extend(batch.updates().iter().cloned());
        match step {
            Step::DoAndFail(error) => Err(error),
            _ => Ok(written),
        }
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        self.0.encoder.clone()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        if self.0.uri.path().ends_with("closes-slowly") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.0.closes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct EncodesBy<F>(F);

impl<T, F> BatchEncoder for EncodesBy<F>
where
    T: Send + Sync + 'static,
    F: Fn(&TraceBatch) -> Option<T> + Send + Sync + 'static,
{
    fn encode(&self, batch: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new((self.0)(batch)?))
    }
}

struct Writing<'a>(&'a AtomicBool);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub(crate) fn broken() -> Error {
    Error::new(ErrorKind::NotFound, "write", "broken for good").mend("make it")
}

pub(crate) fn shaky() -> Error {
    Error::new(ErrorKind::Unavailable, "write", "not now").retryable()
}

/// A pipeline with a global slot of its own, small batches and quick retries.
pub(crate) fn quick() -> PipelineBuilder {
    Pipeline::builder()
        .with_global(Arc::new(GlobalSlot::new()))
        .with_batch_limits(BatchLimits {
            age: Duration::from_millis(10),
            ..BatchLimits::default()
        })
        .with_retry(RetryPolicy {
            deadline: PATIENCE,
            initial: Duration::from_millis(5),
            max: Duration::from_millis(50),
            probe: Duration::from_millis(100),
        })
}

/// Batches grow until they are flushed or full.
pub(crate) fn unhurried() -> BatchLimits {
    BatchLimits {
        age: Duration::MAX,
        ..BatchLimits::default()
    }
}

pub(crate) fn provider(pipeline: &Pipeline) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build()
}

pub(crate) fn tracer(pipeline: &Pipeline) -> SdkTracer {
    provider(pipeline).tracer("test")
}

/// Starts and ends a root span with an explicit destination.
pub(crate) fn span_to(tracer: &SdkTracer, destination: &Destination, name: impl Into<String>) {
    let cx = destination.in_context(&Context::new());
    drop(tracer.start_with_context(name.into(), &cx));
}

/// A context with a started root span in it, bound to `destination`.
pub(crate) fn root(tracer: &SdkTracer, destination: &Destination, name: &'static str) -> Context {
    let cx = destination.in_context(&Context::new());
    cx.with_span(tracer.start_with_context(name, &cx))
}

pub(crate) fn memory(name: &str) -> (MemoryLocation, Destination) {
    let location = MemoryLocation::new(name);
    (location.clone(), Destination::new(location))
}

pub(crate) fn names(location: &MemoryLocation) -> Vec<String> {
    let mut names: Vec<_> = location
        .store()
        .spans()
        .iter()
        .map(|s| s.span.name().to_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The sums hold at this moment.
pub(crate) fn balanced(pipeline: &Pipeline) {
    for l in pipeline.stats().locations {
        assert_eq!(
            l.accepted,
            l.stored + l.queued + l.in_flight + l.dropped.total(),
            "{l:?}"
        );
    }
}

/// The sums hold and nothing is left anywhere.
pub(crate) fn settled(pipeline: &Pipeline) {
    eventually("nothing is left in the pipeline", || {
        let stats = pipeline.stats();
        stats.bytes == 0
            && stats
                .locations
                .iter()
                .all(|l| l.queued == 0 && l.in_flight == 0 && l.bytes == 0)
    });
    for l in pipeline.stats().locations {
        assert_eq!(l.accepted, l.stored + l.dropped.total(), "{l:?}");
    }
}

/// Flushes, and insists that it was complete.
pub(crate) fn flush(pipeline: &Pipeline) {
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
}

/// How often each name occurs.
pub(crate) fn count(names: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}
