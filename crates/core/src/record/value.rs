//! Attribute values: every kind OTLP 1.x knows (`opentelemetry/proto/common/v1/common.proto`,
//! `AnyValue`), owned and borrowed.

use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use std::fmt;

/// An owned attribute value of any OTLP kind.
#[derive(Clone, Default, PartialEq)]
pub enum AnyValue {
    /// The value is present but unset (OTLP `AnyValue` with no field).
    #[default]
    Empty,
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double; NaN and infinities included.
    Double(f64),
    /// UTF-8 text.
    String(StringValue),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// A list; kinds may be mixed and nested.
    Array(Vec<AnyValue>),
    /// A key–value list in its given order; keys may repeat, as OTLP allows on the wire.
    Map(Vec<Attribute>),
}

/// Shows the value alone: how a string is held in memory is nobody's business.
impl fmt::Debug for AnyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bool(v) => v.fmt(f),
            Self::Int(v) => v.fmt(f),
            Self::Double(v) => v.fmt(f),
            Self::String(v) => v.as_str().fmt(f),
            Self::Bytes(v) => write!(f, "b\"{}\"", v.escape_ascii()),
            Self::Array(v) => v.fmt(f),
            Self::Map(v) => f
                .debug_map()
                .entries(v.iter().map(|a| (a.key.as_str(), &a.value)))
                .finish(),
        }
    }
}

impl From<Value> for AnyValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(v),
            Value::I64(v) => Self::Int(v),
            Value::F64(v) => Self::Double(v),
            Value::String(v) => Self::String(v),
            Value::Array(Array::Bool(v)) => Self::Array(v.into_iter().map(Self::Bool).collect()),
            Value::Array(Array::I64(v)) => Self::Array(v.into_iter().map(Self::Int).collect()),
            Value::Array(Array::F64(v)) => Self::Array(v.into_iter().map(Self::Double).collect()),
            Value::Array(Array::String(v)) => {
                Self::Array(v.into_iter().map(Self::String).collect())
            }
            // `Value` and `Array` are non-exhaustive; a kind this version does not know keeps its text.
            other => Self::String(other.into()),
        }
    }
}

impl From<&'static str> for AnyValue {
    fn from(value: &'static str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for AnyValue {
    fn from(value: String) -> Self {
        Self::String(value.into())
    }
}

impl From<i64> for AnyValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for AnyValue {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl From<bool> for AnyValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl AnyValue {
    /// Borrows the value.
    pub fn as_ref(&self) -> AnyValueRef<'_> {
        match self {
            Self::Empty => AnyValueRef::Empty,
            Self::Bool(v) => AnyValueRef::Bool(*v),
            Self::Int(v) => AnyValueRef::Int(*v),
            Self::Double(v) => AnyValueRef::Double(*v),
            Self::String(v) => AnyValueRef::String(v.as_str()),
            Self::Bytes(v) => AnyValueRef::Bytes(v),
            Self::Array(v) => AnyValueRef::Array(ArrayRef(ArrayRepr::Values(v))),
            Self::Map(v) => AnyValueRef::Map(MapRef(v)),
        }
    }

    /// Bytes held on the heap, estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::Bool(_) | Self::Int(_) | Self::Double(_) => 0,
            Self::String(v) => v.as_str().len(),
            Self::Bytes(v) => v.len(),
            Self::Array(v) => v.iter().map(|v| size_of::<Self>() + v.heap_bytes()).sum(),
            Self::Map(v) => attributes_bytes(v),
        }
    }
}

/// One attribute: a key and a value of any OTLP kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The attribute's name.
    pub key: Key,
    /// The attribute's value.
    pub value: AnyValue,
}

impl Attribute {
    /// An attribute from anything that converts to its parts.
    pub fn new(key: impl Into<Key>, value: impl Into<AnyValue>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }
}

impl From<KeyValue> for Attribute {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value.into(),
        }
    }
}

/// A borrowed attribute value.
#[derive(Clone, Copy, Debug)]
pub enum AnyValueRef<'a> {
    /// Present but unset.
    Empty,
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double; NaN and infinities included.
    Double(f64),
    /// UTF-8 text.
    String(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A list.
    Array(ArrayRef<'a>),
    /// A key–value list.
    Map(MapRef<'a>),
}

impl<'a> AnyValueRef<'a> {
    /// The text, if this is a string.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }

    /// An owned copy.
    pub fn to_owned(self) -> AnyValue {
        match self {
            Self::Empty => AnyValue::Empty,
            Self::Bool(v) => AnyValue::Bool(v),
            Self::Int(v) => AnyValue::Int(v),
            Self::Double(v) => AnyValue::Double(v),
            Self::String(v) => AnyValue::String(v.to_owned().into()),
            Self::Bytes(v) => AnyValue::Bytes(v.to_vec()),
            Self::Array(v) => AnyValue::Array(v.iter().map(Self::to_owned).collect()),
            Self::Map(v) => AnyValue::Map(v.0.to_vec()),
        }
    }
}

impl<'a> From<&'a Value> for AnyValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(*v),
            Value::I64(v) => Self::Int(*v),
            Value::F64(v) => Self::Double(*v),
            Value::String(v) => Self::String(v.as_str()),
            Value::Array(v) => Self::Array(ArrayRef(ArrayRepr::Sdk(v))),
            _ => Self::Empty,
        }
    }
}

