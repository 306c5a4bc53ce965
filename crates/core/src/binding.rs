//! Which spans belong to which route, from the start of a local root to its last descendant.
//!
//! A trace id that this process made belongs to one segment, found by the trace id alone: nothing
//! is kept per span. A trace id that came from outside proves nothing, so each local root that has
//! one gets a segment that remembers its spans one by one, and a descendant is found through its
//! parent.

mod hot;
mod lingering;
mod segments;

use hot::{Free, Hot};
use lingering::Lingering;
use segments::{Segment, Trace};

use crate::sync::{AtomicUsize, Mutex, Ordering, lock};
use crossbeam_utils::CachePadded;
use opentelemetry::trace::{SpanId, TraceId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
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

/// Shards of the table: enough that threads rarely meet, so that looking through one is quick.
pub(crate) const SHARDS: usize = 64;

/// How many traces linger in one shard at most; beyond it the oldest go first. Traces with segments
/// of foreign ids are counted by segments, up to twice as many.
const LINGERING_PER_SHARD: usize = 128;

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
    hot: Hot,
}

#[derive(Debug, Default)]
struct Shard {
    /// Traces with open spans, and those with segments of foreign ids until these are over.
    traces: HashMap<u128, Trace, IdHash>,
    /// Traces that have an own segment only and no open span. No trace is in both.
    ended: Lingering,
    /// Segments in `traces` without open spans.
    lingering: usize,
    /// Counts the times a segment began to linger: which of two did so first.
    lingered: u32,
    /// Memory for finding the oldest.
    scratch: Vec<u32>,
    /// Spans that started but are not ours (suppressed, orphaned): their end must not count.
    ignored: HashMap<(u128, u64), u32, IdHash>,
    /// Slots of `Bindings::hot`.
    free: Free,
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
        let shards = shards.next_power_of_two();
        Self {
            hot: Hot::new(shards),
            shards: (0..shards)
                .map(|_| CachePadded::new(Mutex::new(Shard::default())))
                .collect(),
            epoch: AtomicUsize::new(0),
            linger,
            hasher: IdHash::default(),
        }
    }

    fn shard(&self, trace: u128) -> &Mutex<Shard> {
        &self.shards[self.shard_index(trace)]
    }

    fn shard_index(&self, trace: u128) -> usize {
        self.hasher.hash_one(trace) as usize & (self.shards.len() - 1)
    }

    fn now(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed) as u32
    }

    /// Binds a local root. `own_id` says that its trace id was made for it, here and now.
    pub(crate) fn start_root(&self, trace: TraceId, span: SpanId, own_id: bool, route: RouteId) {
        let (trace, span) = (key(trace), u64::from_be_bytes(span.to_bytes()));
        let epoch = self.now();
        let mut shard = lock(self.shard(trace));
        let shard = &mut *shard;
        shard.revive(trace);
        let entry = shard.traces.entry(trace).or_default();
        match &mut entry.own {
            None if own_id => entry.own = Some(Segment::new(route, epoch)),
            // An id that came back to the place where its trace goes anyway.
            Some(own) if own.route == route => match own.slot {
                Some(slot) => self.hot.add(slot),
                None => own.open_span(&mut shard.lingering),
            },
            own => {
                if let Some(own) = own {
                    // From now on it takes a span's parent to tell whose it is.
                    own.cool(&self.hot, &mut shard.free);
                }
                let foreign = entry.foreign.get_or_insert_default();
                foreign.add(span, route, epoch);
            }
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
        if let Some(route) = self.hot.start(trace) {
            return Some(route);
        }
        let span = u64::from_be_bytes(span.to_bytes());
        let parent = u64::from_be_bytes(parent.to_bytes());
        let index = self.shard_index(trace);
        let mut shard = lock(&self.shards[index]);
        let shard = &mut *shard;
        let entry = match shard.traces.get_mut(&trace) {
            Some(entry) => entry,
            None => {
                shard.revive(trace);
                shard.traces.get_mut(&trace)?
            }
        };
        if let Some(foreign) = &mut entry.foreign
            && let Some(&key) = foreign.spans.get(&parent)
        {
            let found = foreign.segments.get_mut(&key)?;
            found.segment.open_span(&mut shard.lingering);
            found.spans.push(span);
            foreign.spans.insert(span, key);
            return Some(found.segment.route);
        }
        let own = entry.own.as_mut()?;
        match own.slot {
            Some(slot) => self.hot.add(slot),
            None => {
                own.open_span(&mut shard.lingering);
                if entry.foreign.is_none() && shard.ignored.is_empty() {
                    own.warm(&self.hot, index, &mut shard.free);
                }
            }
        }
        if let Some(slot) = own.slot {
            self.hot.remember(trace, slot, own.route);
        }
        Some(own.route)
    }

    /// Remembers that a span which started is none of ours.
    pub(crate) fn ignore(&self, trace: TraceId, span: SpanId) {
        let trace = key(trace);
        let epoch = self.now();
        let mut shard = lock(self.shard(trace));
        let shard = &mut *shard;
        let span = u64::from_be_bytes(span.to_bytes());
        shard.ignored.insert((trace, span), epoch);
        if let Some(own) = shard.traces.get_mut(&trace).and_then(|t| t.own.as_mut()) {
            // Ends of its spans have to look whether they are ignored.
            own.cool(&self.hot, &mut shard.free);
        }
    }

    /// The route of a span that ends; `None` if it is none of ours or its binding is gone.
    pub(crate) fn end(&self, trace: TraceId, span: SpanId) -> Ended {
        let trace = key(trace);
        if let Some(route) = self.hot.end(trace) {
            return Ended::Bound(route);
        }
        let span = u64::from_be_bytes(span.to_bytes());
        let epoch = self.now();
        let mut shard = lock(self.shard(trace));
        let shard = &mut *shard;
        if !shard.ignored.is_empty() && shard.ignored.remove(&(trace, span)).is_some() {
            return Ended::Ignored;
        }
        let Entry::Occupied(mut found) = shard.traces.entry(trace) else {
            // An end without a start, as below.
            let own = shard.ended.get(trace);
            return own.map_or(Ended::Unbound, |own| Ended::Bound(own.route));
        };
        let entry = found.get_mut();
        let beside_foreign = entry.foreign.is_some();
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
        if let Some(slot) = segment.slot {
            if self.hot.subtract(slot) {
                self.hot.remember(trace, slot, route);
                return Ended::Bound(route);
            }
            segment.cool(&self.hot, &mut shard.free);
        }
        match segment.open {
            // An end without a start (a span that outlived an expired binding of a reused id) must
            // not take somebody else's count below zero.
            0 => {}
            1 if beside_foreign => {
                segment.end(epoch);
                shard.linger(trace, key, self.linger);
            }
            1 => {
                if let Some(mut own) = found.remove().own
                    && self.linger
                {
                    own.end(epoch);
                    shard.ended.push(trace, own, LINGERING_PER_SHARD);
                }
            }
            _ => segment.open -= 1,
        }
        Ended::Bound(route)
    }

    /// The route of a span that is open or lingers.
    pub(crate) fn route_of(&self, trace: TraceId, span: SpanId) -> Option<RouteId> {
        let trace = key(trace);
        let mut shard = lock(self.shard(trace));
        let shard = &mut *shard;
        let Some(entry) = shard.traces.get_mut(&trace) else {
            return shard.ended.get(trace).map(|own| own.route);
        };
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
            let over = |s: &Segment| now.wrapping_sub(s.idle_since) > linger;
            shard.ended.pop_while(over);
            if shard.lingering > 0 {
                shard.retain(|s| s.open > 0 || !over(s));
            }
            if check_age {
                shard.cool(&self.hot);
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
                for segment in trace.segments() {
                    let spans = segment.open_spans(&self.hot);
                    if spans > 0 {
                        *open.entry(segment.route.0).or_default() += u64::from(spans);
                    }
                }
            }
        }
        open
    }

    /// Routes that a trace is bound to, lingering ones included.
    pub(crate) fn routes(&self) -> HashSet<RouteId> {
        let mut routes = HashSet::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let open = shard.traces.values().flat_map(Trace::segments);
            routes.extend(open.chain(shard.ended.segments()).map(|s| s.route));
        }
        routes
    }

    /// Traces that are bound, lingering ones included.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = lock(shard);
                shard.traces.len() + shard.ended.len()
            })
            .sum()
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
    /// Puts a trace that has ended back among the open ones, if it is there.
    fn revive(&mut self, trace: u128) {
        if let Some(own) = self.ended.take(trace) {
            self.lingering += 1;
            self.traces.entry(trace).or_default().own = Some(own);
        }
    }

    /// A segment of a trace with foreign ones has no open span any more.
    fn linger(&mut self, trace: u128, key: Option<u32>, linger: bool) {
        self.lingering += 1;
        if !linger {
            return self.remove(trace, key);
        }
        self.lingered = self.lingered.wrapping_add(1);
        let lingered = self.lingered;
        if let Some(segment) = self.traces.get_mut(&trace).and_then(|t| t.segment(key)) {
            segment.lingered = lingered;
        }
        if self.lingering > self.room() {
            self.make_room();
        }
    }

    fn remove(&mut self, trace: u128, key: Option<u32>) {
        self.lingering = self.lingering.saturating_sub(1);
        if self.traces.get_mut(&trace).is_some_and(|t| t.remove(key)) {
            self.traces.remove(&trace);
        }
    }

    /// How many segments may linger before the oldest go. More where many are open, so that
    /// looking through those is worth it.
    fn room(&self) -> usize {
        LINGERING_PER_SHARD + LINGERING_PER_SHARD.max(self.traces.len() / 4)
    }

    /// Removes the segments that have lingered longest, so that the usual number stays.
    #[cold]
    fn make_room(&mut self) {
        let now = self.lingered;
        let mut ages = std::mem::take(&mut self.scratch);
        ages.clear();
        ages.extend(
            self.traces
                .values()
                .flat_map(Trace::segments)
                .filter(|s| s.open == 0)
                .map(|s| now.wrapping_sub(s.lingered)),
        );
        if ages.len() > LINGERING_PER_SHARD {
            let (_, first_to_go, _) = ages.select_nth_unstable(LINGERING_PER_SHARD);
            let first_to_go = *first_to_go;
            self.retain(|s| s.open > 0 || now.wrapping_sub(s.lingered) < first_to_go);
        }
        ages.shrink_to(4 * LINGERING_PER_SHARD);
        self.scratch = ages;
    }

    /// Keeps the segments that `keep` says, and counts anew those that linger.
    fn retain(&mut self, keep: impl Fn(&Segment) -> bool) {
        let mut lingering = 0;
        self.traces.retain(|_, trace| {
            let stays = trace.retain(&keep);
            lingering += trace.segments().filter(|s| s.open == 0).count();
            stays
        });
        self.lingering = lingering;
        // What a burst left behind would be looked through each time.
        let needed = self.traces.len().max(2 * LINGERING_PER_SHARD);
        if self.traces.capacity() > 8 * needed {
            self.traces.shrink_to(2 * needed);
        }
    }

    /// Takes all slots back.
    fn cool(&mut self, hot: &Hot) {
        for own in self.traces.values_mut().filter_map(|t| t.own.as_mut()) {
            own.cool(hot, &mut self.free);
        }
    }

    fn expire(&mut self, now: u32, max_age: u32) -> u64 {
        let expired = self
            .traces
            .values()
            .flat_map(Trace::segments)
            .filter(|s| s.open > 0 && s.is_older(now, max_age))
            .count();
        self.ended.retain(|s| !s.is_older(now, max_age));
        self.retain(|s| !s.is_older(now, max_age));
        self.ignored
            .retain(|_, since| now.wrapping_sub(*since) <= max_age);
        expired as u64
    }
}

fn key(trace: TraceId) -> u128 {
    u128::from_be_bytes(trace.to_bytes())
}

#[cfg(all(test, trace_destination_loom))]
mod loom_tests;
#[cfg(all(test, not(trace_destination_loom)))]
mod model;
#[cfg(all(test, not(trace_destination_loom)))]
mod tests;
