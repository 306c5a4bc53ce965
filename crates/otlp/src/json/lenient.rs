//! Decodes OTLP/JSON on which the quick decoder gave up, part by part: readable parts are kept,
//! others are left out and reported with their position.
//!
//! The reference is what MLflow's server accepts (`google.protobuf.json_format` 7.36): camelCase
//! and snake_case keys, text or a list of texts where a message belongs (an empty message), enum
//! names that are unknown (unset), numbers as Python reads them.

use super::loose::{self, Message, Wrong, wrong};
use super::not_traces::{NotTraces, SNAKE_CASE};
use super::tree::{self, Node};
use super::value::{SPAN_KINDS, STATUS_CODES, loose_base64};
use crate::decode::status_code;
use crate::id::{from_hex, padded};
use crate::request::{
    self, Fault, ResourceSpans, identity, invalid_span, non_empty, only_faults, resource_at,
    scope_at,
};
use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use trace_destination_core::{
    Attribute, Error, Event, Link, Resource, Scope, SpanKind, SpanRecord, Status,
};

/// A whole request.
pub(super) fn request(root: &Node<'_>) -> Result<Vec<ResourceSpans>, NotTraces> {
    let Node::Object(_) = root else {
        return Err(NotTraces::Shape);
    };
    let message = Message::of("request", Some(root)).map_err(|_| NotTraces::Shape)?;
    if !message.has("resourceSpans") {
        return match message.first_key() {
            Some(key) => Err(NotTraces::Key(key.to_owned())),
            None => Ok(Vec::new()),
        };
    }
    let list = match message.exactly("resourceSpans") {
        None => &[][..],
        Some(Node::List(items)) => items,
        Some(_) => return Err(NotTraces::Shape),
    };
    let mut groups = Vec::new();
    for (index, node) in list.iter().enumerate() {
        resource_spans(index, node, &mut groups);
    }
    Ok(groups)
}

fn resource_spans(index: usize, node: &Node<'_>, groups: &mut Vec<ResourceSpans>) {
    let at = resource_at(index);
    let mut faults = Faults::default();
    let Some(message) = faults.take(&at, strict("resourceSpans", node)) else {
        groups.push(only_faults(faults.0));
        return;
    };
    let resource = Arc::new(Resource {
        schema_url: faults
            .take(&at, message.text("schemaUrl"))
            .and_then(non_empty),
        ..resource(&at, message, &mut faults)
    });
    for other in ["scope_spans", "instrumentationLibrarySpans"] {
        if message.has(other) && !message.has("scopeSpans") {
            let cause = format!("it has no `scopeSpans` but `{other}`");
            faults.0.push(
                Fault::new(at.clone(), cause).mend(if other == "scope_spans" {
                    SNAKE_CASE
                } else {
                    "write it with OTLP 0.15 (2022) or later, which has `scopeSpans`"
                }),
            );
        }
    }
    let scopes = message
        .exactly("scopeSpans")
        .map_or(Ok(&[][..]), |node| match node {
            Node::List(items) => Ok(&items[..]),
            _ => Err(wrong("`scopeSpans` is no list")),
        });
    let first = groups.len();
    for (nth, node) in faults
        .take(&at, scopes)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        scope_spans((index, nth), node, &resource, groups);
    }
    if !faults.0.is_empty() {
        match groups.get_mut(first) {
            Some(group) => group.faults.splice(..0, faults.0).for_each(drop),
            None => groups.push(ResourceSpans {
                resource,
                ..only_faults(faults.0)
            }),
        }
    }
}

fn resource(at: &str, message: Message<'_, '_>, faults: &mut Faults) -> Resource {
    let at = format!("{at}.resource");
    let Some(message) = faults.take(&at, Message::of("resource", message.get("resource"))) else {
        return Resource::default();
    };
    Resource {
        attributes: faults.attributes(&at, message, 2),
        dropped_attributes_count: faults.take_or_default(&at, message.count(DROPPED_ATTRIBUTES)),
        schema_url: None,
    }
}

