//! What an application said about a trace, which spans do not carry: MLflow's client writes it
//! beside them when the root has ended (MLflow 3.17.2, trace info V4).

use super::Table;
use crate::client::Call;
use crate::encode::is_own_tag;
use crate::error::{Fault, FaultExt as _};
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
use trace_destination_core::{ErrorKind, LocationUri, Span, StatusCode, TraceUpdate};

/// Traces completed at the same time.
const AT_ONCE: usize = 16;

/// The calls that tell the workspace of one trace, in their order. Each may be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Vec<One>);

#[derive(Clone, Debug)]
struct One {
    method: Method,
    path: String,
    body: Value,
}

impl Calls {
    /// Those for a trace whose root is stored: every trace has its info, whatever was said about it.
    pub(super) fn at_end(table: &Table, root: &Span, update: &TraceUpdate) -> Self {
        let info = One {
            method: Method::POST,
            path: format!("{}/info", of_trace(table, root.trace_id())),
            body: info(table, root, update),
        };
        let link = update.run_id.as_deref();
        let link = link.map(|run| One::link(table, root.trace_id(), run));
        Self([info].into_iter().chain(link).collect())
    }

    /// Those for values that came after the root, where there are any, and why others cannot be
    /// told: the info of a trace is written once.
    pub(super) fn after_end(table: &Table, update: &TraceUpdate) -> (Option<Self>, Option<Fault>) {
        let trace = update.trace_id;
        let named = update.name.iter().map(|name| (keys::TRACE_NAME, name));
        let tags = update.tags.iter().map(|(key, value)| (key.as_str(), value));
        let tags = tags.filter(|(key, _)| is_own_tag(key)).chain(named);
        let tags = tags.map(|(key, value)| One {
            method: Method::PATCH,
            path: format!("{}/tags", of_trace(table, trace)),
            body: json!({"key": key, "value": value}),
        });
        let link = update.run_id.as_deref();
        let link = link.map(|run| One::link(table, trace, run));
        let calls: Vec<One> = tags.chain(link).collect();
        let of_info = TraceUpdate {
            tags: Default::default(),
            name: None,
            run_id: None,
            ..update.clone()
        };
        let left_out = (of_info != TraceUpdate::new(trace)).then(|| {
            Fault::new(
                ErrorKind::Unsupported,
                format!(
                    "values set on trace {trace} after the end of its root are lost: only tags, the \
                     name and the run of a trace can still be written then"
                ),
                "set metadata, session, user, previews and request id before the root span ends",
            )
        });
        ((!calls.is_empty()).then_some(Self(calls)), left_out)
    }

    /// These calls after those that wait for the same trace.
    pub(super) fn after(self, waiting: Option<Self>) -> Self {
        let mut all = waiting.map_or_else(Vec::new, |waiting| waiting.0);
        all.extend(self.0);
        Self(all)
    }
}

impl One {
    fn link(table: &Table, trace: TraceId, run: &str) -> Self {
        Self {
            method: Method::POST,
            path: format!("{TRACES}/{}/link-to-run/batchCreate", table.location),
            body: json!({
                "location_id": table.location,
                "trace_ids": [trace.to_string()],
                "run_id": run,
            }),
        }
    }
}

const TRACES: &str = "/api/4.0/mlflow/traces";

fn of_trace(table: &Table, trace: TraceId) -> String {
    format!("{TRACES}/{}/{trace}", table.location)
}

/// What makes the calls of one location.
pub(super) struct Completion {
    pub(super) uri: LocationUri,
    pub(super) host: Arc<Host>,
    pub(super) memory: Arc<TraceMemory>,
}

#[async_trait]
impl Complete<Calls> for Completion {
    async fn complete(&self, jobs: Vec<(TraceId, Calls)>) -> Vec<Left<Calls>> {
        let results = futures_util::stream::iter(jobs).map(|(trace, Calls(calls))| async move {
            let mut refused = None;
            for (done, one) in calls.iter().enumerate() {
                let call = Call::new(one.method.clone(), &*one.path).with_json(&one.body);
                match self.host.client.call(call).await {
                    Ok(_) => {}
                    Err(fault) if matches!(fault.status(), Some(400 | 413 | 422)) => {
                        refused = Some(fault);
                    }
                    Err(fault) => {
                        if let Some(refused) = refused {
                            self.memory.lost(trace, refused);
                        }
                        return Some(Left {
                            trace,
                            job: Calls(calls[done..].to_vec()),
                            error: Some(fault.during("complete trace")),
                        });
                    }
                }
            }
            if let Some(fault) = refused {
                self.memory.lost(trace, fault);
            }
            None
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
