//! Writing one lane: open, write, retry, give up. One task per lane that has something to write.

use super::isolate::{close, isolated};
use super::sealed::{Ready, Sealed, begin_ahead};
use super::turn::Clock;
use super::{Lane, Phase};
use crate::clock::later;
use crate::error::{Error, ErrorKind, Retry};
use crate::location::Written;
use crate::mutant::Mutant;
use crate::pipeline::Shared;
use crate::record::TraceBatch;
use crate::stats::DropReason;
use rand::Rng;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// An attempt that makes no progress is given up after the retry deadline, but not sooner than
/// this: a short deadline says how long to repeat, not that the place must be quick.
const HANGING: Duration = Duration::from_secs(10);

/// Batches of as many bytes are freed beside the next one.
const LARGE: usize = 1 << 20;

/// When a failed batch is written again, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long a batch is retried, from its first attempt; 5 minutes. A single attempt that takes
    /// longer than this (and than 10 s) is given up as well. Time a sink spends in
    /// [`waiting_for_turn`](crate::waiting_for_turn) does not count.
    pub deadline: Duration,
    /// The first delay; 100 ms. Each next one is twice as long, and each is drawn at random from
    /// the upper half of its range.
    pub initial: Duration,
    /// The longest delay; 10 s. A delay that the place asked for may be longer.
    pub max: Duration,
    /// How long a location that failed for good is left alone before the next batch probes it; 30 s.
    pub probe: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5 * 60),
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            probe: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    fn backoff(&self, failures: u32) -> Duration {
        let full = self
            .initial
            .saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX))
            .min(self.max);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Writes what the lane has until it has nothing more.
pub(crate) async fn run(lane: Arc<Lane>, shared: Arc<Shared>) {
    while let Some((sealed, following)) = lane.next() {
        if let Some(following) = following {
            begin_ahead(following, &lane, &shared, &Handle::current());
        }
        write_batch(&lane, &shared, &sealed).await;
        shared.lane_progressed();
        // Whoever made it ready ahead may hold it for another moment, and then frees it.
        let Some(sealed) = Arc::into_inner(sealed) else {
            continue;
        };
        let bytes = sealed.bytes;
        let Some(batch) = sealed.into_batch() else {
            continue;
        };
        if bytes < LARGE {
            shared.spent.give(batch, bytes);
        } else {
            // Freeing it takes a while, which the next batch need not wait for.
            let shared = shared.clone();
            tokio::spawn(async move { shared.spent.give(batch, bytes) });
        }
    }
}

async fn write_batch(lane: &Arc<Lane>, shared: &Arc<Shared>, sealed: &Sealed) {
    let sequence = sealed.sequence;
    let Ready {
        batch,
        lost,
        hook_error,
    } = sealed.ready(lane, shared);
    let state = lane.state();
    let mut flying = InFlight::new(lane, shared, batch, sealed.bytes);
    lane.counters.drop_spans(DropReason::Transform, *lost);
    drop(state);
    let early = shared.mutant.is(Mutant::StoredBeforeWritten);
    if early {
        count_stored(lane, batch.span_count() as u64);
        lane.state().done_seq = sequence;
        shared.lane_progressed();
    }
    let outcome = if batch.span_count() == 0 && batch.updates.is_empty() {
        None
    } else {
        Some(attempt_until_done(lane, shared, batch).await)
    };
    let spans = batch.span_count() as u64;
    // What there is to log, said after the lock is released: a subscriber may be slow, or ask for
    // this lane's state.
    let (mut refused, mut untold, mut lost, mut recovered) = (None, None, None, false);
    let mut state = lane.state();
    if hook_error.is_some() {
        state.last_error.clone_from(hook_error);
    }
    match outcome {
        // The hook left nothing to write, which says nothing about the place.
        None => {}
        Some(Ok(written)) => {
            let updates = written.lost_updates.len();
            untold = written.lost_updates.last().map(|e| e.clone().at(&lane.uri));
            let (count, error) = refusals(written, spans);
            if !early {
                count_stored(lane, spans - count);
            }
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
        }
        Some(Err((reason, error))) => {
            lane.counters.drop_spans(reason, spans);
            lane.counters.lose_updates(batch.updates.len());
            lost = Some((reason, error.clone()));
            state.last_error = Some(error);
        }
    }
    flying.landed = true;
    drop(flying);
    state.done_seq = state.done_seq.max(sequence);
    state.last_used = Some(Instant::now());
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

/// Accounts for a batch that is being written, also if its task is dropped at a shutdown deadline.
struct InFlight<'a> {
    lane: &'a Lane,
    shared: &'a Shared,
    spans: u64,
    updates: usize,
    bytes: usize,
    landed: bool,
}

