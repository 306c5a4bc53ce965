//! Conversations kept in span events.

use super::attrs::{Attr, Attrs, decode};
use super::json::{self, Json};
use super::vendors::claude;
use trace_destination_core::{AnyValueRef, EventRef, Span};

/// Whether events of this span can carry a conversation.
pub(super) fn any(span: &Span) -> bool {
    span.events().any(|e| e.name.starts_with("gen_ai."))
}

/// The request: of Spring AI, else of the GenAI conventions.
pub(super) fn input<'a>(span: &Span) -> Option<Attr<'a>> {
    event_value(span, "gen_ai.content.prompt", "gen_ai.prompt").or_else(|| {
        messages(span, |event| {
            let role = match event.name {
                "gen_ai.system.message" => "system",
                "gen_ai.user.message" => "user",
                "gen_ai.assistant.message" => "assistant",
                _ => return None,
            };
            Some(Json::Str(role.to_owned()))
        })
    })
}

pub(super) fn output<'a>(attrs: &Attrs<'_>, span: &Span) -> Option<Attr<'a>> {
    event_value(span, "gen_ai.content.completion", "gen_ai.completion")
        .or_else(|| {
            messages(span, |event| {
                (event.name == "gen_ai.choice").then(|| {
                    let role = event.attributes.get("role").map(reread);
                    role.unwrap_or_else(|| Json::Str("assistant".to_owned()))
                })
            })
        })
        .or_else(|| claude::events_output(attrs, span))
}

fn event_value<'a>(span: &Span, event: &str, key: &str) -> Option<Attr<'a>> {
    let value = span
        .events()
        .filter(|e| e.name == event)
        .filter_map(|e| e.attributes.get(key))
        .find(|value| is_something(*value))
        .map(decode)?;
    Some(match value {
        Json::Str(text) => Attr::Text(text),
        other => Attr::Bare(other),
    })
}

/// The chat messages of those events to which `role` gives a role.
fn messages<'a>(span: &Span, role: impl Fn(&EventRef<'_>) -> Option<Json>) -> Option<Attr<'a>> {
    let mut list = Vec::new();
    for event in span.events() {
        let Some(content) = event.attributes.get("content") else {
            continue;
        };
        if !is_something(content) {
            continue;
        }
        if let Some(role) = role(&event) {
            list.push(Json::Dict(vec![
                ("role".to_owned(), role),
                ("content".to_owned(), reread(content)),
            ]));
        }
    }
    (!list.is_empty()).then(|| Attr::Text(Json::List(list).dumps(true)))
}

/// Whether a raw value is not null, false, zero or empty.
fn is_something(value: AnyValueRef<'_>) -> bool {
    match value {
        AnyValueRef::Bytes(bytes) => !bytes.is_empty(),
        other => decode(other).truthy(),
    }
}

/// A string in an event may be JSON.
pub(super) fn reread(value: AnyValueRef<'_>) -> Json {
    match value {
        AnyValueRef::String(text) => {
            json::loads(text).unwrap_or_else(|| Json::Str(text.to_owned()))
        }
        other => decode(other),
    }
}
