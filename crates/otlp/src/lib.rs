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
//! flags, trace states, schema URLs, links with all of theirs. It is as tolerant as MLflow's tracking
//! server, or more: text that is not Unicode becomes U+FFFD, short ids are filled up, unknown enum
//! names mean unset. What one span does wrong (an id that is missing, a number where text belongs,
//! values nested too deep) costs that span and no other: it is [`Refused`] with its position and
//! reason. What a resource or scope does wrong costs that part of it, which is a [`Fault`]. Only
//! what a request does wrong as a whole is an error, and in a file it costs that request alone.
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
