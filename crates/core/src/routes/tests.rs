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
