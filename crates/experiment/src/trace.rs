//! One trace of one batch: folded into what the database has, and written.
//!
//! The rules are those of MLflow's own server for the same spans (3.17.2, `log_spans`): earliest
//! start and latest end, state from the root and then kept, first session, user and previews kept,
//! name and tags from the root, usage and cost summed over the tree of *all* its spans. Values the
//! application set on the trace as a whole beat them.

use crate::derive::{self, Cost, Rollup, RootFacts, Usage};
use crate::error::{Fault, WRITE};
use crate::experiment::{Resolved, describe, now_ms};
use crate::memory::{Explicit, Memory, State, TraceState};
use crate::rows::{Rows, SpanRow, TraceRows};
use crate::schema::Shape;
use crate::sql::{self, Statements, Upsert};
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use trace_destination_core::{Error, ErrorKind, Refusal, TraceUpdate};
use uuid::Uuid;

/// Longest texts MLflow keeps (3.17.2), in characters.
const MAX_NAME: usize = 4096;
const MAX_SESSION: usize = 250;
const MAX_PREVIEW: usize = 1000;
const MAX_KEY: usize = 250;
const MAX_VALUE: usize = 8000;

const NS_PER_MS: i64 = 1_000_000;

/// The trace tables, open for one transaction.
pub(crate) struct Tables<'c> {
    conn: &'c Connection,
    shape: &'c Shape,
    sql: &'c Statements,
    insert_trace: CachedStatement<'c>,
    update_trace: CachedStatement<'c>,
    tag: Put<'c>,
    metadata: Put<'c>,
    span: Put<'c>,
    hasher: foldhash::fast::FixedState,
}

/// An upsert, open for one transaction.
struct Put<'c> {
    conn: &'c Connection,
    insert: CachedStatement<'c>,
    update: &'c str,
}

impl<'c> Put<'c> {
    fn open(conn: &'c Connection, sql: &'c Upsert) -> Result<Self, Fault> {
        Ok(Self {
            conn,
            insert: conn.prepare_cached(&sql.insert)?,
            update: &sql.update,
        })
    }

    fn run(&mut self, values: &[&dyn ToSql]) -> Result<(), Fault> {
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

/// What is to be written of a trace; `None` leaves the stored value.
#[derive(Default)]
struct Changes<'a> {
    request_preview: Option<&'a str>,
    response_preview: Option<&'a str>,
    client_request_id: Option<&'a str>,
    name: Option<&'a str>,
    session: Option<&'a str>,
    usage: Option<UsageText>,
    cost: Option<CostText>,
    metadata: BTreeMap<&'a str, &'a str>,
}

/// Usage as columns and as the text of a row.
struct UsageText([Option<i64>; 6], String);
/// Cost as columns and as the text of a row.
struct CostText([Option<f64>; 3], String);

impl<'c> Tables<'c> {
    pub(crate) fn open(
        conn: &'c Connection,
        shape: &'c Shape,
        sql: &'c Statements,
    ) -> Result<Self, Fault> {
        Ok(Self {
            conn,
            shape,
            sql,
            insert_trace: conn.prepare_cached(&sql.insert_trace)?,
            update_trace: conn.prepare_cached(&sql.update_trace)?,
            tag: Put::open(conn, &sql.tag)?,
            metadata: Put::open(conn, &sql.metadata)?,
            span: Put::open(conn, &sql.span)?,
            hasher: foldhash::fast::FixedState::default(),
        })
    }

