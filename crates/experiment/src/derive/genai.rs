//! Spans that follow other conventions than `mlflow.*`: OpenTelemetry GenAI, OpenInference,
//! Traceloop, and the frameworks with attributes of their own. Their type, inputs, outputs, token
//! usage, tools, model and provider are added as the `mlflow.*` attributes MLflow reads.
//!
//! Several conventions may claim one span; the order in which they are asked is MLflow's.

use super::attrs::{Attr, Attrs, decode};
use super::json::{self, Json};
use super::keys;
use super::vendors::{claude, gemini, livekit, vercel};
use trace_destination_core::{AnyValueRef, EventRef, Span};

/// Whether an attribute of this name can mean anything to a convention other than `mlflow.*`.
/// May say yes too often, never no.
pub(super) fn is_foreign(key: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| key.starts_with(p));
    match key.as_bytes().first() {
        Some(b'a') => starts(&["ai.", "agent.messages"]),
        Some(b'e') => starts(&["embedding.", "entity.type"]),
        Some(b'g') => starts(&["gen_ai.", "gcp.vertex.agent."]),
        Some(b'i') => starts(&["input"]),
        Some(b'l') => starts(&["llm.", "lk.", "lmnr.", "langfuse."]),
        Some(b'o') => starts(&["output", "openinference."]),
        Some(b's') => key == keys::CLAUDE_SPAN_TYPE,
        Some(b't') => starts(&["traceloop."]),
        Some(b'u') => starts(&["usage."]),
        Some(b'v') => starts(&["voltagent."]),
        _ => false,
    }
}

/// Whether events of this span can carry a conversation.
pub(super) fn has_foreign_events(span: &Span) -> bool {
    span.events().any(|e| e.name.starts_with("gen_ai."))
}

/// Adds what other conventions say about the span. What `mlflow.*` attributes say stays.
pub(super) fn translate<'a>(attrs: &mut Attrs<'a>, span: &'a Span) {
    if let Some(kind) = span_type(attrs) {
        let current = attrs.get(keys::SPAN_TYPE).map(Attr::decoded);
        if matches!(current, None | Some(Some(Json::Null)))
            || matches!(current, Some(Some(Json::Str(s))) if s == "UNKNOWN")
        {
            attrs.set(keys::SPAN_TYPE, Attr::Quoted(kind));
        }
    }
    if !attrs.has(keys::INPUTS)
        && let Some(value) = input(attrs).or_else(|| input_of_events(span))
    {
        attrs.set(keys::INPUTS, value);
    }
    if !attrs.has(keys::OUTPUTS)
        && let Some(value) = output(attrs).or_else(|| output_of_events(attrs, span))
    {
        attrs.set(keys::OUTPUTS, value);
    }
    if !attrs.has(keys::USAGE)
        && let Some(usage) = usage(attrs)
    {
        attrs.set(keys::USAGE, Attr::Text(usage));
    }
    if !attrs.has(keys::MESSAGE_FORMAT)
        && let Some(format) = message_format(attrs)
    {
        attrs.set(keys::MESSAGE_FORMAT, Attr::Quoted(format));
    }
    if !attrs.has(keys::CHAT_TOOLS)
        && let Some(tools) = first(attrs, &["gen_ai.tool.definitions"])
    {
        attrs.set(keys::CHAT_TOOLS, tools);
    }
    if !attrs.has(keys::MODEL)
        && let Some(model) = first(attrs, &MODEL_KEYS)
    {
        attrs.set(keys::MODEL, reread(model));
    }
    if !attrs.has(keys::PROVIDER)
        && let Some(provider) = first(attrs, &PROVIDER_KEYS)
    {
        attrs.set(keys::PROVIDER, reread(provider));
    }
}

/// The model named inside inputs or outputs, for a span that has no other: MLflow looks there
/// whatever the span's convention.
pub(super) fn model_of_payload(attrs: &Attrs<'_>) -> Option<String> {
    for key in [keys::INPUTS, keys::OUTPUTS] {
        let Some(value) = attrs.get(key) else {
            continue;
        };
        if let Some(model) = value.member("model").filter(Json::truthy) {
            return match model {
                Json::Str(model) => Some(model),
                _ => None,
            };
        }
    }
    None
}

const MODEL_KEYS: [&str; 6] = [
    "llm.response.model_name",
    "llm.model_name",
    "llm.request.model_name",
    "embedding.model_name",
    "gen_ai.response.model",
    "gen_ai.request.model",
];

const PROVIDER_KEYS: [&str; 3] = ["llm.provider", "gen_ai.provider.name", "gen_ai.system"];

const OPENINFERENCE_TYPES: [(&str, &str); 10] = [
    ("TOOL", "TOOL"),
    ("CHAIN", "CHAIN"),
    ("LLM", "LLM"),
    ("RETRIEVER", "RETRIEVER"),
    ("EMBEDDING", "EMBEDDING"),
    ("AGENT", "AGENT"),
    ("RERANKER", "RERANKER"),
    ("UNKNOWN", "UNKNOWN"),
    ("GUARDRAIL", "GUARDRAIL"),
    ("EVALUATOR", "EVALUATOR"),
];