/// A borrowed list value.
#[derive(Clone, Copy, Debug)]
pub struct ArrayRef<'a>(ArrayRepr<'a>);

#[derive(Clone, Copy, Debug)]
enum ArrayRepr<'a> {
    Values(&'a [AnyValue]),
    Sdk(&'a Array),
}

impl<'a> ArrayRef<'a> {
    /// Number of elements.
    pub fn len(self) -> usize {
        match self.0 {
            ArrayRepr::Values(v) => v.len(),
            ArrayRepr::Sdk(Array::Bool(v)) => v.len(),
            ArrayRepr::Sdk(Array::I64(v)) => v.len(),
            ArrayRepr::Sdk(Array::F64(v)) => v.len(),
            ArrayRepr::Sdk(Array::String(v)) => v.len(),
            ArrayRepr::Sdk(_) => 0,
        }
    }

    /// Whether the list has no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = AnyValueRef<'a>> {
        (0..self.len()).map(move |i| match self.0 {
            ArrayRepr::Values(v) => v[i].as_ref(),
            ArrayRepr::Sdk(Array::Bool(v)) => AnyValueRef::Bool(v[i]),
            ArrayRepr::Sdk(Array::I64(v)) => AnyValueRef::Int(v[i]),
            ArrayRepr::Sdk(Array::F64(v)) => AnyValueRef::Double(v[i]),
            ArrayRepr::Sdk(Array::String(v)) => AnyValueRef::String(v[i].as_str()),
            ArrayRepr::Sdk(_) => AnyValueRef::Empty,
        })
    }
}

/// A borrowed key–value list.
#[derive(Clone, Copy, Debug)]
pub struct MapRef<'a>(&'a [Attribute]);

impl<'a> MapRef<'a> {
    /// The entries in their given order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, AnyValueRef<'a>)> {
        self.0.iter().map(|a| (a.key.as_str(), a.value.as_ref()))
    }

    /// Number of entries.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// A borrowed list of attributes, in the order in which they were set.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(AttributesRepr<'a>);

#[derive(Clone, Copy, Debug)]
enum AttributesRepr<'a> {
    Sdk(&'a [KeyValue]),
    Record(&'a [Attribute]),
}

impl<'a> Attributes<'a> {
    pub(crate) fn sdk(attributes: &'a [KeyValue]) -> Self {
        Self(AttributesRepr::Sdk(attributes))
    }

    /// A view over owned attributes.
    pub fn record(attributes: &'a [Attribute]) -> Self {
        Self(AttributesRepr::Record(attributes))
    }

    /// Number of attributes.
    pub fn len(self) -> usize {
        match self.0 {
            AttributesRepr::Sdk(v) => v.len(),
            AttributesRepr::Record(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Keys and values in order; a key set twice appears twice, the last one counts.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, AnyValueRef<'a>)> {
        (0..self.len()).map(move |i| match self.0 {
            AttributesRepr::Sdk(v) => (v[i].key.as_str(), (&v[i].value).into()),
            AttributesRepr::Record(v) => (v[i].key.as_str(), v[i].value.as_ref()),
        })
    }

    /// The value of `key`: the last one, where it was set more than once.
    pub fn get(self, key: &str) -> Option<AnyValueRef<'a>> {
        match self.0 {
            AttributesRepr::Sdk(v) => v
                .iter()
                .rfind(|kv| kv.key.as_str() == key)
                .map(|kv| (&kv.value).into()),
            AttributesRepr::Record(v) => v
                .iter()
                .rfind(|a| a.key.as_str() == key)
                .map(|a| a.value.as_ref()),
        }
    }
}

pub(crate) fn attributes_bytes(attributes: &[Attribute]) -> usize {
    attributes
        .iter()
        .map(|a| size_of::<Attribute>() + a.key.as_str().len() + a.value.heap_bytes())
        .sum()
}

pub(crate) fn key_values_bytes(attributes: &[KeyValue]) -> usize {
    attributes
        .iter()
        .map(|kv| {
            size_of::<KeyValue>()
                + kv.key.as_str().len()
                + match &kv.value {
                    Value::String(v) => v.as_str().len(),
                    Value::Array(array) => array_bytes(array),
                    _ => 0,
                }
        })
        .sum()
}

/// Apart from the rest, which runs for each span and is to stay small.
#[inline(never)]
fn array_bytes(array: &Array) -> usize {
    match array {
        Array::Bool(v) => v.len(),
        Array::I64(v) => v.len() * 8,
        Array::F64(v) => v.len() * 8,
        Array::String(v) => v
            .iter()
            .map(|s| size_of::<StringValue>() + s.as_str().len())
            .sum(),
        _ => 0,
    }
}
