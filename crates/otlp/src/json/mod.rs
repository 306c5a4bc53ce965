//! OTLP/JSON to records.
//!
//! The serde support of `opentelemetry-proto` 0.33 is not used, because it cannot read what others
//! write: it fails on `"arrayValue": {}` (how the Collector writes an empty list), on a key–value
//! pair without a key, on `null`, on `"doubleValue": "NaN"`, on URL-safe or unpadded base64 and on
//! enum names; and one bad span fails its whole request. So the text is read here, with leniency as
//! in the protobuf JSON mapping: numbers may be text, text may be absent or `null`, fields that
//! are unknown are skipped. Ids are hex, as OTLP departs from that mapping.

mod value;

use crate::decode::status_code;
use crate::request::{self, ResourceSpans, identity, invalid_span, non_empty};
use opentelemetry::trace::{SpanId, TraceId};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{
    Attribute, Error, ErrorKind, Event, Link, Resource, Scope, SpanKind, SpanRecord, Status,
};
use value::{EnumValue, Integer, KeyValue};

/// Decodes an OTLP/JSON `ExportTraceServiceRequest` (or `TracesData`, which looks the same).
///
/// Values may be nested about 30 deep. A lone surrogate (`"\ud800"`), which no UTF-8 text can hold,
/// costs the span it is in.
///
/// # Errors
/// `Corrupt` if the text is not JSON, or JSON but not such a request: one without `resourceSpans`,
/// unless it is empty. A single bad span is no error but [`refused`](ResourceSpans::refused).
pub fn decode_json(text: &[u8]) -> Result<Vec<ResourceSpans>, Error> {
    parse(text).map_err(|e| {
        let error = Error::new(ErrorKind::Corrupt, "decode OTLP request", e.cause());
        match e {
            JsonError::Json(e) => error.caused_by(e),
            JsonError::NoSpans(_) => error,
        }
        .mend("give an OTLP/JSON ExportTraceServiceRequest: {\"resourceSpans\": […]}")
    })
}

/// Why a text is no request.
#[derive(Debug)]
pub(crate) enum JsonError {
    /// Not JSON, or not of OTLP's shape.
    Json(serde_json::Error),
    /// An object without `resourceSpans` but with this.
    NoSpans(String),
}

impl JsonError {
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Json(e) if e.is_eof() => "the JSON text ends in the middle of a value".into(),
            Self::Json(e) if e.is_syntax() => "the text is not JSON".into(),
            Self::Json(_) => "the JSON is not an OTLP trace request".into(),
            Self::NoSpans(key) => format!(
                "the JSON has no `resourceSpans` but `{}`: it is not an OTLP trace request",
                key.escape_debug()
            ),
        }
    }
}

