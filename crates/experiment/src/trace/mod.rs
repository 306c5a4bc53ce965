//! One trace of one batch: folded into what the database has, and written.

mod fold;
mod put;

use crate::derive::{self, Cost, Rollup, Usage};
use crate::error::{Fault, WRITE};
use crate::experiment::{Resolved, describe};
use crate::memory::{Explicit, Memory, State, TraceState};
use crate::requests::Stored;
use crate::rows::{Rows, SpanRow, TraceRows};
use crate::schema::Shape;
use crate::sql::{self, Statements};
use crate::writer::Care;
use fold::{Changes, CostText, UsageText};
use put::Put;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use trace_destination_core::{Error, ErrorKind};

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
        care: Care,
        stored: &mut Stored,
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
            stored
                .refused
                .extend(spans.iter().map(|row| row.refused(&error)));
            stored
                .lost_updates
                .extend(trace.update.is_some().then_some(error));
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
        fold::times(&mut state, spans);
        let mut changes = Changes::default();
        let root = spans.iter().rev().find_map(|row| row.facts.root.as_ref());
        if let Some(root) = root {
            // Where a batch holds several roots, MLflow takes the state of the first.
            let first = spans.iter().find_map(|row| row.facts.root.as_ref());
            fold::root_span(
                &mut state,
                &mut changes,
                first.unwrap_or(root),
                root,
                &explicit,
            );
        }
        fold::session_and_user(&mut state, &mut changes, spans);
        self.fold_tree(&mut state, &mut changes, trace, spans, new, &explicit)?;
        let update = trace.update.as_ref();
        if let Some(update) = update {
            fold::update_values(&mut state, &mut changes, update, &mut explicit);
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
            let put = care.around(self.conn, WRITE, || {
                self.put_span(&trace.id, experiment.id, row)
            })?;
            stored
                .refused
                .extend(put.err().map(|error| row.refused(&error)));
        }
        stored
            .lost_updates
            .extend(update.and_then(put::lost_values));
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
            // Whose it is, is not for this location to know.
            return conflict(format!(
                "trace {} is stored in another experiment of this database, and its id cannot be \
                 used again in {here}",
                trace.id
            ))
            .map(|e| {
                e.mend(
                    "start a new trace where the destination changes, or use a database of its own",
                )
            });
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
                false => self.read_tree(&trace.id)?,
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

    fn read_tree(&self, id: &str) -> Result<Rollup, Fault> {
        let mut statement = self.conn.prepare_cached(sql::SPAN_TREE)?;
        let mut rows = statement.query([id])?;
        let mut tree = Rollup::default();
        while let Some(row) = rows.next()? {
            let span_id: String = row.get(0)?;
            let parent: Option<String> = row.get(1)?;
            let content: Option<String> = row.get(2)?;
            let (usage, cost): (Option<Usage>, Option<Cost>) =
                content.map_or((None, None), |c| derive::stored_values(&c));
            tree.insert(&span_id, parent.as_deref(), usage, cost);
        }
        Ok(tree)
    }
}
