//! What is told beside spans (trace info, tags, runs) when its calls fail for a while or for good:
//! the spans stay stored and the lane goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::{TraceContextExt as _, TraceId, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::http::{Reply, Request, Server};
use support::mlflow::{Mlflow, Trace};
use support::{batch, builder, location, open, root, span, updated};
use trace_destination_core::{
    Destination, Pipeline, SpanRecord, TraceLocation as _, TraceUpdate, update_current_trace,
};

/// OTLP: the parent is known to be in another process.
const REMOTE: u32 = 0x300;
const PATIENCE: Duration = Duration::from_secs(30);

/// A storing server whose calls beside `/v1/traces` answer with `fault` while it is told to.
struct World {
    mlflow: Arc<Mlflow>,
    server: Server,
    is_bad: Arc<AtomicBool>,
}

fn completes(r: &Request) -> bool {
    let path = r.path();
    path.ends_with("/api/3.0/mlflow/traces")
        || path.ends_with("/tags")
        || path.ends_with("/link-to-run")
        || path.ends_with("/batchGetInfos")
}

fn world(fault: Reply) -> World {
    let mlflow = Arc::new(Mlflow::default());
    let is_bad = Arc::new(AtomicBool::new(true));
    let (answers, bad) = (mlflow.clone(), is_bad.clone());
    let server = Server::start(move |r| {
        // Before its spans a trace is looked up too, which is no completion.
        let is_known = |id: &serde_json::Value| {
            answers.with("/s", |s| s.traces.contains_key(id.as_str().unwrap()))
        };
        let asked = r.json();
        let before = asked["trace_ids"]
            .as_array()
            .is_some_and(|ids| !ids.iter().any(is_known));
        match completes(r) && !before && bad.load(Ordering::SeqCst) {
            true => fault.clone(),
            false => answers.answer(r),
        }
    });
    World {
        mlflow,
        server,
        is_bad,
    }
}

impl World {
    fn uri(&self) -> String {
        format!("{}/s?experiment_name=n", self.server.url())
    }

