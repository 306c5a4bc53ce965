//! Tags of a trace: those the application set, and those of the resource.

use super::attrs::{Attr, decode};
use super::json::Json;
use super::keys;
use trace_destination_core::{AnyValueRef, Resource};

/// Characters a tag's key and value may have; a longer value is cut, a longer key is left out.
const MAX_KEY: usize = 250;
const MAX_VALUE: usize = 8000;

/// The tags a resource puts on every trace it produces: all but what describes the SDK and what
/// MLflow keeps for itself. Of the resources that produced a trace's spans in one batch the first
/// counts, and a later batch replaces tags of the same key; tags of the application win.
pub(crate) fn resource_tags(resource: &Resource) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    super::attrs::for_each_unique(
        resource.attributes.len(),
        resource.attributes().iter(),
        |key, value| {
            if key.starts_with("telemetry.sdk.") || key.starts_with("mlflow.") || !is_valid(key) {
                return;
            }
            let value = match value {
                AnyValueRef::String(text) => text.to_owned(),
                other => without_empty_keys(decode(other)).dumps(true),
            };
            tags.push((key.to_owned(), cut(value)));
        },
    );
    tags
}

/// The tag that a root span's attribute `mlflow.traceTag.<key>` sets, if it sets one.
pub(super) fn trace_tag(key: &str, value: &Attr<'_>) -> Option<(String, String)> {
    if !is_valid(key) || keys::RESERVED_TAGS.contains(&key) {
        return None;
    }
    Some((key.to_owned(), cut(value.plain().into_owned())))
}

/// The rule MLflow has for names that may become paths.
fn is_valid(key: &str) -> bool {
    let proper = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | ' ' | ':');
    // The pattern behind the rule lets one line break at the end pass.
    key.strip_suffix('\n').unwrap_or(key).chars().all(proper)
        && !key.starts_with("..")
        && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && key.chars().nth(MAX_KEY).is_none()
}

fn cut(mut value: String) -> String {
    if value.len() > MAX_VALUE
        && let Some((end, _)) = value.char_indices().nth(MAX_VALUE)
    {
        value.truncate(end);
    }
    value
}

/// OpenTelemetry drops empty keys from a resource, at any depth.
fn without_empty_keys(value: Json) -> Json {
    match value {
        Json::List(items) => Json::List(items.into_iter().map(without_empty_keys).collect()),
        Json::Dict(entries) => Json::Dict(
            entries
                .into_iter()
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, value)| (key, without_empty_keys(value)))
                .collect(),
        ),
        other => other,
    }
}
