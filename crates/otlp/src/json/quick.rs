//! Decodes OTLP/JSON as most senders write it. On anything unusual it gives up, on a span or on the
//! request, and the tolerant decoder reads that again.

use super::lenient;
use super::not_traces::NotTraces;
use super::value::{EnumValue, Integer, KeyValue, SPAN_KINDS, STATUS_CODES};
use crate::decode::status_code;
use crate::request::{self, ResourceSpans, non_empty};
use opentelemetry::trace::{SpanId, TraceId};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{
    Attribute, Event, Link, Resource, Scope, SpanKind, SpanRecord, Status,
};

/// Nothing was decoded: the tolerant decoder is to try.
struct GiveUp;

impl From<serde_json::Error> for GiveUp {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// The first request of a text, and where it ends; `None` to give up.
pub(super) fn request(text: &[u8]) -> Option<(Result<Vec<ResourceSpans>, NotTraces>, usize)> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let request = Request::deserialize(&mut json).ok()?;
    let end = json.into_iter::<IgnoredAny>().byte_offset();
    let Some(list) = request.resource_spans else {
        let outcome = match request.other {
            Some(key) => Err(NotTraces::Key(key)),
            None => Ok(Vec::new()),
        };
        return Some((outcome, end));
    };
    let mut groups = Vec::new();
    for (index, resource_spans) in list.into_iter().enumerate() {
        resource_spans.unpack(index, &mut groups).ok()?;
    }
    Some((Ok(groups), end))
}

struct Request<'a> {
    resource_spans: Option<Vec<ResourceSpansJson<'a>>>,
    /// The first key that is not `resourceSpans`.
    other: Option<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Request<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequestVisitor;
        impl<'de> Visitor<'de> for RequestVisitor {
            type Value = Request<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OTLP ExportTraceServiceRequest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut request = Request {
                    resource_spans: None,
                    other: None,
                };
                while let Some(key) = map.next_key::<String>()? {
                    if key == "resourceSpans" {
                        let list: Option<Vec<_>> = map.next_value()?;
                        request.resource_spans = Some(list.unwrap_or_default());
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        request.other.get_or_insert(key);
                    }
                }
                Ok(request)
            }
        }
        deserializer.deserialize_map(RequestVisitor)
    }
}

