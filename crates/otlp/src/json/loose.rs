//! Fields and values of OTLP/JSON from a tree, read as MLflow's server reads them or more tolerantly.

use super::tree::Node;
use super::value::{Names, clamped, loose_base64};
use crate::keys::key;
use std::borrow::Cow;
use trace_destination_core::{AnyValue, Attribute};

/// Levels of messages below a span or resource that protobuf decoders follow.
const MAX_MESSAGES: usize = 100;

/// Why a field cannot be read.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) cause: String,
    pub(super) mend: Option<&'static str>,
}

impl Wrong {
    pub(super) fn mend(self, mend: &'static str) -> Self {
        let mend = Some(mend);
        Self { mend, ..self }
    }

    pub(super) fn within(self, part: &str) -> Self {
        let cause = format!("{part}: {}", self.cause);
        Self { cause, ..self }
    }
}

pub(super) fn wrong(cause: impl Into<String>) -> Wrong {
    Wrong {
        cause: cause.into(),
        mend: None,
    }
}

fn expected(field: &str, node: &Node<'_>, what: &str) -> Wrong {
    wrong(format!("`{field}` is {}, expected {what}", shown(node)))
}

/// A value for an error's text: short, and on one line.
fn shown(node: &Node<'_>) -> Cow<'static, str> {
    let quoted = |text: &str| {
        let short: String = text.chars().take(40).collect();
        let more = if short.len() < text.len() {
            "\u{2026}"
        } else {
            ""
        };
        Cow::Owned(format!("`{}{more}`", short.escape_debug()))
    };
    match node {
        Node::Null => "null".into(),
        Node::Bool(true) => "true".into(),
        Node::Bool(false) => "false".into(),
        Node::Number(text) => quoted(text),
        Node::Text(text) => quoted(text),
        Node::List(_) => "a list".into(),
        Node::Object(_) => "an object".into(),
        Node::TooDeep => "nested too deep".into(),
    }
}

/// The fields of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'t, 'a>(&'t [(Cow<'a, str>, Node<'a>)]);

impl<'t, 'a> Message<'t, 'a> {
    /// The message in a value. One that is absent, a text or a list of texts is empty, as it is for
    /// MLflow's server.
    pub(super) fn of(field: &str, node: Option<&'t Node<'a>>) -> Result<Self, Wrong> {
        match node {
            None | Some(Node::Null | Node::Text(_)) => Ok(Self(&[])),
            Some(Node::Object(members)) => Ok(Self(members)),
            Some(Node::List(items)) if items.iter().all(|i| matches!(i, Node::Text(_))) => {
                Ok(Self(&[]))
            }
            Some(node) => Err(expected(field, node, "an object")),
        }
    }

    /// A field by its name in camelCase, or the same in snake_case. Of a doubled key the last one
    /// counts; `null` is as good as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'t Node<'a>> {
        let snake_case = snake_case(name);
        self.last(|key| key == name || key == snake_case)
    }

    /// A field by exactly this name.
    pub(super) fn exactly(&self, name: &str) -> Option<&'t Node<'a>> {
        self.last(|key| key == name)
    }

    fn last(&self, is_name: impl Fn(&str) -> bool) -> Option<&'t Node<'a>> {
        let (_, node) = self.0.iter().rev().find(|(key, _)| is_name(key))?;
        (!matches!(node, Node::Null)).then_some(node)
    }

    /// Whether there is a field of exactly this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    pub(super) fn first_key(&self) -> Option<&'t str> {
        self.0.first().map(|(key, _)| &**key)
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Wrong> {
        text(name, self.get(name))
    }

    pub(super) fn list(&self, name: &str) -> Result<&'t [Node<'a>], Wrong> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Node::List(items)) => Ok(items),
            Some(node) => Err(expected(name, node, "a list")),
        }
    }

    pub(super) fn integer<T: TryFrom<i128> + Default>(&self, name: &str) -> Result<T, Wrong> {
        let Some(node) = self.get(name) else {
            return Ok(T::default());
        };
        let value = integer(node).ok_or_else(|| expected(name, node, "an integer"))?;
        T::try_from(value).map_err(|_| wrong(format!("`{name}` is {value}, out of range")))
    }

    /// A count, which is clamped to what fits.
    pub(super) fn count(&self, name: &str) -> Result<u32, Wrong> {
        let Some(node) = self.get(name) else {
            return Ok(0);
        };
        let value = integer(node).ok_or_else(|| expected(name, node, "a count"))?;
        Ok(clamped(value))
    }

    /// The number of an enum value, from its number or name; a name that is unknown means unset.
    pub(super) fn number(&self, name: &str, names: Names) -> Result<i32, Wrong> {
        match self.get(name) {
            None => Ok(0),
            Some(Node::Text(text)) => Ok(names.number(text)),
            Some(Node::Bool(value)) => Ok(i32::from(*value)),
            // Whole numbers are exact here. The others are cut, and NaN is unset, as for Python.
            Some(Node::Number(text)) => Ok(text.parse::<f64>().map_or(0, |value| value as i32)),
            Some(node) => Err(expected(name, node, "the number or name of an enum value")),
        }
    }

    pub(super) fn attributes(&self, depth: usize) -> Result<Vec<Attribute>, Wrong> {
        let items = self.list("attributes")?;
        attributes(items, depth).collect()
    }
}

