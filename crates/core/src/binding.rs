//! Which spans belong to which route, from the start of a local root to its last descendant.
//!
//! A trace id that this process made belongs to one segment, found by the trace id alone: nothing
//! is kept per span. A trace id that came from outside proves nothing, so segments of such traces
//! remember their spans one by one and a descendant is found through its parent.

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

#[derive(Debug, Default)]
struct Trace {
    /// The segment of a trace id made here; takes every local span that no other segment knows.
    own: Option<Segment>,
    /// Segments of local roots whose trace id came from outside.
    foreign: Option<Box<Foreign>>,
}

#[derive(Debug, Default)]
struct Foreign {
    segments: Vec<(u32, Segment)>,
    next_key: u32,
    /// Which segment each span belongs to, ended ones included while the segment is bound.
    spans: HashMap<u64, u32, IdHash>,
}

#[derive(Debug)]
struct Segment {
    route: RouteId,
    open: u32,
    started: u32,
    /// Counts the times the segment began to linger, so that a stale entry in the queue is known.
    lingered: u32,
}

#[derive(Debug)]
struct Lingering {
    trace: u128,
    /// `None` for the own segment.
    key: Option<u32>,
    lingered: u32,
    since: u32,
}

impl Segment {
    fn new(route: RouteId, epoch: u32) -> Self {
        Self {
            route,
            open: 1,
            started: epoch,
            lingered: 0,
        }
    }
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
        if own_id && entry.own.is_none() {
            entry.own = Some(Segment::new(route, epoch));
            return;
        }
        entry
            .foreign
            .get_or_insert_default()
            .join(span, route, epoch);
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
            let segment = foreign.segment(key)?;
            segment.open += 1;
            let route = segment.route;
            foreign.spans.insert(span, key);
            return Some(route);
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
        let (foreign_key, segment) = match &mut entry.foreign {
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
            if self.linger {
                segment.lingered = segment.lingered.wrapping_add(1);
                let lingering = Lingering {
                    trace,
                    key: foreign_key,
                    lingered: segment.lingered,
                    since: epoch,
                };
                shard.lingering.push_back(lingering);
                if shard.lingering.len() > LINGERING_PER_SHARD {
                    shard.drop_oldest();
                }
            } else {
                let lingered = segment.lingered;
                shard.remove(trace, foreign_key, lingered);
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
            while shard
                .lingering
                .front()
                .is_some_and(|l| now.wrapping_sub(l.since) > linger)
            {
                shard.drop_oldest();
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
                    .flat_map(|f| f.segments.iter().map(|(_, s)| s));
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

impl Foreign {
    fn segment(&mut self, key: u32) -> Option<&mut Segment> {
        self.segments
            .iter_mut()
            .find(|(k, _)| *k == key)
            .map(|(_, s)| s)
    }

    /// Adds a root: to the segment that goes the same way, or as a new one.
    fn join(&mut self, span: u64, route: RouteId, epoch: u32) {
        let key = match self.segments.iter_mut().find(|(_, s)| s.route == route) {
            Some((key, segment)) => {
                segment.open += 1;
                *key
            }
            None => {
                let key = self.next_key;
                self.next_key = self.next_key.wrapping_add(1);
                self.segments.push((key, Segment::new(route, epoch)));
                key
            }
        };
        self.spans.insert(span, key);
    }

    fn remove(&mut self, key: u32) {
        self.segments.retain(|(k, _)| *k != key);
        self.spans.retain(|_, k| *k != key);
    }
}

impl Shard {
    fn drop_oldest(&mut self) {
        if let Some(l) = self.lingering.pop_front() {
            self.remove(l.trace, l.key, l.lingered);
        }
    }

    /// Removes a segment that has lingered since its `lingered`-th time without being used.
    fn remove(&mut self, trace: u128, key: Option<u32>, lingered: u32) {
        let Some(entry) = self.traces.get_mut(&trace) else {
            return;
        };
        let over = |s: &Segment| s.open == 0 && s.lingered == lingered;
        match key {
            None => {
                if entry.own.as_ref().is_some_and(over) {
                    entry.own = None;
                }
            }
            Some(key) => {
                if let Some(foreign) = &mut entry.foreign {
                    if foreign.segment(key).is_some_and(|s| over(s)) {
                        foreign.remove(key);
                    }
                    if foreign.segments.is_empty() {
                        entry.foreign = None;
                    }
                }
            }
        }
        if entry.own.is_none() && entry.foreign.is_none() {
            self.traces.remove(&trace);
        }
    }

    fn expire(&mut self, now: u32, max_age: u32) -> u64 {
        let mut expired = 0;
        let old = |s: &Segment| s.open > 0 && now.wrapping_sub(s.started) > max_age;
        self.traces.retain(|_, trace| {
            if trace.own.as_ref().is_some_and(old) {
                trace.own = None;
                expired += 1;
            }
            if let Some(foreign) = &mut trace.foreign {
                let keys: Vec<u32> = foreign
                    .segments
                    .iter()
                    .filter(|(_, s)| old(s))
                    .map(|(k, _)| *k)
                    .collect();
                for key in keys {
                    foreign.remove(key);
                    expired += 1;
                }
                if foreign.segments.is_empty() {
                    trace.foreign = None;
                }
            }
            trace.own.is_some() || trace.foreign.is_some()
        });
        self.ignored
            .retain(|_, since| now.wrapping_sub(*since) <= max_age);
        expired
    }
}

fn key(trace: TraceId) -> u128 {
    u128::from_be_bytes(trace.to_bytes())
}