pub(crate) fn parse(text: &[u8]) -> Result<Vec<ResourceSpans>, JsonError> {
    let request: Request<'_> = serde_json::from_slice(text).map_err(JsonError::Json)?;
    let Some(list) = request.resource_spans else {
        return match request.other {
            Some(key) => Err(JsonError::NoSpans(key)),
            None => Ok(Vec::new()),
        };
    };
    let mut groups = Vec::new();
    for resource_spans in list {
        resource_spans
            .unpack(&mut groups)
            .map_err(JsonError::Json)?;
    }
    Ok(groups)
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
    schema_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceJson {
    attributes: Option<Vec<KeyValue>>,
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeSpansJson<'a> {
    scope: Option<ScopeJson>,
    /// Left unparsed, so that each can be refused by itself.
    #[serde(borrow)]
    spans: Option<Vec<&'a RawValue>>,
    schema_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeJson {
    name: Option<String>,
    version: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    trace_id: Option<String>,
    span_id: Option<String>,
    trace_state: Option<String>,
    parent_span_id: Option<String>,
    flags: Option<Integer>,
    name: Option<String>,
    kind: Option<EnumValue>,
    start_time_unix_nano: Option<Integer>,
    end_time_unix_nano: Option<Integer>,
    attributes: Option<Vec<KeyValue>>,
    dropped_attributes_count: Option<Integer>,
    events: Option<Vec<EventJson>>,
    dropped_events_count: Option<Integer>,
    links: Option<Vec<LinkJson>>,
    dropped_links_count: Option<Integer>,
    status: Option<StatusJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson {
    time_unix_nano: Option<Integer>,
    name: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    dropped_attributes_count: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson {
    trace_id: Option<String>,
    span_id: Option<String>,
    trace_state: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    dropped_attributes_count: Option<Integer>,
    flags: Option<Integer>,
}

#[derive(Default, Deserialize)]
struct StatusJson {
    message: Option<String>,
    code: Option<EnumValue>,
}

impl ResourceSpansJson<'_> {
    fn unpack(self, groups: &mut Vec<ResourceSpans>) -> Result<(), serde_json::Error> {
        let resource = self.resource.unwrap_or_default();
        let resource = Arc::new(Resource {
            attributes: attributes(resource.attributes),
            dropped_attributes_count: Integer::get_or_zero(resource.dropped_attributes_count)?,
            schema_url: self.schema_url.and_then(non_empty),
        });
        for scope_spans in self.scope_spans.unwrap_or_default() {
            let scope = scope_spans.scope.unwrap_or_default();
            let scope = Arc::new(Scope {
                name: scope.name.unwrap_or_default(),
                version: scope.version.and_then(non_empty),
                schema_url: scope_spans.schema_url.and_then(non_empty),
                attributes: attributes(scope.attributes),
                dropped_attributes_count: Integer::get_or_zero(scope.dropped_attributes_count)?,
            });
            let spans = scope_spans.spans.unwrap_or_default();
            let (spans, refused) = request::sort(spans.into_iter().map(span));
            groups.push(ResourceSpans {
                resource: Arc::clone(&resource),
                scope,
                spans,
                refused,
            });
        }
        Ok(())
    }
}

fn span(text: &RawValue) -> Result<SpanRecord, Error> {
    let json: SpanJson = serde_json::from_str(text.get())
        .map_err(|e| invalid_span("", "the JSON is not a valid OTLP span").caused_by(e))?;
    let name = json.name.unwrap_or_default();
    let wrong = |e: serde_json::Error| {
        invalid_span(&name, "a number or name is none that OTLP knows").caused_by(e)
    };
    let (trace_id, span_id) = identity(
        &name,
        trace_id(&name, "trace id", json.trace_id)?,
        span_id(&name, "span id", json.span_id)?,
    )?;
    let parent = self::span_id(&name, "parent span id", json.parent_span_id)?;
    let status = json.status.unwrap_or_default();
    let events = json.events.unwrap_or_default().into_iter();
    let mut links = Vec::new();
    for link in json.links.unwrap_or_default() {
        links.push(Link {
            trace_id: self::trace_id(&name, "trace id of a link", link.trace_id)?,
            span_id: self::span_id(&name, "span id of a link", link.span_id)?,
            trace_state: link.trace_state.unwrap_or_default(),
            flags: Integer::get_or_zero(link.flags).map_err(wrong)?,
            attributes: attributes(link.attributes),
            dropped_attributes_count: Integer::get_or_zero(link.dropped_attributes_count)
                .map_err(wrong)?,
        });
    }
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent_span_id: request::parent(parent),
        trace_state: json.trace_state.unwrap_or_default(),
        flags: Integer::get_or_zero(json.flags).map_err(wrong)?,
        kind: SpanKind::from_otlp(EnumValue::number(json.kind, SPAN_KINDS).map_err(wrong)?),
        start_time_unix_nano: Integer::get_or_zero(json.start_time_unix_nano).map_err(wrong)?,
        end_time_unix_nano: Integer::get_or_zero(json.end_time_unix_nano).map_err(wrong)?,
        attributes: attributes(json.attributes),
        dropped_attributes_count: Integer::get_or_zero(json.dropped_attributes_count)
            .map_err(wrong)?,
        events: events.map(event).collect::<Result<_, _>>().map_err(wrong)?,
        dropped_events_count: Integer::get_or_zero(json.dropped_events_count).map_err(wrong)?,
        links,
        dropped_links_count: Integer::get_or_zero(json.dropped_links_count).map_err(wrong)?,
        status: Status {
            code: status_code(EnumValue::number(status.code, STATUS_CODES).map_err(wrong)?),
            message: status.message.unwrap_or_default().into(),
        },
        name: name.into(),
    })
}

fn event(event: EventJson) -> Result<Event, serde_json::Error> {
    Ok(Event {
        name: event.name.unwrap_or_default().into(),
        time_unix_nano: Integer::get_or_zero(event.time_unix_nano)?,
        attributes: attributes(event.attributes),
        dropped_attributes_count: Integer::get_or_zero(event.dropped_attributes_count)?,
    })
}

/// In the order of their numbers.
const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

fn attributes(list: Option<Vec<KeyValue>>) -> Vec<Attribute> {
    list.unwrap_or_default()
        .into_iter()
        .map(Attribute::from)
        .collect()
}

fn trace_id(name: &str, what: &str, text: Option<String>) -> Result<TraceId, Error> {
    let digits = hex(name, what, 32, text)?;
    TraceId::from_hex(&digits).map_err(|e| not_hex(name, what, 32).caused_by(e))
}

fn span_id(name: &str, what: &str, text: Option<String>) -> Result<SpanId, Error> {
    let digits = hex(name, what, 16, text)?;
    SpanId::from_hex(&digits).map_err(|e| not_hex(name, what, 16).caused_by(e))
}

/// The digits of an id, where an absent one is the same as zero.
fn hex(name: &str, what: &str, len: usize, text: Option<String>) -> Result<String, Error> {
    match text {
        None => Ok("0".into()),
        Some(t) if t.is_empty() => Ok("0".into()),
        Some(t) if t.len() == len && t.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(t),
        Some(_) => Err(not_hex(name, what, len)),
    }
}

fn not_hex(name: &str, what: &str, len: usize) -> Error {
    invalid_span(name, format!("the {what} is not {len} hex digits"))
}
