//! Names of the attributes that mean something to MLflow.

pub(super) const REQUEST_ID: &str = "mlflow.traceRequestId";
pub(super) const SPAN_TYPE: &str = "mlflow.spanType";
pub(super) const INPUTS: &str = "mlflow.spanInputs";
pub(super) const OUTPUTS: &str = "mlflow.spanOutputs";
pub(super) const USAGE: &str = "mlflow.chat.tokenUsage";
pub(super) const COST: &str = "mlflow.llm.cost";
pub(super) const MODEL: &str = "mlflow.llm.model";
pub(super) const PROVIDER: &str = "mlflow.llm.provider";
pub(super) const MESSAGE_FORMAT: &str = "mlflow.message.format";
pub(super) const CHAT_TOOLS: &str = "mlflow.chat.tools";
/// Prefix under which a root span carries the trace's tags.
pub(super) const TRACE_TAG: &str = "mlflow.traceTag.";
/// The tag that is the name of the trace.
pub(super) const TRACE_NAME: &str = "mlflow.traceName";
pub(super) use crate::sql::RESERVED_TAGS;
/// OpenTelemetry semantic conventions: `session` and `user` registries, `gen_ai`.
pub(super) const SESSION: &str = "session.id";
pub(super) const CONVERSATION: &str = "gen_ai.conversation.id";
pub(super) const USER: &str = "user.id";
pub(super) const GENAI_OPERATION: &str = "gen_ai.operation.name";
pub(super) const GENAI_INPUT: [&str; 2] = ["gen_ai.input.messages", "gen_ai.tool.call.arguments"];
pub(super) const GENAI_OUTPUT: [&str; 2] = ["gen_ai.output.messages", "gen_ai.tool.call.result"];
/// Claude Code's and VoltAgent's kind of span.
pub(super) const CLAUDE_SPAN_TYPE: &str = "span.type";
