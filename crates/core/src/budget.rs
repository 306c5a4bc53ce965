//! Byte budgets: how much memory spans may hold from acceptance until they are stored, and how it
//! is shared between lanes.
//!
//! Memory is shared by max–min fairness with priorities. Every lane has a [`Standing`]. A lane may
//! take more only while the pipeline as a whole holds less than the bound of that standing:
//!
//! ```text
//! 0            stuck            new          draining          all
//! ├──────────────┼───────────────┼───────────────┼───────────────┤
//!             10/16           12/16           14/16           16/16
//! ```
//!
//! So lanes that do not drain leave room for those that do. The last part is reserved: each active
//! lane takes its guaranteed share from it. If more is held than a standing's bound allows, the
//! delivery thread takes the excess back, from the largest lanes first
//! (`pipeline/delivery/room.rs`). A pipeline with a single lane may use the whole budget.

use crate::clock::later;
use crate::process::Process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What happens to a span when a budget is exhausted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The span that just ended is dropped and counted.
    #[default]
    DropNewest,
    /// The thread that ends a span waits until the span's location has room, at most this long.
    /// Then the span is dropped and counted. A thread waits only for the location of its own span,
    /// never because of memory that other locations hold. This is the only setting under which
    /// application threads wait for a destination.
    Block(Duration),
}

/// How well a lane drains, which is its priority when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Standing {
    /// The last attempt failed; or a sealed batch has waited for longer than [`PROMPT`] while each
    /// batch takes longer than [`STEADY`]; or nothing was stored yet, and a batch has waited for
    /// longer than [`FIRST`].
    Stuck,
    /// Nothing was stored yet, and nothing failed.
    #[default]
    New,
    /// Sealed batches are stored promptly.
    Draining,
}

/// Longest time that a sealed batch waits in a lane that counts as draining.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);
/// Longest time that each batch takes in a draining lane in which several wait.
pub(crate) const STEADY: Duration = Duration::from_secs(1);
/// Longest time that a sealed batch waits in a lane that counts as new.
pub(crate) const FIRST: Duration = Duration::from_millis(500);

impl Standing {
    /// Every standing, the lowest priority first.
    pub(crate) const ALL: [Self; 3] = [Self::Stuck, Self::New, Self::Draining];

    pub(crate) fn from_u8(value: u8) -> Self {
        Self::ALL
            .get(usize::from(value))
            .copied()
            .unwrap_or_default()
    }
}

/// Number of parts into which the budget is divided; bounds are given in parts.
const PARTS: usize = 16;
/// The bound of each standing, in parts.
const BOUNDS: [usize; 3] = [10, 12, 14];
/// Parts reserved for the guaranteed shares of lanes.
const SHARED_OUT: usize = PARTS - BOUNDS[2];

