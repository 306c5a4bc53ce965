//! One finished span, over the SDK's data or a decoded OTLP record.

use super::span_record::{SpanKind, SpanRecord, StatusCode, otlp_flags, unix_nano};
use super::value::{Attribute, Attributes, key_values_bytes};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK` of OTLP.
const REMOTE_PARENT: u32 = 0x300;

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
    #[inline]
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

    /// Whether the span came as a record rather than from the SDK of this process: replayed,
    /// received, or edited by a hook. Its ids may have been made elsewhere, so that a place may
    /// know its trace already.
    pub fn is_ingested(&self) -> bool {
        matches!(self.0, Repr::Record(_))
    }

    /// An owned copy of everything the span says.
    pub fn to_record(&self) -> SpanRecord {
        match &self.0 {
            Repr::Sdk(data) => data.clone().into(),
            Repr::Record(record) => (**record).clone(),
        }
    }

    /// The owned values of this span, without a copy where it already holds a record.
    pub fn into_record(self) -> SpanRecord {
        match self.0 {
            Repr::Sdk(data) => data.into(),
            Repr::Record(record) => *record,
        }
    }

    /// The span as a record that may be edited, for transform hooks. Converts in place once; text
    /// is moved, not copied.
    pub fn record_mut(&mut self) -> &mut SpanRecord {
        if let Repr::Sdk(_) = &self.0 {
            let nothing = SpanRecord::new(TraceId::INVALID, SpanId::INVALID, "", 0, 0);
            let data = std::mem::replace(&mut self.0, Repr::Record(Box::new(nothing)));
            self.0 = Repr::Record(Box::new(Self(data).into_record()));
        }
        match &mut self.0 {
            Repr::Record(record) => record,
            Repr::Sdk(_) => unreachable!("converted above"),
        }
    }

    /// Sets an attribute, in place of what has this key or one of the others.
    pub(crate) fn set_attribute(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        value: String,
        others: &[&str],
    ) {
        let key = key.into();
        let stays = |there: &str| there != key && !others.contains(&there);
        match &mut self.0 {
            Repr::Sdk(s) => {
                s.attributes.retain(|there| stays(there.key.as_str()));
                s.attributes.push(KeyValue::new(key, value));
            }
            Repr::Record(r) => {
                r.attributes.retain(|there| stays(there.key.as_str()));
                r.attributes.push(Attribute::new(key, value));
            }
        }
    }

    /// Whether the parent is known to be in another process.
    pub(crate) fn has_remote_parent(&self) -> bool {
        match &self.0 {
            Repr::Sdk(s) => s.parent_span_is_remote,
            Repr::Record(r) => r.flags & REMOTE_PARENT == REMOTE_PARENT,
        }
    }

    pub(crate) fn sdk_scope(&self) -> Option<&opentelemetry::InstrumentationScope> {
        match &self.0 {
            Repr::Sdk(s) => Some(&s.instrumentation_scope),
            Repr::Record(_) => None,
        }
    }

    /// What [`Span::approximate_bytes`] says once `data` is a span.
    pub(crate) fn sdk_bytes(data: &SpanData) -> usize {
        size_of::<Self>() + sdk_heap_bytes(data)
    }

    /// Memory this span holds, estimated: what byte budgets count.
    pub fn approximate_bytes(&self) -> usize {
        match &self.0 {
            Repr::Sdk(s) => Self::sdk_bytes(s),
            Repr::Record(r) => size_of::<Self>() + size_of::<SpanRecord>() + r.heap_bytes(),
        }
    }
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

fn sdk_heap_bytes(s: &SpanData) -> usize {
    // Each span has a copy of its trace state, which may have come from outside.
    let trace_state = |cx: &opentelemetry::trace::SpanContext| match cx.trace_state() {
        none if *none == opentelemetry::trace::TraceState::NONE => 0,
        some => some.header().len(),
    };
    let mut bytes = s.name.len() + key_values_bytes(&s.attributes) + trace_state(&s.span_context);
    for e in &s.events.events {
        bytes += size_of::<opentelemetry::trace::Event>()
            + e.name.len()
            + key_values_bytes(&e.attributes);
    }
    for l in &s.links.links {
        bytes += size_of::<opentelemetry::trace::Link>()
            + key_values_bytes(&l.attributes)
            + trace_state(&l.span_context);
    }
    if let opentelemetry::trace::Status::Error { description } = &s.status {
        bytes += description.len();
    }
    bytes
}