    /// Writes one trace of a batch, or refuses its spans because the trace is elsewhere.
    pub(crate) fn write(
        &mut self,
        memory: &mut Memory,
        rows: &Rows,
        trace: &TraceRows,
        experiment: &Resolved,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), Fault> {
        let spans = &rows.spans[trace.spans.clone()];
        let known = match memory.take_trace(trace.key) {
            None => self.read(&trace.id)?,
            some => some,
        };
        if let Some(state) = &known
            && let Some(error) = self.elsewhere(state, trace, experiment)
        {
            if let Some(state) = known {
                memory.put_trace(trace.key, state);
            }
            if spans.is_empty() {
                tracing::warn!(%error, "values of a trace were not stored");
            }
            refused.extend(spans.iter().map(|row| Refusal {
                index: row.index,
                error: error.clone(),
            }));
            return Ok(());
        }
        let mut explicit = memory.take_explicit(trace.key).unwrap_or_default();
        let new = known.is_none();
        let mut state = known.unwrap_or_else(|| TraceState {
            experiment: experiment.id,
            timestamp_ms: i64::MAX,
            here: true,
            ..TraceState::default()
        });

        let before = (state.timestamp_ms, state.execution_ms, state.status.clone());
        fold_times(&mut state, spans);
        let mut changes = Changes::default();
        let root = spans.iter().rev().find_map(|row| row.facts.root.as_ref());
        if let Some(root) = root {
            // Where a batch holds several roots, MLflow takes the state of the first.
            let first = spans.iter().find_map(|row| row.facts.root.as_ref());
            fold_root(
                &mut state,
                &mut changes,
                first.unwrap_or(root),
                root,
                &explicit,
            );
        }
        fold_session_and_user(&mut state, &mut changes, spans);
        self.fold_tree(&mut state, &mut changes, trace, spans, new, &explicit)?;
        let update = trace.update.as_ref();
        if let Some(update) = update {
            fold_update(&mut state, &mut changes, update, &mut explicit);
        }

        if new {
            self.insert(&trace.id, &state, &changes)?;
        } else if self.shape.generation
            || before != (state.timestamp_ms, state.execution_ms, state.status.clone())
            || changes.touches_trace_info()
        {
            self.update(&trace.id, &state, &changes)?;
        }
        if !new && state.timestamp_ms != before.0 && self.shape.assessment_times {
            self.conn
                .prepare_cached(sql::MOVE_ASSESSMENTS)?
                .execute(params![trace.id, state.timestamp_ms])?;
        }
        self.put_tags(
            &mut state,
            rows,
            trace,
            experiment,
            root,
            new,
            &mut explicit,
        )?;
        self.put_rows(&trace.id, &changes)?;
        for row in spans {
            self.put_span(&trace.id, experiment.id, row)?;
        }
        if let Some(run) = update.and_then(|u| u.run_id.as_deref()) {
            self.link_run(&trace.id, run)?;
        }
        memory.put_trace(trace.key, state);
        if !explicit.is_empty() {
            memory.put_explicit(trace.key, explicit);
        }
        Ok(())
    }

    /// What the database has of a trace.
    fn read(&self, id: &str) -> Result<Option<TraceState>, Fault> {
        let mut statement = self.conn.prepare_cached(&self.sql.read_trace)?;
        let state = statement
            .query_row([id], |row| {
                let status: String = row.get(3)?;
                let location: Option<String> = row.get(10)?;
                Ok(TraceState {
                    experiment: row.get(0)?,
                    timestamp_ms: row.get(1)?,
                    execution_ms: row.get(2)?,
                    status: match status.as_str() {
                        "IN_PROGRESS" | "STATE_UNSPECIFIED" => State::Open(status.into()),
                        _ => State::Final(status.into()),
                    },
                    has_request_preview: row.get(4)?,
                    has_response_preview: row.get(5)?,
                    has_name: row.get(6)?,
                    has_session: row.get(7)?,
                    has_usage: row.get(8)?,
                    has_cost: row.get(9)?,
                    here: location.is_none_or(|l| l == sql::TRACKING_STORE),
                    has_user: row.get(11)?,
                    finalized: row.get(12)?,
                    ..TraceState::default()
                })
            })
            .optional()?;
        Ok(state)
    }

    /// Why the spans of a stored trace cannot be added here, if they cannot.
    fn elsewhere(
        &self,
        state: &TraceState,
        trace: &TraceRows,
        experiment: &Resolved,
    ) -> Option<Error> {
        let conflict = |cause| Some(Error::new(ErrorKind::Conflict, WRITE, cause));
        if state.experiment != experiment.id {
            let here = describe(self.conn, experiment.id);
            let there = describe(self.conn, state.experiment);
            return conflict(format!(
                "trace {} is stored in {there} of this database, and its id cannot be used again \
                 in {here}",
                trace.id
            ))
            .map(|e| e.mend("start a new trace where the destination changes"));
        }
        if !state.here {
            return conflict(format!(
                "the spans of trace {} were moved out of the database by MLflow",
                trace.id
            ))
            .map(|e| e.mend("send late spans before the trace is archived"));
        }
        None
    }

