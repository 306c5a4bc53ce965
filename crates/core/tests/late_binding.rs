//! Traces that get their destination after their root has started.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState, Tracer};
use std::sync::Arc;
use std::time::Duration;
use support::late::*;
use support::*;
use trace_destination_core::{
    Destination, DestinationExt, ErrorKind, GlobalSlot, Pipeline, TraceBinding, bind_current_trace,
    update_current_trace,
};

fn strict() -> Pipeline {
    quick().strict().build().unwrap()
}

#[test]
fn what_ended_before_follows_in_order_and_with_its_values() {
    let pipeline = strict();
    let (tracer, acme) = (tracer(&pipeline), Place::new("late-order"));
    let root = undecided(&tracer, "root");
    let expected: Vec<String> = (0..40).map(|i| format!("before {i:02}")).collect();
    for (i, name) in expected.iter().enumerate() {
        child(&tracer, &root, name.clone());
        let _running = root.clone().attach();
        assert!(update_current_trace(|t| t.name = Some(format!("name {i}"))));
    }
    assert_eq!(waiting(&pipeline), (1, 40, 40));
    assert_eq!(bind(&root, &acme.to()), TraceBinding::Bound);
    assert_eq!(waiting(&pipeline), (0, 0, 0));
    child(&tracer, &root, "then");
    root.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored() && report.nothing_lost(), "{report}");
    let names = acme.see(|s| {
        let names = s.spans.iter().map(|s| s.name().to_owned());
        names.collect::<Vec<_>>()
    });
    assert_eq!(names[..40], expected);
    assert_eq!(names[40..], ["then", "root"]);
    let name = acme.see(|s| s.updates.last().unwrap().name.clone());
    assert_eq!(name.as_deref(), Some("name 39"));
    account(&pipeline.stats(), 42);
    settled(&pipeline);
}

#[test]
fn each_answer() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (a, b) = (Place::new("answer-a"), Place::new("answer-b"));
    assert_eq!(
        bind_current_trace(&a.to()),
        TraceBinding::NotOurs,
        "no span"
    );
    let root = undecided(&tracer, "root");
    assert_eq!(bind(&forged(&root), &a.to()), TraceBinding::NotOurs);
    assert_eq!(bind(&root, &Destination::unset()), TraceBinding::NotOurs);
    let ended = root.with_span(tracer.start_with_context("ended", &root));
    ended.span().end();
    assert_eq!(bind(&ended, &a.to()), TraceBinding::NotOurs);
    // A span of the trace that no pipeline saw start.
    let known = root.span().span_context().clone();
    let unseen = SpanContext::new(
        known.trace_id(),
        opentelemetry::trace::SpanId::from(77),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    let unseen = Context::new().with_remote_span_context(unseen);
    assert_eq!(bind(&unseen, &a.to()), TraceBinding::NotOurs);
    assert_eq!(waiting(&pipeline), (1, 1, 0));
    assert!(bind(&root, &a.to()).is_bound());
    assert_eq!(bind(&root, &a.to()), TraceBinding::AlreadyBound);
    let elsewhere = bind(&root, &b.to());
    assert_eq!(elsewhere, TraceBinding::BoundElsewhere);
    assert!(!elsewhere.is_bound());
    assert_eq!(bind(&root, &Destination::discard()), elsewhere);
    // One that had its destination when it started.
    let bound = support::root(&tracer, &b.to(), "bound");
    assert_eq!(bind(&bound, &b.to()), TraceBinding::AlreadyBound);
    assert_eq!(bind(&bound, &a.to()), TraceBinding::BoundElsewhere);
    let nowhere = undecided(&tracer, "nowhere");
    assert_eq!(bind(&nowhere, &Destination::discard()), TraceBinding::Bound);
    let late = undecided(&tracer, "late");
    for cx in [root, bound, nowhere] {
        cx.span().end();
    }
    let report = pipeline.shutdown(PATIENCE).wait();
    assert_eq!(report.undecided, Default::default(), "{report}");
    assert_eq!(bind(&late, &a.to()), TraceBinding::Expired);
    let later = undecided(&tracer, "later");
    assert_eq!(bind(&later, &a.to()), TraceBinding::Expired);
    drop((late, later));
    assert_eq!(waiting(&pipeline), (0, 0, 0));
    assert_eq!(a.names(), ["ended", "root"]);
    assert_eq!(b.names(), ["bound"]);
    let stats = pipeline.stats();
    assert_eq!((stats.unrouted, stats.discarded), (2, 1));
    account(&stats, 6);
}

