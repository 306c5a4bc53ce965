//! OTLP protobuf to records.

use crate::keys::key;
use crate::request::{self, ResourceSpans, identity, invalid_span, non_empty};
use bytes::Bytes;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{Span as ProtoSpan, span};
use prost::Message;
use std::sync::Arc;
use trace_destination_core::{
    AnyValue, Attribute, Error, ErrorKind, Event, Link, Resource, Scope, SpanKind, SpanRecord,
    Status, StatusCode,
};

/// `ExportTraceServiceRequest` with its spans left undecoded: on the wire a message and a byte
/// string look the same, so each span can be decoded, and refused, by itself.
#[derive(Clone, PartialEq, Message)]
struct RawRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<RawResourceSpans>,
}

/// One `ResourceSpans` with its spans left undecoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<ProtoResource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<RawScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct RawScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<common::InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// Decodes an OTLP `ExportTraceServiceRequest` (or `TracesData`, which looks the same).
///
/// An attribute set to a reference into a profile's string table, which has no meaning in a trace,
/// comes out as [`AnyValue::Empty`], as the protocol asks for. Values may be nested about 30 deep;
/// the entity references of a resource, still in development in OTLP, are not kept.
///
/// # Errors
/// `Corrupt` if the bytes are not such a request. A single bad span is no error but
/// [`refused`](ResourceSpans::refused).
pub fn decode_protobuf(bytes: &[u8]) -> Result<Vec<ResourceSpans>, Error> {
    let request = RawRequest::decode(Bytes::copy_from_slice(bytes)).map_err(|e| {
        Error::new(
            ErrorKind::Corrupt,
            "decode OTLP request",
            "the bytes are not a protobuf ExportTraceServiceRequest",
        )
        .mend("send or capture it again; a request that was cut off cannot be repaired")
        .caused_by(e)
    })?;
    let mut groups = Vec::new();
    for resource_spans in request.resource_spans {
        resource_spans.unpack(&mut groups);
    }
    Ok(groups)
}

impl RawResourceSpans {
    /// Decodes the spans, scope by scope.
    pub(crate) fn unpack(self, groups: &mut Vec<ResourceSpans>) {
        let resource = self.resource.unwrap_or_default();
        let resource = Arc::new(Resource {
            attributes: attributes(resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: non_empty(self.schema_url),
        });
        for scope_spans in self.scope_spans {
            let scope = scope_spans.scope.unwrap_or_default();
            let (spans, refused) = request::sort(scope_spans.spans.into_iter().map(span));
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
            });
        }
    }
}

fn span(bytes: Bytes) -> Result<SpanRecord, Error> {
    let span = ProtoSpan::decode(bytes)
        .map_err(|e| invalid_span("", "the bytes are not a valid protobuf span").caused_by(e))?;
    let name = span.name;
    let (trace_id, span_id) = identity(
        &name,
        trace_id(&name, "trace id", &span.trace_id)?,
        span_id(&name, "span id", &span.span_id)?,
    )?;
    let links = span
        .links
        .into_iter()
        .map(|l| link(&name, l))
        .collect::<Result<_, _>>()?;
    let status = span.status.unwrap_or_default();
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent_span_id: request::parent(self::span_id(
            &name,
            "parent span id",
            &span.parent_span_id,
        )?),
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
        dropped_links_count: span.dropped_links_count,
        status: Status {
            code: status_code(status.code),
            message: status.message.into(),
        },
        name: name.into(),
    })
}

/// The outcome for an OTLP enum number; unknown numbers say nothing.
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

fn link(name: &str, link: span::Link) -> Result<Link, Error> {
    Ok(Link {
        trace_id: trace_id(name, "trace id of a link", &link.trace_id)?,
        span_id: span_id(name, "span id of a link", &link.span_id)?,
        trace_state: link.trace_state,
        flags: link.flags,
        attributes: attributes(link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
    })
}

fn trace_id(name: &str, what: &str, bytes: &[u8]) -> Result<TraceId, Error> {
    id(name, what, bytes).map(TraceId::from_bytes)
}

fn span_id(name: &str, what: &str, bytes: &[u8]) -> Result<SpanId, Error> {
    id(name, what, bytes).map(SpanId::from_bytes)
}

/// An id, where an absent one is the same as an all-zero one.
fn id<const N: usize>(name: &str, what: &str, bytes: &[u8]) -> Result<[u8; N], Error> {
    match bytes.len() {
        0 => Ok([0; N]),
        len => bytes
            .try_into()
            .map_err(|_| invalid_span(name, format!("the {what} has {len} bytes instead of {N}"))),
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
