use super::*;
use crate::record::{BatchId, Resource, Scope, SpanGroup, SpanRecord};
use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use uuid::Uuid;

fn batch(spans: usize) -> TraceBatch {
    let record = SpanRecord::new(TraceId::from(1), SpanId::from(1), "op", 1, 2);
    let mut list = Vec::with_capacity(spans);
    list.extend((0..spans).map(|_| Span::from(record.clone())));
    let id = BatchId {
        writer: Uuid::nil(),
        sequence: 1,
    };
    let group = SpanGroup {
        resource: Arc::new(Resource::default()),
        scope: Arc::new(Scope::default()),
        spans: list,
    };
    TraceBatch::new(id, vec![group], Vec::new())
}

#[test]
fn a_span_is_freed_per_call_and_its_list_comes_back() {
    let spent = Spent::new(1 << 30);
    spent.give(batch(100), 10_000);
    let mut at_hand = Written::default();
    let mut left = Vec::new();
    for _ in 0..102 {
        spent.free_one(&mut at_hand);
        left.push((at_hand.spans.len(), spent.lock().bytes));
    }
    // The first call fetches the list, the last one finds nothing.
    let while_at_hand = (0..=100).rev().map(|spans| (spans, 10_000));
    let expected: Vec<_> = while_at_hand.chain([(0, 0)]).collect();
    assert_eq!(left, expected);
    assert!(!spent.any.load(Ordering::Relaxed));

    spent.give(batch(64), 10_000);
    spent.free_one(&mut at_hand);
    assert_eq!(at_hand.spans.len(), 64);
    let list = spent.take_empty(100);
    assert!(list.is_empty());
    assert!(list.capacity() >= 100, "the list that was emptied");
}

#[test]
fn what_is_kept_is_bounded_and_large_spans_are_none_of_it() {
    let spent = Spent::new(8 * 25_000);
    for _ in 0..5 {
        spent.give(batch(100), 10_000);
    }
    assert_eq!(spent.lock().written.len(), 2, "10,000 bytes each of 25,000");
    assert_eq!(spent.lock().empty.len(), 3);

    let spent = Spent::new(1 << 30);
    spent.give(batch(100), 100 * (SMALL + 1));
    spent.give(batch(SHORT - 1), 700);
    assert!(spent.lock().written.is_empty());
    assert_eq!(spent.lock().empty.len(), 1, "the short one is not worth it");
    assert!(!spent.any.load(Ordering::Relaxed));
}

#[test]
fn nothing_is_kept_once_the_application_rests() {
    let spent = Spent::new(1 << 30);
    let mut at_hand = Written::default();
    for _ in 0..2 {
        spent.give(batch(100), 10_000);
    }
    spent.free_one(&mut at_hand);
    assert_eq!(spent.lock().bytes, 20_000);
    spent.clear();
    assert_eq!(spent.lock().bytes, 10_000, "at hand");
    spent.give(batch(100), 10_000);
    spent.free_written(vec![std::mem::take(&mut at_hand)]);
    assert_eq!(spent.lock().bytes, 0);
    spent.free_one(&mut at_hand);
    assert!(at_hand.spans.is_empty());
}
