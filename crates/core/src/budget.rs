//! Byte budgets: what may be held in memory between acceptance and storage.

use crate::clock::later;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What happens to a span when a budget is exhausted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The span that just ended is dropped and counted.
    #[default]
    DropNewest,
    /// The thread that ends a span waits for room, at most this long; then the span is dropped and
    /// counted. The one setting under which application threads wait for a destination.
    Block(Duration),
}

/// The budget of the whole pipeline, and where blocked threads wait.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they fit.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        take(&self.used, bytes, self.limit)
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes threads that wait for room, here or in a lane.
    pub(crate) fn wake(&self) {
        // SeqCst on both sides: either the waiter sees the room or we see the waiter.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_all();
        }
    }

    /// Repeats `attempt` until it succeeds or `max_wait` is over, sleeping until room is made.
    pub(crate) fn wait_for(&self, max_wait: Duration, mut attempt: impl FnMut() -> bool) -> bool {
        let deadline = later(Instant::now(), max_wait);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let done = loop {
            if attempt() {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            guard = self
                .freed
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

/// Adds `bytes` to `used` unless that would exceed `limit`. What does not fit into an empty budget
/// is let in alone: otherwise a span larger than the budget could never pass.
pub(crate) fn take(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    // Nothing is added that must be taken back: a large span that does not fit would make small
    // ones on other threads look as if they did not either.
    used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |before| {
        let after = before.saturating_add(bytes);
        (before == 0 || after <= limit).then_some(after)
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn an_empty_budget_takes_one_item_of_any_size() {
        let budget = Budget::new(10);
        assert!(budget.take(1_000));
        assert!(!budget.take(1));
        budget.give(1_000);
        assert!(budget.take(4) && budget.take(6));
        assert!(!budget.take(1));
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn an_item_that_does_not_fit_never_keeps_out_one_that_does() {
        let budget = Arc::new(Budget::new(1_000));
        assert!(budget.take(1));
        let stop = Arc::new(AtomicBool::new(false));
        let large: Vec<_> = (0..2)
            .map(|_| {
                let (budget, stop) = (budget.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        assert!(!budget.take(5_000));
                    }
                })
            })
            .collect();
        let refused = (0..200_000)
            .filter(|_| {
                let taken = budget.take(1);
                if taken {
                    budget.give(1);
                }
                !taken
            })
            .count();
        stop.store(true, Ordering::Relaxed);
        for thread in large {
            thread.join().unwrap();
        }
        assert_eq!(refused, 0);
    }

    #[test]
    fn a_waiter_gets_the_room_that_is_given_back() {
        let budget = Arc::new(Budget::new(1));
        assert!(budget.take(1));
        let waiter = {
            let budget = budget.clone();
            // Also: waiting for ever is no overflow.
            std::thread::spawn(move || budget.wait_for(Duration::MAX, || budget.take(1)))
        };
        std::thread::sleep(Duration::from_millis(20));
        budget.give(1);
        assert!(waiter.join().unwrap());
        assert!(!budget.wait_for(Duration::from_millis(1), || budget.take(1)));
    }
}
