//! When a batch is written again: the policy, and the loop around the attempts.

use super::poll_turns::Beginning;
use super::turn::Clock;
use super::write::{Failure, InFlight, attempt};
use super::{Lane, Phase};
use crate::error::{Error, ErrorKind, Retry};
use crate::location::Written;
use crate::pipeline::Shared;
use crate::stats::DropReason;
use rand::Rng;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

/// An attempt that makes no progress is given up after the retry deadline, but not sooner than
/// this: a short deadline says how long to repeat, not that the place must be quick.
const HANGING: Duration = Duration::from_secs(10);

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
    /// The longest delay between two attempts at a location that seems wrong for good, such as one
    /// that refuses a credential; 30 s. The first one is `initial`.
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
    /// The delay after so many failures in a row.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        self.delay(failures, self.max)
    }

    /// The delay after so many failures that look as if they were for good.
    pub(super) fn probe(&self, failures: u32) -> Duration {
        // Even where `initial` is zero: nobody says when this ends.
        let grows = Duration::from_millis(1 << failures.min(15)).min(self.probe);
        self.delay(failures, self.probe).max(grows)
    }

    fn delay(&self, failures: u32, max: Duration) -> Duration {
        let full = self
            .initial
            .saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX))
            .min(max);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Tries until the batch is stored, or not worth trying any more.
///
/// A place that seems wrong for good (a refused credential, a missing table) may be mended while
/// the program runs, so its batch is kept and tried again like any other, at growing intervals.
pub(super) async fn attempt_until_done(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    flying: &mut InFlight<'_>,
    beginning: Option<Beginning>,
) -> Result<Written, (DropReason, Error)> {
    let retry = &shared.retry;
    let clock = Clock::start(beginning);
    let mut failures = 0;
    loop {
        // Made before the attempt, so that a flush that comes meanwhile is not missed.
        let flushed = lane.skip_backoff.notified();
        lane.state().attempting = true;
        let patience = retry.deadline.max(HANGING);
        let attempted = clock
            .limit(patience, attempt(lane, shared, flying.batch()))
            .await;
        let Failure { error, of_batch } = match attempted {
            Some(Ok(written)) => return Ok(written),
            Some(Err(failure)) => failure,
            None => {
                // The sink went with the attempt.
                lane.state().sink_gone();
                note_failure(lane, shared, Phase::Retrying, &hanging(lane, patience));
                return Err((DropReason::RetryDeadline, hanging(lane, patience)));
            }
        };
        let error = error.at(&lane.uri);
        let (phase, own, delay) = match error.retry() {
            // The batch is at fault and not the place, which may well take the next one.
            Retry::Never if of_batch => return Err((DropReason::Failed, error)),
            Retry::Never => (Phase::Failing, true, retry.probe(failures)),
            Retry::Backoff => (Phase::Retrying, true, retry.backoff(failures)),
            // Never sooner than without it: a place may well say zero.
            Retry::After(delay) => (Phase::Retrying, false, delay.max(retry.backoff(failures))),
        };
        note_failure(lane, shared, phase, &error);
        let left = retry.deadline.saturating_sub(clock.elapsed());
        if shared.is_abandoned() || left.is_zero() {
            let reason = match phase {
                _ if shared.is_abandoned() => DropReason::Shutdown,
                Phase::Failing => DropReason::Failed,
                _ => DropReason::RetryDeadline,
            };
            return Err((reason, error));
        }
        lane.counters.retries.fetch_add(1, Ordering::Relaxed);
        // The last stretch is waited out: a place that recovers in it loses nothing.
        let delay = tokio::time::sleep(delay.min(left));
        let (mut delay, mut flushed) = (pin!(delay), pin!(flushed));
        loop {
            // Made before the look, so that a cut that comes meanwhile is not missed.
            let mut cut = pin!(lane.cut.notified());
            cut.as_mut().enable();
            flying.cut();
            if flying.is_empty() {
                return Err((DropReason::Overflow, error));
            }
            let waited = poll_fn(|cx| {
                if delay.as_mut().poll(cx).is_ready()
                    || (own && flushed.as_mut().poll(cx).is_ready())
                {
                    return Poll::Ready(true);
                }
                cut.as_mut().poll(cx).map(|()| false)
            });
            if waited.await {
                break;
            }
        }
        failures += 1;
    }
}

/// Notes that an attempt failed, and logs the first failure of its kind.
fn note_failure(lane: &Lane, shared: &Shared, phase: Phase, error: &Error) {
    let mut state = lane.state();
    let first = std::mem::replace(&mut state.phase, phase) != phase;
    state.last_error = Some(error.clone());
    state.attempts += 1;
    state.attempting = false;
    lane.judge(&state, Instant::now());
    drop(state);
    if first {
        match phase {
            Phase::Failing => shared.log.failing(&lane.uri, error),
            _ => shared.log.retrying(&lane.uri, error),
        }
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
