//! Every interleaving of a few calls, by loom.
//!
//! Modelled: one shard, two threads beside the main one, up to four calls each, the real mutex and
//! epoch replaced by loom's. Bound: three preemptions where there are more than ten calls in all.
//! Not modelled: several shards, which share nothing but the epoch.

use super::*;
use crate::totals::Totals;
use loom::sync::Arc;
use loom::thread;

const A: RouteId = RouteId(2);
const B: RouteId = RouteId(3);

fn trace() -> TraceId {
    TraceId::from_bytes(7u128.to_be_bytes())
}

fn span(id: u64) -> SpanId {
    SpanId::from_bytes(id.to_be_bytes())
}

fn bounded(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn open(table: &Bindings) -> u64 {
    table.open_spans().values().sum()
}

#[test]
fn loom_child_while_its_root_ends_and_the_table_is_swept() {
    loom::model(|| {
        let table = Arc::new(Bindings::new(1, true));
        table.start_root(trace(), span(1), true, A, |_| A);
        let child = {
            let table = table.clone();
            thread::spawn(move || match table.start_child(trace(), span(2), span(1)) {
                Some(route) => {
                    assert_eq!(route, A);
                    // Open spans keep their binding, whatever is swept.
                    assert_eq!(table.end(trace(), span(2)), Ended::Bound(A));
                }
                None => assert_eq!(table.end(trace(), span(2)), Ended::Unbound),
            })
        };
        let root = {
            let table = table.clone();
            thread::spawn(move || assert_eq!(table.end(trace(), span(1)), Ended::Bound(A)))
        };
        table.sweep(0, 100, true);
        child.join().unwrap();
        root.join().unwrap();
        assert_eq!(open(&table), 0);
        table.sweep(0, 100, true);
        table.sweep(0, 100, true);
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn loom_two_tenants_with_one_trace_id() {
    for made_here in [true, false] {
        bounded(move || {
            let table = Arc::new(Bindings::new(1, true));
            table.start_root(trace(), span(1), made_here, A, |_| A);
            let other = {
                let table = table.clone();
                thread::spawn(move || {
                    table.start_root(trace(), span(10), false, B, |_| B);
                    assert_eq!(table.start_child(trace(), span(11), span(10)), Some(B));
                    assert_eq!(table.end(trace(), span(10)), Ended::Bound(B));
                    assert_eq!(table.end(trace(), span(11)), Ended::Bound(B));
                })
            };
            let late = {
                let table = table.clone();
                thread::spawn(move || {
                    // Its parent may not have started, be open, linger or be gone.
                    let route = table.start_child(trace(), span(12), span(10));
                    if let Some(B) = route {
                        assert_eq!(table.end(trace(), span(12)), Ended::Bound(B));
                    }
                    route
                })
            };
            table.sweep(0, 100, true);
            assert_eq!(table.start_child(trace(), span(2), span(1)), Some(A));
            assert_eq!(table.end(trace(), span(2)), Ended::Bound(A));
            table.sweep(0, 100, true);
            other.join().unwrap();
            let late = late.join().unwrap();
            // A parent that never started here is not B's; only a trace made here takes it.
            assert!(late != Some(A) || made_here);
            if late == Some(A) {
                assert_eq!(table.end(trace(), span(12)), Ended::Bound(A));
            }
            assert_eq!(open(&table), 1);
            assert_eq!(table.end(trace(), span(1)), Ended::Bound(A));
            assert_eq!(open(&table), 0);
        });
    }
}

#[test]
fn loom_late_child_against_the_sweep_that_ends_its_binding() {
    for made_here in [true, false] {
        loom::model(move || {
            let table = Arc::new(Bindings::new(1, true));
            table.start_root(trace(), span(1), made_here, A, |_| A);
            table.end(trace(), span(1));
            let children: Vec<_> = [2, 3]
                .into_iter()
                .map(|id| {
                    let table = table.clone();
                    thread::spawn(move || {
                        let bound = table.start_child(trace(), span(id), span(1));
                        match (bound, table.end(trace(), span(id))) {
                            (Some(A), Ended::Bound(A)) => {}
                            // The other child may be open and its trace made here.
                            (None, Ended::Unbound) => {}
                            odd => panic!("{odd:?}"),
                        }
                    })
                })
                .collect();
            table.sweep(0, 100, true);
            for child in children {
                child.join().unwrap();
            }
            assert_eq!(open(&table), 0);
        });
    }
}

#[test]
fn loom_ignored_spans_take_nothing() {
    loom::model(|| {
        let table = Arc::new(Bindings::new(1, true));
        table.start_root(trace(), span(1), true, A, |_| A);
        let ignored = {
            let table = table.clone();
            thread::spawn(move || {
                table.ignore(trace(), span(2));
                assert_eq!(table.end(trace(), span(2)), Ended::Ignored);
            })
        };
        assert_eq!(table.start_child(trace(), span(3), span(1)), Some(A));
        table.sweep(0, 100, true);
        ignored.join().unwrap();
        assert_eq!(open(&table), 2);
    });
}

#[test]
fn loom_threads_that_remember_a_trace_count_every_span_of_it() {
    bounded(|| {
        let table = Arc::new(Bindings::new(1, true));
        table.start_root(trace(), span(1), true, A, |_| A);
        let threads: Vec<_> = [10, 20]
            .into_iter()
            .map(|first| {
                let table = table.clone();
                thread::spawn(move || {
                    // The first one through the table, the second one without it, and the last one
                    // to end through it again, if the root has ended.
                    for id in [first, first + 1] {
                        if table.start_child(trace(), span(id), span(1)).is_some() {
                            assert_eq!(table.end(trace(), span(id)), Ended::Bound(A));
                        }
                    }
                })
            })
            .collect();
        assert_eq!(table.end(trace(), span(1)), Ended::Bound(A));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(open(&table), 0);
        table.sweep(0, 100, true);
        table.sweep(0, 100, true);
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn loom_a_trace_that_is_remembered_gets_a_second_tenant_and_an_ignored_span() {
    bounded(|| {
        let table = Arc::new(Bindings::new(1, true));
        table.start_root(trace(), span(1), true, A, |_| A);
        let child = {
            let table = table.clone();
            thread::spawn(move || {
                for id in [10, 11] {
                    assert_eq!(table.start_child(trace(), span(id), span(1)), Some(A));
                }
                assert_eq!(table.end(trace(), span(10)), Ended::Bound(A));
            })
        };
        let tenant = {
            let table = table.clone();
            thread::spawn(move || {
                table.start_root(trace(), span(20), false, B, |_| B);
                assert_eq!(table.start_child(trace(), span(21), span(20)), Some(B));
                assert_eq!(table.end(trace(), span(21)), Ended::Bound(B));
            })
        };
        table.ignore(trace(), span(2));
        assert_eq!(table.end(trace(), span(2)), Ended::Ignored);
        child.join().unwrap();
        tenant.join().unwrap();
        assert_eq!(open(&table), 3);
        assert_eq!(table.end(trace(), span(20)), Ended::Bound(B));
        assert_eq!(table.end(trace(), span(11)), Ended::Bound(A));
        assert_eq!(table.end(trace(), span(1)), Ended::Bound(A));
        assert_eq!(open(&table), 0);
    });
}

#[test]
fn loom_a_slot_that_was_given_away_is_not_used_by_who_remembers_it() {
    bounded(|| {
        let other = TraceId::from_bytes(11u128.to_be_bytes());
        let table = Arc::new(Bindings::new(1, true));
        table.start_root(trace(), span(1), true, A, |_| A);
        let remembers = {
            let table = table.clone();
            thread::spawn(move || {
                for id in [10, 11] {
                    if table.start_child(trace(), span(id), span(1)).is_some() {
                        assert_eq!(table.route_of(trace(), span(id)), Some(A));
                        assert_eq!(table.end(trace(), span(id)), Ended::Bound(A));
                    }
                }
            })
        };
        assert_eq!(table.end(trace(), span(1)), Ended::Bound(A));
        // The slot of the first trace is free now, or still its own.
        table.start_root(other, span(1), true, B, |_| B);
        assert_eq!(table.start_child(other, span(2), span(1)), Some(B));
        for id in [1, 2] {
            assert_eq!(table.route_of(other, span(id)), Some(B));
            assert_eq!(table.end(other, span(id)), Ended::Bound(B));
        }
        remembers.join().unwrap();
        assert_eq!(open(&table), 0);
    });
}

/// Routes mean what they are.
struct Plain;

impl Meaning for Plain {
    fn beside(&self, _: RouteId, route: RouteId) -> RouteId {
        route
    }

    fn whole(&self, route: RouteId) -> RouteId {
        route
    }
}

/// What went where: pairs of route and span, in the order of one thread.
type Sent = Vec<(RouteId, String)>;

fn sent(follows: Follows) -> Sent {
    let name = |held: Held| match held {
        Held::Values(values) => values.name.unwrap(),
        Held::Span(..) => unreachable!("spans are marked by values here"),
    };
    let follows = follows.into_iter();
    follows
        .flat_map(|(route, waited)| waited.into_iter().map(move |held| (route, name(held))))
        .collect()
}

/// Ends a span as the processor does, a value in its stead.
fn end(table: &Bindings, id: u64) -> Sent {
    let mut values = crate::record::TraceUpdate::new(trace());
    values.name = Some(id.to_string());
    let held = Held::Values(Box::new(values));
    match table.end(trace(), span(id)) {
        Ended::Bound(route) => sent(vec![(route, vec![held])]),
        Ended::Undecided(place) => match place.hold(held) {
            Fate::Kept => Vec::new(),
            Fate::Follows(route, held) => sent(vec![(route, vec![held])]),
        },
        odd => panic!("{odd:?}"),
    }
}

/// A table with an undecided root, its room, and what counts the lost.
fn undecided(own_id: bool) -> (Arc<Bindings>, std::sync::Arc<Room>, std::sync::Arc<Totals>) {
    let totals = std::sync::Arc::<Totals>::default();
    let room = Room::new(1 << 20, totals.clone());
    let table = Arc::new(Bindings::new(1, true));
    table.start_undecided(trace(), span(1), own_id, room.open().unwrap());
    (table, room, totals)
}

fn check(all: impl IntoIterator<Item = Sent>, to: RouteId, spans: &[&str], lost: u64) {
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    assert!(all.iter().all(|(route, _)| *route == to), "{all:?}");
    all.sort_by(|a, b| a.1.cmp(&b.1));
    let names: Vec<_> = all.iter().map(|(_, name)| name.as_str()).collect();
    assert!(
        names.windows(2).all(|pair| pair[0] != pair[1]),
        "doubled: {names:?}"
    );
    assert_eq!(names.len() as u64 + lost, spans.len() as u64, "{names:?}");
}

#[test]
fn loom_a_decision_while_spans_of_the_trace_end() {
    for own_id in [true, false] {
        bounded(move || {
            let (table, room, totals) = undecided(own_id);
            for id in [2, 3] {
                let started = table.start_in_late(trace(), span(id), span(1), None, &Plain);
                assert!(matches!(started, Started::Follows));
            }
            let ends = |id| {
                let table = table.clone();
                thread::spawn(move || end(&table, id))
            };
            let (two, three) = (ends(2), ends(3));
            let made = match table.decide(trace(), span(1), A, A, &Plain) {
                Decision::Made(follows) => sent(follows),
                odd => panic!("{odd:?}"),
            };
            let root = end(&table, 1);
            let all = [made, root, two.join().unwrap(), three.join().unwrap()];
            check(all, A, &["1", "2", "3"], 0);
            assert_eq!(room.used(), 0);
            let lost = totals
                .unrouted_updates
                .load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!((lost, open(&table)), (0, 0));
        });
    }
}

#[test]
fn loom_two_decisions_of_which_one_counts() {
    bounded(|| {
        let (table, room, _totals) = undecided(true);
        let decides = |route| {
            let table = table.clone();
            thread::spawn(
                move || match table.decide(trace(), span(1), route, route, &Plain) {
                    Decision::Made(follows) => Some(sent(follows)),
                    Decision::Elsewhere => None,
                    odd => panic!("{odd:?}"),
                },
            )
        };
        let started = table.start_in_late(trace(), span(2), span(1), None, &Plain);
        assert!(matches!(started, Started::Follows));
        let (a, b) = (decides(A), decides(B));
        let two = end(&table, 2);
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        let route = match (&a, &b) {
            (Some(_), None) => A,
            (None, Some(_)) => B,
            odd => panic!("{odd:?}"),
        };
        let root = end(&table, 1);
        let made = a.or(b).unwrap();
        check([made, two, root], route, &["1", "2"], 0);
        assert_eq!(room.used(), 0);
    });
}

#[test]
fn loom_a_scope_decides_while_nobody_may_wait_any_more() {
    bounded(|| {
        let (table, room, totals) = undecided(true);
        let started = table.start_in_late(trace(), span(2), span(1), None, &Plain);
        assert!(matches!(started, Started::Follows));
        let child = {
            let table = table.clone();
            thread::spawn(move || {
                let scope = InScope {
                    route: A,
                    inside: true,
                };
                match table.start_in_late(trace(), span(3), span(1), Some(scope), &Plain) {
                    Started::Decides(follows) => (sent(follows), end(&table, 3)),
                    // Too late: it has a segment of its own.
                    Started::Apart => {
                        table.start_root(trace(), span(3), false, A, |_| A);
                        (Vec::new(), end(&table, 3))
                    }
                    odd => panic!("{odd:?}"),
                }
            })
        };
        let ends = {
            let table = table.clone();
            thread::spawn(move || end(&table, 2))
        };
        room.close();
        let freed = sent(table.end_undecided(Which::All, &Plain));
        let two = ends.join().unwrap();
        let (made, three) = child.join().unwrap();
        let root = end(&table, 1);
        // What is sent nowhere is counted by who sends.
        let nowhere = |sent: Sent| -> (Sent, u64) {
            let (nowhere, there): (Sent, Sent) = sent
                .into_iter()
                .partition(|(route, _)| *route == RouteId::UNROUTED);
            (there, nowhere.len() as u64)
        };
        let (two, lost_two) = nowhere(two);
        let (root, lost_root) = nowhere(root);
        let lost = totals
            .unrouted_updates
            .load(std::sync::atomic::Ordering::Relaxed);
        let lost = lost + lost_two + lost_root;
        check([freed, made, three, two, root], A, &["1", "2", "3"], lost);
        assert_eq!((room.used(), open(&table)), (0, 0));
    });
}

#[test]
fn loom_a_root_that_starts_while_the_room_closes_is_not_left_waiting() {
    bounded(|| {
        let (table, room, _totals) = undecided(true);
        let other = TraceId::from_bytes(11u128.to_be_bytes());
        let starts = {
            let (table, room) = (table.clone(), room.clone());
            thread::spawn(move || {
                if let Some(place) = room.open() {
                    table.start_undecided(other, span(5), true, place);
                }
            })
        };
        room.close();
        let _ = table.end_undecided(Which::All, &Plain);
        starts.join().unwrap();
        assert_eq!(room.stats(), crate::stats::Undecided::default());
    });
}
