//! The protobuf wire format, as much of it as encoding and reading damaged messages need
//! (<https://protobuf.dev/programming-guides/encoding/>).

use std::fmt;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;
const GROUP: u32 = 3;
const END_GROUP: u32 = 4;
const FIXED32: u32 = 5;

/// Bytes of a number as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits to a byte, and zero takes one.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes of a field's key.
pub(crate) fn key_len(field: u32) -> usize {
    varint_len(u64::from(field << 3))
}

/// Bytes of a field with its key, its length and `len` bytes of content.
pub(crate) fn bytes_len(field: u32, len: usize) -> usize {
    key_len(field) + varint_len(len as u64) + len
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

/// A field's key and the length of its content; the content follows.
pub(crate) fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    key(out, field, LEN);
    varint(out, len as u64);
}

/// A byte string, also an empty one.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    put_len(out, field, content.len());
    out.extend_from_slice(content);
}

/// A text; an empty one is the default and not written.
pub(crate) fn text(out: &mut Vec<u8>, field: u32, content: &str) {
    if !content.is_empty() {
        bytes(out, field, content.as_bytes());
    }
}

/// A number as varint, also zero.
pub(crate) fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// A number as varint; zero is the default and not written.
pub(crate) fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint_field(out, field, value);
    }
}

/// Eight bytes, also zeros.
pub(crate) fn fixed64_field(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Eight bytes; zero is the default and not written.
pub(crate) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        fixed64_field(out, field, value);
    }
}

/// Four bytes; zero is the default and not written.
pub(crate) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    if value != 0 {
        key(out, field, FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A message of unknown length: room for a length of `guess` bytes is left in front, and the
/// content moves where the guess was wrong.
pub(crate) fn message(
    out: &mut Vec<u8>,
    field: u32,
    guess: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    key(out, field, LEN);
    let at = out.len();
    out.resize(at + guess, 0);
    write(out);
    let len = out.len() - at - guess;
    let needed = varint_len(len as u64);
    if needed > guess {
        out.resize(out.len() + needed - guess, 0);
    }
    if needed != guess {
        out.copy_within(at + guess..at + guess + len, at + needed);
        out.truncate(at + needed + len);
    }
    let mut value = len as u64;
    for (i, byte) in out[at..at + needed].iter_mut().enumerate() {
        *byte = value as u8 & 0x7f | if i + 1 < needed { 0x80 } else { 0 };
        value >>= 7;
    }
}

/// Bytes that are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Where, in bytes from the start of the message.
    pub(crate) at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes are not protobuf at byte {}", self.at)
    }
}

impl std::error::Error for Malformed {}

/// The content of a field, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A text, byte string or message.
    Bytes(&'a [u8]),
    /// A group, which OTLP has none of.
    Group,
}

/// The fields of a message with their numbers, up to the first that is malformed.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn field(&mut self) -> Option<(u32, Field<'a>)> {
        let (number, wire_type) = self.key()?;
        let field = match wire_type {
            VARINT => Field::Varint(self.varint()?),
            FIXED64 => Field::Fixed64(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            FIXED32 => Field::Fixed32(u32::from_le_bytes(*self.take(4)?.first_chunk()?)),
            LEN => {
                let len = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(len)?)
            }
            GROUP => {
                self.skip_group(number)?;
                Field::Group
            }
            _ => return None,
        };
        Some((number, field))
    }

    /// Number and wire type of the next field.
    fn key(&mut self) -> Option<(u32, u32)> {
        let key = u32::try_from(self.varint()?).ok()?;
        (key >> 3 != 0).then_some((key >> 3, key & 7))
    }

    fn skip_group(&mut self, number: u32) -> Option<()> {
        let mut open = vec![number];
        while let Some(group) = open.last().copied() {
            match self.key()? {
                (_, VARINT) => {
                    self.varint()?;
                }
                (_, FIXED64) => {
                    self.take(8)?;
                }
                (_, FIXED32) => {
                    self.take(4)?;
                }
                (_, LEN) => {
                    let len = usize::try_from(self.varint()?).ok()?;
                    self.take(len)?;
                }
                (number, GROUP) => open.push(number),
                (number, END_GROUP) if number == group => {
                    open.pop();
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let content = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(content)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let at = self.at;
        let field = self.field();
        if field.is_none() {
            self.at = self.bytes.len();
        }
        Some(field.ok_or(Malformed { at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
            }
        }
    }

    #[test]
    fn a_message_is_right_whatever_was_guessed() {
        for len in [0usize, 1, 127, 128, 300, 16_383, 16_384, 3_000_000] {
            let content: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut expected = vec![9];
            bytes(&mut expected, 5, &content);
            for guess in 1..=4 {
                let mut out = vec![9];
                message(&mut out, 5, guess, |out| out.extend_from_slice(&content));
                assert_eq!(out, expected, "{len} bytes, guess {guess}");
            }
        }
    }
}
