//! Trace ids that come back from outside: what whoever repeats one can do, and cannot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry::trace::{
    Span, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use trace_destination_core::{
    Capabilities, Destination, DropReason, Error, ErrorKind, Guarantee, LocationUri, Overflow,
    Pipeline, Resource, Scope, SpanRecord, TraceBinding, TraceLocation, TraceSink,
    bind_current_trace, update_current_trace,
};

/// A place in a store in which a trace id can be used once.
#[derive(Debug, Clone)]
struct Shared(Place);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Shared {
    fn uri(&self) -> &LocationUri {
        self.0.uri()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent).with_exclusive_store("the store")
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.0.open().await
    }
}

impl Shared {
    fn new(name: &str) -> Self {
        Self(Place::new(name))
    }

    fn to(&self) -> Destination {
        Destination::new(self.clone())
    }
}

fn repeats(id: TraceId) -> Context {
    let (span, flags) = (SpanId::from(0x5eed), TraceFlags::SAMPLED);
    let parent = SpanContext::new(id, span, flags, true, TraceState::NONE);
    Context::new().with_remote_span_context(parent)
}

fn id_of(cx: &Context) -> TraceId {
    cx.span().span_context().trace_id()
}

fn refused(pipeline: &Pipeline, place: &Place) -> (u64, u64, u64) {
    let stats = place.stats(pipeline);
    let refused = stats.dropped.by(DropReason::Refused);
    (stats.stored, refused, stats.lost_updates)
}

#[test]
fn many_who_repeat_an_id_are_refused_one_by_one_and_are_told_of_nobody() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let owner = Shared::new("owner-of-the-id");
    let root = root(&tracer, &owner.to(), "root");
    let others: Vec<Shared> = (0..50)
        .map(|i| Shared::new(&format!("other-{i}")))
        .collect();
    for other in &others {
        let cx = other.to().in_context(&repeats(id_of(&root)));
        let segment = cx.with_span(tracer.start_with_context("segment", &cx));
        let _running = segment.clone().attach();
        assert!(update_current_trace(|t| t.user_id = Some("mallory".into())));
        tracer.start_with_context("child", &segment).end();
        let open = other.0.stats(&pipeline).open_spans;
        assert_eq!(open, 1, "open spans are shown where they belong");
    }
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
    tracer.start_with_context("child", &root).end();
    drop(root);
    flush(&pipeline);
    settled(&pipeline);
    assert_eq!(refused(&pipeline, &owner.0), (2, 0, 0));
    assert!(owner.0.see(|seen| seen.updates.is_empty()));
    assert!(owner.0.stats(&pipeline).last_error.is_none());
    for other in &others {
        assert_eq!(refused(&pipeline, &other.0), (0, 2, 1));
        assert_eq!(other.0.attempts(), 0, "nothing is sent there");
        let error = report.location(other.0.uri()).unwrap().error.clone();
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.location(), Some(other.0.uri()));
        let rest = error.to_string().replace(other.0.uri().as_str(), "");
        assert!(!rest.contains("owner-of"), "{error}");
        assert!(!rest.contains("other-"), "{error}");
        assert!(error.mend_hint().is_some());
    }
}

#[test]
fn other_legs_get_the_spans_of_a_request_that_one_leg_refuses() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (owner, other) = (Shared::new("legs-owner"), Shared::new("legs-other"));
    let (first, last) = (Place::new("legs-a"), Place::new("legs-z"));
    let legs = [first.to(), other.to(), last.to()];
    let legs = Destination::all(legs).unwrap();
    let root = root(&tracer, &owner.to(), "root");
    let cx = legs.in_context(&repeats(id_of(&root)));
    {
        let segment = cx.with_span(tracer.start_with_context("segment", &cx));
        let _running = segment.clone().attach();
        assert!(update_current_trace(|t| t.user_id = Some("u".into())));
        tracer.start_with_context("child", &segment).end();
    }
    // One leg is the owner's own place: there is nothing to refuse.
    let with_owner = Destination::all([owner.to(), first.to()]).unwrap();
    let cx = with_owner.in_context(&repeats(id_of(&root)));
    tracer.start_with_context("same place", &cx).end();
    drop(root);
    flush(&pipeline);
    settled(&pipeline);
    assert_eq!(refused(&pipeline, &other.0), (0, 2, 1));
    assert_eq!(first.names(), ["child", "same place", "segment"]);
    assert_eq!(last.names(), ["child", "segment"]);
    assert_eq!(owner.0.names(), ["root", "same place"]);
    for place in [&first, &last] {
        let users = |seen: &Seen| {
            seen.updates
                .iter()
                .filter_map(|u| u.user_id.clone())
                .count()
        };
        assert_eq!(place.see(users), 1);
    }
}

