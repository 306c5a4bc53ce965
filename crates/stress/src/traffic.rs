//! Tenants and their spans.

use crate::Outcome;
use crate::backend::Backend;
use crate::place::{Dial, Ledger, Place, TENANT};
use opentelemetry::trace::{Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags};
use opentelemetry::trace::{TraceId, TraceState, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trace_destination_core::{Destination, Pipeline};

/// Someone whose traces have a place of their own.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) destination: Destination,
    pub(crate) dial: Arc<Dial>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) ended: AtomicU64,
}

impl Tenant {
    /// A tenant of a backend; of none, one whose place keeps nothing.
    pub(crate) fn new(
        name: String,
        place: Option<(&Backend, usize)>,
        ledger: Arc<Ledger>,
        blocks: bool,
    ) -> Outcome<Self> {
        let inner = match place {
            Some((backend, number)) => backend.location(number)?,
            None => None,
        };
        let dial = Arc::<Dial>::default();
        let place = Place::new(&name, inner, dial.clone(), ledger.clone(), blocks)?;
        Ok(Self {
            name,
            destination: Destination::new(place),
            dial,
            ledger,
            ended: AtomicU64::new(0),
        })
    }

    /// Spans ended so far.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// An application: a tracer over a pipeline.
#[derive(Debug)]
pub(crate) struct Application {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Application {
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        let tracer = provider.tracer("stress");
        Self { provider, tracer }
    }

    /// Starts a span, `size` bytes of text in it.
    fn start(&self, tenant: &str, cx: &Context, size: usize) -> opentelemetry_sdk::trace::Span {
        let mut span = self.tracer.start_with_context("work", cx);
        span.set_attribute(KeyValue::new(TENANT, tenant.to_owned()));
        if size > 0 {
            span.set_attribute(KeyValue::new("text", "x".repeat(size)));
        }
        span
    }

    /// Runs a root with `children`, below a remote parent if there is one; returns how many spans
    /// ended.
    pub(crate) fn request(
        &self,
        tenant: &Tenant,
        parent: Option<SpanContext>,
        children: usize,
        size: usize,
    ) -> u64 {
        let cx = self.begin(tenant, parent, size);
        for _ in 0..children {
            self.child(tenant, &cx);
        }
        self.end(tenant, &cx);
        children as u64 + 1
    }

    /// Starts a root and leaves it open.
    pub(crate) fn begin(
        &self,
        tenant: &Tenant,
        parent: Option<SpanContext>,
        size: usize,
    ) -> Context {
        let mut cx = Context::new();
        if let Some(parent) = parent {
            cx = cx.with_remote_span_context(parent);
        }
        let cx = tenant.destination.in_context(&cx);
        let root = self.start(&tenant.name, &cx, size);
        cx.with_span(root)
    }

    /// One child of an open span.
    pub(crate) fn child(&self, tenant: &Tenant, cx: &Context) {
        self.start(&tenant.name, cx, 0).end();
        tenant.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends an open span.
    pub(crate) fn end(&self, tenant: &Tenant, cx: &Context) {
        cx.span().end();
        tenant.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the provider; the pipeline has its own end.
    pub(crate) fn close(self) {
        drop(self.tracer);
        // The pipeline was ended before, and has told what there was to tell.
        let _ = self.provider.shutdown();
    }
}

/// What a request brings along as its caller's span.
pub(crate) fn remote(trace: TraceId, span: u64) -> SpanContext {
    SpanContext::new(
        trace,
        SpanId::from(span),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}

/// How many of something are due by now, at a rate.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    per_second: f64,
    done: u64,
}

impl Pace {
    pub(crate) fn new(per_second: f64) -> Self {
        Self {
            began: Instant::now(),
            per_second,
            done: 0,
        }
    }

    /// How many to do now; what a stalled machine missed is made up for, a second's worth at most.
    pub(crate) fn due(&mut self) -> u64 {
        let all = (self.began.elapsed().as_secs_f64() * self.per_second) as u64;
        let due = all.saturating_sub(self.done);
        self.done = all;
        due.min(self.per_second.ceil() as u64)
    }
}

/// Waits until something is so, at most this long; returns whether it is.
pub(crate) fn until(most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + most;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
