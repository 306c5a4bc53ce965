//! The hand-over from application threads to the delivery thread: a few queues, one per group of
//! threads, each behind a lock that is held for one push or one swap.

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, lock};
use crossbeam_utils::CachePadded;

/// Items after which a push wakes the delivery thread, so that a burst does not pile up between
/// two of its rounds.
const WAKE_AT: usize = 1024;

/// Sharded queues of `T`, many producers, one consumer.
#[derive(Debug)]
pub(crate) struct Ingress<T> {
    shards: Box<[CachePadded<Mutex<Queue<T>>>]>,
    /// The consumer is about to sleep until somebody wakes it.
    asleep: CachePadded<AtomicBool>,
    next_shard: AtomicUsize,
}

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    closed: bool,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// It is in; the consumer will see it by itself.
    Quietly,
    /// It is in, and the consumer must be woken.
    Wake,
    /// The ingress is closed; the item is gone.
    Closed,
}

impl<T> Ingress<T> {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.max(1))
                .map(|_| {
                    CachePadded::new(Mutex::new(Queue {
                        items: Vec::new(),
                        closed: false,
                    }))
                })
                .collect(),
            asleep: CachePadded::new(AtomicBool::new(false)),
            next_shard: AtomicUsize::new(0),
        }
    }

    /// A shard for a thread that has none yet.
    pub(crate) fn assign_shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    /// Appends `item` to the queue of `shard`, any number.
    pub(crate) fn push(&self, shard: usize, item: T) -> Pushed {
        let len = {
            let mut queue = lock(&self.shards[shard % self.shards.len()]);
            if queue.closed {
                return Pushed::Closed;
            }
            queue.items.push(item);
            queue.items.len()
        };
        // The consumer says that it sleeps before it looks into each queue a last time. If it did
        // not see this item, it took the queue's lock before us, and we see its word.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            return Pushed::Wake;
        }
        if len == WAKE_AT {
            Pushed::Wake
        } else {
            Pushed::Quietly
        }
    }

    /// Hands everything that was pushed before the call to `consume`, one shard at a time, outside
    /// the lock; `spare` vectors take the places of full ones. Returns the number of items.
    pub(crate) fn drain(
        &self,
        spare: &mut Vec<Vec<T>>,
        mut consume: impl FnMut(&mut Vec<T>),
    ) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let mut full = {
                let mut queue = lock(shard);
                if queue.items.is_empty() {
                    continue;
                }
                std::mem::replace(&mut queue.items, spare.pop().unwrap_or_default())
            };
            count += full.len();
            consume(&mut full);
            full.clear();
            // A burst must not leave its largest buffer behind for ever.
            full.shrink_to(2 * WAKE_AT);
            spare.push(full);
        }
        count
    }

    /// Says that the consumer is going to sleep. Returns false, and takes it back, if there is
    /// something to do.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        let idle = self.shards.iter().all(|shard| lock(shard).items.is_empty());
        if !idle {
            self.asleep.store(false, Ordering::Relaxed);
        }
        idle
    }

    /// Says that the consumer is awake.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Refuses every push from now on. What is in stays until it is drained.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            lock(shard).closed = true;
        }
    }

    /// Whether pushes are refused. Not for the hot path.
    pub(crate) fn is_closed(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).closed)
    }
}