/// The budget of a pipeline, and the condition on which blocked threads wait.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Number of lanes that hold something, as last counted.
    lanes: AtomicUsize,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    freed: Condvar,
    /// In a forked child, the threads that waited in the parent do not exist.
    process: Process,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            lanes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
            process: Process::current(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes how many lanes share the budget.
    pub(crate) fn share_among(&self, lanes: usize) {
        self.lanes.store(lanes, Ordering::Relaxed);
    }

    /// Notes that one more lane shares the budget.
    pub(crate) fn another_lane(&self) {
        self.lanes.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one lane fewer does.
    pub(crate) fn lane_gone(&self) {
        let _ = self
            .lanes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Whether so much is held that lanes limit each other.
    pub(crate) fn is_short(&self) -> bool {
        self.used() > self.bound(Standing::Stuck) - self.margin()
    }

    /// Bytes that the pipeline may hold in all when a lane of this standing takes more.
    pub(crate) fn bound(&self, standing: Standing) -> usize {
        if self.lanes.load(Ordering::Relaxed) <= 1 {
            return self.limit;
        }
        parts(self.limit, BOUNDS[standing as usize])
    }

    /// Bytes freed below a bound at a time, so that the delivery thread does not cut lanes for
    /// every span.
    pub(crate) fn margin(&self) -> usize {
        self.limit / PARTS
    }

    /// Bytes that every active lane may hold, whatever other lanes hold.
    pub(crate) fn share(&self) -> usize {
        match self.lanes.load(Ordering::Relaxed) {
            0 | 1 => self.limit,
            lanes => parts(self.limit, SHARED_OUT) / lanes,
        }
    }

    /// Takes `bytes` for a lane of this standing if they fit.
    pub(crate) fn take(&self, bytes: usize, standing: Standing) -> bool {
        take(&self.used, bytes, self.bound(standing))
    }

    /// Takes `bytes` of a lane's guaranteed share.
    pub(crate) fn take_of_share(&self, bytes: usize) -> bool {
        take(&self.used, bytes, self.limit)
    }

    /// Counts bytes that are already held, whether they fit or not.
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
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
            drop(self.process.lock(&self.lock));
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

/// So many sixteenths of `limit`, computed without overflow.
fn parts(limit: usize, parts: usize) -> usize {
    limit / PARTS * parts + limit % PARTS * parts / PARTS
}

/// The max–min fair level: the largest number of bytes to which every entry of `held` can be cut so
/// that the sum fits into `room`. `usize::MAX` if everything fits. Sorts `held`.
pub(crate) fn fair_level(held: &mut [usize], room: usize) -> usize {
    held.sort_unstable();
    let mut left = room;
    for (i, bytes) in held.iter().enumerate() {
        let level = left / (held.len() - i);
        if *bytes > level {
            return level;
        }
        left -= bytes;
    }
    usize::MAX
}

/// Adds `bytes` to `used` unless that would exceed `limit`. An item larger than the limit is
/// admitted while the budget is empty; otherwise it could never pass.
pub(crate) fn take(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    // Not added and then taken back: meanwhile, small spans on other threads would not fit because
    // of a large one that does not fit either.
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

    fn take(budget: &Budget, bytes: usize) -> bool {
        budget.take(bytes, Standing::Draining)
    }

    #[test]
    fn each_standing_leaves_room_for_those_above_and_all_for_the_shares() {
        let budget = Budget::new(1_600);
        budget.share_among(4);
        for (standing, bound) in Standing::ALL.into_iter().zip([1_000, 1_200, 1_400]) {
            assert_eq!(budget.bound(standing), bound);
            while budget.take(1, standing) {}
            assert_eq!(budget.used(), bound, "{standing:?}");
        }
        assert_eq!(budget.share(), 50);
        assert!(budget.take_of_share(200) && !budget.take_of_share(1));
        budget.share_among(1);
        assert_eq!(
            budget.bound(Standing::Stuck),
            1_600,
            "nobody to leave room for"
        );
        assert_eq!(
            Budget::new(usize::MAX).bound(Standing::Draining),
            usize::MAX
        );
    }

    #[test]
    fn the_fair_level_cuts_the_largest_and_spares_the_small() {
        let level = |held: &[usize], room| fair_level(&mut held.to_vec(), room);
        assert_eq!(level(&[10, 20, 30], 60), usize::MAX);
        assert_eq!(level(&[10, 100, 30], 60), 25);
        assert_eq!(level(&[100, 100, 100], 60), 20);
        assert_eq!(level(&[5, 100, 5, 100], 60), 25);
        assert_eq!(level(&[7, 7], 0), 0);
        assert_eq!(level(&[], 0), usize::MAX);
    }

    #[test]
    fn an_empty_budget_takes_one_item_of_any_size() {
        let budget = Budget::new(10);
        assert!(take(&budget, 1_000));
        assert!(!take(&budget, 1));
        budget.give(1_000);
        assert!(take(&budget, 4) && take(&budget, 6));
        assert!(!take(&budget, 1));
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn an_item_that_does_not_fit_never_keeps_out_one_that_does() {
        let budget = Arc::new(Budget::new(1_000));
        assert!(take(&budget, 1));
        let stop = Arc::new(AtomicBool::new(false));
        let large: Vec<_> = (0..2)
            .map(|_| {
                let (budget, stop) = (budget.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        assert!(!take(&budget, 5_000));
                    }
                })
            })
            .collect();
        let refused = (0..200_000)
            .filter(|_| {
                let taken = take(&budget, 1);
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
    fn room_is_given_back_in_a_child_whatever_threads_of_its_parent_did() {
        let budget = Arc::new(Budget {
            process: Process::elsewhere(),
            ..Budget::new(10)
        });
        assert!(take(&budget, 10));
        // Somebody was about to wait when the process was forked.
        budget.waiting.store(1, Ordering::SeqCst);
        let held = budget.lock.lock().unwrap();
        let (send, given) = std::sync::mpsc::channel();
        let there = budget.clone();
        std::thread::spawn(move || {
            there.give(10);
            let _ = send.send(there.used());
        });
        assert_eq!(given.recv_timeout(Duration::from_secs(60)), Ok(0));
        drop(held);
    }

    #[test]
    fn a_waiter_gets_the_room_that_is_given_back() {
        let budget = Arc::new(Budget::new(1));
        assert!(take(&budget, 1));
        let waiter = {
            let budget = budget.clone();
            // Also: waiting for ever is no overflow.
            std::thread::spawn(move || budget.wait_for(Duration::MAX, || take(&budget, 1)))
        };
        std::thread::sleep(Duration::from_millis(20));
        budget.give(1);
        assert!(waiter.join().unwrap());
        assert!(!budget.wait_for(Duration::from_millis(1), || take(&budget, 1)));
    }
}
