//! Names of the attributes, tags and metadata that mean something to MLflow (3.17.2).

pub(crate) const REQUEST_ID: &str = "mlflow.traceRequestId";
pub(crate) const SPAN_TYPE: &str = "mlflow.spanType";
pub(crate) const USAGE: &str = "mlflow.chat.tokenUsage";
pub(crate) const COST: &str = "mlflow.llm.cost";
/// Prefix under which a root span carries the trace's tags.
pub(crate) const TRACE_TAG: &str = "mlflow.traceTag.";
/// The tag that is the name of the trace.
pub(crate) const TRACE_NAME: &str = "mlflow.traceName";
/// The attribute of a root span that carries the name of the trace.
pub(crate) const TRACE_NAME_ATTRIBUTE: &str = "mlflow.traceTag.mlflow.traceName";
/// Tags by which MLflow finds a trace's data. Set from outside they make the trace unreadable.
pub(crate) const RESERVED_TAGS: [&str; 4] = [
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
    "mlflow.artifactLocation",
];
/// Metadata that holds a trace's session and user.
pub(crate) const SESSION_METADATA: &str = "mlflow.trace.session";
pub(crate) const USER_METADATA: &str = "mlflow.trace.user";
/// OpenTelemetry semantic conventions: `session`, `user` and `gen_ai`.
pub(crate) const SESSION: &str = "session.id";
pub(crate) const CONVERSATION: &str = "gen_ai.conversation.id";
pub(crate) const USER: &str = "user.id";
