//! Values of a trace as attributes of its root span, for a place that has spans and nothing else.

use crate::record::{Span, TraceUpdate};

/// Names that MLflow's server and SDK read from a span, or give to the same value elsewhere
/// (`SpanAttributeKey` and `TraceMetadataKey` of `mlflow/tracing/constant.py`, 3.17.2).
const SESSION: &str = "session.id";
const USER: &str = "user.id";
const TAG: &str = "mlflow.traceTag.";
const NAME: &str = "mlflow.traceName";
const SESSION_METADATA: &str = "mlflow.trace.session";
const USER_METADATA: &str = "mlflow.trace.user";
const RUN: &str = "mlflow.sourceRun";
const REQUEST: &str = "mlflow.traceInputs";
const RESPONSE: &str = "mlflow.traceOutputs";
/// MLflow has no attribute for these: its own prefixes, continued.
const CLIENT_REQUEST: &str = "mlflow.trace.clientRequestId";
const METADATA: &str = "mlflow.traceMetadata.";

/// Writes the values of a trace on its root span. Attributes of the same meaning give way, so that
/// nothing is there twice.
pub(crate) fn write(update: TraceUpdate, root: &mut Span) {
    let TraceUpdate {
        trace_id: _,
        mut tags,
        mut metadata,
        name,
        session_id,
        user_id,
        client_request_id,
        request_preview,
        response_preview,
        run_id,
    } = update;
    // Under its own name a value wins over the same one under the name of a tag or of metadata.
    let tagged_name = tags.remove(NAME);
    let in_metadata = [SESSION_METADATA, USER_METADATA, RUN].map(|key| metadata.remove(key));
    let [session, user, run] = in_metadata;
    if let Some(name) = name.or(tagged_name) {
        root.set_attribute(format!("{TAG}{NAME}"), name, &[]);
    }
    for (key, value, same) in [
        (SESSION, session_id.or(session), &[SESSION_METADATA][..]),
        (USER, user_id.or(user), &[USER_METADATA]),
        (RUN, run_id.or(run), &[]),
        (REQUEST, request_preview, &[]),
        (RESPONSE, response_preview, &[]),
        (CLIENT_REQUEST, client_request_id, &[]),
    ] {
        if let Some(value) = value {
            root.set_attribute(key, value, same);
        }
    }
    for (key, value) in tags {
        root.set_attribute(format!("{TAG}{key}"), value, &[]);
    }
    for (key, value) in metadata {
        let key = match key.starts_with("mlflow.") {
            true => key,
            false => format!("{METADATA}{key}"),
        };
        root.set_attribute(key, value, &[]);
    }
}

#[cfg(test)]
mod tests;
