//! A span's attributes as MLflow holds them: every value is a JSON text.

use super::json::{self, Json, Level};
use std::borrow::Cow;
use trace_destination_core::{AnyValueRef, Attributes};

/// The value of one attribute, converted to text only when needed.
#[derive(Clone, Debug)]
pub(super) enum Attr<'a> {
    /// A string; its text is the quoted string.
    Quoted(&'a str),
    /// A string that already was the JSON of an object, a list or a string; it is its own text.
    Json(&'a str),
    /// Any value but a string.
    Value(AnyValueRef<'a>),
    /// A text that translation made or took from an event; usually but not always JSON.
    Text(String),
    /// A value that translation took from an event. Only this kind is stored as a value.
    Bare(Json),
}

impl<'a> Attr<'a> {
    pub(super) fn new(value: AnyValueRef<'a>) -> Self {
        match value {
            AnyValueRef::String(s) if json::is_nested_json(s) => Self::Json(s),
            AnyValueRef::String(s) => Self::Quoted(s),
            other => Self::Value(other),
        }
    }

    /// The JSON text.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Quoted(s) => {
                let mut out = String::with_capacity(s.len() + 2);
                json::push_string(&mut out, s, Level::Once);
                out.into()
            }
            Self::Json(s) => Cow::Borrowed(s),
            Self::Value(v) => {
                let mut out = String::new();
                push_value(&mut out, *v, Level::Once);
                out.into()
            }
            Self::Text(s) => s.as_str().into(),
            Self::Bare(v) => v.dumps(true).into(),
        }
    }

    /// The value the text stands for, `None` where it is not JSON.
    pub(super) fn decoded(&self) -> Option<Json> {
        match self {
            Self::Quoted(s) => Some(Json::Str((*s).to_owned())),
            Self::Json(s) => json::loads(s),
            Self::Value(v) => Some(decode(*v)),
            Self::Text(s) => json::loads(s),
            Self::Bare(v) => Some(v.clone()),
        }
    }

    /// The string the text stands for, if it stands for one.
    pub(super) fn string(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Quoted(s) => Some(Cow::Borrowed(s)),
            Self::Json(s) if !s.trim_start().starts_with('"') => None,
            Self::Value(AnyValueRef::Bytes(b)) => Some(json::bytes_text(b).into()),
            Self::Value(_) => None,
            other => match other.decoded() {
                Some(Json::Str(s)) => Some(s.into()),
                _ => None,
            },
        }
    }

    /// The string the text stands for, or else the text.
    pub(super) fn plain(&self) -> Cow<'_, str> {
        self.string().unwrap_or_else(|| self.text())
    }

    /// Whether the value is something: not null, false, zero or empty.
    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Quoted(s) => !s.is_empty(),
            other => other.decoded().is_some_and(|v| v.truthy()),
        }
    }

    /// The value under `key`, if the text is an object that has it.
    pub(super) fn member(&self, key: &str) -> Option<Json> {
        match self {
            Self::Quoted(_) => None,
            Self::Json(s) => json::member(s, key),
            Self::Text(s) => json::member(s, key),
            Self::Value(AnyValueRef::Map(map)) => map
                .iter()
                .filter(|(k, _)| *k == key)
                .last()
                .map(|(_, v)| decode(v)),
            Self::Value(_) => None,
            Self::Bare(v) => v.get(key).cloned(),
        }
    }

    /// Writes the value as it stands inside the span's JSON.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Quoted(s) => {
                out.push('"');
                json::push_string(out, s, Level::Twice);
                out.push('"');
            }
            Self::Json(s) => json::push_string(out, s, Level::Once),
            Self::Text(s) => json::push_string(out, s, Level::Once),
            Self::Value(v) => {
                out.push('"');
                push_value(out, *v, Level::Twice);
                out.push('"');
            }
            Self::Bare(v) => v.write(out, false),
        }
    }
}

