//! Writing the parts of JSON text: strings, numbers, bytes.

use std::fmt::Write as _;

/// How text is escaped: once for a JSON string, twice for the JSON string of a JSON text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Level {
    Once,
    Twice,
}

impl Level {
    /// A quotation mark that stands at this level.
    pub(in super::super) fn quote(self) -> &'static str {
        match self {
            Self::Once => "\"",
            Self::Twice => "\\\"",
        }
    }
}

/// A JSON string with its quotation marks.
pub(in super::super) fn push_string(out: &mut String, text: &str, level: Level) {
    out.push_str(level.quote());
    push_escaped(out, text, level);
    out.push_str(level.quote());
}

/// The inside of a JSON string. Only what must be escaped is.
pub(in super::super) fn push_escaped(out: &mut String, text: &str, level: Level) {
    let twice = level == Level::Twice;
    let mut rest = text;
    loop {
        let plain = plain_len(rest.as_bytes());
        out.push_str(&rest[..plain]);
        let Some(&byte) = rest.as_bytes().get(plain) else {
            return;
        };
        rest = &rest[plain + 1..];
        match byte {
            b'"' => out.push_str(if twice { "\\\\\\\"" } else { "\\\"" }),
            b'\\' => out.push_str(if twice { "\\\\\\\\" } else { "\\\\" }),
            control => {
                out.push_str(if twice { "\\\\" } else { "\\" });
                match control {
                    b'\n' => out.push('n'),
                    b'\r' => out.push('r'),
                    b'\t' => out.push('t'),
                    0x08 => out.push('b'),
                    0x0c => out.push('f'),
                    _ => push_unit(out, u16::from(control)),
                }
            }
        }
    }
}

/// How many bytes at the start may stand in a JSON string as they are. Eight are tested at once:
/// most text of most spans needs no escape.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero; a byte above a zero may be marked as well.
    let zeros = |v: u64| v.wrapping_sub(ONES) & !v & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let v = u64::from_le_bytes(*chunk);
        let below_space = v.wrapping_sub(ONES * 0x20) & !v & HIGH;
        let quote = zeros(v ^ (ONES * u64::from(b'"')));
        let backslash = zeros(v ^ (ONES * u64::from(b'\\')));
        let found = below_space | quote | backslash;
        if found != 0 {
            // The lowest mark is exact, whatever the ones above it are.
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = bytes[at..]
        .iter()
        .position(|&b| b < 0x20 || b == b'"' || b == b'\\');
    at + tail.unwrap_or(bytes.len() - at)
}

pub(super) fn push_quoted(out: &mut String, text: &str, ascii: bool) {
    if !ascii || text.is_ascii() {
        // DEL is ASCII and printed as it is by both.
        push_string(out, text, Level::Once);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if c.is_ascii() {
            push_escaped(out, c.encode_utf8(&mut [0; 4]), Level::Once);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push('\\');
                push_unit(out, *unit);
            }
        }
    }
    out.push('"');
}

fn push_unit(out: &mut String, unit: u16) {
    push_display(out, format_args!("u{unit:04x}"));
}

pub(in super::super) fn push_display(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "{value}");
}

/// A whole number; the common small case without the formatting machinery.
pub(in super::super) fn push_int(out: &mut String, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push('-');
    }
    out.extend(digits[at..].iter().map(|d| char::from(*d)));
}

/// A float as Python's `repr` prints it, which is also what its JSON writer does.
pub(in super::super) fn push_float(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if size == 0.0 || (1e-4..1e16).contains(&size) {
        push_display(out, format_args!("{value:?}"));
    } else {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        push_display(out, format_args!("{digits}e{sign}{exponent:0>2}"));
    }
}

/// The text of a float, see [`push_float`].
pub(in super::super) fn float_text(value: f64) -> String {
    let mut out = String::new();
    push_float(&mut out, value);
    out
}

/// Bytes as Python's `repr` prints them.
pub(in super::super) fn bytes_text(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(bytes.len() + 3);
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b if char::from(b) == quote => {
                out.push('\\');
                out.push(quote);
            }
            0x20..0x7f => out.push(char::from(byte)),
            _ => push_display(&mut out, format_args!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
    out
}
