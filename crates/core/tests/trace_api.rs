//! The trace-level API: tags, metadata, session and the like, and the link to a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceState, Tracer};
use std::collections::BTreeMap;
use support::*;
use trace_destination_core::{
    Destination, Error, ErrorKind, TraceUpdate, current_trace_id, update_current_trace,
};

/// Everything a place was told about one trace, merged in order.
fn told(place: &Place) -> TraceUpdate {
    place.see(|seen| {
        let mut updates = seen.updates.iter().cloned();
        let first = updates.next().unwrap();
        updates.fold(first, |mut all, next| {
            assert_eq!(all.trace_id, next.trace_id);
            all.merge(next);
            all
        })
    })
}

#[test]
fn values_reach_every_place_of_the_trace_and_the_last_one_wins() {
    let pipeline = quick().with_run_id("run-1").build().unwrap();
    let tracer = tracer(&pipeline);
    let (one, two) = (Place::new("api-1"), Place::new("api-2"));
    let both = Destination::all([one.to(), two.to()]).unwrap();
    assert_eq!(current_trace_id(), None);
    assert!(!update_current_trace(|_| {}));
    let id = {
        let _cx = root(&tracer, &both, "root").attach();
        let id = current_trace_id().unwrap();
        assert!(update_current_trace(|t| {
            assert_eq!(t.trace_id, id);
            t.tags.insert("env".into(), "dev".into());
            t.session_id = Some("s-1".into());
            t.user_id = Some("u-1".into());
            // A trace cannot be renamed into another.
            t.trace_id = opentelemetry::trace::TraceId::from_bytes([9; 16]);
        }));
        flush(&pipeline);
        tracer.in_span("child", |_| {
            assert!(update_current_trace(|t| {
                t.tags.insert("env".into(), "prod".into());
                t.tags.insert("region".into(), "eu".into());
                t.request_preview = Some("hello".into());
            }));
        });
        id
    };
    flush(&pipeline);
    for place in [&one, &two] {
        let told = told(place);
        assert_eq!(told.trace_id, id);
        assert_eq!(
            told.tags,
            BTreeMap::from([
                ("env".into(), "prod".into()),
                ("region".into(), "eu".into())
            ])
        );
        assert_eq!(told.session_id.as_deref(), Some("s-1"));
        assert_eq!(told.user_id.as_deref(), Some("u-1"));
        assert_eq!(told.request_preview.as_deref(), Some("hello"));
        assert_eq!(told.run_id.as_deref(), Some("run-1"));
    }
    settled(&pipeline);
}

#[test]
fn what_the_application_says_of_the_run_wins() {
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_run_id("run-1")
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("api-run");
    {
        let _cx = root(&tracer, &place.to(), "root").attach();
        update_current_trace(|t| t.run_id = Some("mine".into()));
    }
    flush(&pipeline);
    assert_eq!(told(&place).run_id.as_deref(), Some("mine"));
}

#[test]
fn a_remote_span_is_no_key_to_the_trace_it_names() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::new("api-remote");
    let root = root(&tracer, &place.to(), "victim");
    let known = root.span().span_context().clone();
    let forged = SpanContext::new(
        known.trace_id(),
        known.span_id(),
        known.trace_flags(),
        true,
        TraceState::NONE,
    );
    {
        let _cx = Context::new().with_remote_span_context(forged).attach();
        assert_eq!(current_trace_id(), Some(known.trace_id()));
        assert!(!update_current_trace(|t| t.name = Some("forged".into())));
    }
    drop(root);
    flush(&pipeline);
    assert!(place.see(|seen| seen.updates.is_empty()));
}

#[test]
fn updates_count_against_the_budget_and_not_as_spans() {
    let pipeline = quick().with_budget(4_096, 4_096).build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("api-budget", |n, _| {
        if n < 20 {
            Step::Fail(shaky())
        } else {
            Step::Do
        }
    });
    {
        let _cx = root(&tracer, &place.to(), "root").attach();
        for i in 0..100 {
            update_current_trace(|t| {
                t.tags.insert(format!("k{i}"), "x".repeat(200));
            });
            assert!(pipeline.stats().bytes <= 4_096);
        }
    }
    let report = pipeline.flush(PATIENCE).wait();
    settled(&pipeline);
    let stats = place.stats(&pipeline);
    assert_eq!(stats.accepted, 1, "an update is no span");
    // What did not fit is not lost in silence.
    let stored = place.see(|seen| {
        seen.updates
            .iter()
            .map(|u| u.tags.len() as u64)
            .sum::<u64>()
    });
    assert!(stored < 100);
    assert_eq!(stats.lost_updates, 100 - stored);
    assert!(report.is_complete() && !report.all_stored());
}

#[test]
fn a_trace_that_has_ended_is_updated_where_its_destination_is_named() {
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let (home, spans) = (Place::new("later-home"), Place::of_spans("later-spans"));
    let both = Destination::all([home.to(), spans.to()]).unwrap();
    let cx = root(&tracer, &both, "root");
    let id = cx.span().span_context().trace_id();
    let update = |to: &Destination, value: &str| {
        pipeline.update_trace(id, to, |t| {
            t.trace_id = opentelemetry::trace::TraceId::from(1);
            t.tags.insert("k".into(), value.into());
        })
    };
    // While it runs, its root can still carry them.
    assert!(update(&spans.to(), "in time"));
    cx.span().end();
    flush(&pipeline);
    assert!(update(&both, "later"));
    flush(&pipeline);
    let later = told(&home);
    assert_eq!((later.trace_id, later.tags["k"].as_str()), (id, "later"));
    let stats = spans.stats(&pipeline);
    assert_eq!(stats.lost_updates, 1);
    let error = stats.last_error.unwrap().to_string();
    assert!(error.contains("root span had ended"), "{error}");
    spans.see(|seen| {
        let found = seen.spans[0].attributes().get("mlflow.traceTag.k").unwrap();
        assert_eq!(found.as_str(), Some("in time"));
    });
    // A place that never had a span of this process, and destinations that are no place.
    let other = Place::new("later-other");
    assert!(update(&other.to(), "other"));
    flush(&pipeline);
    assert_eq!(told(&other).tags["k"], "other");
    for nowhere in [Destination::discard(), Destination::unset()] {
        assert!(!update(&nowhere, "nowhere"));
    }
    let invalid = opentelemetry::trace::TraceId::INVALID;
    assert!(!pipeline.update_trace(invalid, &home.to(), |_| {}));
    settled(&pipeline);
}

#[test]
fn updates_that_are_not_stored_are_counted() {
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let tracer = tracer(&pipeline);
    let condemned = || Error::new(ErrorKind::InvalidSpan, "write", "bad").mend("make it");
    let place = Place::on_write("api-lost", move |_, _| Step::Fail(condemned()));
    {
        let _cx = root(&tracer, &place.to(), "root").attach();
        update_current_trace(|t| t.name = Some("failed".into()));
        flush(&pipeline);
        assert_eq!(place.stats(&pipeline).lost_updates, 1);
        pipeline.shutdown(PATIENCE).wait();
        update_current_trace(|t| t.name = Some("late".into()));
    }
    assert_eq!(place.stats(&pipeline).lost_updates, 2);
    settled(&pipeline);
}