/// Attributes in order, each key once.
#[derive(Clone, Debug)]
pub(super) struct Attrs<'a>(pub(super) Vec<(&'a str, Attr<'a>)>);

impl<'a> Attrs<'a> {
    pub(super) fn new(attributes: Attributes<'a>, spare: usize) -> Self {
        let mut list = Vec::with_capacity(attributes.len() + spare);
        for_each_unique(attributes.len(), attributes.iter(), |key, value| {
            list.push((key, Attr::new(value)));
        });
        Self(list)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Attr<'a>> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets a key in its place, a new one at the end.
    pub(super) fn set(&mut self, key: &'a str, value: Attr<'a>) {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }
}

/// Calls `f` for each key once: at the place where it came first, with the value that came last.
pub(super) fn for_each_unique<'a>(
    len: usize,
    entries: impl Iterator<Item = (&'a str, AnyValueRef<'a>)>,
    mut f: impl FnMut(&'a str, AnyValueRef<'a>),
) {
    let list: Vec<(&'a str, AnyValueRef<'a>)> = entries.collect();
    if len <= 16 {
        for (i, (key, value)) in list.iter().enumerate() {
            if list[..i].iter().any(|(k, _)| k == key) {
                continue;
            }
            let later = list[i + 1..].iter().rfind(|(k, _)| k == key);
            f(key, later.map_or(*value, |(_, v)| *v));
        }
        return;
    }
    let last: std::collections::HashMap<&str, usize> =
        list.iter().enumerate().map(|(i, (k, _))| (*k, i)).collect();
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    for (key, _) in &list {
        if seen.insert(*key) {
            f(key, list[last[key]].1);
        }
    }
}

/// Writes a value as `json.dumps` would, at one level of quotation or the next.
pub(super) fn push_value(out: &mut String, value: AnyValueRef<'_>, level: Level) {
    match value {
        AnyValueRef::Empty => out.push_str("null"),
        AnyValueRef::Bool(v) => out.push_str(if v { "true" } else { "false" }),
        AnyValueRef::Int(v) => json::push_int(out, v),
        AnyValueRef::Double(v) => json::push_float(out, v),
        AnyValueRef::String(v) => json::push_string(out, v, level),
        AnyValueRef::Bytes(v) => json::push_string(out, &json::bytes_text(v), level),
        AnyValueRef::Array(v) => {
            out.push('[');
            for (i, v) in v.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                push_value(out, v, level);
            }
            out.push(']');
        }
        AnyValueRef::Map(v) => push_entries(out, v.len(), v.iter(), level),
    }
}

/// Writes an object.
pub(super) fn push_entries<'a>(
    out: &mut String,
    len: usize,
    entries: impl Iterator<Item = (&'a str, AnyValueRef<'a>)>,
    level: Level,
) {
    out.push('{');
    let mut first = true;
    for_each_unique(len, entries, |key, value| {
        if !first {
            out.push_str(", ");
        }
        first = false;
        json::push_string(out, key, level);
        out.push_str(": ");
        push_value(out, value, level);
    });
    out.push('}');
}

/// The value that a dumped OTLP value is read back as.
pub(super) fn decode(value: AnyValueRef<'_>) -> Json {
    match value {
        AnyValueRef::Empty => Json::Null,
        AnyValueRef::Bool(v) => Json::Bool(v),
        AnyValueRef::Int(v) => Json::Int(v.into()),
        AnyValueRef::Double(v) => Json::Float(v),
        AnyValueRef::String(v) => Json::Str(v.to_owned()),
        AnyValueRef::Bytes(v) => Json::Str(json::bytes_text(v)),
        AnyValueRef::Array(v) => Json::List(v.iter().map(decode).collect()),
        AnyValueRef::Map(v) => {
            let mut entries = Vec::with_capacity(v.len());
            for_each_unique(v.len(), v.iter(), |key, value| {
                entries.push((key.to_owned(), decode(value)));
            });
            Json::Dict(entries)
        }
    }
}
