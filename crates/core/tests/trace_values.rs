//! Values set on a trace, at places that have spans and nothing else: they travel on its root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Duration;
use support::*;
use trace_destination_core::{Destination, Pipeline, Span, Transformed, update_current_trace};

const NAME: &str = "mlflow.traceTag.mlflow.traceName";

/// The attributes of the span with this name, each there once.
fn attributes(place: &Place, name: &str) -> BTreeMap<String, String> {
    place.see(|seen| {
        let mut named = seen.spans.iter().filter(|span| span.name() == name);
        let span = named.next().unwrap();
        assert!(named.next().is_none(), "two spans `{name}`");
        let all = span.attributes();
        let text = |(k, v): (&str, trace_destination_core::AnyValueRef<'_>)| {
            (k.to_owned(), v.as_str().unwrap_or("?").to_owned())
        };
        let map: BTreeMap<_, _> = all.iter().map(text).collect();
        assert_eq!(map.len(), all.iter().count(), "a key is there twice");
        map
    })
}

fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    of.iter().map(owned).collect()
}

fn set(key: &str, value: &str) -> bool {
    update_current_trace(|trace| {
        trace.tags.insert(key.into(), value.into());
    })
}

/// What a place lost, with the last error.
fn lost(place: &Place, pipeline: &Pipeline) -> (u64, String) {
    let stats = place.stats(pipeline);
    let error = stats.last_error.map(|e| e.to_string());
    (stats.lost_updates, error.unwrap_or_default())
}

#[test]
fn values_are_on_the_root_and_nowhere_else() {
    let pipeline = quick().with_run_id("run-1").build().unwrap();
    let tracer = tracer(&pipeline);
    let (spans, both) = (Place::of_spans("root-spans"), Place::new("root-home"));
    let to = Destination::all([spans.to(), both.to()]).unwrap();
    {
        let cx = root(&tracer, &to, "root");
        cx.span()
            .set_attribute(KeyValue::new("session.id", "of the span"));
        let _cx = cx.attach();
        assert!(update_current_trace(|trace| {
            trace.session_id = Some("s-1".into());
            trace.name = Some("first".into());
        }));
        // A flush in between leaves nothing behind, and nothing is lost by it.
        let report = pipeline.flush(PATIENCE).wait();
        assert!(report.all_stored(), "{report}");
        tracer.in_span("child", |_| {
            assert!(update_current_trace(|trace| {
                trace.name = Some("second".into());
                trace.user_id = Some("u-1".into());
                trace.tags.insert("env".into(), "dev".into());
                trace.metadata.insert("build".into(), "7".into());
                trace.request_preview = Some("in".into());
                trace.response_preview = Some("out".into());
                trace.client_request_id = Some("c-1".into());
            }));
        });
    }
    span_to(&tracer, &to, "plain");
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    let expected = [
        (NAME, "second"),
        ("session.id", "s-1"),
        ("user.id", "u-1"),
        ("mlflow.traceTag.env", "dev"),
        ("mlflow.traceMetadata.build", "7"),
        ("mlflow.traceInputs", "in"),
        ("mlflow.traceOutputs", "out"),
        ("mlflow.trace.clientRequestId", "c-1"),
        ("mlflow.sourceRun", "run-1"),
    ];
    assert_eq!(attributes(&spans, "root"), pairs(&expected));
    assert_eq!(attributes(&spans, "child"), pairs(&[]));
    assert_eq!(
        attributes(&spans, "plain"),
        pairs(&[("mlflow.sourceRun", "run-1")])
    );
    assert!(spans.see(|seen| seen.updates.is_empty()));
    // A place with a home gets its spans as they are.
    assert_eq!(
        attributes(&both, "root"),
        pairs(&[("session.id", "of the span")])
    );
    assert!(both.see(|seen| {
        seen.updates
            .iter()
            .any(|u| u.run_id.as_deref() == Some("run-1"))
    }));
    settled(&pipeline);
}

#[test]
fn values_that_come_after_the_root_are_lost_with_a_reason() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("after-the-root");
    let cx = root(&tracer, &place.to(), "root");
    let child = cx.with_span(tracer.start_with_context("child", &cx));
    {
        let _child = child.clone().attach();
        assert!(set("before", "x"));
    }
    cx.span().end();
    {
        let _child = child.clone().attach();
        assert!(set("after", "x"), "the span is bound all the same");
    }
    let (count, error) = lost(&place, &pipeline);
    assert_eq!(count, 1);
    assert!(
        error.contains("root span had ended") && error.contains("after-the-root"),
        "{error}"
    );
    child.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(!report.all_stored() && report.is_complete(), "{report}");
    assert_eq!(
        attributes(&place, "root"),
        pairs(&[("mlflow.traceTag.before", "x")])
    );
    settled(&pipeline);
}

