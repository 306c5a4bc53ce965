//! A flush of one destination.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use support::*;
use trace_destination_core::{Destination, DropReason, Pipeline};

/// Longer than any test may take: a flush that waits for a neighbour does not come back.
const FOR_EVER: Duration = Duration::from_secs(24 * 3_600);

fn hung(name: &str) -> Place {
    Place::on_write(name, |_, _| Step::Hang)
}

fn unhurried_strict() -> Pipeline {
    quick()
        .strict()
        .with_batch_limits(unhurried())
        .build()
        .unwrap()
}

#[test]
fn it_waits_for_no_neighbour() {
    let pipeline = unhurried_strict();
    let tracer = tracer(&pipeline);
    let neighbours: Vec<Place> = (0..30)
        .map(|i| match i % 3 {
            0 => hung(&format!("hung-{i}")),
            1 => Place::on_open(&format!("no-open-{i}"), |_| Step::Hang),
            _ => Place::on_write(&format!("shaky-{i}"), |_, _| Step::Fail(shaky())),
        })
        .collect();
    for neighbour in &neighbours {
        span_to(&tracer, &neighbour.to(), "neighbour");
    }
    // All of them hang, or try again, before the tenant's spans come.
    let _ = pipeline.flush(Duration::ZERO).wait();
    let (one, two) = (Place::new("tenant-one"), Place::new("tenant-two"));
    let tenant = Destination::all([one.to(), two.to()]).unwrap();
    for round in 1..=3_u64 {
        for _ in 0..100 {
            span_to(&tracer, &tenant, "mine");
        }
        let report = pipeline.flush_destination(&tenant, FOR_EVER).wait();
        assert!(report.all_stored() && report.nothing_lost(), "{report}");
        let stored = report.locations.iter().map(|l| (&l.uri, l.stored));
        let expected = [(one.uri(), 100 * round), (two.uri(), 100 * round)];
        assert_eq!(stored.collect::<Vec<_>>(), expected);
        assert_eq!(one.len() as u64, 100 * round);
    }
    let report = pipeline.flush(Duration::ZERO).wait();
    assert!(!report.is_complete(), "a flush of everything waits");
    let _ = pipeline.shutdown(Duration::ZERO).wait();
}

#[test]
fn it_leaves_the_batches_of_others_alone_and_tells_of_its_own() {
    let pipeline = unhurried_strict();
    let tracer = tracer(&pipeline);
    let (mine, other) = (Place::new("own-flush"), Place::new("other-flush"));
    let broken = Place::on_write("broken-flush", |_, _| {
        Step::Fail(
            trace_destination_core::Error::new(
                trace_destination_core::ErrorKind::InvalidSpan,
                "write",
                "bad",
            )
            .mend("make it"),
        )
    });
    for place in [&mine, &other, &broken] {
        span_to(&tracer, &place.to(), "span");
    }
    drop(opentelemetry::trace::Tracer::start(&tracer, "nowhere"));
    let report = pipeline.flush_destination(&mine.to(), PATIENCE).wait();
    assert!(report.all_stored() && report.nothing_lost(), "{report}");
    assert_eq!((mine.len(), other.len(), broken.attempts()), (1, 0, 0));
    let report = pipeline.flush_destination(&broken.to(), PATIENCE).wait();
    assert!(report.is_complete() && !report.nothing_lost(), "{report}");
    let of = report.location(broken.uri()).unwrap();
    assert_eq!((of.lost, of.dropped.total()), (1, 1));
    let again = pipeline.flush_destination(&broken.to(), PATIENCE).wait();
    assert!(again.nothing_lost() && !again.all_stored(), "{again}");
    // Nobody was told of all losses by a report on one location.
    let all = pipeline.flush(PATIENCE).wait();
    assert!(!all.nothing_lost(), "{all}");
    assert_eq!(all.unplaced.unrouted, 1);
    assert_eq!(other.len(), 1);
}

#[test]
fn what_was_never_used_or_is_no_place_is_flushed_at_once() {
    let pipeline = unhurried_strict();
    let tracer = tracer(&pipeline);
    span_to(&tracer, &hung("busy").to(), "span");
    let _ = pipeline.flush(Duration::ZERO).wait();
    for destination in [
        Place::new("never-used").to(),
        Destination::discard(),
        Destination::unset(),
    ] {
        let report = pipeline.flush_destination(&destination, FOR_EVER).wait();
        assert!(
            report.all_stored() && report.locations.is_empty(),
            "{report}"
        );
    }
    assert_eq!(pipeline.stats().locations.len(), 1, "asking opens nothing");
    let report = pipeline.shutdown(Duration::ZERO).wait();
    assert!(!report.is_complete() || report.locations[0].dropped.by(DropReason::Shutdown) == 1);
    let after = pipeline
        .flush_destination(&Destination::discard(), FOR_EVER)
        .wait();
    assert!(after.all_stored(), "{after}");
}

#[test]
fn many_tenants_flush_at_once_from_any_runtime() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    span_to(&tracer, &hung("busy-at-once").to(), "span");
    let places: Vec<Place> = (0..40)
        .map(|i| Place::new(&format!("at-once-{i}")))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = places
            .iter()
            .map(|place| {
                let (pipeline, tracer, to) = (pipeline.clone(), tracer.clone(), place.to());
                tokio::spawn(async move {
                    for _ in 0..20 {
                        span_to(&tracer, &to, "span");
                        let report = pipeline.flush_destination(&to, FOR_EVER).await;
                        assert!(report.all_stored(), "{report}");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(places.iter().all(|p| p.len() == 20));
    let _ = pipeline.shutdown(Duration::ZERO).wait();
}

#[test]
#[expect(
    clippy::mutable_key_type,
    reason = "what changes inside is no part of its identity"
)]
fn a_destination_is_a_key() {
    let [a, b] = ["key-a", "key-b"].map(|name| Place::new(name).to());
    let again = Place::new("key-a").to();
    let ab = Destination::all([a.clone(), b.clone()]).unwrap();
    let ba = Destination::all([b.clone(), a.clone(), a.clone()]).unwrap();
    let sampled = a.clone().with_sampling_ratio(0.5).unwrap();
    let mut map = HashMap::from([(a.clone(), 1)]);
    for same in [again, sampled, a.clone()] {
        *map.get_mut(&same).unwrap() += 1;
    }
    assert_eq!(map[&a], 4);
    let set: HashSet<Destination> = [a, b, ab, ba, Destination::discard(), Destination::unset()]
        .into_iter()
        .collect();
    assert_eq!(set.len(), 5);
    let shared = Arc::new(set);
    assert!(shared.contains(&Destination::discard()));
}
