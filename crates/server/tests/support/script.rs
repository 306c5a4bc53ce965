//! A server that follows a script: one reply per request, in order, and 500 past its end.

use super::http::{Reply, Request, Server};
use std::collections::VecDeque;
use std::sync::Mutex;

/// Starts it; `prelude` answers what is not part of the script.
pub fn start(
    prelude: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    script: impl IntoIterator<Item = Reply>,
) -> Server {
    let script = Mutex::new(script.into_iter().collect::<VecDeque<_>>());
    Server::start(move |request| {
        prelude(request).unwrap_or_else(|| {
            let next = script.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Reply::text(500, "past the end of the script"))
        })
    })
}

/// An MLflow server's answers before any span is sent: version 3.17.2, one experiment with id 7.
pub fn mlflow_prelude(request: &Request) -> Option<Reply> {
    let experiment = |name: &str| {
        Reply::json(
            200,
            serde_json::json!({"experiment": {
                "experiment_id": "7", "name": name, "lifecycle_stage": "active",
            }}),
        )
    };
    match request.path() {
        "/version" => Some(Reply::text(200, "3.17.2")),
        "/api/2.0/mlflow/experiments/get" => Some(experiment("seven")),
        "/api/2.0/mlflow/experiments/get-by-name" => {
            Some(experiment(&request.query("experiment_name").unwrap()))
        }
        "/api/3.0/mlflow/traces/batchGetInfos" => Some(Reply::json(200, serde_json::json!({}))),
        _ => None,
    }
}
