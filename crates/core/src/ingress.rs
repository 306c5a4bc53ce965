//! The hand-over from application threads to the delivery thread: a few queues, one per group of
//! threads, each behind a lock that is held for one push or one swap.

use crate::process::Process;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, lock_in};
use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;

/// Items after which a push wakes the delivery thread, so that a burst does not pile up between
/// two of its rounds.
const WAKE_AT: usize = 1024;
/// Items of one chunk. A queue grows by chunks and takes them back empty: a push never copies what
/// is there already, and finds memory that was in use a moment ago.
const CHUNK: usize = 64;
/// Empty chunks that a shard keeps.
const SPARE: usize = 2 * WAKE_AT / CHUNK;

type Chunk<T> = Box<ArrayVec<T, CHUNK>>;
type Shard<T, L> = CachePadded<Mutex<Queue<T, L>>>;

/// Sharded queues of `T`, many producers, one consumer. Beside each queue, and behind its lock, is
/// an `L` that producers of the shard share with the consumer.
#[derive(Debug)]
pub(crate) struct Ingress<T, L = ()> {
    shards: Box<[Shard<T, L>]>,
    /// The consumer is about to sleep until somebody wakes it.
    asleep: CachePadded<AtomicBool>,
    /// Every queue is closed.
    closed: AtomicBool,
    next_shard: AtomicUsize,
    /// In a child of this process, a queue that a thread of the parent holds is passed over.
    process: Process,
}

#[derive(Debug)]
struct Queue<T, L> {
    beside: L,
    /// The chunk that grows.
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

    /// A producer that found no room leaves an empty chunk in front of full ones.
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.full.is_empty()
    }
}

/// A producer's hold on one queue, which has room for an item.
pub(crate) struct Entry<'a, T, L> {
    asleep: &'a AtomicBool,
    queue: MutexGuard<'a, Queue<T, L>>,
}

impl<T, L> Entry<'_, T, L> {
    /// What is beside the queue.
    #[inline]
    pub(crate) fn beside(&mut self) -> &mut L {
        &mut self.queue.beside
    }

    /// Appends `item` and leaves; true if the consumer must be woken. Nothing here can fail, which
    /// saves the copies that are kept for unwinding.
    #[inline(always)]
    pub(crate) fn push(mut self, item: T) -> bool {
        debug_assert!(!self.queue.items.is_full(), "made room for by `enter`");
        let _ = self.queue.items.try_push(item);
        self.leave()
    }

    fn leave(self) -> bool {
        let len = self.queue.len();
        drop(self.queue);
        // The consumer says that it sleeps before it looks into each queue a last time. If it did
        // not see this item, it took the queue's lock before us, and we see its word.
        let asleep = self.asleep;
        (asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed)) || len == WAKE_AT
    }
}

/// What the consumer takes out of one shard.
#[derive(Debug)]
pub(crate) struct Drained<T> {
    chunks: Vec<Chunk<T>>,
    /// Emptied chunks on their way back.
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

    /// A shard for a thread that has none yet.
    pub(crate) fn assign_shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    /// The queue of `shard`, any number, for one push; `None` after [`close`](Self::close). Other
    /// threads of the shard wait until the entry is gone.
    #[inline(always)]
    pub(crate) fn enter(&self, shard: usize) -> Option<Entry<'_, T, L>> {
        // Their number is a power of two.
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

    /// Hands everything that was pushed before the call to `consume`, outside the locks, and what is
    /// beside each queue to `settle`, behind its lock. `drained` is the consumer's memory between
    /// two calls. Returns the number of items.
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
        // A burst must not leave its memory behind for ever.
        drained.empty.truncate(SPARE);
        count
    }

    /// Shows what is beside each queue to `visit`, behind its lock.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&mut L)) {
        for shard in &self.shards {
            if let Some(mut queue) = lock_in(self.process, shard) {
                visit(&mut queue.beside);
            }
        }
    }

    /// Says that the consumer is going to sleep. Returns false, and takes it back, if there is
    /// something to do.
    pub(crate) fn fall_asleep(&self) -> bool {
        // Swaps and not stores, here and below: they follow every swap of a producer that came
        // before. Stores would too, by what a swap may read, but loom does not see that.
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

    /// Says that the consumer is awake.
    pub(crate) fn awake(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// Refuses every push from now on. What is in stays until it is drained.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            if let Some(mut queue) = lock_in(self.process, shard) {
                queue.closed = true;
            }
        }
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether every push is refused. Takes no lock: who asks may hold one that a producer waits
    /// for.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, trace_destination_loom))]
mod loom_tests;
#[cfg(all(test, not(trace_destination_loom)))]
mod tests;
