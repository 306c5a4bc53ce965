//! Decodes OTLP protobuf to records.

use crate::id::padded;
use crate::keys::key;
use crate::raw::{self, Part, RawResourceSpans};
use crate::repair::{self, repair};
use crate::request::{self, Fault, ResourceSpans, identity, invalid_span, non_empty};
use bytes::Bytes;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span as ProtoSpan, span};
use prost::Message;
use std::sync::Arc;
use trace_destination_core::{
    AnyValue, Attribute, Error, ErrorKind, Event, Link, Resource, Scope, SpanKind, SpanRecord,
    Status, StatusCode,
};

/// Decodes an OTLP `ExportTraceServiceRequest` (or `TracesData`, which is the same on the wire).
///
/// An attribute set to a reference into a profile's string table, which has no meaning in a trace,
/// comes out as [`AnyValue::Empty`], as the protocol asks for. Values may be nested about 50 deep;
/// the entity references of a resource, still in development in OTLP, are not kept.
///
/// Text that is not UTF-8 becomes U+FFFD. A known field with a wrong wire type is skipped like an
/// unknown one. Ids that are too short are padded with zeros on the left, in a span that has a
/// time. A link whose ids are too long is left out and counted as dropped.
///
/// # Errors
/// `Corrupt` if the bytes are not such a request, or nothing of it can be read. A bad span is not
/// an error: it is in [`refused`](ResourceSpans::refused). Any other bad part is in
/// [`faults`](ResourceSpans::faults).
pub fn decode_protobuf(bytes: &[u8]) -> Result<Vec<ResourceSpans>, Error> {
    let mut groups = Vec::new();
    let part = raw::request(&Bytes::copy_from_slice(bytes), &mut groups);
    let error = |cause| Error::new(ErrorKind::Corrupt, "decode OTLP request", cause);
    match part {
        Ok(Part::Traces) => Ok(groups),
        Ok(Part::OtherSignal) => Err(error("the request holds metrics or logs, and no traces")
            .mend("send metrics and logs elsewhere; only traces are stored")),
        Err(e) => Err(
            error("the bytes are not a protobuf ExportTraceServiceRequest")
                .mend("send or capture it again; a request that was cut off cannot be repaired")
                .caused_by(e),
        ),
    }
}

impl RawResourceSpans {
    /// Decodes the spans, scope by scope. `index` is the position in the request, `faults` what has
    /// been passed over already.
    pub(crate) fn unpack(
        self,
        index: usize,
        mut faults: Vec<Fault>,
        groups: &mut Vec<ResourceSpans>,
    ) {
        let resource = self.resource.unwrap_or_default();
        let resource = Arc::new(Resource {
            attributes: attributes(resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: non_empty(self.schema_url),
        });
        for (nth, scope_spans) in self.scope_spans.into_iter().enumerate() {
            let scope = scope_spans.scope.unwrap_or_default();
            let spans = scope_spans.spans.into_iter().map(span);
            let (spans, refused) = request::sort((index, nth), spans);
            groups.push(ResourceSpans {
                resource: Arc::clone(&resource),
                scope: Arc::new(Scope {
                    name: scope.name,
                    version: non_empty(scope.version),
                    schema_url: non_empty(scope_spans.schema_url),
                    attributes: attributes(scope.attributes),
                    dropped_attributes_count: scope.dropped_attributes_count,
                }),
                spans,
                refused,
                faults: std::mem::take(&mut faults),
            });
        }
        if !faults.is_empty() {
            groups.push(ResourceSpans {
                resource,
                ..request::only_faults(faults)
            });
        }
    }
}

fn span(bytes: Bytes) -> Result<SpanRecord, Error> {
    match ProtoSpan::decode(&*bytes) {
        Ok(span) => record(span),
        Err(e) => {
            let bytes = repair(&repair::SPAN, &bytes).unwrap_or_default();
            match ProtoSpan::decode(&*bytes) {
                Ok(span) if !bytes.is_empty() => record(span),
                _ => {
                    let cause = "the bytes are not a valid protobuf span";
                    Err(invalid_span("", cause).caused_by(e))
                }
            }
        }
    }
}

fn record(span: ProtoSpan) -> Result<SpanRecord, Error> {
    let name = span.name;
    // Metrics that were sent here look like spans with ids of any length, but without times.
    let timed = span.start_time_unix_nano != 0 || span.end_time_unix_nano != 0;
    let id = Id { span: &name, timed };
    let (trace_id, span_id) = identity(
        &name,
        TraceId::from_bytes(id.of("trace id", &span.trace_id)?),
        SpanId::from_bytes(id.of("span id", &span.span_id)?),
    )?;
    let parent = SpanId::from_bytes(id.of("parent span id", &span.parent_span_id)?);
    let sent = span.links.len();
    let links: Vec<_> = span.links.into_iter().filter_map(link).collect();
    let unreadable = u32::try_from(sent - links.len()).unwrap_or(u32::MAX);
    let status = span.status.unwrap_or_default();
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent_span_id: request::parent(parent),
        trace_state: span.trace_state,
        flags: span.flags,
        kind: SpanKind::from_otlp(span.kind),
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span.events.into_iter().map(event).collect(),
        dropped_events_count: span.dropped_events_count,
        links,
        dropped_links_count: span.dropped_links_count.saturating_add(unreadable),
        status: Status {
            code: status_code(status.code),
            message: status.message.into(),
        },
        name: name.into(),
    })
}

