//! Destinations as a pipeline knows them: an index per distinct set of locations, and one lane per
//! location.

use crate::binding::RouteId;
use crate::destination::{Destination, Legs, capabilities};
use crate::error::{Error, ErrorKind};
use crate::lane::{Intake, Lane, LaneId};
use crate::location::{BatchLimits, BatchSettings, Capabilities};
use crate::process::Process;
use crate::stats::Forgotten;
use crate::uri::LocationUri;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// All routes and lanes of one pipeline.
///
/// Indices are never given twice, so a span that holds one can never reach another tenant's lane, and
/// needs no reference count and no lock to find its own. What an index leads to is forgotten once
/// nobody uses it; some 120 bytes stay, and what a lane says to those it refuses a trace id.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Distinguishes pipelines in the memo of a destination.
    pipeline: u32,
    limits: BatchSettings,
    lane_budget: usize,
    routes: boxcar::Vec<Route>,
    refusing: boxcar::Vec<Refusing>,
    intakes: Arc<boxcar::Vec<Intake>>,
    known: Mutex<Known>,
    /// Lanes in `known`.
    lanes: AtomicUsize,
    process: Process,
}

#[derive(Debug)]
struct Route {
    lanes: Lanes,
    /// Cleared when nobody seems to use the route, set again by whoever looks it up. A route that is
    /// not in use may be forgotten; then its lanes are gone, but for their intakes.
    in_use: AtomicBool,
}

/// The lanes of a route. Nearly every route has one, which is found without another look into memory.
#[derive(Debug)]
enum Lanes {
    One(LaneId),
    Many(Box<[LaneId]>),
}

