//! The writing of a trace: its row, tags, metadata, spans and link.

use super::Tables;
use super::fold::{Changes, MAX_KEY, MAX_VALUE, attribute, cut};
use crate::clock::now_ms;
use crate::derive::{self, RootFacts};
use crate::error::Fault;
use crate::experiment::Resolved;
use crate::memory::{Explicit, TraceState};
use crate::rows::{Rows, SpanRow, TraceRows};
use crate::schema::Shape;
use crate::sql::{self, Upsert};
use rusqlite::{CachedStatement, Connection, ToSql, params};
use std::hash::BuildHasher;
use trace_destination_core::{Error, ErrorKind, TraceUpdate};
use uuid::Uuid;

/// An upsert, open for one transaction.
pub(super) struct Put<'c> {
    conn: &'c Connection,
    insert: CachedStatement<'c>,
    update: &'c str,
}

impl<'c> Put<'c> {
    pub(super) fn open(conn: &'c Connection, sql: &'c Upsert) -> Result<Self, Fault> {
        Ok(Self {
            conn,
            insert: conn.prepare_cached(&sql.insert)?,
            update: &sql.update,
        })
    }

    pub(super) fn run(&mut self, values: &[&dyn ToSql]) -> Result<(), Fault> {
        match self.insert.execute(values) {
            Err(e) if is_there_already(&e) => {
                self.conn.prepare_cached(self.update)?.execute(values)?;
            }
            result => {
                result?;
            }
        }
        Ok(())
    }
}

fn is_there_already(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    matches!(e, rusqlite::Error::SqliteFailure(f, _)
        if matches!(f.extended_code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE))
}
impl Tables<'_> {
    pub(super) fn insert(
        &mut self,
        id: &str,
        state: &TraceState,
        changes: &Changes<'_>,
    ) -> Result<(), Fault> {
        bind_trace(self.shape, id, state, changes, |values| {
            self.insert_trace.execute(values)
        })
    }

    pub(super) fn update(
        &mut self,
        id: &str,
        state: &TraceState,
        changes: &Changes<'_>,
    ) -> Result<(), Fault> {
        bind_trace(self.shape, id, state, changes, |values| {
            self.update_trace.execute(values)
        })
    }

    /// Tags in the order of who wins: the resource, the root, the application.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that can put a tag on a trace"
    )]
    pub(super) fn put_tags(
        &mut self,
        state: &mut TraceState,
        rows: &Rows,
        trace: &TraceRows,
        experiment: &Resolved,
        root: Option<&RootFacts>,
        new: bool,
        explicit: &mut Explicit,
    ) -> Result<(), Fault> {
        if let (true, Some(location)) = (new, &experiment.artifact_location) {
            let location = format!(
                "{}/traces/{}/artifacts",
                location.trim_end_matches('/'),
                trace.id
            );
            self.tag
                .run(&[&trace.id, &sql::ARTIFACT_LOCATION, &location])?;
        }
        self.put_tag(state, &trace.id, sql::SPANS_LOCATION, sql::TRACKING_STORE)?;
        let root_tags = root.map_or(&[][..], |r| &r.tags);
        let update_tags = trace.update.as_ref().map(|u| &u.tags);
        for (key, value) in rows.resource_tags(trace) {
            let beaten = explicit.tags.contains(key)
                || root_tags.iter().any(|(k, _)| k == key)
                || update_tags.is_some_and(|t| t.contains_key(key));
            if !beaten {
                self.put_tag(state, &trace.id, key, value)?;
            }
        }
        for (key, value) in root_tags {
            let beaten =
                explicit.tags.contains(key) || update_tags.is_some_and(|t| t.contains_key(key));
            if !beaten {
                self.put_tag(state, &trace.id, key, value)?;
            }
        }
        for (key, value) in update_tags.into_iter().flatten() {
            if is_own_tag(key) {
                self.put_tag(state, &trace.id, key, cut(value, MAX_VALUE))?;
                explicit.tags.insert(key.clone());
            }
        }
        Ok(())
    }

    fn put_tag(
        &mut self,
        state: &mut TraceState,
        id: &str,
        key: &str,
        value: &str,
    ) -> Result<(), Fault> {
        if state.tags.insert(self.hasher.hash_one((key, value))) {
            self.tag.run(&[&id, &key, &value])?;
        }
        Ok(())
    }

    /// Metadata, and the rows that stand for columns in older databases.
    pub(super) fn put_rows(&mut self, id: &str, changes: &Changes<'_>) -> Result<(), Fault> {
        if self.shape.legacy_rows {
            if let Some(name) = changes.name {
                self.tag.run(&[&id, &sql::TRACE_NAME, &name])?;
            }
            for (key, value) in [
                (sql::SESSION, changes.session),
                (sql::USAGE, changes.usage.as_ref().map(|u| u.1.as_str())),
                (sql::COST, changes.cost.as_ref().map(|c| c.1.as_str())),
            ] {
                if let Some(value) = value {
                    self.metadata.run(&[&id, &key, &value])?;
                }
            }
            if let (true, Some(usage)) = (self.shape.trace_metrics, &changes.usage) {
                let mut put = Put::open(self.conn, &self.sql.trace_metric)?;
                for (key, count) in derive::USAGE_KEYS.iter().zip(usage.0) {
                    if let Some(count) = count {
                        put.run(&[&id, key, &(count as f64)])?;
                    }
                }
            }
        }
        for (key, value) in &changes.metadata {
            self.metadata.run(&[&id, key, value])?;
        }
        Ok(())
    }

    pub(super) fn put_span(
        &mut self,
        id: &str,
        experiment: i64,
        row: &SpanRow,
    ) -> Result<(), Fault> {
        let facts = &row.facts;
        let costs = facts.cost.map_or([None; 3], |c| c.columns());
        let dimensions = match self.shape.dimensions {
            true => dimensions(facts.model_name.as_deref(), facts.model_provider.as_deref()),
            false => None,
        };
        let values: [&dyn ToSql; 16] = [
            &id,
            &facts.span_id,
            &experiment,
            &facts.parent_span_id,
            &facts.name,
            &facts.span_type,
            &facts.status,
            &facts.start_ns,
            &facts.end_ns,
            &facts.content,
            &costs[0],
            &costs[1],
            &costs[2],
            &facts.model_name,
            &facts.model_provider,
            &dimensions,
        ];
        match (self.shape.span_columns, self.shape.dimensions) {
            (true, true) => self.span.run(&values)?,
            (true, false) => self.span.run(&values[..15])?,
            (false, false) => self.span.run(&values[..10])?,
            (false, true) => {
                let mut without_columns = values[..11].to_vec();
                without_columns[10] = values[15];
                self.span.run(&without_columns)?
            }
        };
        if self.shape.span_metrics {
            let mut put = Put::open(self.conn, &self.sql.span_metric)?;
            for (key, cost) in derive::COST_KEYS.iter().zip(costs) {
                if let Some(cost) = cost {
                    put.run(&[&id, &facts.span_id, key, &cost])?;
                }
            }
        }
        Ok(())
    }

    /// Links a trace to a run: by a row of its own, or by metadata where the database has no such
    /// rows, or not yet such a run. MLflow's search by run finds both.
    pub(super) fn link_run(&mut self, id: &str, run: &str) -> Result<(), Fault> {
        if self.shape.associations {
            let linked = self
                .conn
                .prepare_cached(sql::PUT_RUN_LINK)?
                .execute(params![
                    Uuid::new_v4().simple().to_string(),
                    id,
                    run,
                    now_ms()
                ])?;
            if linked > 0 {
                return Ok(());
            }
        }
        self.metadata.run(&[&id, &sql::SOURCE_RUN, &run])
    }
}
/// Binds the values that insert and update have in common, in the order of their parameters.
fn bind_trace(
    shape: &Shape,
    id: &str,
    state: &TraceState,
    changes: &Changes<'_>,
    execute: impl FnOnce(&[&dyn ToSql]) -> rusqlite::Result<usize>,
) -> Result<(), Fault> {
    let usage = changes.usage.as_ref().map_or([None; 6], |u| u.0);
    let cost = changes.cost.as_ref().map_or([None; 3], |c| c.0);
    let status = state.status.as_str();
    let values: [&dyn ToSql; 19] = [
        &id,
        &state.experiment,
        &state.timestamp_ms,
        &state.execution_ms,
        &status,
        &changes.request_preview,
        &changes.response_preview,
        &changes.client_request_id,
        &changes.name,
        &changes.session,
        &usage[0],
        &usage[1],
        &usage[2],
        &usage[3],
        &usage[4],
        &usage[5],
        &cost[0],
        &cost[1],
        &cost[2],
    ];
    let bound = if shape.trace_columns { 19 } else { 8 };
    execute(&values[..bound])?;
    Ok(())
}
/// Whether an application may set this tag: not one by which MLflow finds the trace's data, and not
/// the name, which is a value of its own.
fn is_own_tag(key: &str) -> bool {
    key != sql::TRACE_NAME && why_not_taken(key).is_none()
}

