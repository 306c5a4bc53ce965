//! How many sinks may be polled at the same time, each on a thread of its own.
//!
//! A poll that may block has the worker's other tasks moved to a spare thread. Without a limit,
//! thousands of busy locations would take hundreds of threads, all for the moment of a poll. With a
//! hard limit, as many sinks that block for good would stop everybody. So a turn is taken before a
//! thread is, and a poll that takes long keeps its thread but loses its turn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Polls at the same time, not counting those that take long.
const TURNS: usize = 16;
/// A poll that takes longer than this loses its turn.
const LONG: Duration = Duration::from_millis(20);

/// The turns of one pipeline.
pub(crate) struct PollTurns {
    free: Arc<Semaphore>,
    /// Held by the first of those who wait.
    queue: tokio::sync::Mutex<()>,
    taken: Mutex<HashMap<u64, (Instant, OwnedSemaphorePermit)>>,
    next: AtomicU64,
}

impl Default for PollTurns {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(TURNS)),
            queue: tokio::sync::Mutex::const_new(()),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }
}

impl PollTurns {
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
        self.taken().insert(id, (Instant::now(), permit));
        Turn {
            id,
            turns: self.clone(),
        }
    }

    /// Frees the turns of polls that take long.
    fn take_from_long(&self, now: Instant) {
        let is_long = |(began, _): &(Instant, _)| now.saturating_duration_since(*began) >= LONG;
        let mut taken = self.taken();
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
        let freed = self.turns.taken().remove(&self.id);
        drop(freed);
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
        taken.push(turns.try_take().unwrap());
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
        assert_eq!(turns.free.available_permits(), TURNS);
    }
}
