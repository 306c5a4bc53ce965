//! An experiment on an MLflow tracking server (3.17.2).

mod api;
mod claims;
mod complete;
mod experiment;
mod memory;
mod server;

pub(crate) use memory::TraceMemory;
pub(crate) use server::Server;

use crate::config::RECHECK;
use crate::encode::{Carried, ForTrackingServer, is_end};
use crate::error::{Fault, FaultExt as _, WRITE};
use crate::export::{Tries, deliver, is_healthy, post};
use crate::host::Host;
use crate::later::Complete;
use crate::otlp::partial_success;
use crate::target::Experiment;
use crate::validate;
use api::Api;
use async_trait::async_trait;
use claims::{Claims, Part};
use complete::{Completion, Known};
use experiment::Resolved;
use foldhash::HashMap;
use opentelemetry::trace::TraceId;
use reqwest::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;
use trace_destination_core::{
    BatchId, Error, ErrorKind, LocationUri, Refusal, Span, TraceBatch, TraceSink, Written,
};
use trace_destination_http::Outcome;
use trace_destination_otlp::EncodedSpans;

const PATH: &str = "/v1/traces";
const EXPERIMENT_HEADER: HeaderName = HeaderName::from_static("x-mlflow-experiment-id");
const WORKSPACE_HEADER: HeaderName = HeaderName::from_static("x-mlflow-workspace");

/// An experiment, ready to be sent to.
pub(crate) struct MlflowSink {
    uri: LocationUri,
    host: Arc<Host>,
    wanted: Experiment,
    workspace: Option<String>,
    memory: Arc<TraceMemory>,
    tries: Arc<Tries>,
    state: Mutex<State>,
}

struct State {
    experiment: Resolved,
    checked: Instant,
}

/// The spans that are not stored, by position.
type Refusals = BTreeMap<usize, Error>;

impl MlflowSink {
    pub(crate) async fn open(
        uri: LocationUri,
        host: Arc<Host>,
        wanted: Experiment,
        workspace: Option<String>,
        memory: Arc<TraceMemory>,
        tries: Arc<Tries>,
    ) -> Result<Self, Fault> {
        let api = Api {
            host: &host,
            workspace: workspace.as_deref(),
        };
        host.mlflow.check(api).await?;
        let experiment = experiment::resolve(api, &wanted).await?;
        Ok(Self {
            uri,
            host,
            wanted,
            workspace,
            memory,
            tries,
            state: Mutex::new(State {
                experiment,
                checked: Instant::now(),
            }),
        })
    }

