//! A span as plain owned values, and its conversion from the SDK's data.

use super::value::{AnyValue, Attribute, attributes_bytes};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// The role of a span, with OTLP's numbers (`opentelemetry/proto/trace/v1/trace.proto`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum SpanKind {
    /// Not stated. The SDK never emits it; OTLP may carry it.
    Unspecified = 0,
    /// An operation inside the application.
    #[default]
    Internal = 1,
    /// The server side of a remote call.
    Server = 2,
    /// The client side of a remote call.
    Client = 3,
    /// The sender of a message.
    Producer = 4,
    /// The receiver of a message.
    Consumer = 5,
}

impl SpanKind {
    /// The kind for an OTLP enum number; unknown numbers are `Unspecified`.
    pub fn from_otlp(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

impl From<&opentelemetry::trace::SpanKind> for SpanKind {
    fn from(kind: &opentelemetry::trace::SpanKind) -> Self {
        use opentelemetry::trace::SpanKind as Sdk;
        match kind {
            Sdk::Client => Self::Client,
            Sdk::Server => Self::Server,
            Sdk::Producer => Self::Producer,
            Sdk::Consumer => Self::Consumer,
            Sdk::Internal => Self::Internal,
        }
    }
}

/// The outcome code of a span, with OTLP's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum StatusCode {
    /// The application said nothing.
    #[default]
    Unset = 0,
    /// The application declared success.
    Ok = 1,
    /// The operation failed.
    Error = 2,
}

/// The outcome of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: StatusCode,
    /// A description, usually of an error; may be empty.
    pub message: Cow<'static, str>,
}

/// An owned event, for records and hooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The event's name.
    pub name: Cow<'static, str>,
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The event's attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes lost to a limit before the span got here.
    pub dropped_attributes_count: u32,
}

/// An owned link, for records and hooks.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Trace of the span linked to.
    pub trace_id: TraceId,
    /// Span linked to.
    pub span_id: SpanId,
    /// W3C trace state of the span linked to, as its header text.
    pub trace_state: String,
    /// OTLP flags: W3C trace flags in bits 0–7, bits 8 and 9 say whether the context is remote.
    pub flags: u32,
    /// The link's attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes lost to a limit before the span got here.
    pub dropped_attributes_count: u32,
}

/// A span as plain owned values: what OTLP carries, what hooks edit.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanRecord {
    /// The trace this span belongs to; never all zero.
    pub trace_id: TraceId,
    /// This span; never all zero.
    pub span_id: SpanId,
    /// The parent, `None` at the root of the trace.
    pub parent_span_id: Option<SpanId>,
    /// W3C trace state as its header text.
    pub trace_state: String,
    /// OTLP flags: W3C trace flags in bits 0–7, bits 8 and 9 say whether the parent is remote.
    pub flags: u32,
    /// The operation.
    pub name: Cow<'static, str>,
    /// The role.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch; 0 where the sender gave none.
    pub end_time_unix_nano: u64,
    /// Attributes in order.
    pub attributes: Vec<Attribute>,
    /// Attributes lost to a limit before the span got here.
    pub dropped_attributes_count: u32,
    /// Events in order.
    pub events: Vec<Event>,
    /// Events lost to a limit before the span got here.
    pub dropped_events_count: u32,
    /// Links in order.
    pub links: Vec<Link>,
    /// Links lost to a limit before the span got here.
    pub dropped_links_count: u32,
    /// The outcome.
    pub status: Status,
}

impl SpanRecord {
    /// A record with the given identity and times and everything else empty.
    pub fn new(
        trace_id: TraceId,
        span_id: SpanId,
        name: impl Into<Cow<'static, str>>,
        start_time_unix_nano: u64,
        end_time_unix_nano: u64,
    ) -> Self {
        Self {
            trace_id,
            span_id,
            parent_span_id: None,
            trace_state: String::new(),
            flags: 0,
            name: name.into(),
            kind: SpanKind::default(),
            start_time_unix_nano,
            end_time_unix_nano,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Vec::new(),
            dropped_events_count: 0,
            links: Vec::new(),
            dropped_links_count: 0,
            status: Status::default(),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(
        mut self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<AnyValue>,
    ) -> Self {
        self.attributes.push(Attribute::new(key, value));
        self
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.name.len()
            + self.trace_state.len()
            + self.status.message.len()
            + attributes_bytes(&self.attributes)
            + self
                .events
                .iter()
                .map(|e| size_of::<Event>() + e.name.len() + attributes_bytes(&e.attributes))
                .sum::<usize>()
            + self
                .links
                .iter()
                .map(|l| size_of::<Link>() + l.trace_state.len() + attributes_bytes(&l.attributes))
                .sum::<usize>()
    }
}

impl From<SpanData> for SpanRecord {
    fn from(data: SpanData) -> Self {
        let flags = otlp_flags(
            data.span_context.trace_flags().to_u8(),
            data.parent_span_is_remote,
        );
        let into = |attributes: Vec<opentelemetry::KeyValue>| -> Vec<Attribute> {
            attributes.into_iter().map(Attribute::from).collect()
        };
        SpanRecord {
            trace_id: data.span_context.trace_id(),
            span_id: data.span_context.span_id(),
            parent_span_id: (data.parent_span_id != SpanId::INVALID).then_some(data.parent_span_id),
            trace_state: data.span_context.trace_state().header(),
            flags,
            name: data.name,
            kind: (&data.span_kind).into(),
            start_time_unix_nano: unix_nano(data.start_time),
            end_time_unix_nano: unix_nano(data.end_time),
            attributes: into(data.attributes),
            dropped_attributes_count: data.dropped_attributes_count,
            dropped_events_count: data.events.dropped_count,
            events: data
                .events
                .events
                .into_iter()
                .map(|e| Event {
                    name: e.name,
                    time_unix_nano: unix_nano(e.timestamp),
                    attributes: into(e.attributes),
                    dropped_attributes_count: e.dropped_attributes_count,
                })
                .collect(),
            dropped_links_count: data.links.dropped_count,
            links: data
                .links
                .links
                .into_iter()
                .map(|l| Link {
                    trace_id: l.span_context.trace_id(),
                    span_id: l.span_context.span_id(),
                    trace_state: l.span_context.trace_state().header(),
                    flags: otlp_flags(
                        l.span_context.trace_flags().to_u8(),
                        l.span_context.is_remote(),
                    ),
                    attributes: into(l.attributes),
                    dropped_attributes_count: l.dropped_attributes_count,
                })
                .collect(),
            status: match data.status {
                opentelemetry::trace::Status::Unset => Status::default(),
                opentelemetry::trace::Status::Ok => Status {
                    code: StatusCode::Ok,
                    message: Cow::Borrowed(""),
                },
                opentelemetry::trace::Status::Error { description } => Status {
                    code: StatusCode::Error,
                    message: description,
                },
            },
        }
    }
}

pub(super) fn otlp_flags(trace_flags: u8, remote: bool) -> u32 {
    // SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK and SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK, trace.proto 1.x.
    u32::from(trace_flags) | 0x100 | if remote { 0x200 } else { 0 }
}

pub(super) fn unix_nano(time: SystemTime) -> u64 {
    // A clock before 1970 cannot be written in OTLP; 0 is what the specification calls "unknown".
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
