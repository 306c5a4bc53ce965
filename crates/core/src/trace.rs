//! The trace-level API: values of the trace that is current, set from anywhere inside it.

use crate::pipeline;
use crate::record::TraceUpdate;
use crate::scope::with_current;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId};

/// The trace id of the current span, if there is one. MLflow calls the trace `tr-` followed by it.
pub fn current_trace_id() -> Option<TraceId> {
    current_span().map(|cx| cx.trace_id())
}

/// Sets tags, metadata, session, user, previews and the like on the trace of the current span, at
/// every place the trace is bound to. What is set later wins.
///
/// Returns false, and sets nothing, unless the current span is open and a pipeline of this process
/// bound it. So none of these may set values, whatever trace id they have:
/// - a remote span, whose ids are whatever a caller sent;
/// - a span that is not sampled, or was started while telemetry was suppressed;
/// - a span of a tracer provider without a processor of a pipeline;
/// - a span that has ended;
/// - a late child of a span that is forgotten (one that ended long ago, or is unknown to the
///   pipeline), unless its context names the destination of the trace.
///
/// ```
/// trace_destination_core::update_current_trace(|trace| {
///     trace.session_id = Some("chat-7".into());
///     trace.tags.insert("env".into(), "dev".into());
/// });
/// ```
pub fn update_current_trace(set: impl FnOnce(&mut TraceUpdate)) -> bool {
    let Some(span) = current_local_span() else {
        return false;
    };
    let mut update = TraceUpdate::new(span.trace_id());
    set(&mut update);
    // A trace cannot be renamed into another one.
    update.trace_id = span.trace_id();
    let mut bound = false;
    for pipeline in pipeline::all() {
        if let Some(route) = pipeline.bindings.route_of(span.trace_id(), span.span_id()) {
            pipeline.set_values(route, span.span_id(), &update);
            bound = true;
        }
    }
    bound
}

/// The current span, if it is a sampled one of this process.
pub(crate) fn current_local_span() -> Option<SpanContext> {
    current_span().filter(|span| !span.is_remote() && span.is_sampled())
}

fn current_span() -> Option<SpanContext> {
    with_current(|cx| cx.span().span_context().clone()).filter(SpanContext::is_valid)
}
