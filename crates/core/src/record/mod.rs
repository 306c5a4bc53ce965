//! What is delivered: spans, their attribute values, and the trace-level values an application set.
//!
//! A [`Span`] is a view over either the SDK's own `SpanData`, moved here without conversion, or a
//! decoded OTLP span. Sinks read both through the same accessors and never learn which it was.

mod batch;
mod span;
mod span_record;
mod trace_update;
mod value;

pub(crate) use batch::Encoded;
pub use batch::{BatchId, Resource, Scope, SpanGroup, TraceBatch};
pub use span::{EventRef, LinkRef, Span};
pub use span_record::{Event, Link, SpanKind, SpanRecord, Status, StatusCode};
pub use trace_update::TraceUpdate;
pub use value::{AnyValue, AnyValueRef, ArrayRef, Attribute, Attributes, MapRef};
