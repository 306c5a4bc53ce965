//! OTLP traces to and from [`trace_destination_core`]'s records: protobuf, OTLP/JSON, and files of
//! either. No transport in here and none in the dependency tree.
//!
//! ```text
//! bytes ── decode_protobuf ──┐                             ┌── Pipeline::ingest
//! text ─── decode_json ──────┼── ResourceSpans ────────────┤
//! file ─── OtlpFile ─────────┘   (records, and refusals)   └── SpanGroup ── encode_protobuf ── bytes
//! ```
//!
//! Decoding keeps everything a span says: every kind of value however nested, dropped counts,
//! flags, trace states, schema URLs, links with all of theirs. What one span does wrong (an id that
//! is missing, text that is not UTF-8, values nested too deep) costs that span and no other: it is
//! [`Refused`] with its reason. Only what a request does wrong as a whole is an error.
//!
//! ```
//! let groups = trace_destination_otlp::decode_protobuf(trace_destination_otlp::sample::captured())?;
//! assert_eq!(groups.iter().map(|g| g.spans.len()).sum::<usize>(), 252);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```

mod decode;
mod encode;
mod file;
mod json;
mod keys;
mod request;
pub mod sample;
mod wire;

pub use decode::decode_protobuf;
pub use encode::{AsGiven, EncodedSpans, Rewrite, encode_protobuf};
pub use file::{Format, OtlpFile};
pub use json::decode_json;
pub use request::{Refused, ResourceSpans};
