//! Traces that a thread has just used: their open spans are kept without the table's lock.
//!
//! Most spans start and end on the thread that started their sibling a moment ago. A trace made here
//! gets a slot with its first child: one padded line with a cell per open span, and a word that says
//! which cells are in use and how often the slot was given away. A thread that remembers slot and
//! generation claims or frees a cell with one compare-and-swap of the word, and the table is not
//! looked at. The id of the span is stored in its cell, so what a slot holds is exact: no span ends,
//! is anybody's parent or sets a value of a trace by the trace id alone.
//!
//! A claim and the store of the id are two steps. Nothing can be lost between them, because a slot is
//! taken back only when no cell of it is in use.

use super::own::NEAR;
use crate::route_id::RouteId;
use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::num::NonZeroU32;

/// Slots of one shard: how many of its traces can have one at a time.
const SLOTS: usize = 4;
/// Traces that a thread remembers.
const REMEMBERED: usize = 4;
/// Spans of one trace that its slot holds; with the word they fill 128 bytes. Spans beyond it are
/// held by the table.
pub(super) const CELLS: usize = if cfg!(trace_destination_loom) { 3 } else { 15 };

/// Set in the word while the table holds open spans of the trace, beside those in the cells.
const HELD: u64 = 1 << CELLS;
/// Where the word has the number of the cell that was claimed last.
const LAST: u32 = 16;

/// The slots of one table.
#[derive(Debug)]
pub(super) struct Hot {
    slots: Box<[CachePadded<Cells>]>,
    /// Which table this is, for threads that use several.
    table: u64,
}

#[derive(Debug)]
struct Cells {
    /// In the upper half how often the slot was taken back; in the lower half the cells in use, and
    /// the two fields above.
    word: AtomicU64,
    /// Span ids. A cell that is not in use has the last span that was, or zero.
    ids: [AtomicU64; CELLS],
}

/// Which slots of a shard nobody has; behind the shard's lock.
#[derive(Debug)]
pub(super) struct Free {
    now: u8,
    /// Slots of traces that expired with spans open. A thread may be between the two steps of a
    /// start in one of them, so it is not given away before two more checks of age.
    soon: [u8; 2],
}

impl Default for Free {
    fn default() -> Self {
        Self {
            now: (1 << SLOTS) - 1,
            soon: [0; 2],
        }
    }
}

impl Free {
    /// One more check of age has passed.
    pub(super) fn rest(&mut self) {
        self.now |= self.soon[1];
        self.soon = [0, self.soon[0]];
    }
}

/// A slot that a trace has: its index, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    fn bit(self) -> u8 {
        1 << (self.index() % SLOTS)
    }
}

/// What became of a slot when a span of its trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Other spans of the trace are open.
    Open,
    /// It was the last one. The slot is free again.
    Over,
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

/// The cells in use, one bit each.
fn used(word: u64) -> u64 {
    word & (HELD - 1)
}

/// The word of a slot that was taken back.
fn next_generation(word: u64) -> u64 {
    u64::from(generation(word).wrapping_add(1)) << 32 | word & 15 << LAST
}

/// Claims the next free cell after the one claimed last, so that the ids of spans that have ended
/// stay readable for as long as can be: its number, and the word to be.
fn claim(word: u64) -> Option<(usize, u64)> {
    let free = !word & (HELD - 1);
    let after = free & !((2 << (word >> LAST & 15)) - 1);
    let cell = match after {
        0 => free,
        after => after,
    }
    .trailing_zeros();
    if cell as usize >= CELLS {
        return None;
    }
    let next = word & !(15 << LAST) | u64::from(cell) << LAST | 1 << cell;
    Some((cell as usize, next))
}

impl Cells {
    fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            ids: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The cell of an open span.
    #[inline]
    fn find(&self, word: u64, span: u64) -> Option<u32> {
        let mut rest = used(word);
        while rest != 0 {
            let cell = rest.trailing_zeros();
            if self.ids[cell as usize].load(Ordering::Relaxed) == span {
                return Some(cell);
            }
            rest &= rest - 1;
        }
        None
    }

    /// Whether a span of the trace is open, or was and its cell is not used again.
    #[inline]
    fn knows(&self, word: u64, span: u64) -> bool {
        self.find(word, span).is_some() || self.knew(span)
    }

    #[cold]
    fn knew(&self, span: u64) -> bool {
        (self.ids.iter()).any(|id| id.load(Ordering::Relaxed) == span)
    }

    /// Replaces the word by what `next` makes of it, for as long as it makes anything.
    #[inline]
    fn update<T>(&self, mut word: u64, mut next: impl FnMut(u64) -> Option<(T, u64)>) -> Option<T> {
        loop {
            let (result, new) = next(word)?;
            // Acquire: the ids are read after the word. Release: they are cleared before it.
            match self
                .word
                .compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(result),
                Err(now) => word = now,
            }
        }
    }

    fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }
}

