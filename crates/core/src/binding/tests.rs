use super::*;
use crate::sync::lock;

const A: RouteId = RouteId(2);
const B: RouteId = RouteId(3);

fn trace(id: u128) -> TraceId {
    TraceId::from_bytes(id.to_be_bytes())
}

fn span(id: u64) -> SpanId {
    SpanId::from_bytes(id.to_be_bytes())
}

/// A table with one shard and ids as plain numbers.
struct Table(Bindings);

impl Table {
    fn new() -> Self {
        Self(Bindings::new(1, true))
    }

    fn own_root(&self, t: u128, s: u64, route: RouteId) {
        self.0.start_root(trace(t), span(s), true, route, |_| route);
    }

    fn foreign_root(&self, t: u128, s: u64, route: RouteId) {
        self.0
            .start_root(trace(t), span(s), false, route, |_| route);
    }

    fn child(&self, t: u128, s: u64, parent: u64) -> Option<RouteId> {
        let known = self.0.start_child(trace(t), span(s), span(parent));
        known.or_else(|| {
            self.0
                .start_late(trace(t), span(s), span(parent), None, None)
        })
    }

    fn may_set(&self, t: u128, s: u64) -> Option<RouteId> {
        self.0.route_of(trace(t), span(s))
    }

    fn end(&self, t: u128, s: u64) -> Ended {
        self.0.end(trace(t), span(s))
    }

    fn sweeps(&self, n: u32) -> u64 {
        (0..n).map(|_| self.0.sweep(4, 100, true).expired).sum()
    }

    fn open(&self, route: RouteId) -> u64 {
        self.0.open_spans().get(&route.0).copied().unwrap_or(0)
    }
}

#[test]
fn own_trace_follows_its_root() {
    let table = Table::new();
    table.own_root(1, 1, A);
    assert_eq!(table.child(1, 2, 1), Some(A));
    assert_eq!(table.child(1, 3, 2), Some(A));
    assert_eq!(table.open(A), 3);
    for s in [2, 1, 3] {
        assert_eq!(table.end(1, s), Ended::Bound(A));
    }
    assert_eq!(table.open(A), 0);
    assert_eq!(table.0.len(), 1, "it lingers");
    table.sweeps(6);
    assert_eq!(table.0.len(), 0);
}

#[test]
fn late_child_while_lingering_and_not_after() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.foreign_root(2, 1, B);
    table.end(1, 1);
    table.end(2, 1);
    table.sweeps(3);
    assert_eq!(table.child(1, 2, 1), Some(A));
    assert_eq!(table.child(2, 2, 1), Some(B));
    table.end(1, 2);
    table.end(2, 2);
    table.sweeps(4);
    assert_eq!(table.child(1, 3, 2), Some(A), "lingers anew after each end");
    assert_eq!(table.child(2, 3, 2), Some(B));
    table.end(1, 3);
    table.end(2, 3);
    table.sweeps(10);
    assert_eq!(table.child(1, 4, 3), None);
    assert_eq!(table.child(2, 4, 3), None);
    assert_eq!(table.0.len(), 0);
}

#[test]
fn two_tenants_with_one_foreign_trace_id() {
    let table = Table::new();
    table.foreign_root(1, 10, A);
    table.foreign_root(1, 20, B);
    assert_eq!(table.child(1, 11, 10), Some(A));
    assert_eq!(table.child(1, 21, 20), Some(B));
    assert_eq!(table.child(1, 22, 21), Some(B));
    assert_eq!(table.child(1, 99, 98), None, "a parent nobody knows");
    assert_eq!((table.open(A), table.open(B)), (2, 3));
    assert_eq!(table.end(1, 10), Ended::Bound(A));
    assert_eq!(table.end(1, 11), Ended::Bound(A));
    table.sweeps(10);
    assert_eq!(
        table.child(1, 12, 11),
        None,
        "A's segment is over, B's is not its heir"
    );
    assert_eq!(table.end(1, 22), Ended::Bound(B));
}

