//! Which spans belong to which route, from the start of a local root to its last descendant.
//!
//! A trace id that this process made belongs to one segment, found by the trace id alone: nothing
//! is kept per span. A trace id that came from outside proves nothing, so each local root that has
//! one gets a segment that remembers its spans one by one, and a descendant is found through its
//! parent.

mod segments;

use segments::{Segment, Trace};

use crate::sync::{AtomicUsize, Mutex, Ordering, lock};
use crossbeam_utils::CachePadded;
use opentelemetry::trace::{SpanId, TraceId};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

/// Index of a route in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteId(pub(crate) u32);

impl RouteId {
    /// No level named a destination.
    pub(crate) const UNROUTED: Self = Self(0);
    /// The destination is [`Destination::discard`](crate::Destination::discard).
    pub(crate) const DISCARD: Self = Self(1);
    /// The first route that leads anywhere.
    pub(crate) const FIRST: u32 = 2;
}

/// How many traces linger in one shard at most; beyond it the oldest go first, so that the table
/// stays small at any rate of traces.
const LINGERING_PER_SHARD: usize = 1024;

/// How often the bindings are swept per linger time. A binding lingers at least that many sweeps,
/// and one more because the first may come right after the end.
pub(crate) const SWEEPS_PER_LINGER: u32 = 4;

/// All bindings of one pipeline.
#[derive(Debug)]
pub(crate) struct Bindings {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Sweeps so far: the clock of lingering and age.
    epoch: AtomicUsize,
    linger: bool,
    hasher: IdHash,
}

#[derive(Debug, Default)]
struct Shard {
    traces: HashMap<u128, Trace, IdHash>,
    lingering: VecDeque<Lingering>,
    /// Spans that started but are not ours (suppressed, orphaned): their end must not count.
    ignored: HashMap<(u128, u64), u32, IdHash>,
}

#[derive(Debug)]
struct Lingering {
    trace: u128,
    /// `None` for the own segment.
    key: Option<u32>,
    since: u32,
}

/// Trace and span ids are random already; a foreign one may be chosen by an adversary, so they are
/// mixed with a seed of this process.
type IdHash = foldhash::fast::RandomState;

/// What a sweep found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Swept {
    /// Bindings that expired with spans still open.
    pub(crate) expired: u64,
}

impl Bindings {
    pub(crate) fn new(shards: usize, linger: bool) -> Self {
        Self {
            shards: (0..shards.next_power_of_two())
                .map(|_| CachePadded::new(Mutex::new(Shard::default())))
                .collect(),
            epoch: AtomicUsize::new(0),
            linger,
            hasher: IdHash::default(),
        }
    }

