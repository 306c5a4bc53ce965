//! Token counts under the names of other conventions.

use super::attrs::{Attr, Attrs};
use super::json::Json;
use super::vendors::claude;

/// Token counts under the names of one convention.
struct Counts {
    input: Option<Json>,
    output: Option<Json>,
    total: Option<Json>,
    cache_read: Option<Json>,
    cache_creation: Option<Json>,
}

/// The usage a span reports, in the text of `mlflow.chat.tokenUsage`. The first convention with
/// a count of its own is the one that counts.
pub(super) fn usage(attrs: &Attrs<'_>) -> Option<String> {
    let count = |key: &str| attrs.get(key).and_then(whole_number);
    let either = |a: &str, b: &str| attrs.get(a).or_else(|| attrs.get(b)).and_then(whole_number);
    let conventions: [&dyn Fn() -> Counts; 5] = [
        &|| Counts {
            input: count("llm.token_count.prompt"),
            output: count("llm.token_count.completion"),
            total: count("llm.token_count.total"),
            cache_read: count("llm.token_count.prompt_details.cache_read"),
            cache_creation: count("llm.token_count.prompt_details.cache_write"),
        },
        &|| Counts {
            input: count("gen_ai.usage.input_tokens"),
            output: count("gen_ai.usage.output_tokens"),
            total: None,
            cache_read: count("gen_ai.usage.cache_read.input_tokens"),
            cache_creation: either(
                "gen_ai.usage.cache_write.input_tokens",
                "gen_ai.usage.cache_creation.input_tokens",
            ),
        },
        &|| {
            let claude = claude::counts(attrs);
            Counts {
                input: claude.input.map(Json::Int),
                output: claude.output.map(Json::Int),
                total: None,
                cache_read: claude.cache_read.map(Json::Int),
                cache_creation: claude.cache_creation.map(Json::Int),
            }
        },
        &|| Counts {
            input: count("gen_ai.usage.prompt_tokens"),
            output: count("gen_ai.usage.completion_tokens"),
            total: count("llm.usage.total_tokens"),
            cache_read: None,
            cache_creation: None,
        },
        &|| Counts {
            input: either("usage.prompt_tokens", "llm.usage.prompt_tokens"),
            output: either("usage.completion_tokens", "llm.usage.completion_tokens"),
            total: either("usage.total_tokens", "llm.usage.total_tokens"),
            cache_read: None,
            cache_creation: None,
        },
    ];
    let counts = conventions
        .iter()
        .map(|counts| counts())
        .find(|c| c.input.is_some() || c.output.is_some() || c.total.is_some())?;
    let total = counts.total.or_else(|| {
        let sum =
            integer(counts.input.as_ref()?)?.checked_add(integer(counts.output.as_ref()?)?)?;
        Some(Json::Int(sum))
    });
    let entries = [
        ("input_tokens", counts.input),
        ("output_tokens", counts.output),
        ("total_tokens", total),
        ("cache_read_input_tokens", counts.cache_read),
        ("cache_creation_input_tokens", counts.cache_creation),
    ];
    let entries = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    Some(Json::Dict(entries).dumps(false))
}

/// A token count: a whole number or a string of one.
fn whole_number(value: &Attr<'_>) -> Option<Json> {
    match value.decoded()? {
        value @ (Json::Int(_) | Json::Big(_) | Json::Bool(_)) => Some(value),
        Json::Str(text) => parse_int(&text).map(Json::Int),
        _ => None,
    }
}

fn integer(value: &Json) -> Option<i128> {
    match value {
        Json::Int(v) => Some(*v),
        Json::Bool(v) => Some(i128::from(*v)),
        _ => None,
    }
}

/// Python's `int(text)`: white space around, a sign, and single underscores between digits.
pub(super) fn parse_int(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let proper = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && !digits.contains("__")
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if proper {
        text.replace('_', "").parse().ok()
    } else {
        None
    }
}