#[test]
fn an_id_of_nobody_here_and_another_store_are_free() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (a, b) = (Shared::new("free-a"), Shared::new("free-b"));
    let elsewhere = Place::new("free-elsewhere");
    let root = root(&tracer, &elsewhere.to(), "root");
    for place in [&a, &b] {
        // Made here, but for a place outside of the store; then one from another process.
        for id in [id_of(&root), TraceId::from(77)] {
            let cx = place.to().in_context(&repeats(id));
            tracer.start_with_context("span", &cx).end();
        }
    }
    drop(root);
    flush(&pipeline);
    for place in [&a, &b] {
        assert_eq!(refused(&pipeline, &place.0), (2, 0, 0));
    }
}

#[test]
fn ingested_spans_with_an_id_of_somebody_here_are_refused_too() {
    let pipeline = quick().with_overflow(Overflow::DropNewest).build().unwrap();
    let tracer = tracer(&pipeline);
    let (owner, other) = (Shared::new("ingest-owner"), Shared::new("ingest-other"));
    let leg = Place::new("ingest-leg");
    let root = root(&tracer, &owner.to(), "root");
    let span = |trace, id: u64| SpanRecord::new(trace, SpanId::from(id), "ingested", 1, 2);
    let spans = |from: u64| -> Vec<SpanRecord> {
        let ids = [id_of(&root), TraceId::from(5), id_of(&root)];
        ids.into_iter()
            .zip(from..)
            .map(|(t, s)| span(t, s))
            .collect()
    };
    let ingest = |spans, to: &Destination| {
        pipeline.ingest(
            Arc::new(Resource::default()),
            Arc::new(Scope::default()),
            spans,
            to,
        )
    };
    let alone = ingest(spans(10), &other.to());
    assert_eq!((alone.accepted, alone.dropped), (1, 2));
    let both = Destination::all([other.to(), leg.to()]).unwrap();
    let beside = ingest(spans(20), &both);
    assert_eq!((beside.accepted, beside.dropped), (4, 2));
    assert_eq!(ingest(spans(30), &owner.to()).accepted, 3);
    drop(root);
    flush(&pipeline);
    settled(&pipeline);
    assert_eq!(refused(&pipeline, &other.0), (2, 4, 0));
    assert_eq!(leg.len(), 3);
    assert_eq!(owner.0.len(), 4);
}

#[test]
fn a_flood_of_repeated_ids_is_bounded_and_costs_the_owner_nothing() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let (owner, other) = (Shared::new("flood-owner"), Shared::new("flood-other"));
    let root = root(&tracer, &owner.to(), "root");
    let cx = other.to().in_context(&repeats(id_of(&root)));
    for _ in 0..20_000 {
        tracer.start_with_context("flood", &cx).end();
    }
    assert!(
        pipeline.stats().bytes < 1 << 20,
        "refused spans are not held"
    );
    let middle = root.with_span(tracer.start_with_context("middle", &root));
    tracer.start_with_context("below", &middle).end();
    middle.span().end();
    tracer.start_with_context("late", &middle).end();
    drop((middle, root));
    flush(&pipeline);
    settled(&pipeline);
    assert_eq!(owner.0.names(), ["below", "late", "middle", "root"]);
    assert_eq!(refused(&pipeline, &other.0), (0, 20_000, 0));
    assert_eq!(pipeline.stats().orphaned, 0);
}

