//! One location in one pipeline: its queue of sealed batches, its sink and its counters.

mod isolate;
mod open_batch;
mod scopes;
mod sealed;
mod spent;
mod turn;
mod write;

pub(crate) use isolate::close;
pub(crate) use open_batch::OpenBatch;
pub(crate) use scopes::Scopes;
pub(crate) use sealed::{AHEAD, Following, Sealed, begin_ahead};
pub(crate) use spent::{Spent, Written};
pub use turn::waiting_for_turn;
pub use write::RetryPolicy;
pub(crate) use write::run;

use crate::budget::{self, Budget};
use crate::error::Error;
use crate::location::{BatchEncoder, BatchLimits, TraceLocation, TraceSink};
use crate::stats::{Counters, DropReason, LocationState};
use crate::uri::LocationUri;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// Index of a lane in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u32);

/// What stays of a location for the life of the pipeline, open or not.
pub(crate) struct Lane {
    pub(crate) uri: LocationUri,
    pub(crate) location: Arc<dyn TraceLocation>,
    pub(crate) limits: BatchLimits,
    /// Its futures may block.
    pub(crate) blocking: bool,
    pub(crate) counters: Counters,
    intake: Intake,
    state: Mutex<State>,
    /// Ends the lane's own backoff early; made when the lane first waits.
    skip_backoff: Notify,
}

/// What application threads change when a span ends, in one line of the cache: where many locations
/// are in use, it comes from another core more often than not.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Intake {
    /// Spans that ended and were bound to this location.
    accepted: AtomicU64,
    /// Bytes of spans from acceptance until stored or dropped.
    bytes: AtomicUsize,
}

/// What changes while a lane works.
#[derive(Default)]
pub(crate) struct State {
    /// Batches ready to be written, oldest first.
    sealed: VecDeque<Arc<Sealed>>,
    /// A task writes this lane now, or closes its sink.
    running: bool,
    /// A task closes its sink.
    closing: bool,
    /// The open sink while nobody uses it.
    pub(crate) sink: Option<Box<dyn TraceSink>>,
    /// There is an open sink, here or in the hands of the task that writes.
    pub(crate) is_open: bool,
    /// What the open sink does for a batch ahead of its turn.
    encoder: Option<Arc<dyn BatchEncoder>>,
    pub(crate) phase: Phase,
    pub(crate) last_error: Option<Error>,
    /// Sequence of the last batch sealed.
    pub(crate) sealed_seq: u64,
    /// Sequence of the last batch that is done: stored, refused or dropped.
    pub(crate) done_seq: u64,
    /// When a batch was last done.
    last_used: Option<Instant>,
    /// When the sink was last asked to take the next batch after a failure.
    pub(crate) probe_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Healthy,
    Retrying,
    Failing,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lane").field(&self.uri).finish()
    }
}

