//! The task of a lane: takes its batches one by one, opens the sink, writes, and accounts for what
//! became of each.

use super::isolate::{self, close};
use super::late;
use super::retry::attempt_until_done;
use super::sealed::{Ready, batch_cut};
use super::{Lane, Phase, Sealed, begin_ahead};
use crate::error::{Error, ErrorKind, Retry};
use crate::location::Written;
use crate::pipeline::Shared;
use crate::record::TraceBatch;
use crate::stats::DropReason;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::runtime::Handle;

/// Batches of as many bytes are freed beside the next one.
const LARGE: usize = 1 << 20;

/// Writes what the lane has until it has nothing more.
pub(crate) async fn run(lane: Arc<Lane>, shared: Arc<Shared>) {
    while let Some((sealed, following)) = lane.next() {
        let spans = sealed.spans;
        let written = isolate::supervised(async {
            if let Some(following) = following {
                begin_ahead(following, &lane, &shared, &Handle::current());
            }
            let written = write_batch(&lane, &shared, sealed).await;
            shared.lane_progressed();
            // Whoever made it ready ahead may hold it for another moment, and then frees it.
            if let Some((batch, bytes)) = written {
                free(batch, bytes, &shared);
            }
        });
        if let Err(panic) = written.await {
            give_up(&lane, &shared, spans, &panic);
        }
    }
}

/// Frees a batch that is done with.
fn free(batch: TraceBatch, bytes: usize, shared: &Arc<Shared>) {
    if bytes < LARGE {
        shared.spent.give(batch, bytes);
    } else {
        // Freeing it takes a while, which the next batch need not wait for.
        let shared = shared.clone();
        tokio::spawn(async move { shared.spent.give(batch, bytes) });
    }
}

/// Ends a batch whose writing panicked in this crate; the lane goes on with the next one.
fn give_up(lane: &Lane, shared: &Shared, spans: u64, panic: &str) {
    let error = Error::new(
        ErrorKind::Internal,
        "write batch",
        format!("the delivery panicked: {panic}"),
    )
    .at(&lane.uri)
    .mend("report this defect; the batch is given up");
    let mut state = lane.state();
    state.sink_gone();
    state.writing = None;
    state.keep = None;
    state.attempting = false;
    state.last_error = Some(error.clone());
    drop(state);
    shared
        .log
        .lost(&lane.uri, spans, DropReason::Failed, &error);
    shared.lane_progressed();
}

/// Writes a batch and accounts for it; gives it back to be freed, with the bytes it held.
async fn write_batch(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    sealed: Arc<Sealed>,
) -> Option<(TraceBatch, usize)> {
    let mut flying = InFlight::new(lane, shared, sealed.clone());
    let Ready {
        lost, hook_error, ..
    } = sealed.ready(lane, shared);
    let hook_error = hook_error.clone();
    flying.made_ready(&sealed.ready(lane, shared).batch, *lost);
    drop(sealed);
    let outcome = match flying.is_empty() {
        true => None,
        false => {
            let beginning = match lane.turns(shared) {
                Some(turns) => Some(turns.beginning().await),
                None => None,
            };
            // Boxed: the task of a lane that has not begun is small, however many were sealed at once.
            let attempts = attempt_until_done(lane, shared, &mut flying, beginning);
            Some(Box::pin(attempts).await)
        }
    };
    let spans = flying.spans;
    // What there is to log, said after the lock is released: a subscriber may be slow, or ask for
    // this lane's state.
    let (mut refused, mut untold, mut lost, mut recovered) = (None, None, None, false);
    let now = Instant::now();
    let mut state = lane.state();
    if hook_error.is_some() {
        state.last_error = hook_error;
    }
    match outcome {
        // The hook left nothing to write, which says nothing about the place.
        None => {}
        Some(Ok(written)) => {
            let updates = written.lost_updates.len();
            untold = written.lost_updates.last().map(|e| e.clone().at(&lane.uri));
            let (count, error) = refusals(written, spans);
            count_stored(lane, spans - count);
            if let Some(error) = &untold {
                lane.counters.lose_updates(updates);
                state.last_error = Some(error.clone());
            }
            lane.counters.batches.fetch_add(1, Ordering::Relaxed);
            if let Some(error) = error {
                lane.counters.drop_spans(DropReason::Refused, count);
                let error = error.at(&lane.uri);
                refused = Some((count, error.clone()));
                state.last_error = Some(error);
            }
            recovered = std::mem::take(&mut state.phase) != Phase::Healthy;
            state.proven = true;
            state.attempts += 1;
        }
        Some(Err((reason, error))) => {
            lane.counters.drop_spans(reason, spans);
            lane.counters.lose_updates(flying.updates);
            lost = (spans > 0).then(|| (reason, error.clone()));
            state.last_error = Some(error);
        }
    }
    flying.landed = true;
    let written = flying.end();
    if let Some((_, since)) = state.writing.take() {
        state.took = now.saturating_duration_since(state.moved(since));
    }
    state.keep = None;
    state.attempting = false;
    state.last_used = Some(now);
    lane.judge(&state, now);
    drop(state);
    if let Some((count, error)) = refused {
        shared.log.refused(&lane.uri, count, &error);
    }
    if let Some(error) = untold {
        shared.log.untold(&lane.uri, &error);
    }
    if let Some((reason, error)) = lost {
        shared.log.lost(&lane.uri, spans, reason, &error);
    }
    if recovered {
        shared.log.recovered(&lane.uri);
    }
    written
}

