//! Segments whose destination was not known when their root started.
//!
//! Such a segment is undecided until code that runs in it names a destination, or a span starts in
//! a scope inside it. Its spans are in the table only, never in the cells of threads: what a thread
//! remembers of a trace has a route, and this one has none yet. It stays out of them when it is
//! decided, since a scope that names another destination keeps its meaning there: the trace had
//! none when it started, so nobody may take it for that of the first who decided.

use super::own::Own;
use super::segments::Segment;
use super::shard::Shard;
use super::undecided::{Held, Undecided};
use super::{Bindings, Ended, key, span_key};
use crate::route_id::RouteId;
use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;

/// An undecided segment.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) place: Arc<Undecided>,
    pub(super) since: u32,
    /// The route it takes once it is known where the trace goes that its id was made for. Nothing
    /// else decides then.
    pub(super) intended: Option<RouteId>,
}

/// What waited, and follows a route.
pub(crate) type Follows = Vec<(RouteId, Vec<Held>)>;

/// What a segment of a foreign id does beside that of the trace the id was made for.
#[derive(Debug)]
pub(crate) enum Beside {
    /// It takes this route.
    Goes(RouteId),
    /// It waits here until it is known where the other one goes.
    Waits(Arc<Undecided>),
}

impl From<RouteId> for Beside {
    fn from(route: RouteId) -> Self {
        Self::Goes(route)
    }
}

/// What routes mean, for what the table cannot tell.
pub(crate) trait Meaning {
    /// The route of a segment of a foreign id, beside a segment of the trace that the id was made
    /// for.
    fn beside(&self, own: RouteId, route: RouteId) -> RouteId;
    /// A route without what some of its lanes refuse.
    fn whole(&self, route: RouteId) -> RouteId;
}

/// A scope in which a child starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InScope {
    pub(crate) route: RouteId,
    /// The scope was entered inside the trace of the child. Any other has no say in that trace.
    pub(crate) inside: bool,
}

/// How a child starts in a segment that was decided late, or is not decided yet.
#[derive(Debug)]
pub(crate) enum Started {
    /// It follows its parent.
    Follows,
    /// Its scope decided.
    Decides(Follows),
    /// Its scope names another destination than that of the trace, or has no say in an undecided one.
    Apart,
    /// Its parent is not remembered.
    Unknown,
}

/// What came of a decision.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It was made.
    Made(Follows),
    /// The trace goes there anyway.
    Same,
    /// The trace goes elsewhere.
    Elsewhere,
    /// The trace goes nowhere, and that is final.
    Expired,
    /// The span is not an open one that was bound here.
    NotOurs,
}

/// Which undecided segments are ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// Those that started more than so many sweeps ago.
    Older(u32),
    /// Those without an open span.
    WithoutOpenSpan,
    /// All of them.
    All,
}

impl RouteId {
    /// Set for the route of a segment that was not decided when its root started.
    const LATE: u32 = 1 << 30;
    /// Not decided yet.
    pub(crate) const UNDECIDED: Self = Self(!Self::REFUSING);
    /// Nobody decided in time.
    pub(crate) const EXPIRED: Self = Self(Self::LATE | Self::UNROUTED.0);

    #[inline]
    pub(crate) fn is_late(self) -> bool {
        self.0 & Self::LATE != 0
    }

    #[inline]
    pub(super) fn is_undecided(self) -> bool {
        self == Self::UNDECIDED
    }

    fn late(self) -> Self {
        Self(self.0 | Self::LATE)
    }

    /// The route itself, whenever it was decided.
    #[inline]
    pub(super) fn plain(self) -> Self {
        match self {
            Self::UNDECIDED => self,
            Self(route) => Self(route & !Self::LATE),
        }
    }
}

impl Ended {
    #[inline]
    pub(super) fn of(route: RouteId, open: Option<Arc<Undecided>>) -> Self {
        match open {
            Some(place) => Self::Undecided(place),
            None => Self::Bound(route.plain()),
        }
    }
}

/// Whether an undecided trace has to make room once it is over.
pub(super) fn is_crowded(open: Option<&Undecided>) -> bool {
    open.is_some_and(Undecided::is_crowded)
}

impl Bindings {
    /// Binds a local root whose destination is not known. It takes no part in a running trace with
    /// the same id.
    #[cold]
    pub(crate) fn start_undecided(
        &self,
        trace: TraceId,
        span: SpanId,
        own_id: bool,
        place: Arc<Undecided>,
    ) {
        let (trace, span) = (key(trace), span_key(span));
        let since = self.now();
        let Some(mut shard) = self.shard(trace) else {
            return;
        };
        let shard = &mut *shard;
        let closed = place.is_closed();
        let route = match closed {
            true => RouteId::EXPIRED,
            false => RouteId::UNDECIDED,
        };
        shard.revive(trace);
        let entry = shard.traces.entry(trace).or_default();
        let segment = match &mut entry.own {
            own @ None if own_id => {
                *own = Some(Own::new(route, span, since));
                None
            }
            _ => {
                let foreign = entry.foreign.get_or_insert_default();
                shard.foreign_segments += 1;
                Some(foreign.add(trace, span, route, since, &mut shard.foreign))
            }
        };
        if !closed {
            let open = Open {
                place,
                since,
                intended: None,
            };
            shard.undecided.insert((trace, segment), open);
        }
    }

