//! core
mod config;
mod destination;
mod error;
mod location;
mod record;
mod registry;
mod uri;

pub use config::{EnvSource, ProcessEnv, bool_var, millis_var, parse_var};
pub use destination::Destination;
pub use error::{Error, ErrorKind, Retry};
pub use location::{
    BatchLimits, Capabilities, Guarantee, Refusal, TraceLocation, TraceSink, Written,
};
pub use record::{
    AnyValue, AnyValueRef, ArrayRef, Attribute, Attributes, BatchId, Event, EventRef, Link,
    LinkRef, MapRef, Resource, Scope, Span, SpanGroup, SpanKind, SpanRecord, Status, StatusCode,
    TraceBatch, TraceUpdate,
};
pub use registry::Registry;
pub use uri::LocationUri;
