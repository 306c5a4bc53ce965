//! A stand-in for MLflow's tracking server that really stores what it receives and answers as
//! 3.17.2 does. One HTTP server holds any number of stores, each below a path of its own.

use super::decode;
use super::http::{Reply, Request};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use trace_destination_conformance::StoredSpan;
use trace_destination_core::{AnyValue, StatusCode};

/// All stores of one HTTP server.
#[derive(Debug, Default)]
pub struct Mlflow(Mutex<BTreeMap<String, Store>>);

/// One tracking server's database.
#[derive(Debug, Default)]
pub struct Store {
    pub experiments: Vec<Experiment>,
    /// By `tr-…`.
    pub traces: BTreeMap<String, Trace>,
    /// Answers every request but `/version` until set back.
    pub fault: Option<(u16, Value)>,
    /// Answers `/version`.
    pub version: Option<String>,
    /// Asked for as HTTP Basic, where set.
    pub authorization: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Experiment {
    pub id: String,
    pub name: String,
    pub deleted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub experiment: String,
    /// By span id; a span sent again replaces itself.
    pub spans: BTreeMap<[u8; 8], StoredSpan>,
    pub tags: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub state: String,
    pub client_request_id: Option<String>,
    pub request_preview: Option<String>,
    pub response_preview: Option<String>,
    pub runs: Vec<String>,
}

/// An error of MLflow's own.
fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, json!({"error_code": code, "message": message}))
}

