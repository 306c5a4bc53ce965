//! Spans of language-model applications: the OpenTelemetry GenAI conventions (1.38), and MLflow's
//! own attributes with typed values.

use super::parts::{event, failed, group, instrumented, list, map, named, of_kind, ok, shop, span};
use std::sync::Arc;
use trace_destination_core::{Attribute, Resource, SpanGroup, SpanKind, SpanRecord};

const INPUT: &str =
    r#"[{"role":"user","parts":[{"type":"text","content":"Where is order 7? 🚚"}]}]"#;
const OUTPUT: &str = r#"[{"role":"assistant","parts":[{"type":"text","content":"On its way."}],"finish_reason":"stop"}]"#;

/// An agent that looks something up, asks a model twice, calls a tool, and fails once.
pub(super) fn agent() -> Vec<SpanGroup> {
    let agent = ok(of_kind(
        span(60, 1, None, "invoke_agent Support"),
        SpanKind::Internal,
    ))
    .with_attribute("gen_ai.operation.name", "invoke_agent")
    .with_attribute("gen_ai.provider.name", "openai")
    .with_attribute("gen_ai.agent.name", "Support")
    .with_attribute("gen_ai.agent.id", "asst_7")
    .with_attribute("gen_ai.conversation.id", "conversation-60")
    .with_attribute("gen_ai.input.messages", INPUT)
    .with_attribute("gen_ai.output.messages", OUTPUT);

    let embeddings = client(span(60, 2, Some(1), "embeddings text-embedding-3-small"))
        .with_attribute("gen_ai.operation.name", "embeddings")
        .with_attribute("gen_ai.provider.name", "openai")
        .with_attribute("gen_ai.request.model", "text-embedding-3-small")
        .with_attribute("gen_ai.embeddings.dimension.count", 1536)
        .with_attribute("gen_ai.request.encoding_formats", list(["float".into()]))
        .with_attribute("gen_ai.usage.input_tokens", 8);

    let chat = chat(span(60, 3, Some(1), "chat gpt-4o-mini"), 120, 18)
        .with_attribute("gen_ai.tool.definitions", r#"[{"type":"function","name":"track","parameters":{"type":"object","properties":{"order":{"type":"integer"}}}}]"#)
        .with_attribute("gen_ai.usage.cache_read.input_tokens", 64)
        .with_attribute(
            "gen_ai.system_instructions",
            r#"[{"type":"text","content":"Be brief."}]"#,
        )
        .with_attribute("gen_ai.input.messages", INPUT)
        .with_attribute("gen_ai.output.messages", r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"call_1","name":"track","arguments":{"order":7}}],"finish_reason":"tool_call"}]"#);

    let tool = ok(of_kind(
        span(60, 4, Some(1), "execute_tool track"),
        SpanKind::Internal,
    ))
    .with_attribute("gen_ai.operation.name", "execute_tool")
    .with_attribute("gen_ai.tool.name", "track")
    .with_attribute("gen_ai.tool.type", "function")
    .with_attribute("gen_ai.tool.call.id", "call_1")
    .with_attribute("gen_ai.tool.call.arguments", r#"{"order":7}"#)
    .with_attribute("gen_ai.tool.call.result", r#"{"state":"on its way"}"#);

    // Messages as typed values instead of JSON text: both are allowed.
    let messages = list([map([
        ("role", "assistant".into()),
        (
            "parts",
            list([map([
                ("type", "text".into()),
                ("content", "On its way.".into()),
            ])]),
        ),
        ("finish_reason", "stop".into()),
    ])]);
    let typed = self::chat(span(60, 5, Some(1), "chat gpt-4o-mini"), 150, 12)
        .with_attribute("gen_ai.output.messages", messages);

    let throttled = failed(
        client(span(60, 6, Some(1), "chat gpt-4o-mini")),
        "RateLimitError",
        "429: slow down",
    )
    .with_attribute("gen_ai.operation.name", "chat")
    .with_attribute("gen_ai.request.model", "gpt-4o-mini")
    .with_attribute("error.type", "RateLimitError");

    // Earlier versions of the conventions put messages into events.
    let mut early = self::chat(span(61, 1, None, "chat gpt-4o-mini"), 9, 4);
    for (name, role, text) in [
        ("gen_ai.user.message", "user", "hi"),
        ("gen_ai.choice", "assistant", "hello"),
    ] {
        let message = vec![
            Attribute::new("role", role),
            Attribute::new("content", text),
        ];
        early.events.push(event(name, &early, message));
    }
    let completion = client(span(62, 1, None, "text_completion davinci"))
        .with_attribute("gen_ai.operation.name", "text_completion")
        .with_attribute("gen_ai.system", "openai")
        .with_attribute("gen_ai.request.model", "davinci")
        .with_attribute("gen_ai.usage.prompt_tokens", 5)
        .with_attribute("gen_ai.usage.completion_tokens", 7);
    vec![group(
        &shop(),
        &instrumented(),
        vec![
            embeddings, chat, tool, typed, throttled, agent, early, completion,
        ],
    )]
}

fn client(span: SpanRecord) -> SpanRecord {
    of_kind(span, SpanKind::Client).with_attribute("server.address", "api.openai.example")
}

fn chat(span: SpanRecord, input: i64, output: i64) -> SpanRecord {
    client(span)
        .with_attribute("gen_ai.operation.name", "chat")
        .with_attribute("gen_ai.provider.name", "openai")
        .with_attribute("gen_ai.request.model", "gpt-4o-mini")
        .with_attribute("gen_ai.response.model", "gpt-4o-mini-2024-07-18")
        .with_attribute("gen_ai.response.id", "chatcmpl-7")
        .with_attribute("gen_ai.request.temperature", 0.2)
        .with_attribute("gen_ai.request.max_tokens", 256)
        .with_attribute("gen_ai.response.finish_reasons", list(["stop".into()]))
        .with_attribute("gen_ai.usage.input_tokens", input)
        .with_attribute("gen_ai.usage.output_tokens", output)
}

/// MLflow's own attributes, typed where its SDK writes JSON text; a span's token usage that hides
/// its children's.
pub(super) fn mlflow_attributes() -> Vec<SpanGroup> {
    let usage = |input: i64, output: i64| {
        map([
            ("input_tokens", input.into()),
            ("output_tokens", output.into()),
            ("total_tokens", (input + output).into()),
        ])
    };
    let question = map([(
        "messages",
        list([map([
            ("role", "user".into()),
            ("content", "What is new?".into()),
        ])]),
    )]);
    let root = ok(span(70, 1, None, "answer"))
        .with_attribute("mlflow.spanType", "AGENT")
        .with_attribute("mlflow.spanInputs", question)
        .with_attribute(
            "mlflow.spanOutputs",
            map([("answer", "Nothing.".into()), ("sources", list([]))]),
        )
        .with_attribute("mlflow.traceTag.mlflow.traceName", "news")
        .with_attribute("mlflow.traceTag.team", "search")
        .with_attribute("mlflow.traceTag.a/b \u{e9}", "a tag with a strange key");
    let hides = ok(span(70, 2, Some(1), "chain"))
        .with_attribute("mlflow.spanType", "CHAIN")
        .with_attribute("mlflow.chat.tokenUsage", usage(10, 5));
    let hidden = span(70, 3, Some(2), "model")
        .with_attribute("mlflow.spanType", "CHAT_MODEL")
        .with_attribute("mlflow.llm.model", "gpt-4o-mini")
        .with_attribute("mlflow.llm.provider", "openai")
        .with_attribute("mlflow.chat.tokenUsage", usage(10, 5));
    let adds = span(70, 4, Some(1), "model")
        .with_attribute("mlflow.spanType", "LLM")
        .with_attribute(
            "mlflow.chat.tokenUsage",
            r#"{"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}"#,
        )
        .with_attribute(
            "mlflow.llm.cost",
            r#"{"input_cost": 0.001, "output_cost": 0.002, "total_cost": 0.003}"#,
        );
    let plain = span(71, 1, None, "plain values")
        .with_attribute("mlflow.spanInputs", "just text")
        .with_attribute("mlflow.spanOutputs", 42);
    vec![group(
        &shop(),
        &named(),
        vec![root, hides, hidden, adds, plain],
    )]
}

/// Two turns of one session, one user without a session, and both on a child only.
pub(super) fn sessions() -> Vec<SpanGroup> {
    let turn = |trace, text: &'static str| {
        ok(span(trace, 1, None, "turn"))
            .with_attribute("session.id", "session-\u{fc}-1")
            .with_attribute("user.id", "user@example.org")
            .with_attribute("input.value", text)
            .with_attribute("output.value", "ok")
    };
    let anonymous = ok(span(82, 1, None, "turn")).with_attribute("user.id", "");
    let root = ok(span(83, 1, None, "turn"));
    let child = span(83, 2, Some(1), "step")
        .with_attribute("session.id", "session of the child")
        .with_attribute("user.id", "user of the child");
    let mobile = Arc::new(Resource {
        attributes: vec![
            Attribute::new("service.name", "mobile"),
            Attribute::new("session.id", "a session on the resource is none"),
        ],
        ..Resource::default()
    });
    vec![
        group(
            &shop(),
            &named(),
            vec![turn(80, "first"), turn(81, "second"), anonymous],
        ),
        group(&mobile, &named(), vec![root, child]),
    ]
}
