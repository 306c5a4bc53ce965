//! One location in one pipeline: its queue of sealed batches, its sink and its counters.

mod intake;
mod isolate;
mod late;
mod open_batch;
mod poll_turns;
mod retry;
mod scopes;
mod sealed;
mod spent;
mod turn;
mod values;
mod write;

pub(crate) use intake::Intake;
pub(crate) use isolate::{check, close, location as contained};
pub use late::LateUpdate;
pub(crate) use open_batch::OpenBatch;
pub(crate) use poll_turns::PollTurns;
pub use retry::RetryPolicy;
pub(crate) use scopes::Scopes;
pub(crate) use sealed::{AHEAD, Following, Sealed, begin_ahead};
pub(crate) use spent::{Spent, Written};
pub use turn::waiting_for_turn;
pub(crate) use write::run;

use crate::budget::{Budget, FIRST, PROMPT, STEADY, Standing};
use crate::error::Error;
use crate::location::{
    BatchEncoder, BatchLimits, Capabilities, TraceLocation, TraceSink, TraceValueLimits,
    TraceValues,
};
use crate::pipeline::Shared;
use crate::stats::{Counters, DropReason, Dropped, ForgottenLocations, LocationState};
use crate::uri::LocationUri;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Index of a lane in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u32);

/// What stays of a location for the life of the pipeline, open or not.
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) uri: LocationUri,
    pub(crate) location: Arc<dyn TraceLocation>,
    pub(crate) limits: BatchLimits,
    /// What it may hold while room is not short.
    budget: usize,
    /// The store in which a trace id can be used once, if the location is in one.
    pub(crate) exclusive_store: Option<String>,
    /// Its futures may block.
    pub(crate) blocking: bool,
    /// What the location does with trace-level values, and what it keeps of each.
    pub(crate) trace_values: TraceValues,
    pub(crate) trace_value_limits: TraceValueLimits,
    pub(crate) counters: Counters,
    intakes: Arc<boxcar::Vec<Intake>>,
    state: Mutex<State>,
    /// Ends the lane's own backoff early.
    skip_backoff: Notify,
    /// Tells the task that the batch it holds has to become smaller.
    cut: Notify,
    /// Trace-level values that the sink tries apart from their batches.
    late: late::Late,
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
    /// Why trace-level values were lost last, as long as the log has not told it.
    untold_value: Option<Error>,
    /// Sequence of the last batch sealed.
    pub(crate) sealed_seq: u64,
    /// The batch being written, and when it was sealed.
    writing: Option<(u64, Instant)>,
    /// What the batch being written may hold at most, in bytes, where it holds too much.
    keep: Option<usize>,
    /// Attempts that ended, whatever came of them.
    pub(crate) attempts: u64,
    /// One is under way.
    pub(crate) attempting: bool,
    /// A batch was stored.
    proven: bool,
    /// How long the last batch was the oldest one, until it was done.
    took: Duration,
    /// When a batch was last done.
    pub(crate) last_used: Option<Instant>,
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
        intakes: Arc<boxcar::Vec<Intake>>,
        id: LaneId,
        location: Arc<dyn TraceLocation>,
        uri: &LocationUri,
        limits: BatchLimits,
        budget: usize,
    ) -> Self {
        Self {
            id,
            uri: uri.clone(),
            limits: BatchLimits {
                spans: limits.spans.max(1),
                bytes: limits.bytes.min(budget / 2),
                ..limits
            },
            budget,
            location: isolate::location(location, uri),
            exclusive_store: None,
            blocking: true,
            trace_values: TraceValues::default(),
            trace_value_limits: TraceValueLimits::default(),
            counters: Counters::default(),
            intakes,
            state: Mutex::default(),
            skip_backoff: Notify::const_new(),
            cut: Notify::const_new(),
            late: late::Late::default(),
        }
    }

    /// Takes what the location declares of itself.
    pub(crate) fn declared(mut self, capabilities: Capabilities) -> Self {
        self.exclusive_store = capabilities.exclusive_store;
        self.blocking = capabilities.blocking;
        self.trace_values = capabilities.trace_values;
        self.trace_value_limits = capabilities.trace_value_limits;
        self
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turns its sink is polled by; `None` where it does not block.
    pub(crate) fn turns(&self, shared: &Shared) -> Option<Arc<PollTurns>> {
        self.blocking.then(|| shared.turns.clone())
    }

    /// What application threads change.
    pub(crate) fn intake(&self) -> &Intake {
        // Made before the lane, and never taken away.
        &self.intakes[self.id.0 as usize]
    }

    /// Judges anew how well the lane drains.
    pub(crate) fn judge(&self, state: &State, now: Instant) -> Standing {
        let standing = state.standing(now);
        let intake = self.intake();
        if standing == Standing::Draining && intake.standing() != standing {
            // It is not held to what it could have while it was stuck.
            intake.set_cap(self.budget);
        }
        intake.set_standing(standing);
        standing
    }

    /// Spans accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.intake().accepted()
    }

    /// Spans not stored, by reason.
    pub(crate) fn dropped(&self) -> Dropped {
        let dropped = self.counters.dropped();
        dropped.and(|reason| self.intake().dropped(reason))
    }

    /// Trace-level values not stored.
    pub(crate) fn lost_updates(&self) -> u64 {
        self.counters.lost_updates.load(Ordering::Relaxed) + self.intake().lost_updates()
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: usize, process: &Budget) {
        self.intake().release(bytes, process);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.intake().bytes()
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
                state.writing = Some((sealed.sequence, sealed.since));
                Some((sealed, state.following()))
            }
            None => {
                state.running = false;
                None
            }
        }
    }

    /// Every counter, for when the lane is forgotten.
    pub(crate) fn totals(&self) -> ForgottenLocations {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ForgottenLocations {
            locations: 1,
            accepted: self.accepted(),
            stored: count(&self.counters.stored),
            dropped: self.dropped(),
            batches: count(&self.counters.batches),
            retries: count(&self.counters.retries),
            lost_updates: self.lost_updates(),
        }
    }

    /// When a batch was last done.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        self.state().last_used
    }

    /// Whether nothing is held, open or under way here, and nothing was since `before`.
    pub(crate) fn rests(&self, before: Instant) -> bool {
        let state = self.state();
        self.bytes() == 0
            && !state.running
            && !state.is_open
            && state.sealed.is_empty()
            && self.late.is_none()
            && state.last_used.is_none_or(|used| used < before)
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
            state.sealed.drain(..).collect()
        };
        for sealed in dropped {
            self.account_dropped(reason, Gone::of(&sealed), process);
        }
    }

    /// Drops the newest of what waits until the lane holds `keep` bytes at most. What is being
    /// written is cut by its task, between two attempts.
    pub(crate) fn cut_to(&self, keep: usize, process: &Budget) {
        let mut dropped = Vec::new();
        // Freed when the lock is released.
        let (mut whole, mut cut) = (Vec::new(), None);
        {
            let mut state = self.state();
            let mut excess = self.bytes().saturating_sub(keep);
            while excess > 0
                && let Some(newest) = state.sealed.pop_back()
            {
                if newest.bytes <= excess {
                    excess -= newest.bytes;
                    dropped.push(Gone::of(&newest));
                    whole.push(newest);
                    continue;
                }
                let (gone, left) = (Gone::of(&newest), newest.bytes - excess);
                excess = 0;
                // Somebody who encodes it ahead may hold it; then it goes as a whole.
                match Arc::try_unwrap(newest).ok().and_then(|b| b.cut_to(left)) {
                    Some((left, some)) => {
                        state.sealed.push_back(Arc::new(left));
                        cut = Some(some);
                    }
                    None => dropped.push(gone),
                }
            }
            if excess > 0 && state.writing.is_some() {
                state.keep = Some(keep);
                self.cut.notify_waiters();
            }
        }
        if let Some(cut) = cut {
            dropped.push(Gone {
                spans: cut.spans.len() as u64,
                updates: 0,
                bytes: cut.bytes,
            });
        }
        for gone in dropped {
            self.account_dropped(DropReason::Overflow, gone, process);
        }
    }

    fn account_dropped(&self, reason: DropReason, gone: Gone, process: &Budget) {
        self.counters.drop_spans(reason, gone.spans);
        self.counters.lose_updates(gone.updates);
        self.release(gone.bytes, process);
    }

    /// Ends the lane's own backoff once: the one it is in, or the one after the attempt it is in.
    pub(crate) fn skip_backoff(&self) {
        // Each attempt listens from its beginning, so nothing needs to be remembered for a backoff
        // that may come much later.
        self.skip_backoff.notify_waiters();
    }
}

