//! Decodes and encodes OTLP traces to and from the records of [`trace_destination_core`]: protobuf,
//! OTLP/JSON, and files of either. It has no transport, and none in its dependency tree.
//!
//! ```text
//! bytes ── decode_protobuf ──┐                             ┌── Pipeline::ingest
//! text ─── decode_json ──────┼── ResourceSpans ────────────┤
//! file ─── OtlpFile ─────────┘   (records, and refusals)   └── SpanGroup ── encode_protobuf ── bytes
//! ```
//!
//! Decoding keeps the whole content of a span: every kind of value however nested, dropped counts,
//! flags, trace states, schema URLs, and complete links. It is at least as tolerant as MLflow's
//! tracking server: text that is not Unicode becomes U+FFFD, short ids are padded, unknown enum
//! names mean unset.
//!
//! A bad span (a missing id, a number where text belongs, values nested too deep) affects no other
//! span: it is [`Refused`], with its position and the reason. A bad part of a resource or
//! instrumentation scope is left out, and reported as a [`Fault`]. Only a request that is bad as a
//! whole is an error, and in a file that affects this request alone.
//!
//! ```
//! let groups = trace_destination_otlp::decode_protobuf(trace_destination_otlp::sample::captured())?;
//! assert_eq!(groups.iter().map(|g| g.spans.len()).sum::<usize>(), 252);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```

mod decode;
mod encode;
mod file;
mod format;
mod id;
mod json;
mod json_file;
mod keys;
mod raw;
mod repair;
mod request;
pub mod sample;
mod text;
mod wire;

pub use decode::decode_protobuf;
pub use encode::{AsGiven, EncodedSpans, Rewrite, encode_protobuf};
pub use file::OtlpFile;
pub use format::Format;
pub use json::decode_json;
pub use request::{Fault, Refused, ResourceSpans};