#[test]
fn a_scope_inside_decides_for_the_trace() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (entered, given) = (Place::new("scope-entered"), Place::new("scope-given"));
    let root = undecided(&tracer, "root");
    child(&tracer, &root, "before");
    {
        let _running = root.clone().attach();
        let _scope = entered.to().enter();
        // As `tracing` does it: the context that is given has no scope, the current one has.
        child(&tracer, &root, "inside");
    }
    child(&tracer, &root, "after");
    root.span().end();
    let root = undecided(&tracer, "root");
    child(&tracer, &given.to().in_context(&root), "inside");
    root.span().end();
    flush(&pipeline);
    assert_eq!(entered.names(), ["after", "before", "inside", "root"]);
    assert_eq!(given.names(), ["inside", "root"]);
    account(&pipeline.stats(), 6);
    assert_eq!(pipeline.stats().ignored_scopes, 0);
    settled(&pipeline);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

#[test]
fn a_scope_that_is_hidden_is_not_passed_over_for_the_one_around_it() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (outer, inner) = (Place::new("hidden-outer"), Place::new("hidden-inner"));
    let root = undecided(&tracer, "root");
    let hidden = || {
        // As `tracing` does it when a span is entered again that was made outside.
        let _entered = root.clone().attach();
        child(&tracer, &root, "hidden");
    };
    // A guard inside the future.
    let future = async {
        let _scope = inner.to().enter();
        hidden();
    };
    let runtime = runtime();
    runtime.block_on(future.with_destination(outer.to()));
    assert_eq!(waiting(&pipeline), (1, 1, 0), "it is nobody's yet");
    root.span().end();
    let _ = pipeline.shutdown(PATIENCE).wait();
    assert!(outer.names().is_empty() && inner.names().is_empty());
    assert_eq!(pipeline.stats().unrouted, 2);
}

#[test]
fn a_scope_around_whoever_takes_up_a_span_of_another_trace_does_not_decide_for_it() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (worker, tenant) = (Place::new("takes-up"), Place::new("taken-up"));
    let request = undecided(&tracer, "request");
    child(&tracer, &request, "before");
    {
        // A worker of one tenant that goes on with a request of nobody yet, in three ways.
        let _scope = worker.to().enter();
        let span = request.span().span_context().clone();
        let given = Context::current().with_remote_span_context(span.clone());
        child(&tracer, &given, "worker's");
        child(
            &tracer,
            &worker.to().in_context(&Context::current()),
            "worker's",
        );
        let carried = Context::current()
            .with_value(())
            .with_remote_span_context(span);
        let _carried = carried.attach();
        child(&tracer, &Context::current(), "worker's");
    }
    assert_eq!(bind(&request, &tenant.to()), TraceBinding::Bound);
    request.span().end();
    flush(&pipeline);
    assert_eq!(tenant.names(), ["before", "request"]);
    assert_eq!(worker.names(), ["worker's"; 3]);
    settled(&pipeline);
}

#[test]
fn values_of_a_trace_that_is_bound_late_are_on_its_root() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("late-values");
    let request = undecided(&tracer, "request");
    let set = |key: &str| {
        let _running = request.clone().attach();
        update_current_trace(|t| drop(t.tags.insert(key.into(), "x".into())))
    };
    assert!(set("before"));
    assert_eq!(bind(&request, &place.to()), TraceBinding::Bound);
    assert!(set("after"));
    request.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    let tags = place.see(|seen| {
        let root = seen.spans.iter().find(|span| span.name() == "request");
        let root = root.unwrap().to_record();
        let keys = root.attributes.iter().map(|a| a.key.as_str());
        keys.filter(|key| key.starts_with("mlflow.traceTag"))
            .count()
    });
    assert_eq!(tags, 2);
    settled(&pipeline);
}

