//! The few REST calls of MLflow's tracking server that are needed (3.17.2).

use crate::client::Call;
use crate::error::Fault;
use crate::host::Host;
use reqwest::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::fmt::Write as _;
use trace_destination_core::ErrorKind;
use trace_destination_http::{encoded, json};

/// Most traces that `link-to-run` takes, and as many as are asked for at once.
const CHUNK: usize = 100;

/// Longest id of an experiment. MLflow's are decimal numbers.
const MAX_ID: usize = 64;

/// Calls to one server, in one workspace.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    pub(crate) host: &'a Host,
    pub(crate) workspace: Option<&'a str>,
}

/// An experiment as the server knows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Experiment {
    pub(crate) experiment_id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) lifecycle_stage: String,
}

impl Experiment {
    pub(crate) fn is_deleted(&self) -> bool {
        self.lifecycle_stage == "deleted"
    }
}

/// What the server knows of a trace; everything is kept as it was sent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TraceInfo {
    pub(crate) trace_id: String,
    pub(crate) trace_location: Value,
    pub(crate) request_time: Option<String>,
    pub(crate) execution_duration: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) client_request_id: Option<String>,
}

impl TraceInfo {
    /// The experiment the trace is in.
    pub(crate) fn experiment(&self) -> Option<&str> {
        self.trace_location["mlflow_experiment"]["experiment_id"].as_str()
    }

    /// Whether its root has ended.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.state.as_deref(), Some("OK" | "ERROR"))
    }
}

impl Api<'_> {
    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Fault> {
        let call = match self.workspace {
            Some(workspace) => call.with_header("x-mlflow-workspace", workspace),
            None => call,
        };
        let path = call.path.split('?').next().unwrap_or_default().to_owned();
        let answer = self.host.client.call(call).await?;
        json(&answer.body).ok_or_else(|| {
            Fault::new(
                ErrorKind::Unsupported,
                format!("{path} was answered with something that is not MLflow's"),
                "check that the address is an MLflow tracking server's, and the proxies before it",
            )
        })
    }

    /// The server's version, as text.
    pub(crate) async fn version(&self) -> Result<String, Fault> {
        let answer = self.host.client.call(Call::get("/version")).await?;
        Ok(String::from_utf8_lossy(&answer.body).trim().to_owned())
    }

    /// Whether the server has workspaces.
    pub(crate) async fn has_workspaces(&self) -> Result<bool, Fault> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            workspaces_enabled: bool,
        }
        // Asked without the workspace: a server that has none answers it with a 500.
        let plain = Api {
            host: self.host,
            workspace: None,
        };
        match plain
            .ask::<Info>(Call::get("/api/3.0/mlflow/server-info"))
            .await
        {
            Ok(info) => Ok(info.workspaces_enabled),
            // Servers without this call have no workspaces either.
            Err(fault) if fault.status() == Some(404) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) async fn experiment_by_id(&self, id: &str) -> Result<Experiment, Fault> {
        self.experiment("get?experiment_id=", id).await
    }

    pub(crate) async fn experiment_by_name(&self, name: &str) -> Result<Experiment, Fault> {
        self.experiment("get-by-name?experiment_name=", name).await
    }

    async fn experiment(&self, call: &str, value: &str) -> Result<Experiment, Fault> {
        #[derive(Deserialize)]
        struct Found {
            experiment: Experiment,
        }
        let value = encoded(value);
        let call = Call::get(format!("/api/2.0/mlflow/experiments/{call}{value}"));
        let found = self.ask::<Found>(call).await?.experiment;
        experiment_id(&found.experiment_id)?;
        Ok(found)
    }

    /// Creates an experiment; its id.
    pub(crate) async fn create_experiment(&self, name: &str) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Created {
            experiment_id: String,
        }
        let call = Call::new(Method::POST, "/api/2.0/mlflow/experiments/create")
            .with_json(&serde_json::json!({ "name": name }));
        let id = self.ask::<Created>(call).await?.experiment_id;
        experiment_id(&id)?;
        Ok(id)
    }

    /// Those of the traces that the server knows.
    pub(crate) async fn traces(&self, ids: &[String]) -> Result<Vec<TraceInfo>, Fault> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            trace_infos: Vec<TraceInfo>,
        }
        let mut all = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            if self.host.mlflow.lacks_batch_get() {
                for id in chunk {
                    all.extend(self.trace(id).await?);
                }
                continue;
            }
            let call = Call::new(Method::POST, "/api/3.0/mlflow/traces/batchGetInfos")
                .with_json(&serde_json::json!({ "trace_ids": chunk }));
            match self.ask::<Found>(call).await {
                Ok(found) => all.extend(found.trace_infos),
                // Not there before some 3.x: one by one, then. Which it is only if those are answered
                // as MLflow does: a proxy without a way to it answers everything so.
                Err(fault) if matches!(fault.status(), Some(404 | 405)) => {
                    for id in chunk {
                        all.extend(self.trace(id).await?);
                    }
                    self.host.mlflow.note_no_batch_get();
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(all)
    }

    async fn trace(&self, id: &str) -> Result<Option<TraceInfo>, Fault> {
        #[derive(Deserialize)]
        struct Found {
            trace: Outer,
        }
        #[derive(Deserialize)]
        struct Outer {
            trace_info: TraceInfo,
        }
        let found = self.ask::<Found>(Call::get(format!("/api/3.0/mlflow/traces/{id}")));
        match found.await {
            Ok(found) => Ok(Some(found.trace.trace_info)),
            // MLflow's own word; any other 404 says nothing of the trace.
            Err(fault) if fault.status() == Some(404) && fault.code().is_some() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Writes what the server knows of a trace (StartTraceV3).
    pub(crate) async fn write_trace(&self, info: &Value) -> Result<(), Fault> {
        let call = Call::new(Method::POST, "/api/3.0/mlflow/traces")
            .with_json(&serde_json::json!({ "trace": { "trace_info": info } }));
        self.ask::<IgnoredAny>(call).await.map(drop)
    }

    pub(crate) async fn set_tag(&self, id: &str, key: &str, value: &str) -> Result<(), Fault> {
        let call = Call::new(Method::PATCH, format!("/api/3.0/mlflow/traces/{id}/tags"))
            .with_json(&serde_json::json!({ "key": key, "value": value }));
        self.ask::<IgnoredAny>(call).await.map(drop)
    }

    pub(crate) async fn link_to_run(&self, ids: &[String], run_id: &str) -> Result<(), Fault> {
        for chunk in ids.chunks(CHUNK) {
            let call = Call::new(Method::POST, "/api/2.0/mlflow/traces/link-to-run")
                .with_json(&serde_json::json!({ "trace_ids": chunk, "run_id": run_id }));
            self.ask::<IgnoredAny>(call).await?;
        }
        Ok(())
    }
}

/// Checks an experiment's id as a server gives it: it goes into headers, paths and errors.
fn experiment_id(id: &str) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    match !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(plain) {
        true => Ok(()),
        // Spans for an empty experiment vanish behind a 200.
        false => Err(Fault::new(
            ErrorKind::Unsupported,
            "the server gave the experiment an id that cannot be sent",
            "look into the server's log, and check its version",
        )),
    }
}

/// The id MLflow gives a trace.
pub(crate) fn trace_name(id: opentelemetry::trace::TraceId) -> String {
    let mut name = String::with_capacity(35);
    // Writing to a string cannot fail.
    let _ = write!(name, "tr-{id}");
    name
}