pub(super) const GENAI_TYPES: [(&str, &str); 8] = [
    ("chat", "CHAT_MODEL"),
    ("create_agent", "AGENT"),
    ("embeddings", "EMBEDDING"),
    ("execute_tool", "TOOL"),
    ("generate_content", "LLM"),
    ("invoke_agent", "AGENT"),
    ("text_completion", "LLM"),
    ("response", "LLM"),
];

const TRACELOOP_TYPES: [(&str, &str); 5] = [
    ("workflow", "WORKFLOW"),
    ("task", "TASK"),
    ("agent", "AGENT"),
    ("tool", "TOOL"),
    ("unknown", "UNKNOWN"),
];

const VOLTAGENT_TYPES: [(&str, &str); 4] = [
    ("agent", "AGENT"),
    ("llm", "LLM"),
    ("tool", "TOOL"),
    ("memory", "MEMORY"),
];

const LAMINAR_TYPES: [(&str, &str); 9] = [
    ("LLM", "LLM"),
    ("TOOL", "TOOL"),
    ("DEFAULT", "CHAIN"),
    ("PIPELINE", "CHAIN"),
    ("EXECUTOR", "AGENT"),
    ("EVALUATOR", "EVALUATOR"),
    ("HUMAN_EVALUATOR", "EVALUATOR"),
    ("EVALUATION", "EVALUATOR"),
    ("CACHED", "LLM"),
];

const LANGFUSE_TYPES: [(&str, &str); 9] = [
    ("generation", "LLM"),
    ("embedding", "EMBEDDING"),
    ("tool", "TOOL"),
    ("retriever", "RETRIEVER"),
    ("agent", "AGENT"),
    ("chain", "CHAIN"),
    ("evaluator", "EVALUATOR"),
    ("guardrail", "GUARDRAIL"),
    ("span", "UNKNOWN"),
];

fn span_type(attrs: &Attrs<'_>) -> Option<&'static str> {
    mapped(attrs, "openinference.span.kind", &OPENINFERENCE_TYPES)
        .or_else(|| gemini::span_type(attrs))
        .or_else(|| claude::span_type(attrs))
        .or_else(|| mapped(attrs, keys::GENAI_OPERATION, &GENAI_TYPES))
        .or_else(|| mapped(attrs, "traceloop.span.kind", &TRACELOOP_TYPES))
        .or_else(|| mapped(attrs, vercel::OPERATION, &vercel::TYPES))
        // A child inherits its agent's `entity.type`, so its own `span.type` goes first.
        .or_else(|| mapped(attrs, "span.type", &VOLTAGENT_TYPES))
        .or_else(|| mapped(attrs, "entity.type", &VOLTAGENT_TYPES))
        .or_else(|| livekit::span_type(attrs))
        .or_else(|| mapped(attrs, "lmnr.span.type", &LAMINAR_TYPES))
        .or_else(|| mapped(attrs, "langfuse.observation.type", &LANGFUSE_TYPES))
}

/// Looks the string under `key` up in a table.
pub(super) fn mapped(
    attrs: &Attrs<'_>,
    key: &str,
    table: &[(&str, &'static str)],
) -> Option<&'static str> {
    let name = attrs.get(key)?.string()?;
    table.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
}

fn input<'a>(attrs: &mut Attrs<'a>) -> Option<Attr<'a>> {
    if let Some(value) = first(attrs, &["input.value"]) {
        return Some(value);
    }
    if gemini::is_gemini(attrs) {
        if let Some(value) = first(attrs, &keys::GENAI_INPUT) {
            return Some(gemini::wrap_input(value));
        }
    }
    if let Some(value) = claude::input(attrs)
        .or_else(|| first(attrs, &keys::GENAI_INPUT))
        .or_else(|| first(attrs, &["traceloop.entity.input"]))
        .or_else(|| first_match(attrs, |k| numbered(k, "gen_ai.prompt.", ".content")))
        .or_else(|| first_match(attrs, is_tool_call_arguments))
        .or_else(|| {
            first(
                attrs,
                &[
                    "gcp.vertex.agent.llm_request",
                    "gcp.vertex.agent.tool_call_args",
                ],
            )
        })
    {
        return Some(value);
    }
    if vercel::is_chat(attrs) {
        let value = vercel::chat_input(attrs);
        attrs.set(keys::MESSAGE_FORMAT, Attr::Text("vercel_ai".to_owned()));
        if value.is_some() {
            return value;
        }
    } else if let Some(value) = first(
        attrs,
        &["ai.prompt", "ai.toolCall.args", "ai.value", "ai.values"],
    ) {
        return Some(value);
    }
    first(
        attrs,
        &[
            "agent.messages",
            "llm.messages",
            "input",
            "lk.user_input",
            "lk.user_transcript",
            "lk.chat_ctx",
            "lk.input_text",
            "lmnr.span.input",
            "langfuse.observation.input",
        ],
    )
}

