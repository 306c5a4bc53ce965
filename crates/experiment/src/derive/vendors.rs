//! Frameworks whose attributes need more than a table of names.

/// Gemini CLI: GenAI attributes, with operation names and a message shape of its own.
pub(super) mod gemini {
    use super::super::attrs::{Attr, Attrs};
    use super::super::genai::mapped;
    use super::super::json::Json;
    use super::super::keys;

    const TYPES: [(&str, &str); 3] = [
        ("llm_call", "LLM"),
        ("tool_call", "TOOL"),
        ("agent_call", "AGENT"),
    ];

    pub(in super::super) fn is_gemini(attrs: &Attrs<'_>) -> bool {
        let name = attrs.get("gen_ai.agent.name").and_then(Attr::string);
        name.is_some_and(|name| name == "gemini-cli")
    }

    pub(in super::super) fn span_type(attrs: &Attrs<'_>) -> Option<&'static str> {
        is_gemini(attrs)
            .then(|| mapped(attrs, keys::GENAI_OPERATION, &TYPES))
            .flatten()
    }

    /// The request as the Gemini SDK sends it, `{"contents": …}`.
    pub(in super::super) fn wrap_input(value: Attr<'_>) -> Attr<'_> {
        match value.decoded() {
            Some(contents @ (Json::List(_) | Json::Str(_))) => {
                Attr::Text(Json::Dict(vec![("contents".to_owned(), contents)]).dumps(true))
            }
            _ => value,
        }
    }

    /// The response as the Gemini SDK returns it: one candidate with the parts of all messages.
    pub(in super::super) fn wrap_output(value: Attr<'_>) -> Attr<'_> {
        let Some(Json::List(messages)) = value.decoded() else {
            return value;
        };
        let parts: Vec<Json> = messages
            .iter()
            .filter_map(|m| m.get("parts")?.as_list())
            .flatten()
            .cloned()
            .collect();
        if parts.is_empty() {
            return value;
        }
        let content = vec![
            ("role".to_owned(), Json::Str("model".to_owned())),
            ("parts".to_owned(), Json::List(parts)),
        ];
        let candidate = Json::Dict(vec![("content".to_owned(), Json::Dict(content))]);
        let response = vec![("candidates".to_owned(), Json::List(vec![candidate]))];
        Attr::Text(Json::Dict(response).dumps(true))
    }
}

/// Claude Code and the Claude Agent SDK.
pub(super) mod claude {
    use super::super::attrs::{Attr, Attrs};
    use super::super::events::reread;
    use super::super::json::Json;
    use super::super::keys;
    use super::super::tokens::parse_int;
    use trace_destination_core::Span;

    const REDACTED: &str = "<REDACTED>";
    const DETAILS: [&str; 4] = ["full_command", "file_path", "skill_name", "subagent_type"];

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Interaction,
        LlmRequest,
        Tool,
    }

    /// Some versions write the kind with the prefix `claude_code.`, some without.
    fn kind(attrs: &Attrs<'_>) -> Option<Kind> {
        let name = attrs.get(keys::CLAUDE_SPAN_TYPE)?.string()?;
        match name.strip_prefix("claude_code.").unwrap_or(&name) {
            "interaction" => Some(Kind::Interaction),
            "llm_request" => Some(Kind::LlmRequest),
            "tool" => Some(Kind::Tool),
            _ => None,
        }
    }

    pub(in super::super) fn span_type(attrs: &Attrs<'_>) -> Option<&'static str> {
        Some(match kind(attrs)? {
            Kind::Interaction => "AGENT",
            Kind::LlmRequest => "LLM",
            Kind::Tool => "TOOL",
        })
    }

    /// Content is redacted unless the user opted in.
    fn content<'a>(attrs: &Attrs<'a>, key: &str) -> Option<Attr<'a>> {
        let value = attrs.get(key).filter(|v| v.truthy())?;
        (value.string().as_deref() != Some(REDACTED)).then(|| value.clone())
    }

    pub(in super::super) fn input<'a>(attrs: &Attrs<'a>) -> Option<Attr<'a>> {
        match kind(attrs)? {
            Kind::Interaction => {
                content(attrs, "user_prompt").or_else(|| content(attrs, "new_context"))
            }
            Kind::LlmRequest => content(attrs, "new_context"),
            Kind::Tool => content(attrs, "tool_input").or_else(|| {
                let details: Vec<(String, Json)> = DETAILS
                    .iter()
                    .filter_map(|key| Some(((*key).to_owned(), content(attrs, key)?.decoded()?)))
                    .collect();
                (!details.is_empty()).then(|| Attr::Text(Json::Dict(details).dumps(true)))
            }),
        }
    }

    pub(in super::super) fn output<'a>(attrs: &Attrs<'a>) -> Option<Attr<'a>> {
        match kind(attrs)? {
            Kind::Interaction => None,
            Kind::LlmRequest => content(attrs, "response.model_output"),
            Kind::Tool => content(attrs, "new_context"),
        }
    }

    pub(in super::super) fn events_output<'a>(attrs: &Attrs<'_>, span: &Span) -> Option<Attr<'a>> {
        if kind(attrs)? != Kind::Tool {
            return None;
        }
        span.events()
            .filter(|event| event.name == "tool.output")
            .find_map(|event| {
                ["output", "content", "diff"]
                    .iter()
                    .filter_map(|key| event.attributes.get(key))
                    .map(reread)
                    .find(|value| value.truthy() && value.as_str() != Some(REDACTED))
            })
            .map(|value| Attr::Text(value.dumps(false)))
    }

    pub(in super::super) struct Counts {
        pub(in super::super) input: Option<i128>,
        pub(in super::super) output: Option<i128>,
        pub(in super::super) cache_read: Option<i128>,
        pub(in super::super) cache_creation: Option<i128>,
    }

    /// Claude counts input without what came from the cache; MLflow counts it in.
    pub(in super::super) fn counts(attrs: &Attrs<'_>) -> Counts {
        let is_request = kind(attrs) == Some(Kind::LlmRequest);
        let count = |key: &str| match attrs.get(key).filter(|_| is_request)?.decoded()? {
            Json::Int(v) => Some(v),
            Json::Bool(v) => Some(i128::from(v)),
            Json::Float(v) if v.is_finite() => Some(v as i128),
            Json::Str(text) => parse_int(&text),
            _ => None,
        };
        let (cache_read, cache_creation) =
            (count("cache_read_tokens"), count("cache_creation_tokens"));
        Counts {
            input: count("input_tokens").map(|input| {
                input
                    .saturating_add(cache_read.unwrap_or(0))
                    .saturating_add(cache_creation.unwrap_or(0))
            }),
            output: count("output_tokens"),
            cache_read,
            cache_creation,
        }
    }
}

