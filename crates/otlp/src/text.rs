//! Text that is not valid Unicode.

use std::borrow::Cow;

/// The bytes as text, with U+FFFD for invalid ones. A pair of surrogates that is encoded as two
/// three-byte sequences (CESU-8, which Java and some databases write) becomes its character; a lone
/// surrogate becomes one U+FFFD.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.contains(&SURROGATE) || str::from_utf8(bytes).is_ok() {
        return String::from_utf8_lossy(bytes);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = next_surrogate(rest) {
        text.push_str(&String::from_utf8_lossy(&rest[..at]));
        rest = &rest[at..];
        let (character, len) = match (surrogate(rest), surrogate(&rest[3..])) {
            (Some(high), Some(low)) => match join(high, low) {
                Some(character) => (character, 6),
                None => (char::REPLACEMENT_CHARACTER, 3),
            },
            _ => (char::REPLACEMENT_CHARACTER, 3),
        };
        text.push(character);
        rest = &rest[len..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    Cow::Owned(text)
}

/// The character of a pair of surrogates; `None` if they are not a pair.
pub(crate) fn join(high: u16, low: u16) -> Option<char> {
    char::decode_utf16([high, low]).next()?.ok()
}

/// First byte of a surrogate that is encoded as if it were a character.
const SURROGATE: u8 = 0xed;

fn next_surrogate(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&at| bytes[at] == SURROGATE && surrogate(&bytes[at..]).is_some())
}

fn surrogate(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [SURROGATE, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// Converts JSON in any encoding of Unicode to UTF-8, without a byte order mark. Another encoding
/// than UTF-8 is detected by the mark, or by the zero bytes beside the first character, which is
/// ASCII (RFC 4627, section 3).
pub(crate) fn to_utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (width, big_endian, mark) = match *bytes {
        [0, 0, 0xfe, 0xff, ..] => (4, true, 4),
        [0xff, 0xfe, 0, 0, ..] => (4, false, 4),
        [0xfe, 0xff, ..] => (2, true, 2),
        [0xff, 0xfe, ..] => (2, false, 2),
        [0xef, 0xbb, 0xbf, ref rest @ ..] => return Cow::Borrowed(rest),
        [0, 0, 0, 1..=255, ..] => (4, true, 0),
        [1..=255, 0, 0, 0, ..] => (4, false, 0),
        [0, 1..=255, 0, 1..=255, ..] => (2, true, 0),
        [1..=255, 0, 1..=255, 0, ..] => (2, false, 0),
        _ => return Cow::Borrowed(bytes),
    };
    let units = bytes[mark..].chunks(width).map(|chunk| {
        let digit = |value, byte: &u8| value << 8 | u32::from(*byte);
        if big_endian {
            chunk.iter().fold(0, digit)
        } else {
            chunk.iter().rev().fold(0, digit)
        }
    });
    let text: String = if width == 4 {
        let characters = units.map(char::from_u32);
        characters
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    } else {
        // Two bytes never exceed 16 bits.
        let characters = char::decode_utf16(units.map(|unit| unit as u16));
        characters
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_unicode_becomes_one_replacement_character_each() {
        for (bytes, expected) in [
            (&b"plain"[..], "plain"),
            (
                "caf\u{e9} \u{1f69a} \u{d7ff}".as_bytes(),
                "caf\u{e9} \u{1f69a} \u{d7ff}",
            ),
            (b"caf\xe9 au lait", "caf\u{fffd} au lait"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"cut \xf0\x9f\x9a", "cut \u{fffd}"),
            // A lone surrogate at the start, in the middle and at the end.
            (b"\xed\xa0\xbe", "\u{fffd}"),
            (b"a\xed\xb0\x80b", "a\u{fffd}b"),
            (b"a\xed\xa0\xbe", "a\u{fffd}"),
            // High then high, low then high, and a pair.
            (b"\xed\xa0\xbd\xed\xa0\xbd", "\u{fffd}\u{fffd}"),
            (b"\xed\xba\x9a\xed\xa0\xbd", "\u{fffd}\u{fffd}"),
            (b"a\xed\xa0\xbd\xed\xba\x9a.", "a\u{1f69a}."),
            (
                b"\xed\xa0\xbd\xed\xa0\xbd\xed\xba\x9a\xff",
                "\u{fffd}\u{1f69a}\u{fffd}",
            ),
            (b"\xed\xa0", "\u{fffd}\u{fffd}"),
            (b"\xed", "\u{fffd}"),
        ] {
            assert_eq!(lossy(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn every_encoding_of_unicode_is_told_by_its_first_bytes() {
        let text = "{\"a\": \"caf\u{e9} \u{1f69a}\"}";
        let two = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        let four = |order: fn(u32) -> [u8; 4]| -> Vec<u8> {
            text.chars().flat_map(|c| order(c.into())).collect()
        };
        for (mark, bytes) in [
            (&b""[..], text.as_bytes().to_vec()),
            (b"\xef\xbb\xbf", text.as_bytes().to_vec()),
            (b"\xff\xfe", two(u16::to_le_bytes)),
            (b"\xfe\xff", two(u16::to_be_bytes)),
            (b"\xff\xfe\0\0", four(u32::to_le_bytes)),
            (b"\0\0\xfe\xff", four(u32::to_be_bytes)),
            (b"", two(u16::to_le_bytes)),
            (b"", two(u16::to_be_bytes)),
            (b"", four(u32::to_le_bytes)),
            (b"", four(u32::to_be_bytes)),
        ] {
            let bytes = [mark, &bytes].concat();
            assert_eq!(&*to_utf8(&bytes), text.as_bytes(), "{mark:x?}");
        }
        for short in [&b""[..], b"{", b"{}", b"\0", b"\0\0", b"\0\0\0", b"{\0"] {
            assert_eq!(&*to_utf8(short), short);
        }
    }
}
