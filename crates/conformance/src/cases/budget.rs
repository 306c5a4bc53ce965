//! Promise 10: memory is bounded, and what does not fit is counted.

use super::*;
use crate::faulty::{Act, REFUSE, passing, permanent, throttled};
use crate::world::{on_thread, quick, retry, until};
use opentelemetry::KeyValue;
use opentelemetry::trace::Span as _;
use trace_destination_core::{BatchLimits, DropReason, Overflow, RetryPolicy};

const KIB: usize = 1 << 10;

/// Ends a span of about two KiB that may be stored or dropped.
fn sized(rig: &Rig, place: &Place) {
    span_of(rig, place, 2 * KIB);
}

fn span_of(rig: &Rig, place: &Place, bytes: usize) {
    let mut span = rig.start("sized", &place.context());
    span.set_attribute(KeyValue::new("filler", "x".repeat(bytes)));
    place.allow(span.span_context());
    span.end();
}

/// Batches so small that a stuck sink holds little.
fn small() -> BatchLimits {
    BatchLimits {
        spans: 4,
        ..quick()
    }
}

pub(crate) async fn drop_newest(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_budget(1 << 30, 64 * KIB).with_batch_limits(small()))?;
    a.control.set(Act::Wait);
    for _ in 0..500 {
        sized(&rig, &a);
    }
    let stats = rig
        .stats(&a)
        .ok_or_else(|| Failure::new("no such location"))?;
    ensure!(stats.bytes <= 64 * KIB, "{} bytes are held", stats.bytes);
    let dropped = stats.dropped.by(DropReason::Overflow);
    ensure!(
        dropped > 400,
        "only {dropped} of 500 spans of 2 KiB were dropped at 64 KiB"
    );
    ensure!(dropped < 500, "nothing was kept");
    ensure_eq!(stats.accepted, 500, "accepted spans");
    a.control.open_gate();
    w.verify(&rig).await?;
    let stats = rig
        .stats(&a)
        .ok_or_else(|| Failure::new("no such location"))?;
    ensure_eq!(stats.stored, 500 - dropped, "stored spans");
    ensure_eq!(stats.queued, 0, "queued spans");
    ensure_eq!(
        w.stored(&a).await?.spans.len() as u64,
        500 - dropped,
        "spans at the place"
    );
    // There is room again.
    rig.spans_at(&a, 3);
    w.verify(&rig).await
}

pub(crate) async fn lane_budget_protects_other_lanes(w: Arc<World>) -> Verdict {
    let (full, free) = (w.place("full").await?, w.place("free").await?);
    let rig = w.rig_with(|b| {
        b.with_budget(256 * KIB, 64 * KIB)
            .with_batch_limits(small())
    })?;
    full.control.set(Act::Wait);
    for _ in 0..100 {
        sized(&rig, &full);
    }
    ensure!(
        rig.dropped(&full, DropReason::Overflow) > 0,
        "nothing was dropped at the full lane"
    );
    rig.spans_at(&free, 50);
    until("the free lane is stored", || rig.stored(&free) == 50).await?;
    full.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn process_budget(w: Arc<World>) -> Verdict {
    let rig = w.rig_with(|b| b.with_budget(96 * KIB, 64 * KIB).with_batch_limits(small()))?;
    let mut places = Vec::new();
    for _ in 0..4 {
        let place = w.place("a").await?;
        place.control.set(Act::Wait);
        places.push(place);
    }
    for _ in 0..30 {
        for place in &places {
            sized(&rig, place);
        }
    }
    let stats = rig.pipeline.stats();
    ensure!(stats.bytes <= 96 * KIB, "{} bytes are held", stats.bytes);
    let dropped: u64 = stats
        .locations
        .iter()
        .map(|l| l.dropped.by(DropReason::Overflow))
        .sum();
    ensure!(
        dropped > 60,
        "only {dropped} of 120 spans of 2 KiB were dropped at 96 KiB"
    );
    for place in &places {
        place.control.open_gate();
    }
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().bytes, 0, "bytes held at the end");
    Ok(())
}