    fn trace(&self, id: u128) -> Option<Trace> {
        let id = format!("tr-{}", TraceId::from(id));
        self.mlflow.with("/s", |s| s.traces.get(&id).cloned())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn completed(&self) -> usize {
        self.server
            .requests()
            .iter()
            .filter(|r| completes(r))
            .count()
    }
}

fn told(trace: u128) -> TraceUpdate {
    let mut update = TraceUpdate::new(TraceId::from(trace));
    update.client_request_id = Some("request".into());
    update.run_id = Some("run".into());
    update
}

/// A local root below a parent in another process.
fn entry(trace: u128, id: u64) -> SpanRecord {
    let mut span = span(trace, id);
    span.parent_span_id = Some(opentelemetry::trace::SpanId::from(99));
    span.flags = REMOTE;
    span
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_fail_for_a_while_cost_nothing() {
    for fault in [
        Reply::text(500, "deploying"),
        Reply::text(503, "deploying"),
        Reply::text(403, "not yet"),
        Reply::text(404, "no route"),
        Reply::text(429, "slow down"),
        Reply::new(200, "text/html", "<p>Log in"),
        Reply::Reset,
    ] {
        let world = world(fault.clone());
        let sink = open(&location(&world.uri())).await.unwrap();
        for trace in 1..=20 {
            let written = sink.write(&updated([root(trace)], vec![told(trace)])).await;
            let written = written.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
            assert!(written.refused.is_empty() && written.lost_updates.is_empty());
        }
        assert_eq!(world.mlflow.with("/s", |s| s.traces.len()), 20);
        assert_eq!(
            world.server.requests_to("/v1/traces").len(),
            20,
            "sent once"
        );
        world.is_bad.store(false, Ordering::SeqCst);
        world
            .until("values come later", |w| {
                (1..=20).all(|trace| {
                    let trace = w.trace(trace).unwrap();
                    trace.client_request_id.as_deref() == Some("request") && trace.runs == ["run"]
                })
            })
            .await;
        let written = sink.write(&batch([root(99)])).await.unwrap();
        assert!(written.lost_updates.is_empty(), "{fault:?}: {written:?}");
    }
}

/// One call that hangs holds its batch for a moment, and the ones after it not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_hang_do_not_hold_the_lane() {
    let world = world(Reply::Hang);
    let sink = open(&location(&world.uri())).await.unwrap();
    let writes = async {
        for trace in 1..=50 {
            let batch = updated([root(trace)], vec![told(trace)]);
            sink.write(&batch).await.unwrap();
        }
    };
    // A request may take 60 s: fifty that were waited for would take most of an hour.
    tokio::time::timeout(Duration::from_secs(30), writes)
        .await
        .unwrap();
    assert_eq!(world.mlflow.with("/s", |s| s.traces.len()), 50);
    // One look-up before the spans of each, and few calls after them.
    assert!(world.completed() < 70, "{} calls", world.completed());
}

/// Through a pipeline: stored, and told as lost in the end.
#[test]
fn calls_that_never_succeed_are_lost_updates() {
    let world = world(Reply::text(503, "away"));
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("t");
    let location = location(&world.uri());
    let uri = location.uri().clone();
    let at = Destination::new(location);
    for _ in 0..3 {
        let cx = at.in_context(&opentelemetry::Context::new());
        let span = tracer.start_with_context("root", &cx);
        let _active = cx.with_span(span).attach();
        assert!(update_current_trace(
            |u| u.client_request_id = Some("r".into())
        ));
    }
    let report = pipeline.flush(Duration::from_secs(30)).wait();
    // Spans are stored, and values are still tried.
    assert!(report.is_complete() && report.nothing_lost(), "{report}");
    assert!(!report.all_stored(), "{report}");
    let late = report.location(&uri).unwrap().late_updates;
    assert!((1..=3).contains(&late), "{report}");
    let report = pipeline.shutdown(Duration::from_secs(30)).wait();
    assert!(!report.all_stored(), "{report}");
    let of = report.location(&uri).unwrap();
    assert_eq!((of.stored, of.lost_updates), (3, 3), "{report}");
    assert_eq!(world.mlflow.with("/s", |s| s.traces.len()), 3);
    drop(provider);
}

/// A shutdown right after a bad moment tries once more.
#[test]
fn a_shutdown_tries_once_more() {
    let world = world(Reply::text(403, "away"));
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let location = location(&world.uri());
    let uri = location.uri().clone();
    let cx = Destination::new(location).in_context(&opentelemetry::Context::new());
    {
        let span = provider.tracer("t").start_with_context("root", &cx);
        let _active = cx.with_span(span).attach();
        update_current_trace(|u| u.client_request_id = Some("r".into()));
    }
    let report = pipeline.flush(Duration::from_secs(30)).wait();
    assert!(report.is_complete() && !report.all_stored(), "{report}");
    world.is_bad.store(false, Ordering::SeqCst);
    let report = pipeline.shutdown(Duration::from_secs(30)).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(report.location(&uri).unwrap().lost_updates, 0, "{report}");
    world.mlflow.with("/s", |s| {
        let trace = s.traces.values().next().unwrap();
        assert_eq!(trace.client_request_id.as_deref(), Some("r"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_whose_root_is_elsewhere_is_not_ended_here() {
    let world = world(Reply::Reset);
    world.is_bad.store(false, Ordering::SeqCst);
    let sink = open(&location(&world.uri())).await.unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.session_id = Some("sess".into());
    update.tags.insert("env".into(), "dev".into());
    update.request_preview = Some("hello?".into());
    sink.write(&updated([entry(1, 7)], vec![update]))
        .await
        .unwrap();
    // What needs no end of the trace is told at once.
    let trace = world.trace(1).unwrap();
    assert_eq!(trace.metadata["mlflow.trace.session"], "sess");
    assert_eq!(trace.tags["env"], "dev");
    // It is looked for, and left alone as long as its root is not there.
    let looked = world.server.requests_to("/batchGetInfos").len();
    world
        .until("it is looked for", |w| {
            w.server.requests_to("/batchGetInfos").len() > looked + 2
        })
        .await;
    let finalised = |w: &World| w.server.requests_to("/api/3.0/mlflow/traces").len();
    assert_eq!(finalised(&world), 0);
    let trace = world.trace(1).unwrap();
    assert_eq!(trace.state, "IN_PROGRESS");
    assert!(!trace.metadata.contains_key("mlflow.trace.infoFinalized"));
    assert_eq!(trace.request_preview, None);
    // The other service stores the root.
    world.mlflow.with("/s", |s| {
        s.traces.values_mut().next().unwrap().state = "OK".into();
    });
    world
        .until("the rest comes with the end", |w| {
            w.trace(1).unwrap().request_preview.as_deref() == Some("hello?")
        })
        .await;
    assert_eq!(world.trace(1).unwrap().state, "OK");
    // A root that is here ends its trace as ever.
    sink.write(&updated([root(2)], vec![told(2)]))
        .await
        .unwrap();
    assert_eq!(
        world.trace(2).unwrap().client_request_id.as_deref(),
        Some("request")
    );
}

/// Values that wait are told in the end, however many other traces are set values on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_wait_outlast_those_of_others() {
    let world = world(Reply::Reset);
    world.is_bad.store(false, Ordering::SeqCst);
    let sink = open(&location(&world.uri())).await.unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.request_preview = Some("hello?".into());
    sink.write(&updated([entry(1, 7)], vec![update]))
        .await
        .unwrap();
    // More than are remembered, of traces that have no span yet.
    let others = (1_000..10_000).map(told).collect();
    sink.write(&updated([root(2)], others)).await.unwrap();
    world.mlflow.with("/s", |s| {
        let id = format!("tr-{}", TraceId::from(1));
        s.traces.get_mut(&id).unwrap().state = "OK".into();
    });
    world
        .until("the values come with the end", |w| {
            w.trace(1).unwrap().request_preview.as_deref() == Some("hello?")
        })
        .await;
    let written = sink.write(&batch([root(3)])).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
}

/// The same for tables behind Databricks, where spans that were sent again would be there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_info_of_databricks_is_tried_apart() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let bad = is_bad.clone();
    let server = Server::start(move |r| match r.path().ends_with("/info") {
        true if bad.load(Ordering::SeqCst) => Reply::text(503, "away"),
        true => Reply::json(200, serde_json::json!({})),
        false => Reply::stored(),
    });
    let location = builder("databricks://profile?table=c.s.p_otel_spans")
        .with_databricks_host(server.url())
        .with_bearer_token("t")
        .build()
        .unwrap();
    let sink = open(&location).await.unwrap();
    for trace in 1..=5 {
        let written = sink.write(&updated([root(trace)], vec![told(trace)])).await;
        assert!(written.unwrap().lost_updates.is_empty());
    }
    let sent = server.requests_to("/otel/v1/traces").len();
    assert_eq!(sent, 5, "spans are sent once");
    let before = server.requests_to("/info").len();
    is_bad.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while server.requests_to("/info").len() < before + 5 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