#[test]
fn nothing_but_an_open_span_that_was_bound_here_sets_values() {
    let without_processor = SdkTracerProvider::builder().build();
    let library = opentelemetry::trace::TracerProvider::tracer(&without_processor, "library");
    for strict in [false, true] {
        let builder = quick();
        let builder = if strict { builder.strict() } else { builder };
        let pipeline = builder.build().unwrap();
        let tracer = tracer(&pipeline);
        let (victim, other) = (Place::new("forged-victim"), Place::new("forged-other"));
        let forge = |cx: &Context| {
            let _running = cx.clone().attach();
            update_current_trace(|t| t.user_id = Some("mallory".into()))
        };
        let root = root(&tracer, &victim.to(), "root");
        let id = id_of(&root);
        let unsampled = SpanContext::new(
            id,
            SpanId::from(0x5eed),
            TraceFlags::default(),
            true,
            TraceState::NONE,
        );
        for ended in [false, true] {
            let sampled = other.to().in_context(&repeats(id));
            let unsampled = sampled.with_remote_span_context(unsampled.clone());
            for incoming in [&sampled, &unsampled] {
                assert!(!forge(incoming), "remote");
                let foreign = library.start_with_context("x", incoming);
                assert!(!forge(&incoming.with_span(foreign)), "another provider");
                let quiet = incoming.with_telemetry_suppressed();
                let quiet = quiet.with_span(tracer.start_with_context("x", &quiet));
                assert!(!forge(&quiet), "suppressed");
            }
            let span = tracer.start_with_context("x", &unsampled);
            assert!(!forge(&unsampled.with_span(span)), "not sampled");
            // A library's span is the local root, and one of ours is below it.
            let bare = Context::new().with_span(library.start_with_context("x", &repeats(id)));
            let below = bare.with_span(tracer.start_with_context("below", &bare));
            assert!(!forge(&below), "below another provider's");
            let further = below.with_span(tracer.start_with_context("further", &below));
            assert!(!forge(&further), "further below");
            if !ended {
                let child = root.with_span(tracer.start_with_context("child", &root));
                assert!(forge(&child), "a child of the trace may");
                child.span().end();
                assert!(!forge(&child), "a child that has ended");
                root.span().end();
                assert!(!forge(&root), "a root that has ended");
            }
        }
        flush(&pipeline);
        settled(&pipeline);
        assert_eq!(victim.see(|seen| seen.updates.len()), 1);
        assert!(other.see(|seen| seen.updates.is_empty()));
    }
}

#[test]
fn a_span_below_another_providers_goes_where_its_context_says() {
    let without_processor = SdkTracerProvider::builder().build();
    let library = opentelemetry::trace::TracerProvider::tracer(&without_processor, "library");
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let (victim, other) = (Place::new("below-victim"), Place::new("below-other"));
    let root = root(&tracer, &victim.to(), "root");
    // Warm: this thread takes spans of the trace without the table.
    for _ in 0..3 {
        tracer.start_with_context("child", &root).end();
    }
    let cx = other.to().in_context(&repeats(id_of(&root)));
    let cx = cx.with_span(library.start_with_context("library", &cx));
    let below = cx.with_span(tracer.start_with_context("below", &cx));
    tracer.start_with_context("further", &below).end();
    drop(below);
    drop(root);
    flush(&pipeline);
    assert_eq!(other.names(), ["below", "further"]);
    assert_eq!(victim.names(), ["child", "child", "child", "root"]);
}

/// An open root without a destination.
fn undecided(tracer: &opentelemetry_sdk::trace::SdkTracer) -> Context {
    Context::new().with_span(tracer.start_with_context("owner", &Context::new()))
}

fn bind(cx: &Context, to: &Destination) -> TraceBinding {
    let _running = cx.clone().attach();
    bind_current_trace(to)
}

