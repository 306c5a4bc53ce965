//! Through `tracing` and `tracing-opentelemetry` (probed against 0.34).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt, Tracer};
use support::*;
use trace_destination_core::{DestinationExt, Pipeline};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

fn traced(pipeline: &Pipeline, f: impl FnOnce()) {
    let layer = tracing_opentelemetry::layer().with_tracer(tracer(pipeline));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), f);
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn spans_of_tracing_follow_the_scope() {
    let pipeline = quick().build().unwrap();
    let (a, b) = (Place::new("layer-a"), Place::new("layer-b"));
    traced(&pipeline, || {
        {
            let _scope = a.to().enter();
            let root = tracing::info_span!("root").entered();
            let _child = tracing::info_span!("child").entered();
            drop(root);
        }
        let _scope = b.to().enter();
        tracing::info_span!("other").in_scope(|| {});
    });
    flush(&pipeline);
    assert_eq!(a.names(), ["child", "root"]);
    assert_eq!(b.names(), ["other"]);
    settled(&pipeline);
}

#[test]
fn an_instrumented_future_with_a_context() {
    let pipeline = quick().build().unwrap();
    let a = Place::new("layer-future");
    traced(&pipeline, || {
        let cx = a.to().in_context(&Context::new());
        let work = async {
            tokio::task::yield_now().await;
            tracing::info_span!("inside").in_scope(|| {});
        };
        block_on(
            work.instrument(tracing::info_span!("task"))
                .with_context(cx),
        );
        let work = async {
            tracing::info_span!("inside").in_scope(|| {});
        };
        block_on(
            work.instrument(tracing::info_span!("task"))
                .with_destination(a.to()),
        );
    });
    flush(&pipeline);
    assert_eq!(a.names(), ["inside", "inside", "task", "task"]);
    assert_eq!(pipeline.stats().unrouted, 0);
    settled(&pipeline);
}

#[test]
fn an_explicit_root_inside_another_trace() {
    let pipeline = quick().build().unwrap();
    let (a, b) = (Place::new("layer-root-a"), Place::new("layer-root-b"));
    traced(&pipeline, || {
        let _scope = a.to().enter();
        let _outer = tracing::info_span!("outer").entered();
        let _scope = b.to().enter();
        tracing::info_span!(parent: None, "root").in_scope(|| {
            tracing::info_span!("child").in_scope(|| {});
        });
    });
    flush(&pipeline);
    assert_eq!(a.names(), ["outer"]);
    assert_eq!(b.names(), ["child", "root"]);
    settled(&pipeline);
}

#[test]
fn a_remote_parent_set_by_hand() {
    let pipeline = quick().build().unwrap();
    let a = Place::new("layer-remote");
    let parent = opentelemetry::trace::SpanContext::new(
        opentelemetry::trace::TraceId::from_bytes([7; 16]),
        opentelemetry::trace::SpanId::from_bytes([7; 8]),
        opentelemetry::trace::TraceFlags::SAMPLED,
        true,
        opentelemetry::trace::TraceState::NONE,
    );
    traced(&pipeline, || {
        let _scope = a.to().enter();
        let span = tracing::info_span!("server");
        span.set_parent(Context::new().with_remote_span_context(parent))
            .unwrap();
        span.in_scope(|| tracing::info_span!("child").in_scope(|| {}));
    });
    flush(&pipeline);
    assert_eq!(a.names(), ["child", "server"]);
    let traces = a.see(|s| s.spans.iter().map(|s| s.trace_id()).collect::<Vec<_>>());
    assert!(traces.iter().all(|t| t.to_bytes() == [7; 16]));
    settled(&pipeline);
}

#[test]
fn tasks_switch_scopes_while_their_spans_are_open() {
    let pipeline = quick().build().unwrap();
    let places: Vec<_> = (0..10)
        .map(|i| Place::new(&format!("layer-task-{i}")))
        .collect();
    let subscriber = tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(tracer(&pipeline)));
    let dispatch = tracing::Dispatch::new(subscriber);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = places
            .iter()
            .map(|place| {
                let work = async {
                    for _ in 0..50 {
                        async {
                            tokio::task::yield_now().await;
                            tracing::info_span!("child").in_scope(|| {});
                            tokio::task::yield_now().await;
                        }
                        .instrument(tracing::info_span!("root"))
                        .await;
                    }
                };
                use tracing::instrument::WithSubscriber as _;
                tokio::spawn(
                    work.with_destination(place.to())
                        .with_subscriber(dispatch.clone()),
                )
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    flush(&pipeline);
    for place in &places {
        let names = place.names();
        let counts = count(&names);
        assert_eq!((counts["root"], counts["child"]), (50, 50));
    }
    settled(&pipeline);
}

#[test]
fn spans_of_both_kinds_share_a_trace() {
    let pipeline = quick().build().unwrap();
    let a = Place::new("layer-mixed");
    let direct = tracer(&pipeline);
    traced(&pipeline, || {
        let _scope = a.to().enter();
        let span = tracing::info_span!("tracing");
        let cx = span.context();
        drop(direct.start_with_context("direct", &cx));
    });
    flush(&pipeline);
    assert_eq!(a.names(), ["direct", "tracing"]);
    let traces = a.see(|s| s.spans.iter().map(|s| s.trace_id()).collect::<Vec<_>>());
    assert_eq!(traces[0], traces[1]);
    settled(&pipeline);
}
