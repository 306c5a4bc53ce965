//! Rewrites protobuf of a trace that is slightly malformed, so that it can be decoded.
//!
//! Two faults are repaired, and nothing else is lost: text that is not UTF-8 becomes U+FFFD, and a
//! known field with a wrong wire type is left out, as by decoders that treat it as unknown
//! (Python's, which MLflow's server uses). Unknown fields are left out too.

use crate::text::lossy;
use crate::wire::{self, Field, Fields, Malformed};

/// The fields of a message that are kept, by number.
pub(crate) struct Schema(&'static [(u32, Kind)]);

enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(&'static Schema),
}

use Kind::{Bytes, Fixed32, Fixed64, Message, Text, Varint};

// opentelemetry-proto 1.9, `trace/v1/trace.proto`, `resource/v1/resource.proto` and
// `common/v1/common.proto`.

pub(crate) static SPAN: Schema = Schema(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
]);
pub(crate) static RESOURCE: Schema = Schema(&[(1, Message(&KEY_VALUE)), (2, Varint)]);
pub(crate) static SCOPE: Schema =
    Schema(&[(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static EVENT: Schema = Schema(&[
    (1, Fixed64),
    (2, Text),
    (3, Message(&KEY_VALUE)),
    (4, Varint),
]);
static LINK: Schema = Schema(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Message(&KEY_VALUE)),
    (5, Varint),
    (6, Fixed32),
]);
static STATUS: Schema = Schema(&[(2, Text), (3, Varint)]);
static KEY_VALUE: Schema = Schema(&[(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)]);
static ANY_VALUE: Schema = Schema(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY)),
    (6, Message(&LIST)),
    (7, Bytes),
    (8, Varint),
]);
static ARRAY: Schema = Schema(&[(1, Message(&ANY_VALUE))]);
static LIST: Schema = Schema(&[(1, Message(&KEY_VALUE))]);

/// Levels of messages that are followed: one more than the decoder accepts, which then refuses
/// them.
const MAX_DEPTH: usize = 101;

/// Rewrites a message so that the decoder can read it, unless it is nested too deep.
pub(crate) fn repair(schema: &Schema, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(bytes.len());
    rewrite(schema, bytes, MAX_DEPTH, &mut out)?;
    Ok(out)
}

fn rewrite(
    schema: &Schema,
    bytes: &[u8],
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    for field in Fields::new(bytes) {
        let (number, field) = field?;
        let Some((_, kind)) = schema.0.iter().find(|(n, _)| *n == number) else {
            continue;
        };
        match (kind, field) {
            (Varint, Field::Varint(value)) => wire::varint_field(out, number, value),
            (Fixed64, Field::Fixed64(value)) => wire::fixed64_field(out, number, value),
            (Fixed32, Field::Fixed32(value)) => wire::fixed32(out, number, value),
            (Bytes, Field::Bytes(content)) => wire::bytes(out, number, content),
            (Text, Field::Bytes(content)) => wire::bytes(out, number, lossy(content).as_bytes()),
            (Message(_), Field::Bytes(content)) if depth == 0 => wire::bytes(out, number, content),
            (Message(inner), Field::Bytes(content)) => {
                let mut rewritten = Vec::with_capacity(content.len());
                rewrite(inner, content, depth - 1, &mut rewritten)?;
                wire::bytes(out, number, &rewritten);
            }
            _ => {}
        }
    }
    Ok(())
}
