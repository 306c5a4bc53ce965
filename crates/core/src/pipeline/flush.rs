//! Waiting for delivery, from any thread or runtime.

use super::{Pipeline, Shared};
use crate::error::Error;
use crate::pipeline::delivery::Waiting;
use crate::stats::{Dropped, ForgottenLocations, LocationStats};
use crate::uri::LocationUri;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long after its deadline a flush is given up without an answer from the delivery thread.
const GRACE: Duration = Duration::from_secs(1);

/// What a flush achieved, per location.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FlushReport {
    /// Every location in use, sorted by URI.
    pub locations: Vec<LocationReport>,
    /// Locations that were in use before, in sum.
    pub forgotten: ForgottenLocations,
    /// The deadline came before everything was written.
    pub timed_out: bool,
}

/// What became of the spans of one location.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocationReport {
    /// The location.
    pub uri: LocationUri,
    /// Spans stored since the pipeline started. They survive the end of this process as far as the
    /// backend documents.
    pub stored: u64,
    /// Spans not written yet: the deadline came first, or the location fails in a way that waiting
    /// does not mend.
    pub pending: u64,
    /// Spans not stored since the pipeline started, by reason.
    pub dropped: Dropped,
    /// Trace-level updates not stored since the pipeline started.
    pub lost_updates: u64,
    /// Spans dropped while this flush was under way.
    pub lost: u64,
    /// Spans started and not ended yet; no flush can store them.
    pub open_spans: u64,
    /// Why spans are pending or dropped, where there is a reason.
    pub error: Option<Error>,
}

impl FlushReport {
    /// Everything that had ended was either stored or reported as dropped.
    pub fn is_complete(&self) -> bool {
        !self.timed_out && self.locations.iter().all(|l| l.pending == 0)
    }

    /// Everything that ended since the pipeline started is stored.
    pub fn all_stored(&self) -> bool {
        let lossless = |l: &LocationReport| l.dropped.total() == 0 && l.lost_updates == 0;
        let forgotten = &self.forgotten;
        self.is_complete()
            && self.locations.iter().all(lossless)
            && forgotten.dropped.total() == 0
            && forgotten.lost_updates == 0
    }

    /// The report of one location.
    pub fn location(&self, uri: &LocationUri) -> Option<&LocationReport> {
        self.locations.iter().find(|l| l.uri == *uri)
    }
}

impl fmt::Display for FlushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, l) in self.locations.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "{}: {} stored, {} pending, {} dropped",
                l.uri,
                l.stored,
                l.pending,
                l.dropped.total()
            )?;
            if l.lost_updates > 0 {
                write!(f, ", {} trace-level updates lost", l.lost_updates)?;
            }
            if let Some(error) = &l.error
                && (l.pending > 0 || l.dropped.total() > 0 || l.lost_updates > 0)
            {
                write!(f, ": {error}")?;
            }
        }
        Ok(())
    }
}

/// A flush or shutdown under way: await it, or [`wait`](Flush::wait) for it.
#[must_use = "await it or call `wait`, or the report is lost"]
pub struct Flush {
    state: Arc<FlushState>,
    shared: Arc<Shared>,
}

impl Flush {
    pub(super) fn new(state: Arc<FlushState>, shared: Arc<Shared>) -> Self {
        Self { state, shared }
    }

