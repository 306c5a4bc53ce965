//! The hand-over from application threads to the delivery thread: a few queues, each shared by a
//! group of threads, behind a lock that is held for one push or one swap.

use crate::process::Process;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, lock_in};
use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;

/// A push wakes the delivery thread when a queue reaches this many items, so that a burst does not
/// pile up between two rounds.
const WAKE_AT: usize = 1024;
/// Items per chunk. A queue grows by chunks and reuses emptied ones: a push never copies queued
/// items, and writes to memory that was used recently.
const CHUNK: usize = 64;
/// Number of empty chunks that a shard keeps.
const SPARE: usize = 2 * WAKE_AT / CHUNK;

type Chunk<T> = Box<ArrayVec<T, CHUNK>>;
type Shard<T, L> = CachePadded<Mutex<Queue<T, L>>>;

/// Sharded queues of `T`, with many producers and one consumer. Each queue has an `L` beside it,
/// behind the same lock, which the shard's producers share with the consumer.
#[derive(Debug)]
pub(crate) struct Ingress<T, L = ()> {
    shards: Box<[Shard<T, L>]>,
    /// The consumer sleeps, or is about to, until a producer wakes it.
    asleep: CachePadded<AtomicBool>,
    /// Every queue is closed.
    closed: AtomicBool,
    next_shard: AtomicUsize,
    /// In a forked child, a queue whose lock a thread of the parent held is skipped.
    process: Process,
}

#[derive(Debug)]
struct Queue<T, L> {
    beside: L,
    /// The chunk that is being filled.
    items: Chunk<T>,
    full: Vec<Chunk<T>>,
    spare: Vec<Chunk<T>>,
    closed: bool,
}

impl<T, L> Queue<T, L> {
    #[cold]
    fn next_chunk(&mut self) {
        let next = self.spare.pop().unwrap_or_default();
        self.full.push(std::mem::replace(&mut self.items, next));
    }

    fn len(&self) -> usize {
        self.full.len() * CHUNK + self.items.len()
    }

    /// Checks both: a producer that admits nothing may leave an empty chunk behind full ones.
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.full.is_empty()
    }
}

/// A producer's lock on one queue that has room for an item.
pub(crate) struct Entry<'a, T, L> {
    asleep: &'a AtomicBool,
    queue: MutexGuard<'a, Queue<T, L>>,
}

impl<T, L> Entry<'_, T, L> {
    /// The `L` beside the queue.
    #[inline]
    pub(crate) fn beside(&mut self) -> &mut L {
        &mut self.queue.beside
    }

    /// Appends `item` and releases the queue. Returns true if the caller must wake the consumer.
    /// Nothing in it can panic, so the compiler keeps no copy of the item for unwinding.
    #[inline(always)]
    pub(crate) fn push(mut self, item: T) -> bool {
        debug_assert!(!self.queue.items.is_full(), "made room for by `enter`");
        let _ = self.queue.items.try_push(item);
        self.leave()
    }

    fn leave(self) -> bool {
        let len = self.queue.len();
        drop(self.queue);
        // The consumer sets `asleep` before it checks each queue for the last time. If that check
        // missed this item, it took the queue's lock before this thread did, so this thread sees
        // `asleep`.
        let asleep = self.asleep;
        (asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed)) || len == WAKE_AT
    }
}

/// The consumer's buffers for the chunks of a shard.
#[derive(Debug)]
pub(crate) struct Drained<T> {
    chunks: Vec<Chunk<T>>,
    /// Emptied chunks that go back to a queue.
    empty: Vec<Chunk<T>>,
}

impl<T> Default for Drained<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            empty: Vec::new(),
        }
    }
}

impl<T, L: Default> Ingress<T, L> {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.next_power_of_two())
                .map(|_| {
                    CachePadded::new(Mutex::new(Queue {
                        beside: L::default(),
                        items: Chunk::default(),
                        full: Vec::new(),
                        spare: Vec::new(),
                        closed: false,
                    }))
                })
                .collect(),
            asleep: CachePadded::new(AtomicBool::new(false)),
            closed: AtomicBool::new(false),
            next_shard: AtomicUsize::new(0),
            process: Process::current(),
        }
    }

    /// Assigns a shard to a thread that has none yet.
    pub(crate) fn assign_shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    /// Locks the queue of `shard` (any number) for one push; `None` after [`close`](Self::close).
    /// Other threads of the shard wait until the entry is dropped.
    #[inline(always)]
    pub(crate) fn enter(&self, shard: usize) -> Option<Entry<'_, T, L>> {
        // The number of shards is a power of two.
        let mut queue = lock_in(self.process, &self.shards[shard & (self.shards.len() - 1)])?;
        if queue.closed {
            return None;
        }
        if queue.items.is_full() {
            queue.next_chunk();
        }
        let asleep = &*self.asleep;
        Some(Entry { asleep, queue })
    }

    /// Passes every item that was pushed before the call to `consume`, outside the locks, and the
    /// `L` of each queue to `settle`, behind its lock. `drained` holds the consumer's buffers
    /// between calls. Returns the number of items.
    pub(crate) fn drain(
        &self,
        drained: &mut Drained<T>,
        mut settle: impl FnMut(&mut L),
        mut consume: impl FnMut(T),
    ) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            {
                let Some(mut queue) = lock_in(self.process, shard) else {
                    continue;
                };
                settle(&mut queue.beside);
                let back = SPARE.saturating_sub(queue.spare.len());
                let back = drained.empty.len() - drained.empty.len().min(back);
                queue.spare.extend(drained.empty.drain(back..));
                if queue.is_empty() {
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
        // The memory of a burst is not kept.
        drained.empty.truncate(SPARE);
        count
    }

    /// Calls `visit` with the `L` of each queue, behind its lock.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&mut L)) {
        for shard in &self.shards {
            if let Some(mut queue) = lock_in(self.process, shard) {
                visit(&mut queue.beside);
            }
        }
    }

    /// Announces that the consumer is going to sleep. If a queue has items, takes that back and
    /// returns false.
    pub(crate) fn fall_asleep(&self) -> bool {
        // Swaps rather than stores, here and below: a swap comes after every earlier swap of a
        // producer in the modification order. A store would too, but loom does not model that.
        self.asleep.swap(true, Ordering::Relaxed);
        let idle = self.shards.iter().all(|shard| {
            let queue = lock_in(self.process, shard);
            queue.is_none_or(|queue| queue.is_empty())
        });
        if !idle {
            self.asleep.swap(false, Ordering::Relaxed);
        }
        idle
    }

    /// Announces that the consumer is awake.
    pub(crate) fn awake(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// Rejects every push from now on. Queued items stay until they are drained.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            if let Some(mut queue) = lock_in(self.process, shard) {
                queue.closed = true;
            }
        }
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether every push is rejected. Takes no lock, because the caller may hold one for which a
    /// producer waits.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, trace_destination_loom))]
mod loom_tests;
#[cfg(all(test, not(trace_destination_loom)))]
mod tests;