/// How many of `spans` were refused, each counted once, and the last reason.
fn refusals(written: Written, spans: u64) -> (u64, Option<Error>) {
    let mut indices: Vec<usize> = written.refused.iter().map(|r| r.index).collect();
    indices.retain(|index| (*index as u64) < spans);
    indices.sort_unstable();
    indices.dedup();
    let last = written
        .refused
        .into_iter()
        .rfind(|r| (r.index as u64) < spans);
    (indices.len() as u64, last.map(|refusal| refusal.error))
}

fn count_stored(lane: &Lane, spans: u64) {
    lane.counters.stored.fetch_add(spans, Ordering::Relaxed);
}

/// The batch that is being written. Accounts for it, also if its task is dropped at a shutdown
/// deadline.
pub(super) struct InFlight<'a> {
    lane: &'a Arc<Lane>,
    shared: &'a Arc<Shared>,
    /// As it was made ready, which others may look at.
    sealed: Option<Arc<Sealed>>,
    /// What is left of it, where spans were cut off.
    own: Option<TraceBatch>,
    spans: u64,
    updates: usize,
    bytes: usize,
    landed: bool,
}

impl<'a> InFlight<'a> {
    fn new(lane: &'a Arc<Lane>, shared: &'a Arc<Shared>, sealed: Arc<Sealed>) -> Self {
        Self {
            lane,
            shared,
            spans: sealed.spans,
            updates: sealed.updates,
            bytes: sealed.bytes,
            sealed: Some(sealed),
            own: None,
            landed: false,
        }
    }

    /// Counts the spans that the hook took out.
    fn made_ready(&mut self, batch: &TraceBatch, lost: u64) {
        self.spans = batch.span_count() as u64;
        self.updates = batch.updates.len();
        let counters = &self.lane.counters;
        let state = self.lane.state();
        counters.in_flight.store(self.spans, Ordering::Relaxed);
        counters.drop_spans(DropReason::Transform, lost);
        drop(state);
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.spans == 0 && self.updates == 0
    }

    /// What is to be written.
    pub(super) fn batch(&self) -> &TraceBatch {
        match (&self.own, &self.sealed) {
            (Some(own), _) => own,
            (None, Some(sealed)) => &sealed.ready(self.lane, self.shared).batch,
            (None, None) => unreachable!("a batch is either shared or owned"),
        }
    }

    /// Drops the newest spans if the lane was told to hold less.
    pub(super) fn cut(&mut self) {
        let Some(keep) = self.lane.state().keep.take() else {
            return;
        };
        // Room may be there again since that was said.
        let keep = keep.max(self.lane.intake().cap());
        if keep >= self.bytes {
            return;
        }
        if let Some(sealed) = self.sealed.take() {
            match Arc::try_unwrap(sealed) {
                Ok(sealed) => self.own = sealed.into_batch(),
                // Whoever encoded it ahead still holds it. The lane is told again.
                Err(sealed) => {
                    self.sealed = Some(sealed);
                    return;
                }
            }
        }
        let Some(batch) = &mut self.own else { return };
        let cut = batch_cut(batch, self.bytes, keep);
        let spans = cut.spans.len() as u64;
        let state = self.lane.state();
        self.spans -= spans.min(self.spans);
        self.bytes -= cut.bytes;
        let counters = &self.lane.counters;
        counters.drop_spans(DropReason::Overflow, spans);
        counters.in_flight.store(self.spans, Ordering::Relaxed);
        drop(state);
        self.lane.release(cut.bytes, &self.shared.budget);
    }

    /// Gives the batch back to be freed, unless others hold it, and the bytes it held.
    fn end(mut self) -> Option<(TraceBatch, usize)> {
        let sealed = self.sealed.take().and_then(Arc::into_inner);
        let own = self.own.take();
        let batch = own.or_else(|| sealed.and_then(Sealed::into_batch));
        batch.map(|batch| (batch, self.bytes))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let counters = &self.lane.counters;
        // Whoever lands a batch counts it under this lock and holds it still.
        let state = (!self.landed).then(|| self.lane.state());
        if !self.landed {
            let reason = match std::thread::panicking() {
                true => DropReason::Failed,
                false => DropReason::Shutdown,
            };
            counters.drop_spans(reason, self.spans);
            counters.lose_updates(self.updates);
        }
        counters.in_flight.store(0, Ordering::Relaxed);
        drop(state);
        self.lane.release(self.bytes, &self.shared.budget);
    }
}

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// The batch is at fault and not the place, which may well take the next one.
    pub(super) of_batch: bool,
}

/// Opens the sink if need be and writes the batch once.
pub(super) async fn attempt(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    batch: &TraceBatch,
) -> Result<Written, Failure> {
    let taken = lane.state().sink.take();
    let sink = match taken {
        Some(sink) => sink,
        None => {
            let opened = isolate::open(&*lane.location, lane.turns(shared)).await;
            let (sink, encoder) = opened.map_err(|error| Failure {
                error,
                of_batch: false,
            })?;
            let following = lane.state().sink_opened(encoder);
            if let Some(following) = following {
                begin_ahead(following, lane, shared, &Handle::current());
            }
            sink
        }
    };
    let write = isolate::write(&*sink, batch, lane.turns(shared));
    let write = late::reporting(lane, shared, write).await;
    let written = write.map_err(|error| Failure {
        of_batch: matches!(error.kind(), ErrorKind::InvalidSpan | ErrorKind::Conflict),
        error,
    });
    match &written {
        // A sink that failed for good, or panicked, is opened anew.
        Err(Failure { error, of_batch })
            if !of_batch && error.retry() == Retry::Never
                || error.kind() == ErrorKind::Internal =>
        {
            lane.state().sink_gone();
            let _ = close(sink, lane.turns(shared)).await;
        }
        _ => lane.state().sink = Some(sink),
    }
    written
}
