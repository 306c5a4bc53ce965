//! Ids of traces and spans, which may come in other lengths.

/// An id, padded with zeros on the left as MLflow's server does; `None` if it is too long. B3 and
/// Jaeger write trace ids of 64 bits; other senders drop leading zeros, or add some.
pub(crate) fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let digits = &bytes[zeros..];
    let mut id = [0; N];
    id[N.checked_sub(digits.len())?..].copy_from_slice(digits);
    Some(id)
}

/// The bytes of hex digits of either case, with white space between them or not; an odd first digit
/// stands alone. `None` if there is anything else.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().filter(|b| !b.is_ascii_whitespace());
    let digits: Vec<u8> = digits
        .map(|b| char::from(b).to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let (first, rest) = digits.split_at(digits.len() % 2);
    let pairs = rest.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    Some(first.iter().copied().chain(pairs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_filled_up_and_long_ones_must_begin_with_zeros() {
        assert_eq!(padded(&[]), Some([0; 8]));
        assert_eq!(padded(&[1]), Some([0, 0, 0, 1]));
        assert_eq!(padded(&[1, 2, 3, 4]), Some([1, 2, 3, 4]));
        assert_eq!(padded(&[0, 0, 1, 2, 3, 4]), Some([1, 2, 3, 4]));
        assert_eq!(padded(&[0; 40]), Some([0; 4]));
        assert_eq!(padded::<4>(&[1, 2, 3, 4, 5]), None);
        assert_eq!(padded::<4>(&[1, 0, 0, 0, 0]), None);
    }

    #[test]
    fn hex_of_either_case_and_length() {
        assert_eq!(from_hex(""), Some(Vec::new()));
        assert_eq!(from_hex("0aBf"), Some(vec![0x0a, 0xbf]));
        assert_eq!(from_hex("abf"), Some(vec![0x0a, 0xbf]));
        assert_eq!(from_hex(" 0a bf\n"), Some(vec![0x0a, 0xbf]));
        for text in ["0x12", "AQIDBAUGBwg=", "12-34", "+1", "\u{ff11}"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