impl Lane {
    /// A lane whose batches are cut at `limits`, and so that one batch cannot fill the lane's
    /// `budget` while it still grows.
    pub(crate) fn new(
        location: Arc<dyn TraceLocation>,
        limits: BatchLimits,
        budget: usize,
    ) -> Self {
        Self {
            uri: location.uri().clone(),
            limits: BatchLimits {
                spans: limits.spans.max(1),
                bytes: limits.bytes.min(budget / 2),
                ..limits
            },
            blocking: location.capabilities().blocking,
            location,
            counters: Counters::default(),
            intake: Intake::default(),
            state: Mutex::default(),
            skip_backoff: Notify::const_new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts spans that ended and are bound to this location.
    pub(crate) fn accept(&self, spans: u64) {
        self.intake.accepted.fetch_add(spans, Ordering::Relaxed);
    }

    /// Spans accepted so far, but for those that queues of the ingress have yet to count.
    pub(crate) fn accepted(&self) -> u64 {
        self.intake.accepted.load(Ordering::Relaxed)
    }

    /// Reserves room for a span in this lane and in the pipeline.
    pub(crate) fn reserve(&self, bytes: usize, lane_limit: usize, process: &Budget) -> bool {
        if !self.take(bytes, lane_limit) {
            return false;
        }
        if !process.take(bytes) {
            self.give(bytes);
            return false;
        }
        true
    }

    /// Takes room in this lane alone.
    pub(crate) fn take(&self, bytes: usize, limit: usize) -> bool {
        budget::take(&self.intake.bytes, bytes, limit)
    }

    /// Gives back room in this lane alone.
    pub(crate) fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.intake.bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: usize, process: &Budget) {
        self.give(bytes);
        process.give(bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.intake.bytes.load(Ordering::Relaxed)
    }

    /// Appends a sealed batch.
    pub(crate) fn push(&self, batch: Sealed) -> Pushed {
        let mut state = self.state();
        state.sealed_seq = batch.sequence;
        state.sealed.push_back(Arc::new(batch));
        if !std::mem::replace(&mut state.running, true) {
            return Pushed::Start;
        }
        match state.following() {
            Some(following) if state.sealed.len() == 1 => Pushed::Follows(following),
            _ => Pushed::Waits,
        }
    }

    /// The next batch, and the one after it if something can be done for it; `None` ends the task
    /// that asks.
    fn next(&self) -> Option<(Arc<Sealed>, Option<Following>)> {
        let mut state = self.state();
        let next = state.sealed.pop_front();
        match next {
            Some(sealed) => {
                self.counters
                    .in_flight
                    .store(sealed.spans, Ordering::Relaxed);
                Some((sealed, state.following()))
            }
            None => {
                state.running = false;
                None
            }
        }
    }

    /// Whether a task writes or closes this lane now.
    pub(crate) fn is_running(&self) -> bool {
        self.state().running
    }

    /// Takes the sink of a lane that nobody writes and that was last used before `since`. The
    /// caller closes it and then calls [`Lane::closed`].
    pub(crate) fn take_idle_sink(&self, since: Instant) -> Option<Box<dyn TraceSink>> {
        let mut state = self.state();
        if state.running || !state.sealed.is_empty() || state.last_used.is_some_and(|t| t > since) {
            return None;
        }
        let sink = state.sink.take()?;
        state.sink_gone();
        state.closing = true;
        // A batch that comes meanwhile waits until the sink is closed: one at a time per location.
        state.running = true;
        Some(sink)
    }

    /// Ends the closing of a sink; true if batches came meanwhile and a task must be started.
    pub(crate) fn closed(&self) -> bool {
        let mut state = self.state();
        state.closing = false;
        state.running = !state.sealed.is_empty();
        state.running
    }

    /// Whether a sink taken by [`Lane::take_idle_sink`] is still being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Drops everything that waits. What is being written is left to its task.
    pub(crate) fn drop_queued(&self, reason: DropReason, process: &Budget) {
        let dropped: Vec<Arc<Sealed>> = {
            let mut state = self.state();
            let sealed = state.sealed.drain(..).collect();
            state.done_seq = state.sealed_seq;
            sealed
        };
        for sealed in dropped {
            self.counters.drop_spans(reason, sealed.spans);
            self.counters.lose_updates(sealed.updates);
            self.release(sealed.bytes, process);
        }
    }

    /// Ends the lane's own backoff once: the one it is in, or the one after the attempt it is in.
    pub(crate) fn skip_backoff(&self) {
        // Each attempt listens from its beginning, so nothing needs to be remembered for a backoff
        // that may come much later.
        self.skip_backoff.notify_waiters();
    }
}

/// What is to be done after a batch was appended.
pub(crate) enum Pushed {
    /// A task must be started to write the lane.
    Start,
    /// The batch is the next one and can be made ready meanwhile.
    Follows(Following),
    /// Nothing.
    Waits,
}

impl State {
    /// The first batch that waits, where the sink has something to do for it ahead.
    fn following(&self) -> Option<Following> {
        if self.phase != Phase::Healthy {
            return None;
        }
        let encoder = self.encoder.clone()?;
        let batch = self.sealed.front()?.clone();
        Some(Following { batch, encoder })
    }

    /// Notes that there is an open sink; gives the batch it can do something for.
    fn sink_opened(&mut self, encoder: Option<Arc<dyn BatchEncoder>>) -> Option<Following> {
        self.is_open = true;
        self.encoder = encoder;
        self.following()
    }

    /// Notes that there is none any more.
    fn sink_gone(&mut self) {
        self.is_open = false;
        self.encoder = None;
    }

    /// What the lane is doing, for everybody to see.
    pub(crate) fn public(&self) -> LocationState {
        match (self.phase, self.is_open) {
            (Phase::Retrying, _) => LocationState::Retrying,
            (Phase::Failing, _) => LocationState::Failing,
            (Phase::Healthy, true) => LocationState::Open,
            (Phase::Healthy, false) => LocationState::Closed,
        }
    }
}