#[test]
fn a_made_up_id_is_no_key_to_a_trace_made_here() {
    let table = Table::new();
    table.own_root(1, 1, A);
    // The id went out and came back with another tenant's request.
    table.foreign_root(1, 50, B);
    assert_eq!(table.child(1, 51, 50), Some(B));
    assert_eq!(table.child(1, 2, 1), Some(A));
    assert_eq!(table.end(1, 51), Ended::Bound(B));
    assert_eq!(table.end(1, 50), Ended::Bound(B));
    table.sweeps(10);
    // B's segment is over while A's root is open: B's late child must not fall to A.
    assert_eq!(table.child(1, 52, 51), None);
    assert_eq!(table.0.route_of(trace(1), span(51)), None);
    assert_eq!(table.0.route_of(trace(1), span(2)), Some(A));
    assert_eq!(table.open(A), 2);
    assert_eq!(table.end(1, 2), Ended::Bound(A));
    assert_eq!(table.end(1, 1), Ended::Bound(A));
    table.sweeps(10);
    assert_eq!(table.0.len(), 0, "what was remembered of B goes with A");
}

#[test]
fn a_foreign_span_that_outlives_its_binding_does_not_end_at_the_own_segment() {
    let table = Table::new();
    table.foreign_root(1, 50, B);
    table.sweeps(60);
    table.own_root(1, 1, A);
    assert_eq!(table.sweeps(50), 1, "B's root is too old");
    assert_eq!(table.end(1, 50), Ended::Unbound);
    assert_eq!(table.open(A), 1);
}

#[test]
fn a_root_that_goes_the_own_way_joins_it() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.foreign_root(1, 50, A);
    assert_eq!(table.child(1, 51, 50), Some(A));
    assert_eq!(table.open(A), 3);
    for s in [50, 51, 1] {
        assert_eq!(table.end(1, s), Ended::Bound(A));
    }
    table.sweeps(10);
    assert_eq!(table.0.len(), 0);
}

#[test]
fn one_foreign_trace_id_used_for_ever_does_not_grow() {
    let table = Table::new();
    for request in 0..5_000 {
        table.foreign_root(7, 2 * request, A);
        assert_eq!(table.child(7, 2 * request + 1, 2 * request), Some(A));
        table.end(7, 2 * request + 1);
        table.end(7, 2 * request);
        if request % 100 == 0 {
            table.sweeps(1);
        }
    }
    let known = lock(&table.0.shards[0]).foreign.len();
    assert!(known <= 4 * LINGERING_PER_SHARD, "{known} spans remembered");
}

#[test]
fn a_busy_detached_task_does_not_shorten_the_linger_of_others() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.end(1, 1);
    table.own_root(2, 1, B);
    table.end(2, 1);
    for s in 2..5_000 {
        assert_eq!(table.child(2, s, 1), Some(B));
        table.end(2, s);
    }
    assert_eq!(table.child(1, 2, 1), Some(A));
}

#[test]
fn lingering_is_capped_oldest_first() {
    let table = Table::new();
    let traces = LINGERING_PER_SHARD as u128;
    for t in 0..traces {
        table.own_root(t, 1, A);
        table.end(t, 1);
    }
    assert_eq!(table.0.len(), LINGERING_PER_SHARD);
    // The first one is used again: it is the youngest now, and the second the oldest.
    assert_eq!(table.child(0, 2, 1), Some(A));
    assert_eq!(table.end(0, 2), Ended::Bound(A));
    table.own_root(traces, 1, A);
    table.end(traces, 1);
    assert_eq!(table.0.len(), LINGERING_PER_SHARD);
    assert_eq!(table.child(1, 2, 1), None);
    assert_eq!(table.child(0, 3, 1), Some(A));
    assert_eq!(table.child(2, 2, 1), Some(A));
    assert_eq!(table.child(traces, 2, 1), Some(A));
    assert_eq!(table.open(A), 3);
}