/// What is counted of spans that are dropped before they are written.
struct Gone {
    spans: u64,
    updates: usize,
    bytes: usize,
}

impl Gone {
    fn of(sealed: &Sealed) -> Self {
        Self {
            spans: sealed.spans,
            updates: sealed.updates,
            bytes: sealed.bytes,
        }
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

    /// Whether every batch up to `sequence` is stored, refused or dropped.
    pub(crate) fn is_done(&self, sequence: u64) -> bool {
        self.writing.is_none_or(|(writing, _)| writing > sequence)
            && self.sealed.front().is_none_or(|b| b.sequence > sequence)
    }

    /// Since when a batch that was sealed at `since` has been the oldest one, if it is now.
    fn moved(&self, since: Instant) -> Instant {
        self.last_used.map_or(since, |used| used.max(since))
    }

    /// How well the lane passes on what it is given.
    fn standing(&self, now: Instant) -> Standing {
        let writing = self.writing.map(|(_, since)| since);
        let oldest = writing.or_else(|| self.sealed.front().map(|b| b.since));
        let ago = |then: Instant| now.saturating_duration_since(then);
        let late = oldest.is_some_and(|since| match self.proven {
            // A long queue that moves on batch by batch drains all the same.
            true => ago(since) > PROMPT && self.took.max(ago(self.moved(since))) > STEADY,
            false => ago(since) > FIRST,
        });
        match self.phase {
            Phase::Healthy if !late && self.proven => Standing::Draining,
            Phase::Healthy if !late => Standing::New,
            _ => Standing::Stuck,
        }
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
