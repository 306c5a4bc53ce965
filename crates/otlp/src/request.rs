//! The content of a decoded request.

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, Resource, Scope, Span, SpanGroup, SpanRecord};

/// The spans of one resource and one instrumentation scope, in the order of the request.
#[derive(Clone, Debug)]
pub struct ResourceSpans {
    /// The resource of the spans; shared by all scopes of one OTLP `ResourceSpans`.
    pub resource: Arc<Resource>,
    /// The instrumentation scope of the spans.
    pub scope: Arc<Scope>,
    /// The spans; empty if there were none or all were refused.
    pub spans: Vec<SpanRecord>,
    /// The spans that could not be decoded, each with its reason.
    pub refused: Vec<Refused>,
    /// Other parts of the request that could not be decoded and were left out: a resource, a scope,
    /// an attribute of either, or a whole list of spans. The spans beside it are in `spans`. A
    /// group with only faults stands for a part of the request without a readable scope.
    pub faults: Vec<Fault>,
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
    /// Where it is in the request, such as `resourceSpans[0].scopeSpans[1].spans[2]`; in a file,
    /// after the line or byte of the request.
    pub position: String,
    /// Why; its source has the details where a parser gave up.
    pub error: Error,
}

/// A part of a request, other than a span, that could not be decoded and was passed over.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Where it is in the request, such as `resourceSpans[0].resource.attributes[3]`; in a file,
    /// after the line or byte of the request.
    pub position: String,
    /// Why, with kind `Corrupt`.
    pub error: Error,
}

impl Fault {
    pub(crate) fn new(position: String, cause: impl Into<String>) -> Self {
        let error = Error::new(ErrorKind::Corrupt, "decode OTLP request", cause.into());
        Self { position, error }
    }

    pub(crate) fn mend(mut self, mend: &'static str) -> Self {
        self.error = self.error.mend(mend);
        self
    }
}

/// A group that only carries faults.
pub(crate) fn only_faults(faults: Vec<Fault>) -> ResourceSpans {
    ResourceSpans {
        resource: Arc::default(),
        scope: Arc::default(),
        spans: Vec::new(),
        refused: Vec::new(),
        faults,
    }
}

/// Position of a `ResourceSpans` in its request.
pub(crate) fn resource_at(index: usize) -> String {
    format!("resourceSpans[{index}]")
}

/// Position of a `ScopeSpans` in its request.
pub(crate) fn scope_at(resource: usize, scope: usize) -> String {
    format!("resourceSpans[{resource}].scopeSpans[{scope}]")
}

/// Sorts the outcomes of one scope's spans into records and refusals. `at` is the position of the
/// scope: which `ResourceSpans`, and which scope in there.
pub(crate) fn sort(
    at: (usize, usize),
    outcomes: impl ExactSizeIterator<Item = Result<SpanRecord, Error>>,
) -> (Vec<SpanRecord>, Vec<Refused>) {
    let mut spans = Vec::with_capacity(outcomes.len());
    let mut refused = Vec::new();
    for (index, outcome) in outcomes.enumerate() {
        match outcome {
            Ok(span) => spans.push(span),
            Err(error) => refused.push(Refused {
                index,
                position: format!("{}.spans[{index}]", scope_at(at.0, at.1)),
                error,
            }),
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
