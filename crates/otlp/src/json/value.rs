//! Values in OTLP/JSON, read as leniently as the protobuf JSON mapping asks for.

use crate::keys::key;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use trace_destination_core::{AnyValue, Attribute};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[derive(Deserialize)]
pub(super) struct KeyValue {
    key: Option<String>,
    value: Option<Value>,
}

impl From<KeyValue> for Attribute {
    fn from(kv: KeyValue) -> Self {
        Attribute {
            key: key(kv.key.unwrap_or_default()),
            value: kv.value.map(|v| v.0).unwrap_or_default(),
        }
    }
}

/// `AnyValue`: an object with at most one of its fields set.
// Recursion is bounded: serde_json refuses text nested more than 128 deep.
struct Value(AnyValue);

#[derive(Deserialize)]
struct ArrayValue {
    values: Option<Vec<Option<Value>>>,
}

#[derive(Deserialize)]
struct KeyValueList {
    values: Option<Vec<KeyValue>>,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OTLP AnyValue such as {\"stringValue\": \"text\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut value = AnyValue::Empty;
                while let Some(key) = map.next_key::<String>()? {
                    let field = match key.as_str() {
                        "stringValue" | "string_value" => map
                            .next_value::<Option<String>>()?
                            .map(|v| AnyValue::String(v.into())),
                        "boolValue" | "bool_value" => {
                            map.next_value::<Option<bool>>()?.map(AnyValue::Bool)
                        }
                        "intValue" | "int_value" => match map.next_value::<Option<Integer>>()? {
                            Some(v) => Some(AnyValue::Int(v.get().map_err(de::Error::custom)?)),
                            None => None,
                        },
                        "doubleValue" | "double_value" => map
                            .next_value::<Option<Double>>()?
                            .map(|v| AnyValue::Double(v.0)),
                        "bytesValue" | "bytes_value" => map
                            .next_value::<Option<Base64>>()?
                            .map(|v| AnyValue::Bytes(v.0)),
                        "arrayValue" | "array_value" => {
                            map.next_value::<Option<ArrayValue>>()?.map(|v| {
                                let values = v.values.unwrap_or_default().into_iter();
                                AnyValue::Array(
                                    values.map(|v| v.map(|v| v.0).unwrap_or_default()).collect(),
                                )
                            })
                        }
                        "kvlistValue" | "kvlist_value" => {
                            map.next_value::<Option<KeyValueList>>()?.map(|v| {
                                let values = v.values.unwrap_or_default().into_iter();
                                AnyValue::Map(values.map(Attribute::from).collect())
                            })
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            None
                        }
                    };
                    if let Some(field) = field {
                        value = field;
                    }
                }
                Ok(Value(value))
            }
        }
        deserializer.deserialize_map(ValueVisitor)
    }
}

/// An integer, written as a number or as text, in plain or exponent notation. Wide enough for all
/// of OTLP's integers; whether it fits its field is asked when it is taken out.
#[derive(Clone, Copy)]
pub(super) struct Integer(i128);

impl Integer {
    pub(super) fn get<T: TryFrom<i128>>(self) -> Result<T, serde_json::Error> {
        T::try_from(self.0)
            .map_err(|_| de::Error::custom(format_args!("{} is out of range", self.0)))
    }

    /// As a count, clamped to what fits.
    pub(super) fn count(value: Option<Self>) -> u32 {
        value.map_or(0, |v| clamped(v.0))
    }

    pub(super) fn get_or_zero<T: TryFrom<i128> + Default>(
        value: Option<Self>,
    ) -> Result<T, serde_json::Error> {
        value.map_or_else(|| Ok(T::default()), Self::get)
    }
}

/// A count as near as 32 bits come to it.
pub(super) fn clamped(value: i128) -> u32 {
    u32::try_from(value).unwrap_or(if value < 0 { 0 } else { u32::MAX })
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor;
        impl Visitor<'_> for IntegerVisitor {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, as a number or as text")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Integer, E> {
                Ok(Integer(v.into()))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Integer, E> {
                Ok(Integer(v.into()))
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Integer, E> {
                // A larger one may have been an integer, of which the last digits are lost here.
                if v.fract() == 0.0 && v.abs() < 2f64.powi(63) {
                    Ok(Integer(v as i128))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(v), &self))
                }
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Integer, E> {
                if let Ok(v) = v.parse() {
                    return Ok(Integer(v));
                }
                match v.parse::<f64>() {
                    Ok(v) => self.visit_f64(v),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
                }
            }
        }
        deserializer.deserialize_any(IntegerVisitor)
    }
}