/// The text of a field; empty if it is absent.
pub(super) fn text(name: &str, node: Option<&Node<'_>>) -> Result<String, Wrong> {
    match node {
        None => Ok(String::new()),
        Some(Node::Text(text)) => Ok(text.clone().into_owned()),
        Some(node) => Err(expected(name, node, "a text")),
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// An integer as Python reads it: as number or text, also with an exponent, white space around it
/// and single underscores between its digits.
fn integer(node: &Node<'_>) -> Option<i128> {
    let (Node::Number(_) | Node::Text(_)) = node else {
        return None;
    };
    let text = digits(node)?;
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    // Without a fraction, and within what any integer of OTLP can be.
    let value = text.parse::<f64>().ok()?;
    (value.fract() == 0.0).then_some(value as i128)
}

fn digits<'t>(node: &'t Node<'_>) -> Option<Cow<'t, str>> {
    match node {
        Node::Number(text) => Some(Cow::Borrowed(text)),
        Node::Text(text) if text.contains('_') => {
            let parts = || text.trim().split('_');
            let between = parts().all(|p| !p.is_empty() && !p.starts_with(['+', '-', '.']));
            let between = between || text.trim().starts_with(['+', '-']);
            between.then(|| Cow::Owned(parts().collect()))
        }
        Node::Text(text) => Some(Cow::Borrowed(text.trim())),
        _ => None,
    }
}

fn double(node: &Node<'_>) -> Option<f64> {
    match node {
        Node::Bool(value) => Some(f64::from(u8::from(*value))),
        // `f64` reads `NaN` and both infinities, in any case.
        node => digits(node)?.parse().ok(),
    }
}

/// The attributes of a list, one by one; `depth` counts the messages above.
fn attributes<'t>(
    items: &'t [Node<'_>],
    depth: usize,
) -> impl Iterator<Item = Result<Attribute, Wrong>> + 't {
    let present = items.iter().filter(|item| !matches!(item, Node::Null));
    present.map(move |item| attribute(item, depth + 1))
}

/// One attribute, as the message number `depth`.
pub(super) fn attribute(node: &Node<'_>, depth: usize) -> Result<Attribute, Wrong> {
    let message = Message::of("attributes", Some(node))?;
    let name = message.text("key")?;
    let value = match message.get("value") {
        None => AnyValue::Empty,
        Some(node) => any_value(node, depth + 1).map_err(|too_deep| Wrong {
            cause: format!(
                "the value of `{}` is {}",
                name.escape_debug(),
                too_deep.cause
            ),
            ..too_deep
        })?,
    };
    let key = key(name);
    Ok(Attribute { key, value })
}

