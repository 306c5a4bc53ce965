//! Ids as text.

use opentelemetry::trace::{SpanId, TraceId};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two digits of every byte.
static HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// Bytes in lowercase hexadecimal digits; `out` is twice as long.
fn hex(bytes: &[u8], out: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        digits.copy_from_slice(&HEX[usize::from(*byte)]);
    }
}

/// Text of a fixed length on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

/// 32 lowercase digits.
pub(super) fn trace_id(id: TraceId) -> Digits<32> {
    let mut digits = [0; 32];
    hex(&id.to_bytes(), &mut digits);
    Digits(digits)
}

/// 16 lowercase digits.
pub(super) fn span_id(id: SpanId) -> Digits<16> {
    let mut digits = [0; 16];
    hex(&id.to_bytes(), &mut digits);
    Digits(digits)
}

/// A UUID of version 7 (RFC 9562) that orders by the span's start and is the same whenever the same
/// span is stored again, by whomever: 48 bits of milliseconds, 12 bits of their fraction, and 62
/// bits made from both ids.
pub(super) fn record_id(trace: TraceId, span: SpanId, start_unix_nano: i64) -> Digits<36> {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    let start = start_unix_nano.cast_unsigned();
    let fraction = ((start % NANOS_PER_MILLI) << 12) / NANOS_PER_MILLI;
    let trace = trace.to_bytes();
    let half = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&trace[i..i + 8]);
        u64::from_be_bytes(bytes)
    };
    let span = u64::from_be_bytes(span.to_bytes());
    let spread = scramble(scramble(scramble(half(0)) ^ half(8)) ^ span);
    let time = (start / NANOS_PER_MILLI) << 16 | 0x7000 | fraction;
    let rest = spread >> 2 | 1 << 63;
    let mut digits = [b'-'; 36];
    let (time, rest) = (time.to_be_bytes(), rest.to_be_bytes());
    hex(&time[..4], &mut digits[..8]);
    hex(&time[4..6], &mut digits[9..13]);
    hex(&time[6..], &mut digits[14..18]);
    hex(&rest[..2], &mut digits[19..23]);
    hex(&rest[2..], &mut digits[24..]);
    Digits(digits)
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014). What it gives is stored: it must not change.
fn scramble(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lowercase_digits_of_their_full_length() {
        let id = TraceId::from(0x00ab_cdef_u128);
        assert_eq!(trace_id(id).as_str(), "00000000000000000000000000abcdef");
        assert_eq!(trace_id(id).as_str(), id.to_string());
        let id = SpanId::from(0xF0_u64);
        assert_eq!(span_id(id).as_str(), "00000000000000f0");
    }

    #[test]
    fn record_ids_are_uuids_of_version_7_with_the_time_of_the_start() {
        let id = record_id(TraceId::from(1), SpanId::from(2), 1_795_400_000_123_456_789);
        let uuid: uuid::Uuid = id.as_str().parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        let millis = uuid.as_u128() >> 80;
        assert_eq!(millis, 1_795_400_000_123);
        // Written once and for all: a row that is stored again must have the same id.
        assert_eq!(id.as_str(), "01a2062d-e27b-774f-977b-e307e2a78cc8");
    }

    #[test]
    fn record_ids_order_by_time_and_tell_spans_apart() {
        let id = |span: u64, start: i64| record_id(TraceId::from(7), SpanId::from(span), start).0;
        let mut last = id(1, 0);
        for start in [
            300,
            1_000_000,
            1_000_300,
            1_795_400_000_000_000_000,
            i64::MAX,
        ] {
            let next = id(start as u64 & 0xff, start);
            assert!(last < next, "{start}");
            last = next;
        }
        let mut all: Vec<_> = (1..10_000).map(|span| id(span, 5)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9_999);
    }
}