fn scope_spans(
    (index, nth): (usize, usize),
    node: &Node<'_>,
    resource: &Arc<Resource>,
    groups: &mut Vec<ResourceSpans>,
) {
    let at = scope_at(index, nth);
    let mut faults = Faults::default();
    let Some(message) = faults.take(&at, strict("scopeSpans", node)) else {
        groups.push(ResourceSpans {
            resource: Arc::clone(resource),
            ..only_faults(faults.0)
        });
        return;
    };
    let scope = Arc::new(Scope {
        schema_url: faults
            .take(&at, message.text("schemaUrl"))
            .and_then(non_empty),
        ..scope(&at, message, &mut faults)
    });
    let spans = faults.take_or_default(&at, message.list("spans"));
    let (spans, refused) = request::sort((index, nth), spans.iter().map(span));
    groups.push(ResourceSpans {
        resource: Arc::clone(resource),
        scope,
        spans,
        refused,
        faults: faults.0,
    });
}

fn scope(at: &str, message: Message<'_, '_>, faults: &mut Faults) -> Scope {
    let at = format!("{at}.scope");
    let Some(message) = faults.take(&at, Message::of("scope", message.get("scope"))) else {
        return Scope::default();
    };
    Scope {
        name: faults.take_or_default(&at, message.text("name")),
        version: faults
            .take(&at, message.text("version"))
            .and_then(non_empty),
        schema_url: None,
        attributes: faults.attributes(&at, message, 3),
        dropped_attributes_count: faults.take_or_default(&at, message.count(DROPPED_ATTRIBUTES)),
    }
}

const DROPPED_ATTRIBUTES: &str = "droppedAttributesCount";

/// A message that is an object and nothing else.
fn strict<'t, 'a>(field: &str, node: &'t Node<'a>) -> Result<Message<'t, 'a>, Wrong> {
    match node {
        Node::Object(_) => Message::of(field, Some(node)),
        _ => Err(wrong("it is no object")),
    }
}

/// The parts that were left out.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn take<T>(&mut self, at: &str, outcome: Result<T, Wrong>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(wrong) => {
                let fault = Fault::new(at.to_owned(), wrong.cause);
                self.0.push(match wrong.mend {
                    Some(mend) => fault.mend(mend),
                    None => fault,
                });
                None
            }
        }
    }

    fn take_or_default<T: Default>(&mut self, at: &str, outcome: Result<T, Wrong>) -> T {
        self.take(at, outcome).unwrap_or_default()
    }

    /// The attributes that can be read; `depth` counts the messages above, as the wire has them.
    fn attributes(&mut self, at: &str, message: Message<'_, '_>, depth: usize) -> Vec<Attribute> {
        let items = self.take_or_default(at, message.list("attributes"));
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if matches!(item, Node::Null) {
                continue;
            }
            let attribute = loose::attribute(item, depth + 1);
            list.extend(self.take(&format!("{at}.attributes[{index}]"), attribute));
        }
        list
    }
}

/// A span from its text, which is JSON.
pub(super) fn raw_span(text: &str) -> Result<SpanRecord, Error> {
    let (node, _) = tree::parse(text.as_bytes())
        .map_err(|e| invalid_span("", "it is not JSON").caused_by(e))?;
    span(&node)
}

fn span(node: &Node<'_>) -> Result<SpanRecord, Error> {
    let message = strict("spans", node).map_err(|w| invalid_span("", w.cause))?;
    let name = message.text("name").unwrap_or_default();
    let invalid = |wrong: Wrong| {
        let error = invalid_span(&name, wrong.cause);
        match wrong.mend {
            Some(mend) => error.mend(mend),
            None => error,
        }
    };
    let (trace_id, span_id) = identity(
        &name,
        TraceId::from_bytes(id(message, "traceId", "trace_id", "trace id").map_err(invalid)?),
        SpanId::from_bytes(id(message, "spanId", "span_id", "span id").map_err(invalid)?),
    )?;
    fields(message, trace_id, span_id).map_err(invalid)
}

