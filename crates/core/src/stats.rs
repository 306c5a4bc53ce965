//! Counters: what became of every span, by location and reason.

use crate::error::Error;
use crate::uri::LocationUri;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a span was dropped. In metrics this is `error.type`. `docs/operate.md` in the repository has
/// what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// A byte budget was exhausted, when the span ended or later, when other locations needed the
    /// memory. Find the location that does not drain, or raise `with_budget`.
    Overflow,
    /// The location rejected this one span; its last error says why.
    Refused,
    /// The location seemed wrong for good until the retry deadline, or rejected the whole batch.
    /// The last error has a suggested fix.
    Failed,
    /// The location did not recover before the retry deadline. `with_retry` changes the deadline.
    RetryDeadline,
    /// The transform dropped the span, or panicked.
    Transform,
    /// The span ended after the shutdown of its pipeline, or in a forked child of its process.
    Shutdown,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Overflow,
        Self::Refused,
        Self::Failed,
        Self::RetryDeadline,
        Self::Transform,
        Self::Shutdown,
    ];

    /// The reason as it appears in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "queue_full",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::RetryDeadline => "retry_deadline",
            Self::Transform => "transform",
            Self::Shutdown => "already_shutdown",
        }
    }
}

/// Dropped spans by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// Spans dropped for one reason.
    pub fn by(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Spans dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// A copy with `more(reason)` added for each reason.
    pub(crate) fn and(mut self, more: impl Fn(DropReason) -> u64) -> Self {
        for reason in DropReason::ALL {
            self.0[reason as usize] += more(reason);
        }
        self
    }

    pub(crate) fn add(&mut self, reason: DropReason, spans: u64) {
        self.0[reason as usize] += spans;
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|i| {
            self.0[i].saturating_sub(earlier.0[i])
        }))
    }
}

/// The counters of one lane. Spans are counted once at acceptance and once where they end.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) lost_updates: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    pub(crate) fn lose_updates(&self, updates: usize) {
        self.lost_updates
            .fetch_add(updates as u64, Ordering::Relaxed);
    }

    pub(crate) fn drop_spans(&self, reason: DropReason, spans: u64) {
        // Release and Acquire: a reader that sees the drop also sees that the span was accepted.
        self.dropped[reason as usize].fetch_add(spans, Ordering::Release);
    }

    pub(crate) fn dropped(&self) -> Dropped {
        Dropped(std::array::from_fn(|i| {
            self.dropped[i].load(Ordering::Acquire)
        }))
    }
}

/// Sums of the counters of forgotten locations: those that were closed, empty and unused for ten
/// minutes. A location that is used again starts with new counters, and is counted once more when
/// it is forgotten again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgottenLocations {
    /// Number of locations forgotten.
    pub locations: u64,
    /// Spans that ended, or were ingested, for them.
    pub accepted: u64,
    /// Spans stored.
    pub stored: u64,
    /// Spans not stored, by reason.
    pub dropped: Dropped,
    /// Batches written.
    pub batches: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Traces whose trace-level values were not stored.
    pub lost_updates: u64,
}

impl ForgottenLocations {
    fn add(&mut self, other: &Self) {
        self.locations += other.locations;
        self.accepted += other.accepted;
        self.stored += other.stored;
        self.dropped = self.dropped.plus(&other.dropped);
        self.batches += other.batches;
        self.retries += other.retries;
        self.lost_updates += other.lost_updates;
    }
}

/// The counters of lanes that were forgotten, by scheme.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgotten(pub(crate) BTreeMap<String, ForgottenLocations>);

impl Forgotten {
    pub(crate) fn add(&mut self, scheme: &str, counters: &ForgottenLocations) {
        self.0.entry(scheme.to_owned()).or_default().add(counters);
    }

    pub(crate) fn sum(&self) -> ForgottenLocations {
        let mut sum = ForgottenLocations::default();
        self.0.values().for_each(|sums| sum.add(sums));
        sum
    }
}

/// Spans and traces that were lost before they reached a location, since the pipeline started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unplaced {
    /// Spans of traces for which no level named a destination.
    pub unrouted: u64,
    /// Spans whose trace was no longer bound and that had no destination of their own.
    pub orphaned: u64,
    /// Traces whose binding expired while spans were open.
    pub expired_bindings: u64,
    /// Trace-level updates of traces for which no level named a destination.
    pub unrouted_updates: u64,
}

impl Unplaced {
    pub(crate) fn total(&self) -> u64 {
        self.unrouted + self.orphaned + self.expired_bindings + self.unrouted_updates
    }
}

