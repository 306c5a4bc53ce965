//! How many sinks may be polled at the same time, each on a thread of its own.
//!
//! A poll that may block has the worker's other tasks moved to a spare thread. Without a limit,
//! thousands of busy locations would take hundreds of threads, all for the moment of a poll. With a
//! hard limit, as many sinks that block for good would stop everybody. So a turn is taken before a
//! thread is, and a poll that takes long keeps its thread but loses its turn.
//!
//! A poll that ended in time has left a spare thread behind that may not have begun yet: the runtime
//! starts another one for the next poll, since it sees none that is idle. So a turn comes back by
//! way of the runtime's queue for such threads, when the spare one has been there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Polls at the same time, not counting those that take long.
const TURNS: usize = 16;
/// A poll that takes longer than this loses its turn. With every [`TURNS`] that have done so it takes
/// as much longer, up to [`LONGEST`]: where polls take long because the machine is overloaded, more
/// threads are no help.
const LONG: Duration = Duration::from_millis(20);
/// Bound of that, so that hundreds of sinks that block for good delay the others by a few seconds
/// at most until each has a thread.
const LONGEST: Duration = Duration::from_millis(160);
/// How long spare threads get to become idle before turns come back. They are all the runtime has
/// started lately, and have nothing to do; asleep, this thread leaves the processor to them.
const SETTLE: Duration = Duration::from_micros(200);
/// Batches at a time that wait for the first poll of their sink. What a batch needs while it is written
/// is made for so many, and not for every lane that was sealed at the same moment.
const BEGINNING: usize = 4 * TURNS;
/// With so many polls that take long, the runtime may be short of threads; turns come back at once.
const MANY_LONG: usize = 256;

/// The turns of one pipeline.
pub(crate) struct PollTurns {
    free: Arc<Semaphore>,
    /// Held by the first of those who wait.
    queue: tokio::sync::Mutex<()>,
    taken: Mutex<HashMap<u64, (Instant, OwnedSemaphorePermit)>>,
    next: AtomicU64,
    /// Turns that exist, those that were lost included.
    turns: AtomicUsize,
    ended: Mutex<Ended>,
    /// Places for batches that wait for their first turn.
    beginning: Arc<Semaphore>,
}

/// A batch that waits for its first turn; for the next one, once this is dropped.
pub(super) struct Beginning(
    #[expect(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>,
);

/// Turns that ended and whose spare threads may not have begun.
#[derive(Default)]
struct Ended {
    permits: Vec<OwnedSemaphorePermit>,
    /// A thread is on its way that frees turns.
    expected: bool,
}

impl Default for PollTurns {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(TURNS)),
            queue: tokio::sync::Mutex::const_new(()),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            turns: AtomicUsize::new(0),
            ended: Mutex::default(),
            beginning: Arc::new(Semaphore::new(BEGINNING)),
        }
    }
}

impl PollTurns {
    /// Waits until a batch may begin to be written. Every turn comes back soon, so every batch gets
    /// there, whatever the sinks of the others do.
    pub(super) async fn beginning(self: Arc<Self>) -> Beginning {
        Beginning(self.beginning.clone().acquire_owned().await.ok())
    }

