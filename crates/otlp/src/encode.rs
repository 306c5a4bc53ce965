//! Records to OTLP protobuf.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;
use std::sync::Arc;
use trace_destination_core::{
    AnyValueRef, Attributes, EventRef, LinkRef, Resource, Scope, Span, SpanGroup, StatusCode,
};

/// Encodes spans as one OTLP `ExportTraceServiceRequest`.
///
/// Order is kept. Neighbours that share a resource share one `ResourceSpans`.
pub fn encode_protobuf(groups: &[SpanGroup]) -> Vec<u8> {
    let mut resource_spans: Vec<trace::ResourceSpans> = Vec::new();
    let mut last: Option<&Arc<Resource>> = None;
    for group in groups {
        if !last.is_some_and(|r| Arc::ptr_eq(r, &group.resource)) {
            resource_spans.push(trace::ResourceSpans {
                resource: Some(resource(&group.resource)),
                scope_spans: Vec::new(),
                schema_url: text(&group.resource.schema_url),
            });
            last = Some(&group.resource);
        }
        if let Some(current) = resource_spans.last_mut() {
            current.scope_spans.push(trace::ScopeSpans {
                scope: Some(scope(&group.scope)),
                spans: group.spans.iter().map(span).collect(),
                schema_url: text(&group.scope.schema_url),
            });
        }
    }
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn resource(resource: &Resource) -> ProtoResource {
    ProtoResource {
        attributes: attributes(resource.attributes()),
        dropped_attributes_count: resource.dropped_attributes_count,
        entity_refs: Vec::new(),
    }
}

fn scope(scope: &Scope) -> common::InstrumentationScope {
    common::InstrumentationScope {
        name: scope.name.clone(),
        version: text(&scope.version),
        attributes: attributes(Attributes::record(&scope.attributes)),
        dropped_attributes_count: scope.dropped_attributes_count,
    }
}

fn span(span: &Span) -> trace::Span {
    let (code, message) = (span.status_code(), span.status_message());
    trace::Span {
        trace_id: span.trace_id().to_bytes().to_vec(),
        span_id: span.span_id().to_bytes().to_vec(),
        trace_state: span.trace_state().into_owned(),
        parent_span_id: span
            .parent_span_id()
            .map(|id| id.to_bytes().to_vec())
            .unwrap_or_default(),
        flags: span.flags(),
        name: span.name().to_owned(),
        kind: span.kind() as i32,
        start_time_unix_nano: span.start_time_unix_nano(),
        end_time_unix_nano: span.end_time_unix_nano(),
        attributes: attributes(span.attributes()),
        dropped_attributes_count: span.dropped_attributes_count(),
        events: span.events().map(event).collect(),
        dropped_events_count: span.dropped_events_count(),
        links: span.links().map(link).collect(),
        dropped_links_count: span.dropped_links_count(),
        status: (code != StatusCode::Unset || !message.is_empty()).then(|| trace::Status {
            message: message.to_owned(),
            code: code as i32,
        }),
    }
}

fn event(event: EventRef<'_>) -> trace::span::Event {
    trace::span::Event {
        time_unix_nano: event.time_unix_nano,
        name: event.name.to_owned(),
        attributes: attributes(event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link(link: LinkRef<'_>) -> trace::span::Link {
    trace::span::Link {
        trace_id: link.trace_id.to_bytes().to_vec(),
        span_id: link.span_id.to_bytes().to_vec(),
        trace_state: link.trace_state.into_owned(),
        attributes: attributes(link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    }
}

fn attributes(list: Attributes<'_>) -> Vec<common::KeyValue> {
    list.iter().map(key_value).collect()
}

fn key_value((key, value): (&str, AnyValueRef<'_>)) -> common::KeyValue {
    common::KeyValue {
        key: key.to_owned(),
        value: Some(any_value(value)),
        key_strindex: 0,
    }
}

fn any_value(value: AnyValueRef<'_>) -> common::AnyValue {
    common::AnyValue {
        value: match value {
            AnyValueRef::Empty => None,
            AnyValueRef::Bool(v) => Some(Value::BoolValue(v)),
            AnyValueRef::Int(v) => Some(Value::IntValue(v)),
            AnyValueRef::Double(v) => Some(Value::DoubleValue(v)),
            AnyValueRef::String(v) => Some(Value::StringValue(v.to_owned())),
            AnyValueRef::Bytes(v) => Some(Value::BytesValue(v.to_vec())),
            AnyValueRef::Array(v) => Some(Value::ArrayValue(common::ArrayValue {
                values: v.iter().map(any_value).collect(),
            })),
            AnyValueRef::Map(v) => Some(Value::KvlistValue(common::KeyValueList {
                values: v.iter().map(key_value).collect(),
            })),
        },
    }
}
