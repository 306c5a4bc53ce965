//! Common attribute keys of the semantic conventions. All attributes share one static text per key,
//! so that decoding one allocates nothing.

use foldhash::fast::FixedState;
use opentelemetry::Key;
use std::collections::HashSet;
use std::sync::LazyLock;

/// A key from the wire; a common one becomes its static text.
pub(crate) fn key(text: String) -> Key {
    match KNOWN.get(text.as_str()) {
        Some(known) => Key::from_static_str(known),
        None => text.into(),
    }
}

static KNOWN: LazyLock<HashSet<&'static str, FixedState>> = LazyLock::new(|| {
    COMMON
        .iter()
        .flat_map(|keys| keys.iter().copied())
        .collect()
});

/// Only for speed: any other key gets its own allocated text.
const COMMON: [&[&str]; 4] = [GEN_AI, GENERAL, MLFLOW, OPEN_INFERENCE];

/// OpenTelemetry semantic conventions 1.42, registry `gen_ai` and `mcp`.
const GEN_AI: &[&str] = &[
    "gen_ai.agent.description",
    "gen_ai.agent.id",
    "gen_ai.agent.name",
    "gen_ai.completion",
    "gen_ai.conversation.id",
    "gen_ai.data_source.id",
    "gen_ai.input.messages",
    "gen_ai.operation.name",
    "gen_ai.output.messages",
    "gen_ai.output.type",
    "gen_ai.prompt",
    "gen_ai.prompt.name",
    "gen_ai.provider.name",
    "gen_ai.request.choice.count",
    "gen_ai.request.encoding_formats",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.max_tokens",
    "gen_ai.request.model",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.seed",
    "gen_ai.request.stop_sequences",
    "gen_ai.request.stream",
    "gen_ai.request.temperature",
    "gen_ai.request.top_k",
    "gen_ai.request.top_p",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.system",
    "gen_ai.system_instructions",
    "gen_ai.token.type",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.id",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.tool.description",
    "gen_ai.tool.name",
    "gen_ai.tool.type",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "mcp.method.name",
    "mcp.protocol.version",
    "mcp.resource.uri",
    "mcp.session.id",
];

/// OpenTelemetry semantic conventions 1.42, what most services say.
const GENERAL: &[&str] = &[
    "client.address",
    "client.port",
    "code.file.path",
    "code.function.name",
    "code.line.number",
    "db.collection.name",
    "db.namespace",
    "db.operation.name",
    "db.query.text",
    "db.response.status_code",
    "db.system.name",
    "error.type",
    "exception.escaped",
    "exception.message",
    "exception.stacktrace",
    "exception.type",
    "http.request.body.size",
    "http.request.method",
    "http.response.body.size",
    "http.response.status_code",
    "http.route",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.name",
    "network.protocol.version",
    "network.transport",
    "server.address",
    "server.port",
    "service.instance.id",
    "service.name",
    "service.namespace",
    "service.version",
    "session.id",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "thread.id",
    "thread.name",
    "url.full",
    "url.path",
    "url.query",
    "url.scheme",
    "user.id",
    "user_agent.original",
];

/// MLflow 3.17, `mlflow/tracing/constant.py`, `SpanAttributeKey`.
const MLFLOW: &[&str] = &[
    "mlflow.chat.tokenUsage",
    "mlflow.chat.tools",
    "mlflow.llm.cost",
    "mlflow.llm.model",
    "mlflow.llm.provider",
    "mlflow.message.format",
    "mlflow.modelId",
    "mlflow.spanFunctionName",
    "mlflow.spanInputs",
    "mlflow.spanLogLevel",
    "mlflow.spanOutputs",
    "mlflow.spanType",
    "mlflow.traceRequestId",
];

/// OpenInference (Arize), `spec/semantic_conventions.md`, July 2026.
const OPEN_INFERENCE: &[&str] = &[
    "input.mime_type",
    "input.value",
    "llm.invocation_parameters",
    "llm.model_name",
    "llm.provider",
    "llm.system",
    "llm.token_count.completion",
    "llm.token_count.prompt",
    "llm.token_count.total",
    "metadata",
    "openinference.span.kind",
    "output.mime_type",
    "output.value",
    "tag.tags",
    "tool.description",
    "tool.name",
    "tool.parameters",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_keys_share_their_text_and_others_have_their_own() {
        // Both alive at once: memory that was freed may be given out again at the same place.
        let shared = |text: &str| {
            let (one, other) = (key(text.to_owned()), key(text.to_owned()));
            std::ptr::eq(one.as_str(), other.as_str())
        };
        assert!(shared("gen_ai.request.model"));
        assert!(!shared("my.own"));
        for text in ["", "gen_ai.request.modeL", "my.own", "mlflow.spanType "] {
            let own = key(text.to_owned());
            assert_eq!(own.as_str(), text);
            assert!(!KNOWN.contains(text));
        }
    }

    #[test]
    fn every_common_key_is_listed_once_and_comes_out_as_it_went_in() {
        let all: Vec<_> = COMMON.concat();
        assert_eq!(all.len(), KNOWN.len());
        for text in all {
            assert_eq!(key(text.to_owned()).as_str(), text);
        }
    }

    #[test]
    fn most_keys_of_captured_agents_are_common() {
        let groups = crate::decode_protobuf(crate::sample::captured()).unwrap();
        let spans = groups.iter().flat_map(|g| &g.spans);
        let (mut common, mut all) = (0, 0);
        for attribute in spans.flat_map(|s| &s.attributes) {
            all += 1;
            common += usize::from(KNOWN.contains(attribute.key.as_str()));
        }
        assert!(common * 4 > all * 3, "{common} of {all}");
    }
}