#[test]
fn foreign_traces_linger_up_to_a_cap_too() {
    let table = Table::new();
    let traces = 2 * LINGERING_PER_SHARD as u128;
    for t in 0..traces {
        table.foreign_root(t, 1, A);
        table.end(t, 1);
    }
    assert_eq!(table.0.len(), 2 * LINGERING_PER_SHARD);
    table.foreign_root(traces, 1, A);
    table.end(traces, 1);
    assert_eq!(table.0.len(), LINGERING_PER_SHARD);
    let youngest_gone = traces - LINGERING_PER_SHARD as u128;
    assert_eq!(table.child(youngest_gone, 2, 1), None);
    assert_eq!(table.child(youngest_gone + 1, 2, 1), Some(A));
}

#[test]
fn an_id_that_comes_back_after_its_trace_ended_opens_it_to_nobody_else() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.end(1, 1);
    table.foreign_root(1, 50, B);
    assert_eq!(table.child(1, 51, 50), Some(B));
    assert_eq!(table.child(1, 2, 1), Some(A));
    // Made here once more, by a generator that repeats itself.
    table.own_root(2, 1, A);
    table.end(2, 1);
    table.own_root(2, 60, B);
    assert_eq!(table.child(2, 61, 60), Some(B));
    assert_eq!(table.child(2, 2, 1), Some(A));
}

#[test]
fn open_traces_do_not_count_against_the_cap() {
    let table = Table::new();
    let traces = 3 * LINGERING_PER_SHARD as u128;
    for t in 0..traces {
        table.own_root(t, 1, A);
    }
    for t in 0..traces {
        assert_eq!(table.end(t, 1), Ended::Bound(A));
    }
}

#[test]
fn what_a_burst_left_behind_is_given_back() {
    let table = Table::new();
    for t in 0..100_000 {
        table.own_root(t, 1, A);
    }
    for t in 0..100_000 {
        table.end(t, 1);
    }
    table.sweeps(10);
    let shard = lock(&table.0.shards[0]);
    assert_eq!((shard.traces.len(), shard.around.lingering), (0, 0));
    assert!(shard.traces.capacity() < 10_000);
}

#[test]
fn without_linger_a_binding_ends_with_its_last_span() {
    let table = Table(Bindings::new(1, false));
    table.own_root(1, 1, A);
    table.foreign_root(2, 1, B);
    assert_eq!(table.child(1, 2, 1), Some(A));
    table.end(1, 1);
    table.end(2, 1);
    assert_eq!(table.0.len(), 1);
    table.end(1, 2);
    assert_eq!(table.0.len(), 0);
    assert_eq!(table.child(1, 3, 1), None);
}

#[test]
fn old_bindings_expire_and_are_counted() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.foreign_root(2, 1, B);
    table.own_root(3, 1, A);
    table.end(3, 1);
    assert_eq!(table.sweeps(100), 0);
    assert_eq!(table.sweeps(1), 2);
    assert_eq!(table.end(1, 1), Ended::Unbound);
    assert_eq!(table.end(2, 1), Ended::Unbound);
    assert_eq!(table.0.len(), 0);
}

#[test]
fn a_trace_kept_alive_by_late_children_expires_too() {
    let table = Table::new();
    table.foreign_root(1, 0, A);
    table.end(1, 0);
    let mut alive = 0;
    for s in 1..200 {
        if table.child(1, s, s - 1).is_none() {
            break;
        }
        table.end(1, s);
        table.sweeps(1);
        alive = s;
    }
    assert!(
        (99..=110).contains(&alive),
        "bound for {alive} sweeps of at most 100"
    );
    assert_eq!(table.0.len(), 0);
}

