//! What an application said about a trace, which spans do not carry: MLflow's client writes it
//! beside them when the root has ended (MLflow 3.17.2, trace info V4).

use super::Table;
use crate::client::Call;
use crate::encode::is_own_tag;
use crate::error::FaultExt as _;
use crate::host::Host;
use crate::keys;
use crate::later::{Complete, Left};
use crate::mlflow::TraceMemory;
use async_trait::async_trait;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use opentelemetry::trace::TraceId;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use trace_destination_core::{LocationUri, Span, StatusCode, TraceUpdate};

/// Traces completed at the same time.
const AT_ONCE: usize = 4;

/// What is written of one trace.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    path: String,
    body: Value,
}

impl Info {
    /// What was said about a trace whose root is stored.
    pub(super) fn new(table: &Table, root: &Span, update: &TraceUpdate) -> Self {
        Self {
            path: format!(
                "/api/4.0/mlflow/traces/{}/{}/info",
                table.location,
                root.trace_id()
            ),
            body: info(table, root, update),
        }
    }
}

/// What makes the calls of one location.
pub(super) struct Completion {
    pub(super) uri: LocationUri,
    pub(super) host: Arc<Host>,
    pub(super) memory: Arc<TraceMemory>,
}

#[async_trait]
impl Complete<Info> for Completion {
    async fn complete(&self, jobs: Vec<(TraceId, Info)>) -> Vec<Left<Info>> {
        let results = futures_util::stream::iter(jobs).map(|(trace, job)| async move {
            let call = Call::new(Method::POST, &*job.path).with_json(&job.body);
            match self.host.client.call(call).await {
                Ok(_) => None,
                Err(fault) if matches!(fault.status(), Some(400 | 413 | 422)) => {
                    self.memory.lost(trace, fault);
                    None
                }
                Err(fault) => Some(Left {
                    trace,
                    job,
                    error: Some(fault.during("complete trace")),
                }),
            }
        });
        let results: Vec<_> = results.buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().flatten().collect()
    }

    fn memory(&self) -> &TraceMemory {
        &self.memory
    }

    fn uri(&self) -> &LocationUri {
        &self.uri
    }
}

fn info(table: &Table, root: &Span, update: &TraceUpdate) -> Value {
    let start = root.start_time_unix_nano();
    let nanos = root.end_time_unix_nano().saturating_sub(start);
    let time = Timestamp::from_nanosecond(i128::from(start)).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut metadata: Map<String, Value> = pairs(&update.metadata);
    metadata.insert("mlflow.trace_schema.version".into(), "4".into());
    for (key, value) in [
        (keys::SESSION_METADATA, &update.session_id),
        (keys::USER_METADATA, &update.user_id),
    ] {
        if let Some(value) = value {
            metadata.insert(key.into(), value.as_str().into());
        }
    }
    let mut tags = pairs(&update.tags);
    tags.retain(|key, _| is_own_tag(key));
    let name = update.name.as_deref().unwrap_or(root.name());
    tags.insert(keys::TRACE_NAME.into(), name.into());
    let mut info = json!({
        "trace_id": root.trace_id().to_string(),
        "trace_location": table.trace_location(),
        "request_time": time.to_string(),
        "execution_duration": format!("{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000),
        "state": match root.status_code() {
            StatusCode::Error => "ERROR",
            StatusCode::Unset | StatusCode::Ok => "OK",
        },
        "trace_metadata": metadata,
        "tags": tags,
    });
    for (key, value) in [
        ("client_request_id", &update.client_request_id),
        ("request_preview", &update.request_preview),
        ("response_preview", &update.response_preview),
    ] {
        if let Some(value) = value {
            info[key] = value.as_str().into();
        }
    }
    info
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> Map<String, Value> {
    map.iter()
        .map(|(k, v)| (k.clone(), v.as_str().into()))
        .collect()
}