impl Hot {
    pub(super) fn new(shards: usize) -> Self {
        static TABLES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let slots = (0..shards * SLOTS).map(|_| CachePadded::new(Cells::new()));
        Self {
            slots: slots.collect(),
            table: TABLES.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What this thread remembers of a trace, if it is of this table.
    #[inline]
    fn recall(&self, trace: u128) -> Option<(Memory, &Cells)> {
        let memory = memory(trace, Cell::get)?;
        if memory.trace != trace || memory.table != self.table {
            return None;
        }
        Some((memory, self.cells(memory.slot)))
    }

    /// Takes a span that starts; `None` if the table has to.
    #[inline]
    pub(super) fn start(&self, trace: u128, span: u64, parent: u64) -> Option<RouteId> {
        let (memory, cells) = self.recall(trace)?;
        let word = cells.word();
        // Of this generation, if the word still is when the cell is claimed.
        if !cells.knows(word, parent) {
            return None;
        }
        let cell = cells.update(word, |word| {
            if generation(word) != memory.generation {
                return None;
            }
            claim(word)
        })?;
        // Relaxed: who hands a span to another thread shows that thread what was stored before.
        cells.ids[cell].store(span, Ordering::Relaxed);
        Some(memory.route)
    }

    /// Takes a span that ends, unless it is the last one; `None` if the table has to.
    #[inline]
    pub(super) fn end(&self, trace: u128, span: u64) -> Option<RouteId> {
        let (memory, cells) = self.recall(trace)?;
        cells.update(cells.word(), |word| {
            if generation(word) != memory.generation {
                return None;
            }
            let next = word & !(1 << cells.find(word, span)?);
            (next & (HELD | (HELD - 1)) != 0).then_some(((), next))
        })?;
        Some(memory.route)
    }

    /// Gives a free slot of `shard` to a trace: for some spans of it, those that are open named by a
    /// bit each, and one that starts. Like all that follow, behind the shard's lock.
    pub(super) fn give(
        &self,
        shard: usize,
        free: &mut Free,
        (near, open): ([u64; NEAR], u8),
        span: u64,
    ) -> Option<Slot> {
        let index = free.now.trailing_zeros();
        if index >= SLOTS as u32 {
            return None;
        }
        let slot = Slot(NonZeroU32::new((shard * SLOTS) as u32 + index + 1)?);
        free.now &= !slot.bit();
        // Nobody remembers this generation yet, so nobody else writes.
        let cells = self.cells(slot);
        for (i, id) in cells.ids.iter().enumerate() {
            let new = match i {
                NEAR => span,
                i => near.get(i).copied().unwrap_or(0),
            };
            id.store(new, Ordering::Relaxed);
        }
        let used = u64::from(open) | 1 << NEAR;
        let word = u64::from(generation(cells.word())) << 32 | (NEAR as u64) << LAST | used;
        cells.word.store(word, Ordering::Release);
        Some(slot)
    }

    /// Adds an open span; false if there is no cell for it.
    pub(super) fn add(&self, slot: Slot, span: u64) -> bool {
        let cells = self.cells(slot);
        let cell = cells.update(cells.word(), claim);
        if let Some(cell) = cell {
            cells.ids[cell].store(span, Ordering::Relaxed);
        }
        cell.is_some()
    }

    /// Notes whether the table holds open spans of the trace. Without, and without any in a cell,
    /// the trace is over.
    pub(super) fn set_held(&self, slot: Slot, held: bool, free: &mut Free) -> Left {
        let next = |word| match held {
            true => word | HELD,
            false => word & !HELD,
        };
        self.finish(slot, free, |word| Some(next(word)))
            .unwrap_or(Left::Open)
    }

    /// Removes an open span; `None` if it is in no cell.
    pub(super) fn remove(&self, slot: Slot, span: u64, free: &mut Free) -> Option<Left> {
        let cells = self.cells(slot);
        self.finish(slot, free, |word| {
            Some(word & !(1 << cells.find(word, span)?))
        })
    }

    /// Changes the word, and takes the slot back if nothing is open then.
    fn finish(
        &self,
        slot: Slot,
        free: &mut Free,
        change: impl Fn(u64) -> Option<u64>,
    ) -> Option<Left> {
        let cells = self.cells(slot);
        let left = cells.update(cells.word(), |word| {
            let next = change(word)?;
            Some(match next & (HELD | (HELD - 1)) {
                0 => (Left::Over, next_generation(word)),
                _ => (Left::Open, next),
            })
        })?;
        if left == Left::Over {
            free.now |= slot.bit();
        }
        Some(left)
    }

    /// Takes the slot of a trace back that expired with spans open.
    pub(super) fn take_back(&self, slot: Slot, free: &mut Free) {
        let cells = self.cells(slot);
        cells.update(cells.word(), |word| Some(((), next_generation(word))));
        free.soon[0] |= slot.bit();
    }

    /// The number of open spans in cells.
    pub(super) fn open(&self, slot: Slot) -> u32 {
        used(self.cells(slot).word()).count_ones()
    }

    /// Whether a span is open.
    pub(super) fn is_open(&self, slot: Slot, span: u64) -> bool {
        let cells = self.cells(slot);
        cells.find(cells.word(), span).is_some()
    }

    /// Whether a span of the trace is open, or has ended lately.
    pub(super) fn knows(&self, slot: Slot, span: u64) -> bool {
        let cells = self.cells(slot);
        cells.knows(cells.word(), span)
    }

    /// The spans of the cells that were claimed last, the oldest one first. Also of a slot that was
    /// just taken back.
    pub(super) fn latest(&self, slot: Slot) -> [u64; NEAR] {
        let cells = self.cells(slot);
        let last = (cells.word() >> LAST & 15) as usize + CELLS;
        std::array::from_fn(|n| cells.ids[(last + 1 + n - NEAR) % CELLS].load(Ordering::Relaxed))
    }

    /// Lets this thread take the spans of a trace by itself.
    pub(super) fn remember(&self, trace: u128, slot: Slot, route: RouteId) {
        let memory = Memory {
            table: self.table,
            trace,
            slot,
            generation: generation(self.cells(slot).word()),
            route,
        };
        self::memory(trace, |there| there.set(Some(memory)));
    }

    fn cells(&self, slot: Slot) -> &Cells {
        &self.slots[slot.index()]
    }
}