/// Why MLflow does not take a tag of this key, if it does not.
fn why_not_taken(key: &str) -> Option<&'static str> {
    if sql::RESERVED_TAGS.contains(&key) {
        Some("MLflow finds the trace's data by it")
    } else if key.is_empty() {
        Some("its key is empty")
    } else if key.chars().count() > MAX_KEY {
        Some("its key has more than 250 characters")
    } else {
        None
    }
}

const NOT_COUNTS: &str = "it is not token usage as MLflow writes it, a JSON object of counts";
const NOT_AMOUNTS: &str = "it is not a cost as MLflow writes it, a JSON object of amounts";

/// The values of an update that are left out, as one error.
pub(super) fn lost_values(update: &TraceUpdate) -> Option<Error> {
    let tags = update
        .tags
        .keys()
        .filter_map(|key| Some(("tag", key, why_not_taken(key)?)));
    let metadata = update.metadata.iter().filter_map(|(key, value)| {
        let stated = |key| derive::stored_values(&attribute(key, value));
        let why = match key.as_str() {
            sql::USAGE if stated("mlflow.chat.tokenUsage").0.is_none() => NOT_COUNTS,
            sql::COST if stated("mlflow.llm.cost").1.is_none() => NOT_AMOUNTS,
            sql::FINALIZED => "it would keep MLflow from adding later spans",
            "" => "its key is empty",
            key if key.chars().count() > MAX_KEY => "its key has more than 250 characters",
            _ => return None,
        };
        Some(("metadata", key, why))
    });
    let mut left_out = tags.chain(metadata);
    let (what, key, why) = left_out.next()?;
    let key: String = key.chars().take(80).collect();
    let more = match left_out.count() {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    let cause = format!(
        "{what} `{}` of trace tr-{} is left out: {why}{more}",
        key.escape_debug(),
        update.trace_id
    );
    Some(
        Error::new(ErrorKind::Unsupported, "write trace-level values", cause)
            .mend("give it another key, or a value of the right form"),
    )
}

/// The older place of model and provider: one JSON object.
fn dimensions(model: Option<&str>, provider: Option<&str>) -> Option<String> {
    let mut object = serde_json::Map::new();
    for (key, value) in [
        ("mlflow.llm.model", model),
        ("mlflow.llm.provider", provider),
    ] {
        if let Some(value) = value {
            object.insert(key.into(), value.into());
        }
    }
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
}
