//! Two values of a span as MLflow has them.

use opentelemetry::trace::SpanId;
use trace_destination_core::{Span, StatusCode};

/// The parent, if it has one.
pub(super) fn parent(span: &Span) -> Option<SpanId> {
    span.parent_span_id().filter(|id| *id != SpanId::INVALID)
}

/// The status by its name.
pub(super) fn status(span: &Span) -> &'static str {
    match span.status_code() {
        StatusCode::Unset => "UNSET",
        StatusCode::Ok => "OK",
        StatusCode::Error => "ERROR",
    }
}
