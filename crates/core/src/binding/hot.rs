//! Traces that a thread has just used: their open spans are counted without the table's lock.
//!
//! Most spans start and end on the thread that started their sibling a moment ago. A trace made here
//! gets a slot with its first child: a word that holds how many of its spans are open, and how often
//! the slot was given away. A thread that remembers both adds to the word or takes from it, and the
//! table is not looked at. The last span to end goes through the table, as does everything when the
//! slot was taken back meanwhile.

use super::RouteId;
use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::num::NonZeroU32;

/// Slots of one shard: how many of its traces can have one at a time.
const SLOTS: usize = 4;
/// Traces that a thread remembers.
const REMEMBERED: usize = 4;

/// The slots of one table.
#[derive(Debug)]
pub(super) struct Hot {
    /// In the upper half how often the slot was taken back, in the lower half the open spans of the
    /// trace that has it, zero if none has.
    words: Box<[CachePadded<AtomicU64>]>,
    /// Which table this is, for threads that use several.
    table: u64,
}

/// Which slots of a shard nobody has; behind the shard's lock.
#[derive(Debug)]
pub(super) struct Free(u8);

impl Default for Free {
    fn default() -> Self {
        Self((1 << SLOTS) - 1)
    }
}

/// A slot that a trace has: its index, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What a thread remembers of a trace.
#[derive(Clone, Copy, Debug)]
struct Memory {
    table: u64,
    trace: u128,
    slot: Slot,
    generation: u32,
    route: RouteId,
}

/// By the last bits of the trace id. No destructor, so it works during thread teardown.
type Memories = [Cell<Option<Memory>>; REMEMBERED];

#[cfg(not(trace_destination_loom))]
thread_local! {
    static MEMORIES: Memories = const { [const { Cell::new(None) }; REMEMBERED] };
}

#[cfg(trace_destination_loom)]
loom::thread_local! {
    static MEMORIES: Memories = [const { Cell::new(None) }; REMEMBERED];
}

fn memory<T>(trace: u128, f: impl FnOnce(&Cell<Option<Memory>>) -> T) -> T {
    MEMORIES.with(|all| f(&all[trace as usize % REMEMBERED]))
}

fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

fn open(word: u64) -> u32 {
    word as u32
}

impl Hot {
    pub(super) fn new(shards: usize) -> Self {
        static TABLES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let words = (0..shards * SLOTS).map(|_| CachePadded::new(AtomicU64::new(0)));
        Self {
            words: words.collect(),
            table: TABLES.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Counts a span that starts; `None` if the table has to.
    #[inline]
    pub(super) fn start(&self, trace: u128) -> Option<RouteId> {
        self.change(trace, |word| (open(word) > 0).then(|| word + 1))
    }

    /// Counts a span that ends, unless it is the last one; `None` if the table has to.
    #[inline]
    pub(super) fn end(&self, trace: u128) -> Option<RouteId> {
        self.change(trace, |word| (open(word) > 1).then(|| word - 1))
    }

    #[inline]
    fn change(&self, trace: u128, to: impl Fn(u64) -> Option<u64>) -> Option<RouteId> {
        let memory = memory(trace, Cell::get)?;
        if memory.trace != trace || memory.table != self.table {
            return None;
        }
        // Relaxed: the word guards nothing but itself, and who hands a span to another thread
        // shows that thread what was counted before.
        self.word(memory.slot)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (generation(word) == memory.generation)
                    .then(|| to(word))
                    .flatten()
            })
            .ok()
            .map(|_| memory.route)
    }

    /// Gives a free slot of `shard` to a trace with `spans` open spans, one at least. Like all that
    /// follow, behind the shard's lock.
    pub(super) fn give(&self, shard: usize, free: &mut Free, spans: u32) -> Option<Slot> {
        let index = free.0.trailing_zeros();
        if index >= SLOTS as u32 {
            return None;
        }
        let slot = Slot(NonZeroU32::new((shard * SLOTS) as u32 + index + 1)?);
        free.0 &= !(1 << index);
        // Nobody remembers this generation yet, so nobody else writes.
        let word = self.word(slot).load(Ordering::Relaxed);
        self.word(slot)
            .store(word | u64::from(spans), Ordering::Relaxed);
        Some(slot)
    }

    /// Takes a slot back; returns the spans that are open.
    pub(super) fn take_back(&self, slot: Slot, free: &mut Free) -> u32 {
        let next = |word| Some(u64::from(generation(word).wrapping_add(1)) << 32);
        let before = self.update(slot, next).unwrap_or_default();
        free.0 |= 1 << (slot.index() % SLOTS);
        open(before)
    }

    /// Counts a span that starts.
    pub(super) fn add(&self, slot: Slot) {
        self.update(slot, |word| Some(word + 1));
    }

    /// Counts a span that ends; false if it is the last one, which is not counted.
    pub(super) fn subtract(&self, slot: Slot) -> bool {
        let but_last = |word| (open(word) > 1).then(|| word - 1);
        self.update(slot, but_last).is_some()
    }

    /// The spans that are open.
    pub(super) fn open(&self, slot: Slot) -> u32 {
        open(self.word(slot).load(Ordering::Relaxed))
    }

    /// Lets this thread count the spans of a trace by itself.
    pub(super) fn remember(&self, trace: u128, slot: Slot, route: RouteId) {
        let memory = Memory {
            table: self.table,
            trace,
            slot,
            generation: generation(self.word(slot).load(Ordering::Relaxed)),
            route,
        };
        self::memory(trace, |there| there.set(Some(memory)));
    }

    fn update(&self, slot: Slot, f: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        self.word(slot)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, f)
            .ok()
    }

    fn word(&self, slot: Slot) -> &AtomicU64 {
        &self.words[slot.index()]
    }
}
