//! What OTLP cannot carry, or carries with the root only: tags and names of traces that run, and
//! request ids, metadata and previews, which the server takes at the end of a trace only.

use super::api::{Api, TraceInfo, trace_name};
use super::memory::TraceMemory;
use crate::encode::is_own_tag;
use crate::error::{Fault, FaultExt as _};
use crate::host::Host;
use crate::keys;
use crate::later::{Complete, Left};
use crate::validate::MAX_SESSION;
use async_trait::async_trait;
use foldhash::HashMap;
use futures_util::StreamExt as _;
use opentelemetry::trace::TraceId;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, LocationUri, TraceUpdate};
use trace_destination_http::Outcome;

/// Characters of what the server keeps (columns of `trace_info` and `trace_tags`, 3.17.2).
const MAX_PREVIEW: usize = 1000;
const MAX_KEY: usize = 250;
const MAX_VALUE: usize = 8000;
/// Traces completed at the same time.
const AT_ONCE: usize = 4;

/// A trace of which values are to be told, as far as this process knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) trace: TraceId,
    /// Whether the server has spans of it.
    pub(crate) stored: bool,
    /// Whether the end of its local root is stored.
    pub(crate) finished: bool,
    /// Whether the root of the whole trace is stored, and was sent from here.
    pub(crate) root: bool,
}

/// What makes the calls of one location.
pub(crate) struct Completion {
    pub(crate) uri: LocationUri,
    pub(crate) host: Arc<Host>,
    pub(crate) workspace: Option<String>,
    pub(crate) experiment: Arc<str>,
    pub(crate) memory: Arc<TraceMemory>,
}

#[async_trait]
impl Complete<Known> for Completion {
    async fn complete(&self, jobs: Vec<(TraceId, Known)>) -> Vec<Left<Known>> {
        let api = Api {
            host: &self.host,
            workspace: self.workspace.as_deref(),
        };
        let traces = {
            let mut owners = self.host.mlflow.owners();
            let now = jobs.into_iter().map(|(trace, known)| {
                let owner = owners.get_mut(&trace);
                match owner.filter(|o| o.stored && o.experiment == self.experiment) {
                    Some(owner) => Known {
                        trace,
                        stored: true,
                        finished: owner.finished,
                        root: owner.root,
                    },
                    // Forgotten meanwhile, or never stored from here.
                    None => known,
                }
            });
            now.collect()
        };
        complete(api, &self.experiment, &self.memory, traces).await
    }

    fn memory(&self) -> &TraceMemory {
        &self.memory
    }

    fn uri(&self) -> &LocationUri {
        &self.uri
    }
}

