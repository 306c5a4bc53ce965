//! Decodes OTLP protobuf down to its spans, which stay undecoded.

use crate::repair::{RESOURCE, SCOPE, Schema, repair};
use crate::request::{Fault, ResourceSpans, only_faults, resource_at, scope_at};
use crate::text::lossy;
use crate::wire::{Field, Fields, Malformed};
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// One `ResourceSpans` with undecoded spans. On the wire a message and a byte string are the same,
/// so each span can be decoded, and refused, on its own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) scope_spans: Vec<RawScopeSpans>,
    #[prost(string, tag = "3")]
    pub(crate) schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) spans: Vec<Bytes>,
    #[prost(string, tag = "3")]
    pub(crate) schema_url: String,
}

/// The content of one field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Traces,
    /// Metrics or logs, which have the same field number.
    OtherSignal,
}

/// Decodes a request part by part. Fails if it is not protobuf, or if all its parts are bad.
/// `Part::OtherSignal` if it holds metrics or logs and no traces.
pub(crate) fn request(request: &Bytes, groups: &mut Vec<ResourceSpans>) -> Result<Part, Malformed> {
    let mut parts = Vec::new();
    for field in Fields::new(request) {
        if let (1, Field::Bytes(content)) = field? {
            parts.push(request.slice_ref(content));
        }
    }
    let (mut traces, mut other, mut bad) = (0, 0, None);
    for (index, part) in parts.into_iter().enumerate() {
        match resource_spans(index, part, groups) {
            Ok(Part::Traces) => traces += 1,
            Ok(Part::OtherSignal) => other += 1,
            Err(e) => {
                let fault = Fault::new(resource_at(index), e.to_string());
                groups.push(only_faults(vec![fault]));
                bad = Some(e);
            }
        }
    }
    match bad {
        Some(e) if traces + other == 0 => Err(e),
        None if traces == 0 && other > 0 => Ok(Part::OtherSignal),
        _ => Ok(Part::Traces),
    }
}

/// Decodes what is readable of one `ResourceSpans`. Fails if nothing is.
pub(crate) fn resource_spans(
    index: usize,
    bytes: Bytes,
    groups: &mut Vec<ResourceSpans>,
) -> Result<Part, Malformed> {
    let (message, faults) = match RawResourceSpans::decode(bytes.clone()) {
        Ok(message) => (message, Vec::new()),
        Err(_) => part_by_part(index, &bytes)?,
    };
    if message.is_other_signal() {
        return Ok(Part::OtherSignal);
    }
    message.unpack(index, faults, groups);
    Ok(Part::Traces)
}

/// A `ResourceSpans` with bad parts, and the parts that were left out.
fn part_by_part(index: usize, bytes: &Bytes) -> Result<(RawResourceSpans, Vec<Fault>), Malformed> {
    let mut message = RawResourceSpans::default();
    let mut faults = Vec::new();
    for field in Fields::new(bytes) {
        match field {
            Ok((1, Field::Bytes(content))) => match repaired(&RESOURCE, content) {
                Some(resource) => message.resource = Some(resource),
                None => faults.push(Fault::new(
                    format!("{}.resource", resource_at(index)),
                    UNREADABLE,
                )),
            },
            Ok((2, Field::Bytes(content))) => {
                let nth = message.scope_spans.len();
                let scope_spans = scope_spans((index, nth), bytes.slice_ref(content), &mut faults);
                message.scope_spans.push(scope_spans);
            }
            Ok((3, Field::Bytes(content))) => message.schema_url = lossy(content).into_owned(),
            Ok(_) => {}
            Err(e) if message.scope_spans.is_empty() => return Err(e),
            // The fields before it are complete.
            Err(e) => faults.push(Fault::new(resource_at(index), e.to_string())),
        }
    }
    Ok((message, faults))
}

fn scope_spans(at: (usize, usize), bytes: Bytes, faults: &mut Vec<Fault>) -> RawScopeSpans {
    if let Ok(message) = RawScopeSpans::decode(bytes.clone()) {
        return message;
    }
    let position = scope_at(at.0, at.1);
    let mut message = RawScopeSpans::default();
    for field in Fields::new(&bytes) {
        match field {
            Ok((1, Field::Bytes(content))) => match repaired(&SCOPE, content) {
                Some(scope) => message.scope = Some(scope),
                None => faults.push(Fault::new(format!("{position}.scope"), UNREADABLE)),
            },
            Ok((2, Field::Bytes(content))) => message.spans.push(bytes.slice_ref(content)),
            Ok((3, Field::Bytes(content))) => message.schema_url = lossy(content).into_owned(),
            Ok(_) => {}
            Err(e) => faults.push(Fault::new(position.clone(), e.to_string())),
        }
    }
    message
}

const UNREADABLE: &str = "the bytes are not such a message, or it is nested too deep";

fn repaired<M: Message + Default>(schema: &Schema, bytes: &[u8]) -> Option<M> {
    M::decode(&*repair(schema, bytes).ok()?).ok()
}

impl RawResourceSpans {
    /// Whether this is `ResourceMetrics` or `ResourceLogs`, with at least one metric or log record
    /// and nothing else.
    fn is_other_signal(&self) -> bool {
        let mut entries = self.scope_spans.iter().flat_map(|s| &s.spans).peekable();
        entries.peek().is_some() && entries.all(|entry| is_metric_or_log(entry))
    }
}

/// Distinguishes signals by wire types: a span has fixed-width times in fields 7 and 8, a log
/// record in fields 1 and 11; a metric has its data, a message, in field 5, 7, 9, 10 or 11.
fn is_metric_or_log(entry: &[u8]) -> bool {
    let (mut metric, mut ids, mut name) = (false, [0; 2], None);
    for field in Fields::new(entry) {
        match field {
            Ok((7 | 8, Field::Fixed64(_))) | Err(_) => return false,
            Ok((1 | 11, Field::Fixed64(_))) => return true,
            Ok((7 | 10 | 12, Field::Bytes(_))) => return true,
            // Kind or status, parent.
            Ok((6, Field::Varint(_)) | (4 | 15, Field::Bytes(_))) => return false,
            Ok((1, Field::Bytes(id))) => ids[0] = id.len(),
            Ok((2, Field::Bytes(id))) => ids[1] = id.len(),
            Ok((5, Field::Bytes(content))) => name = Some(content),
            Ok((9 | 11, Field::Bytes(_))) => metric = true,
            Ok(_) => {}
        }
    }
    // A gauge holds data points, which are messages in field 1.
    let gauge = |content| {
        let mut fields = Fields::new(content).peekable();
        fields.peek().is_some() && fields.all(|f| matches!(f, Ok((1, Field::Bytes(_)))))
    };
    ids != [16, 8] && ids[0] > 0 && name.map_or(metric, gauge)
}