    /// Sums usage and cost over the tree, where any span carries some.
    fn fold_tree(
        &self,
        state: &mut TraceState,
        changes: &mut Changes<'_>,
        trace: &TraceRows,
        spans: &[SpanRow],
        new: bool,
        explicit: &Explicit,
    ) -> Result<(), Fault> {
        let carries = spans
            .iter()
            .any(|row| row.facts.usage.is_some() || row.facts.cost.is_some());
        if state.tree.is_none() {
            if spans.is_empty() || !(carries || state.has_usage || state.has_cost) {
                return Ok(());
            }
            let tree = match new {
                true => Rollup::default(),
                false => self.read_tree(&trace.id, &mut state.tree_size)?,
            };
            state.tree = Some(tree);
        }
        let Some(tree) = &mut state.tree else {
            return Ok(());
        };
        for SpanRow { facts, .. } in spans {
            tree.insert(
                &facts.span_id,
                facts.parent_span_id.as_deref(),
                facts.usage,
                facts.cost,
            );
        }
        state.tree_size += spans.len();
        // Final values of an MLflow client stay; so do those the application gave for the trace.
        if !(explicit.usage || state.finalized && state.has_usage) {
            changes.usage = tree.usage().map(|u| UsageText(u.columns(), u.to_json()));
            state.has_usage |= changes.usage.is_some() && !state.finalized;
        }
        if !(explicit.cost || state.finalized && state.has_cost) {
            changes.cost = tree.cost().map(|c| CostText(c.columns(), c.to_json()));
            state.has_cost |= changes.cost.is_some() && !state.finalized;
        }
        Ok(())
    }

    fn read_tree(&self, id: &str, size: &mut usize) -> Result<Rollup, Fault> {
        let mut statement = self.conn.prepare_cached(sql::SPAN_TREE)?;
        let mut rows = statement.query([id])?;
        let mut tree = Rollup::default();
        *size = 0;
        while let Some(row) = rows.next()? {
            let span_id: String = row.get(0)?;
            let parent: Option<String> = row.get(1)?;
            let content: Option<String> = row.get(2)?;
            let (usage, cost): (Option<Usage>, Option<Cost>) =
                content.map_or((None, None), |c| derive::stored_values(&c));
            tree.insert(&span_id, parent.as_deref(), usage, cost);
            *size += 1;
        }
        Ok(tree)
    }

    fn insert(&mut self, id: &str, state: &TraceState, changes: &Changes<'_>) -> Result<(), Fault> {
        bind_trace(self.shape, id, state, changes, |values| {
            self.insert_trace.execute(values)
        })
    }

    fn update(&mut self, id: &str, state: &TraceState, changes: &Changes<'_>) -> Result<(), Fault> {
        bind_trace(self.shape, id, state, changes, |values| {
            self.update_trace.execute(values)
        })
    }