    fn shard(&self, trace: u128) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(trace) as usize & (self.shards.len() - 1)]
    }

    fn now(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed) as u32
    }

    /// Binds a local root. `own_id` says that its trace id was made for it, here and now.
    pub(crate) fn start_root(&self, trace: TraceId, span: SpanId, own_id: bool, route: RouteId) {
        let (trace, span) = (key(trace), u64::from_be_bytes(span.to_bytes()));
        let epoch = self.now();
        let mut shard = lock(self.shard(trace));
        let entry = shard.traces.entry(trace).or_default();
        match &mut entry.own {
            None if own_id => entry.own = Some(Segment::new(route, epoch)),
            // An id that came back to the place where its trace goes anyway.
            Some(own) if own.route == route => own.open += 1,
            _ => entry
                .foreign
                .get_or_insert_default()
                .add(span, route, epoch),
        }
    }

    /// Binds a local child to its parent's segment; `None` if the parent has none any more.
    pub(crate) fn start_child(
        &self,
        trace: TraceId,
        span: SpanId,
        parent: SpanId,
    ) -> Option<RouteId> {
        let trace = key(trace);
        let span = u64::from_be_bytes(span.to_bytes());
        let parent = u64::from_be_bytes(parent.to_bytes());
        let mut shard = lock(self.shard(trace));
        let entry = shard.traces.get_mut(&trace)?;
        if let Some(foreign) = &mut entry.foreign
            && let Some(&key) = foreign.spans.get(&parent)
        {
            let found = foreign.segments.get_mut(&key)?;
            found.segment.open += 1;
            found.spans.push(span);
            foreign.spans.insert(span, key);
            return Some(found.segment.route);
        }
        let own = entry.own.as_mut()?;
        own.open += 1;
        Some(own.route)
    }

    /// Remembers that a span which started is none of ours.
    pub(crate) fn ignore(&self, trace: TraceId, span: SpanId) {
        let trace = key(trace);
        let epoch = self.now();
        lock(self.shard(trace))
            .ignored
            .insert((trace, u64::from_be_bytes(span.to_bytes())), epoch);
    }

    /// The route of a span that ends; `None` if it is none of ours or its binding is gone.
    pub(crate) fn end(&self, trace: TraceId, span: SpanId) -> Ended {
        let trace = key(trace);
        let span = u64::from_be_bytes(span.to_bytes());
        let epoch = self.now();
        let mut shard = lock(self.shard(trace));
        let shard = &mut *shard;
        if !shard.ignored.is_empty() && shard.ignored.remove(&(trace, span)).is_some() {
            return Ended::Ignored;
        }
        let Some(entry) = shard.traces.get_mut(&trace) else {
            return Ended::Unbound;
        };
        let (key, segment) = match &mut entry.foreign {
            Some(foreign) => match foreign.spans.get(&span).copied() {
                Some(key) => (Some(key), foreign.segment(key)),
                None => (None, entry.own.as_mut()),
            },
            None => (None, entry.own.as_mut()),
        };
        let Some(segment) = segment else {
            return Ended::Unbound;
        };
        let route = segment.route;
        // An end without a start (a span that outlived an expired binding of a reused id) must not
        // take somebody else's count below zero.
        segment.open = segment.open.saturating_sub(1);
        if segment.open == 0 {
            segment.idle_since = epoch;
            if !self.linger {
                shard.remove(trace, key);
            } else if !std::mem::replace(&mut segment.queued, true) {
                shard.lingering.push_back(Lingering {
                    trace,
                    key,
                    since: epoch,
                });
                if shard.lingering.len() > LINGERING_PER_SHARD {
                    shard.make_room();
                }
            }
        }
        Ended::Bound(route)
    }

    /// The route of a span that is open or lingers.
    pub(crate) fn route_of(&self, trace: TraceId, span: SpanId) -> Option<RouteId> {
        let trace = key(trace);
        let mut shard = lock(self.shard(trace));
        let entry = shard.traces.get_mut(&trace)?;
        if let Some(foreign) = &mut entry.foreign
            && let Some(&key) = foreign.spans.get(&u64::from_be_bytes(span.to_bytes()))
        {
            return foreign.segment(key).map(|s| s.route);
        }
        entry.own.as_ref().map(|s| s.route)
    }

    /// Ends what has lingered for more than `linger` sweeps and, if asked to, what is older than
    /// `max_age` sweeps.
    pub(crate) fn sweep(&self, linger: u32, max_age: u32, check_age: bool) -> Swept {
        let now = (self.epoch.fetch_add(1, Ordering::Relaxed) + 1) as u32;
        let mut swept = Swept::default();
        for shard in &self.shards {
            let mut shard = lock(shard);
            while let Some(front) = shard.lingering.front()
                && now.wrapping_sub(front.since) > linger
            {
                shard.settle_oldest(|idle_since| now.wrapping_sub(idle_since) > linger);
            }
            if check_age {
                swept.expired += shard.expire(now, max_age);
            }
        }
        swept
    }

    /// Spans still open, by route.
    pub(crate) fn open_spans(&self) -> HashMap<u32, u64> {
        let mut open = HashMap::new();
        for shard in &self.shards {
            for trace in lock(shard).traces.values() {
                let foreign = trace
                    .foreign
                    .iter()
                    .flat_map(|f| f.segments.values().map(|s| &s.segment));
                for segment in trace.own.iter().chain(foreign) {
                    if segment.open > 0 {
                        *open.entry(segment.route.0).or_default() += u64::from(segment.open);
                    }
                }
            }
        }
        open
    }

    /// Traces that are bound, lingering ones included.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|s| lock(s).traces.len()).sum()
    }
}

/// What the table knows of a span that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It follows this route.
    Bound(RouteId),
    /// It started as none of ours.
    Ignored,
    /// Its binding is gone.
    Unbound,
}

impl Shard {
    fn remove(&mut self, trace: u128, key: Option<u32>) {
        if self.traces.get_mut(&trace).is_some_and(|t| t.remove(key)) {
            self.traces.remove(&trace);
        }
    }

    /// Takes the oldest entry out of the queue and removes its segment, unless that was used again
    /// in the meantime and is not `over` yet.
    fn settle_oldest(&mut self, over: impl FnOnce(u32) -> bool) {
        let Some(oldest) = self.lingering.pop_front() else {
            return;
        };
        let segment = self
            .traces
            .get_mut(&oldest.trace)
            .and_then(|t| t.segment(oldest.key));
        match segment {
            None => {}
            Some(segment) if segment.open > 0 => segment.queued = false,
            Some(segment) if over(segment.idle_since) => self.remove(oldest.trace, oldest.key),
            Some(segment) => {
                let since = segment.idle_since;
                self.lingering.push_back(Lingering { since, ..oldest });
            }
        }
    }

    /// Brings the queue back to its limit. Each entry is put back once at most.
    fn make_room(&mut self) {
        while self.lingering.len() > LINGERING_PER_SHARD {
            let since = self.lingering.front().map(|l| l.since);
            self.settle_oldest(|idle_since| Some(idle_since) == since);
        }
    }

    fn expire(&mut self, now: u32, max_age: u32) -> u64 {
        let mut expired = 0;
        self.traces.retain(|_, trace| {
            let foreign = trace.foreign.iter().flat_map(|f| &f.segments);
            let old: Vec<(Option<u32>, u32)> = foreign
                .map(|(key, s)| (Some(*key), &s.segment))
                .chain(trace.own.iter().map(|s| (None, s)))
                .filter(|(_, s)| s.is_older(now, max_age))
                .map(|(key, s)| (key, s.open))
                .collect();
            let mut gone = false;
            for (key, open) in old {
                expired += u64::from(open > 0);
                gone = trace.remove(key);
            }
            !gone
        });
        self.ignored
            .retain(|_, since| now.wrapping_sub(*since) <= max_age);
        expired
    }
}

fn key(trace: TraceId) -> u128 {
    u128::from_be_bytes(trace.to_bytes())
}

#[cfg(test)]
mod tests;
