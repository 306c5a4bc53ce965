//! Trace-level values: what belongs to a trace as a whole rather than to one span.

use opentelemetry::trace::TraceId;
use std::collections::BTreeMap;

/// Values an application set on a trace through the trace-level API. Only what is present is
/// changed at the destination; of several updates of one value the last wins.
///
/// The fields are those of MLflow's `mlflow.update_current_trace` (3.17.2) and its `TraceInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceUpdate {
    /// The trace the values belong to.
    pub trace_id: TraceId,
    /// Mutable labels, merged key by key.
    pub tags: BTreeMap<String, String>,
    /// Immutable facts about the trace, merged key by key.
    pub metadata: BTreeMap<String, String>,
    /// The display name of the trace.
    pub name: Option<String>,
    /// The conversation the trace belongs to.
    pub session_id: Option<String>,
    /// The end user the trace was made for.
    pub user_id: Option<String>,
    /// The caller's own id for the request.
    pub client_request_id: Option<String>,
    /// Short text of the request, shown in lists.
    pub request_preview: Option<String>,
    /// Short text of the response, shown in lists.
    pub response_preview: Option<String>,
    /// The MLflow run the trace is linked to.
    pub run_id: Option<String>,
}

impl TraceUpdate {
    /// An update of `trace_id` that changes nothing yet.
    pub fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            tags: BTreeMap::new(),
            metadata: BTreeMap::new(),
            name: None,
            session_id: None,
            user_id: None,
            client_request_id: None,
            request_preview: None,
            response_preview: None,
            run_id: None,
        }
    }

    /// Takes over every value that `later` sets.
    pub fn merge(&mut self, later: TraceUpdate) {
        self.tags.extend(later.tags);
        self.metadata.extend(later.metadata);
        for (slot, value) in [
            (&mut self.name, later.name),
            (&mut self.session_id, later.session_id),
            (&mut self.user_id, later.user_id),
            (&mut self.client_request_id, later.client_request_id),
            (&mut self.request_preview, later.request_preview),
            (&mut self.response_preview, later.response_preview),
            (&mut self.run_id, later.run_id),
        ] {
            if value.is_some() {
                *slot = value;
            }
        }
    }

    /// Memory this update holds, estimated.
    pub(crate) fn approximate_bytes(&self) -> usize {
        let map = |m: &BTreeMap<String, String>| -> usize {
            m.iter().map(|(k, v)| 64 + k.len() + v.len()).sum()
        };
        let text: usize = [
            &self.name,
            &self.session_id,
            &self.user_id,
            &self.client_request_id,
            &self.request_preview,
            &self.response_preview,
            &self.run_id,
        ]
        .iter()
        .filter_map(|v| v.as_ref().map(String::len))
        .sum();
        size_of::<Self>() + map(&self.tags) + map(&self.metadata) + text
    }
}