#[test]
fn ignored_spans_end_as_ignored_and_are_forgotten() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.0.ignore(trace(1), span(2));
    assert_eq!(table.end(1, 2), Ended::Ignored);
    assert_eq!(table.open(A), 1);
    table.0.ignore(trace(5), span(2));
    table.sweeps(200);
    assert_eq!(lock(&table.0.shards[0]).ignored.len(), 0);
}

#[test]
fn an_end_without_a_start_is_unbound_and_takes_nothing_below_zero() {
    let table = Table::new();
    assert_eq!(table.end(1, 1), Ended::Unbound);
    table.own_root(1, 1, A);
    table.end(1, 1);
    table.end(1, 1);
    assert_eq!(table.open(A), 0);
    assert_eq!(table.child(1, 2, 1), Some(A));
    assert_eq!(table.open(A), 1);
    table.sweeps(10);
    assert_eq!(table.end(1, 2), Ended::Bound(A));
}

#[test]
fn unrouted_and_discarded_bind_like_any_other() {
    let table = Table::new();
    table.own_root(1, 1, RouteId::UNROUTED);
    table.own_root(2, 1, RouteId::DISCARD);
    assert_eq!(table.child(1, 2, 1), Some(RouteId::UNROUTED));
    assert_eq!(table.child(2, 2, 1), Some(RouteId::DISCARD));
    assert_eq!(table.end(1, 2), Ended::Bound(RouteId::UNROUTED));
}

#[test]
fn only_open_spans_that_were_bound_may_set_values() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.child(1, 2, 1);
    table.foreign_root(1, 50, B);
    table.child(1, 51, 50);
    for (s, route) in [(1, A), (2, A), (50, B), (51, B)] {
        assert_eq!(table.may_set(1, s), Some(route));
    }
    // A span nobody has started here, one that is suppressed, one of no trace.
    table.0.ignore(trace(1), span(3));
    for s in [3, 99] {
        assert_eq!(table.may_set(1, s), None);
    }
    assert_eq!(table.may_set(7, 1), None);
    for s in [2, 51, 50, 1] {
        assert!(matches!(table.end(1, s), Ended::Bound(_)));
        assert_eq!(table.may_set(1, s), None, "{s} has ended");
    }
    table.own_root(2, 1, A);
    table.end(2, 1);
    assert_eq!(table.may_set(2, 1), None, "its trace lingers");
}

#[test]
fn spans_of_a_trace_are_known_one_by_one_however_many_are_open() {
    for traces in [1, 300] {
        let table = Table::new();
        for t in 1..=traces {
            table.own_root(t, 1, A);
        }
        let wide = if traces == 1 { 2_000 } else { 30 };
        for t in 1..=traces {
            for s in 2..=wide {
                assert_eq!(table.child(t, s, s - 1), Some(A));
            }
        }
        let all = u64::try_from(traces).unwrap() * wide;
        assert_eq!(table.open(A), all);
        for t in 1..=traces {
            // From the middle, so that cells, near spans and the map are emptied in turn.
            for s in (1..=wide).map(|s| (s * 7919) % wide + 1) {
                assert_eq!(table.may_set(t, s), Some(A));
                assert_eq!(table.end(t, s), Ended::Bound(A));
                assert_eq!(table.may_set(t, s), None);
                assert_eq!(table.end(t, s), Ended::Unbound, "ended once");
            }
        }
        assert_eq!(table.open(A), 0);
        table.sweeps(10);
        let shard = lock(&table.0.shards[0]);
        assert_eq!((table_len(&shard), shard.around.held.len()), (0, 0));
    }
}

fn table_len(shard: &super::shard::Shard) -> usize {
    shard.traces.len() + shard.ended.len()
}

#[test]
fn a_generator_that_repeats_itself_loses_no_span() {
    let table = Table::new();
    table.own_root(1, 1, A);
    for _ in 0..40 {
        assert_eq!(table.child(1, 1, 1), Some(A));
    }
    for _ in 0..41 {
        assert_eq!(table.may_set(1, 1), Some(A));
        assert_eq!(table.end(1, 1), Ended::Bound(A));
    }
    assert_eq!((table.open(A), table.may_set(1, 1)), (0, None));
}

