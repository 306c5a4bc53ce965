//! The short text of a request or response that MLflow shows in lists.

use super::attrs::Attr;
use super::json::Json;

/// Characters a preview may have.
const MAX: usize = 1000;

/// The keys under which chat requests and responses keep their messages.
const CHAT_KEYS: [&str; 5] = ["messages", "choices", "input", "output", "request"];

/// The last message of `role` where the value has the shape of a chat request or response, else
/// the JSON text; cut to [`MAX`] characters.
pub(super) fn preview(value: &Attr<'_>, role: &str) -> Option<String> {
    if matches!(value, Attr::Bare(v) if !matches!(v, Json::Dict(_))) {
        return None;
    }
    let text = value.text();
    let message = if may_hold_messages(&text) {
        value.decoded().and_then(|v| last_message(&v, role))
    } else {
        None
    };
    Some(cut(message.as_deref().unwrap_or(&text)))
}

/// Spares most texts the decoding.
fn may_hold_messages(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && (text.contains("\\u") || CHAT_KEYS.iter().any(|key| text.contains(key)))
}

fn last_message(value: &Json, role: &str) -> Option<String> {
    let messages = messages(value)?;
    let message = messages
        .iter()
        .rfind(|m| m.get("role").and_then(Json::as_str) == Some(role))
        .or(messages.last())?;
    let text = match message.get("content")? {
        Json::Str(text) => text,
        Json::List(parts) => parts
            .iter()
            .find(|p| is_text_part(p))
            .and_then(|p| p.as_str().or_else(|| p.get("text").and_then(Json::as_str)))?,
        _ => return None,
    };
    (!text.is_empty()).then(|| text.to_owned())
}

fn is_text_part(part: &Json) -> bool {
    let kind = part.get("type").and_then(Json::as_str);
    part.as_str().is_some() || matches!(kind, Some("text" | "output_text"))
}

/// The messages of an OpenAI Chat Completions or Responses request or response.
fn messages(value: &Json) -> Option<Vec<&Json>> {
    let list = |key| {
        value
            .get(key)
            .and_then(Json::as_list)
            .filter(|l| !l.is_empty())
    };
    if let Some(items) = list("messages") {
        return Some(items.iter().filter(|m| is_message(m)).collect());
    }
    if let Some(message) = list("choices")
        .and_then(|choices| choices[0].get("message"))
        .filter(|m| is_message(m))
    {
        return Some(vec![message]);
    }
    if let Some(items) = list("input").or_else(|| list("output")) {
        return Some(items.iter().filter(|m| is_message(m)).collect());
    }
    messages(value.get("request")?)
}

fn is_message(value: &Json) -> bool {
    value.get("role").is_some() && value.get("content").is_some()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX) {
        None => text.to_owned(),
        Some(_) => {
            let end = text
                .char_indices()
                .nth(MAX - 3)
                .map_or(text.len(), |(i, _)| i);
            format!("{}...", &text[..end])
        }
    }
}