/// What waits until the destination of its trace is known, see
/// [`with_late_binding`](crate::PipelineBuilder::with_late_binding).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecided {
    /// Traces whose destination is not known yet.
    pub traces: u64,
    /// Their spans that have ended: neither stored nor lost.
    pub spans: u64,
    /// Trace-level updates of theirs.
    pub updates: u64,
    /// Bytes of memory that these traces and what waits in them take.
    pub bytes: usize,
}

impl Undecided {
    /// Whether something may yet be lost.
    pub(crate) fn is_waiting(&self) -> bool {
        self.spans + self.updates > 0
    }
}

/// What a location is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocationState {
    /// Not open: nothing was written yet, or it was closed after being idle.
    Closed,
    /// Open for writing.
    Open,
    /// The last attempt failed and will be repeated.
    Retrying,
    /// The last attempt failed in a way that needs somebody's help, such as a rejected credential.
    /// Spans are kept within the location's share of the budget until the retry deadline, and the
    /// location is tried again at growing intervals.
    Failing,
}

impl LocationState {
    pub(crate) const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::Retrying, Self::Failing];

    /// A short name, as used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Retrying => "retrying",
            Self::Failing => "failing",
        }
    }
}

/// A snapshot of one location. Totals run from the start of the pipeline.
///
/// Always `accepted = stored + queued + in_flight + dropped.total()`. `docs/operate.md` in the
/// repository has what each counter means and what to do about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocationStats {
    /// The location.
    pub uri: LocationUri,
    /// The state of the location.
    pub state: LocationState,
    /// Spans that ended while bound to this location, or were ingested for it.
    pub accepted: u64,
    /// Spans stored.
    pub stored: u64,
    /// Spans that wait in memory.
    pub queued: u64,
    /// Spans in the batch being written.
    pub in_flight: u64,
    /// Spans not stored, by reason.
    pub dropped: Dropped,
    /// Bytes held in memory: spans, and what encoders made of them.
    pub bytes: usize,
    /// Batches written.
    pub batches: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Traces whose trace-level values were not stored, for whatever reason. Values of one trace
    /// that were sent together count as one. They are not spans and are in none of the sums above.
    pub lost_updates: u64,
    /// Traces whose trace-level values are still being tried after their spans were stored: neither
    /// stored nor lost yet. See [`LateUpdate`](crate::LateUpdate).
    pub late_updates: u64,
    /// The last error, of a batch or of a span; kept after recovery.
    pub last_error: Option<Error>,
    /// Spans started and not ended yet.
    pub open_spans: u64,
}

/// A snapshot of a pipeline. Totals run from its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineStats {
    /// Spans of traces for which no level named a destination.
    pub unrouted: u64,
    /// Spans of traces whose destination was [`discard`](crate::Destination::discard).
    pub discarded: u64,
    /// Spans of traces that are not among the share that is kept.
    pub sampled_out: u64,
    /// Spans whose trace was no longer bound and that had no destination of their own.
    pub orphaned: u64,
    /// Traces whose binding expired while spans were open.
    pub expired_bindings: u64,
    /// Spans that were started in a scope without effect, because their trace was bound elsewhere.
    pub ignored_scopes: u64,
    /// Trace-level updates of traces for which no level named a destination.
    pub unrouted_updates: u64,
    /// Traces that went to the global destination or the environment's, although this process has
    /// context-local ones, and whose root was started with a context of its own, not the current
    /// one: `tracing` does that. A span that was made in a scope, was given another context by
    /// `set_parent` and was entered outside is among them.
    pub unscoped_roots: u64,
    /// What waits until the destination of its trace is known.
    pub undecided: Undecided,
    /// Traces that are bound now, including those that ended and linger.
    pub bound_traces: u64,
    /// Bytes held in memory, of all locations.
    pub bytes: usize,
    /// Every location in use, sorted by URI.
    pub locations: Vec<LocationStats>,
    /// Locations that are no longer in use, in sum.
    pub forgotten: ForgottenLocations,
}

impl PipelineStats {
    pub(crate) fn unplaced(&self) -> Unplaced {
        Unplaced {
            unrouted: self.unrouted,
            orphaned: self.orphaned,
            expired_bindings: self.expired_bindings,
            unrouted_updates: self.unrouted_updates,
        }
    }

    /// Everything lost since the pipeline started: spans, traces whose binding expired, trace-level
    /// updates.
    pub(crate) fn losses(&self) -> u64 {
        let at = |l: &LocationStats| l.dropped.total() + l.lost_updates;
        let forgotten = self.forgotten.dropped.total() + self.forgotten.lost_updates;
        self.locations.iter().map(at).sum::<u64>() + forgotten + self.unplaced().total()
    }

    /// The snapshot of one location.
    pub fn location(&self, uri: &LocationUri) -> Option<&LocationStats> {
        self.locations.iter().find(|l| l.uri == *uri)
    }
}
