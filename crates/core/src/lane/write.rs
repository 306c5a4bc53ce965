//! Writing one lane: open, write, retry, give up. One task per lane that has something to write.

use super::{Lane, Phase, Sealed};
use crate::error::{Error, ErrorKind, Retry};
use crate::location::Written;
use crate::mutant::Mutant;
use crate::pipeline::Shared;
use crate::record::TraceBatch;
use crate::stats::DropReason;
use crate::transform::{Verdict, apply};
use rand::Rng;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// When a failed batch is written again, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long a batch is retried, from its first attempt; 5 minutes.
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
    while let Some(sealed) = lane.next() {
        write_batch(&lane, &shared, sealed).await;
        shared.lane_progressed();
    }
}

async fn write_batch(lane: &Lane, shared: &Shared, mut sealed: Sealed) {
    let sequence = sealed.batch.id.sequence;
    let (lost, hook_error) = transform(lane, shared, &mut sealed.batch);
    let mut flying = InFlight::new(lane, shared, &sealed);
    lane.counters.drop_spans(DropReason::Transform, lost);
    let batch = &sealed.batch;
    let early = shared.mutant.is(Mutant::StoredBeforeWritten);
    if early {
        count_stored(lane, batch.span_count() as u64);
        lane.state().done_seq = sequence;
        shared.lane_progressed();
    }
    let outcome = if batch.span_count() == 0 && batch.updates.is_empty() {
        Ok(Written::default())
    } else {
        attempt_until_done(lane, shared, batch).await
    };
    let spans = batch.span_count() as u64;
    let mut state = lane.state();
    if hook_error.is_some() {
        state.last_error = hook_error;
    }
    match outcome {
        Ok(written) => {
            let refused = (written.refused.len() as u64).min(spans);
            if !early {
                count_stored(lane, spans - refused);
            }
            lane.counters.batches.fetch_add(1, Ordering::Relaxed);
            if let Some(refusal) = written.refused.into_iter().next_back() {
                lane.counters.drop_spans(DropReason::Refused, refused);
                let error = refusal.error.at(&lane.uri);
                shared.log.refused(&lane.uri, refused, &error);
                state.last_error = Some(error);
            }
            if state.phase != Phase::Healthy {
                state.phase = Phase::Healthy;
                shared.log.recovered(&lane.uri);
            }
        }
        Err((reason, error)) => {
            lane.counters.drop_spans(reason, spans);
            shared.log.lost(&lane.uri, spans, reason, &error);
            state.last_error = Some(error);
        }
    }
    flying.landed = true;
    drop(flying);
    state.done_seq = state.done_seq.max(sequence);
    state.last_used = Some(Instant::now());
}

fn count_stored(lane: &Lane, spans: u64) {
    lane.counters.stored.fetch_add(spans, Ordering::Relaxed);
}

/// Accounts for a batch that is being written, also if its task is dropped at a shutdown deadline.
struct InFlight<'a> {
    lane: &'a Lane,
    shared: &'a Shared,
    spans: u64,
    bytes: usize,
    landed: bool,
}

impl<'a> InFlight<'a> {
    fn new(lane: &'a Lane, shared: &'a Shared, sealed: &Sealed) -> Self {
        let spans = sealed.batch.span_count() as u64;
        lane.counters.in_flight.store(spans, Ordering::Relaxed);
        Self {
            lane,
            shared,
            spans,
            bytes: sealed.bytes,
            landed: false,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.lane
                .counters
                .drop_spans(DropReason::Shutdown, self.spans);
        }
        self.lane.counters.in_flight.store(0, Ordering::Relaxed);
        self.lane.release(self.bytes, &self.shared.budget);
    }
}

/// Runs the hook over the batch; returns how many spans it took out, and why if it panicked.
fn transform(lane: &Lane, shared: &Shared, batch: &mut TraceBatch) -> (u64, Option<Error>) {
    let Some(hook) = &shared.transform else {
        return (0, None);
    };
    let (mut lost, mut error) = (0, None);
    for group in &mut batch.groups {
        group.spans.retain_mut(|span| match apply(&**hook, &lane.uri, span) {
            Verdict::Keep => true,
            Verdict::Drop => {
                lost += 1;
                false
            }
            Verdict::Panicked(text) => {
                lost += 1;
                error = Some(
                    Error::new(ErrorKind::Internal, "transform span", text)
                        .at(&lane.uri)
                        .mend("mend the transform hook; the span was dropped, not stored unredacted"),
                );
                false
            }
        });
    }
    batch.groups.retain(|g| !g.spans.is_empty());
    (lost, error)
}