#[test]
fn values_that_still_wait_at_the_shutdown_are_lost() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("waits-at-the-end");
    let cx = root(&tracer, &place.to(), "never ends in time");
    let other = root(&tracer, &place.to(), "ends in time");
    for cx in [&cx, &other] {
        let _cx = cx.clone().attach();
        assert!(set("key", "x") && set("other", "y"));
    }
    other.span().end();
    let report = pipeline.shutdown(PATIENCE).wait();
    let of = report.location(place.uri()).unwrap();
    // The values of one trace are one thing to lose.
    assert_eq!((of.stored, of.lost_updates), (1, 1), "{report}");
    assert!(!report.all_stored());
    let error = of.error.as_ref().unwrap().to_string();
    assert!(error.contains("had not ended at the shutdown"), "{error}");
    let _cx = cx.clone().attach();
    assert!(set("key", "too late"));
    let (count, error) = lost(&place, &pipeline);
    assert_eq!(count, 2);
    assert!(error.contains("was shut down"), "{error}");
    cx.span().end();
    settled(&pipeline);
}

#[test]
fn a_trace_from_elsewhere_has_its_values_on_the_root_of_its_part_here() {
    let pipeline = quick().with_run_id("run-1").build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("from-elsewhere");
    let caller = |id| {
        let id = TraceId::from(id);
        let remote = SpanContext::new(
            id,
            SpanId::from(5),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        let cx = place.to().in_context(&Context::new());
        cx.with_remote_span_context(remote)
    };
    let incoming = caller(1);
    let cx = incoming.with_span(tracer.start_with_context("request", &incoming));
    {
        let _cx = cx.clone().attach();
        tracer.in_span("inside", |_| assert!(set("tenant", "x")));
    }
    cx.span().end();

    // A request to oneself is no root: the trace began here.
    let cx = root(&tracer, &place.to(), "root");
    let id = cx.span().span_context().trace_id();
    let to_oneself = caller(u128::from_be_bytes(id.to_bytes()));
    {
        let _cx = cx.clone().attach();
        assert!(set("tenant", "y"));
    }
    tracer.start_with_context("to oneself", &to_oneself).end();
    flush(&pipeline);
    cx.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(
        attributes(&place, "request"),
        pairs(&[("mlflow.traceTag.tenant", "x")])
    );
    assert_eq!(attributes(&place, "inside"), pairs(&[]));
    assert_eq!(attributes(&place, "to oneself"), pairs(&[]));
    let expected = [
        ("mlflow.traceTag.tenant", "y"),
        ("mlflow.sourceRun", "run-1"),
    ];
    assert_eq!(attributes(&place, "root"), pairs(&expected));
    settled(&pipeline);
}

#[test]
fn one_foreign_id_at_two_places_keeps_its_values_apart() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (mine, yours) = (
        Place::of_spans("apart-mine"),
        Place::of_spans("apart-yours"),
    );
    let own = root(&tracer, &mine.to(), "mine");
    let id = own.span().span_context().clone();
    let remote = SpanContext::new(
        id.trace_id(),
        SpanId::from(5),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let incoming = yours
        .to()
        .in_context(&Context::new())
        .with_remote_span_context(remote);
    let foreign = incoming.with_span(tracer.start_with_context("yours", &incoming));
    for (cx, value) in [(&own, "mine"), (&foreign, "yours")] {
        let _cx = cx.clone().attach();
        assert!(set("whose", value));
    }
    own.span().end();
    {
        // The own root has ended, and this is not its trace.
        let _cx = foreign.clone().attach();
        assert!(set("more", "yours"));
    }
    foreign.span().end();
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(
        attributes(&mine, "mine"),
        pairs(&[("mlflow.traceTag.whose", "mine")])
    );
    let expected = [
        ("mlflow.traceTag.whose", "yours"),
        ("mlflow.traceTag.more", "yours"),
    ];
    assert_eq!(attributes(&yours, "yours"), pairs(&expected));
    settled(&pipeline);
}

#[test]
fn whatever_thread_sets_a_value_before_the_root_ends_it_is_not_lost() {
    const TRACES: usize = 400;
    let pipeline = quick()
        .with_batch_limits(trace_destination_core::BatchLimits {
            // Batches are sealed all the time, also between a value and its root.
            spans: 1,
            ..unhurried()
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("threads");
    // One thread sets, the other ends: each has a queue of its own to the delivery.
    let (was_set, has_ended) = (Barrier::new(2), Barrier::new(2));
    let current = std::sync::Mutex::new(Context::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..TRACES {
                let cx = root(&tracer, &place.to(), "root");
                *current.lock().unwrap() = cx.clone();
                let _cx = cx.attach();
                assert!(set("n", &i.to_string()));
                was_set.wait();
                has_ended.wait();
            }
        });
        scope.spawn(|| {
            for _ in 0..TRACES {
                was_set.wait();
                current.lock().unwrap().span().end();
                has_ended.wait();
            }
        });
    });
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    place.see(|seen| {
        assert_eq!(seen.spans.len(), TRACES);
        for (i, span) in seen.spans.iter().enumerate() {
            let found = span.attributes().get("mlflow.traceTag.n").unwrap();
            assert_eq!(found.as_str(), Some(i.to_string().as_str()));
        }
    });
    settled(&pipeline);
}