/// Tells the server what applications said about their traces and it does not know yet; gives the
/// traces that are to be tried again.
///
/// What the server refuses for good is forgotten, and told by way of `memory`: the spans are stored.
async fn complete(
    api: Api<'_>,
    experiment: &str,
    memory: &TraceMemory,
    traces: Vec<Known>,
) -> Vec<Left<Known>> {
    let todo: Vec<(Known, TraceUpdate)> = traces
        .into_iter()
        .filter_map(|known| Some((known, memory.todo(known.trace)?)))
        .collect();
    // The whole of a trace's values is written over, so what is there is read first. A trace
    // nothing was sent of is looked up too: it may be there from before.
    let needs =
        |known: &Known, todo: &TraceUpdate| !known.stored || (known.finished && needs_info(todo));
    let asked = todo.iter().filter(|(known, todo)| needs(known, todo));
    let ask: Vec<String> = asked.map(|(known, _)| trace_name(known.trace)).collect();
    let infos: Result<HashMap<String, TraceInfo>, Error> = match ask.is_empty() {
        true => Ok(HashMap::default()),
        false => match api.traces(&ask).await {
            Ok(infos) => Ok(infos.into_iter().map(|i| (i.trace_id.clone(), i)).collect()),
            Err(fault) => Err(fault.during("look up traces")),
        },
    };
    let mut left = Vec::new();
    let mut runs: HashMap<&str, Vec<Known>> = HashMap::default();
    let mut jobs = Vec::new();
    for (known, todo) in &todo {
        let info = match &infos {
            Ok(infos) => infos.get(&trace_name(known.trace)),
            Err(error) if needs(known, todo) => {
                left.push(known.failed(error.clone()));
                continue;
            }
            Err(_) => None,
        };
        // Not there yet: what was said waits for the first span.
        if !known.stored && info.is_none() {
            continue;
        }
        if info.is_some_and(|i| i.experiment() != Some(experiment)) {
            let id = trace_name(known.trace);
            let fault = Fault::new(
                ErrorKind::Conflict,
                format!("values set on trace {id} are dropped: it is in another experiment"),
                "set values on a trace in the process and at the location it is stored from",
            );
            memory.lost(known.trace, fault);
            memory.done(known.trace, todo, true);
            continue;
        }
        if let Some(run) = &todo.run_id {
            runs.entry(run).or_default().push(*known);
        }
        let finished = known.finished || info.is_some_and(TraceInfo::is_finished);
        jobs.push((Known { finished, ..*known }, todo.clone(), info.cloned()));
    }
    let results: Vec<Option<Left<Known>>> = futures_util::stream::iter(jobs)
        .map(|(known, todo, info)| async move {
            match one(api, memory, known, todo, info).await {
                Ok(true) => None,
                Ok(false) => Some(known.waiting()),
                Err(fault) => Some(known.failed(fault.during("complete trace"))),
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    left.extend(results.into_iter().flatten());
    for (run, traces) in runs {
        let ids: Vec<String> = traces.iter().map(|known| trace_name(known.trace)).collect();
        let refused = match permanent(api.link_to_run(&ids, run).await) {
            Ok(linked) => linked
                .err()
                .map(|fault| untold(format!("link traces to run {run}"), fault)),
            Err(fault) => {
                let error = fault.during("link traces to a run");
                for known in traces {
                    left.retain(|left| left.trace != known.trace);
                    left.push(known.failed(error.clone()));
                }
                continue;
            }
        };
        for Known { trace, .. } in traces {
            if let Some((kind, cause)) = &refused {
                memory.lost(trace, Fault::new(*kind, cause.clone(), UNTOLD));
            }
            let mut done = TraceUpdate::new(trace);
            done.run_id = Some(run.to_owned());
            memory.done(trace, &done, true);
        }
    }
    left
}

impl Known {
    fn failed(self, error: Error) -> Left<Self> {
        Left {
            trace: self.trace,
            job: self,
            error: Some(error),
        }
    }

    fn waiting(self) -> Left<Self> {
        Left {
            trace: self.trace,
            job: self,
            error: None,
        }
    }
}

/// Everything but the run of one trace; whether nothing is left to be told later.
async fn one(
    api: Api<'_>,
    memory: &TraceMemory,
    known: Known,
    todo: TraceUpdate,
    info: Option<TraceInfo>,
) -> Result<bool, Fault> {
    let id = trace_name(known.trace);
    let mut done = todo.clone();
    done.run_id = None;
    let mut is_all = true;
    if needs_info(&todo) {
        // The end of a trace is its root's to write: where that is elsewhere, it has to be there.
        let has_ended = known.root || info.as_ref().is_some_and(TraceInfo::is_finished);
        if let (true, true, Some(info)) = (known.finished, has_ended, &info) {
            if let Err(fault) = permanent(api.write_trace(&merged(info, &todo)).await)? {
                let (kind, cause) = untold(format!("complete trace {id}"), fault);
                memory.lost(known.trace, Fault::new(kind, cause, UNTOLD));
            }
            memory.done(known.trace, &done, true);
            return Ok(true);
        }
        // Later, with the root: a trace is complete for the server once it was told these. Where the
        // root is here, its own batch brings it.
        is_all = !known.finished;
        done = TraceUpdate::new(known.trace);
        (done.tags, done.name) = (todo.tags.clone(), todo.name.clone());
    }
    let name = todo.name.as_deref().map(|name| (keys::TRACE_NAME, name));
    let tags = todo.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let mut refused = None;
    for (key, value) in tags.filter(|(k, _)| is_own_tag(k)).chain(name) {
        if let Err(fault) = permanent(api.set_tag(&id, key, &cut(value, MAX_VALUE)).await)? {
            let what = format!("set tag `{}` of trace {id}", key.escape_debug());
            refused = Some(untold(what, fault));
        }
    }
    if let Some((kind, cause)) = refused {
        memory.lost(known.trace, Fault::new(kind, cause, UNTOLD));
    }
    memory.done(known.trace, &done, known.finished && is_all);
    Ok(is_all)
}

/// Whether anything can only be written with the whole of a trace's values.
fn needs_info(todo: &TraceUpdate) -> bool {
    !todo.metadata.is_empty()
        || todo.session_id.is_some()
        || todo.user_id.is_some()
        || todo.client_request_id.is_some()
        || todo.request_preview.is_some()
        || todo.response_preview.is_some()
}

/// What is there with what is new. The server sets to nothing what is left out of some fields, and
/// stops reading at the first value of a wrong type, so what it said itself is sent back.
fn merged(info: &TraceInfo, todo: &TraceUpdate) -> Value {
    let mut metadata: Map<String, Value> = todo
        .metadata
        .iter()
        .filter(|(key, _)| fits(key))
        .map(|(k, v)| (k.clone(), cut(v, MAX_VALUE).into()))
        .collect();
    for (key, value) in [
        (keys::SESSION_METADATA, &todo.session_id),
        (keys::USER_METADATA, &todo.user_id),
    ] {
        if let Some(value) = value {
            let limit = match key {
                keys::SESSION_METADATA => MAX_SESSION,
                _ => MAX_VALUE,
            };
            metadata.insert(key.to_owned(), cut(value, limit).into());
        }
    }
    let mut tags: Map<String, Value> = todo
        .tags
        .iter()
        .filter(|(key, _)| fits(key) && is_own_tag(key))
        .map(|(k, v)| (k.clone(), cut(v, MAX_VALUE).into()))
        .collect();
    if let Some(name) = &todo.name {
        tags.insert(keys::TRACE_NAME.to_owned(), name.as_str().into());
    }
    let mut all = json!({
        "trace_id": info.trace_id,
        "trace_location": info.trace_location,
        "state": info.state.as_deref().unwrap_or("STATE_UNSPECIFIED"),
        "trace_metadata": metadata,
        "tags": tags,
    });
    for (key, value) in [
        ("request_time", &info.request_time),
        ("execution_duration", &info.execution_duration),
    ] {
        if let Some(value) = value {
            all[key] = value.as_str().into();
        }
    }
    let client = todo
        .client_request_id
        .as_ref()
        .or(info.client_request_id.as_ref());
    if let Some(client) = client {
        all["client_request_id"] = client.as_str().into();
    }
    for (key, value) in [
        ("request_preview", &todo.request_preview),
        ("response_preview", &todo.response_preview),
    ] {
        if let Some(value) = value {
            all[key] = preview(value).into();
        }
    }
    all
}

fn fits(key: &str) -> bool {
    key.chars().nth(MAX_KEY).is_none()
}

fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) if text.len() > limit => text[..end].to_owned(),
        _ => text.to_owned(),
    }
}

