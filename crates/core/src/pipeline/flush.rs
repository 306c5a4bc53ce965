//! Waiting for delivery, from any thread or runtime.

use super::report::{FlushReport, Unfinished, report};
use super::timer::{Watched, watch};
use super::{Pipeline, Shared};
use crate::clock::later;
use crate::contain::{drop_here, run_apart};
use crate::process::Process;
use crate::uri::LocationUri;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long after its deadline a flush is given up without an answer from the delivery thread.
const GRACE: Duration = Duration::from_secs(1);

/// A flush or shutdown under way: await it, or [`wait`](Flush::wait) for it.
///
/// Either way it is over one second after its deadline at the latest, whatever delivery does. It
/// needs no timer of the runtime that awaits it.
#[must_use = "await it or call `wait`, or the report is lost"]
pub struct Flush {
    state: Arc<FlushState>,
    shared: Arc<Shared>,
    /// Losses that earlier reports had told when this flush began.
    told: u64,
    /// The locations it is about, where it is not about all.
    only: Option<Arc<[LocationUri]>>,
    /// Wakes the task that awaits this, if nobody answers in time.
    watched: Option<Watched>,
}

impl Flush {
    pub(super) fn new(
        state: Arc<FlushState>,
        shared: Arc<Shared>,
        only: Option<Arc<[LocationUri]>>,
    ) -> Self {
        let told = shared.totals.told_losses.load(Ordering::Relaxed);
        Self {
            state,
            shared,
            told,
            only,
            watched: None,
        }
    }

    /// Blocks this thread until everything is written or the deadline is over. Works inside a
    /// runtime too: delivery has threads of its own.
    pub fn wait(self) -> FlushReport {
        if self.shared.is_inherited() {
            return self.inherited();
        }
        let mut answer = self.state.lock();
        loop {
            if let Some(given) = answer.given() {
                drop(answer);
                return self.tell(given);
            }
            let left = self.state.patience();
            if left.is_zero() {
                drop(answer);
                return self.tell(None);
            }
            answer = self
                .state
                .done
                .wait_timeout(answer, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// What is known in a child that was forked.
    fn inherited(&self) -> FlushReport {
        report(&self.shared, None, Unfinished::InFlight).only(self.only.as_deref())
    }

    /// The report for whoever waited; without an answer, what is known without the delivery thread.
    /// What is told here is no news to a flush that begins later.
    fn tell(&self, given: Option<FlushReport>) -> FlushReport {
        let unknown = || report(&self.shared, None, Unfinished::Unknown).only(self.only.as_deref());
        let mut report = given.unwrap_or_else(unknown);
        if self.only.is_some() {
            return report;
        }
        report.told = self.told;
        let told = &self.shared.totals.told_losses;
        told.fetch_max(report.losses, Ordering::Relaxed);
        report
    }
}

impl Future for Flush {
    type Output = FlushReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlushReport> {
        if self.shared.is_inherited() {
            return Poll::Ready(self.inherited());
        }
        // Cloned before and dropped after: it is the caller's code, and the delivery thread must
        // not wait for it.
        let waker = cx.waker().clone();
        let mut answer = self.state.lock();
        if let Some(given) = answer.given() {
            drop(answer);
            return Poll::Ready(self.tell(given));
        }
        if self.state.patience().is_zero() {
            drop(answer);
            return Poll::Ready(self.tell(None));
        }
        let before = answer.waker.replace(waker);
        drop(answer);
        drop(before);
        if self.watched.is_none() {
            self.watched = watch(later(self.state.deadline, GRACE), &self.state);
        }
        Poll::Pending
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(mut answer) = self.state.process.lock(&self.state.answer) {
            let waker = answer.waker.take();
            drop(answer);
            drop_here(waker);
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
    process: Process,
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

impl Answer {
    /// The answer; `Some(None)` if there will be none.
    fn given(&mut self) -> Option<Option<FlushReport>> {
        match self.report.take() {
            None if !self.abandoned => None,
            report => Some(report),
        }
    }
}

impl FlushState {
    pub(super) fn new(deadline: Instant) -> Arc<Self> {
        Arc::new(Self {
            deadline,
            process: Process::current(),
            answer: Mutex::default(),
            done: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the answer is still waited for.
    fn patience(&self) -> Duration {
        later(self.deadline, GRACE).saturating_duration_since(Instant::now())
    }

    /// Wakes whoever awaits the answer: it did not come in time.
    pub(super) fn overdue(&self) {
        self.answer(|_| {});
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
            // It is the caller's code.
            run_apart(move || waker.wake());
        }
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
        let log = &self.pipeline.shared().log;
        if report.is_complete() || log.is_inherited() {
            return;
        }
        let pending = || report.locations.iter().filter(|l| l.pending > 0);
        let spans = pending().map(|l| l.pending).sum();
        let error = pending().find_map(|l| l.error.as_ref());
        log.unfinished(pending().count() as u64, spans, error);
        log.settle(false);
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
