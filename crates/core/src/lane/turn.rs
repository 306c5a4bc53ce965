//! The time of a batch: what its sink spends waiting for its turn is not the place's fault and does
//! not count toward the retry deadline.

use super::poll_turns::Beginning;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// While the clock stands still, how often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

tokio::task_local! {
    static CLOCK: Arc<Clock>;
}

/// Waits for something that other locations hold at the moment: a place among the requests to one
/// host, a lock on one file. Inside [`TraceSink::write`](crate::TraceSink::write) and
/// [`TraceLocation::open`](crate::TraceLocation::open) this time does not count toward the retry
/// deadline of the batch; anywhere else this is `turn` and nothing more.
///
/// Sinks that limit how many of them work at once need it: without, a batch that waits long for
/// its turn would be given up although its place was never asked.
pub async fn waiting_for_turn<T>(turn: impl Future<Output = T>) -> T {
    let _standing = CLOCK.try_with(Arc::clone).ok().map(Standing::new);
    turn.await
}

/// How long a batch has been tried, turns not counted.
pub(super) struct Clock {
    began: Instant,
    stood: Mutex<Stood>,
    /// Held until the sink has its first turn.
    beginning: Mutex<Option<Beginning>>,
}

#[derive(Default)]
struct Stood {
    total: Duration,
    since: Option<Instant>,
    /// Parts of the sink that wait at the same time.
    waiting: u32,
}

impl Clock {
    pub(super) fn start(beginning: Option<Beginning>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            stood: Mutex::default(),
            beginning: Mutex::new(beginning),
        })
    }

    /// The sink of the batch that is being written has its turn: the next batch may begin.
    pub(super) fn note_turn() {
        let _ = CLOCK.try_with(|clock| {
            let mut beginning = clock
                .beginning
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            drop(beginning.take());
        });
    }

    fn stood(&self) -> MutexGuard<'_, Stood> {
        self.stood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that counts.
    pub(super) fn elapsed(&self) -> Duration {
        let stood = self.stood();
        let standing = stood.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.began.elapsed().saturating_sub(stood.total + standing)
    }

    /// Runs a future for as long as it does not use more than `patience` of the time that counts;
    /// `None` if it does.
    pub(super) async fn limit<F: Future>(
        self: &Arc<Self>,
        patience: Duration,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(CLOCK.scope(self.clone(), future));
        let end = self.elapsed().saturating_add(patience);
        loop {
            let left = end.saturating_sub(self.elapsed());
            if left.is_zero() {
                return None;
            }
            let look = tokio::time::timeout(left.max(LOOK), future.as_mut());
            if let Ok(output) = look.await {
                return Some(output);
            }
        }
    }
}

/// Holds the clock; it goes on when the last of these is dropped.
struct Standing(Arc<Clock>);

impl Standing {
    fn new(clock: Arc<Clock>) -> Self {
        let mut stood = clock.stood();
        stood.waiting += 1;
        if stood.waiting == 1 {
            stood.since = Some(Instant::now());
        }
        drop(stood);
        Self(clock)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut stood = self.0.stood();
        stood.waiting -= 1;
        if stood.waiting == 0
            && let Some(since) = stood.since.take()
        {
            stood.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[tokio::test(start_paused = true)]
    async fn turns_do_not_count() {
        let clock = Clock::start(None);
        let done = clock.limit(minutes(5), async {
            waiting_for_turn(tokio::time::sleep(minutes(60))).await;
            tokio::time::sleep(minutes(4)).await;
        });
        assert_eq!(done.await, Some(()));
        assert_eq!(clock.elapsed(), minutes(4));
        // The clock goes on between attempts.
        tokio::time::sleep(minutes(2)).await;
        assert_eq!(clock.elapsed(), minutes(6));
    }

    #[tokio::test(start_paused = true)]
    async fn everything_else_counts() {
        let clock = Clock::start(None);
        let hanging = clock.limit(minutes(5), async {
            waiting_for_turn(tokio::time::sleep(minutes(60))).await;
            tokio::time::sleep(minutes(6)).await;
        });
        assert_eq!(hanging.await, None);
        assert_eq!(
            clock.limit(minutes(1), std::future::ready(7)).await,
            Some(7)
        );
        assert_eq!(
            clock.limit(Duration::MAX, std::future::ready(7)).await,
            Some(7)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn several_turns_at_once_count_once() {
        let clock = Clock::start(None);
        let done = clock.limit(minutes(1), async {
            let turn = |n| waiting_for_turn(tokio::time::sleep(minutes(n)));
            tokio::join!(turn(10), turn(20), turn(30));
        });
        assert_eq!(done.await, Some(()));
        assert_eq!(clock.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn outside_of_a_sink_it_is_the_future_alone() {
        assert_eq!(waiting_for_turn(std::future::ready(1)).await, 1);
    }
}
