//! Values of traces whose spans, or whose root, have not come: told when they come, and counted as
//! lost where they never do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use support::http::{Reply, Server};
use support::mlflow::Mlflow;
use support::{builder, location, root};
use trace_destination_core::{
    Destination, Pipeline, Resource, Scope, SpanRecord, TraceLocation, TraceUpdate,
    update_current_trace,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    pipeline: Pipeline,
    tracer: SdkTracer,
    to: Destination,
    uri: trace_destination_core::LocationUri,
}

fn rig(location: impl TraceLocation) -> Rig {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    Rig {
        pipeline,
        tracer: provider.tracer("t"),
        uri: location.uri().clone(),
        to: Destination::new(location),
    }
}

impl Rig {
    fn open(&self) -> Context {
        let cx = self.to.in_context(&Context::new());
        cx.with_span(self.tracer.start_with_context("root", &cx))
    }

    fn set(&self, cx: &Context, set: impl FnOnce(&mut TraceUpdate)) {
        let _active = cx.clone().attach();
        assert!(update_current_trace(set));
    }

    /// Flushes; how many values are lost.
    fn lost(&self) -> u64 {
        let report = self.pipeline.flush(PATIENCE).wait();
        assert!(report.is_complete(), "{report}");
        report.location(&self.uri).unwrap().lost_updates
    }
}

fn tracking_server() -> (Arc<Mlflow>, Server, String) {
    let mlflow = Arc::new(Mlflow::default());
    let answers = mlflow.clone();
    let server = Server::start(move |r| answers.answer(r));
    let uri = format!("{}/s?experiment_name=n", server.url());
    (mlflow, server, uri)
}

#[test]
fn values_of_a_trace_without_spans_are_lost_at_the_shutdown() {
    let (mlflow, _server, uri) = tracking_server();
    let rig = rig(location(&uri));
    let (never, late) = (rig.open(), rig.open());
    for cx in [&never, &late] {
        rig.set(cx, |t| t.client_request_id = Some("r".into()));
    }
    // The traces run, and nothing is late.
    let report = rig.pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    late.span().end();
    assert_eq!(rig.lost(), 0);
    let report = rig.pipeline.shutdown(PATIENCE).wait();
    let of = report.location(&rig.uri).unwrap();
    assert_eq!((of.stored, of.lost_updates), (1, 1), "{report}");
    assert!(!report.all_stored() && of.error.is_some(), "{report}");
    mlflow.with("/s", |s| {
        let trace = s.traces.values().next().unwrap();
        assert_eq!(trace.client_request_id.as_deref(), Some("r"));
    });
    drop(never);
}

#[test]
fn values_that_are_forgotten_for_others_are_lost() {
    // As many as are remembered, and more.
    const TRACES: usize = 3 * 4096 + 10;
    let (_mlflow, _server, uri) = tracking_server();
    let rig = rig(location(&uri));
    let mut open = Vec::new();
    for i in 0..TRACES {
        let cx = rig.open();
        rig.set(&cx, |t| t.client_request_id = Some(i.to_string()));
        open.push(cx);
        if i % 1024 == 1023 {
            rig.lost();
        }
    }
    let forgotten = rig.lost();
    assert!(forgotten > 0 && forgotten < TRACES as u64, "{forgotten}");
    let stats = rig.pipeline.stats();
    let error = stats.location(&rig.uri).unwrap().last_error.clone();
    let error = error.unwrap().to_string();
    assert!(error.contains("other traces"), "{error}");
    let report = rig.pipeline.shutdown(PATIENCE).wait();
    let lost = report.location(&rig.uri).unwrap().lost_updates;
    assert_eq!(lost, TRACES as u64, "each is counted once");
}

#[test]
fn texts_that_the_server_refuses_are_cut_before_they_get_there() {
    let (mlflow, _server, uri) = tracking_server();
    let rig = rig(location(&uri));
    let cx = rig.open();
    rig.set(&cx, |t| {
        t.name = Some("n".repeat(5_000));
        t.session_id = Some("s".repeat(251));
        t.request_preview = Some("p".repeat(1_001));
        t.metadata.insert("k".repeat(251), "x".into());
    });
    cx.span().end();
    assert_eq!(rig.lost(), 1, "the key that no server takes");
    mlflow.with("/s", |s| {
        let trace = s.traces.values().next().unwrap();
        assert_eq!(trace.tags["mlflow.traceName"].len(), 4096);
        assert_eq!(trace.metadata["mlflow.trace.session"].len(), 250);
        let preview = trace.request_preview.as_deref().unwrap();
        assert!(
            preview.len() == 1000 && preview.ends_with("p..."),
            "{preview}"
        );
        assert!(trace.metadata.keys().all(|key| key.len() <= 250));
    });
}