#[test]
fn a_child_of_an_unknown_parent_follows_its_trace_and_may_set_nothing() {
    let table = Table::new();
    table.own_root(1, 1, A);
    let late = |s, parent, beside, local| {
        let (t, s, parent) = (trace(1), span(s), span(parent));
        assert_eq!(table.0.start_child(t, s, parent), None);
        table.0.start_late(t, s, parent, beside, local)
    };
    assert_eq!(
        late(70, 60, Some(B), Some(B)),
        None,
        "its context names another place"
    );
    assert_eq!(late(71, 61, None, Some(B)), Some(A));
    assert_eq!(late(72, 62, None, Some(A)), Some(A));
    assert_eq!(
        (table.may_set(1, 71), table.may_set(1, 72)),
        (None, Some(A))
    );
    // Nor may what comes after it.
    assert_eq!(table.child(1, 73, 71), Some(A));
    assert_eq!(table.child(1, 74, 72), Some(A));
    assert_eq!(
        (table.may_set(1, 73), table.may_set(1, 74)),
        (None, Some(A))
    );
    assert_eq!(table.open(A), 5);
    for s in [1, 71, 72, 73, 74] {
        assert_eq!(table.end(1, s), Ended::Bound(A));
    }
    table.sweeps(10);
    assert_eq!(table.0.len(), 0);
}

#[test]
fn children_of_spans_that_ended_lately_are_as_good_as_others() {
    for linger in [false, true] {
        let table = Table::new();
        table.own_root(1, 1, A);
        for s in 2..10 {
            table.child(1, s, s - 1);
        }
        for s in 2..10 {
            table.end(1, s);
        }
        if linger {
            table.end(1, 1);
        }
        for (s, parent) in [(20, 1), (21, 9), (22, 8)] {
            assert_eq!(table.child(1, s, parent), Some(A));
            assert_eq!(table.may_set(1, s), Some(A), "child of {parent}");
        }
    }
}

#[test]
fn what_a_remote_parent_leaves_behind_is_bounded() {
    let table = Table::new();
    table.foreign_root(1, 1, A);
    for s in 2..100_000 {
        assert_eq!(table.child(1, s, 1), Some(A));
        assert_eq!(table.end(1, s), Ended::Bound(A));
    }
    let known = lock(&table.0.shards[0]).foreign.len();
    assert!(known <= 257, "{known} spans remembered");
    assert_eq!(table.child(1, 100_001, 99_999), Some(A), "ended lately");
    assert_eq!(table.child(1, 100_002, 2), None, "forgotten");
    assert_eq!(table.open(A), 2);
}

#[test]
fn what_requests_with_a_running_traces_id_leave_behind_is_bounded() {
    let table = Table::new();
    table.own_root(1, 1, A);
    table.child(1, 2, 1);
    for request in 0..50_000 {
        let s = 10 + 2 * request;
        table.foreign_root(1, s, B);
        assert_eq!(table.child(1, s + 1, s), Some(B));
        assert_eq!(table.end(1, s + 1), Ended::Bound(B));
        assert_eq!(table.end(1, s), Ended::Bound(B));
    }
    {
        let shard = lock(&table.0.shards[0]);
        let foreign = shard.traces[&1].foreign.as_ref().unwrap();
        assert!(foreign.segments.len() <= 2 * LINGERING_PER_SHARD);
        assert_eq!(foreign.segments.len(), shard.foreign_segments);
        let known = shard.foreign.len();
        assert!(known <= 4 * LINGERING_PER_SHARD + 257, "{known} spans");
        assert!(shard.foreign.capacity() < 16_384);
    }
    // A child of a forgotten one is not taken for the owner's.
    assert_eq!(table.child(1, 7, 10), None);
    // The owner has lost nothing by it.
    assert_eq!(table.child(1, 3, 2), Some(A));
    assert_eq!(table.child(1, 4, 1), Some(A));
    assert_eq!(table.may_set(1, 4), Some(A));
    for s in 1..=4 {
        assert_eq!(table.end(1, s), Ended::Bound(A));
    }
    assert_eq!((table.open(A), table.open(B)), (0, 0));
    table.sweeps(10);
    let shard = lock(&table.0.shards[0]);
    assert_eq!((table_len(&shard), shard.foreign.len()), (0, 0));
}

