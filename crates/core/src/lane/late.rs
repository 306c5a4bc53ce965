//! Trace-level values that are tried apart from their batch, once its spans are stored.

use super::Lane;
use crate::error::Error;
use crate::pipeline::Shared;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

tokio::task_local! {
    static REPORTER: Reporter;
}

#[derive(Clone)]
struct Reporter {
    lane: Weak<Lane>,
    shared: Weak<Shared>,
}

/// The values of one trace that a sink goes on trying after their batch is stored, for a place
/// where they are a call of their own. The lane goes on meanwhile, and no flush waits for it.
///
/// Whatever becomes of it ends in the counters of the location: a value that is dropped without
/// [`stored`](Self::stored) counts as lost, and so does one that is left when the pipeline ends.
#[derive(Debug)]
#[must_use = "dropping it counts the values as lost"]
pub struct LateUpdate(Option<Reporter>);

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reporter").field(&self.lane).finish()
    }
}

impl LateUpdate {
    /// Values of one trace of the batch that is being written. Outside of
    /// [`TraceSink::write`](crate::TraceSink::write) nothing counts them.
    pub fn begin() -> Self {
        let reporter = REPORTER.try_with(Clone::clone).ok();
        if let Some(lane) = reporter.as_ref().and_then(|r| r.lane.upgrade()) {
            lane.late.began();
        }
        Self(reporter)
    }

    /// Whether somebody counts what becomes of it.
    pub fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// The place has the values.
    pub fn stored(mut self) {
        if let Some(lane) = self.0.take().and_then(|r| r.lane.upgrade())
            && lane.late.claim()
        {
            lane.late.ended(1);
        }
    }

    /// The values are given up. Shows as `lost_updates` in stats and flush reports, with the error.
    pub fn lost(mut self, error: Error) {
        self.lose(Some(error));
    }

    fn lose(&mut self, error: Option<Error>) {
        let Some(Reporter { lane, shared }) = self.0.take() else {
            return;
        };
        let Some(lane) = lane.upgrade() else { return };
        // The end of the pipeline may have counted it already.
        if !lane.late.claim() {
            return;
        }
        lane.counters.lose_updates(1);
        lane.late.ended(1);
        let Some(error) = error.map(|error| error.at(&lane.uri)) else {
            return;
        };
        lane.state().last_error = Some(error.clone());
        if let Some(shared) = shared.upgrade() {
            shared.log.untold(&lane.uri, &error);
        }
    }
}

impl Drop for LateUpdate {
    fn drop(&mut self) {
        self.lose(None);
    }
}

/// Runs a write, whose late values are those of the lane.
pub(super) async fn reporting<T>(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    write: impl Future<Output = T>,
) -> T {
    let reporter = Reporter {
        lane: Arc::downgrade(lane),
        shared: Arc::downgrade(shared),
    };
    REPORTER.scope(reporter, write).await
}

/// How many late values of a lane are under way.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Those of which nobody has said yet what became of them.
    open: AtomicU64,
    /// Those and the ones whose end is not counted yet: a lost value is counted as lost before it is
    /// no longer under way, so that a report sees at least one of the two.
    under_way: AtomicU64,
}

impl Late {
    fn began(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether there is one whose end is still to be counted. The caller counts it, and calls
    /// [`ended`](Self::ended).
    fn claim(&self) -> bool {
        let less = |n: u64| n.checked_sub(1);
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .is_ok()
    }

    /// The end of so many is counted.
    pub(super) fn ended(&self, values: u64) {
        self.under_way.fetch_sub(values, Ordering::AcqRel);
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }

    pub(super) fn is_none(&self) -> bool {
        self.under_way() == 0
    }

    /// Claims all; how many there were.
    pub(super) fn claim_all(&self) -> u64 {
        self.open.swap(0, Ordering::AcqRel)
    }
}