impl Lanes {
    fn new(lanes: &[LaneId]) -> Self {
        match lanes {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    #[inline]
    fn all(&self) -> &[LaneId] {
        match self {
            Self::One(lane) => std::slice::from_ref(lane),
            Self::Many(lanes) => lanes,
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    routes: HashMap<Box<[LaneId]>, RouteId>,
    /// By route and the lanes that refuse.
    refusing: HashMap<(RouteId, Box<[LaneId]>), RouteId>,
    ids: HashMap<LocationUri, LaneId>,
    /// In the order in which they were first used.
    lanes: BTreeMap<LaneId, Arc<Lane>>,
    forgotten: Forgotten,
    /// The highest sequence number of a lane that was forgotten. A location that comes back goes on
    /// from here: a store that remembers batch ids must never see one twice.
    sequence: u64,
}

/// A route that some lanes refuse: a request came with the id of a trace that this process made, and
/// the trace goes to another location of the same store, where an id can be used once.
#[derive(Debug)]
pub(crate) struct Refusing {
    /// The route without the refusal.
    pub(crate) route: RouteId,
    /// Lanes that get the spans.
    pub(crate) delivers: Box<[LaneId]>,
    pub(crate) refuses: Box<[Refuses]>,
}

/// A lane that refuses.
#[derive(Debug)]
pub(crate) struct Refuses {
    pub(crate) lane: LaneId,
    /// Why. It is told to this lane alone and names nobody else.
    pub(crate) error: Error,
    /// Spans refused that the log was not told of.
    pub(crate) untold: AtomicU64,
}

impl Routes {
    pub(crate) fn new(pipeline: u32, limits: BatchSettings, lane_budget: usize) -> Self {
        Self {
            pipeline,
            limits,
            lane_budget,
            routes: boxcar::Vec::new(),
            refusing: boxcar::Vec::new(),
            intakes: Arc::default(),
            known: Mutex::default(),
            lanes: AtomicUsize::new(0),
            process: Process::current(),
        }
    }

    /// `None` in a forked child, where a thread of the parent may hold the lock for ever.
    fn known(&self) -> Option<MutexGuard<'_, Known>> {
        self.process.lock(&self.known)
    }

    fn get(&self, route: RouteId) -> Option<&Route> {
        let index = route.0.wrapping_sub(RouteId::FIRST);
        self.routes.get(index as usize)
    }

    /// The route of a destination; `None` stands for no destination.
    pub(crate) fn of(&self, destination: Option<&Destination>) -> RouteId {
        let Some(destination) = destination else {
            return RouteId::UNROUTED;
        };
        let Some(legs) = destination.legs() else {
            return if destination.is_discard() {
                RouteId::DISCARD
            } else {
                RouteId::UNROUTED
            };
        };
        // Acquire, so that whoever reads the number also sees the route and its lanes.
        let memo = legs.route.load(Ordering::Acquire);
        let route = RouteId(memo as u32);
        if (memo >> 32) as u32 == self.pipeline
            && let Some(slot) = self.get(route)
            && slot.in_use.load(Ordering::Acquire)
        {
            return route;
        }
        self.find(legs)
    }

    #[cold]
    fn find(&self, legs: &Legs) -> RouteId {
        // Asked before the lock is taken: it is the backend's code.
        let asked = legs.locations().iter().map(|l| {
            let (capabilities, defect) = capabilities(&**l);
            let limits = self.limits.over(capabilities.batch);
            (limits, capabilities, defect)
        });
        let asked: Vec<(BatchLimits, Capabilities, Option<Error>)> = asked.collect();
        let Some(mut known) = self.known() else {
            return RouteId::UNROUTED;
        };
        let known = &mut *known;
        let lanes: Box<[LaneId]> = legs
            .locations()
            .iter()
            .zip(legs.uris())
            .zip(asked)
            .map(|((location, uri), (limits, declares, defect))| {
                *known.ids.entry(uri.clone()).or_insert_with(|| {
                    let id = LaneId(index(self.intakes.push(Intake::new(self.lane_budget))));
                    let (location, intakes) = (location.clone(), self.intakes.clone());
                    let lane = Lane::new(intakes, id, location, uri, limits, self.lane_budget);
                    let lane = lane.declared(declares.exclusive_store, declares.blocking);
                    let mut state = lane.state();
                    state.sealed_seq = known.sequence;
                    state.last_error = defect.map(|e| e.at(uri));
                    drop(state);
                    known.lanes.insert(id, Arc::new(lane));
                    id
                })
            })
            .collect();
        self.lanes.store(known.lanes.len(), Ordering::Relaxed);
        let route = *known.routes.entry(lanes).or_insert_with_key(|lanes| {
            let route = Route {
                lanes: Lanes::new(lanes),
                in_use: AtomicBool::new(true),
            };
            RouteId(RouteId::FIRST + index(self.routes.push(route)))
        });
        if let Some(slot) = self.get(route) {
            slot.in_use.store(true, Ordering::Release);
        }
        legs.route.store(
            u64::from(self.pipeline) << 32 | u64::from(route.0),
            Ordering::Release,
        );
        route
    }

    /// The lanes of a route that leads somewhere; none for one that some of its lanes refuse.
    pub(crate) fn lanes_of(&self, route: RouteId) -> &[LaneId] {
        self.get(route).map_or(&[], |route| route.lanes.all())
    }

    /// The route of a foreign root whose trace id was made here for a trace that follows `own`. Lanes
    /// that cannot take it beside the owner refuse it: those in a store in which the id can be used
    /// once, and in which it belongs to another lane.
    #[cold]
    pub(crate) fn beside(&self, own: RouteId, route: RouteId) -> RouteId {
        let Some(mut known) = self.known() else {
            return route;
        };
        let known = &mut *known;
        let store = |id: &LaneId| known.lanes.get(id)?.exclusive_store.as_ref();
        let owners = self.legs_of(own);
        let is_taken = |id: &LaneId| {
            store(id).is_some_and(|taken| owners.iter().any(|owner| store(owner) == Some(taken)))
        };
        let lanes = self.lanes_of(route).iter();
        let (refuses, delivers): (Vec<LaneId>, Vec<LaneId>) =
            lanes.partition(|id| !owners.contains(id) && is_taken(id));
        if refuses.is_empty() {
            return route;
        }
        let lanes = &known.lanes;
        let key = (route, refuses.into_boxed_slice());
        *known
            .refusing
            .entry(key)
            .or_insert_with_key(|(_, refuses)| {
                let refuses = refuses.iter().filter_map(|lane| {
                    Some(Refuses {
                        lane: *lane,
                        error: id_is_taken().at(&lanes.get(lane)?.uri),
                        untold: AtomicU64::new(0),
                    })
                });
                let refusing = Refusing {
                    route,
                    delivers: delivers.into(),
                    refuses: refuses.collect(),
                };
                RouteId(RouteId::REFUSING | index(self.refusing.push(refusing)))
            })
    }

    /// Whether a route leads into a store in which a trace id can be used once.
    pub(crate) fn is_exclusive(&self, route: RouteId) -> bool {
        let mut lanes = self.lanes_of(route).iter();
        let Some(known) = self.known() else {
            return false;
        };
        lanes.any(|id| {
            known
                .lanes
                .get(id)
                .is_some_and(|l| l.exclusive_store.is_some())
        })
    }

    /// What is special about a route that some lanes refuse.
    pub(crate) fn refusing(&self, route: RouteId) -> Option<&Refusing> {
        if route.0 & RouteId::REFUSING == 0 {
            return None;
        }
        self.refusing.get((route.0 & !RouteId::REFUSING) as usize)
    }

    /// Lanes that refuse spans of others, in all routes.
    pub(crate) fn all_refuses(&self) -> impl Iterator<Item = &Refuses> {
        self.refusing.iter().flat_map(|(_, r)| r.refuses.iter())
    }

    /// A route without what some of its lanes refuse.
    pub(crate) fn whole(&self, route: RouteId) -> RouteId {
        self.refusing(route).map_or(route, |r| r.route)
    }

    /// Every lane of a route, those that refuse included.
    pub(crate) fn legs_of(&self, route: RouteId) -> &[LaneId] {
        self.lanes_of(self.whole(route))
    }

    /// What application threads change of a lane, also of one that was forgotten.
    pub(crate) fn intake(&self, id: LaneId) -> &Intake {
        // Ids are handed out by `find` only, after the push.
        &self.intakes[id.0 as usize]
    }

    /// The lane with this index, unless it was forgotten.
    pub(crate) fn lane(&self, id: LaneId) -> Option<Arc<Lane>> {
        self.known()?.lanes.get(&id).cloned()
    }

    /// Every lane, in the order in which they were first used.
    pub(crate) fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.known()
            .map_or_else(Vec::new, |known| known.lanes.values().cloned().collect())
    }

    /// What one lane may hold, in bytes.
    pub(crate) fn lane_budget(&self) -> usize {
        self.lane_budget
    }

    /// How many lanes there are.
    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    /// Every lane, and what is known of those that were forgotten, at one moment.
    pub(crate) fn all_and_forgotten(&self) -> (Vec<Arc<Lane>>, Forgotten) {
        self.known().map_or_else(Default::default, |known| {
            (
                known.lanes.values().cloned().collect(),
                known.forgotten.clone(),
            )
        })
    }

    /// Marks the routes all of whose lanes rest, and returns them. Whoever looks one up meanwhile
    /// takes the mark away.
    pub(crate) fn retire(&self, rests: impl Fn(&Lane) -> bool) -> HashSet<RouteId> {
        let Some(known) = self.known() else {
            return HashSet::new();
        };
        let resting = |ids: &[LaneId]| {
            ids.iter()
                .all(|id| known.lanes.get(id).is_none_or(|lane| rests(lane)))
        };
        let routes = known.routes.iter().filter(|(ids, _)| resting(ids));
        let routes: HashSet<RouteId> = routes.map(|(_, route)| *route).collect();
        for slot in routes.iter().filter_map(|route| self.get(*route)) {
            slot.in_use.store(false, Ordering::Release);
        }
        routes
    }

    /// Forgets those of `routes` that were not looked up since they were retired, whose lanes rest,
    /// and which are not `held` by a trace. Lanes that no route leads to go with them; their
    /// counters are kept in sum. Returns those lanes.
    pub(crate) fn forget(
        &self,
        routes: &HashSet<RouteId>,
        held: impl Fn(RouteId) -> bool,
        rests: impl Fn(&Lane) -> bool,
    ) -> Vec<Arc<Lane>> {
        let Some(mut known) = self.known() else {
            return Vec::new();
        };
        let known = &mut *known;
        let (mut gone, mut gone_routes) = (Vec::new(), HashSet::new());
        known.routes.retain(|ids, route| {
            let Some(slot) = self.get(*route) else {
                return true;
            };
            let rests = |id| known.lanes.get(id).is_none_or(|lane| rests(lane));
            let stays = !routes.contains(route)
                || slot.in_use.load(Ordering::Acquire)
                || held(*route)
                || !ids.iter().all(rests);
            if !stays {
                gone.extend(ids.iter().copied());
                gone_routes.insert(*route);
            }
            stays
        });
        if gone.is_empty() {
            return Vec::new();
        }
        known
            .refusing
            .retain(|(route, _), _| !gone_routes.contains(route));
        let led_to: HashSet<LaneId> = known
            .routes
            .keys()
            .flat_map(|ids| ids.iter().copied())
            .collect();
        gone.retain(|id| !led_to.contains(id));
        let gone: Vec<Arc<Lane>> = gone
            .iter()
            .filter_map(|id| known.lanes.remove(id))
            .collect();
        for lane in &gone {
            known.ids.remove(&lane.uri);
            known.sequence = known.sequence.max(lane.state().sealed_seq);
            known.forgotten.add(lane.uri.scheme(), &lane.totals());
        }
        self.lanes.store(known.lanes.len(), Ordering::Relaxed);
        gone
    }
}

fn id_is_taken() -> Error {
    let cause = "a request named the id of a trace that this process made for another location of \
                 the same store, where an id can be used only once";
    Error::new(ErrorKind::Conflict, "bind trace", cause).mend(
        "start a trace of its own for such a request (`new_root`), or give the location a store of \
         its own",
    )
}

fn index(index: usize) -> u32 {
    u32::try_from(index)
        .unwrap_or_else(|_| unreachable!("four billion routes do not fit into memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLocation;

    fn to(name: &str) -> Destination {
        Destination::new(MemoryLocation::new(name))
    }

    fn lanes(routes: &Routes, to: &Destination) -> Vec<LaneId> {
        routes.lanes_of(routes.of(Some(to))).to_vec()
    }

    #[test]
    fn what_nobody_uses_is_forgotten_in_two_steps_and_ids_are_never_given_twice() {
        let routes = Routes::new(1, BatchSettings::default(), 1 << 20);
        let (a, b) = (to("forget-a"), to("forget-b"));
        let both = Destination::all([a.clone(), b.clone()]).unwrap();
        let [a_route, b_route, both_route] = [&a, &b, &both].map(|d| routes.of(Some(d)));
        let [a_lane, b_lane] = [&a, &b].map(|d| lanes(&routes, d)[0]);
        routes.lane(b_lane).unwrap().state().sealed_seq = 7;
        routes.intake(b_lane).accept(3);
        // A lane that does not rest keeps every route that leads to it.
        let rests = |lane: &Lane| lane.id != a_lane;
        let retired = routes.retire(rests);
        assert_eq!(retired, HashSet::from([b_route]));
        // Looking it up takes the mark away.
        assert_eq!(routes.of(Some(&b)), b_route);
        assert!(routes.forget(&retired, |_| false, rests).is_empty());

        let retired = routes.retire(|_| true);
        assert_eq!(retired.len(), 3);
        // A trace is still bound to one of them.
        let gone = routes.forget(&retired, |route| route == both_route, |_| true);
        assert!(gone.is_empty(), "a route that stays leads to both lanes");
        let gone = routes.forget(&retired, |_| false, |_| true);
        assert_eq!(gone.len(), 2);
        assert_eq!((routes.lane_count(), routes.all_lanes().len()), (0, 0));
        let sum = routes.all_and_forgotten().1.sum();
        assert_eq!((sum.locations, sum.accepted), (2, 3));

        let again = routes.of(Some(&b));
        assert!(![a_route, b_route, both_route].contains(&again));
        let lane = lanes(&routes, &b)[0];
        assert!(![a_lane, b_lane].contains(&lane));
        assert_eq!(routes.lane(lane).unwrap().state().sealed_seq, 7);
    }

    #[test]
    fn one_set_of_locations_is_one_route() {
        let routes = Routes::new(1, BatchSettings::default(), 1 << 20);
        let a = to("routes-a");
        let b = to("routes-b");
        let first = routes.of(Some(&a));
        assert_eq!(routes.of(Some(&a)), first);
        assert_eq!(routes.of(Some(&to("routes-a"))), first, "equal by URI");
        assert_ne!(routes.of(Some(&b)), first);
        let ab = Destination::all([a.clone(), b.clone()]).unwrap();
        let ba = Destination::all([b, a.clone(), a]).unwrap();
        assert_eq!(routes.of(Some(&ab)), routes.of(Some(&ba)));
        assert_eq!(lanes(&routes, &ab).len(), 2);
        assert_eq!(routes.all_lanes().len(), 2);
    }

    #[test]
    fn what_is_no_place_has_no_lanes() {
        let routes = Routes::new(1, BatchSettings::default(), 1 << 20);
        assert_eq!(routes.of(None), RouteId::UNROUTED);
        assert_eq!(routes.of(Some(&Destination::unset())), RouteId::UNROUTED);
        assert_eq!(routes.of(Some(&Destination::discard())), RouteId::DISCARD);
        for route in [RouteId::UNROUTED, RouteId::DISCARD, RouteId(99)] {
            assert!(routes.lanes_of(route).is_empty());
        }
    }

    #[test]
    fn two_pipelines_do_not_mix_up_what_they_remember_in_a_destination() {
        let (one, two) = (
            Routes::new(1, BatchSettings::default(), 1 << 20),
            Routes::new(2, BatchSettings::default(), 1 << 20),
        );
        one.of(Some(&to("routes-other")));
        let shared = to("routes-shared");
        for _ in 0..3 {
            assert_eq!(one.of(Some(&shared)), RouteId(RouteId::FIRST + 1));
            assert_eq!(two.of(Some(&shared)), RouteId(RouteId::FIRST));
        }
    }
}
