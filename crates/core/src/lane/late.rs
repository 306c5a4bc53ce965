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
pub struct LateUpdate(Option<Reporter>, Kind);

/// Whether values are under way, or have to wait for something that the application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tried,
    Held,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reporter").field(&self.lane).finish()
    }
}

impl LateUpdate {
    /// Values of one trace of the batch that is being written. Outside of
    /// [`TraceSink::write`](crate::TraceSink::write) nothing counts them.
    pub fn begin() -> Self {
        Self::of(Kind::Tried)
    }

    /// The same for values that are held until the place can take them: until their root has ended.
    /// A flush does not report them as still tried, as it does not report spans that are open. They
    /// count as lost where the pipeline ends first.
    pub fn hold() -> Self {
        Self::of(Kind::Held)
    }

    fn of(kind: Kind) -> Self {
        let reporter = REPORTER.try_with(Clone::clone).ok();
        if let Some(lane) = reporter.as_ref().and_then(|r| r.lane.upgrade()) {
            lane.late.of(kind).began();
        }
        Self(reporter, kind)
    }

    /// Whether somebody counts what becomes of it.
    pub fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// The place has the values.
    pub fn stored(mut self) {
        if let Some(lane) = self.0.take().and_then(|r| r.lane.upgrade()) {
            let late = lane.late.of(self.1);
            if late.claim() {
                late.ended(1);
            }
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
        let late = lane.late.of(self.1);
        if !late.claim() {
            return;
        }
        lane.counters.lose_updates(1);
        late.ended(1);
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

/// The late values of a lane.
#[derive(Debug, Default)]
pub(super) struct Late {
    tried: Count,
    held: Count,
}

impl Late {
    fn of(&self, kind: Kind) -> &Count {
        match kind {
            Kind::Tried => &self.tried,
            Kind::Held => &self.held,
        }
    }

    /// Those that are tried.
    pub(super) fn under_way(&self) -> u64 {
        self.tried.under_way()
    }

    pub(super) fn is_none(&self) -> bool {
        self.tried.under_way() == 0 && self.held.under_way() == 0
    }

    /// Claims all, hands their number to `lose`, and lets them end.
    pub(super) fn give_up(&self, lose: impl Fn(u64)) {
        for count in [&self.tried, &self.held] {
            let left = count.claim_all();
            lose(left);
            count.ended(left);
        }
    }
}

/// How many values of one kind there are.
#[derive(Debug, Default)]
struct Count {
    /// Those of which nobody has said yet what became of them.
    open: AtomicU64,
    /// Those and the ones whose end is not counted yet: a lost value is counted as lost before it is
    /// no longer under way, so that a report sees at least one of the two.
    under_way: AtomicU64,
}

impl Count {
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
    fn ended(&self, values: u64) {
        self.under_way.fetch_sub(values, Ordering::AcqRel);
    }

    fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }

    /// Claims all; how many there were.
    fn claim_all(&self) -> u64 {
        self.open.swap(0, Ordering::AcqRel)
    }
}
