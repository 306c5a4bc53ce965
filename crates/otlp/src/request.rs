//! What a decoded request holds.

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, Resource, Scope, Span, SpanGroup, SpanRecord};

/// The spans of one resource and one instrumentation scope, in the order of the request.
#[derive(Clone, Debug)]
pub struct ResourceSpans {
    /// What produced the spans; shared by all scopes of one OTLP `ResourceSpans`.
    pub resource: Arc<Resource>,
    /// The instrumentation that produced them.
    pub scope: Arc<Scope>,
    /// The spans; empty where all of them were refused or there were none.
    pub spans: Vec<SpanRecord>,
    /// The spans that are no spans, each with its reason.
    pub refused: Vec<Refused>,
}

impl ResourceSpans {
    /// The decoded spans, as sinks and [`encode_protobuf`](crate::encode_protobuf) take them.
    pub fn into_group(self) -> SpanGroup {
        SpanGroup {
            resource: self.resource,
            scope: self.scope,
            spans: self.spans.into_iter().map(Span::from).collect(),
        }
    }
}

/// A span that could not be decoded.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Position among the spans of its scope, refused ones counted.
    pub index: usize,
    /// Why; its source says more where a parser gave up.
    pub error: Error,
}

/// Sorts the outcomes of one scope's spans into records and refusals.
pub(crate) fn sort(
    outcomes: impl ExactSizeIterator<Item = Result<SpanRecord, Error>>,
) -> (Vec<SpanRecord>, Vec<Refused>) {
    let mut spans = Vec::with_capacity(outcomes.len());
    let mut refused = Vec::new();
    for (index, outcome) in outcomes.enumerate() {
        match outcome {
            Ok(span) => spans.push(span),
            Err(error) => refused.push(Refused { index, error }),
        }
    }
    (spans, refused)
}

pub(crate) fn invalid_span(name: &str, cause: impl Into<String>) -> Error {
    let operation = if name.is_empty() {
        "decode OTLP span".to_owned()
    } else {
        // Names come from outside and may be of any length; this much identifies one.
        let short: String = name.chars().take(80).collect();
        format!("decode OTLP span `{}`", short.escape_debug())
    };
    Error::new(ErrorKind::InvalidSpan, operation, cause.into())
}

/// The identity of a span, checked: `trace_id` and `span_id` are present and not zero.
pub(crate) fn identity(
    name: &str,
    trace_id: TraceId,
    span_id: SpanId,
) -> Result<(TraceId, SpanId), Error> {
    if trace_id == TraceId::INVALID {
        return Err(invalid_span(name, "the trace id is missing or all zero"));
    }
    if span_id == SpanId::INVALID {
        return Err(invalid_span(name, "the span id is missing or all zero"));
    }
    Ok((trace_id, span_id))
}

/// Absent text is empty on the wire.
pub(crate) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The parent, for which senders write nothing or zeros at the root of a trace.
pub(crate) fn parent(span_id: SpanId) -> Option<SpanId> {
    (span_id != SpanId::INVALID).then_some(span_id)
}