pub(crate) async fn many_places_that_do_not_drain_cost_no_other(w: Arc<World>) -> Verdict {
    // Few spans, so that those that are kept are soon stored in the end.
    const LARGE: usize = 16 * KIB;
    // How many places do not drain, the room there is, how many spans each good place gets, and how
    // many of them at a time. On a busy machine a place may take longer for a batch than one may that
    // counts as draining, so what a good place gets fits into its guaranteed share.
    let (places, limit, count, every) = match w.harness().scale().part {
        1 => (64, 32 << 20, 60, 3),
        _ => (32, 16 << 20, 30, 5),
    };
    // Few batches, so that places that take a while for each drain all the same.
    let unhurried = BatchLimits {
        age: Duration::from_millis(500),
        ..quick()
    };
    let rig = w.rig_with(|b| b.with_budget(limit, limit / 4).with_batch_limits(unhurried))?;
    let mut bad = Vec::new();
    for i in 0..places {
        let place = w.place("bad").await?;
        place.control.set(match i % 4 {
            0 => Act::Fail(passing()),
            1 => Act::Fail(permanent()),
            2 => Act::Fail(throttled(Duration::from_secs(5))),
            _ => Act::Wait,
        });
        bad.push(place);
    }
    let mut good = Vec::new();
    for _ in 0..3 {
        good.push(w.place("good").await?);
    }
    for place in &good {
        rig.spans_at(place, 1);
    }
    until("the good places are open", || {
        good.iter().all(|p| rig.stored(p) == 1)
    })
    .await?;
    // Three times what fits.
    for place in &bad {
        for _ in 0..3 * limit / LARGE / places {
            span_of(&rig, place, LARGE);
        }
    }
    for i in 1..=count {
        for place in &good {
            rig.spans_at(place, 1);
        }
        // The others go on.
        span_of(&rig, &bad[i % places], LARGE);
        let held = rig.pipeline.stats().bytes;
        // What an encoder makes is counted when it is there, whether it fits or not.
        ensure!(held <= limit + limit / 16, "{held} bytes are held");
        if i % every == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    until("the good places are stored", || {
        good.iter().all(|p| {
            rig.stats(p)
                .is_some_and(|s| s.stored + s.dropped.total() > count as u64)
        })
    })
    .await?;
    for place in &good {
        let stored = rig.stored(place);
        ensure_eq!(stored, count as u64 + 1, "spans stored at {}", place.uri());
    }
    for place in &bad {
        let lost = rig.stats(place).map(|s| s.dropped);
        let lost = lost.ok_or_else(|| Failure::new("no such location"))?;
        ensure_eq!(
            lost.total(),
            lost.by(DropReason::Overflow),
            "spans lost for want of room against all lost at {}",
            place.uri()
        );
        place.control.set(Act::Pass);
        place.control.open_gate();
    }
    // Places that were told to come back later are, and store what was kept.
    until("everything is done", || {
        let stats = rig.pipeline.stats();
        stats.locations.iter().all(|l| l.queued + l.in_flight == 0)
    })
    .await?;
    w.verify(&rig).await
}

pub(crate) async fn block_waits_for_room(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    // Several times the room there is; a slow place takes a while for each small batch.
    let count = match w.harness().scale().part {
        1 => 200,
        _ => 50,
    };
    let rig = Arc::new(w.rig_with(|b| {
        b.with_budget(64 * KIB, 32 * KIB)
            .with_batch_limits(small())
            .with_overflow(Overflow::Block(Duration::from_secs(60)))
    })?);
    a.control.set(Act::Wait);
    let (r, p) = (rig.clone(), a.clone());
    let ending = tokio::spawn(on_thread("spans that wait for room", move || {
        for _ in 0..count {
            sized(&r, &p);
        }
    }));
    until("the sink is stuck", || a.control.waiting() > 0).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(!ending.is_finished(), "the thread did not wait for room");
    a.control.open_gate();
    ending.await??;
    w.verify(&rig).await?;
    let stats = rig
        .stats(&a)
        .ok_or_else(|| Failure::new("no such location"))?;
    ensure_eq!(
        (stats.stored, stats.dropped.total()),
        (count, 0),
        "stored and dropped spans"
    );
    Ok(())
}

pub(crate) async fn block_gives_up(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig_with(|b| {
        b.with_budget(64 * KIB, 16 * KIB)
            .with_batch_limits(small())
            .with_overflow(Overflow::Block(Duration::from_millis(10)))
    })?);
    a.control.set(Act::Wait);
    let (r, p) = (rig.clone(), a.clone());
    on_thread("20 spans that give up", move || {
        for _ in 0..20 {
            sized(&r, &p);
        }
    })
    .await?;
    let dropped = rig.dropped(&a, DropReason::Overflow);
    ensure!(dropped > 5, "only {dropped} spans were dropped");
    a.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn memory_is_given_back(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_batch_limits(small()).with_retry(RetryPolicy {
            deadline: Duration::from_millis(50),
            ..retry()
        })
    })?;
    for act in [
        Act::Pass,
        Act::RefuseMarked,
        Act::Fail(passing()),
        Act::Fail(crate::condemned()),
    ] {
        a.control.set(act);
        for _ in 0..10 {
            let mut span = rig.start("marked", &a.context());
            span.set_attribute(KeyValue::new(REFUSE, true));
            a.allow(span.span_context());
            span.end();
        }
        rig.flush().await?;
        ensure_eq!(rig.pipeline.stats().bytes, 0, "bytes held");
    }
    w.verify(&rig).await
}
