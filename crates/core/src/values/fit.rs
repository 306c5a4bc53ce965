//! Cutting values to what a place keeps, and leaving out what no place may store.

use crate::error::{Error, ErrorKind};
use crate::location::TraceValueLimits;
use crate::record::TraceUpdate;
use std::collections::BTreeMap;

/// What is done with trace-level values, in errors.
pub(crate) const OPERATION: &str = "write trace-level values";

/// Tags by which MLflow finds the data of a trace (`TraceTagKey` of `mlflow/tracing/constant.py`,
/// 3.17.2, and `mlflow.artifactLocation`): one of another value makes the trace unreadable, also
/// where it comes from a table or an endpoint.
const RESERVED_TAGS: [&str; 4] = [
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
    "mlflow.artifactLocation",
];

/// Metadata that keeps MLflow from adding later spans to a trace.
const RESERVED_METADATA: [&str; 1] = ["mlflow.trace.infoFinalized"];

/// Most characters of a client request id and of a run's id: MLflow's limit for values of metadata
/// (3.17.2), where it keeps both.
const LONGEST_ID: usize = 8_000;

/// Characters of a key that an error shows.
const KEY_SHOWN: usize = 80;

impl TraceUpdate {
    /// Cuts every text to what a place keeps and takes out what cannot be stored; the error says
    /// what that was.
    pub(crate) fn fit(&mut self, limits: &TraceValueLimits) -> Option<Error> {
        for (text, limit) in [
            (&mut self.name, limits.name),
            (&mut self.session_id, limits.session_id),
            (&mut self.user_id, limits.value),
            (&mut self.request_preview, limits.preview),
            (&mut self.response_preview, limits.preview),
        ] {
            if let Some(text) = text {
                cut(text, limit);
            }
        }
        let mut left_out = Vec::new();
        // A part of an id is another id.
        for (what, text) in [
            ("client request id", &mut self.client_request_id),
            ("run", &mut self.run_id),
        ] {
            if (text.as_ref()).is_some_and(|id| id.chars().nth(LONGEST_ID).is_some()) {
                *text = None;
                left_out.push(format!("{what}, it has more than {LONGEST_ID} characters"));
            }
        }
        fit_entries("tag", &mut self.tags, &RESERVED_TAGS, limits, &mut left_out);
        let metadata = &mut self.metadata;
        fit_entries(
            "metadata",
            metadata,
            &RESERVED_METADATA,
            limits,
            &mut left_out,
        );
        let (first, more) = left_out.split_first()?;
        let more = match more.len() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let cause = format!("of trace {} left out: {first}{more}", self.trace_id);
        Some(Error::new(ErrorKind::Unsupported, OPERATION, cause).mend("give it another key"))
    }

    /// Whether it sets nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::new(self.trace_id)
    }
}

/// Cuts the values of a map, and moves the keys that cannot be stored to `left_out`.
fn fit_entries(
    what: &str,
    entries: &mut BTreeMap<String, String>,
    reserved: &[&str],
    limits: &TraceValueLimits,
    left_out: &mut Vec<String>,
) {
    entries.retain(|key, value| {
        let why = if key.is_empty() {
            "its key is empty".to_owned()
        } else if key.chars().nth(limits.key).is_some() {
            format!("its key has more than {} characters", limits.key)
        } else if reserved.contains(&key.as_str()) {
            "MLflow finds the data of the trace by it".to_owned()
        } else {
            // The names of these two are values with limits of their own.
            cut(
                value,
                match key.as_str() {
                    "mlflow.traceName" if what == "tag" => limits.name,
                    "mlflow.trace.session" if what == "metadata" => limits.session_id,
                    _ => limits.value,
                },
            );
            return true;
        };
        let shown: String = key.chars().take(KEY_SHOWN).collect();
        left_out.push(format!("{what} `{}`, {why}", shown.escape_debug()));
        false
    });
}

/// Keeps the first `limit` characters.
fn cut(text: &mut String, limit: usize) {
    if text.len() > limit
        && let Some((end, _)) = text.char_indices().nth(limit)
    {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests;
