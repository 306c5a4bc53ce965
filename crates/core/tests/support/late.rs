//! Traces without a destination.

use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, SpanContext, TraceContextExt, TraceFlags, TraceState, Tracer,
};
use opentelemetry_sdk::trace::SdkTracer;
use std::time::Duration;
use trace_destination_core::{
    Destination, Pipeline, PipelineStats, TraceBinding, bind_current_trace,
};

/// Nothing expires while a test runs.
pub(crate) const NOT_SOON: Duration = Duration::from_secs(3_600);

/// A context with an open root span in it that has no destination.
pub(crate) fn undecided(tracer: &SdkTracer, name: &'static str) -> Context {
    Context::new().with_span(tracer.start_with_context(name, &Context::new()))
}

pub(crate) fn child(tracer: &SdkTracer, parent: &Context, name: impl Into<String>) {
    tracer.start_with_context(name.into(), parent).end();
}

pub(crate) fn bind(cx: &Context, destination: &Destination) -> TraceBinding {
    let _running = cx.clone().attach();
    bind_current_trace(destination)
}

/// Traces, spans and updates that wait.
pub(crate) fn waiting(pipeline: &Pipeline) -> (u64, u64, u64) {
    let waiting = pipeline.stats().undecided;
    assert_eq!(waiting.bytes > 0, waiting.traces > 0, "{waiting:?}");
    (waiting.traces, waiting.spans, waiting.updates)
}

/// What a caller sends who has seen the ids of a span.
pub(crate) fn forged(cx: &Context) -> Context {
    let known = cx.span().span_context().clone();
    let forged = SpanContext::new(
        known.trace_id(),
        known.span_id(),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    Context::new().with_remote_span_context(forged)
}

/// Every span that ended is somewhere.
pub(crate) fn account(stats: &PipelineStats, ended: u64) {
    let accepted: u64 = stats.locations.iter().map(|l| l.accepted).sum();
    let nowhere = stats.unrouted + stats.discarded + stats.orphaned;
    assert_eq!(
        accepted + nowhere + stats.undecided.spans,
        ended,
        "{stats:?}"
    );
}