fn workspace(answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> (Server, Rig) {
    let server = Server::start(move |r| match r.path().ends_with("/otel/v1/traces") {
        true => Reply::stored(),
        false => answer(r.path()).unwrap_or_else(|| Reply::json(200, json!({}))),
    });
    // A place of its own: the one of another test may still be closing.
    let n = WORKSPACES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let location = builder(&format!("databricks://values-{n}?table=c.s.p_otel_spans"))
        .with_databricks_host(server.url())
        .with_bearer_token("t")
        .build()
        .unwrap();
    (server, rig(location))
}

static WORKSPACES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

#[test]
fn databricks_has_the_info_of_every_trace_its_run_and_what_comes_late() {
    let (server, rig) = workspace(|_| None);
    // Nothing is said about this one.
    rig.open().span().end();
    assert_eq!(rig.lost(), 0);
    let [plain] = &*server.requests_to("/info") else {
        panic!("{:?}", server.requests())
    };
    assert_eq!(plain.json()["tags"], json!({"mlflow.traceName": "root"}));

    let cx = rig.open();
    let id = cx.span().span_context().trace_id().to_string();
    let child = cx.with_span(rig.tracer.start_with_context("child", &cx));
    rig.set(&cx, |t| {
        t.run_id = Some("run-1".into());
        t.session_id = Some("s".into());
    });
    assert_eq!(rig.lost(), 0);
    cx.span().end();
    assert_eq!(rig.lost(), 0);
    let infos = server.requests_to("/info");
    assert_eq!(infos.len(), 2);
    assert_eq!(
        infos[1].json()["trace_metadata"]["mlflow.trace.session"],
        "s"
    );
    let link = json!({"location_id": "c.s.p", "trace_ids": [id], "run_id": "run-1"});
    let path = "/api/4.0/mlflow/traces/c.s.p/link-to-run/batchCreate";
    let links = server.requests_to("batchCreate");
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].path(), links[0].json()), (path, link));

    rig.set(&child, |t| {
        t.tags.insert("late".into(), "yes".into());
        t.run_id = Some("run-2".into());
    });
    assert_eq!(rig.lost(), 0);
    let [tag] = &*server.requests_to("/tags") else {
        panic!("{:?}", server.requests())
    };
    assert_eq!(tag.method, "PATCH");
    assert_eq!(
        tag.path(),
        format!("/api/4.0/mlflow/traces/c.s.p/{id}/tags")
    );
    assert_eq!(tag.json(), json!({"key": "late", "value": "yes"}));
    assert_eq!(
        server.requests_to("batchCreate")[1].json()["run_id"],
        "run-2"
    );
    rig.set(&child, |t| t.session_id = Some("too late".into()));
    assert_eq!(rig.lost(), 1);
    assert_eq!(server.requests_to("/info").len(), 2);
    child.span().end();
    let report = rig.pipeline.shutdown(PATIENCE).wait();
    assert_eq!(
        report.location(&rig.uri).unwrap().lost_updates,
        1,
        "{report}"
    );
}

#[test]
fn databricks_refusals_and_roots_that_do_not_come_are_counted() {
    let refused = |path: &str| {
        let refusal = json!({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such run"});
        path.ends_with("batchCreate")
            .then(|| Reply::json(400, refusal))
    };
    let (server, rig) = workspace(refused);
    let cx = rig.open();
    rig.set(&cx, |t| t.run_id = Some("gone".into()));
    cx.span().end();
    assert_eq!(rig.lost(), 1);
    assert_eq!(server.requests_to("/info").len(), 1);
    // A part of a trace whose root is elsewhere, and values that wait for it.
    let id = TraceId::from(7);
    let remote = SpanContext::new(
        id,
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let incoming = rig
        .to
        .in_context(&Context::new())
        .with_remote_span_context(remote);
    let request = incoming.with_span(rig.tracer.start_with_context("request", &incoming));
    rig.set(&request, |t| drop(t.tags.insert("k".into(), "v".into())));
    request.span().end();
    assert_eq!(rig.lost(), 1);
    let report = rig.pipeline.shutdown(PATIENCE).wait();
    let of = report.location(&rig.uri).unwrap();
    assert_eq!((of.stored, of.lost_updates), (2, 2), "{report}");
}

#[test]
fn a_replayed_trace_of_databricks_has_its_info_too() {
    let (server, rig) = workspace(|_| None);
    let spans: Vec<SpanRecord> = (1..=40).map(root).collect();
    let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
    let ingested = rig.pipeline.ingest(resource, scope, spans, &rig.to);
    assert_eq!(ingested.accepted, 40);
    let report = rig.pipeline.shutdown(PATIENCE).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(server.requests_to("/info").len(), 40);
}