    /// Takes a turn for one poll, if there is one.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Turn> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Some(self.begin(permit));
        }
        self.take_from_long(Instant::now());
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(self.begin(permit))
    }

    /// Waits for a turn.
    pub(super) async fn take(self: Arc<Self>) -> Turn {
        // In order, and only the first needs a timer: with one for each, thousands who wait would
        // have the workers do nothing else.
        let _first = self.queue.lock().await;
        loop {
            let permit = tokio::time::timeout(LONG, self.free.clone().acquire_owned()).await;
            if let Ok(Ok(permit)) = permit {
                return self.begin(permit);
            }
            self.take_from_long(Instant::now());
        }
    }

    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Turn {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.taken().insert(id, (Instant::now(), permit));
        Turn {
            id,
            turns: self.clone(),
        }
    }

    /// How long a poll may take while as many have lost their turns.
    fn patience(lost: usize) -> Duration {
        let rounds = u32::try_from(1 + lost / TURNS).unwrap_or(u32::MAX);
        LONG.saturating_mul(rounds).min(LONGEST)
    }

    /// Frees the turns of polls that take long.
    fn take_from_long(&self, now: Instant) {
        let mut taken = self.taken();
        let lost = self
            .turns
            .load(Ordering::Relaxed)
            .saturating_sub(taken.len());
        let patience = Self::patience(lost);
        let is_long = |(began, _): &(Instant, _)| now.saturating_duration_since(*began) >= patience;
        let long: Vec<u64> = taken
            .iter()
            .filter(|(_, turn)| is_long(turn))
            .map(|(id, _)| *id)
            .collect();
        let freed: Vec<_> = long.iter().map(|id| taken.remove(id)).collect();
        drop(taken);
        // Wakes those who wait.
        drop(freed);
    }

    /// Takes a turn back, once the spare threads of the polls so far have begun.
    fn end(self: &Arc<Self>, permit: OwnedSemaphorePermit) {
        let short = self.turns.load(Ordering::Relaxed) >= MANY_LONG;
        let runtime = match Handle::try_current() {
            Ok(runtime) if !short => runtime,
            _ => return drop(permit),
        };
        let mut ended = self.ended();
        ended.permits.push(permit);
        if ended.expected {
            return;
        }
        ended.expected = true;
        let permits = std::mem::take(&mut ended.permits);
        drop(ended);
        self.free_behind(permits, &runtime);
    }

    /// Frees turns on a thread that comes after those asked for before. A runtime that ends drops
    /// the work, which frees them too.
    fn free_behind(self: &Arc<Self>, permits: Vec<OwnedSemaphorePermit>, runtime: &Handle) {
        let turns = self.clone();
        drop(runtime.spawn_blocking(move || {
            std::thread::sleep(SETTLE);
            drop(permits);
            let more = {
                let mut ended = turns.ended();
                ended.expected = !ended.permits.is_empty();
                std::mem::take(&mut ended.permits)
            };
            if !more.is_empty() {
                turns.free_behind(more, &Handle::current());
            }
        }));
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, (Instant, OwnedSemaphorePermit)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one poll; given back when it is dropped.
pub(super) struct Turn {
    id: u64,
    turns: Arc<PollTurns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.turns.fetch_sub(1, Ordering::Relaxed);
        let freed = self.turns.taken().remove(&self.id);
        if let Some((_, permit)) = freed {
            self.turns.end(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_comes_back_when_its_poll_ends_or_takes_long() {
        let turns = Arc::new(PollTurns::default());
        let mut taken: Vec<Turn> = (0..TURNS).map(|_| turns.try_take().unwrap()).collect();
        assert!(turns.try_take().is_none());
        drop(taken.pop());
        taken.push(turns.clone().take().await);
        // All of them block for good, and so do as many again.
        for _ in 0..3 {
            let began = Instant::now();
            for _ in 0..TURNS {
                taken.push(turns.clone().take().await);
            }
            assert!(began.elapsed() >= LONG / 2);
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        // Those that end late take nobody else's turn away.
        let held = turns.try_take();
        drop(taken);
        drop(held);
        let until = Instant::now() + Duration::from_secs(10);
        while turns.free.available_permits() < TURNS {
            assert!(Instant::now() < until, "not every turn came back");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn the_more_polls_take_long_the_longer_the_next_may_take() {
        let turns = Arc::new(PollTurns::default());
        let began = Instant::now();
        let mut taken = Vec::new();
        let mut rounds = 0;
        // An overloaded machine, on which no poll ends within 100 ms.
        while began.elapsed() < Duration::from_millis(100) {
            while let Some(turn) = turns.try_take() {
                taken.push(turn);
            }
            rounds = taken.len() / TURNS;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One round at once, one after 20 ms and one 40 ms later; without the growth there are five.
        assert!(
            rounds <= 3 + began.elapsed().as_millis() as usize / 100,
            "{rounds}"
        );
        assert_eq!(PollTurns::patience(0), LONG);
        assert_eq!(PollTurns::patience(TURNS), 2 * LONG);
        assert_eq!(PollTurns::patience(usize::MAX), LONGEST);
    }

    #[tokio::test]
    async fn few_batches_begin_at_a_time_and_no_place_is_lost() {
        let turns = Arc::new(PollTurns::default());
        let mut begun = Vec::new();
        for _ in 0..BEGINNING {
            begun.push(turns.clone().beginning().await);
        }
        let mut next = std::pin::pin!(turns.clone().beginning());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        // One that is given up gives its place back too.
        drop(begun.pop());
        begun.push(next.await);
        drop(begun);
        assert_eq!(turns.beginning.available_permits(), BEGINNING);
    }

    #[test]
    fn many_short_polls_take_few_threads() {
        let alive = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (begun, peak, over) = (alive.clone(), most.clone(), alive.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(512)
            .enable_all()
            .on_thread_start(move || {
                let now = begun.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
            })
            .on_thread_stop(move || {
                over.fetch_sub(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let turns = Arc::new(PollTurns::default());
        runtime.block_on(async {
            let polls: Vec<_> = (0..5_000)
                .map(|_| {
                    let turns = turns.clone();
                    tokio::spawn(async move {
                        let turn = turns.take().await;
                        tokio::task::block_in_place(|| std::hint::black_box(()));
                        drop(turn);
                    })
                })
                .collect();
            for poll in polls {
                poll.await.unwrap();
            }
        });
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 64, "{most} threads");
    }
}
