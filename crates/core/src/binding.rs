//! Which spans belong to which route, from the start of a local root to its last descendant.
//!
//! A trace id proves nothing: it travels with every request that leaves the process. A span belongs
//! to a segment because its parent does, and a span may set values of its trace because it was bound
//! here itself. So the open spans of every segment are kept one by one, and of those that have ended
//! a bounded number.
//!
//! An id that this process made has one own segment. Its late children may have a parent that is
//! forgotten: they follow it all the same, unless their context names another destination or the
//! parent may be somebody else's, and get no right to set values. An id that came from outside has a
//! segment per local root.

mod hot;
mod late;
mod lingering;
mod own;
mod segments;
mod shard;
mod spans;
mod undecided;

use late::is_crowded;
pub(crate) use late::{Beside, Decision, Follows, InScope, Meaning, Started, Which};
pub(crate) use undecided::{Fate, Held, Room, Undecided};

use hot::{Hot, Left};
use own::Own;
use segments::{Segment, Trace};
use shard::Shard;

use crate::process::Process;
use crate::route_id::RouteId;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock_in};
use crossbeam_utils::CachePadded;
use opentelemetry::trace::{SpanId, TraceId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

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
    /// In a child of this process, a shard that a thread of the parent holds is passed over.
    process: Process,
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
            process: Process::current(),
        }
    }

    fn shard(&self, trace: u128) -> Option<MutexGuard<'_, Shard>> {
        self.lock(self.shard_index(trace))
    }

    /// `None` in a forked child, where a thread of the parent may hold the lock for ever.
    #[inline]
    fn lock(&self, index: usize) -> Option<MutexGuard<'_, Shard>> {
        lock_in(self.process, &self.shards[index])
    }

    /// Every shard, locked one after the other.
    fn each_shard(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..self.shards.len()).filter_map(|index| self.lock(index))
    }

    fn shard_index(&self, trace: u128) -> usize {
        self.hasher.hash_one(trace) as usize & (self.shards.len() - 1)
    }

    fn now(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed) as u32
    }

    /// Binds a local root. `own_id` is true if its trace id was made for it, here and now. Where the
    /// id is another one's, made here and bound to another route, `beside` is given that route and
    /// returns the one to bind to instead.
    pub(crate) fn start_root<B: Into<Beside>>(
        &self,
        trace: TraceId,
        span: SpanId,
        own_id: bool,
        route: RouteId,
        beside: impl FnOnce(RouteId) -> B,
    ) {
        let (trace, span) = (key(trace), span_key(span));
        let epoch = self.now();
        let index = self.shard_index(trace);
        let Some(mut shard) = self.lock(index) else {
            return;
        };
        let shard = &mut *shard;
        shard.revive(trace);
        let entry = match shard.traces.entry(trace) {
            Entry::Vacant(place) if own_id => {
                place.insert(Trace::own(Own::new(route, span, epoch)));
                return;
            }
            entry => entry.or_default(),
        };
        let mut waits = None;
        let intended = route;
        let route = match &mut entry.own {
            None if own_id => {
                entry.own = Some(Own::new(route, span, epoch));
                return;
            }
            // An id that came back to the place where its trace goes anyway.
            Some(own) if own.segment.route.plain() == route.plain() => {
                let mut around = shard.around.beside(&self.hot, index);
                return own.open_span(trace, span, true, &mut around);
            }
            Some(own) => match beside(own.segment.route.plain()).into() {
                Beside::Goes(route) => route,
                // Nobody is told of a decision any more.
                Beside::Waits(place) if place.is_closed() => RouteId::EXPIRED,
                Beside::Waits(place) => {
                    waits = Some(place);
                    RouteId::UNDECIDED
                }
            },
            None => route,
        };
        let foreign = entry.foreign.get_or_insert_default();
        let segment = foreign.add(trace, span, route, epoch, &mut shard.foreign);
        shard.foreign_segments += 1;
        if let Some(place) = waits {
            shard.wait(trace, segment, place, epoch, intended);
        }
    }

    /// Binds a local child to its parent's segment; `None` if the parent is in none any more, or is
    /// not remembered. A late route stands for a segment that was not decided when its root started:
    /// then nothing is bound yet, see [`Bindings::start_in_late`].
    #[inline]
    pub(crate) fn start_child(
        &self,
        trace: TraceId,
        span: SpanId,
        parent: SpanId,
    ) -> Option<RouteId> {
        let (trace, span, parent) = (key(trace), span_key(span), span_key(parent));
        if let Some(route) = self.hot.start(trace, span, parent) {
            return Some(route);
        }
        self.start_child_in_table(trace, span, parent)
    }

    #[inline(never)]
    fn start_child_in_table(&self, trace: u128, span: u64, parent: u64) -> Option<RouteId> {
        let index = self.shard_index(trace);
        let mut shard = self.lock(index)?;
        let shard = &mut *shard;
        let entry = match shard.traces.get_mut(&trace) {
            Some(entry) => entry,
            None => {
                shard.revive(trace);
                shard.traces.get_mut(&trace)?
            }
        };
        if let Some(foreign) = &mut entry.foreign
            && let Some(parent) = shard.foreign.get((trace, parent))
        {
            let (key, lingering) = (parent.key, &mut shard.around.lingering);
            if foreign.segment(key)?.route.is_late() {
                return Some(RouteId::UNDECIDED);
            }
            return foreign.start_child(trace, span, key, &mut shard.foreign, lingering);
        }
        let own = entry.own.as_mut()?;
        let mut around = shard.around.beside(&self.hot, index);
        let proven = own.knows(trace, parent, &around)?;
        if own.segment.route.is_late() {
            return Some(RouteId::UNDECIDED);
        }
        own.open_span(trace, span, proven, &mut around);
        if let Some(slot) = own.slot {
            self.hot.remember(trace, slot, own.segment.route);
        }
        Some(own.segment.route)
    }

    /// Binds a child whose parent is not remembered to the own segment of its trace, if there is one
    /// and no reason to doubt it: the context that it shares with its parent must not have another
    /// destination, `beside_parent`. It may set values if `local`, the destination of a root in its
    /// place, is that of the trace. `None` if the child has to look after itself.
    pub(crate) fn start_late(
        &self,
        trace: TraceId,
        span: SpanId,
        parent: SpanId,
        beside_parent: Option<RouteId>,
        local: Option<RouteId>,
    ) -> Option<RouteId> {
        let (trace, span, parent) = (key(trace), span_key(span), span_key(parent));
        let index = self.shard_index(trace);
        let mut shard = self.lock(index)?;
        let shard = &mut *shard;
        let entry = match shard.traces.get_mut(&trace) {
            Some(entry) => entry,
            None => {
                shard.revive(trace);
                shard.traces.get_mut(&trace)?
            }
        };
        if let Some(foreign) = &entry.foreign
            && (foreign.forgot || shard.foreign.get((trace, parent)).is_some())
        {
            return None;
        }
        let own = entry.own.as_mut()?;
        let route = own.segment.route.plain();
        if beside_parent.is_some_and(|other| other != route) {
            return None;
        }
        let mut around = shard.around.beside(&self.hot, index);
        own.open_span(trace, span, local == Some(route), &mut around);
        Some(route)
    }

    /// Remembers that a span which started is none of ours.
    pub(crate) fn ignore(&self, trace: TraceId, span: SpanId) {
        let trace = key(trace);
        let epoch = self.now();
        if let Some(mut shard) = self.shard(trace) {
            shard.ignored.insert((trace, span_key(span)), epoch);
        }
    }

    /// The route of a span that ends; `None` if it is none of ours or its binding is gone.
    #[inline]
    pub(crate) fn end(&self, trace: TraceId, span: SpanId) -> Ended {
        let (trace, span) = (key(trace), span_key(span));
        match self.hot.end(trace, span) {
            Some(route) => Ended::Bound(route),
            None => self.end_in_table(trace, span),
        }
    }

    #[inline(never)]
    fn end_in_table(&self, trace: u128, span: u64) -> Ended {
        let index = self.shard_index(trace);
        let Some(mut shard) = self.lock(index) else {
            return Ended::Unbound;
        };
        let ended = self.end_in_shard(&mut shard, index, trace, span);
        if !shard.gone.is_empty() {
            let gone = std::mem::take(&mut shard.gone);
            drop(shard);
            drop(gone);
        }
        ended
    }

    fn end_in_shard(&self, shard: &mut Shard, index: usize, trace: u128, span: u64) -> Ended {
        let epoch = self.now();
        if let Entry::Occupied(mut found) = shard.traces.entry(trace) {
            let entry = found.get_mut();
            let mut around = shard.around.beside(&self.hot, index);
            if let Some(own) = &mut entry.own
                && let Some(left) = own.end_span(trace, span, &mut around)
            {
                let route = own.segment.route;
                let open = route
                    .is_undecided()
                    .then(|| shard.undecided.get(&(trace, None)));
                let open = open.flatten().map(|open| open.place.clone());
                match (left, own.slot) {
                    (Left::Open, Some(slot)) => self.hot.remember(trace, slot, route),
                    (Left::Open, None) => {}
                    (Left::Over, _) => {
                        own.segment.idle_since = epoch;
                        if entry.foreign.is_some() || open.is_some() {
                            let linger = self.linger && !is_crowded(open.as_deref());
                            shard.linger(trace, None, linger);
                        } else {
                            if self.linger {
                                shard.ended.push(trace, own, LINGERING_PER_SHARD);
                            }
                            found.remove();
                        }
                    }
                }
                return Ended::of(route, open);
            }
            if let Some(foreign) = &mut entry.foreign
                && let Some(there) = shard.foreign.get_mut((trace, span))
                && there.open > 0
                && let Some(segment) = foreign.segment(there.key)
            {
                let (route, key) = (segment.route, there.key);
                there.open -= 1;
                segment.open = segment.open.saturating_sub(1);
                let over = segment.open == 0;
                if over {
                    segment.idle_since = epoch;
                }
                if there.open == 0 {
                    foreign.note_ended(trace, span, key, &mut shard.foreign);
                }
                let open = route
                    .is_undecided()
                    .then(|| shard.undecided.get(&(trace, Some(key))));
                let open = open.flatten().map(|open| open.place.clone());
                if over {
                    let linger = self.linger && !is_crowded(open.as_deref());
                    shard.linger(trace, Some(key), linger);
                }
                return Ended::of(route, open);
            }
        }
        match shard.ignored.remove((trace, span)) {
            Some(_) => Ended::Ignored,
            None => Ended::Unbound,
        }
    }

    /// The route of a span that is open and was bound here, so that its code may set values of the
    /// trace.
    pub(crate) fn route_of(&self, trace: TraceId, span: SpanId) -> Option<RouteId> {
        let (trace, span) = (key(trace), span_key(span));
        let mut shard = self.shard(trace)?;
        let (_, route) = self.find_open(&mut shard, trace, span)?;
        Some(route.plain())
    }

    /// The route of a trace whose id was made here, open or lingering.
    pub(crate) fn own_route(&self, trace: TraceId) -> Option<RouteId> {
        let trace = key(trace);
        let shard = self.shard(trace)?;
        let own = shard.traces.get(&trace).and_then(|t| t.own.as_ref());
        match own {
            Some(own) => Some(own.segment.route.plain()),
            None => shard.ended.get(trace).map(|own| own.route.plain()),
        }
    }

    /// Whether a span is open that other spans of the trace wait for: its root, where the id was made
    /// here, else any span of a segment. Only segments whose route `leads` to a place in question
    /// count.
    pub(crate) fn awaits_root(&self, trace: TraceId, leads: impl Fn(RouteId) -> bool) -> bool {
        let trace = key(trace);
        let Some(shard) = self.shard(trace) else {
            return false;
        };
        let Some(entry) = shard.traces.get(&trace) else {
            return false;
        };
        let own = entry.own.as_ref().is_some_and(|own| {
            own.is_root_open(trace, &self.hot, &shard.around.held)
                && leads(own.segment.route.plain())
        });
        let foreign = entry.foreign.iter().flat_map(|f| f.segments.values());
        let open = |segment: &Segment| segment.open > 0 && leads(segment.route.plain());
        own || foreign.map(|f| &f.segment).any(open)
    }

    /// Ends what has lingered for more than `linger` sweeps and, if asked to, what is older than
    /// `max_age` sweeps.
    pub(crate) fn sweep(&self, linger: u32, max_age: u32, check_age: bool) -> Swept {
        let now = (self.epoch.fetch_add(1, Ordering::Relaxed) + 1) as u32;
        let mut swept = Swept::default();
        for mut shard in self.each_shard() {
            let idle = |since: u32| now.wrapping_sub(since) > linger;
            shard.ended.pop_while(|own| idle(own.idle_since));
            if shard.around.lingering > 0 {
                shard.retain(&self.hot, |s| s.open > 0 || !idle(s.idle_since));
            }
            if check_age {
                swept.expired += shard.expire(&self.hot, now, max_age);
            }
            let gone = std::mem::take(&mut shard.gone);
            drop(shard);
            drop(gone);
        }
        swept
    }

    /// Spans still open, by route.
    pub(crate) fn open_spans(&self) -> HashMap<u32, u64> {
        let mut open = HashMap::new();
        for shard in self.each_shard() {
            for trace in shard.traces.values() {
                let own = trace.own.iter();
                let own = own.map(|own| (own.segment.route, own.open_spans(&self.hot)));
                let foreign = trace.foreign.iter().flat_map(|f| f.segments.values());
                let foreign = foreign.map(|f| (f.segment.route, f.segment.open));
                for (route, spans) in own.chain(foreign).filter(|(_, spans)| *spans > 0) {
                    *open.entry(route.plain().0).or_default() += u64::from(spans);
                }
            }
        }
        open
    }

    /// Routes that a trace is bound to, lingering ones included.
    pub(crate) fn routes(&self) -> HashSet<RouteId> {
        let mut routes = HashSet::new();
        for shard in self.each_shard() {
            let traces = shard.traces.values();
            routes.extend(traces.flat_map(|t| t.segments()).map(|s| s.route.plain()));
            routes.extend(shard.ended.iter().map(|own| own.route.plain()));
            routes.extend(shard.undecided.values().filter_map(|open| open.intended));
            routes.extend(shard.freed.iter().map(|(_, route, _)| *route));
        }
        routes
    }

    /// Traces that are bound, lingering ones included.
    pub(crate) fn len(&self) -> usize {
        self.each_shard()
            .map(|shard| shard.traces.len() + shard.ended.len())
            .sum()
    }
}

/// What the table knows of a span that ends.
#[derive(Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) enum Ended {
    /// It follows this route.
    Bound(RouteId),
    /// It waits here until its trace is decided.
    Undecided(Arc<Undecided>),
    /// It started as none of ours.
    Ignored,
    /// Its binding is gone.
    Unbound,
}

fn span_key(span: SpanId) -> u64 {
    u64::from_be_bytes(span.to_bytes())
}

fn key(trace: TraceId) -> u128 {
    u128::from_be_bytes(trace.to_bytes())
}

#[cfg(all(test, not(trace_destination_loom)))]
mod late_model;
#[cfg(all(test, trace_destination_loom))]
mod loom_tests;
#[cfg(all(test, not(trace_destination_loom)))]
mod model;
#[cfg(all(test, not(trace_destination_loom)))]
mod tests;
