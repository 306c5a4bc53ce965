//! Counters of what belongs to no lane.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Spans that never reach a lane.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) unrouted: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) sampled_out: AtomicU64,
    pub(crate) orphaned: AtomicU64,
    pub(crate) expired_bindings: AtomicU64,
    pub(crate) ignored_scopes: AtomicU64,
    /// Trace-level values of traces without a destination.
    pub(crate) unrouted_updates: AtomicU64,
    /// The name of an unrouted span, for the log.
    pub(crate) unrouted_span: OnceLock<String>,
    /// Losses, of whatever kind, that a report has told.
    pub(crate) told_losses: AtomicU64,
}

impl Totals {
    /// Counts spans without a destination, one of which is called `example`.
    #[cold]
    pub(crate) fn lose_unrouted(&self, spans: u64, example: &str) {
        self.unrouted.fetch_add(spans, Ordering::Relaxed);
        self.unrouted_span
            .get_or_init(|| example.chars().take(NAME_SHOWN).collect());
    }
}

/// Characters of an unrouted span's name that the log shows.
const NAME_SHOWN: usize = 100;