    /// Tags in the order of who wins: the resource, the root, the application.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that can put a tag on a trace"
    )]
    fn put_tags(
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
    fn put_rows(&mut self, id: &str, changes: &Changes<'_>) -> Result<(), Fault> {
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

    fn put_span(&mut self, id: &str, experiment: i64, row: &SpanRow) -> Result<(), Fault> {
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
    fn link_run(&mut self, id: &str, run: &str) -> Result<(), Fault> {
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

impl Changes<'_> {
    /// Whether a column may have to change that every shape has, or that this one may have.
    fn touches_trace_info(&self) -> bool {
        self.request_preview.is_some()
            || self.response_preview.is_some()
            || self.client_request_id.is_some()
            || self.name.is_some()
            || self.session.is_some()
            || self.usage.is_some()
            || self.cost.is_some()
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

fn fold_times(state: &mut TraceState, spans: &[SpanRow]) {
    let start = spans.iter().map(|r| r.facts.start_ns / NS_PER_MS).min();
    let end = spans
        .iter()
        .filter_map(|r| Some(r.facts.end_ns? / NS_PER_MS))
        .max();
    if state.finalized {
        return;
    }
    let known_end = state
        .execution_ms
        .map(|e| e.saturating_add(state.timestamp_ms));
    state.timestamp_ms = match start {
        Some(start) => state.timestamp_ms.min(start),
        // Values came before any span: the trace began before now.
        None if state.timestamp_ms == i64::MAX => now_ms(),
        None => state.timestamp_ms,
    };
    state.execution_ms = known_end
        .max(end)
        .map(|end| end.saturating_sub(state.timestamp_ms));
}

fn fold_root<'a>(
    state: &mut TraceState,
    changes: &mut Changes<'a>,
    first: &RootFacts,
    root: &'a RootFacts,
    explicit: &Explicit,
) {
    if let State::Open(_) = state.status {
        state.status = State::Final(first.state.into());
    }
    if !state.has_request_preview {
        changes.request_preview = root.request_preview.as_deref();
        state.has_request_preview = changes.request_preview.is_some();
    }
    if !state.has_response_preview {
        changes.response_preview = root.response_preview.as_deref();
        state.has_response_preview = changes.response_preview.is_some();
    }
    if !explicit.name {
        let fallback = (!state.has_name).then_some(root.fallback_name.as_str());
        changes.name = root.name.as_deref().or(fallback);
        state.has_name |= changes.name.is_some();
    }
}

fn fold_session_and_user<'a>(
    state: &mut TraceState,
    changes: &mut Changes<'a>,
    spans: &'a [SpanRow],
) {
    if !state.has_session {
        changes.session = spans.iter().find_map(|r| r.facts.session_id.as_deref());
        state.has_session = changes.session.is_some();
    }
    if !state.has_user
        && let Some(user) = spans.iter().find_map(|r| r.facts.user_id.as_deref())
    {
        changes.metadata.insert(sql::USER, user);
        state.has_user = true;
    }
}

/// Takes over what the application set on the trace, also under the names of tags and metadata
/// that stand for other values.
fn fold_update<'a>(
    state: &mut TraceState,
    changes: &mut Changes<'a>,
    update: &'a TraceUpdate,
    explicit: &mut Explicit,
) {
    for (key, value) in &update.metadata {
        match key.as_str() {
            sql::SESSION => set(
                &mut changes.session,
                &mut state.has_session,
                value,
                MAX_SESSION,
            ),
            sql::USAGE => {
                if let Some(usage) =
                    derive::stored_values(&attribute("mlflow.chat.tokenUsage", value)).0
                {
                    changes.usage = Some(UsageText(usage.columns(), usage.to_json()));
                    (state.has_usage, explicit.usage) = (true, true);
                }
            }
            sql::COST => {
                if let Some(cost) = derive::stored_values(&attribute("mlflow.llm.cost", value)).1 {
                    changes.cost = Some(CostText(cost.columns(), cost.to_json()));
                    (state.has_cost, explicit.cost) = (true, true);
                }
            }
            // Would keep MLflow from bringing the trace up to date with later spans.
            sql::FINALIZED => {}
            key if key.is_empty() || key.chars().count() > MAX_KEY => {
                tracing::warn!(key, "a metadata key that MLflow does not take was left out");
            }
            key => {
                changes.metadata.insert(key, cut(value, MAX_VALUE));
            }
        }
    }
    let mut named = false;
    let renamed = update.tags.get(sql::TRACE_NAME).filter(|n| !n.is_empty());
    for name in renamed.into_iter().chain(&update.name) {
        set(&mut changes.name, &mut named, name, MAX_NAME);
    }
    state.has_name |= named;
    explicit.name |= named;
    if let Some(session) = &update.session_id {
        set(
            &mut changes.session,
            &mut state.has_session,
            session,
            MAX_SESSION,
        );
    }
    if let Some(user) = &update.user_id {
        changes.metadata.insert(sql::USER, cut(user, MAX_VALUE));
    }
    state.has_user |= changes.metadata.contains_key(sql::USER);
    if let Some(preview) = &update.request_preview {
        set(
            &mut changes.request_preview,
            &mut state.has_request_preview,
            preview,
            MAX_PREVIEW,
        );
    }
    if let Some(preview) = &update.response_preview {
        set(
            &mut changes.response_preview,
            &mut state.has_response_preview,
            preview,
            MAX_PREVIEW,
        );
    }
    if let Some(id) = &update.client_request_id {
        changes.client_request_id = Some(id);
    }
}

/// A span with one attribute whose value is JSON text already.
fn attribute(key: &str, json: &str) -> String {
    format!("{{\"attributes\": {{\"{key}\": {json}}}}}")
}

fn set<'a>(slot: &mut Option<&'a str>, has: &mut bool, value: &'a str, max: usize) {
    *slot = Some(cut(value, max));
    *has = true;
}

/// Whether an application may set this tag: not one that MLflow needs to find the spans, and not
/// the name, which is a value of its own.
fn is_own_tag(key: &str) -> bool {
    let reserved = [sql::SPANS_LOCATION, sql::ARTIFACT_LOCATION, sql::TRACE_NAME];
    if key.is_empty() || key.chars().count() > MAX_KEY {
        tracing::warn!(key, "a tag key that MLflow does not take was left out");
        return false;
    }
    !reserved.contains(&key)
}

/// The first `max` characters.
fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) if text.len() > max => &text[..end],
        _ => text,
    }
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