/// A double, written as a number or as text; `NaN`, `Infinity` and `-Infinity` are text.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DoubleVisitor;
        impl Visitor<'_> for DoubleVisitor {
            type Value = Double;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, as such or as text")
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Double, E> {
                Ok(Double(v))
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Double, E> {
                Ok(Double(v as f64))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Double, E> {
                Ok(Double(v as f64))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Double, E> {
                // `f64` reads all three words of the mapping, in any case.
                v.parse()
                    .map(Double)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_any(DoubleVisitor)
    }
}

/// Bytes, in the standard or the URL-safe alphabet, padded or not.
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64Visitor;
        impl Visitor<'_> for Base64Visitor {
            type Value = Base64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Base64, E> {
                let engine = if v.contains(['-', '_']) {
                    URL_SAFE
                } else {
                    STANDARD
                };
                engine.decode(v).map(Base64).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Base64Visitor)
    }
}

/// Bytes in base64 as Python's decoder takes them: of either alphabet, up to the padding, where
/// everything else than its digits is passed over. `None` if a digit stands alone at the end.
pub(super) fn loose_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.split('=').find(|part| !part.is_empty());
    let digits: String = digits
        .unwrap_or_default()
        .chars()
        .filter_map(|c| match c {
            '-' => Some('+'),
            '_' => Some('/'),
            '+' | '/' | '0'..='9' | 'A'..='Z' | 'a'..='z' => Some(c),
            _ => None,
        })
        .collect();
    STANDARD.decode(digits).ok()
}

/// An enum, written as its number (what OTLP asks for) or as its name (what the protobuf JSON
/// mapping writes).
pub(super) enum EnumValue {
    Number(i32),
    Name(String),
}

impl EnumValue {
    /// The number; an unknown name is 0, which means unset.
    pub(super) fn number(value: Option<Self>, names: Names) -> i32 {
        match value {
            None => 0,
            Some(Self::Number(n)) => n,
            Some(Self::Name(name)) => names.number(&name),
        }
    }
}

pub(super) const SPAN_KINDS: Names = Names {
    prefix: "SPAN_KIND_",
    names: &[
        "UNSPECIFIED",
        "INTERNAL",
        "SERVER",
        "CLIENT",
        "PRODUCER",
        "CONSUMER",
    ],
};
pub(super) const STATUS_CODES: Names = Names {
    prefix: "STATUS_CODE_",
    names: &["UNSET", "OK", "ERROR"],
};

/// The names of an enum's values.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// What each name begins with in OTLP, and does not begin with where people write it by hand.
    pub(super) prefix: &'static str,
    /// The names without it, in the order of their numbers from 0.
    pub(super) names: &'static [&'static str],
}

impl Names {
    /// The number of a name with or without its prefix, in any case; a number as text is itself.
    /// 0 if it is neither.
    pub(super) fn number(self, text: &str) -> i32 {
        let text = text.trim();
        let name = match text.split_at_checked(self.prefix.len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case(self.prefix) => name,
            _ => text,
        };
        let mut names = self.names.iter();
        match names.position(|n| n.eq_ignore_ascii_case(name)) {
            Some(number) => i32::try_from(number).unwrap_or_default(),
            None => text.parse().unwrap_or_default(),
        }
    }
}

impl<'de> Deserialize<'de> for EnumValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnumVisitor;
        impl Visitor<'_> for EnumVisitor {
            type Value = EnumValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of an enum value")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<EnumValue, E> {
                // Numbers of a later OTLP than this say nothing, however large.
                Ok(EnumValue::Number(i32::try_from(v).unwrap_or(i32::MAX)))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<EnumValue, E> {
                Ok(EnumValue::Number(i32::try_from(v).unwrap_or(i32::MIN)))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<EnumValue, E> {
                match v.parse() {
                    Ok(number) => Ok(EnumValue::Number(number)),
                    Err(_) => Ok(EnumValue::Name(v.to_owned())),
                }
            }
        }
        deserializer.deserialize_any(EnumVisitor)
    }
}