fn output<'a>(attrs: &Attrs<'a>) -> Option<Attr<'a>> {
    if let Some(value) = first(attrs, &["output.value"]) {
        return Some(value);
    }
    if gemini::is_gemini(attrs) {
        if let Some(value) = first(attrs, &keys::GENAI_OUTPUT) {
            return Some(gemini::wrap_output(value));
        }
    }
    if let Some(value) = claude::output(attrs)
        .or_else(|| first(attrs, &keys::GENAI_OUTPUT))
        .or_else(|| first(attrs, &["traceloop.entity.output"]))
        .or_else(|| first_match(attrs, |k| numbered(k, "gen_ai.completion.", ".content")))
        .or_else(|| {
            first(
                attrs,
                &[
                    "gcp.vertex.agent.llm_response",
                    "gcp.vertex.agent.tool_response",
                ],
            )
        })
    {
        return Some(value);
    }
    let vercel = if vercel::is_chat(attrs) {
        vercel::chat_output(attrs)
    } else {
        first(
            attrs,
            &[
                "ai.response.text",
                "ai.toolCall.result",
                "ai.response.object",
                "ai.embedding",
                "ai.embeddings",
            ],
        )
    };
    vercel.or_else(|| {
        first(
            attrs,
            &[
                "output",
                "lk.response.text",
                "lk.response.function_calls",
                "lmnr.span.output",
                "langfuse.observation.output",
            ],
        )
    })
}

/// The first of `keys` whose value is something.
pub(super) fn first<'a>(attrs: &Attrs<'a>, keys: &[&str]) -> Option<Attr<'a>> {
    keys.iter()
        .find_map(|key| attrs.get(key).filter(|v| v.truthy()))
        .cloned()
}

fn first_match<'a>(attrs: &Attrs<'a>, matches: impl Fn(&str) -> bool) -> Option<Attr<'a>> {
    let (_, value) = attrs.0.iter().find(|(k, v)| matches(k) && v.truthy())?;
    Some(value.clone())
}

/// Whether `key` begins with `before`, a number and `after`.
fn numbered(key: &str, before: &str, after: &str) -> bool {
    after_number(key, before).is_some_and(|rest| rest.starts_with(after))
}

fn is_tool_call_arguments(key: &str) -> bool {
    after_number(key, "gen_ai.completion.")
        .is_some_and(|rest| numbered(rest, ".tool_calls.", ".arguments"))
}

fn after_number<'k>(key: &'k str, before: &str) -> Option<&'k str> {
    let rest = key.strip_prefix(before)?;
    let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    (number.len() < rest.len()).then_some(number)
}

/// Model and provider are decoded and dumped again.
fn reread(value: Attr<'_>) -> Attr<'_> {
    match value {
        Attr::Quoted(_) => value,
        other => match other.decoded() {
            Some(decoded) => Attr::Text(decoded.dumps(false)),
            None => other,
        },
    }
}

fn message_format(attrs: &Attrs<'_>) -> Option<&'static str> {
    if gemini::is_gemini(attrs) {
        return Some("gemini");
    }
    if attrs.has("voltagent.operation_id") || attrs.has("voltagent.conversation_id") {
        return Some("voltagent");
    }
    if attrs.0.iter().any(|(k, _)| k.starts_with("lk.")) {
        return Some("livekit");
    }
    attrs.has("lmnr.span.type").then_some("openai")
}

/// Token counts under the names of one convention.
struct Counts {
    input: Option<Json>,
    output: Option<Json>,
    total: Option<Json>,
    cache_read: Option<Json>,
    cache_creation: Option<Json>,
}

fn usage(attrs: &Attrs<'_>) -> Option<String> {
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

/// A conversation kept in events: of Spring AI, else of the GenAI conventions.
fn input_of_events<'a>(span: &Span) -> Option<Attr<'a>> {
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

fn output_of_events<'a>(attrs: &Attrs<'_>, span: &Span) -> Option<Attr<'a>> {
    event_value(span, "gen_ai.content.completion", "gen_ai.completion")
        .or_else(|| {
            messages(span, |event| {
                (event.name == "gen_ai.choice").then(|| {
                    let role = event.attributes.get("role").map(reread_event_value);
                    role.unwrap_or_else(|| Json::Str("assistant".to_owned()))
                })
            })
        })
        .or_else(|| claude::output_of_events(attrs, span))
}

fn event_value<'a>(span: &Span, event: &str, key: &str) -> Option<Attr<'a>> {
    let value = span
        .events()
        .filter(|e| e.name == event)
        .filter_map(|e| e.attributes.get(key))
        .map(decode)
        .find(Json::truthy)?;
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
        if !decode(content).truthy() {
            continue;
        }
        if let Some(role) = role(&event) {
            list.push(Json::Dict(vec![
                ("role".to_owned(), role),
                ("content".to_owned(), reread_event_value(content)),
            ]));
        }
    }
    (!list.is_empty()).then(|| Attr::Text(Json::List(list).dumps(true)))
}

/// A string in an event may be JSON.
pub(super) fn reread_event_value(value: AnyValueRef<'_>) -> Json {
    match value {
        AnyValueRef::String(text) => {
            json::loads(text).unwrap_or_else(|| Json::Str(text.to_owned()))
        }
        other => decode(other),
    }
}
