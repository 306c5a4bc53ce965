//! Values that wait for the root span of their trace, for places that have spans and nothing else.
//!
//! One store per pipeline, in memory that its budget counts. Application threads put values in,
//! before they return to code that may end the root; the delivery thread takes them out when it
//! seals the batch that holds the root, so it always finds what was set before the root ended.

use crate::lane::LaneId;
use crate::process::Process;
use crate::record::TraceUpdate;
use opentelemetry::trace::TraceId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// What an entry takes beside the values, in bytes: its place in two maps.
const OVERHEAD: usize = 64;

type ById<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The values of one pipeline.
#[derive(Debug)]
pub(crate) struct WaitingValues {
    held: Mutex<Held>,
    /// How many traces have some: nothing is locked while there are none.
    traces: AtomicUsize,
    /// What all of them may take, and those of one lane, in bytes.
    limits: (usize, usize),
    process: Process,
}

#[derive(Debug, Default)]
struct Held {
    closed: bool,
    bytes: usize,
    lanes: ById<LaneId, OfLane>,
}

#[derive(Debug, Default)]
struct OfLane {
    bytes: usize,
    traces: ById<TraceId, Waiting>,
}

/// The values of one trace at one lane.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) update: TraceUpdate,
    /// What they are counted with in the budgets, which whoever takes them out gives back.
    pub(crate) bytes: usize,
    /// When it was first seen that no root is open which they could wait for.
    given_up: Option<Instant>,
}

/// Why values cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// Others take the room there is.
    Full,
    /// Delivery has ended, here or in the process that this one was forked from.
    Closed,
}

impl WaitingValues {
    /// A store for a pipeline and lanes of these budgets. Values may take half of each: they stay
    /// for as long as their trace runs, and spans must find room beside them.
    pub(crate) fn new(budget: usize, lane_budget: usize) -> Self {
        Self {
            held: Mutex::default(),
            traces: AtomicUsize::new(0),
            limits: (budget / 2, lane_budget / 2),
            process: Process::current(),
        }
    }

    fn held(&self) -> Option<MutexGuard<'_, Held>> {
        self.process.lock(&self.held)
    }

    /// What `update` is counted with.
    pub(crate) fn bytes_of(update: &TraceUpdate) -> usize {
        OVERHEAD + update.approximate_bytes()
    }

    /// Has values wait, merged with those that wait already. `reserved` bytes were taken in the
    /// budgets for them; returns how many of those are not needed.
    pub(crate) fn put(
        &self,
        lane: LaneId,
        update: TraceUpdate,
        reserved: usize,
    ) -> Result<usize, NotHeld> {
        let mut held = self.held().ok_or(NotHeld::Closed)?;
        if held.closed {
            return Err(NotHeld::Closed);
        }
        let (all, one) = self.limits;
        let of_lane = held.lanes.entry(lane).or_default();
        // Like a budget, it takes one item of any size when it is empty.
        let is_full = |bytes: usize, limit| bytes > 0 && bytes.saturating_add(reserved) > limit;
        if is_full(of_lane.bytes, one) || is_full(held.bytes, all) {
            held.forget_if_empty(lane);
            return Err(NotHeld::Full);
        }
        let of_lane = held.lanes.entry(lane).or_default();
        let added = match of_lane.traces.entry(update.trace_id) {
            Entry::Occupied(mut there) => {
                let there = there.get_mut();
                there.update.merge(update);
                let before = there.bytes;
                // Never more than was reserved for the two.
                there.bytes = Self::bytes_of(&there.update).clamp(before, before + reserved);
                there.bytes - before
            }
            Entry::Vacant(place) => {
                place.insert(Waiting {
                    update,
                    bytes: reserved,
                    given_up: None,
                });
                self.traces.fetch_add(1, Ordering::Relaxed);
                reserved
            }
        };
        of_lane.bytes += added;
        held.bytes += added;
        Ok(reserved - added)
    }

    /// Whether nothing waits. What was put before a root ended shows to whoever has that root.
    pub(crate) fn is_empty(&self) -> bool {
        self.traces.load(Ordering::Relaxed) == 0
    }

    /// Takes out what waits at a lane for the roots of `traces`, in their order.
    pub(crate) fn take(
        &self,
        lane: LaneId,
        traces: impl Iterator<Item = TraceId>,
    ) -> Vec<Option<Waiting>> {
        let Some(mut held) = self.held() else {
            return traces.map(|_| None).collect();
        };
        let Some(of_lane) = held.lanes.get_mut(&lane) else {
            return traces.map(|_| None).collect();
        };
        let taken: Vec<_> = traces.map(|id| of_lane.traces.remove(&id)).collect();
        self.account(&mut held, lane, taken.iter().flatten());
        taken
    }

    /// Takes out what waits for no root any more: what `is_awaited` was false for at an earlier call,
    /// and what `is_settled` is true for by the time since.
    pub(crate) fn take_unawaited(
        &self,
        now: Instant,
        is_awaited: impl Fn(LaneId, TraceId) -> bool,
        is_settled: impl Fn(LaneId, Instant) -> bool,
    ) -> Vec<(LaneId, Waiting)> {
        if self.is_empty() {
            return Vec::new();
        }
        let Some(mut held) = self.held() else {
            return Vec::new();
        };
        let lanes: Vec<LaneId> = held.lanes.keys().copied().collect();
        let mut gone = Vec::new();
        for lane in lanes {
            let Some(of_lane) = held.lanes.get_mut(&lane) else {
                continue;
            };
            let taken = of_lane.traces.extract_if(|id, waiting| {
                if is_awaited(lane, *id) {
                    waiting.given_up = None;
                    return false;
                }
                let since = *waiting.given_up.get_or_insert(now);
                is_settled(lane, since)
            });
            let taken: Vec<_> = taken.map(|(_, waiting)| waiting).collect();
            self.account(&mut held, lane, taken.iter());
            gone.extend(taken.into_iter().map(|waiting| (lane, waiting)));
        }
        gone
    }

    /// Takes everything out and lets nothing in any more.
    pub(crate) fn close(&self) -> Vec<(LaneId, Waiting)> {
        let Some(mut held) = self.held() else {
            return Vec::new();
        };
        held.closed = true;
        held.bytes = 0;
        self.traces.store(0, Ordering::Relaxed);
        let lanes = std::mem::take(&mut held.lanes);
        let of_lane = |(lane, of): (LaneId, OfLane)| {
            let waiting = of.traces.into_values();
            waiting.map(move |waiting| (lane, waiting))
        };
        lanes.into_iter().flat_map(of_lane).collect()
    }

    fn account<'a>(&self, held: &mut Held, lane: LaneId, taken: impl Iterator<Item = &'a Waiting>) {
        let (mut traces, mut bytes) = (0, 0);
        for waiting in taken {
            traces += 1;
            bytes += waiting.bytes;
        }
        self.traces.fetch_sub(traces, Ordering::Relaxed);
        held.bytes -= bytes;
        if let Some(of_lane) = held.lanes.get_mut(&lane) {
            of_lane.bytes -= bytes;
        }
        held.forget_if_empty(lane);
    }
}

impl Held {
    fn forget_if_empty(&mut self, lane: LaneId) {
        if self.lanes.get(&lane).is_some_and(|of| of.traces.is_empty()) {
            self.lanes.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests;
