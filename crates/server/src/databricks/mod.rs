//! Databricks' OTLP ingest: spans into a table of Unity Catalog, as MLflow's client sends them
//! (MLflow 3.17.2, `DatabricksUCTableSpanExporter`).

mod grant;
mod info;
mod table;

pub(crate) use grant::Grant;
pub(crate) use info::Calls;
pub(crate) use table::{PREFIXED_TABLE, SCHEMA_TABLE, Table};

use crate::error::{FaultExt as _, WRITE};
use crate::export::Tries;
use crate::host::Host;
use crate::keys;
use crate::later::Complete;
use crate::mlflow::{TraceMemory, lost_updates};
use crate::otlp::Endpoint;
use async_trait::async_trait;
use opentelemetry::trace::TraceId;
use reqwest::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use trace_destination_core::{
    AnyValueRef, Error, LocationUri, Span, TraceBatch, TraceSink, TraceUpdate, Written,
};
use trace_destination_otlp::{EncodedSpans, Rewrite};

pub(crate) const PATH: &str = "/api/2.0/otel/v1/traces";
const TABLE_HEADER: HeaderName = HeaderName::from_static("x-databricks-uc-table-name");

/// What a request of spans carries beside them.
pub(crate) fn headers(table: &Table) -> Vec<(HeaderName, HeaderValue)> {
    // Checked when the location was built.
    let name = HeaderValue::try_from(&*table.name).ok();
    name.map(|name| (TABLE_HEADER, name)).into_iter().collect()
}
/// A table, ready to be sent to.
pub(crate) struct DatabricksSink {
    uri: LocationUri,
    host: Arc<Host>,
    table: Table,
    memory: Arc<TraceMemory>,
    tries: Arc<Tries>,
}

impl DatabricksSink {
    pub(crate) fn new(
        uri: LocationUri,
        host: Arc<Host>,
        table: Table,
        memory: Arc<TraceMemory>,
        tries: Arc<Tries>,
    ) -> Self {
        Self {
            uri,
            host,
            table,
            memory,
            tries,
        }
    }

    fn completion(&self) -> Arc<dyn Complete<Calls>> {
        Arc::new(info::Completion {
            uri: self.uri.clone(),
            host: self.host.clone(),
            memory: self.memory.clone(),
        })
    }
}

#[async_trait]
impl TraceSink for DatabricksSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        // What is said about a trace goes out with its root, which may come much later.
        self.memory.note(batch.updates());
        let roots: Vec<(usize, &Span, TraceUpdate)> = batch
            .spans()
            .enumerate()
            .filter(|(_, span)| span.parent_span_id().is_none())
            .map(|(i, span)| (i, span, self.known(span.trace_id())))
            .collect();
        let mut written = match batch.span_count() {
            0 => Written::default(),
            _ => self.send(batch, &roots).await?,
        };
        let mut jobs = Vec::new();
        for (i, root, update) in &roots {
            let trace = root.trace_id();
            if written.refused.iter().any(|r| r.index == *i) {
                continue;
            }
            jobs.push((trace, Calls::at_end(&self.table, root, update)));
            self.memory.note_root(trace);
            self.memory.done(trace, update, true);
        }
        jobs.extend(self.late(batch.updates()));
        self.memory.infos.run(&self.completion(), jobs).await;
        self.memory.count(batch.updates(), &self.memory.infos);
        written.lost_updates = lost_updates(&self.memory, &self.uri);
        Ok(written)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.memory.infos.last_try(&self.completion()).await;
        Ok(())
    }
}

impl DatabricksSink {
    /// Everything said about a trace.
    fn known(&self, trace: TraceId) -> TraceUpdate {
        let known = self.memory.known(trace);
        known.unwrap_or_else(|| TraceUpdate::new(trace))
    }

    /// Calls for values of traces whose root is stored already.
    fn late(&self, updates: &[TraceUpdate]) -> Vec<(TraceId, Calls)> {
        let mut jobs = Vec::new();
        for update in updates {
            let trace = update.trace_id;
            if !self.memory.has_root(trace) {
                continue;
            }
            // What was told with the root in this batch is no more.
            let Some(todo) = self.memory.todo(trace) else {
                continue;
            };
            let (calls, left_out) = Calls::after_end(&self.table, &todo);
            if let Some(fault) = left_out {
                self.memory.lost(trace, fault);
            }
            if let Some(calls) = calls {
                let waiting = self.memory.infos.job(trace);
                jobs.push((trace, calls.after(waiting)));
            }
            self.memory.done(trace, &todo, true);
        }
        jobs
    }

    async fn send(
        &self,
        batch: &TraceBatch,
        roots: &[(usize, &Span, TraceUpdate)],
    ) -> Result<Written, Error> {
        let mut rewrite = AsMlflowSends {
            location: &self.table.location,
            updates: roots
                .iter()
                .map(|(_, span, update)| (span.trace_id().to_bytes(), update))
                .collect(),
        };
        let encoded = EncodedSpans::new(batch.groups(), &mut rewrite);
        let headers = headers(&self.table);
        let to = Endpoint {
            host: &self.host,
            uri: &self.uri,
            path: PATH,
            headers: &headers,
            tries: &self.tries,
        };
        to.send(batch.id(), &encoded)
            .await
            .map_err(|fault| fault.during(WRITE).at(&self.uri))
    }
}

/// Attributes as MLflow's client gives them to spans on their way to a table.
struct AsMlflowSends<'a> {
    location: &'a str,
    updates: BTreeMap<[u8; 16], &'a TraceUpdate>,
}

impl AsMlflowSends<'_> {
    fn trace_id(&self, trace_id: TraceId) -> String {
        format!("trace:/{}/{trace_id}", self.location)
    }
}

impl Rewrite for AsMlflowSends<'_> {
    fn attributes(&mut self, span: &Span, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
        let update = match span.parent_span_id() {
            None => self.updates.get(&span.trace_id().to_bytes()),
            Some(_) => None,
        };
        let session = update.and_then(|u| u.session_id.as_deref());
        let user = update.and_then(|u| u.user_id.as_deref());
        for (key, value) in span.attributes().iter() {
            let replaced = match key {
                keys::REQUEST_ID => true,
                keys::SESSION => session.is_some(),
                keys::USER => user.is_some(),
                _ => false,
            };
            if !replaced {
                put(key, value);
            }
        }
        let id = self.trace_id(span.trace_id());
        put(keys::REQUEST_ID, AnyValueRef::String(&id));
        for (key, value) in [(keys::SESSION, session), (keys::USER, user)] {
            if let Some(value) = value {
                put(key, AnyValueRef::String(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_tables() {
        for (table, location) in [
            ("c.s.p_otel_spans", Some("c.s.p")),
            ("c.s.mlflow_experiment_trace_otel_spans", Some("c.s")),
            ("c.s.spans", Some("c.s")),
            ("c.s._otel_spans", Some("c.s")),
            ("c.s", None),
            ("c..t", None),
            ("a.b.c.d", None),
            ("", None),
        ] {
            let found = Table::parse(table).map(|t| t.location);
            assert_eq!(found.as_deref(), location, "{table}");
        }
    }
}
