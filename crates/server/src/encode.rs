//! Spans as MLflow's tracking server takes them (3.17.2). Everything arrives as it was given,
//! except where the server would read it as something else.

use crate::keys;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry::trace::TraceId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use trace_destination_core::{AnyValue, AnyValueRef, Attribute, Resource, Span, TraceUpdate};
use trace_destination_otlp::Rewrite;

/// What the root of a trace carries besides its own attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) name: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
}

impl Carried {
    /// The part of an update that a root span can carry. Session and user only where no other
    /// span of the trace can have said something else before: the server keeps the first value.
    pub(crate) fn of(update: &TraceUpdate, session: bool, user: bool) -> Self {
        Self {
            name: update.name.clone(),
            tags: update
                .tags
                .iter()
                .filter(|(key, _)| is_own_tag(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            session: update.session_id.clone().filter(|_| session),
            user: update.user_id.clone().filter(|_| user),
        }
    }
}

/// Whether the part of a trace that this process has ends with this span: it is the root, or its
/// parent is in another process.
pub(crate) fn is_end(span: &Span) -> bool {
    /// OTLP `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
    const REMOTE: u32 = 0x200;
    span.parent_span_id().is_none() || span.flags() & REMOTE != 0
}

/// Whether an application may set a tag.
pub(crate) fn is_own_tag(key: &str) -> bool {
    !keys::RESERVED_TAGS.contains(&key)
}

/// Says spans as the tracking server needs them.
pub(crate) struct ForTrackingServer<'a> {
    pub(crate) carried: &'a foldhash::HashMap<TraceId, Carried>,
}

impl Rewrite for ForTrackingServer<'_> {
    fn attributes(&mut self, span: &Span, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
        let root = span.parent_span_id().is_none();
        let carried = match root || is_end(span) {
            true => self.carried.get(&span.trace_id()),
            false => None,
        };
        let mut named = false;
        for (key, value) in span.attributes().iter() {
            if key == keys::SPAN_TYPE
                && let Some(bare) = value.as_str().and_then(unquoted)
            {
                // The server's column takes the text as it is, quotes and all.
                put(key, AnyValueRef::String(&bare));
                continue;
            }
            if let Some(tag) = key.strip_prefix(keys::TRACE_TAG) {
                if !is_own_tag(tag) {
                    continue;
                }
                let replaced = carried.is_some_and(|c| match tag {
                    keys::TRACE_NAME => c.name.is_some(),
                    tag => c.tags.contains_key(tag),
                });
                if replaced {
                    continue;
                }
                named |= tag == keys::TRACE_NAME;
            }
            put(key, value);
        }
        if !root {
            carry_first(carried, put);
            return;
        }
        let name = carried.and_then(|c| c.name.as_deref());
        // Without this attribute the server leaves the trace nameless.
        match name {
            Some(name) => put(
                keys::TRACE_NAME_ATTRIBUTE,
                AnyValueRef::String(&exact(name)),
            ),
            None if !named && !span.name().is_empty() => {
                let short = short_name(span.name());
                put(
                    keys::TRACE_NAME_ATTRIBUTE,
                    AnyValueRef::String(&exact(short)),
                );
            }
            None => {}
        }
        let Some(carried) = carried else { return };
        for (key, value) in carried.tags.iter().filter(|(k, _)| *k != keys::TRACE_NAME) {
            let key = format!("{}{key}", keys::TRACE_TAG);
            put(&key, AnyValueRef::String(&exact(value)));
        }
        carry_first(Some(carried), put);
    }

    fn resource_attributes(
        &mut self,
        resource: &Resource,
        put: &mut dyn FnMut(&str, AnyValueRef<'_>),
    ) {
        for (key, value) in resource.attributes().iter() {
            // The server makes tags of a resource, and answers bytes there with a 500.
            match has_bytes(value) {
                true => put(key, without_bytes(value).as_ref()),
                false => put(key, value),
            }
        }
    }

    fn end_time_unix_nano(&mut self, span: &Span) -> u64 {
        match span.end_time_unix_nano() {
            // The server would make a huge negative duration of a missing end.
            0 => span.start_time_unix_nano(),
            end => end,
        }
    }
}

/// Puts what the server takes from the first span that has it, root or not.
fn carry_first(carried: Option<&Carried>, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
    let Some(carried) = carried else { return };
    for (key, value) in [
        (keys::SESSION, &carried.session),
        (keys::USER, &carried.user),
    ] {
        if let Some(value) = value {
            put(key, AnyValueRef::String(&exact(value)));
        }
    }
}

fn has_bytes(value: AnyValueRef<'_>) -> bool {
    match value {
        AnyValueRef::Bytes(_) => true,
        AnyValueRef::Array(values) => values.iter().any(has_bytes),
        AnyValueRef::Map(entries) => entries.iter().any(|(_, value)| has_bytes(value)),
        _ => false,
    }
}

/// The value with bytes as base64, which is how OTLP writes them in JSON.
fn without_bytes(value: AnyValueRef<'_>) -> AnyValue {
    match value {
        AnyValueRef::Bytes(bytes) => STANDARD.encode(bytes).into(),
        AnyValueRef::Array(values) => AnyValue::Array(values.iter().map(without_bytes).collect()),
        AnyValueRef::Map(entries) => AnyValue::Map(
            entries
                .iter()
                .map(|(key, value)| Attribute::new(key.to_owned(), without_bytes(value)))
                .collect(),
        ),
        other => other.to_owned(),
    }
}

/// A text that the server reads back as it is. It takes a string that looks like the JSON of an
/// object, a list or a string for what it looks like; quoted once more, it is that string.
fn exact(text: &str) -> Cow<'_, str> {
    match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[' | b'"') => {
            Cow::Owned(serde_json::Value::String(text.to_owned()).to_string())
        }
        _ => Cow::Borrowed(text),
    }
}