/// A value. What does not fit its field, or stands without one, is taken for what it is.
fn any_value(node: &Node<'_>, depth: usize) -> Result<AnyValue, Wrong> {
    if depth > MAX_MESSAGES {
        return Err(too_deep());
    }
    let Node::Object(members) = node else {
        return plain(node, depth);
    };
    // The last field that is set counts.
    for (name, node) in members.iter().rev() {
        let value = match (&**name, node) {
            (_, Node::Null) => None,
            ("stringValue" | "string_value", _) => Some(plain(node, depth)?),
            ("boolValue" | "bool_value", Node::Text(text)) => match &**text {
                "true" => Some(AnyValue::Bool(true)),
                "false" => Some(AnyValue::Bool(false)),
                _ => Some(plain(node, depth)?),
            },
            ("boolValue" | "bool_value", _) => Some(plain(node, depth)?),
            ("intValue" | "int_value", _) => Some(int_value(node, depth)?),
            ("doubleValue" | "double_value", _) => match double(node) {
                Some(value) => Some(AnyValue::Double(value)),
                None => Some(plain(node, depth)?),
            },
            ("bytesValue" | "bytes_value", Node::Text(text)) => match loose_base64(text) {
                Some(bytes) => Some(AnyValue::Bytes(bytes)),
                None => Some(plain(node, depth)?),
            },
            ("bytesValue" | "bytes_value", _) => Some(plain(node, depth)?),
            ("arrayValue" | "array_value", _) => Some(array_value(node, depth + 1)?),
            ("kvlistValue" | "kvlist_value", _) => Some(kvlist_value(node, depth + 1)?),
            _ => None,
        };
        if let Some(value) = value {
            return Ok(value);
        }
    }
    Ok(AnyValue::Empty)
}

/// An integer that fits no 64 bits is its decimal text, as OpenTelemetry maps such values
/// (specification, "Mapping Arbitrary Data to OTLP AnyValue").
fn int_value(node: &Node<'_>, depth: usize) -> Result<AnyValue, Wrong> {
    let Some(value) = integer(node) else {
        return plain(node, depth);
    };
    match (i64::try_from(value), node) {
        (Ok(value), _) => Ok(AnyValue::Int(value)),
        (Err(_), Node::Number(text)) => Ok(AnyValue::from((*text).to_owned())),
        (Err(_), _) => plain(node, depth),
    }
}

fn array_value(node: &Node<'_>, depth: usize) -> Result<AnyValue, Wrong> {
    let Ok(items) = Message::of("arrayValue", Some(node)).and_then(|m| m.list("values")) else {
        return plain(node, depth);
    };
    let values = items.iter().map(|item| any_value(item, depth + 1));
    Ok(AnyValue::Array(values.collect::<Result<_, _>>()?))
}

fn kvlist_value(node: &Node<'_>, depth: usize) -> Result<AnyValue, Wrong> {
    let entries = Message::of("kvlistValue", Some(node)).and_then(|m| m.list("values"));
    let Ok(entries) = entries else {
        return plain(node, depth);
    };
    let entries = attributes(entries, depth).collect::<Result<_, _>>()?;
    Ok(AnyValue::Map(entries))
}

/// A JSON value as the OTLP value it looks like.
fn plain(node: &Node<'_>, depth: usize) -> Result<AnyValue, Wrong> {
    Ok(match node {
        Node::Null => AnyValue::Empty,
        Node::Bool(value) => AnyValue::Bool(*value),
        Node::Number(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(value), _) => AnyValue::Int(value),
            (_, Ok(value)) if text.contains(['.', 'e', 'E', 'N', 'I']) => AnyValue::Double(value),
            _ => AnyValue::from((*text).to_owned()),
        },
        Node::Text(text) => AnyValue::from(text.clone().into_owned()),
        Node::TooDeep => return Err(too_deep()),
        Node::List(_) | Node::Object(_) if depth + 3 > MAX_MESSAGES => return Err(too_deep()),
        Node::List(items) => {
            let values = items.iter().map(|item| plain(item, depth + 2));
            AnyValue::Array(values.collect::<Result<_, _>>()?)
        }
        Node::Object(members) => {
            let entries = members.iter().map(|(name, node)| {
                let (key, value) = (key(name.clone().into_owned()), plain(node, depth + 3)?);
                Ok(Attribute { key, value })
            });
            AnyValue::Map(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn too_deep() -> Wrong {
    wrong(format!(
        "nested deeper than the {MAX_MESSAGES} levels of messages that OTLP decoders follow"
    ))
}