    fn api(&self) -> Api<'_> {
        Api {
            host: &self.host,
            workspace: self.workspace.as_deref(),
        }
    }

    fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The experiment to send to; looked up again now and then, since a deleted one takes spans
    /// as if nothing had happened.
    async fn experiment(&self) -> Result<Resolved, Fault> {
        let (experiment, checked) = self.with_state(|s| (s.experiment.clone(), s.checked));
        if checked.elapsed() < RECHECK {
            return Ok(experiment);
        }
        self.look_up(&experiment).await
    }

    /// Asks whether the experiment is still there, and finds it anew if not.
    async fn look_up(&self, current: &Resolved) -> Result<Resolved, Fault> {
        let found = match experiment::still_there(self.api(), &current.id).await? {
            Some(found) => found,
            None => experiment::resolve(self.api(), &self.wanted).await?,
        };
        self.with_state(|state| {
            state.experiment = found.clone();
            state.checked = Instant::now();
        });
        Ok(found)
    }

    async fn store(&self, batch: &TraceBatch) -> Result<Refusals, Fault> {
        let spans: Vec<&Span> = batch.spans().collect();
        let mut refused = Refusals::new();
        for (i, span) in spans.iter().enumerate() {
            if let Err(error) = validate::span(span) {
                refused.insert(i, error);
            }
        }
        let traces = spans.iter().map(|span| span.trace_id());
        let _held = self.memory.note_and_hold(batch.updates(), traces);
        let mut experiment = self.experiment().await?;
        let mut parts = claims::parts(&spans, |i| refused.contains_key(&i));
        let (claims, elsewhere) = Claims::take(self.api(), &parts, &experiment.id).await?;
        for trace in &elsewhere {
            for i in parts.remove(trace).into_iter().flat_map(|p| p.positions) {
                refused.insert(i, claims::conflict(spans[i], self.uri.as_str()));
            }
        }
        let carried = self.carried(&parts);
        if !parts.is_empty() {
            let mut rewrite = ForTrackingServer { carried: &carried };
            let encoded = EncodedSpans::new(batch.groups(), &mut rewrite);
            let mut positions: Vec<usize> = parts
                .values()
                .flat_map(|p| p.positions.iter().copied())
                .collect();
            positions.sort_unstable();
            let mut sent = self
                .send(batch.id(), &experiment, &encoded, positions.clone())
                .await;
            if let Err(fault) = &sent
                && is_gone(fault)
            {
                let found = self.look_up(&experiment).await?;
                if found.id != experiment.id {
                    // Its claims are for an experiment that is no more: start over.
                    drop(claims);
                    return Err(Fault::passing(
                        ErrorKind::NotFound,
                        format!(
                            "experiment {} is gone; it is {} now",
                            experiment.id, found.id
                        ),
                        "it is tried again",
                    ));
                }
                experiment = found;
                sent = self
                    .send(batch.id(), &experiment, &encoded, positions)
                    .await;
            }
            for (i, fault) in sent? {
                refused.insert(i, objection(spans[i], fault));
            }
            for (trace, part) in &mut parts {
                part.positions.retain(|i| !refused.contains_key(i));
                let stored =
                    |test: fn(&Span) -> bool| part.positions.iter().any(|i| test(spans[*i]));
                let root_stored = stored(|span| span.parent_span_id().is_none());
                let end_stored = stored(is_end);
                if !part.positions.is_empty() {
                    claims.stored(*trace, end_stored, root_stored);
                }
                if let Some(carried) = carried.get(trace).filter(|_| end_stored) {
                    self.memory.carried(*trace, carried);
                }
            }
        }
        self.complete(batch, &parts, &experiment).await;
        Ok(refused)
    }

    /// What the roots in a batch carry for their traces. A local root whose parent is elsewhere
    /// carries what any span may.
    fn carried(&self, parts: &HashMap<TraceId, Part>) -> HashMap<TraceId, Carried> {
        let mut owners = self.host.mlflow.owners();
        let mut carried = HashMap::default();
        for (trace, part) in parts.iter().filter(|(_, part)| part.root || part.entry) {
            let Some(update) = self.memory.known(*trace) else {
                continue;
            };
            // The server keeps the first session and user it sees.
            let first = owners.get_mut(trace).is_some_and(|o| !o.stored);
            let mut carries = Carried::of(&update, first && !part.session, first && !part.user);
            if !part.root {
                carries.name = None;
                carries.tags.clear();
            }
            carried.insert(*trace, carries);
        }
        carried
    }

    /// Sends the spans at `positions` as one request; takes it apart where the server objects.
    async fn send(
        &self,
        batch: BatchId,
        experiment: &Resolved,
        encoded: &EncodedSpans,
        positions: Vec<usize>,
    ) -> Result<Vec<(usize, Fault)>, Fault> {
        let header = |name, text: &str| Some((name, HeaderValue::try_from(text).ok()?));
        let headers: Vec<_> = header(EXPERIMENT_HEADER, &experiment.id)
            .into_iter()
            .chain(
                self.workspace
                    .as_deref()
                    .and_then(|w| header(WORKSPACE_HEADER, w)),
            )
            .collect();
        if !headers.iter().any(|(name, _)| *name == EXPERIMENT_HEADER) || experiment.id.is_empty() {
            // Spans for an empty experiment vanish behind a 200.
            return Err(Fault::new(
                ErrorKind::Unsupported,
                "the server gave the experiment an id that cannot be sent",
                "look into the server's log, and check its version",
            ));
        }
        let attempt = async |selected: Vec<usize>| {
            let plain = selected.len() == 1 && self.tries.is_again(batch);
            let body = match selected.len() == encoded.len() {
                true => encoded.request(|_| true),
                false => encoded.request(|i| selected.binary_search(&i).is_ok()),
            };
            let answer = post(&self.host, PATH, &headers, body, plain).await?;
            match partial_success(&self.host, &answer)? {
                (0, _) => Ok(()),
                // Not something MLflow does yet; a repetition finds the offender.
                (count, said) => Err(rejected(count, &said)),
            }
        };
        let probe = async |unclear: bool| match unclear {
            // A 500 may pass. If it does not, and the server can read its database, some span is
            // what it stumbles over.
            true => experiment::still_there(self.api(), &experiment.id)
                .await
                .map(|_| true),
            false => is_healthy(&self.host, PATH, &headers).await,
        };
        deliver(&self.tries, batch, positions, &attempt, &probe).await
    }

    /// Tells what applications said about the traces of a batch, whose spans are stored.
    async fn complete(
        &self,
        batch: &TraceBatch,
        parts: &HashMap<TraceId, Part>,
        experiment: &Resolved,
    ) {
        let updated = batch.updates().iter().map(|u| u.trace_id);
        let traces: BTreeMap<[u8; 16], TraceId> = parts
            .keys()
            .copied()
            .chain(updated)
            .filter(|trace| self.memory.has_todo(*trace))
            .map(|trace| (trace.to_bytes(), trace))
            .collect();
        let jobs = traces.into_values().map(|trace| {
            let known = Known {
                trace,
                stored: false,
                finished: false,
                root: false,
            };
            (trace, known)
        });
        let with = self.completion(&experiment.id);
        self.memory.later.run(&with, jobs.collect()).await;
    }

    fn completion(&self, experiment: &Arc<str>) -> Arc<dyn Complete<Known>> {
        Arc::new(Completion {
            uri: self.uri.clone(),
            host: self.host.clone(),
            workspace: self.workspace.clone(),
            experiment: experiment.clone(),
            memory: self.memory.clone(),
        })
    }
}