/// The word inside the JSON of a string.
fn unquoted(text: &str) -> Option<String> {
    match text.starts_with('"') {
        true => serde_json::from_str(text).ok(),
        false => None,
    }
}

/// A span's name where it has to be the name of a trace, of which the server takes this much.
fn short_name(name: &str) -> &str {
    match name.char_indices().nth(4096) {
        Some((end, _)) => &name[..end],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanId;
    use trace_destination_core::SpanRecord;

    fn said(record: SpanRecord, carried: Option<Carried>) -> Vec<(String, String)> {
        let map = carried.into_iter().map(|c| (record.trace_id, c)).collect();
        let mut rewrite = ForTrackingServer { carried: &map };
        let mut all = Vec::new();
        rewrite.attributes(&record.into(), &mut |key, value| {
            all.push((key.to_owned(), value.as_str().unwrap_or("?").to_owned()));
        });
        all
    }

    fn root(name: &'static str) -> SpanRecord {
        SpanRecord::new(TraceId::from(1), SpanId::from(2), name, 3, 4)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    const NAME: &str = "mlflow.traceTag.mlflow.traceName";

    #[test]
    fn the_name_travels_with_the_root() {
        assert_eq!(said(root("handle"), None), [pair(NAME, "handle")]);
        assert_eq!(said(root("{odd}"), None), [pair(NAME, "\"{odd}\"")]);
        assert_eq!(said(root(""), None), []);
        let own = root("handle").with_attribute(NAME, "mine");
        assert_eq!(said(own.clone(), None), [pair(NAME, "mine")]);
        let carried = Carried {
            name: Some("set".into()),
            ..Carried::default()
        };
        assert_eq!(said(own, Some(carried.clone())), [pair(NAME, "set")]);
        let mut child = root("child");
        child.parent_span_id = Some(SpanId::from(9));
        assert_eq!(said(child, Some(carried)), []);
    }

    #[test]
    fn reserved_tags_go_and_types_lose_their_quotes() {
        let span = root("r")
            .with_attribute("mlflow.traceTag.mlflow.trace.spansLocation", "nowhere")
            .with_attribute("mlflow.traceTag.env", "dev")
            .with_attribute("mlflow.spanType", "\"LLM\"")
            .with_attribute("mlflow.spanInputs", "{\"q\": 1}");
        assert_eq!(
            said(span, None),
            [
                pair("mlflow.traceTag.env", "dev"),
                pair("mlflow.spanType", "LLM"),
                pair("mlflow.spanInputs", "{\"q\": 1}"),
                pair(NAME, "r"),
            ]
        );
    }

    #[test]
    fn a_resource_holds_no_bytes() {
        let nested = AnyValue::Array(vec![
            AnyValue::Bytes(vec![0, 255]),
            AnyValue::Map(vec![Attribute::new("k", AnyValue::Bytes(vec![1]))]),
            AnyValue::Int(1),
        ]);
        let resource = Resource {
            attributes: vec![
                Attribute::new("plain", "x"),
                Attribute::new("bytes", AnyValue::Bytes(b"ab".to_vec())),
                Attribute::new("nested", nested),
            ],
            ..Resource::default()
        };
        let map = foldhash::HashMap::default();
        let mut said = Vec::new();
        ForTrackingServer { carried: &map }.resource_attributes(&resource, &mut |key, value| {
            said.push(Attribute::new(key.to_owned(), value.to_owned()));
        });
        let nested = AnyValue::Array(vec![
            "AP8=".into(),
            AnyValue::Map(vec![Attribute::new("k", "AQ==")]),
            AnyValue::Int(1),
        ]);
        let expected = [
            Attribute::new("plain", "x"),
            Attribute::new("bytes", "YWI="),
            Attribute::new("nested", nested),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_the_application_set_beats_what_the_root_says() {
        let mut update = TraceUpdate::new(TraceId::from(1));
        update.tags.insert("env".into(), "[1]".into());
        update
            .tags
            .insert("mlflow.artifactLocation".into(), "x".into());
        update.session_id = Some("s".into());
        update.user_id = Some("u".into());
        let span = root("r").with_attribute("mlflow.traceTag.env", "dev");
        assert_eq!(
            said(span, Some(Carried::of(&update, true, false))),
            [
                pair(NAME, "r"),
                pair("mlflow.traceTag.env", "\"[1]\""),
                pair("session.id", "s"),
            ]
        );
    }
}
