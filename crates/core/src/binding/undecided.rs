//! What waits for the destination of its segment: spans that have ended, and trace-level values.
//!
//! A segment without a decision shares its place with the threads on which its spans end. Whether
//! something waits, follows a route or is lost is decided under the lock of that place alone, so a
//! span that ends while the decision is made is in what the decision takes out, or follows it.

use crate::process::Process;
use crate::record::{Span, TraceUpdate};
use crate::route_id::RouteId;
use crate::stats;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, lock_in};
use crate::totals::Totals;
use opentelemetry_sdk::trace::SpanData;
use std::sync::Arc;

/// What an undecided trace costs beside what waits in it, in bytes: its place, and its entries in
/// the table, where a trace id from outside takes the most.
const PLACE: usize = 512;
/// What something that waits costs beside itself: its box, and its entry in the list, which may have
/// twice the room that it needs.
const ENTRY: usize = 64;
/// The part of the free room up to which a trace may hold something. So whatever number of traces
/// take what they get, some is left for those that come.
const FREE_PART: usize = 8;
/// The part of the room that is for the places of traces alone: one without is never decided.
const PLACES_PART: usize = 4;

/// The room for everything that waits in one pipeline.
#[derive(Debug)]
pub(crate) struct Room {
    limit: usize,
    used: AtomicUsize,
    traces: AtomicU64,
    spans: AtomicU64,
    updates: AtomicU64,
    closed: AtomicBool,
    totals: Arc<Totals>,
}

impl Room {
    pub(crate) fn new(limit: usize, totals: Arc<Totals>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            traces: AtomicU64::new(0),
            spans: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            totals,
        })
    }

    /// Whether roots wait for a decision at all.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Nothing waits from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Bytes taken.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What is free for things to wait in. The rest is for places.
    fn free(&self) -> usize {
        let for_all = self.limit - self.limit / PLACES_PART;
        for_all.saturating_sub(self.used())
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// What waits.
    pub(crate) fn stats(&self) -> stats::Undecided {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats::Undecided {
            traces: count(&self.traces),
            spans: count(&self.spans),
            updates: count(&self.updates),
            bytes: self.used(),
        }
    }

    /// The counter of what is like `held`.
    fn counter(&self, held: &Held) -> &AtomicU64 {
        match held {
            Held::Span(..) => &self.spans,
            Held::Values(_) => &self.updates,
        }
    }

    /// Whether traces that are over have to make room for those that are not.
    pub(super) fn is_crowded(&self) -> bool {
        self.used() > self.limit / 2
    }

    fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| Some(used.saturating_add(bytes)).filter(|n| *n <= self.limit);
        (self.used)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A place for a trace that starts, if there is room.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Arc<Undecided>> {
        if self.closed.load(Ordering::SeqCst) || !self.take(PLACE) {
            return None;
        }
        self.traces.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Undecided {
            room: self.clone(),
            process: Process::current(),
            state: Mutex::new(State::Waits(Vec::new(), 0)),
        }))
    }
}

/// The place of one undecided trace. What is in it when it goes is lost, and counted.
#[derive(Debug)]
pub(crate) struct Undecided {
    room: Arc<Room>,
    process: Process,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// What waits, in the order in which it came, and its bytes.
    Waits(Vec<Held>, usize),
    Decided(RouteId),
    /// Nobody decided in time.
    Over,
}

/// Something that waits.
#[derive(Debug)]
pub(crate) enum Held {
    /// A span that ended, and the index of its resource.
    Span(u32, Box<SpanData>),
    Values(Box<TraceUpdate>),
}

/// What becomes of something that was to wait.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It waits, or is lost and counted.
    Kept,
    /// The decision was made meanwhile.
    Follows(RouteId, Held),
}

impl Held {
    fn bytes(&self) -> usize {
        ENTRY
            + match self {
                Self::Span(_, span) => Span::sdk_bytes(span),
                Self::Values(values) => values.approximate_bytes(),
            }
    }
}

impl Undecided {
    /// Whether nothing may wait any more. Asked behind the lock of a shard, it is the last word: that
    /// lock is taken once more after the room was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.room.closed.load(Ordering::SeqCst)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.room.is_crowded()
    }

    /// Lets something wait.
    pub(crate) fn hold(&self, held: Held) -> Fate {
        let bytes = held.bytes();
        let Some(mut state) = lock_in(self.process, &self.state) else {
            return Fate::Kept;
        };
        match &mut *state {
            State::Decided(route) => return Fate::Follows(*route, held),
            State::Waits(all, taken) => {
                if *taken + bytes <= self.room.free() / FREE_PART && self.room.take(bytes) {
                    self.room.counter(&held).fetch_add(1, Ordering::Relaxed);
                    *taken += bytes;
                    all.push(held);
                    return Fate::Kept;
                }
            }
            State::Over => {}
        }
        drop(state);
        self.lose(&[held]);
        Fate::Kept
    }

    /// Decides, and takes out what waits.
    pub(super) fn decide(&self, route: RouteId) -> Vec<Held> {
        self.leave(State::Decided(route))
    }

    /// Nobody has decided. What waits is lost.
    pub(super) fn end(&self) {
        let lost = self.leave(State::Over);
        self.lose(&lost);
    }

    fn leave(&self, next: State) -> Vec<Held> {
        let Some(mut state) = lock_in(self.process, &self.state) else {
            return Vec::new();
        };
        if !matches!(&*state, State::Waits(..)) {
            return Vec::new();
        }
        let before = std::mem::replace(&mut *state, next);
        drop(state);
        self.room.left(before)
    }

    fn lose(&self, lost: &[Held]) {
        self.room.lose(lost);
    }
}

impl Room {
    /// A trace is not undecided any more: gives back its room, but for what comes out of it.
    fn left(&self, state: State) -> Vec<Held> {
        let State::Waits(all, taken) = state else {
            return Vec::new();
        };
        for held in &all {
            self.counter(held).fetch_sub(1, Ordering::Relaxed);
        }
        self.traces.fetch_sub(1, Ordering::Relaxed);
        self.give(taken + PLACE);
        all
    }

    fn lose(&self, lost: &[Held]) {
        for held in lost {
            match held {
                Held::Span(_, span) => self.totals.lose_unrouted(1, &span.name),
                Held::Values(_) => {
                    self.totals.unrouted_updates.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
impl PartialEq for Undecided {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.end();
    }
}