/// The Vercel AI SDK.
pub(super) mod vercel {
    use super::super::attrs::{Attr, Attrs};
    use super::super::json::{self, Json};

    pub(in super::super) const OPERATION: &str = "ai.operationId";

    pub(in super::super) const TYPES: [(&str, &str); 12] = [
        ("ai.generateText", "LLM"),
        ("ai.generateText.doGenerate", "LLM"),
        ("ai.toolCall", "TOOL"),
        ("ai.streamText", "LLM"),
        ("ai.streamText.doStream", "LLM"),
        ("ai.generateObject", "LLM"),
        ("ai.generateObject.doGenerate", "LLM"),
        ("ai.streamObject", "LLM"),
        ("ai.streamObject.doStream", "LLM"),
        ("ai.embed", "EMBEDDING"),
        ("ai.embed.doEmbed", "EMBEDDING"),
        ("ai.embedMany", "EMBEDDING"),
    ];

    /// Whether the span is a call of the model, whose messages come in several attributes.
    pub(in super::super) fn is_chat(attrs: &Attrs<'_>) -> bool {
        attrs.get(OPERATION).is_some_and(|operation| {
            matches!(
                load(operation, 2).as_str(),
                Some("ai.generateText.doGenerate" | "ai.streamText.doStream")
            )
        })
    }

    pub(in super::super) fn chat_input<'a>(attrs: &Attrs<'_>) -> Option<Attr<'a>> {
        let mut inputs = with_prefix(attrs, "ai.prompt.");
        if let Some((_, Json::List(tools))) = inputs.iter_mut().find(|(k, _)| k == "tools") {
            for tool in tools {
                *tool = reload(tool.clone(), 2);
            }
        }
        text(inputs)
    }

    pub(in super::super) fn chat_output<'a>(attrs: &Attrs<'_>) -> Option<Attr<'a>> {
        text(with_prefix(attrs, "ai.response."))
    }

    fn text<'a>(entries: Vec<(String, Json)>) -> Option<Attr<'a>> {
        (!entries.is_empty()).then(|| Attr::Text(Json::Dict(entries).dumps(true)))
    }

    fn with_prefix(attrs: &Attrs<'_>, prefix: &str) -> Vec<(String, Json)> {
        attrs
            .0
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), load(value, 2))))
            .collect()
    }

    fn load(value: &Attr<'_>, depth: u32) -> Json {
        match value.decoded() {
            Some(decoded) => reload(decoded, depth - 1),
            None => Json::Str(value.text().into_owned()),
        }
    }

    /// Decodes JSON within JSON, `depth` times more after the first.
    fn reload(value: Json, depth: u32) -> Json {
        match &value {
            Json::Str(text) => match json::loads(text) {
                Some(decoded) if depth > 0 => reload(decoded, depth - 1),
                Some(decoded) => decoded,
                None => value,
            },
            _ => value,
        }
    }
}

/// LiveKit Agents.
pub(super) mod livekit {
    use super::super::attrs::Attrs;
    use super::super::genai::GENAI_TYPES;
    use super::super::keys;

    pub(in super::super) fn span_type(attrs: &Attrs<'_>) -> Option<&'static str> {
        if attrs.has("gen_ai.request.model") {
            return Some("LLM");
        }
        if let Some(operation) = attrs.get(keys::GENAI_OPERATION) {
            let operation = operation.plain().to_lowercase();
            if let Some((_, kind)) = GENAI_TYPES.iter().find(|(name, _)| *name == operation) {
                return Some(kind);
            }
        }
        attrs.0.iter().find_map(|(key, _)| match *key {
            "lk.retry_count" => Some("LLM"),
            k if k.starts_with("lk.function_tool") => Some("TOOL"),
            "lk.agent_name" | "lk.instructions" | "lk.generation_id" => Some("AGENT"),
            k if k.starts_with("lk.tts") => Some("UNKNOWN"),
            "lk.input_text"
            | "lk.user_transcript"
            | "lk.transcript_confidence"
            | "lk.transcription_delay" => Some("UNKNOWN"),
            _ => None,
        })
    }
}
