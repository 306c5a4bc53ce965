#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use std::time::Duration;

const LANE: LaneId = LaneId(3);

fn named(trace: u128, name: &str) -> TraceUpdate {
    let mut update = TraceUpdate::new(TraceId::from(trace));
    update.name = Some(name.into());
    update
}

fn put(values: &WaitingValues, lane: LaneId, update: TraceUpdate) -> Result<usize, NotHeld> {
    let bytes = WaitingValues::bytes_of(&update);
    values.put(lane, update, bytes)
}

fn held(values: &WaitingValues) -> (usize, usize) {
    let held = values.held().unwrap();
    let lanes: usize = held.lanes.values().map(|of| of.bytes).sum();
    assert_eq!(lanes, held.bytes);
    let traces: usize = held.lanes.values().map(|of| of.traces.len()).sum();
    assert_eq!(traces, values.traces.load(Ordering::Relaxed));
    (traces, held.bytes)
}

#[test]
fn values_of_one_trace_are_merged_and_counted_once() {
    let values = WaitingValues::new(1 << 20, 1 << 20);
    assert_eq!(put(&values, LANE, named(1, "first")), Ok(0));
    let once = held(&values).1;
    // Of the same length, so that nothing more is held.
    let again = named(1, "other");
    let all_of_it = WaitingValues::bytes_of(&again);
    assert_eq!(put(&values, LANE, again), Ok(all_of_it));
    assert_eq!(held(&values), (1, once));
    let mut more = TraceUpdate::new(TraceId::from(1));
    more.tags.insert("k".into(), "v".repeat(1_000));
    assert!(put(&values, LANE, more).is_ok());
    assert!(held(&values).1 > once + 1_000);
    assert_eq!(put(&values, LaneId(4), named(1, "elsewhere")), Ok(0));

    let asked = [2, 1, 1].map(TraceId::from);
    let taken = values.take(LANE, asked.into_iter());
    assert!(taken[0].is_none() && taken[2].is_none());
    let one = taken.into_iter().nth(1).flatten().unwrap();
    assert_eq!(one.update.name.as_deref(), Some("other"));
    assert_eq!(one.update.tags.len(), 1);
    assert_eq!(held(&values).0, 1, "another lane has its own");
    assert_eq!(
        values
            .take(LaneId(4), asked.into_iter())
            .iter()
            .flatten()
            .count(),
        1
    );
    assert_eq!(held(&values), (0, 0));
    assert!(values.is_empty());
}

#[test]
fn half_of_a_budget_is_for_values_and_one_always_fits() {
    let one = WaitingValues::bytes_of(&named(1, "name"));
    // Two in one lane, three in all.
    let values = WaitingValues::new(6 * one, 4 * one);
    for trace in 1..=2 {
        assert!(put(&values, LANE, named(trace, "name")).is_ok());
    }
    assert_eq!(put(&values, LANE, named(3, "name")), Err(NotHeld::Full));
    assert!(put(&values, LaneId(4), named(3, "name")).is_ok());
    assert_eq!(
        put(&values, LaneId(5), named(4, "name")),
        Err(NotHeld::Full)
    );
    assert_eq!(held(&values), (3, 3 * one));
    values.take(LANE, [TraceId::from(1)].into_iter());
    assert!(put(&values, LaneId(5), named(4, "name")).is_ok());

    let tiny = WaitingValues::new(2, 2);
    assert!(put(&tiny, LANE, named(1, "name")).is_ok());
    assert_eq!(put(&tiny, LANE, named(1, "name")), Err(NotHeld::Full));
    assert_eq!(held(&tiny), (1, one));
}

#[test]
fn what_no_root_comes_for_goes_at_the_second_look() {
    let values = WaitingValues::new(1 << 20, 1 << 20);
    for trace in 1..=3 {
        put(&values, LANE, named(trace, "name")).unwrap();
    }
    let begin = Instant::now();
    let later = begin + Duration::from_secs(2);
    let is_open = |_: LaneId, trace| trace == TraceId::from(1);
    let settled = |_: LaneId, since: Instant| since < later;
    assert!(
        values
            .take_unawaited(begin, is_open, |_, since| since < begin)
            .is_empty()
    );
    // The second was in between two of its roots.
    let is_revived = |_: LaneId, trace| trace != TraceId::from(3);
    let gone = values.take_unawaited(later, is_revived, settled);
    assert_eq!(gone.len(), 1);
    assert_eq!(
        (gone[0].0, gone[0].1.update.trace_id),
        (LANE, TraceId::from(3))
    );
    assert!(values.take_unawaited(later, is_open, settled).is_empty());
    assert_eq!(held(&values).0, 2);

    assert_eq!(values.close().len(), 2);
    assert_eq!(held(&values), (0, 0));
    assert_eq!(put(&values, LANE, named(1, "late")), Err(NotHeld::Closed));
    assert!(values.close().is_empty());
}