    /// Blocks this thread until everything is written or the deadline is over. Works inside a
    /// runtime too: delivery has threads of its own.
    pub fn wait(self) -> FlushReport {
        let mut answer = self.state.lock();
        loop {
            if let Some(report) = answer.report.take() {
                return report;
            }
            if answer.abandoned {
                drop(answer);
                return report(&self.shared, &HashMap::new(), Unfinished::Unknown);
            }
            let left = (self.state.deadline + GRACE).saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(answer);
                return report(&self.shared, &HashMap::new(), Unfinished::Unknown);
            }
            answer = self
                .state
                .done
                .wait_timeout(answer, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Future for Flush {
    type Output = FlushReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlushReport> {
        let mut answer = self.state.lock();
        match answer.report.take() {
            Some(report) => Poll::Ready(report),
            None if answer.abandoned => {
                drop(answer);
                let report = report(&self.shared, &HashMap::new(), Unfinished::Unknown);
                Poll::Ready(report)
            }
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush")
            .field("deadline", &self.state.deadline)
            .finish_non_exhaustive()
    }
}

/// Where the delivery thread leaves its answer.
pub(super) struct FlushState {
    pub(super) deadline: Instant,
    answer: Mutex<Answer>,
    done: Condvar,
}

/// The side of a flush that must answer. Dropped without an answer, whatever the reason, it says
/// that there will be none.
pub(super) struct Asked(pub(super) Arc<FlushState>);

impl std::ops::Deref for Asked {
    type Target = FlushState;

    fn deref(&self) -> &FlushState {
        &self.0
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Does nothing where there is an answer.
        self.0.answer(|answer| answer.abandoned = true);
    }
}

#[derive(Default)]
struct Answer {
    report: Option<FlushReport>,
    waker: Option<Waker>,
    /// The delivery thread died; there will be no answer.
    abandoned: bool,
}

impl FlushState {
    pub(super) fn new(deadline: Instant) -> Arc<Self> {
        Arc::new(Self {
            deadline,
            answer: Mutex::default(),
            done: Condvar::new(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn complete(&self, report: FlushReport) {
        self.answer(|answer| answer.report = Some(report));
    }

    fn answer(&self, give: impl FnOnce(&mut Answer)) {
        let waker = {
            let mut answer = self.lock();
            give(&mut answer);
            answer.waker.take()
        };
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Which lanes a flush has not seen the end of.
pub(super) enum Unfinished<'a> {
    /// Delivery has ended; what is in flight still is in the hands of a sink that blocks.
    InFlight,
    /// Nobody knows: whatever waits counts as pending.
    Unknown,
    /// These; what waits in other lanes ended after the flush began. Whether the deadline came.
    Lanes(&'a [Waiting], bool),
}

/// Builds a report; `before` holds what lanes had dropped when the flush began.
pub(super) fn report(
    shared: &Shared,
    before: &HashMap<LocationUri, Dropped>,
    unfinished: Unfinished<'_>,
) -> FlushReport {
    let stats = shared.stats();
    let unknown = matches!(unfinished, Unfinished::Unknown | Unfinished::InFlight);
    let timed_out = match unfinished {
        Unfinished::InFlight => stats.locations.iter().any(|l| l.in_flight > 0),
        Unfinished::Unknown => true,
        Unfinished::Lanes(_, timed_out) => timed_out,
    };
    let unfinished: Option<HashSet<&LocationUri>> = match unfinished {
        Unfinished::Unknown | Unfinished::InFlight => None,
        Unfinished::Lanes(lanes, _) => Some(lanes.iter().map(|w| &w.lane.uri).collect()),
    };
    let pending = |l: &LocationStats| match &unfinished {
        Some(unfinished) if !unfinished.contains(&l.uri) => 0,
        _ => l.queued + l.in_flight,
    };
    let none = Dropped::default();
    FlushReport {
        locations: stats
            .locations
            .into_iter()
            .map(|l| LocationReport {
                lost: match unknown {
                    true => 0,
                    false => l.dropped.since(before.get(&l.uri).unwrap_or(&none)).total(),
                },
                pending: pending(&l),
                stored: l.stored,
                dropped: l.dropped,
                lost_updates: l.lost_updates,
                open_spans: l.open_spans,
                error: l.last_error,
                uri: l.uri,
            })
            .collect(),
        forgotten: stats.forgotten,
        timed_out,
    }
}

/// Flushes when dropped; made by [`Pipeline::flush_guard`].
#[must_use = "it flushes when it is dropped: bind it to a name for as long as the program runs"]
#[derive(Debug)]
pub struct FlushGuard {
    pipeline: Pipeline,
    deadline: Duration,
}

impl FlushGuard {
    pub(super) fn new(pipeline: Pipeline, deadline: Duration) -> Self {
        Self { pipeline, deadline }
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        let report = self.pipeline.flush(self.deadline).wait();
        if !report.is_complete() {
            let shared = self.pipeline.shared();
            for l in report.locations.iter().filter(|l| l.pending > 0) {
                if let Some(error) = &l.error {
                    shared.log.retrying(&l.uri, error);
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn flush_began(&self) {
        self.flushing.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn flush_ended(&self) {
        self.flushing.fetch_sub(1, Ordering::SeqCst);
    }
}