#[test]
fn many_open_roots_of_one_foreign_id_cost_what_is_open() {
    let table = Table::new();
    let roots = 5_000;
    for root in 0..roots {
        table.foreign_root(1, 1_000 * (root + 1), A);
    }
    for root in 0..roots {
        for child in 1..60 {
            table.child(1, 1_000 * (root + 1) + child, 1_000 * (root + 1));
            table.end(1, 1_000 * (root + 1) + child);
        }
    }
    let known = lock(&table.0.shards[0]).foreign.len() as u64;
    assert!(known <= roots * 17, "{known} spans remembered");
    table.sweeps(200);
    assert_eq!(lock(&table.0.shards[0]).foreign.len(), 0);
}

#[test]
fn slots_of_expired_traces_are_used_again_after_a_while() {
    let table = Table::new();
    for t in 1..=4 {
        table.own_root(t, 1, A);
        table.child(t, 2, 1);
    }
    assert_eq!(table.sweeps(101), 4);
    let slot = |t| {
        table.own_root(t, 1, A);
        table.child(t, 2, 1);
        lock(&table.0.shards[0]).traces[&t]
            .own
            .as_ref()
            .unwrap()
            .slot
    };
    assert_eq!(slot(10), None, "a start may be under way in it");
    assert_eq!(table.end(1, 2), Ended::Unbound);
    table.sweeps(2);
    assert!(slot(11).is_some());
}

#[test]
fn a_foreign_root_beside_an_own_segment_asks_where_to_go() {
    let table = Table::new();
    table.own_root(1, 1, A);
    let refused = RouteId(RouteId::REFUSING);
    for open in [true, false] {
        let asked = |own| {
            assert_eq!(own, A);
            refused
        };
        (table.0).start_root(trace(1), span(50), false, B, asked);
        assert_eq!(table.child(1, 51, 50), Some(refused));
        assert_eq!(table.0.own_route(trace(1)), Some(A));
        if open {
            table.end(1, 1);
        }
    }
    let not_asked = |_| -> RouteId { unreachable!() };
    (table.0).start_root(trace(2), span(1), false, B, not_asked);
    assert_eq!(table.0.own_route(trace(2)), None);
}

#[test]
fn a_forked_child_never_waits_for_a_thread_of_its_parent() {
    let bindings = std::sync::Arc::new(Bindings {
        process: crate::process::Process::elsewhere(),
        ..Bindings::new(1, true)
    });
    let there = bindings.clone();
    let held = bindings.shards[0].lock().unwrap();
    let (send, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let trace = TraceId::from(1);
        let [root, child] = [1, 2].map(SpanId::from);
        there.start_root(trace, root, true, A, |own| own);
        let routes = [
            there.start_child(trace, child, root),
            there.start_late(trace, child, root, None, None),
            there.route_of(trace, root),
            there.own_route(trace),
        ];
        assert_eq!(routes, [None; 4]);
        there.ignore(trace, child);
        assert_eq!(there.end(trace, root), Ended::Unbound);
        assert_eq!(there.sweep(1, 1, true), Swept::default());
        assert!(there.open_spans().is_empty() && there.routes().is_empty());
        let _ = send.send(there.len());
    });
    assert_eq!(done.recv_timeout(std::time::Duration::from_secs(60)), Ok(0));
    drop(held);
}