impl<'a> InFlight<'a> {
    fn new(lane: &'a Lane, shared: &'a Shared, batch: &TraceBatch, bytes: usize) -> Self {
        let spans = batch.span_count() as u64;
        lane.counters.in_flight.store(spans, Ordering::Relaxed);
        Self {
            lane,
            shared,
            spans,
            updates: batch.updates.len(),
            bytes,
            landed: false,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let counters = &self.lane.counters;
        // Whoever lands a batch counts it under this lock and holds it still.
        let state = (!self.landed).then(|| self.lane.state());
        if !self.landed {
            counters.drop_spans(DropReason::Shutdown, self.spans);
            counters.lose_updates(self.updates);
        }
        counters.in_flight.store(0, Ordering::Relaxed);
        drop(state);
        self.lane.release(self.bytes, &self.shared.budget);
    }
}

/// Tries until the batch is stored, or not worth trying any more.
async fn attempt_until_done(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    batch: &TraceBatch,
) -> Result<Written, (DropReason, Error)> {
    let retry = &shared.retry;
    let clock = Clock::start();
    if let Some(error) = fails_fast(lane) {
        return Err((DropReason::Failed, error));
    }
    let mut failures = 0;
    loop {
        let one_writer = match shared.mutant.is(Mutant::OneWriterForAll) {
            true => Some(shared.mutant.one_writer.lock().await),
            false => None,
        };
        // Made before the attempt, so that a flush that comes meanwhile is not missed.
        let flushed = lane.skip_backoff.notified();
        let patience = retry.deadline.max(HANGING);
        let attempted = clock.limit(patience, attempt(lane, shared, batch)).await;
        let (error, of_batch) = match attempted {
            Some(Ok(written)) => return Ok(written),
            Some(Err(failure)) => (failure.error.at(&lane.uri), failure.of_batch),
            None => {
                // The sink went with the attempt.
                lane.state().sink_gone();
                return Err((DropReason::RetryDeadline, hanging(lane, patience)));
            }
        };
        drop(one_writer);
        let now = Instant::now();
        let delay = match error.retry() {
            _ if shared.mutant.is(Mutant::NoRetry) => {
                return Err((DropReason::Failed, error));
            }
            Retry::Never if of_batch => return Err((DropReason::Failed, error)),
            Retry::Never => {
                let mut state = lane.state();
                let first = state.phase != Phase::Failing;
                state.phase = Phase::Failing;
                state.probe_at = Some(later(now, retry.probe));
                drop(state);
                if first {
                    shared.log.failing(&lane.uri, &error);
                }
                return Err((DropReason::Failed, error));
            }
            Retry::Backoff => retry.backoff(failures),
            // Never sooner than without it: a place may well say zero.
            Retry::After(delay) => delay.max(retry.backoff(failures)),
        };
        if shared.is_abandoned() {
            return Err((DropReason::Shutdown, error));
        }
        let left = retry.deadline.saturating_sub(clock.elapsed());
        if left.is_zero() {
            return Err((DropReason::RetryDeadline, error));
        }
        // The last stretch is waited out: a place that recovers in it loses nothing.
        let delay = delay.min(left);
        let own = error.retry() == Retry::Backoff;
        note_retry(lane, shared, error);
        if own {
            let _ = tokio::time::timeout(delay, flushed).await;
        } else {
            tokio::time::sleep(delay).await;
        }
        failures += 1;
    }
}

fn note_retry(lane: &Lane, shared: &Shared, error: Error) {
    lane.counters.retries.fetch_add(1, Ordering::Relaxed);
    let mut state = lane.state();
    let first = std::mem::replace(&mut state.phase, Phase::Retrying) != Phase::Retrying;
    state.last_error = Some(error.clone());
    drop(state);
    if first {
        shared.log.retrying(&lane.uri, &error);
    }
    shared.lane_progressed();
}

fn hanging(lane: &Lane, patience: Duration) -> Error {
    let cause = format!("no answer in {patience:?}");
    Error::new(ErrorKind::Timeout, "write batch", cause)
        .retryable()
        .at(&lane.uri)
        .mend("see whether the place is reachable; whether the batch was stored is unknown")
}

/// The error of a location that failed for good and is not due for a probe.
fn fails_fast(lane: &Lane) -> Option<Error> {
    let state = lane.state();
    match (state.phase, state.probe_at) {
        (Phase::Failing, Some(at)) if Instant::now() < at => state.last_error.clone(),
        _ => None,
    }
}

/// Why an attempt failed.
struct Failure {
    error: Error,
    /// The batch is at fault and not the place, which may well take the next one.
    of_batch: bool,
}

/// Opens the sink if need be and writes the batch once.
async fn attempt(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    batch: &TraceBatch,
) -> Result<Written, Failure> {
    let taken = lane.state().sink.take();
    // The calls are made inside the futures: a sink may panic before it returns one.
    let sink = match taken {
        Some(sink) => sink,
        None => {
            let open = pin!(async {
                let sink = lane.location.open().await?;
                let encoder = sink.encoder();
                Ok((sink, encoder))
            });
            let opened = isolated(open, "open location", lane.blocking).await;
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
    let write = isolated(
        pin!(async { sink.write(batch).await }),
        "write batch",
        lane.blocking,
    )
    .await;
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
            let _ = close(sink, lane.blocking).await;
        }
        _ => lane.state().sink = Some(sink),
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_with_jitter_in_the_upper_half() {
        let retry = RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
            ..RetryPolicy::default()
        };
        for (failures, full) in [
            (0, 100),
            (1, 200),
            (3, 800),
            (4, 1_000),
            (40, 1_000),
            (u32::MAX, 1_000),
        ] {
            let full = Duration::from_millis(full);
            for _ in 0..100 {
                let delay = retry.backoff(failures);
                assert!((full / 2..=full).contains(&delay), "{failures}: {delay:?}");
            }
        }
        let delays: std::collections::HashSet<_> = (0..100).map(|_| retry.backoff(9)).collect();
        assert!(delays.len() > 10, "no jitter");
    }

    #[test]
    fn backoff_of_odd_policies_is_no_panic() {
        for (initial, max) in [
            (Duration::ZERO, Duration::MAX),
            (Duration::MAX, Duration::MAX),
            (Duration::from_secs(1), Duration::ZERO),
        ] {
            let retry = RetryPolicy {
                initial,
                max,
                ..RetryPolicy::default()
            };
            for failures in [0, 1, 31, 32, u32::MAX] {
                assert!(retry.backoff(failures) <= max);
            }
        }
    }
}