    /// Binds a child to its parent's segment, which was not decided when its root started.
    #[cold]
    pub(crate) fn start_in_late(
        &self,
        trace: TraceId,
        span: SpanId,
        parent: SpanId,
        scope: Option<InScope>,
        meaning: &impl Meaning,
    ) -> Started {
        let (trace, span, parent) = (key(trace), span_key(span), span_key(parent));
        let index = self.shard_index(trace);
        let Some(mut shard) = self.lock(index) else {
            return Started::Unknown;
        };
        let shard = &mut *shard;
        shard.revive(trace);
        let Some(entry) = shard.traces.get_mut(&trace) else {
            return Started::Unknown;
        };
        let parents = shard.foreign.get((trace, parent)).map(|there| there.key);
        let parents = parents.filter(|_| entry.foreign.is_some());
        let around = shard.around.beside(&self.hot, index);
        let proven = match (parents, &entry.own) {
            (Some(_), _) => true,
            (None, Some(own)) => match own.knows(trace, parent, &around) {
                Some(proven) => proven,
                None => return Started::Unknown,
            },
            (None, None) => return Started::Unknown,
        };
        let Some(segment) = entry.segment(parents) else {
            return Started::Unknown;
        };
        let waits = shard.undecided.get(&(trace, parents));
        let is_intended = waits.is_some_and(|open| open.intended.is_some());
        let decides = proven && segment.route == RouteId::UNDECIDED;
        let started = match scope.filter(|_| !is_intended) {
            Some(scope) if decides && scope.inside => {
                Started::Decides(shard.decide(trace, parents, scope.route, meaning))
            }
            Some(scope) if meaning.whole(segment.route.plain()) != scope.route => {
                return Started::Apart;
            }
            _ => Started::Follows,
        };
        let Some(entry) = shard.traces.get_mut(&trace) else {
            return Started::Unknown;
        };
        match (parents, &mut entry.foreign, &mut entry.own) {
            (Some(key), Some(foreign), _) => {
                let lingering = &mut shard.around.lingering;
                foreign.start_child(trace, span, key, &mut shard.foreign, lingering);
            }
            (None, _, Some(own)) => {
                let mut around = shard.around.beside(&self.hot, index);
                own.open_span(trace, span, proven, &mut around);
            }
            _ => {}
        }
        started
    }

    /// Decides where the trace of a span goes, if the span is open and was bound here: along `route`,
    /// which is `named` unless the trace is sampled out.
    pub(crate) fn decide(
        &self,
        trace: TraceId,
        span: SpanId,
        route: RouteId,
        named: RouteId,
        meaning: &impl Meaning,
    ) -> Decision {
        let (trace, span) = (key(trace), span_key(span));
        let Some(mut shard) = self.shard(trace) else {
            return Decision::NotOurs;
        };
        let Some((segment, now)) = self.find_open(&mut shard, trace, span) else {
            return Decision::NotOurs;
        };
        let open = shard.undecided.get(&(trace, segment));
        let intended = open.and_then(|open| open.intended);
        if now == RouteId::UNDECIDED && intended.is_none() {
            return Decision::Made(shard.decide(trace, segment, route, meaning));
        }
        let now = intended.unwrap_or_else(|| meaning.whole(now.plain()));
        if now == RouteId::UNROUTED {
            Decision::Expired
        } else if now == route || now == named {
            Decision::Same
        } else {
            Decision::Elsewhere
        }
    }

    /// The place of the undecided trace of a span that is open and was bound here.
    pub(crate) fn undecided(&self, trace: TraceId, span: SpanId) -> Option<Arc<Undecided>> {
        let (trace, span) = (key(trace), span_key(span));
        let mut shard = self.shard(trace)?;
        let (segment, _) = self.find_open(&mut shard, trace, span)?;
        let open = shard.undecided.get(&(trace, segment))?;
        Some(open.place.clone())
    }

    /// The segment of an open span that gives the right to act for its trace, and its route.
    pub(super) fn find_open(
        &self,
        shard: &mut Shard,
        trace: u128,
        span: u64,
    ) -> Option<(Option<u32>, RouteId)> {
        let entry = shard.traces.get_mut(&trace)?;
        if let Some(own) = &entry.own
            && own.is_proven(trace, span, &self.hot, shard.around.held())
        {
            return Some((None, own.segment.route));
        }
        let there = shard.foreign.get((trace, span)).filter(|s| s.open > 0)?;
        let segment = entry.foreign.as_mut()?.segment(there.key)?;
        Some((Some(there.key), segment.route))
    }

