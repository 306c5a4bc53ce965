//! JSON as Python's `json` module reads and writes it, because that is what MLflow stores: `, ` and
//! `: ` as separators, floats as Python prints them, `NaN` and `Infinity` allowed.

mod scan;
mod text;

pub(super) use scan::{is_nested_json, loads, member};
pub(super) use text::{
    Level, bytes_text, float_text, push_display, push_float, push_int, push_string,
};

/// A decoded JSON value. Objects keep their order; a key given twice keeps its first place and its
/// last value, as a Python `dict` does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i128),
    /// Digits of a whole number beyond 128 bits.
    Big(String),
    Float(f64),
    Str(String),
    List(Vec<Json>),
    Dict(Vec<(String, Json)>),
}

impl Json {
    /// What Python's `if value` says.
    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(v) => *v,
            Self::Int(v) => *v != 0,
            Self::Big(_) => true,
            Self::Float(v) => *v != 0.0,
            Self::Str(v) => !v.is_empty(),
            Self::List(v) => !v.is_empty(),
            Self::Dict(v) => !v.is_empty(),
        }
    }

    /// The text, if this is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// The value under `key`, if this is an object that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Dict(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub(super) fn as_list(&self) -> Option<&[Json]> {
        match self {
            Self::List(v) => Some(v),
            _ => None,
        }
    }

    /// `json.dumps(value)`; `ascii` writes everything beyond ASCII as `\u` escapes.
    pub(super) fn dumps(&self, ascii: bool) -> String {
        let mut out = String::new();
        self.write(&mut out, ascii);
        out
    }

    pub(super) fn write(&self, out: &mut String, ascii: bool) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
            Self::Int(v) => push_display(out, v),
            Self::Big(v) => out.push_str(v),
            Self::Float(v) => push_float(out, *v),
            Self::Str(v) => text::push_quoted(out, v, ascii),
            Self::List(v) => {
                out.push('[');
                for (i, v) in v.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    v.write(out, ascii);
                }
                out.push(']');
            }
            Self::Dict(v) => {
                out.push('{');
                for (i, (k, v)) in v.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    text::push_quoted(out, k, ascii);
                    out.push_str(": ");
                    v.write(out, ascii);
                }
                out.push('}');
            }
        }
    }
}
