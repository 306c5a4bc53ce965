use super::*;

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
        known.or_else(|| self.0.start_late(trace(t), span(s), span(parent), None))
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
