//! One finished span, over the SDK's data or a decoded OTLP record.

use super::value::{AnyValue, Attribute, Attributes, attributes_bytes, key_values_bytes};
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

/// A borrowed event.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// The event's name.
    pub name: &'a str,
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The event's attributes.
    pub attributes: Attributes<'a>,
    /// Attributes lost to a limit before the span got here.
    pub dropped_attributes_count: u32,
}

/// A borrowed link.
#[derive(Clone, Debug)]
pub struct LinkRef<'a> {
    /// Trace of the span linked to.
    pub trace_id: TraceId,
    /// Span linked to.
    pub span_id: SpanId,
    /// W3C trace state of the span linked to, as its header text.
    pub trace_state: Cow<'a, str>,
    /// OTLP flags of the span linked to.
    pub flags: u32,
    /// The link's attributes.
    pub attributes: Attributes<'a>,
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

    fn heap_bytes(&self) -> usize {
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

/// One finished span on its way to storage.
#[derive(Clone, Debug)]
pub struct Span(Repr);

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "spans of the SDK are the common case; boxing them would add an allocation per span on the hot path"
)]
enum Repr {
    Sdk(SpanData),
    Record(Box<SpanRecord>),
}

impl From<SpanData> for Span {
    fn from(data: SpanData) -> Self {
        Self(Repr::Sdk(data))
    }
}

impl From<SpanRecord> for Span {
    fn from(record: SpanRecord) -> Self {
        Self(Repr::Record(Box::new(record)))
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.to_record() == other.to_record()
    }
}

impl Span {
    /// The trace this span belongs to.
    pub fn trace_id(&self) -> TraceId {
        match &self.0 {
            Repr::Sdk(s) => s.span_context.trace_id(),
            Repr::Record(r) => r.trace_id,
        }
    }

    /// This span's id.
    pub fn span_id(&self) -> SpanId {
        match &self.0 {
            Repr::Sdk(s) => s.span_context.span_id(),
            Repr::Record(r) => r.span_id,
        }
    }

    /// The parent's id, `None` at the root of the trace.
    pub fn parent_span_id(&self) -> Option<SpanId> {
        match &self.0 {
            Repr::Sdk(s) => (s.parent_span_id != SpanId::INVALID).then_some(s.parent_span_id),
            Repr::Record(r) => r.parent_span_id,
        }
    }

