//! Promise 8: each location has a lane of its own, and spans flow as they end.

use super::*;
use crate::faulty::{Act, Faulty, passing, throttled};
use crate::world::{retry, until};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use trace_destination_core::{Destination, DropReason, RetryPolicy};

pub(crate) async fn visible_while_the_trace_runs(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let cx = Context::new().with_span(rig.start("agent", &a.context()));
    a.end(rig.start("step 1", &cx));
    until("the first step is stored", || rig.stored(&a) == 1).await?;
    w.verify_stored().await?;
    a.end(rig.start("step 2", &cx));
    until("the second step is stored", || rig.stored(&a) == 2).await?;
    w.verify_stored().await?;
    a.expect(cx.span().span_context());
    cx.span().end();
    a.end(rig.start("afterthought", &cx));
    w.verify(&rig).await
}

pub(crate) async fn one_stuck_place_delays_no_other(w: Arc<World>) -> Verdict {
    for (what, act) in [
        ("dead", Act::Fail(passing())),
        ("slow", Act::Wait),
        ("throttled", Act::Fail(throttled(Duration::from_secs(1)))),
        ("blocking", Act::Block),
    ] {
        let (bad, good) = (w.place(what).await?, w.place("good").await?);
        let rig = w.rig()?;
        bad.control.set(act);
        rig.spans_at(&bad, 20);
        until("the bad place was tried", || {
            bad.control.waiting() > 0 || !bad.control.calls().is_empty()
        })
        .await?;
        for _ in 0..5 {
            rig.spans_at(&good, 20);
            let stored = good.expected() as u64;
            until(
                &format!("the good place is stored beside a {what} one"),
                || rig.stored(&good) == stored,
            )
            .await?;
        }
        ensure_eq!(rig.stored(&bad), 0, "spans stored at the {what} place");
        bad.control.set(Act::Pass);
        bad.control.open_gate();
        rig.flush().await?;
        ensure_eq!(
            rig.stored(&bad),
            20,
            "spans stored at the {what} place in the end"
        );
    }
    w.verify_stored().await
}

pub(crate) async fn many_blocking_places_delay_no_other(w: Arc<World>) -> Verdict {
    let rig = w.rig()?;
    let good = w.place("good").await?;
    let mut bad = Vec::new();
    for _ in 0..32 {
        let place = w.place("blocking").await?;
        place.control.set(Act::Block);
        rig.spans_at(&place, 1);
        bad.push(place);
    }
    until("all of them block", || {
        bad.iter().all(|p| p.control.waiting() == 1)
    })
    .await?;
    rig.spans_at(&good, 100);
    until("the good place is stored", || rig.stored(&good) == 100).await?;
    for place in &bad {
        place.control.open_gate();
    }
    w.verify(&rig).await
}

pub(crate) async fn fan_out_legs_have_their_own_fate(w: Arc<World>) -> Verdict {
    let (good, dead, stuck) = (
        w.place("good").await?,
        w.place("dead").await?,
        w.place("stuck").await?,
    );
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: Duration::from_millis(100),
            ..retry()
        })
    })?;
    dead.control.set(Act::Fail(passing()));
    stuck.control.set(Act::Wait);
    let all = Destination::all([&good, &dead, &stuck].map(|p| p.destination.clone()))?;
    let cx = Context::new().with_span(rig.start("root", &all.in_context(&Context::new())));
    let child = rig.start("child", &cx);
    for place in [&good, &stuck] {
        place.expect(child.span_context());
        place.expect(cx.span().span_context());
    }
    drop(child);
    cx.span().end();
    until("the good leg is stored", || rig.stored(&good) == 2).await?;
    until("the dead leg is given up", || {
        rig.dropped(&dead, DropReason::RetryDeadline) == 2
    })
    .await?;
    ensure_eq!(rig.stored(&stuck), 0, "spans stored at the stuck leg");
    stuck.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn equal_uris_share_a_lane(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let twin = Faulty::new(a.inner.clone());
    let twin_control = twin.control().clone();
    let twin = Destination::new(twin);
    ensure_eq!(twin, a.destination, "two destinations with one URI");
    rig.spans_at(&a, 5);
    a.end(rig.start("to the twin", &twin.in_context(&Context::new())));
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().locations.len(), 1, "lanes");
    ensure_eq!(a.control.opens() + twin_control.opens(), 1, "opened sinks");
    Ok(())
}

pub(crate) async fn sets_flatten_and_merge(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let (to_a, to_b) = (a.destination.clone(), b.destination.clone());
    let ab = Destination::all([to_a.clone(), to_b.clone()])?;
    let nested = Destination::all([to_b.clone(), ab.clone(), to_a.clone(), to_b.clone()])?;
    ensure_eq!(nested, ab, "a nested list with duplicates");
    ensure_eq!(nested.locations().len(), 2, "its legs");
    ensure_eq!(
        Destination::all([to_a.clone(), to_a.clone()])?,
        to_a,
        "one place twice"
    );
    let span = rig.start("to both", &nested.in_context(&Context::new()));
    a.expect(span.span_context());
    b.end(span);
    for nowhere in [Destination::discard(), Destination::unset()] {
        let mixed = Destination::all([to_a.clone(), nowhere]);
        ensure!(
            mixed.is_err(),
            "a set with a word that is no place was accepted"
        );
    }
    ensure!(Destination::all([]).is_err(), "an empty set was accepted");
    w.verify(&rig).await
}

pub(crate) async fn beside_other_processors(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
        .with_span_processor(rig.pipeline.processor())
        .build();
    let tracer = provider.tracer("beside");
    for _ in 0..5 {
        a.end(tracer.start_with_context("span", &a.context()));
    }
    ensure_eq!(
        exporter.get_finished_spans()?.len(),
        5,
        "spans at the other processor"
    );
    w.verify(&rig).await
}

pub(crate) async fn providers_share_a_pipeline(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let other = SdkTracerProvider::builder()
        .with_span_processor(rig.pipeline.processor())
        .build();
    let tracer = other.tracer("other");
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    // A trace that crosses from one provider to the other stays one.
    a.end(tracer.start_with_context("child by the other", &cx));
    b.end(tracer.start_with_context("root by the other", &b.context()));
    drop(tracer);
    drop(other);
    a.end(rig.start("child", &cx));
    a.expect(cx.span().span_context());
    cx.span().end();
    w.verify(&rig).await
}

pub(crate) async fn two_names_of_one_place(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    rig.spans_at(&a, 3);
    rig.flush().await?;
    let alias = w.harness().alias(&*a.inner).await?;
    ensure!(alias.uri() != a.uri(), "{alias} is no other name");
    let by_alias = Destination::from_location(alias.clone()).in_context(&Context::new());
    for _ in 0..5 {
        // Traces by either name, and spans of one trace by the name of its root.
        let cx = Context::new().with_span(rig.start("by the other name", &by_alias));
        a.end(rig.start("child", &cx));
        a.expect(cx.span().span_context());
        cx.span().end();
        rig.spans_at(&a, 1);
    }
    w.verify(&rig).await?;
    let stats = rig.pipeline.stats();
    ensure_eq!(stats.locations.len(), 2, "lanes");
    ensure_eq!(
        stats.location(alias.uri()).map(|l| l.stored),
        Some(10),
        "stored by the other name"
    );
    Ok(())
}