#[test]
fn a_trace_that_is_bound_late_is_sampled_as_its_destination_asks() {
    let pipeline = strict();
    let (tracer, acme) = (tracer(&pipeline), Place::new("late-sampled"));
    let none = acme.to().with_sampling_ratio(0.0).unwrap();
    let root = undecided(&tracer, "root");
    child(&tracer, &root, "before");
    assert_eq!(bind(&root, &none), TraceBinding::Bound);
    child(&tracer, &root, "after");
    root.span().end();
    let root = undecided(&tracer, "in a scope");
    {
        let _running = root.clone().attach();
        let _scope = none.enter();
        child(&tracer, &root, "inside");
    }
    root.span().end();
    flush(&pipeline);
    assert!(acme.names().is_empty());
    assert_eq!(pipeline.stats().sampled_out, 5);
    settled(&pipeline);
}

#[test]
fn one_long_root_gives_no_tenant_the_spans_of_another() {
    // A worker whose loop is one span, without a destination.
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let places: Vec<Place> = (0..20).map(|i| Place::new(&format!("loop-{i}"))).collect();
    let root = undecided(&tracer, "loop");
    for round in 0..5 {
        for place in &places {
            let job = {
                let _running = root.clone().attach();
                let _scope = place.to().enter();
                let job = tracer.start_with_context(format!("job {round}"), &root);
                let job = Context::current().with_span(job);
                child(&tracer, &job, "inside");
                job
            };
            // The context of the job without its scope, on another thread.
            let bare = Context::new().with_remote_span_context(job.span().span_context().clone());
            std::thread::scope(|s| {
                s.spawn(|| child(&tracer, &bare, "handed on"));
            });
            job.span().end();
        }
    }
    root.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    for (i, place) in places.iter().enumerate() {
        let expected = if i == 0 { 16 } else { 15 };
        assert_eq!(place.len(), expected, "{:?}", place.names());
        let counts = count(&place.names()).get("loop").copied();
        assert_eq!(counts, (i == 0).then_some(1));
    }
    account(&pipeline.stats(), 301);
    settled(&pipeline);
}

#[test]
fn an_id_from_outside_neither_decides_nor_joins() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (victim, mallory) = (Place::new("late-victim"), Place::new("late-mallory"));
    for made_here in [true, false] {
        let root = match made_here {
            true => undecided(&tracer, "root"),
            false => {
                let seen = SpanContext::new(
                    opentelemetry::trace::TraceId::from(0xabc),
                    opentelemetry::trace::SpanId::from(0xdef),
                    TraceFlags::SAMPLED,
                    true,
                    TraceState::NONE,
                );
                let seen = Context::new().with_remote_span_context(seen);
                seen.with_span(tracer.start_with_context("root", &seen))
            }
        };
        child(&tracer, &root, "before");
        let steals = |cx: &Context| cx.with_span(tracer.start_with_context("theft", cx));
        let in_scope = steals(&mallory.to().in_context(&forged(&root)));
        assert_eq!(bind(&in_scope, &mallory.to()), TraceBinding::AlreadyBound);
        let without = steals(&forged(&root));
        {
            let _running = without.clone().attach();
            assert!(update_current_trace(|t| t.user_id = Some("mallory".into())));
        }
        assert_eq!(bind(&without, &mallory.to()), TraceBinding::Bound);
        // The trace itself still waits.
        assert_eq!(waiting(&pipeline), (1, 1, 0));
        assert_eq!(bind(&root, &victim.to()), TraceBinding::Bound);
        for cx in [&in_scope, &without, &root] {
            child(&tracer, cx, "then");
            cx.span().end();
        }
    }
    flush(&pipeline);
    let twice = ["before", "before", "root", "root", "then", "then"];
    assert_eq!(victim.names(), twice);
    assert_eq!(mallory.len(), 8, "{:?}", mallory.names());
    let users =
        |place: &Place| place.see(|s| s.updates.iter().filter(|u| u.user_id.is_some()).count());
    assert_eq!((users(&victim), users(&mallory)), (0, 2));
    settled(&pipeline);
}