#[async_trait]
impl TraceSink for MlflowSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let refused = self
            .store(batch)
            .await
            .map_err(|fault| of_place(fault).during(WRITE).at(&self.uri))?;
        self.memory.count(batch.updates(), &self.memory.later);
        Ok(Written {
            refused: refused
                .into_iter()
                .map(|(index, error)| Refusal {
                    index,
                    error: error.at(&self.uri),
                })
                .collect(),
            lost_updates: lost_updates(&self.memory, &self.uri),
        })
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        let experiment = self.with_state(|state| state.experiment.id.clone());
        let with = self.completion(&experiment);
        self.memory.later.last_try(&with).await;
        Ok(())
    }
}

/// The values that were given up, as a batch that is written reports them.
pub(crate) fn lost_updates(memory: &TraceMemory, uri: &LocationUri) -> Vec<Error> {
    let lost = memory.take_lost().into_iter();
    lost.map(|(_, error)| error.at(uri)).collect()
}

/// Spans of a request that was a success otherwise.
fn rejected(count: u64, said: &str) -> Fault {
    Fault::with_outcome(
        ErrorKind::InvalidSpan,
        format!("POST {PATH} was answered with 200: {count} spans rejected: {said}"),
        "look into the server's log",
        Outcome::Apart,
    )
}

/// Whether the experiment may be gone: said so, or hidden behind a refusal by `basic-auth`.
fn is_gone(fault: &Fault) -> bool {
    fault.status() == Some(403) || fault.code() == Some("RESOURCE_DOES_NOT_EXIST")
}

/// A fault that is no batch's, though its kind may stand for one: spans were refused one by one.
fn of_place(fault: Fault) -> Fault {
    match fault.kind() {
        ErrorKind::InvalidSpan | ErrorKind::Conflict => {
            let outcome = fault.outcome();
            let error = fault.during(WRITE);
            let mend = error.mend_hint().unwrap_or_default().to_owned();
            Fault::with_outcome(
                ErrorKind::InvalidConfig,
                error.cause().to_owned(),
                mend,
                outcome,
            )
        }
        _ => fault,
    }
}

/// A span the server did not take.
fn objection(span: &Span, fault: Fault) -> Error {
    let said = fault.during(WRITE);
    let mend = validate::suspicion(span)
        .unwrap_or("correct what the server objects to; its log says more");
    validate::refusal(span, said.cause(), mend)
}
