//! OTLP to records by a path of its own: `opentelemetry-proto`'s messages, nothing of the crate
//! under test.

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message as _;
use trace_destination_conformance::StoredSpan;
use trace_destination_core::{
    AnyValue, Attribute, Event, Link, Resource, Scope, SpanKind, SpanRecord, Status, StatusCode,
};

/// Every span of a request with its resource and scope.
pub fn request(body: &[u8]) -> Result<Vec<StoredSpan>, prost::DecodeError> {
    let request = ExportTraceServiceRequest::decode(body)?;
    let mut spans = Vec::new();
    for rs in request.resource_spans {
        let resource = rs.resource.unwrap_or_default();
        let resource = Resource {
            attributes: attributes(resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: (!rs.schema_url.is_empty()).then_some(rs.schema_url),
        };
        for ss in rs.scope_spans {
            let scope = ss.scope.unwrap_or_default();
            let scope = Scope {
                name: scope.name,
                version: (!scope.version.is_empty()).then_some(scope.version),
                schema_url: (!ss.schema_url.is_empty()).then_some(ss.schema_url),
                attributes: attributes(scope.attributes),
                dropped_attributes_count: scope.dropped_attributes_count,
            };
            for s in ss.spans {
                spans.push(StoredSpan {
                    span: span(s),
                    resource: resource.clone(),
                    scope: scope.clone(),
                });
            }
        }
    }
    Ok(spans)
}

fn trace_id(bytes: &[u8]) -> TraceId {
    let mut id = [0; 16];
    id[16 - bytes.len().min(16)..].copy_from_slice(&bytes[..bytes.len().min(16)]);
    TraceId::from_bytes(id)
}

fn span_id(bytes: &[u8]) -> SpanId {
    let mut id = [0; 8];
    id[8 - bytes.len().min(8)..].copy_from_slice(&bytes[..bytes.len().min(8)]);
    SpanId::from_bytes(id)
}

fn span(s: trace::Span) -> SpanRecord {
    let status = s.status.unwrap_or_default();
    SpanRecord {
        trace_id: trace_id(&s.trace_id),
        span_id: span_id(&s.span_id),
        parent_span_id: (!s.parent_span_id.is_empty()).then(|| span_id(&s.parent_span_id)),
        trace_state: s.trace_state,
        flags: s.flags,
        name: s.name.into(),
        kind: match s.kind {
            1 => SpanKind::Internal,
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        },
        start_time_unix_nano: s.start_time_unix_nano,
        end_time_unix_nano: s.end_time_unix_nano,
        attributes: attributes(s.attributes),
        dropped_attributes_count: s.dropped_attributes_count,
        events: s
            .events
            .into_iter()
            .map(|e| Event {
                name: e.name.into(),
                time_unix_nano: e.time_unix_nano,
                attributes: attributes(e.attributes),
                dropped_attributes_count: e.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: s.dropped_events_count,
        links: s
            .links
            .into_iter()
            .map(|l| Link {
                trace_id: trace_id(&l.trace_id),
                span_id: span_id(&l.span_id),
                trace_state: l.trace_state,
                flags: l.flags,
                attributes: attributes(l.attributes),
                dropped_attributes_count: l.dropped_attributes_count,
            })
            .collect(),
        dropped_links_count: s.dropped_links_count,
        status: Status {
            code: match status.code {
                1 => StatusCode::Ok,
                2 => StatusCode::Error,
                _ => StatusCode::Unset,
            },
            message: status.message.into(),
        },
    }
}

fn attributes(list: Vec<common::KeyValue>) -> Vec<Attribute> {
    list.into_iter()
        .map(|kv| Attribute::new(kv.key, any_value(kv.value)))
        .collect()
}

fn any_value(value: Option<common::AnyValue>) -> AnyValue {
    match value.and_then(|v| v.value) {
        None => AnyValue::Empty,
        Some(Value::StringValue(v)) => AnyValue::String(v.into()),
        Some(Value::BoolValue(v)) => AnyValue::Bool(v),
        Some(Value::IntValue(v)) => AnyValue::Int(v),
        Some(Value::DoubleValue(v)) => AnyValue::Double(v),
        Some(Value::BytesValue(v)) => AnyValue::Bytes(v),
        Some(Value::ArrayValue(v)) => {
            AnyValue::Array(v.values.into_iter().map(|v| any_value(Some(v))).collect())
        }
        Some(Value::KvlistValue(v)) => AnyValue::Map(attributes(v.values)),
        Some(Value::StringValueStrindex(_)) => panic!("a reference into a profile"),
    }
}
