//! Spans that follow other conventions than `mlflow.*`: OpenTelemetry GenAI, OpenInference,
//! Traceloop, and the frameworks with attributes of their own. Their type, inputs, outputs, token
//! usage, tools, model and provider are added as the `mlflow.*` attributes MLflow reads.
//!
//! Several conventions may claim one span; the order in which they are asked is MLflow's.

use super::attrs::{Attr, Attrs};
use super::json::Json;
use super::vendors::{claude, gemini, livekit, vercel};
use super::{events, keys, tokens};
use trace_destination_core::Span;

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
        && let Some(value) = input(attrs).or_else(|| events::input(span))
    {
        attrs.set(keys::INPUTS, value);
    }
    if !attrs.has(keys::OUTPUTS)
        && let Some(value) = output(attrs).or_else(|| events::output(attrs, span))
    {
        attrs.set(keys::OUTPUTS, value);
    }
    if !attrs.has(keys::USAGE)
        && let Some(usage) = tokens::usage(attrs)
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
    model_of_payload(attrs);
    if !attrs.has(keys::PROVIDER)
        && let Some(provider) = first(attrs, &PROVIDER_KEYS)
    {
        attrs.set(keys::PROVIDER, reread(provider));
    }
}

/// Takes the model from inside inputs or outputs, for a span that names none: MLflow looks there
/// whatever the span's convention.
pub(super) fn model_of_payload(attrs: &mut Attrs<'_>) {
    if attrs.has(keys::MODEL) {
        return;
    }
    let model = [keys::INPUTS, keys::OUTPUTS]
        .iter()
        .filter_map(|key| attrs.get(key)?.member("model"))
        .find(Json::truthy);
    if let Some(model @ Json::Str(_)) = model {
        attrs.set(keys::MODEL, Attr::Text(model.dumps(false)));
    }
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
    if gemini::is_gemini(attrs)
        && let Some(value) = first(attrs, &keys::GENAI_INPUT)
    {
        return Some(gemini::wrap_input(value));
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
    if gemini::is_gemini(attrs)
        && let Some(value) = first(attrs, &keys::GENAI_OUTPUT)
    {
        return Some(gemini::wrap_output(value));
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