#[test]
fn a_hundred_thousand_open_traces_stay_inside_the_budget() {
    const TRACES: usize = 100_000;
    const BUDGET: usize = 8 << 20;
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_budget(BUDGET, BUDGET)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("many-open");
    let open: Vec<Context> = (0..TRACES)
        .map(|i| {
            let cx = root(&tracer, &place.to(), "root");
            let _cx = cx.clone().attach();
            assert!(set("key", &format!("{i:0100}")));
            cx
        })
        .collect();
    let held = pipeline.stats().bytes;
    assert!(held <= BUDGET / 2, "{held} bytes");
    let (refused, error) = lost(&place, &pipeline);
    assert!(refused > 0 && refused < TRACES as u64, "{refused}");
    assert!(error.contains("there is no room"), "{error}");
    // Spans have the other half, also while nothing is given back.
    for _ in 0..100 {
        span_to(&tracer, &place.to(), "span");
    }
    flush(&pipeline);
    assert_eq!(place.stats(&pipeline).dropped.total(), 0);
    for (i, cx) in open.iter().enumerate() {
        cx.span().end();
        if i % 10_000 == 9_999 {
            flush(&pipeline);
        }
    }
    flush(&pipeline);
    assert_eq!(lost(&place, &pipeline).0, refused, "nothing more");
    let stored = place.see(|seen| {
        let with = |s: &&Span| s.attributes().get("mlflow.traceTag.key").is_some();
        seen.spans.iter().filter(with).count() as u64
    });
    assert_eq!(stored + refused, TRACES as u64);
    settled(&pipeline);
}

#[test]
fn values_of_a_root_that_was_dropped_are_lost_and_their_room_is_given_back() {
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_linger(Duration::from_millis(40))
        .with_budget(16_384, 16_384)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("dropped-root");
    let cx = root(&tracer, &place.to(), "root");
    {
        let _cx = cx.clone().attach();
        assert!(set("key", "x"));
    }
    // Larger than the budget, which is not empty.
    cx.span()
        .set_attribute(KeyValue::new("large", "x".repeat(20_000)));
    cx.span().end();
    flush(&pipeline);
    assert_eq!(place.stats(&pipeline).dropped.total(), 1);
    eventually("the values are counted as lost", || {
        lost(&place, &pipeline).0 == 1
    });
    assert!(lost(&place, &pipeline).1.contains("root span did not come"));
    settled(&pipeline);
}

#[test]
fn a_hook_sees_values_on_the_root() {
    let pipeline = quick()
        .with_transform(|_: &trace_destination_core::LocationUri, span: &mut Span| {
            let record = span.record_mut();
            record.attributes.retain(|a| a.key.as_str() != "user.id");
            Transformed::Keep
        })
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::of_spans("hook");
    {
        let _cx = root(&tracer, &place.to(), "root").attach();
        update_current_trace(|trace| {
            trace.user_id = Some("somebody".into());
            trace.session_id = Some("s".into());
        });
    }
    flush(&pipeline);
    assert_eq!(attributes(&place, "root"), pairs(&[("session.id", "s")]));
}

#[test]
fn what_a_place_does_not_keep_is_cut_or_counted_before_it_gets_there() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (spans, home) = (Place::of_spans("limits-spans"), Place::new("limits-home"));
    let to = Destination::all([spans.to(), home.to()]).unwrap();
    {
        let _cx = root(&tracer, &to, "root").attach();
        update_current_trace(|trace| {
            trace.session_id = Some("s".repeat(251));
            trace
                .tags
                .insert("mlflow.trace.spansLocation".into(), "nowhere".into());
            trace.tags.insert("k".repeat(251), "x".into());
            trace.tags.insert("fine".into(), "x".into());
        });
    }
    flush(&pipeline);
    for place in [&spans, &home] {
        let (count, error) = lost(place, &pipeline);
        assert_eq!(count, 1);
        assert!(
            error.contains("spansLocation") || error.contains("and 1 more"),
            "{error}"
        );
    }
    let session = "s".repeat(250);
    let expected = [
        ("session.id", session.as_str()),
        ("mlflow.traceTag.fine", "x"),
    ];
    assert_eq!(attributes(&spans, "root"), pairs(&expected));
    home.see(|seen| {
        assert_eq!(seen.updates.len(), 1);
        assert_eq!(
            seen.updates[0].session_id.as_deref(),
            Some(session.as_str())
        );
        assert_eq!(seen.updates[0].tags.len(), 1);
    });
}
