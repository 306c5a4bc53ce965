//! Values in OTLP/JSON, read as leniently as the protobuf JSON mapping asks for.

use crate::keys::key;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use trace_destination_core::{AnyValue, Attribute};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
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
                        "stringValue" => map
                            .next_value::<Option<String>>()?
                            .map(|v| AnyValue::String(v.into())),
                        "boolValue" => map.next_value::<Option<bool>>()?.map(AnyValue::Bool),
                        "intValue" => match map.next_value::<Option<Integer>>()? {
                            Some(v) => Some(AnyValue::Int(v.get().map_err(de::Error::custom)?)),
                            None => None,
                        },
                        "doubleValue" => map
                            .next_value::<Option<Double>>()?
                            .map(|v| AnyValue::Double(v.0)),
                        "bytesValue" => map
                            .next_value::<Option<Base64>>()?
                            .map(|v| AnyValue::Bytes(v.0)),
                        "arrayValue" => map.next_value::<Option<ArrayValue>>()?.map(|v| {
                            let values = v.values.unwrap_or_default().into_iter();
                            AnyValue::Array(
                                values.map(|v| v.map(|v| v.0).unwrap_or_default()).collect(),
                            )
                        }),
                        "kvlistValue" => map.next_value::<Option<KeyValueList>>()?.map(|v| {
                            let values = v.values.unwrap_or_default().into_iter();
                            AnyValue::Map(values.map(Attribute::from).collect())
                        }),
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

    pub(super) fn get_or_zero<T: TryFrom<i128> + Default>(
        value: Option<Self>,
    ) -> Result<T, serde_json::Error> {
        value.map_or_else(|| Ok(T::default()), Self::get)
    }
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
                if v.fract() == 0.0 && v.abs() < 2f64.powi(64) {
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

/// An enum, written as its number (what OTLP asks for) or as its name (what the protobuf JSON
/// mapping writes).
pub(super) enum EnumValue {
    Number(i32),
    Name(String),
}

impl EnumValue {
    /// The number, where `names` are the names in the order of their numbers.
    pub(super) fn number(value: Option<Self>, names: &[&str]) -> Result<i32, serde_json::Error> {
        match value {
            None => Ok(0),
            Some(Self::Number(n)) => Ok(n),
            Some(Self::Name(name)) => names
                .iter()
                .position(|n| *n == name)
                .and_then(|n| i32::try_from(n).ok())
                .ok_or_else(|| {
                    de::Error::custom(format_args!(
                        "`{}` is none of {}",
                        name.escape_debug(),
                        names.join(", ")
                    ))
                }),
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