#[test]
fn a_flush_waits_for_no_decision_and_tells_of_it() {
    let pipeline = strict();
    let (tracer, acme) = (tracer(&pipeline), Place::new("late-flush"));
    let root = undecided(&tracer, "root");
    let quiet = pipeline.flush(PATIENCE).wait();
    assert!(
        quiet.all_stored(),
        "an open trace without spans loses nothing"
    );
    child(&tracer, &root, "before");
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
    assert!(!report.all_stored() && !report.nothing_lost(), "{report}");
    assert_eq!((report.undecided.traces, report.undecided.spans), (1, 1));
    assert_eq!(report.unplaced, Default::default());
    let text = report.to_string();
    assert!(
        text.contains("waiting for a destination: 1 spans"),
        "{text}"
    );
    assert_eq!(bind(&root, &acme.to()), TraceBinding::Bound);
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored() && report.nothing_lost(), "{report}");
    assert_eq!(acme.names(), ["before"]);
    // Nobody is left to decide, so the flush tells of it at once.
    let over = undecided(&tracer, "over");
    child(&tracer, &over, "before");
    over.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert_eq!(report.undecided, Default::default());
    assert_eq!(report.unplaced.unrouted, 2, "{report}");
    assert!(!report.all_stored() && !report.nothing_lost(), "{report}");
    assert!(
        pipeline.flush(PATIENCE).wait().nothing_lost(),
        "told before"
    );
    root.span().end();
}

#[test]
fn a_late_child_decides_for_a_trace_whose_root_has_ended() {
    let pipeline = strict();
    let (tracer, acme) = (tracer(&pipeline), Place::new("late-detached"));
    let root = undecided(&tracer, "root");
    root.span().end();
    assert_eq!(waiting(&pipeline), (1, 1, 0));
    let task = root.with_span(tracer.start_with_context("task", &root));
    assert_eq!(bind(&task, &acme.to()), TraceBinding::Bound);
    task.span().end();
    flush(&pipeline);
    assert_eq!(acme.names(), ["root", "task"]);
    settled(&pipeline);
}

#[test]
fn after_the_wait_it_is_too_late_for_the_trace_and_not_for_a_scope_inside() {
    let pipeline = quick()
        .strict()
        .with_late_binding(Duration::from_millis(20), 1 << 20)
        .build()
        .unwrap();
    let (tracer, acme) = (tracer(&pipeline), Place::new("too-late"));
    let root = undecided(&tracer, "root");
    child(&tracer, &root, "before");
    {
        let _running = root.clone().attach();
        assert!(update_current_trace(|t| t.name = Some("lost".into())));
    }
    eventually("nobody waits any more", || waiting(&pipeline).0 == 0);
    assert_eq!(bind(&root, &acme.to()), TraceBinding::Expired);
    child(&tracer, &root, "after");
    child(&tracer, &acme.to().in_context(&root), "inside");
    root.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert_eq!(acme.names(), ["inside"]);
    let lost = report.unplaced;
    assert_eq!((lost.unrouted, lost.unrouted_updates), (3, 1), "{report}");
    assert!(
        report
            .to_string()
            .contains("1 trace-level updates unrouted")
    );
    account(&pipeline.stats(), 4);
    settled(&pipeline);
}

#[test]
fn without_linger_a_trace_is_over_with_its_last_span() {
    let pipeline = quick()
        .strict()
        .with_linger(Duration::ZERO)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let root = undecided(&tracer, "root");
    child(&tracer, &root, "child");
    assert_eq!(waiting(&pipeline), (1, 1, 0));
    root.span().end();
    assert_eq!(waiting(&pipeline), (0, 0, 0));
    assert_eq!(pipeline.stats().unrouted, 2);
}