// Every field is optional: one that is absent or `null` has its protobuf default.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpansJson<'a> {
    resource: Option<ResourceJson>,
    #[serde(borrow)]
    scope_spans: Option<Vec<ScopeSpansJson<'a>>>,
    #[serde(alias = "schema_url")]
    schema_url: Option<String>,
    /// Other names of `scopeSpans`, in snake_case and of OTLP before 0.15.
    #[serde(
        rename = "scope_spans",
        alias = "instrumentationLibrarySpans",
        alias = "instrumentation_library_spans"
    )]
    odd: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceJson {
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeSpansJson<'a> {
    scope: Option<ScopeJson>,
    /// Left unparsed, so that each can be refused by itself.
    #[serde(borrow)]
    spans: Option<Vec<&'a RawValue>>,
    #[serde(alias = "schema_url")]
    schema_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeJson {
    name: Option<String>,
    version: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    trace_id: Option<String>,
    span_id: Option<String>,
    #[serde(alias = "trace_state")]
    trace_state: Option<String>,
    parent_span_id: Option<String>,
    flags: Option<Integer>,
    name: Option<String>,
    kind: Option<EnumValue>,
    #[serde(alias = "start_time_unix_nano")]
    start_time_unix_nano: Option<Integer>,
    #[serde(alias = "end_time_unix_nano")]
    end_time_unix_nano: Option<Integer>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Option<Integer>,
    events: Option<Vec<EventJson>>,
    #[serde(alias = "dropped_events_count")]
    dropped_events_count: Option<Integer>,
    links: Option<Vec<LinkJson>>,
    #[serde(alias = "dropped_links_count")]
    dropped_links_count: Option<Integer>,
    status: Option<StatusJson>,
    /// Ids in snake_case, which are refused with advice.
    #[serde(rename = "trace_id", alias = "span_id", alias = "parent_span_id")]
    odd: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson {
    #[serde(alias = "time_unix_nano")]
    time_unix_nano: Option<Integer>,
    name: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson {
    #[serde(alias = "trace_id")]
    trace_id: Option<String>,
    #[serde(alias = "span_id")]
    span_id: Option<String>,
    #[serde(alias = "trace_state")]
    trace_state: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Option<Integer>,
    flags: Option<Integer>,
}

#[derive(Default, Deserialize)]
struct StatusJson {
    message: Option<String>,
    code: Option<EnumValue>,
}

impl ResourceSpansJson<'_> {
    fn unpack(self, index: usize, groups: &mut Vec<ResourceSpans>) -> Result<(), GiveUp> {
        if self.odd.is_some() {
            return Err(GiveUp);
        }
        let resource = self.resource.unwrap_or_default();
        let resource = Arc::new(Resource {
            attributes: attributes(resource.attributes),
            dropped_attributes_count: Integer::count(resource.dropped_attributes_count),
            schema_url: self.schema_url.and_then(non_empty),
        });
        for (nth, scope_spans) in self.scope_spans.unwrap_or_default().into_iter().enumerate() {
            let scope = scope_spans.scope.unwrap_or_default();
            let scope = Arc::new(Scope {
                name: scope.name.unwrap_or_default(),
                version: scope.version.and_then(non_empty),
                schema_url: scope_spans.schema_url.and_then(non_empty),
                attributes: attributes(scope.attributes),
                dropped_attributes_count: Integer::count(scope.dropped_attributes_count),
            });
            let spans = scope_spans.spans.unwrap_or_default().into_iter();
            let spans = spans.map(|json| span(json).or_else(|_| lenient::raw_span(json.get())));
            let (spans, refused) = request::sort((index, nth), spans);
            groups.push(ResourceSpans {
                resource: Arc::clone(&resource),
                scope,
                spans,
                refused,
                faults: Vec::new(),
            });
        }
        Ok(())
    }
}

fn span(text: &RawValue) -> Result<SpanRecord, GiveUp> {
    let json: SpanJson = serde_json::from_str(text.get())?;
    if json.odd.is_some() {
        return Err(GiveUp);
    }
    let (trace_id, span_id) = (trace_id(json.trace_id)?, self::span_id(json.span_id)?);
    if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
        return Err(GiveUp);
    }
    let parent = self::span_id(json.parent_span_id)?;
    let status = json.status.unwrap_or_default();
    let events = json.events.unwrap_or_default().into_iter();
    let mut links = Vec::new();
    for link in json.links.unwrap_or_default() {
        links.push(Link {
            trace_id: self::trace_id(link.trace_id)?,
            span_id: self::span_id(link.span_id)?,
            trace_state: link.trace_state.unwrap_or_default(),
            flags: Integer::get_or_zero(link.flags)?,
            attributes: attributes(link.attributes),
            dropped_attributes_count: Integer::count(link.dropped_attributes_count),
        });
    }
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent_span_id: request::parent(parent),
        trace_state: json.trace_state.unwrap_or_default(),
        flags: Integer::get_or_zero(json.flags)?,
        kind: SpanKind::from_otlp(EnumValue::number(json.kind, SPAN_KINDS)),
        start_time_unix_nano: Integer::get_or_zero(json.start_time_unix_nano)?,
        end_time_unix_nano: Integer::get_or_zero(json.end_time_unix_nano)?,
        attributes: attributes(json.attributes),
        dropped_attributes_count: Integer::count(json.dropped_attributes_count),
        events: events.map(event).collect::<Result<_, _>>()?,
        dropped_events_count: Integer::count(json.dropped_events_count),
        links,
        dropped_links_count: Integer::count(json.dropped_links_count),
        status: Status {
            code: status_code(EnumValue::number(status.code, STATUS_CODES)),
            message: status.message.unwrap_or_default().into(),
        },
        name: json.name.unwrap_or_default().into(),
    })
}

fn event(event: EventJson) -> Result<Event, GiveUp> {
    Ok(Event {
        name: event.name.unwrap_or_default().into(),
        time_unix_nano: Integer::get_or_zero(event.time_unix_nano)?,
        attributes: attributes(event.attributes),
        dropped_attributes_count: Integer::count(event.dropped_attributes_count),
    })
}

fn attributes(list: Option<Vec<KeyValue>>) -> Vec<Attribute> {
    list.unwrap_or_default()
        .into_iter()
        .map(Attribute::from)
        .collect()
}

fn trace_id(text: Option<String>) -> Result<TraceId, GiveUp> {
    TraceId::from_hex(&hex(32, text)?).map_err(|_| GiveUp)
}

fn span_id(text: Option<String>) -> Result<SpanId, GiveUp> {
    SpanId::from_hex(&hex(16, text)?).map_err(|_| GiveUp)
}

/// The digits of an id, of which those on the left may be missing.
fn hex(len: usize, text: Option<String>) -> Result<String, GiveUp> {
    match text {
        None => Ok("0".into()),
        Some(t) if t.is_empty() => Ok("0".into()),
        Some(t) if t.len() <= len && t.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(t),
        Some(_) => Err(GiveUp),
    }
}
