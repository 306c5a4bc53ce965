//! Values of a trace as a place without a home for them shows them: as attributes of the root.

use crate::harness::Stored;
use opentelemetry::trace::TraceId;
use trace_destination_core::{AnyValue, SpanRecord, TraceUpdate};

/// Reads the values of a trace from its root span: by the names in `docs/trace-values.md`, and by
/// no code of the pipeline.
///
/// Where a root repeats a name, the last one counts; the pipeline writes none twice.
pub fn values_on_root(root: &SpanRecord) -> TraceUpdate {
    let mut values = TraceUpdate::new(root.trace_id);
    for attribute in &root.attributes {
        let AnyValue::String(text) = &attribute.value else {
            continue;
        };
        let text = text.to_string();
        let slot = match attribute.key.as_str() {
            "session.id" => &mut values.session_id,
            "user.id" => &mut values.user_id,
            "mlflow.traceTag.mlflow.traceName" => &mut values.name,
            "mlflow.traceInputs" => &mut values.request_preview,
            "mlflow.traceOutputs" => &mut values.response_preview,
            "mlflow.trace.clientRequestId" => &mut values.client_request_id,
            "mlflow.sourceRun" => &mut values.run_id,
            key => {
                if let Some(tag) = key.strip_prefix("mlflow.traceTag.") {
                    values.tags.insert(tag.to_owned(), text);
                } else if let Some(key) = key.strip_prefix("mlflow.traceMetadata.") {
                    values.metadata.insert(key.to_owned(), text);
                }
                continue;
            }
        };
        *slot = Some(text);
    }
    values
}

impl Stored {
    /// What is stored of the values of a trace: [`Stored::updates`], or what its root has.
    pub fn values(&self, trace: TraceId) -> Option<TraceUpdate> {
        let update = self.updates.iter().find(|u| u.trace_id == trace);
        update.cloned().or_else(|| {
            let of_trace = |span: &&SpanRecord| span.trace_id == trace;
            let mut roots = self.spans.iter().map(|s| &s.span).filter(of_trace);
            roots
                .find(|s| s.parent_span_id.is_none())
                .map(values_on_root)
        })
    }
}