#[test]
fn with_a_global_there_is_nothing_to_decide_and_without_one_there_is() {
    let slot = Arc::new(GlobalSlot::new());
    let pipeline = quick()
        .with_global(slot.clone())
        .with_late_binding(NOT_SOON, 1 << 20)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let (global, acme) = (Place::new("late-global"), Place::new("late-beside-global"));
    slot.set(global.to());
    let root = undecided(&tracer, "root");
    assert_eq!(waiting(&pipeline), (0, 0, 0));
    assert_eq!(bind(&root, &acme.to()), TraceBinding::BoundElsewhere);
    slot.clear();
    let later = undecided(&tracer, "later");
    slot.set(global.to());
    assert_eq!(bind(&later, &acme.to()), TraceBinding::Bound);
    drop((root, later));
    flush(&pipeline);
    assert_eq!(
        (global.names(), acme.names()),
        (vec!["root".into()], vec!["later".into()])
    );
}

#[test]
fn it_can_be_off_and_has_to_leave_room() {
    for builder in [quick().strict().with_late_binding(NOT_SOON, 0), quick()] {
        let pipeline = builder.build().unwrap();
        let (tracer, acme) = (tracer(&pipeline), Place::new("late-off"));
        let root = undecided(&tracer, "root");
        assert_eq!(bind(&root, &acme.to()), TraceBinding::Expired);
        child(&tracer, &acme.to().in_context(&root), "inside");
        drop(root);
        flush(&pipeline);
        assert_eq!((acme.len(), pipeline.stats().unrouted), (0, 2));
    }
    let error = quick()
        .with_budget(1 << 20, 1 << 20)
        .with_late_binding(NOT_SOON, 1 << 20)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("with_late_binding"), "{error}");
}

#[test]
fn each_pipeline_decides_for_itself() {
    let (one, two) = (strict(), strict());
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_span_processor(one.processor())
        .with_span_processor(two.processor())
        .build();
    let tracer = opentelemetry::trace::TracerProvider::tracer(&provider, "both");
    let acme = Place::new("late-both");
    let root = undecided(&tracer, "root");
    assert_eq!(bind(&root, &acme.to()), TraceBinding::Bound);
    assert_eq!(bind(&root, &acme.to()), TraceBinding::AlreadyBound);
    root.span().end();
    flush(&one);
    flush(&two);
    assert_eq!(acme.names(), ["root", "root"]);
}

#[test]
fn a_request_that_learns_its_tenant_in_a_future() {
    let pipeline = strict();
    let (tracer, acme) = (tracer(&pipeline), Place::new("late-future"));
    let work = async {
        tokio::task::yield_now().await;
        child(&tracer, &Context::current(), "inside");
    };
    let request = async {
        child(&tracer, &Context::current(), "authenticate");
        work.with_destination(acme.to()).await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let root = undecided(&tracer, "request");
    {
        use opentelemetry::trace::FutureExt as _;
        runtime
            .unwrap()
            .block_on(request.with_context(root.clone()));
    }
    drop(root);
    flush(&pipeline);
    assert_eq!(acme.names(), ["authenticate", "inside", "request"]);
}

#[test]
fn a_scope_around_somebody_elses_span_decides_nothing() {
    let pipeline = strict();
    let tracer = tracer(&pipeline);
    let (theirs, ours) = (Place::new("around-theirs"), Place::new("around-ours"));
    let unknown = undecided(&tracer, "unknown");
    let own = root(&tracer, &ours.to(), "own");
    // No span of one's own; one of another trace; one that a caller only claims to have.
    let around = [Context::new(), own.clone(), forged(&unknown)];
    for cx in &around {
        let _current = ours.to().in_context(cx).attach();
        child(&tracer, &unknown, "taken up");
        assert_eq!(waiting(&pipeline), (1, 0, 0));
    }
    {
        // A context that was attached inside hides the scope.
        let _scope = ours.to().enter();
        let _current = unknown.clone().attach();
        child(&tracer, &unknown, "hidden");
    }
    assert_eq!(waiting(&pipeline), (1, 1, 0));
    assert_eq!(bind(&unknown, &theirs.to()), TraceBinding::Bound);
    unknown.span().end();
    own.span().end();
    flush(&pipeline);
    assert_eq!(theirs.names(), ["hidden", "unknown"]);
    assert_eq!(ours.names(), ["own", "taken up", "taken up", "taken up"]);
    account(&pipeline.stats(), 6);
    settled(&pipeline);
}