/// Tries until the batch is stored, or not worth trying any more.
async fn attempt_until_done(
    lane: &Lane,
    shared: &Shared,
    batch: &TraceBatch,
) -> Result<Written, (DropReason, Error)> {
    let retry = &shared.retry;
    let deadline = Instant::now() + retry.deadline;
    if let Some(error) = fails_fast(lane) {
        return Err((DropReason::Failed, error));
    }
    let mut failures = 0;
    loop {
        let one_writer = match shared.mutant.is(Mutant::OneWriterForAll) {
            true => Some(shared.mutant.one_writer.lock().await),
            false => None,
        };
        let error = match attempt(lane, batch).await {
            Ok(written) => return Ok(written),
            Err(error) => error.at(&lane.uri),
        };
        drop(one_writer);
        let now = Instant::now();
        let delay = match error.retry() {
            _ if shared.mutant.is(Mutant::NoRetry) => {
                return Err((DropReason::Failed, error));
            }
            Retry::Never => {
                let mut state = lane.state();
                let first = state.phase != Phase::Failing;
                state.phase = Phase::Failing;
                state.probe_at = Some(now + retry.probe);
                drop(state);
                if first {
                    shared.log.failing(&lane.uri, &error);
                }
                return Err((DropReason::Failed, error));
            }
            Retry::Backoff => retry.backoff(failures),
            Retry::After(delay) => delay,
        };
        if shared.is_abandoned() {
            return Err((DropReason::Shutdown, error));
        }
        if now + delay > deadline {
            // The last stretch is waited out: a place that recovers in it loses nothing.
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err((DropReason::RetryDeadline, error));
            }
            note_retry(lane, shared, error);
            tokio::time::sleep(left).await;
        } else {
            let own = error.retry() == Retry::Backoff;
            note_retry(lane, shared, error);
            if own {
                let _ = tokio::time::timeout(delay, lane.skip_backoff.notified()).await;
            } else {
                tokio::time::sleep(delay).await;
            }
        }
        failures += 1;
    }
}

fn note_retry(lane: &Lane, shared: &Shared, error: Error) {
    lane.counters.retries.fetch_add(1, Ordering::Relaxed);
    let mut state = lane.state();
    if state.phase != Phase::Retrying {
        state.phase = Phase::Retrying;
        shared.log.retrying(&lane.uri, &error);
    }
    state.last_error = Some(error);
    drop(state);
    shared.lane_progressed();
}

/// The error of a location that failed for good and is not due for a probe.
fn fails_fast(lane: &Lane) -> Option<Error> {
    let state = lane.state();
    match (state.phase, state.probe_at) {
        (Phase::Failing, Some(at)) if Instant::now() < at => state.last_error.clone(),
        _ => None,
    }
}

/// Opens the sink if need be and writes the batch once.
async fn attempt(lane: &Lane, batch: &TraceBatch) -> Result<Written, Error> {
    let taken = lane.state().sink.take();
    let sink = match taken {
        Some(sink) => sink,
        None => isolated(lane.location.open(), "open location").await?,
    };
    let written = isolated(sink.write(batch), "write batch").await;
    match &written {
        // A sink that failed for good, or panicked, is opened anew.
        Err(error) if error.retry() == Retry::Never || error.kind() == ErrorKind::Internal => {
            let _ = isolated(sink.close(), "close location").await;
        }
        _ => lane.state().sink = Some(sink),
    }
    written
}

/// Closes a sink; its error is for the log only.
pub(crate) async fn close(sink: Box<dyn crate::TraceSink>) -> Result<(), Error> {
    isolated(sink.close(), "close location").await
}

/// Polls a future of a sink so that it can neither hold up a worker by blocking nor unwind into
/// the pipeline.
fn isolated<T, F>(future: F, operation: &'static str) -> Isolated<F>
where
    F: Future<Output = Result<T, Error>> + Unpin,
{
    Isolated { future, operation }
}

struct Isolated<F> {
    future: F,
    operation: &'static str,
}

impl<T, F: Future<Output = Result<T, Error>> + Unpin> Future for Isolated<F> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let operation = self.operation;
        let future = Pin::new(&mut self.future);
        // Hands the worker's other tasks to another thread for as long as this poll takes.
        tokio::task::block_in_place(|| {
            std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx)))
        })
        .unwrap_or_else(|panic| {
            Poll::Ready(Err(Error::new(
                ErrorKind::Internal,
                operation,
                format!(
                    "the sink panicked: {}",
                    crate::transform::panic_text(&*panic)
                ),
            )
            .retryable()
            .mend("this is a defect of the sink; the batch is tried again")))
        })
    }
}
