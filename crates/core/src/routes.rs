//! Destinations as a pipeline knows them: an index per distinct set of locations, and one lane per
//! location.

use crate::binding::RouteId;
use crate::destination::{Destination, Legs};
use crate::error::{Error, ErrorKind};
use crate::lane::{Lane, LaneId};
use crate::location::BatchLimits;
use crate::uri::LocationUri;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All routes and lanes of one pipeline. They are only added to, so that a span needs no reference
/// count and no lock to find its lane.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Distinguishes pipelines in the memo of a destination.
    pipeline: u32,
    limits: Option<BatchLimits>,
    lane_budget: usize,
    routes: boxcar::Vec<Box<[LaneId]>>,
    refusing: boxcar::Vec<Refusing>,
    lanes: boxcar::Vec<Arc<Lane>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routes: HashMap<Box<[LaneId]>, RouteId>,
    /// By route and the lanes that refuse.
    refusing: HashMap<(RouteId, Box<[LaneId]>), RouteId>,
    lanes: HashMap<LocationUri, LaneId>,
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
    pub(crate) fn new(pipeline: u32, limits: Option<BatchLimits>, lane_budget: usize) -> Self {
        Self {
            pipeline,
            limits,
            lane_budget,
            routes: boxcar::Vec::new(),
            refusing: boxcar::Vec::new(),
            lanes: boxcar::Vec::new(),
            known: Mutex::default(),
        }
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
        if (memo >> 32) as u32 == self.pipeline {
            return RouteId(memo as u32);
        }
        self.find(legs)
    }

    #[cold]
    fn find(&self, legs: &Legs) -> RouteId {
        // Asked before the lock is taken: it is the backend's code.
        let asked = legs.locations().iter().map(|location| {
            let capabilities = location.capabilities();
            let limits = self.limits.unwrap_or(capabilities.batch);
            (limits, capabilities.exclusive_store)
        });
        let asked: Vec<(BatchLimits, Option<String>)> = asked.collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let lanes: Box<[LaneId]> = legs
            .locations()
            .iter()
            .zip(asked)
            .map(|(location, (limits, store))| {
                *known
                    .lanes
                    .entry(location.uri().clone())
                    .or_insert_with(|| {
                        let lane = Lane::new(location.clone(), limits, self.lane_budget);
                        LaneId(index(self.lanes.push(Arc::new(lane.in_store(store)))))
                    })
            })
            .collect();
        let route = *known.routes.entry(lanes).or_insert_with_key(|lanes| {
            RouteId(RouteId::FIRST + index(self.routes.push(lanes.clone())))
        });
        legs.route.store(
            u64::from(self.pipeline) << 32 | u64::from(route.0),
            Ordering::Release,
        );
        route
    }

    /// The lanes of a route that leads somewhere; none for one that some of its lanes refuse.
    pub(crate) fn lanes_of(&self, route: RouteId) -> &[LaneId] {
        let index = route.0.wrapping_sub(RouteId::FIRST);
        self.routes.get(index as usize).map_or(&[], |lanes| lanes)
    }

    /// The route of a foreign root whose trace id was made here for a trace that follows `own`. Lanes
    /// that cannot take it beside the owner refuse it: those in a store in which the id can be used
    /// once, and in which it belongs to another lane.
    #[cold]
    pub(crate) fn beside(&self, own: RouteId, route: RouteId) -> RouteId {
        let owners = self.lanes_of(own);
        let is_taken = |id: &LaneId| {
            let store = self.lane(*id).exclusive_store.as_ref();
            let mut owners = owners.iter().map(|id| &self.lane(*id).exclusive_store);
            store.is_some_and(|store| owners.any(|owner| owner.as_ref() == Some(store)))
        };
        let lanes = self.lanes_of(route).iter();
        let (refuses, delivers): (Vec<LaneId>, Vec<LaneId>) =
            lanes.partition(|id| !owners.contains(id) && is_taken(id));
        if refuses.is_empty() {
            return route;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (route, refuses.into_boxed_slice());
        *known
            .refusing
            .entry(key)
            .or_insert_with_key(|(_, refuses)| {
                let refuses = refuses.iter().map(|lane| Refuses {
                    lane: *lane,
                    error: id_is_taken().at(&self.lane(*lane).uri),
                    untold: AtomicU64::new(0),
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
        lanes.any(|id| self.lane(*id).exclusive_store.is_some())
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

    /// Every lane of a route, those that refuse included.
    pub(crate) fn legs_of(&self, route: RouteId) -> &[LaneId] {
        self.lanes_of(self.refusing(route).map_or(route, |r| r.route))
    }

    pub(crate) fn lane(&self, id: LaneId) -> &Arc<Lane> {
        // Ids are handed out by `find` only, after the push.
        &self.lanes[id.0 as usize]
    }

    pub(crate) fn all_lanes(&self) -> impl Iterator<Item = (LaneId, &Arc<Lane>)> {
        self.lanes.iter().map(|(i, lane)| (LaneId(index(i)), lane))
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
        .unwrap_or_else(|_| unreachable!("four billion lanes do not fit into memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLocation;

    fn to(name: &str) -> Destination {
        Destination::new(MemoryLocation::new(name))
    }

    #[test]
    fn one_set_of_locations_is_one_route() {
        let routes = Routes::new(1, None, 1 << 20);
        let a = to("routes-a");
        let b = to("routes-b");
        let first = routes.of(Some(&a));
        assert_eq!(routes.of(Some(&a)), first);
        assert_eq!(routes.of(Some(&to("routes-a"))), first, "equal by URI");
        assert_ne!(routes.of(Some(&b)), first);
        let ab = Destination::all([a.clone(), b.clone()]).unwrap();
        let ba = Destination::all([b, a.clone(), a]).unwrap();
        assert_eq!(routes.of(Some(&ab)), routes.of(Some(&ba)));
        assert_eq!(routes.lanes_of(routes.of(Some(&ab))).len(), 2);
        assert_eq!(routes.all_lanes().count(), 2);
    }

    #[test]
    fn what_is_no_place_has_no_lanes() {
        let routes = Routes::new(1, None, 1 << 20);
        assert_eq!(routes.of(None), RouteId::UNROUTED);
        assert_eq!(routes.of(Some(&Destination::unset())), RouteId::UNROUTED);
        assert_eq!(routes.of(Some(&Destination::discard())), RouteId::DISCARD);
        for route in [RouteId::UNROUTED, RouteId::DISCARD, RouteId(99)] {
            assert!(routes.lanes_of(route).is_empty());
        }
    }

    #[test]
    fn two_pipelines_do_not_mix_up_what_they_remember_in_a_destination() {
        let (one, two) = (Routes::new(1, None, 1 << 20), Routes::new(2, None, 1 << 20));
        one.of(Some(&to("routes-other")));
        let shared = to("routes-shared");
        for _ in 0..3 {
            assert_eq!(one.of(Some(&shared)), RouteId(3));
            assert_eq!(two.of(Some(&shared)), RouteId(2));
        }
    }
}