/// The status code for an OTLP enum number; unknown numbers mean unset.
pub(crate) fn status_code(number: i32) -> StatusCode {
    match number {
        1 => StatusCode::Ok,
        2 => StatusCode::Error,
        _ => StatusCode::Unset,
    }
}

fn event(event: span::Event) -> Event {
    Event {
        name: event.name.into(),
        time_unix_nano: event.time_unix_nano,
        attributes: attributes(event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

/// `None` if an id is too long.
fn link(link: span::Link) -> Option<Link> {
    Some(Link {
        trace_id: TraceId::from_bytes(padded(&link.trace_id)?),
        span_id: SpanId::from_bytes(padded(&link.span_id)?),
        trace_state: link.trace_state,
        flags: link.flags,
        attributes: attributes(link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
    })
}

/// Reads the ids of one span.
struct Id<'a> {
    /// Name of the span, for errors.
    span: &'a str,
    /// Whether ids may be of another length than theirs.
    timed: bool,
}

impl Id<'_> {
    /// An id, where an absent one is the same as an all-zero one.
    fn of<const N: usize>(&self, what: &str, bytes: &[u8]) -> Result<[u8; N], Error> {
        if let Ok(id) = bytes.try_into() {
            return Ok(id);
        }
        let id = padded(bytes).filter(|_| self.timed || bytes.is_empty());
        id.ok_or_else(|| {
            let len = bytes.len();
            invalid_span(
                self.span,
                format!("the {what} has {len} bytes instead of {N}"),
            )
        })
    }
}

fn attributes(list: Vec<common::KeyValue>) -> Vec<Attribute> {
    list.into_iter()
        .map(|kv| Attribute {
            key: key(kv.key),
            value: any_value(kv.value),
        })
        .collect()
}

// Recursion is bounded: prost refuses messages nested more than 100 deep.
fn any_value(value: Option<common::AnyValue>) -> AnyValue {
    match value.and_then(|v| v.value) {
        None | Some(Value::StringValueStrindex(_)) => AnyValue::Empty,
        Some(Value::StringValue(v)) => AnyValue::String(v.into()),
        Some(Value::BoolValue(v)) => AnyValue::Bool(v),
        Some(Value::IntValue(v)) => AnyValue::Int(v),
        Some(Value::DoubleValue(v)) => AnyValue::Double(v),
        Some(Value::BytesValue(v)) => AnyValue::Bytes(v),
        Some(Value::ArrayValue(v)) => {
            AnyValue::Array(v.values.into_iter().map(|v| any_value(Some(v))).collect())
        }
        Some(Value::KvlistValue(v)) => AnyValue::Map(attributes(v.values)),
    }
}