fn preview(text: &str) -> String {
    match text.chars().nth(MAX_PREVIEW) {
        Some(_) => format!("{}...", cut(text, MAX_PREVIEW - 3)),
        None => text.to_owned(),
    }
}

/// Keeps apart what is worth another try, which is an error, and what the server refuses: only what
/// is about the values themselves, or about what they belong to, condemns them.
fn permanent(result: Result<(), Fault>) -> Result<Result<(), Fault>, Fault> {
    match result {
        Err(fault) if !is_refusal(&fault) => Err(fault),
        other => Ok(other),
    }
}

fn is_refusal(fault: &Fault) -> bool {
    match fault.status() {
        Some(400 | 409 | 413 | 422) => fault.outcome() != Outcome::Resend,
        // MLflow's word that the trace or the run is not there; a bare 404 may be a proxy's.
        Some(404) => fault.code().is_some(),
        _ => false,
    }
}

/// What to do about values the server does not take.
const UNTOLD: &str =
    "correct the values set on the trace, or the run it is linked to; its spans are stored";

/// Kind and cause of the error for values that are given up.
fn untold(what: String, fault: Fault) -> (ErrorKind, String) {
    let error = fault.during("complete trace");
    (error.kind(), format!("could not {what}: {}", error.cause()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> TraceInfo {
        serde_json::from_value(json!({
            "trace_id": "tr-1",
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": "3"},
            },
            "request_time": "2026-11-22T15:36:48.881Z",
            "execution_duration": "0.250s",
            "state": "OK",
            "client_request_id": "kept",
            "tags": {"old": "1"},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_that_is_there_is_wiped() {
        let mut todo = TraceUpdate::new(TraceId::from(1));
        todo.session_id = Some("s".into());
        todo.name = Some("n".into());
        todo.tags
            .insert("mlflow.artifactLocation".into(), "x".into());
        todo.request_preview = Some("é".repeat(2000));
        let all = merged(&info(), &todo);
        assert_eq!(all["request_time"], "2026-11-22T15:36:48.881Z");
        assert_eq!(all["execution_duration"], "0.250s");
        assert_eq!(all["state"], "OK");
        assert_eq!(all["client_request_id"], "kept");
        assert_eq!(all["trace_location"], info().trace_location);
        assert_eq!(all["trace_metadata"], json!({"mlflow.trace.session": "s"}));
        assert_eq!(all["tags"], json!({"mlflow.traceName": "n"}));
        assert!(all.get("response_preview").is_none());
        let preview = all["request_preview"].as_str().unwrap();
        assert_eq!(preview.chars().count(), 1000);
        assert!(preview.ends_with("é..."));
    }

    #[test]
    fn unknown_times_are_left_out_rather_than_null() {
        let mut info = info();
        (info.request_time, info.client_request_id) = (None, None);
        let mut todo = TraceUpdate::new(TraceId::from(1));
        todo.client_request_id = Some("new".into());
        let all = merged(&info, &todo);
        assert!(all.get("request_time").is_none());
        assert_eq!(all["client_request_id"], "new");
    }
}
