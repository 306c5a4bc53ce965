//! What the pipeline says through `tracing`: changes of state, from the delivery threads only, and
//! no line more than once per interval and location. A subscriber that panics ends nothing here.

use crate::error::Error;
use crate::stats::DropReason;
use crate::uri::LocationUri;
use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same line about the same location is not repeated sooner.
const INTERVAL: Duration = Duration::from_secs(10);
/// Locations remembered at most; beyond it the memory is cleared, which repeats a line early.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<HashMap<(LocationUri, &'static str), Instant>>);

impl Log {
    fn due(&self, uri: &LocationUri, what: &'static str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        match seen.insert((uri.clone(), what), now) {
            Some(before) if now.duration_since(before) < INTERVAL => {
                seen.insert((uri.clone(), what), before);
                false
            }
            _ => true,
        }
    }

    pub(crate) fn retrying(&self, uri: &LocationUri, error: &Error) {
        if self.due(uri, "retrying") {
            tell(
                || tracing::warn!(location = %uri, %error, "storing traces failed, will be tried again"),
            );
        }
    }

    pub(crate) fn failing(&self, uri: &LocationUri, error: &Error) {
        if self.due(uri, "failing") {
            tell(
                || tracing::error!(location = %uri, %error, "traces cannot be stored, spans are being dropped"),
            );
        }
    }

    pub(crate) fn recovered(&self, uri: &LocationUri) {
        if self.due(uri, "recovered") {
            tell(|| tracing::info!(location = %uri, "traces are being stored again"));
        }
    }

    pub(crate) fn lost(&self, uri: &LocationUri, spans: u64, reason: DropReason, error: &Error) {
        if self.due(uri, "lost") {
            tell(
                || tracing::error!(location = %uri, spans, reason = reason.as_str(), %error, "spans were dropped"),
            );
        }
    }

    pub(crate) fn refused(&self, uri: &LocationUri, spans: u64, error: &Error) {
        if self.due(uri, "refused") {
            tell(|| tracing::warn!(location = %uri, spans, %error, "spans were refused"));
        }
    }

    pub(crate) fn untold(&self, uri: &LocationUri, error: &Error) {
        if self.due(uri, "untold") {
            tell(
                || tracing::warn!(location = %uri, %error, "values set on a trace are not stored; its spans are"),
            );
        }
    }

    /// Returns whether it was said.
    pub(crate) fn overflow(&self, uri: &LocationUri, spans: u64) -> bool {
        let due = self.due(uri, "overflow");
        if due {
            tell(
                || tracing::warn!(location = %uri, spans, "spans were dropped: the byte budget is exhausted"),
            );
        }
        due
    }

    pub(crate) fn unrouted(&self, spans: u64) {
        tell(|| {
            tracing::warn!(
                spans,
                "spans have no destination and are not stored; set one with `set_global`, a scope, or MLFLOW_TRACING_DESTINATION"
            )
        });
    }

    pub(crate) fn ignored_scopes(&self, scopes: u64) {
        tell(|| {
            tracing::warn!(
                scopes,
                "a destination was set inside a trace that is bound elsewhere and had no effect; use `new_root` to start a trace of its own"
            )
        });
    }
}

/// Hands a line to the subscriber, which is the application's code on our thread.
fn tell(line: impl FnOnce()) {
    // What it may have left half done is its own: nothing of ours is inside.
    let _ = catch_unwind(std::panic::AssertUnwindSafe(line));
}
