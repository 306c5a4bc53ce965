//! The room for traces without a destination, and threads that meet in them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer};
use std::collections::HashSet;
use std::time::Duration;
use support::late::*;
use support::*;
use trace_destination_core::{DropReason, Overflow, TraceBinding};

#[test]
fn whatever_others_hold_some_room_is_left_and_what_does_not_fit_is_counted() {
    const ROOM: usize = 512 << 10;
    let pipeline = quick()
        .strict()
        .with_late_binding(NOT_SOON, ROOM)
        .build()
        .unwrap();
    let (tracer, acme) = (tracer(&pipeline), Place::new("room-acme"));
    let mut open = Vec::new();
    // The first one is alone: it gets a part of the room and no more.
    for greedy in 1..=100 {
        let root = undecided(&tracer, "greedy");
        for _ in 0..100 {
            child(&tracer, &root, "x".repeat(1_000));
        }
        open.push(root);
        let stats = pipeline.stats();
        assert!(stats.undecided.bytes < ROOM, "{stats:?}");
        assert!(greedy > 1 || stats.undecided.bytes < ROOM / 8, "{stats:?}");
        account(&stats, 100 * greedy);
    }
    let stats = pipeline.stats();
    assert!(stats.undecided.bytes > ROOM / 2, "{stats:?}");
    assert!(stats.unrouted > 9_000, "{stats:?}");
    let modest = undecided(&tracer, "modest");
    assert_eq!(bind(&modest, &acme.to()), TraceBinding::Bound);
    modest.span().end();
    // What found room follows all the same.
    let kept = pipeline.stats().undecided.spans;
    for root in &open {
        assert_eq!(bind(root, &acme.to()), TraceBinding::Bound);
        root.span().end();
    }
    flush(&pipeline);
    assert_eq!(acme.len() as u64, kept + 101);
    account(&pipeline.stats(), 10_101);
    settled(&pipeline);
}

#[test]
fn many_who_never_say_who_they_are_leave_room_for_those_who_do() {
    let pipeline = quick()
        .strict()
        .with_late_binding(NOT_SOON, 512 << 10)
        .build()
        .unwrap();
    let (tracer, acme) = (tracer(&pipeline), Place::new("room-honest"));
    for _ in 0..5_000 {
        let refused = undecided(&tracer, "401");
        child(&tracer, &refused, "authenticate");
        refused.span().end();
        assert!(pipeline.stats().undecided.bytes <= 512 << 10);
    }
    for _ in 0..50 {
        let honest = undecided(&tracer, "honest");
        child(&tracer, &honest, "authenticate");
        assert_eq!(bind(&honest, &acme.to()), TraceBinding::Bound);
        honest.span().end();
    }
    flush(&pipeline);
    assert_eq!(acme.len(), 100);
    account(&pipeline.stats(), 10_100);
}

#[test]
fn a_full_room_costs_what_ended_before_and_no_more() {
    let pipeline = quick()
        .strict()
        .with_late_binding(NOT_SOON, 16 << 10)
        .build()
        .unwrap();
    let (tracer, acme) = (tracer(&pipeline), Place::new("room-full"));
    let open: Vec<Context> = (0..100).map(|_| undecided(&tracer, "open")).collect();
    let late = open.last().unwrap();
    assert_eq!(bind(late, &acme.to()), TraceBinding::Expired);
    child(&tracer, &acme.to().in_context(late), "inside");
    let fits = waiting(&pipeline).0;
    assert!(fits > 10 && fits < 100, "{fits}");
    // Room that is given back is used again.
    assert_eq!(bind(&open[0], &acme.to()), TraceBinding::Bound);
    let next = undecided(&tracer, "next");
    assert_eq!(bind(&next, &acme.to()), TraceBinding::Bound);
    drop((open, next));
    flush(&pipeline);
    assert_eq!(acme.names(), ["inside", "next", "open"]);
    account(&pipeline.stats(), 102);
}

#[test]
fn whoever_decides_never_waits_for_room() {
    let pipeline = quick()
        .strict()
        .with_budget(64 << 10, 8 << 10)
        .with_late_binding(NOT_SOON, 32 << 10)
        .with_overflow(Overflow::Block(NOT_SOON))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let hung = Place::on_write("late-hung", |_, _| Step::Hang);
    let mut roots = Vec::new();
    for _ in 0..20 {
        let root = undecided(&tracer, "root");
        child(&tracer, &root, "x".repeat(700));
        roots.push(root);
    }
    let (send, done) = std::sync::mpsc::channel();
    let to = hung.to();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for (i, root) in roots.iter().enumerate() {
            match i % 2 {
                0 => assert_eq!(bind(root, &to), TraceBinding::Bound),
                _ => open.push(tracer.start_with_context("scope", &to.in_context(root))),
            }
        }
        let _ = send.send((roots, open));
    });
    let open = done.recv_timeout(PATIENCE).unwrap();
    let overflown = hung.stats(&pipeline).dropped.by(DropReason::Overflow);
    assert!(overflown > 0, "there was room for everything");
    balanced(&pipeline);
    let _ = pipeline.shutdown(Duration::ZERO).wait();
    drop(open);
}

#[test]
fn spans_that_end_while_somebody_decides_are_stored_once_at_that_place() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let places: Vec<Place> = (0..8).map(|i| Place::new(&format!("race-{i}"))).collect();
    const TRACES: usize = 320;
    const SPANS: usize = 12;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (places, tracer) = (&places, &tracer);
            scope.spawn(move || {
                for n in 0..TRACES / 4 {
                    let mine = &places[(thread + n) % places.len()];
                    let root = undecided(tracer, "root");
                    let spans: Vec<_> = (0..SPANS)
                        .map(|i| tracer.start_with_context(format!("{i}"), &root))
                        .collect();
                    std::thread::scope(|inner| {
                        let bare = &root;
                        inner.spawn(move || drop(spans));
                        inner.spawn(move || match n % 3 {
                            0 => assert!(bind(bare, &mine.to()).is_bound()),
                            1 => child(tracer, &mine.to().in_context(bare), "scope"),
                            _ => {
                                let twice = [bind(bare, &mine.to()), bind(bare, &mine.to())];
                                assert_eq!(
                                    twice,
                                    [TraceBinding::Bound, TraceBinding::AlreadyBound]
                                );
                            }
                        });
                    });
                    root.span().end();
                }
            });
        }
    });
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    for place in &places {
        place.see(|seen| {
            let ids: HashSet<_> = seen
                .spans
                .iter()
                .map(|s| (s.trace_id(), s.span_id()))
                .collect();
            let all = seen.spans.len();
            assert_eq!(ids.len(), all, "a span was stored twice");
            let roots = seen.spans.iter().filter(|s| s.name() == "root").count();
            let scopes = seen.spans.iter().filter(|s| s.name() == "scope").count();
            assert_eq!(roots, TRACES / places.len());
            assert_eq!(all, roots * (SPANS + 1) + scopes);
        });
    }
    settled(&pipeline);
}
