//! The hand-over from application threads to the delivery thread: a few queues, one per group of
//! threads, each behind a lock that is held for one push or one swap.

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, lock};
use crossbeam_utils::CachePadded;

/// Items after which a push wakes the delivery thread, so that a burst does not pile up between
/// two of its rounds.
const WAKE_AT: usize = 1024;
/// Items of one chunk. A queue grows by chunks and takes them back empty: a push never copies what
/// is there already, and finds memory that was in use a moment ago.
const CHUNK: usize = 64;
/// Empty chunks that a shard keeps.
const SPARE: usize = 2 * WAKE_AT / CHUNK;

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
    /// The chunk that grows.
    items: Vec<T>,
    full: Vec<Vec<T>>,
    spare: Vec<Vec<T>>,
    closed: bool,
}

impl<T> Queue<T> {
    #[inline]
    fn push(&mut self, item: T) {
        if self.items.len() == self.items.capacity() {
            self.next_chunk();
        }
        self.items.push(item);
    }

    #[cold]
    fn next_chunk(&mut self) {
        let next = self.spare.pop();
        let next = next.unwrap_or_else(|| Vec::with_capacity(CHUNK));
        let full = std::mem::replace(&mut self.items, next);
        if !full.is_empty() {
            self.full.push(full);
        }
    }

    fn len(&self) -> usize {
        self.full.len() * CHUNK + self.items.len()
    }
}

/// What the consumer takes out of one shard.
#[derive(Debug)]
pub(crate) struct Drained<T> {
    chunks: Vec<Vec<T>>,
    /// Emptied chunks on their way back.
    empty: Vec<Vec<T>>,
}

impl<T> Default for Drained<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            empty: Vec::new(),
        }
    }
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
            shards: (0..shards.next_power_of_two())
                .map(|_| {
                    CachePadded::new(Mutex::new(Queue {
                        items: Vec::new(),
                        full: Vec::new(),
                        spare: Vec::new(),
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
    #[inline]
    pub(crate) fn push(&self, shard: usize, item: T) -> Pushed {
        let len = {
            // Their number is a power of two.
            let mut queue = lock(&self.shards[shard & (self.shards.len() - 1)]);
            if queue.closed {
                return Pushed::Closed;
            }
            queue.push(item);
            queue.len()
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

    /// Hands everything that was pushed before the call to `consume`, outside the locks. `drained`
    /// is the consumer's memory between two calls. Returns the number of items.
    pub(crate) fn drain(&self, drained: &mut Drained<T>, mut consume: impl FnMut(T)) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            {
                let mut queue = lock(shard);
                let back = SPARE.saturating_sub(queue.spare.len());
                let back = drained.empty.len() - drained.empty.len().min(back);
                queue.spare.extend(drained.empty.drain(back..));
                if queue.items.is_empty() {
                    continue;
                }
                std::mem::swap(&mut queue.full, &mut drained.chunks);
                let next = queue.spare.pop().unwrap_or_default();
                drained
                    .chunks
                    .push(std::mem::replace(&mut queue.items, next));
            }
            for mut chunk in drained.chunks.drain(..) {
                count += chunk.len();
                chunk.drain(..).for_each(&mut consume);
                drained.empty.push(chunk);
            }
        }
        // A burst must not leave its memory behind for ever.
        drained.empty.truncate(SPARE);
        count
    }

    /// Says that the consumer is going to sleep. Returns false, and takes it back, if there is
    /// something to do.
    pub(crate) fn fall_asleep(&self) -> bool {
        // Swaps and not stores, here and below: they follow every swap of a producer that came
        // before. Stores would too, by what a swap may read, but loom does not see that.
        self.asleep.swap(true, Ordering::Relaxed);
        let idle = self.shards.iter().all(|shard| lock(shard).items.is_empty());
        if !idle {
            self.asleep.swap(false, Ordering::Relaxed);
        }
        idle
    }

    /// Says that the consumer is awake.
    pub(crate) fn awake(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
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

#[cfg(all(test, trace_destination_loom))]
mod loom_tests;
#[cfg(all(test, not(trace_destination_loom)))]
mod tests;
