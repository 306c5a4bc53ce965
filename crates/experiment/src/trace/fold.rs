//! What the spans of a batch change about their trace, without the database.
//!
//! The rules are those of MLflow's own server for the same spans (3.17.2, `log_spans`): earliest
//! start and latest end, state from the root and then kept, first session, user and previews kept,
//! name and tags from the root, usage and cost summed over the tree of *all* its spans. Values the
//! application set on the trace as a whole beat them.

use crate::clock::now_ms;
use crate::derive::{self, RootFacts};
use crate::memory::{Explicit, State, TraceState};
use crate::rows::SpanRow;
use crate::sql;
use std::collections::BTreeMap;
use trace_destination_core::TraceUpdate;

/// Longest texts MLflow keeps (3.17.2), in characters.
const MAX_NAME: usize = 4096;
const MAX_SESSION: usize = 250;
const MAX_PREVIEW: usize = 1000;
pub(super) const MAX_KEY: usize = 250;
pub(super) const MAX_VALUE: usize = 8000;

const NS_PER_MS: i64 = 1_000_000;
/// What is to be written of a trace; `None` leaves the stored value.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub(super) request_preview: Option<&'a str>,
    pub(super) response_preview: Option<&'a str>,
    pub(super) client_request_id: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    pub(super) usage: Option<UsageText>,
    pub(super) cost: Option<CostText>,
    pub(super) metadata: BTreeMap<&'a str, &'a str>,
}

/// Usage as columns and as the text of a row.
pub(super) struct UsageText(pub(super) [Option<i64>; 6], pub(super) String);
/// Cost as columns and as the text of a row.
pub(super) struct CostText(pub(super) [Option<f64>; 3], pub(super) String);
impl Changes<'_> {
    /// Whether a column may have to change that every shape has, or that this one may have.
    pub(super) fn touches_trace_info(&self) -> bool {
        self.request_preview.is_some()
            || self.response_preview.is_some()
            || self.client_request_id.is_some()
            || self.name.is_some()
            || self.session.is_some()
            || self.usage.is_some()
            || self.cost.is_some()
    }
}
pub(super) fn times(state: &mut TraceState, spans: &[SpanRow]) {
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

pub(super) fn root_span<'a>(
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

pub(super) fn session_and_user<'a>(
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
pub(super) fn update_values<'a>(
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
            key if key.is_empty() || key.chars().count() > MAX_KEY => {}
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
pub(super) fn attribute(key: &str, json: &str) -> String {
    format!("{{\"attributes\": {{\"{key}\": {json}}}}}")
}

fn set<'a>(slot: &mut Option<&'a str>, has: &mut bool, value: &'a str, max: usize) {
    *slot = Some(cut(value, max));
    *has = true;
}
/// The first `max` characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) if text.len() > max => &text[..end],
        _ => text,
    }
}
