//! Attribute values as the text that MAP<STRING, STRING> holds.
//!
//! Text is itself, an unset value is NULL, and everything else is as it is in JSON: numbers (a double
//! always with a point or an exponent, so that it can be told from an integer), `true`, `false`,
//! lists and maps; bytes are in Base64. What JSON has no number for is `NaN`, `Infinity` and
//! `-Infinity`, inside of lists and maps in quotes. Spark's `CAST` takes all of them back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use std::collections::HashSet;
use trace_destination_core::{AnyValueRef, Attributes};

/// Bags up to this size are searched for repeated keys by comparing each with each.
const FEW: usize = 32;

/// Calls `found` with each key and value, of a key that repeats only with the last value.
pub(super) fn unrepeated<'a, I>(entries: I, mut found: impl FnMut(&'a str, AnyValueRef<'a>))
where
    I: ExactSizeIterator<Item = (&'a str, AnyValueRef<'a>)>,
{
    let entries: Vec<(&str, AnyValueRef<'_>)> = entries.collect();
    let mut last = vec![true; entries.len()];
    if entries.len() <= FEW {
        for (i, (key, _)) in entries.iter().enumerate() {
            last[i] = entries[i + 1..].iter().all(|(later, _)| later != key);
        }
    } else {
        let mut seen = HashSet::with_capacity(entries.len());
        for (i, (key, _)) in entries.iter().enumerate().rev() {
            last[i] = seen.insert(*key);
        }
    }
    for ((key, value), last) in entries.into_iter().zip(last) {
        if last {
            found(key, value);
        }
    }
}

/// The text of a value, made in `scratch` unless it is there already; `None` for an unset value.
pub(super) fn text<'a>(value: AnyValueRef<'a>, scratch: &'a mut Vec<u8>) -> Option<&'a str> {
    scratch.clear();
    match value {
        AnyValueRef::Empty => return None,
        AnyValueRef::String(text) => return Some(text),
        AnyValueRef::Double(number) if !number.is_finite() => return Some(no_number(number)),
        AnyValueRef::Bytes(bytes) => scratch.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
        value => serde_json::to_writer(&mut *scratch, &Json(value))
            .expect("a vector takes every byte, and keys are text"),
    }
    Some(std::str::from_utf8(scratch).expect("JSON and Base64 are UTF-8"))
}

fn no_number(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

/// Attributes for `MAP`, one call for each entry.
pub(super) fn each<'a>(
    bag: Attributes<'a>,
    scratch: &mut Vec<u8>,
    mut found: impl FnMut(&str, Option<&str>),
) {
    unrepeated(bag.iter(), |key, value| found(key, text(value, scratch)));
}

struct Json<'a>(AnyValueRef<'a>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            AnyValueRef::Empty => serializer.serialize_unit(),
            AnyValueRef::Bool(v) => serializer.serialize_bool(v),
            AnyValueRef::Int(v) => serializer.serialize_i64(v),
            AnyValueRef::Double(v) if v.is_finite() => serializer.serialize_f64(v),
            AnyValueRef::Double(v) => serializer.serialize_str(no_number(v)),
            AnyValueRef::String(v) => serializer.serialize_str(v),
            AnyValueRef::Bytes(v) => serializer.serialize_str(&STANDARD.encode(v)),
            AnyValueRef::Array(v) => serializer.collect_seq(v.iter().map(Json)),
            AnyValueRef::Map(v) => {
                let mut entries = Vec::with_capacity(v.len());
                unrepeated(v.iter(), |key, value| entries.push((key, Json(value))));
                serializer.collect_map(entries)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trace_destination_core::{AnyValue, Attribute};

    fn of(value: impl Into<AnyValue>) -> Option<String> {
        text(value.into().as_ref(), &mut Vec::new()).map(str::to_owned)
    }

    #[test]
    fn every_kind_has_its_text() {
        let texts = [
            (
                AnyValue::from("as it is \" \u{1f980}"),
                "as it is \" \u{1f980}",
            ),
            ("".into(), ""),
            (true.into(), "true"),
            (i64::MIN.into(), "-9223372036854775808"),
            (3.0.into(), "3.0"),
            (0.1.into(), "0.1"),
            (1e300.into(), "1e+300"),
            ((-0.0).into(), "-0.0"),
            (f64::NAN.into(), "NaN"),
            (f64::NEG_INFINITY.into(), "-Infinity"),
            (AnyValue::Bytes(vec![0xff, 0]), "/wA="),
            (AnyValue::Array(vec![]), "[]"),
            (
                AnyValue::Array(vec![
                    AnyValue::Empty,
                    1.into(),
                    2.0.into(),
                    "a\"b".into(),
                    f64::INFINITY.into(),
                    AnyValue::Bytes(vec![0]),
                ]),
                r#"[null,1,2.0,"a\"b","Infinity","AA=="]"#,
            ),
            (
                AnyValue::Map(vec![
                    Attribute::new("k", 1),
                    Attribute::new("j", AnyValue::Map(vec![])),
                    Attribute::new("k", 2),
                ]),
                r#"{"j":{},"k":2}"#,
            ),
        ];
        for (value, expected) in texts {
            assert_eq!(of(value.clone()).as_deref(), Some(expected), "{value:?}");
        }
        assert_eq!(of(AnyValue::Empty), None);
    }

    #[test]
    fn of_repeated_keys_the_last_value_is_kept_in_small_and_large_bags() {
        for size in [2, FEW, FEW + 1, 500] {
            let mut bag: Vec<Attribute> = (0..size - 1)
                .map(|i| Attribute::new(format!("key-{i}"), i as i64))
                .collect();
            bag.push(Attribute::new("key-0", "last"));
            let mut found = Vec::new();
            each(Attributes::record(&bag), &mut Vec::new(), |key, value| {
                found.push((key.to_owned(), value.map(str::to_owned)));
            });
            assert_eq!(found.len(), size - 1);
            assert_eq!(found.last(), Some(&("key-0".into(), Some("last".into()))));
            assert!(found[..size - 2].iter().all(|(key, _)| key != "key-0"));
        }
    }
}
