//! Destinations as a pipeline knows them: an index per distinct set of locations, and one lane per
//! location.

use crate::binding::RouteId;
use crate::destination::{Destination, Legs, capabilities};
use crate::error::Error;
use crate::lane::{Lane, LaneId};
use crate::location::BatchLimits;
use crate::process::Process;
use crate::uri::LocationUri;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// All routes and lanes of one pipeline. They are only added to, so that a span needs no reference
/// count and no lock to find its lane.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Distinguishes pipelines in the memo of a destination.
    pipeline: u32,
    limits: Option<BatchLimits>,
    lane_budget: usize,
    routes: boxcar::Vec<Box<[LaneId]>>,
    lanes: boxcar::Vec<Arc<Lane>>,
    known: Mutex<Known>,
    process: Process,
}

#[derive(Debug, Default)]
struct Known {
    routes: HashMap<Box<[LaneId]>, RouteId>,
    lanes: HashMap<LocationUri, LaneId>,
}

impl Routes {
    pub(crate) fn new(pipeline: u32, limits: Option<BatchLimits>, lane_budget: usize) -> Self {
        Self {
            pipeline,
            limits,
            lane_budget,
            routes: boxcar::Vec::new(),
            lanes: boxcar::Vec::new(),
            known: Mutex::default(),
            process: Process::current(),
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
        let declared = legs.locations().iter().map(|l| match self.limits {
            Some(limits) => (limits, None),
            None => {
                let (capabilities, defect) = capabilities(&**l);
                (capabilities.batch, defect)
            }
        });
        let declared: Vec<(BatchLimits, Option<Error>)> = declared.collect();
        let Some(mut known) = self.process.lock(&self.known) else {
            return RouteId::UNROUTED;
        };
        let known = &mut *known;
        let lanes: Box<[LaneId]> = legs
            .locations()
            .iter()
            .zip(legs.uris())
            .zip(declared)
            .map(|((location, uri), (limits, defect))| {
                *known.lanes.entry(uri.clone()).or_insert_with(|| {
                    let lane = Lane::new(location.clone(), uri, limits, self.lane_budget);
                    lane.state().last_error = defect.map(|e| e.at(uri));
                    let lane = Arc::new(lane);
                    LaneId(index(self.lanes.push(lane)))
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

    /// The lanes of a route that leads somewhere.
    pub(crate) fn lanes_of(&self, route: RouteId) -> &[LaneId] {
        let index = route.0.wrapping_sub(RouteId::FIRST);
        self.routes.get(index as usize).map_or(&[], |lanes| lanes)
    }

    pub(crate) fn lane(&self, id: LaneId) -> &Arc<Lane> {
        // Ids are handed out by `find` only, after the push.
        &self.lanes[id.0 as usize]
    }

    pub(crate) fn all_lanes(&self) -> impl Iterator<Item = (LaneId, &Arc<Lane>)> {
        self.lanes.iter().map(|(i, lane)| (LaneId(index(i)), lane))
    }
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
