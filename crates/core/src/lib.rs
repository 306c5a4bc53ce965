//! Decide where each OpenTelemetry trace is stored, by configuration instead of code.
//!
//! This crate holds the traits of a location and its sink, the scopes in which a destination is
//! set, and the pipeline that binds each trace to its destination and delivers its spans there. It
//! knows no backend but the in-memory one; a custom sink needs nothing else.
//!
//! One span's way through it, file by file:
//!
//! ```text
//!  tracer ──▶ processor.rs on_start ──▶ scope/    which destination applies?
//!                     │                 routes.rs  destination → route → lanes
//!                     └───────────────▶ binding.rs the trace follows its root's route
//!         ──▶ processor.rs on_end ────▶ budget.rs  is there room?
//!                     └───────────────▶ ingress.rs sharded queues, left at once
//!  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
//!  delivery thread ──▶ pipeline/delivery.rs ──▶ lane/open_batch.rs  one growing batch per lane
//!  lane task ────────▶ lane/sealed.rs  transform, encode ──▶ BatchEncoder::encode
//!                      lane/write.rs   open, write, retry ──▶ TraceSink::write
//! ```
//!
//! ```
//! use opentelemetry::trace::{Tracer, TracerProvider};
//! use opentelemetry_sdk::trace::SdkTracerProvider;
//! use std::time::Duration;
//! use trace_destination_core::{Destination, MemoryLocation, Pipeline};
//!
//! let pipeline = Pipeline::builder().strict().build()?;
//! let provider = SdkTracerProvider::builder().with_span_processor(pipeline.processor()).build();
//! let tracer = provider.tracer("example");
//!
//! let tenant = MemoryLocation::new("tenant-a");
//! {
//!     let _scope = Destination::new(tenant.clone()).enter();
//!     tracer.in_span("handle request", |_| {});
//! }
//! assert!(pipeline.flush(Duration::from_secs(5)).wait().all_stored());
//! assert_eq!(tenant.store().len(), 1);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```

mod binding;
mod budget;
mod check;
mod clock;
mod config;
mod contain;
mod delivery_thread;
mod destination;
mod error;
mod ingress;
mod lane;
mod late_binding;
mod location;
mod log;
mod memory;
mod metrics;
mod pipeline;
mod process;
mod processor;
mod record;
mod registry;
mod route_id;
mod routes;
mod sampler;
mod sampling;
mod scope;
mod stats;
mod suggest;
mod sync;
mod template;
mod totals;
mod trace;
mod transform;
mod uri;
mod values;

pub use budget::Overflow;
pub use check::{Check, CheckReport, LocationCheck};
pub use config::{
    EnvSource, ProcessEnv, bool_var, mend_of_parameter, millis_var, misspelt_vars, parse_var,
    warn_of_misspelt_vars,
};
pub use destination::Destination;
pub use error::{Error, ErrorKind, Retry};
pub use lane::{LateUpdate, RetryPolicy, waiting_for_turn};
pub use late_binding::{TraceBinding, bind_current_trace};
pub use location::{
    BatchEncoder, BatchLimits, Capabilities, Guarantee, Refusal, TraceLocation, TraceSink,
    TraceValueLimits, TraceValues, Written,
};
pub use memory::{MemoryLocation, MemoryStore, StoredSpan};
pub use pipeline::{
    Flush, FlushGuard, FlushReport, Ingested, LocationReport, MLFLOW_RUN_ID,
    MLFLOW_TRACE_SAMPLING_RATIO, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY, Pipeline,
    PipelineBuilder, RefusedSpans,
};
pub use processor::DestinationProcessor;
pub use record::{
    AnyValue, AnyValueRef, ArrayRef, Attribute, Attributes, BatchId, Event, EventRef, Link,
    LinkRef, MapRef, Resource, Scope, Span, SpanGroup, SpanKind, SpanRecord, Status, StatusCode,
    TraceBatch, TraceUpdate,
};
pub use registry::Registry;
pub use sampler::DestinationSampler;
pub use scope::{
    DestinationExt, GlobalSlot, ScopeGuard, WithDestination, clear_global, current, global,
    new_root, reset, set_global,
};
pub use stats::{
    DropReason, Dropped, ForgottenLocations, LocationState, LocationStats, PipelineStats,
    Undecided, Unplaced,
};
pub use template::{Hole, NameRule, Template};
pub use trace::{current_trace_id, update_current_trace};
pub use transform::{SpanTransform, Transformed};
pub use uri::LocationUri;
