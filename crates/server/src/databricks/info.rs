//! What an application said about a trace, which spans do not carry: MLflow's client writes it
//! beside them when the root has ended (MLflow 3.17.2, trace info V4).

use super::Table;
use crate::client::Call;
use crate::encode::is_own_tag;
use crate::error::Fault;
use crate::host::Host;
use crate::keys;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;
use trace_destination_core::{Span, StatusCode, TraceUpdate};

/// Attempts at one trace. The batch is not written again for it: its spans are stored, and would
/// be stored twice.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Writes what was said about a trace whose root is stored.
///
/// # Errors
/// The values are given up: nothing of it comes again.
pub(super) async fn write(
    host: &Host,
    table: &Table,
    root: &Span,
    update: &TraceUpdate,
) -> Result<(), Fault> {
    let path = format!(
        "/api/4.0/mlflow/traces/{}/{}/info",
        table.location,
        root.trace_id()
    );
    let body = info(table, root, update);
    let mut attempt = 1;
    loop {
        let call = Call::new(Method::POST, &*path).with_json(&body);
        let fault: Fault = match host.client.call(call).await {
            Ok(_) => return Ok(()),
            Err(fault) => fault,
        };
        if attempt == ATTEMPTS || !fault.is_passing() {
            return Err(fault);
        }
        tokio::time::sleep(PAUSE * attempt).await;
        attempt += 1;
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