#[test]
fn an_id_belongs_to_its_trace_also_before_that_has_a_destination() {
    for (case, owner) in [
        ("same-store", Some(Shared::new("undecided-owner"))),
        ("same-place", Some(Shared::new("undecided-other"))),
        ("nowhere", None),
    ] {
        let pipeline = quick().strict().build().unwrap();
        let tracer = tracer(&pipeline);
        let other = match &owner {
            Some(place) if case == "same-place" => place.clone(),
            _ => Shared::new("undecided-other"),
        };
        let elsewhere = Place::new("undecided-elsewhere");
        let root = undecided(&tracer);
        // One of them in the store, one not: that one has nothing to wait for.
        let [segment, free] = [other.to(), elsewhere.to()].map(|to| {
            let cx = to.in_context(&repeats(id_of(&root)));
            cx.with_span(tracer.start_with_context("segment", &cx))
        });
        tracer.start_with_context("child", &segment).end();
        {
            let _running = segment.clone().attach();
            assert!(update_current_trace(|t| t.user_id = Some("u".into())));
        }
        assert_eq!(bind(&segment, &other.to()), TraceBinding::AlreadyBound);
        assert_eq!(
            bind(&segment, &elsewhere.to()),
            TraceBinding::BoundElsewhere
        );
        tracer
            .start_with_context("inside", &elsewhere.to().in_context(&segment))
            .end();
        free.span().end();
        flush(&pipeline);
        assert_eq!((other.0.len(), elsewhere.len()), (0, 1), "{case}");
        assert_eq!(pipeline.stats().undecided.spans, 2, "{case}");
        if let Some(owner) = &owner {
            assert_eq!(bind(&root, &owner.to()), TraceBinding::Bound, "{case}");
        }
        tracer.start_with_context("after", &segment).end();
        root.span().end();
        let _ = pipeline.flush(PATIENCE).wait();
        segment.span().end();
        let report = pipeline.flush(PATIENCE).wait();
        assert_eq!(report.undecided, Default::default(), "{case}: {report}");
        match case {
            "same-store" => {
                assert_eq!(refused(&pipeline, &other.0), (0, 4, 1));
                assert_eq!(refused(&pipeline, &owner.unwrap().0), (1, 0, 0));
            }
            "same-place" => assert_eq!(refused(&pipeline, &other.0), (5, 0, 0)),
            _ => {
                assert_eq!(refused(&pipeline, &other.0), (4, 0, 0));
                assert_eq!(report.unplaced.unrouted, 1, "{report}");
            }
        }
        settled(&pipeline);
    }
}

#[test]
fn whoever_cannot_wait_for_the_owner_of_an_id_is_stored_where_that_takes_nothing_from_it() {
    // No segment lingers, so this one cannot wait until the owner is decided.
    let pipeline = quick().strict().with_linger(Duration::ZERO).build();
    let pipeline = pipeline.unwrap();
    let tracer = tracer(&pipeline);
    let (other, beside) = (Shared::new("waits-not"), Place::new("waits-not-beside"));
    let both = Destination::all([other.to(), beside.to()]).unwrap();
    let root = undecided(&tracer);
    let cx = both.in_context(&repeats(id_of(&root)));
    tracer.start_with_context("segment", &cx).end();
    flush(&pipeline);
    assert_eq!((other.0.len(), beside.len()), (0, 1));
    assert_eq!(refused(&pipeline, &other.0), (0, 1, 0));
    assert_eq!(bind(&root, &other.to()), TraceBinding::Bound);
    root.span().end();
    flush(&pipeline);
    assert_eq!(refused(&pipeline, &other.0), (1, 1, 0));
    settled(&pipeline);
}

#[test]
fn whoever_waits_for_the_owner_of_an_id_is_not_left_waiting() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let others: Vec<Shared> = (0..30)
        .map(|i| Shared::new(&format!("waits-{i}")))
        .collect();
    let root = undecided(&tracer);
    for other in &others {
        let cx = other.to().in_context(&repeats(id_of(&root)));
        tracer.start_with_context("segment", &cx).end();
    }
    assert_eq!(pipeline.stats().undecided.spans, 30);
    let report = pipeline.shutdown(PATIENCE).wait();
    assert_eq!(report.undecided, Default::default());
    assert!(others.iter().all(|other| other.0.len() == 1), "{report}");
    drop(root);
    assert_eq!(pipeline.stats().unrouted, 1);
    settled(&pipeline);
}

#[test]
fn an_update_from_outside_is_no_key_to_a_trace_of_somebody_else() {
    let pipeline = quick().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let (owner, other) = (Shared::new("owner-updated"), Shared::new("other-updates"));
    let root = root(&tracer, &owner.to(), "root");
    let id = id_of(&root);
    drop(root);
    flush(&pipeline);
    // The trace has ended, and is remembered still.
    let forge =
        |to: &Shared| pipeline.update_trace(id, &to.to(), |t| t.user_id = Some("mallory".into()));
    assert!(forge(&other));
    flush(&pipeline);
    assert_eq!(refused(&pipeline, &other.0), (0, 0, 1));
    assert_eq!(other.0.attempts(), 0, "nothing is sent there");
    assert_eq!(refused(&pipeline, &owner.0), (1, 0, 0));
    settled(&pipeline);
}