fn fields(
    message: Message<'_, '_>,
    trace_id: TraceId,
    span_id: SpanId,
) -> Result<SpanRecord, Wrong> {
    let parent = id(message, "parentSpanId", "parent_span_id", "parent span id")?;
    let status = Message::of("status", message.get("status"))?;
    let (links, unreadable) = links(message)?;
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent_span_id: request::parent(SpanId::from_bytes(parent)),
        trace_state: message.text("traceState")?,
        flags: message.integer("flags")?,
        name: message.text("name")?.into(),
        kind: SpanKind::from_otlp(message.number("kind", SPAN_KINDS)?),
        start_time_unix_nano: message.integer("startTimeUnixNano")?,
        end_time_unix_nano: message.integer("endTimeUnixNano")?,
        attributes: message.attributes(0)?,
        dropped_attributes_count: message.count(DROPPED_ATTRIBUTES)?,
        events: events(message)?,
        dropped_events_count: message.count("droppedEventsCount")?,
        links,
        dropped_links_count: message
            .count("droppedLinksCount")?
            .saturating_add(unreadable),
        status: Status {
            code: status_code(status.number("code", STATUS_CODES)?),
            message: status.text("message")?.into(),
        },
    })
}

fn events(message: Message<'_, '_>) -> Result<Vec<Event>, Wrong> {
    let items = message.list("events")?.iter();
    let events = items.enumerate().map(|(index, item)| {
        let event = || {
            let message = Message::of("events", Some(item))?;
            Ok(Event {
                name: message.text("name")?.into(),
                time_unix_nano: message.integer("timeUnixNano")?,
                attributes: message.attributes(1)?,
                dropped_attributes_count: message.count(DROPPED_ATTRIBUTES)?,
            })
        };
        event().map_err(|wrong: Wrong| wrong.within(&format!("events[{index}]")))
    });
    events.collect()
}

/// The links, and how many were left out because their ids cannot be read.
fn links(message: Message<'_, '_>) -> Result<(Vec<Link>, u32), Wrong> {
    let mut links = Vec::new();
    let mut unreadable: u32 = 0;
    for (index, item) in message.list("links")?.iter().enumerate() {
        let link = || {
            let message = Message::of("links", Some(item))?;
            let (trace_id, span_id) = (link_id(message, "traceId")?, link_id(message, "spanId")?);
            let (Some(trace_id), Some(span_id)) = (trace_id, span_id) else {
                return Ok(None);
            };
            Ok(Some(Link {
                trace_id: TraceId::from_bytes(trace_id),
                span_id: SpanId::from_bytes(span_id),
                trace_state: message.text("traceState")?,
                flags: message.integer("flags")?,
                attributes: message.attributes(1)?,
                dropped_attributes_count: message.count(DROPPED_ATTRIBUTES)?,
            }))
        };
        match link().map_err(|wrong: Wrong| wrong.within(&format!("links[{index}]")))? {
            Some(link) => links.push(link),
            None => unreadable = unreadable.saturating_add(1),
        }
    }
    Ok((links, unreadable))
}

/// An id of a link: hex as OTLP asks for, else base64, which is what MLflow's server reads here.
/// `None` if it is neither.
fn link_id<const N: usize>(message: Message<'_, '_>, name: &str) -> Result<Option<[u8; N]>, Wrong> {
    let text = message.text(name)?;
    if let Some(id) = from_hex(&text).and_then(|bytes| padded(&bytes)) {
        return Ok(Some(id));
    }
    Ok(loose_base64(&text).and_then(|bytes| bytes.try_into().ok()))
}

/// An id, where an absent one is all zero.
fn id<const N: usize>(
    message: Message<'_, '_>,
    name: &str,
    snake_case: &str,
    what: &str,
) -> Result<[u8; N], Wrong> {
    if !message.has(name) && message.has(snake_case) {
        let cause = format!("the {what} is missing: `{snake_case}` is no key of OTLP/JSON");
        return Err(wrong(cause).mend(SNAKE_CASE));
    }
    let text = loose::text(name, message.exactly(name))?;
    if let Some(bytes) = from_hex(&text) {
        let digits = text.len();
        return padded(&bytes).ok_or_else(|| {
            wrong(format!(
                "the {what} has {digits} hex digits, which are more than {}",
                2 * N
            ))
        });
    }
    let cause = format!("the {what} is not {} hex digits", 2 * N);
    Err(match loose_base64(&text) {
        Some(bytes) if bytes.len() == N && text.len() == N.div_ceil(3) * 4 => {
            let cause = format!("{cause}: it looks like base64");
            wrong(cause).mend("write ids in hex, as OTLP/JSON asks for, and not in base64")
        }
        _ => wrong(cause).mend("write ids in hex, without prefix and hyphens"),
    })
}
