//! Routes and lanes of one pipeline: each distinct set of locations is a route, an index; each
//! location is a lane.

use crate::destination::{Destination, Legs, capabilities};
use crate::error::{Error, ErrorKind};
use crate::lane::{Intake, Lane, LaneId};
use crate::location::{BatchLimits, BatchSettings, Capabilities};
use crate::process::Process;
use crate::route_id::RouteId;
use crate::stats::Forgotten;
use crate::uri::LocationUri;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// All routes and lanes of one pipeline.
///
/// An index is never reused. So a span that holds one can never reach another tenant's lane, and
/// finds its own without a reference count or a lock. A route or lane that is no longer used is
/// forgotten; about 120 bytes of it stay, and the error with which a lane refuses a trace id.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Number of this pipeline, which a destination stores beside the route it remembers.
    pipeline: u32,
    limits: BatchSettings,
    lane_budget: usize,
    routes: boxcar::Vec<Route>,
    refusing: boxcar::Vec<Refusing>,
    intakes: Arc<boxcar::Vec<Intake>>,
    known: Mutex<Known>,
    /// Number of lanes in `known`.
    lanes: AtomicUsize,
    process: Process,
}

#[derive(Debug)]
struct Route {
    lanes: Lanes,
    /// Cleared when the route seems unused, set again by each look-up. A route that is not in use
    /// may be forgotten; of its lanes, only the intakes then stay.
    in_use: AtomicBool,
}

/// The lanes of a route. Nearly every route has one, which is stored inline to save a pointer
/// access.
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
    /// Routes with lanes that refuse, by the whole route and those lanes.
    refusing: HashMap<(RouteId, Box<[LaneId]>), RouteId>,
    ids: HashMap<LocationUri, LaneId>,
    /// Lanes in the order of their first use.
    lanes: BTreeMap<LaneId, Arc<Lane>>,
    forgotten: Forgotten,
    /// The highest sequence number of all forgotten lanes. A location that is used again continues
    /// above it, because a store that remembers batch ids must never get one twice.
    sequence: u64,
}

/// A route on which some lanes refuse the spans: a request came with the id of a trace that this
/// process made, and that trace goes to another location of the same store, in which an id can
/// exist only once.
#[derive(Debug)]
pub(crate) struct Refusing {
    /// The whole route, including the lanes that refuse.
    pub(crate) route: RouteId,
    /// Lanes to which the spans go.
    pub(crate) delivers: Box<[LaneId]>,
    pub(crate) refuses: Box<[Refuses]>,
}

/// A lane that refuses, and why.
#[derive(Debug)]
pub(crate) struct Refuses {
    pub(crate) lane: LaneId,
    /// The reason. It is shown at this lane alone, and names no other tenant.
    pub(crate) error: Error,
    /// Refused spans that have not been logged yet.
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

    /// `None` in a forked child, in which the lock may be held forever by a thread of the parent.
    fn known(&self) -> Option<MutexGuard<'_, Known>> {
        self.process.lock(&self.known)
    }

    fn get(&self, route: RouteId) -> Option<&Route> {
        let index = route.0.wrapping_sub(RouteId::FIRST);
        self.routes.get(index as usize)
    }

    /// The route of a destination. `None`, no destination, has the route `UNROUTED`.
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
        // Acquire: a thread that reads the number also sees the route and its lanes.
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
        // Called before the lock is taken, because it is the backend's code.
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
                    let lane = lane.declared(declares);
                    let mut state = lane.state();
                    state.sealed_seq = known.sequence;
                    state.last_error = defect.map(|e| e.at(uri));
                    // One that never writes is remembered for as long as others.
                    state.last_used = Some(Instant::now());
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

    /// The lanes of a route; empty for `UNROUTED`, `DISCARD`, and a route on which lanes refuse.
    pub(crate) fn lanes_of(&self, route: RouteId) -> &[LaneId] {
        self.get(route).map_or(&[], |route| route.lanes.all())
    }

    /// The route of a foreign root whose trace id this process made for a trace on the route `own`.
    /// Lanes refuse the foreign root if an id can exist only once in their store and a lane of
    /// `own` is in the same store.
    #[cold]
    pub(crate) fn beside(&self, own: RouteId, route: RouteId) -> RouteId {
        let Some(mut known) = self.known() else {
            return route;
        };
        let known = &mut *known;
        let store = |id: &LaneId| known.lanes.get(id)?.exclusive_store.as_ref();
        let owners = self.legs_of(own);
        // Where the owner goes is not decided yet: it may be any store.
        let undecided = own == RouteId::UNDECIDED;
        let is_taken = |id: &LaneId| {
            let is_owners = |taken| owners.iter().any(|owner| store(owner) == Some(taken));
            store(id).is_some_and(|taken| undecided || is_owners(taken))
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

    /// Whether a route leads into a store in which a trace id can exist only once.
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

    /// The refusal of a route on which some lanes refuse; `None` for other routes.
    pub(crate) fn refusing(&self, route: RouteId) -> Option<&Refusing> {
        if route.0 & RouteId::REFUSING == 0 {
            return None;
        }
        self.refusing.get((route.0 & !RouteId::REFUSING) as usize)
    }

    /// Every lane that refuses, of all routes.
    pub(crate) fn all_refuses(&self) -> impl Iterator<Item = &Refuses> {
        self.refusing.iter().flat_map(|(_, r)| r.refuses.iter())
    }

    /// The whole route, including lanes that refuse.
    pub(crate) fn whole(&self, route: RouteId) -> RouteId {
        self.refusing(route).map_or(route, |r| r.route)
    }

    /// Every lane of a route, including those that refuse.
    pub(crate) fn legs_of(&self, route: RouteId) -> &[LaneId] {
        self.lanes_of(self.whole(route))
    }

    /// The lanes of these locations, as far as they are in use.
    pub(crate) fn lanes_at(&self, uris: &[LocationUri]) -> Vec<Arc<Lane>> {
        let Some(known) = self.known() else {
            return Vec::new();
        };
        let lane = |uri| known.lanes.get(known.ids.get(uri)?).cloned();
        uris.iter().filter_map(lane).collect()
    }

    /// The part of a lane that application threads change. It exists for forgotten lanes too.
    pub(crate) fn intake(&self, id: LaneId) -> &Intake {
        // Only `find` makes ids, after the push.
        &self.intakes[id.0 as usize]
    }

    /// The lane with this id, unless it was forgotten.
    pub(crate) fn lane(&self, id: LaneId) -> Option<Arc<Lane>> {
        self.known()?.lanes.get(&id).cloned()
    }

    /// Every lane, in the order of first use.
    pub(crate) fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.known()
            .map_or_else(Vec::new, |known| known.lanes.values().cloned().collect())
    }

    /// Budget of one lane, in bytes.
    pub(crate) fn lane_budget(&self) -> usize {
        self.lane_budget
    }

    /// Number of lanes.
    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    /// Every lane and the counters of forgotten ones, consistent with each other.
    pub(crate) fn all_and_forgotten(&self) -> (Vec<Arc<Lane>>, Forgotten) {
        self.known().map_or_else(Default::default, |known| {
            (
                known.lanes.values().cloned().collect(),
                known.forgotten.clone(),
            )
        })
    }

    /// Marks and returns the routes whose lanes all rest. A look-up removes the mark.
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

    /// Forgets those of `routes` that were not looked up since [`retire`](Self::retire), whose
    /// lanes rest, and which are not `held` by a trace. Lanes that are on no other route are
    /// forgotten too, and returned; their counters stay in sum.
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
mod tests;