impl Mlflow {
    /// The store below a path; made if absent.
    pub fn with<T>(&self, path: &str, f: impl FnOnce(&mut Store) -> T) -> T {
        let mut stores = self.lock();
        f(stores.entry(path.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Store>> {
        self.0.lock().unwrap()
    }

    /// Answers a request to `/<store>/…`.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        let end = path[1..].find('/').map_or(path.len(), |i| i + 1);
        let (store, rest) = path.split_at(end);
        self.with(store, |store| store.answer(request, rest))
    }
}

impl Store {
    pub fn experiment(&mut self, name: &str) -> String {
        if let Some(found) = self.experiments.iter().find(|e| e.name == name) {
            return found.id.clone();
        }
        let id = (self.experiments.len() + 1).to_string();
        self.experiments.push(Experiment {
            id: id.clone(),
            name: name.to_owned(),
            deleted: false,
        });
        id
    }

    fn answer(&mut self, request: &Request, path: &str) -> Reply {
        if let Some(wanted) = &self.authorization
            && request.header("authorization") != Some(wanted)
        {
            return Reply::text(401, "You are not authenticated.")
                .with_header("www-authenticate", "Basic realm=\"mlflow\"");
        }
        if path == "/version" {
            let version = self.version.clone();
            return Reply::text(200, &version.unwrap_or_else(|| "3.17.2".into()));
        }
        if let Some((status, body)) = &self.fault {
            return Reply::json(*status, body.clone());
        }
        if request.header("x-mlflow-workspace").is_some() {
            return error(500, "FEATURE_DISABLED", "workspaces are not enabled");
        }
        match (request.method.as_str(), path) {
            ("GET", "/api/3.0/mlflow/server-info") => Reply::json(
                200,
                json!({"store_type": "SqlStore", "workspaces_enabled": false}),
            ),
            ("GET", "/api/2.0/mlflow/experiments/get") => {
                let id = request.query("experiment_id").unwrap();
                self.found(|e| e.id == id)
            }
            ("GET", "/api/2.0/mlflow/experiments/get-by-name") => {
                let name = request.query("experiment_name").unwrap();
                self.found(|e| e.name == name)
            }
            ("POST", "/api/2.0/mlflow/experiments/create") => {
                let name = request.json()["name"].as_str().unwrap().to_owned();
                if self.experiments.iter().any(|e| e.name == name) {
                    return error(400, "RESOURCE_ALREADY_EXISTS", "it exists already");
                }
                Reply::json(200, json!({"experiment_id": self.experiment(&name)}))
            }
            ("POST", "/v1/traces") => self.ingest(request),
            ("POST", "/api/3.0/mlflow/traces/batchGetInfos") => {
                let wanted = request.json();
                let ids = wanted["trace_ids"].as_array().unwrap();
                let infos: Vec<Value> = ids
                    .iter()
                    .filter_map(|id| self.info(id.as_str().unwrap()))
                    .collect();
                Reply::json(200, json!({"trace_infos": infos}))
            }
            ("POST", "/api/3.0/mlflow/traces") => self.start_trace(&request.json()),
            ("POST", "/api/2.0/mlflow/traces/link-to-run") => {
                let body = request.json();
                for id in body["trace_ids"].as_array().unwrap() {
                    let trace = self.traces.get_mut(id.as_str().unwrap()).unwrap();
                    trace.runs.push(body["run_id"].as_str().unwrap().to_owned());
                }
                Reply::json(200, json!({}))
            }
            ("PATCH", path) if path.ends_with("/tags") => {
                let id = path.split('/').rev().nth(1).unwrap();
                let Some(trace) = self.traces.get_mut(id) else {
                    return error(404, "RESOURCE_DOES_NOT_EXIST", "no such trace");
                };
                let body = request.json();
                let text = |key: &str| body[key].as_str().unwrap().to_owned();
                trace.tags.insert(text("key"), text("value"));
                Reply::json(200, json!({}))
            }
            _ => Reply::new(404, "text/html", "<!doctype html><p>Not Found"),
        }
    }

    fn found(&self, matches: impl Fn(&Experiment) -> bool) -> Reply {
        match self.experiments.iter().find(|e| matches(e)) {
            Some(e) => Reply::json(
                200,
                json!({"experiment": {
                    "experiment_id": e.id,
                    "name": e.name,
                    "artifact_location": format!("mlflow-artifacts:/{}", e.id),
                    "lifecycle_stage": if e.deleted { "deleted" } else { "active" },
                }}),
            ),
            None => error(404, "RESOURCE_DOES_NOT_EXIST", "no such experiment"),
        }
    }

    /// All or nothing, as MLflow does it; and a trace that is known stays where it is.
    fn ingest(&mut self, request: &Request) -> Reply {
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
        let Some(experiment) = request.header("x-mlflow-experiment-id") else {
            return Reply::json(422, json!({"detail": [{"loc": ["header"]}]}));
        };
        let body = request.body();
        if body.is_empty() {
            return Reply::json(400, json!({"detail": "no spans found"}));
        }
        let Ok(spans) = decode::request(&body) else {
            return Reply::json(400, json!({"detail": "Invalid OpenTelemetry format"}));
        };
        for s in &spans {
            let session = s
                .span
                .attributes
                .iter()
                .find(|a| a.key.as_str() == "session.id");
            if let Some(AnyValue::String(text)) = session.map(|a| &a.value)
                && text.as_str().chars().count() > 250
            {
                return error(400, "INVALID_PARAMETER_VALUE", "session id is too long");
            }
            let poison = |key: &str| s.span.attributes.iter().any(|a| a.key.as_str() == key);
            if poison("test.unprocessable") {
                return Reply::json(422, json!({"detail": "Failed to log OpenTelemetry spans"}));
            }
            if poison("test.stumbles") {
                return error(500, "INTERNAL_ERROR", "an integer is too large");
            }
        }
        for s in spans {
            let id = format!("tr-{}", s.span.trace_id);
            if !self.traces.contains_key(&id)
                && !self.experiments.iter().any(|e| e.id == experiment)
            {
                return error(404, "RESOURCE_DOES_NOT_EXIST", "no such experiment");
            }
            let trace = self.traces.entry(id).or_insert_with(|| Trace {
                experiment: experiment.to_owned(),
                state: "IN_PROGRESS".into(),
                ..Trace::default()
            });
            trace.add(s);
        }
        Reply::stored()
    }

    fn info(&self, id: &str) -> Option<Value> {
        let trace = self.traces.get(id)?;
        let mut info = json!({
            "trace_id": id,
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": trace.experiment},
            },
            "request_time": "2026-11-22T15:36:48.881Z",
            "execution_duration": "0.250s",
            "state": trace.state,
            "tags": trace.tags,
            "trace_metadata": trace.metadata,
        });
        if let Some(client) = &trace.client_request_id {
            info["client_request_id"] = client.as_str().into();
        }
        Some(info)
    }

    /// Overwrites what is absent with nothing, stops at the first value of a wrong type, and moves
    /// a trace to another experiment without a word.
    fn start_trace(&mut self, body: &Value) -> Reply {
        let info = &body["trace"]["trace_info"];
        let id = info["trace_id"].as_str().unwrap();
        let trace = self.traces.entry(id.to_owned()).or_default();
        let experiment = &info["trace_location"]["mlflow_experiment"]["experiment_id"];
        trace.experiment = experiment.as_str().unwrap().to_owned();
        trace.client_request_id = None;
        trace.state = "STATE_UNSPECIFIED".into();
        assert!(info["request_time"].is_string() && info["execution_duration"].is_string());
        trace.state = info["state"].as_str().unwrap().to_owned();
        let text = |key: &str| info[key].as_str().map(str::to_owned);
        trace.client_request_id = text("client_request_id");
        trace.request_preview = text("request_preview").or(trace.request_preview.take());
        trace.response_preview = text("response_preview").or(trace.response_preview.take());
        let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let pairs = |map: Map<String, Value>| {
            map.into_iter()
                .map(|(k, v)| (k, v.as_str().unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        trace.metadata.extend(pairs(map(&info["trace_metadata"])));
        trace
            .metadata
            .insert("mlflow.trace.infoFinalized".into(), "true".into());
        trace.tags.extend(pairs(map(&info["tags"])));
        Reply::json(200, json!({"trace": {"trace_info": info}}))
    }
}

impl Trace {
    fn add(&mut self, s: StoredSpan) {
        let own = |key: &str| {
            let found = s.span.attributes.iter().find(|a| a.key.as_str() == key)?;
            match &found.value {
                AnyValue::String(text) => Some(unwrapped(text.as_str())),
                _ => None,
            }
        };
        for (key, metadata) in [
            ("session.id", "mlflow.trace.session"),
            ("user.id", "mlflow.trace.user"),
        ] {
            if let Some(value) = own(key) {
                // The first value is kept.
                self.metadata.entry(metadata.into()).or_insert(value);
            }
        }
        if s.span.parent_span_id.is_none() {
            for a in &s.span.attributes {
                if let Some(tag) = a.key.as_str().strip_prefix("mlflow.traceTag.")
                    && let Some(value) = own(a.key.as_str())
                {
                    self.tags.insert(tag.to_owned(), value);
                }
            }
            if self.state == "IN_PROGRESS" {
                self.state = match s.span.status.code {
                    StatusCode::Error => "ERROR".into(),
                    _ => "OK".into(),
                };
            }
        }
        self.spans.insert(s.span.span_id.to_bytes(), s);
    }
}

/// A string that is itself the JSON of a string, a list or an object is taken for that.
fn unwrapped(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(inner)) => inner,
        Ok(other @ (Value::Array(_) | Value::Object(_))) => format!("{other:#}"),
        _ => text.to_owned(),
    }
}
