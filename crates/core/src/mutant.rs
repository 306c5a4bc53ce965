//! Deliberate faults, one per promise, that show the conformance suite can fail.
//!
//! A pipeline built with one misbehaves in exactly one way. The hooks ask a [`Switch`], which is
//! always off in a release build, so that the compiler takes them out.

use crate::destination::Destination;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// One way for a pipeline to break one promise of the design. For tests of the test suite only.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Promise 1: the environment scope outranks the global one.
    ///
    /// Hook: where a local root is resolved, below the context-local scope.
    EnvironmentBeforeGlobal,
    /// Promise 2: a local root asks only the context it was started with, never the current one.
    ///
    /// Hook: where a local root is resolved, before the lower scopes.
    CurrentContextIgnored,
    /// Promise 3: the first global destination that was used stays for good.
    ///
    /// Hook: where the resolver reads the global slot.
    GlobalFrozen,
    /// Promise 4: a child whose binding is gone takes the current global destination.
    ///
    /// Hook: where a child with a local recorded parent finds no binding and no value in its
    /// context, before it is counted as an orphan.
    OrphanTakesGlobal,
    /// Promise 5: now and then a span goes to the lanes of the span before it.
    ///
    /// Hook: where a span that ended takes its route, for one span in 251.
    NeighboursLane,
    /// Promise 6: what a sink does is traced like anything else.
    ///
    /// Hook: where `on_start` asks whether telemetry is suppressed.
    SuppressionIgnored,
    /// Promise 7: a thread that ends a span waits until it is stored.
    ///
    /// Hook: at the end of `on_end`, a blocking flush of two seconds.
    EndWaitsForSink,
    /// Promise 8: one location is written at a time.
    ///
    /// Hook: around the call of `TraceSink::write`, a lock shared by all lanes of the pipeline.
    OneWriterForAll,
    /// Promise 9: an error that is worth retrying is taken for a permanent one.
    ///
    /// Hook: where a lane asks a failed write whether to try again.
    NoRetry,
    /// Promise 10: spans dropped at a byte budget are not counted.
    ///
    /// Hook: where a drop with the reason of a full budget is added to the lane's counters.
    DropsUncounted,
    /// Promise 11: spans that end after shutdown are not counted as dropped.
    ///
    /// Hook: where a span that comes after shutdown is counted.
    ShutdownForgets,
    /// Promise 12: a batch counts as stored before the sink has said so.
    ///
    /// Hook: where a lane starts a write: count the batch as stored and let `flush` go on.
    StoredBeforeWritten,
    /// Promise 13: refused spans appear in no metric.
    ///
    /// Hook: where counters are reported through the meter: leave out what was not stored.
    MetricsHideFailures,
    /// Promise 14: an idle lane is never closed.
    ///
    /// Hook: where the age of an idle lane is compared with the limit.
    IdleStaysOpen,
    /// Promise 15: why a location fails is kept to itself.
    ///
    /// Hook: where a lane's last error is put into flush reports and `stats`.
    ErrorSwallowed,
}

impl Mutant {
    /// Every mutant, by the number of its promise.
    pub const ALL: [Self; 15] = [
        Self::EnvironmentBeforeGlobal,
        Self::CurrentContextIgnored,
        Self::GlobalFrozen,
        Self::OrphanTakesGlobal,
        Self::NeighboursLane,
        Self::SuppressionIgnored,
        Self::EndWaitsForSink,
        Self::OneWriterForAll,
        Self::NoRetry,
        Self::DropsUncounted,
        Self::ShutdownForgets,
        Self::StoredBeforeWritten,
        Self::MetricsHideFailures,
        Self::IdleStaysOpen,
        Self::ErrorSwallowed,
    ];

    /// The number of the promise it breaks, from 1 to 15.
    pub fn promise(self) -> u8 {
        // In the order of declaration, which is the order of the promises.
        self as u8 + 1
    }

    /// What it breaks, in a few words.
    pub fn breaks(self) -> &'static str {
        match self {
            Self::EnvironmentBeforeGlobal => "the environment outranks the global destination",
            Self::CurrentContextIgnored => "a local root never asks the current context",
            Self::GlobalFrozen => "the first global destination stays for good",
            Self::OrphanTakesGlobal => "a child without binding takes the current global",
            Self::NeighboursLane => "now and then a span goes into its neighbour's lane",
            Self::SuppressionIgnored => "what a sink does is traced",
            Self::EndWaitsForSink => "ending a span waits until it is stored",
            Self::OneWriterForAll => "one location is written at a time",
            Self::NoRetry => "a passing failure is taken for a permanent one",
            Self::DropsUncounted => "drops at a byte budget are not counted",
            Self::ShutdownForgets => "spans after shutdown are not counted",
            Self::StoredBeforeWritten => "a batch counts as stored before it is",
            Self::MetricsHideFailures => "spans not stored appear in no metric",
            Self::IdleStaysOpen => "an idle lane is never closed",
            Self::ErrorSwallowed => "why a location fails is not reported",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which fault is on, and what it has to remember. Off in release builds, whatever was set.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    mutant: Option<Mutant>,
    /// The first global destination seen, for [`Mutant::GlobalFrozen`].
    frozen: OnceLock<Destination>,
    /// The route before, for [`Mutant::NeighboursLane`].
    previous: AtomicU32,
    /// Spans seen, for the same.
    spans: AtomicU32,
    /// Held during a write, for [`Mutant::OneWriterForAll`].
    pub(crate) one_writer: tokio::sync::Mutex<()>,
}

impl Switch {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    /// Whether a fault is on.
    #[inline]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        cfg!(debug_assertions) && self.mutant == Some(mutant)
    }

    /// The first destination it was ever given.
    pub(crate) fn frozen(&self, global: Option<&Destination>) -> Option<&Destination> {
        match global {
            Some(global) => Some(self.frozen.get_or_init(|| global.clone())),
            None => self.frozen.get(),
        }
    }

    /// The route of the span before, for one span in 251; else the span's own.
    pub(crate) fn neighbour(&self, route: u32) -> u32 {
        let previous = self.previous.swap(route, Ordering::Relaxed);
        if self.spans.fetch_add(1, Ordering::Relaxed) % 251 == 250 {
            previous
        } else {
            route
        }
    }
}