    /// Ends undecided segments: what waits in them is lost, and they go nowhere. Returns what waited
    /// for one of these and takes its own route now.
    pub(crate) fn end_undecided(&self, which: Which, meaning: &impl Meaning) -> Follows {
        let now = self.now();
        let mut follows = Vec::new();
        for mut shard in self.each_shard() {
            let ended = shard.end_undecided(|segment, open| match which {
                Which::Older(sweeps) => now.wrapping_sub(open.since) > sweeps,
                Which::WithoutOpenSpan => segment.open == 0,
                Which::All => true,
            });
            shard.free_intended(meaning, &mut follows);
            drop(shard);
            ended.iter().for_each(|place| place.end());
        }
        follows
    }
}

impl Shard {
    fn decide(
        &mut self,
        trace: u128,
        segment: Option<u32>,
        route: RouteId,
        meaning: &impl Meaning,
    ) -> Follows {
        let Some(entry) = self.traces.get_mut(&trace) else {
            return Vec::new();
        };
        let owner = entry.own.as_ref().map(|own| own.segment.route.plain());
        let route = match (segment, owner) {
            (Some(_), Some(owner)) if owner != route => meaning.beside(owner, route),
            _ => route,
        };
        if let Some(segment) = entry.segment(segment) {
            segment.route = route.late();
        }
        let open = self.undecided.remove(&(trace, segment));
        let held = open.map_or_else(Vec::new, |open| open.place.decide(route));
        let mut follows = vec![(route, held)];
        if segment.is_none() && entry.foreign.is_some() {
            self.free_intended(meaning, &mut follows);
        }
        follows
    }

    /// Has a segment wait until it is known where the trace goes that its id was made for.
    pub(super) fn wait(
        &mut self,
        trace: u128,
        segment: u32,
        place: Arc<Undecided>,
        since: u32,
        intended: RouteId,
    ) {
        let open = Open {
            place,
            since,
            intended: Some(intended),
        };
        self.undecided.insert((trace, Some(segment)), open);
    }

    /// Lets those segments take their route that waited for another one of their trace, which is
    /// decided now, or is gone.
    fn free_intended(&mut self, meaning: &impl Meaning, follows: &mut Follows) {
        for (trace, intended, place) in std::mem::take(&mut self.freed) {
            let own = self.traces.get(&trace).and_then(|t| t.own.as_ref());
            let owner = own.map(|own| own.segment.route.plain());
            let owner = owner.or_else(|| self.ended.get(trace).map(|own| own.route.plain()));
            // An owner that is not decided keeps the id: what waited is refused there, and goes to the
            // other places.
            let route = match owner {
                Some(owner) if owner != intended => meaning.beside(owner, intended),
                _ => intended,
            };
            follows.push((route, place.decide(route)));
        }
        let traces = &mut self.traces;
        self.undecided.retain(|(trace, key), open| {
            let (Some(intended), Some(entry)) = (open.intended, traces.get_mut(trace)) else {
                return true;
            };
            let owner = entry.own.as_ref().map(|own| own.segment.route.plain());
            let route = match owner {
                Some(RouteId::UNDECIDED) => return true,
                Some(owner) if owner != intended => meaning.beside(owner, intended),
                _ => intended,
            };
            if let Some(segment) = entry.segment(*key) {
                segment.route = route;
            }
            follows.push((route, open.place.decide(route)));
            false
        });
    }

    /// Takes out the undecided segments for which `ends` is true, and those that are gone.
    fn end_undecided(&mut self, ends: impl Fn(&Segment, &Open) -> bool) -> Vec<Arc<Undecided>> {
        let mut ended = std::mem::take(&mut self.gone);
        let (traces, freed) = (&mut self.traces, &mut self.freed);
        self.undecided.retain(|(trace, key), open| {
            let segment = traces.get_mut(trace).and_then(|t| t.segment(*key));
            let ends = match segment {
                Some(_) if open.intended.is_some() => false,
                Some(segment) if !ends(segment, open) => false,
                Some(segment) => {
                    segment.route = RouteId::EXPIRED;
                    true
                }
                None => {
                    if let Some(route) = open.intended {
                        freed.push((*trace, route, open.place.clone()));
                        return false;
                    }
                    true
                }
            };
            if ends {
                ended.push(open.place.clone());
            }
            !ends
        });
        // What a burst left behind would be looked through each time.
        let needed = self.undecided.len().max(16);
        if self.undecided.capacity() > 8 * needed {
            self.undecided.shrink_to(2 * needed);
        }
        ended
    }

    /// Keeps what waits in segments that were removed for whoever drops it outside of the lock.
    pub(super) fn let_go(&mut self) {
        let Self {
            undecided,
            traces,
            gone,
            freed,
            ..
        } = self;
        undecided.retain(|(trace, key), open| {
            let stays = traces
                .get_mut(trace)
                .and_then(|t| t.segment(*key))
                .is_some();
            if !stays {
                match open.intended {
                    Some(route) => freed.push((*trace, route, open.place.clone())),
                    None => gone.push(open.place.clone()),
                }
            }
            stays
        });
    }
}