    /// W3C trace state as its header text; empty where there is none.
    pub fn trace_state(&self) -> Cow<'_, str> {
        match &self.0 {
            Repr::Sdk(s) => s.span_context.trace_state().header().into(),
            Repr::Record(r) => r.trace_state.as_str().into(),
        }
    }

    /// OTLP flags (`SpanFlags` in `trace.proto`): W3C trace flags in bits 0–7; bit 8 is set where
    /// it is known whether the parent is remote, bit 9 where it is.
    pub fn flags(&self) -> u32 {
        match &self.0 {
            Repr::Sdk(s) => otlp_flags(
                s.span_context.trace_flags().to_u8(),
                s.parent_span_is_remote,
            ),
            Repr::Record(r) => r.flags,
        }
    }

    /// The operation.
    pub fn name(&self) -> &str {
        match &self.0 {
            Repr::Sdk(s) => &s.name,
            Repr::Record(r) => &r.name,
        }
    }

    /// The role.
    pub fn kind(&self) -> SpanKind {
        match &self.0 {
            Repr::Sdk(s) => (&s.span_kind).into(),
            Repr::Record(r) => r.kind,
        }
    }

    /// Start, nanoseconds since the Unix epoch.
    pub fn start_time_unix_nano(&self) -> u64 {
        match &self.0 {
            Repr::Sdk(s) => unix_nano(s.start_time),
            Repr::Record(r) => r.start_time_unix_nano,
        }
    }

    /// End, nanoseconds since the Unix epoch; 0 where an OTLP sender gave none.
    pub fn end_time_unix_nano(&self) -> u64 {
        match &self.0 {
            Repr::Sdk(s) => unix_nano(s.end_time),
            Repr::Record(r) => r.end_time_unix_nano,
        }
    }

    /// Attributes in order.
    pub fn attributes(&self) -> Attributes<'_> {
        match &self.0 {
            Repr::Sdk(s) => Attributes::sdk(&s.attributes),
            Repr::Record(r) => Attributes::record(&r.attributes),
        }
    }

    /// Attributes lost to a limit before the span got here.
    pub fn dropped_attributes_count(&self) -> u32 {
        match &self.0 {
            Repr::Sdk(s) => s.dropped_attributes_count,
            Repr::Record(r) => r.dropped_attributes_count,
        }
    }

    /// Number of events.
    pub fn event_count(&self) -> usize {
        match &self.0 {
            Repr::Sdk(s) => s.events.events.len(),
            Repr::Record(r) => r.events.len(),
        }
    }

    /// Events in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> {
        (0..self.event_count()).map(|i| match &self.0 {
            Repr::Sdk(s) => {
                let e = &s.events.events[i];
                EventRef {
                    name: &e.name,
                    time_unix_nano: unix_nano(e.timestamp),
                    attributes: Attributes::sdk(&e.attributes),
                    dropped_attributes_count: e.dropped_attributes_count,
                }
            }
            Repr::Record(r) => {
                let e = &r.events[i];
                EventRef {
                    name: &e.name,
                    time_unix_nano: e.time_unix_nano,
                    attributes: Attributes::record(&e.attributes),
                    dropped_attributes_count: e.dropped_attributes_count,
                }
            }
        })
    }

    /// Events lost to a limit before the span got here.
    pub fn dropped_events_count(&self) -> u32 {
        match &self.0 {
            Repr::Sdk(s) => s.events.dropped_count,
            Repr::Record(r) => r.dropped_events_count,
        }
    }

    /// Number of links.
    pub fn link_count(&self) -> usize {
        match &self.0 {
            Repr::Sdk(s) => s.links.links.len(),
            Repr::Record(r) => r.links.len(),
        }
    }

    /// Links in order.
    pub fn links(&self) -> impl ExactSizeIterator<Item = LinkRef<'_>> {
        (0..self.link_count()).map(|i| match &self.0 {
            Repr::Sdk(s) => {
                let l = &s.links.links[i];
                LinkRef {
                    trace_id: l.span_context.trace_id(),
                    span_id: l.span_context.span_id(),
                    trace_state: l.span_context.trace_state().header().into(),
                    flags: otlp_flags(
                        l.span_context.trace_flags().to_u8(),
                        l.span_context.is_remote(),
                    ),
                    attributes: Attributes::sdk(&l.attributes),
                    dropped_attributes_count: l.dropped_attributes_count,
                }
            }
            Repr::Record(r) => {
                let l = &r.links[i];
                LinkRef {
                    trace_id: l.trace_id,
                    span_id: l.span_id,
                    trace_state: l.trace_state.as_str().into(),
                    flags: l.flags,
                    attributes: Attributes::record(&l.attributes),
                    dropped_attributes_count: l.dropped_attributes_count,
                }
            }
        })
    }

    /// Links lost to a limit before the span got here.
    pub fn dropped_links_count(&self) -> u32 {
        match &self.0 {
            Repr::Sdk(s) => s.links.dropped_count,
            Repr::Record(r) => r.dropped_links_count,
        }
    }

    /// The outcome code.
    pub fn status_code(&self) -> StatusCode {
        match &self.0 {
            Repr::Sdk(s) => match s.status {
                opentelemetry::trace::Status::Unset => StatusCode::Unset,
                opentelemetry::trace::Status::Ok => StatusCode::Ok,
                opentelemetry::trace::Status::Error { .. } => StatusCode::Error,
            },
            Repr::Record(r) => r.status.code,
        }
    }

    /// The description of the outcome; empty where there is none.
    pub fn status_message(&self) -> &str {
        match &self.0 {
            Repr::Sdk(s) => match &s.status {
                opentelemetry::trace::Status::Error { description } => description,
                _ => "",
            },
            Repr::Record(r) => &r.status.message,
        }
    }

    /// An owned copy of everything the span says.
    pub fn to_record(&self) -> SpanRecord {
        match &self.0 {
            Repr::Sdk(data) => record_of(data.clone()),
            Repr::Record(record) => (**record).clone(),
        }
    }

    /// The owned values of this span, without a copy where it already holds a record.
    pub fn into_record(self) -> SpanRecord {
        match self.0 {
            Repr::Sdk(data) => record_of(data),
            Repr::Record(record) => *record,
        }
    }

    /// The span as a record that may be edited, for transform hooks. Converts in place once; text
    /// is moved, not copied.
    pub fn record_mut(&mut self) -> &mut SpanRecord {
        if let Repr::Sdk(data) = &self.0 {
            self.0 = Repr::Record(Box::new(record_of(data.clone())));
        }
        match &mut self.0 {
            Repr::Record(record) => record,
            Repr::Sdk(_) => unreachable!("converted above"),
        }
    }

    pub(crate) fn sdk_scope(&self) -> Option<&opentelemetry::InstrumentationScope> {
        match &self.0 {
            Repr::Sdk(s) => Some(&s.instrumentation_scope),
            Repr::Record(_) => None,
        }
    }

    /// Memory this span holds, estimated: what byte budgets count.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Repr::Sdk(s) => sdk_heap_bytes(s),
                Repr::Record(r) => size_of::<SpanRecord>() + r.heap_bytes(),
            }
    }
}

pub(crate) fn sdk_heap_bytes(s: &SpanData) -> usize {
    let mut bytes = s.name.len() + key_values_bytes(&s.attributes);
    for e in &s.events.events {
        bytes += size_of::<opentelemetry::trace::Event>()
            + e.name.len()
            + key_values_bytes(&e.attributes);
    }
    for l in &s.links.links {
        bytes += size_of::<opentelemetry::trace::Link>() + key_values_bytes(&l.attributes);
    }
    if let opentelemetry::trace::Status::Error { description } = &s.status {
        bytes += description.len();
    }
    bytes
}

fn otlp_flags(trace_flags: u8, remote: bool) -> u32 {
    // SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK and SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK, trace.proto 1.x.
    u32::from(trace_flags) | 0x100 | if remote { 0x200 } else { 0 }
}

fn unix_nano(time: SystemTime) -> u64 {
    // A clock before 1970 cannot be written in OTLP; 0 is what the specification calls "unknown".
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn record_of(data: SpanData) -> SpanRecord {
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
