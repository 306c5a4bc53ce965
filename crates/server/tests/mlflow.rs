//! A tracking server's traps, each answered by a scripted or storing stand-in.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::TraceId;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use support::http::{Reply, Request, Server};
use support::mlflow::Mlflow;
use support::script::{self, mlflow_prelude};
use support::{batch, child, location, open, root, span, updated, write};
use trace_destination_core::{
    ErrorKind, Retry, SpanRecord, TraceBatch, TraceLocation as _, TraceUpdate, Written,
};

/// A storing stand-in; its store is below `/s`.
fn mlflow() -> (Arc<Mlflow>, Server) {
    let mlflow = Arc::new(Mlflow::default());
    let answers = mlflow.clone();
    (mlflow, Server::start(move |r| answers.answer(r)))
}

fn seven(server: &Server) -> String {
    format!("{}?experiment_id=7", server.url())
}

fn names(written: &Written) -> Vec<(usize, ErrorKind)> {
    let refused = written.refused.iter();
    refused.map(|r| (r.index, r.error.kind())).collect()
}

#[tokio::test]
async fn one_compressed_protobuf_request_to_the_experiment() {
    let server = script::start(mlflow_prelude, [Reply::stored()]);
    let location = location(&seven(&server));
    let spans = (1..=40).flat_map(|t| [root(t), child(t, 2)]);
    let written = write(&location, &batch(spans)).await.unwrap();
    assert!(written.refused.is_empty());
    let sent = server.requests_to("/v1/traces");
    let [sent] = &*sent else {
        panic!("{} requests", sent.len())
    };
    assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(sent.header("content-encoding"), Some("gzip"));
    assert_eq!(sent.header("x-mlflow-experiment-id"), Some("7"));
    assert_eq!(sent.header("x-mlflow-workspace"), None);
    let agent = sent.header("user-agent").unwrap();
    assert!(agent.starts_with("trace-destination/"), "{agent}");
    let spans = support::decode::request(&sent.body()).unwrap();
    assert_eq!(spans.len(), 80);
}

#[tokio::test]
async fn a_server_without_gzip_gets_plain_requests_from_then_on() {
    let server = Server::start(|r| match mlflow_prelude(r) {
        Some(reply) => reply,
        None if r.header("content-encoding").is_some() => Reply::text(400, "not protobuf"),
        None => Reply::stored(),
    });
    let location = location(&seven(&server));
    let sink = open(&location).await.unwrap();
    for t in 1..=3 {
        let spans = (0..20).map(|i| root(t * 100 + i));
        let written = sink.write(&batch(spans)).await.unwrap();
        assert!(written.refused.is_empty());
    }
    let sent = server.requests_to("/v1/traces");
    let packed = sent.iter().map(|r| r.header("content-encoding").is_some());
    assert_eq!(packed.collect::<Vec<_>>(), [true, false, false, false]);
}

#[tokio::test]
async fn experiments_are_resolved_created_and_shared() {
    let (mlflow, server) = mlflow();
    let uri = format!("{}/s?experiment_name=a%20b%26c", server.url());
    let first = location(&uri);
    let held = open(&first).await.unwrap();
    // A second location on the same server asks for no version again.
    let second = location(&format!("{}/s?experiment_name=other", server.url()));
    write(&second, &batch([root(2)])).await.unwrap();
    held.write(&batch([root(1)])).await.unwrap();
    assert_eq!(server.requests_to("/version").len(), 1);
    assert_eq!(server.requests_to("/create").len(), 2);
    mlflow.with("/s", |s| {
        let names: Vec<_> = s.experiments.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a b&c", "other"]);
        let id = TraceId::from(1);
        assert_eq!(s.traces[&format!("tr-{id}")].experiment, "1");
    });
}

#[tokio::test]
async fn a_server_is_used_however_new_it_is() {
    let (mlflow, server) = mlflow();
    for (i, version) in [
        "3.18.0",
        "3.99.1rc1",
        "4",
        "4.0.0.dev0+g1234567",
        "2027.1",
        "3.18.0\n",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/v{i}");
        mlflow.with(&path, |s| s.version = Some(version.into()));
        let uri = format!("{}{path}?experiment_name=a", server.url());
        let trace = 1 + i as u128;
        let written = write(&location(&uri), &batch([root(trace)])).await;
        assert!(written.unwrap().refused.is_empty(), "{version}");
        let id = TraceId::from(trace);
        mlflow.with(&path, |s| {
            assert!(s.traces.contains_key(&format!("tr-{id}")))
        });
    }
}

/// MySQL and SQL Server compare names without case, and so does a server that keeps them there.
#[tokio::test]
async fn a_server_that_folds_names_gives_no_tenant_the_experiment_of_another() {
    let (mlflow, server) = mlflow();
    mlflow.with("/s", |s| s.experiment("acme"));
    let answers = mlflow.clone();
    let folding = Server::start(move |request| {
        let mut request = request.clone();
        if request.path().ends_with("/get-by-name") {
            request.target = request.target.to_ascii_lowercase();
        }
        answers.answer(&request)
    });
    drop(server);
    let theirs = location(&format!("{}/s?experiment_name=acme", folding.url()));
    write(&theirs, &batch([root(1)])).await.unwrap();
    for deleted in [false, true] {
        mlflow.with("/s", |s| s.experiments[0].deleted = deleted);
        let ours = location(&format!("{}/s?experiment_name=Acme", folding.url()));
        let error = open(&ours).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("spelled differently"), "{error}");
        assert!(
            !error.to_string().contains("acme"),
            "another's name: {error}"
        );
        assert!(error.mend_hint().is_some());
    }
    assert_eq!(mlflow.with("/s", |s| s.experiments.len()), 1);
}

#[tokio::test]
async fn an_experiment_that_is_gone_is_found_anew_or_reported() {
    let (mlflow, server) = mlflow();
    let named = location(&format!("{}/s?experiment_name=n", server.url()));
    let sink = open(&named).await.unwrap();
    sink.write(&batch([root(1)])).await.unwrap();
    // Somebody wiped the server; the name is made again, under another id.
    mlflow.with("/s", |s| {
        s.traces.clear();
        s.experiments.clear();
        s.experiment("first now");
    });
    mlflow.with("/s", |s| s.experiments[0].id = "9".into());
    let error = sink.write(&batch([root(2)])).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    sink.write(&batch([root(2)])).await.unwrap();
    mlflow.with("/s", |s| {
        let trace = s.traces.values().next().unwrap();
        let name = s.experiments.iter().find(|e| e.id == trace.experiment);
        assert_eq!(name.unwrap().name, "n");
    });
    // An id cannot be made again.
    let by_id = location(&format!("{}/s?experiment_id=9", server.url()));
    let sink = open(&by_id).await.unwrap();
    mlflow.with("/s", |s| s.experiments.clear());
    let error = sink.write(&batch([root(3)])).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::NotFound, Retry::Never)
    );
    assert!(
        error.to_string().contains("there is no experiment 9"),
        "{error}"
    );
}

#[tokio::test]
async fn a_deleted_experiment_is_noticed_though_it_takes_spans() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    sink.write(&batch([root(1)])).await.unwrap();
    mlflow.with("/s", |s| s.experiments[0].deleted = true);
    sink.write(&batch([root(2)])).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let error = sink.write(&batch([root(3)])).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::NotFound, Retry::Never)
    );
    assert!(error.to_string().contains("deleted"), "{error}");
    assert_eq!(mlflow.with("/s", |s| s.traces.len()), 2);
}

#[tokio::test]
async fn a_trace_known_elsewhere_is_refused_without_naming_that_place() {
    let (mlflow, server) = mlflow();
    let url = server.url();
    let first = location(&format!("{url}/s?experiment_name=first"));
    let second = location(&format!("{url}/s?experiment_name=second"));
    write(&first, &batch([root(1)])).await.unwrap();
    // Spans of a trace that is at the first place, and of one that is nowhere yet.
    let mixed = batch([child(1, 5), root(2), child(1, 6)]);
    let sink = open(&second).await.unwrap();
    let written = sink.write(&mixed).await.unwrap();
    assert_eq!(
        names(&written),
        [(0, ErrorKind::Conflict), (2, ErrorKind::Conflict)]
    );
    let said = written.refused[0].error.to_string();
    assert!(said.contains("second"), "{said}");
    assert!(!said.contains("first"), "{said}");
    assert!(!said.contains("experiment 1"), "{said}");
    // Looked up once: the answer is remembered.
    let asked = server.requests_to("/batchGetInfos").len();
    let written = sink
        .write(&batch([child(1, 7), child(2, 8)]))
        .await
        .unwrap();
    assert_eq!(names(&written), [(0, ErrorKind::Conflict)]);
    assert_eq!(server.requests_to("/batchGetInfos").len(), asked);
    mlflow.with("/s", |s| {
        let sizes: Vec<_> = s
            .traces
            .values()
            .map(|t| (t.experiment.as_str(), t.spans.len()))
            .collect();
        assert_eq!(sizes, [("1", 1), ("2", 2)]);
    });
}

#[tokio::test]
async fn a_fresh_process_asks_where_a_trace_is() {
    let (mlflow, server) = mlflow();
    mlflow.with("/s", |s| {
        s.experiment("theirs");
        s.experiment("ours");
        for (trace, experiment) in [(1_u128, "1"), (2, "2")] {
            let id = format!("tr-{}", TraceId::from(trace));
            let there = s.traces.entry(id).or_default();
            there.experiment = experiment.into();
        }
    });
    let ours = location(&format!("{}/s?experiment_name=ours", server.url()));
    let spans = [child(1, 2), child(2, 2), child(3, 2)];
    let written = write(&ours, &batch(spans)).await.unwrap();
    assert_eq!(names(&written), [(0, ErrorKind::Conflict)]);
    let said = written.refused[0].error.to_string();
    assert!(!said.contains("theirs"), "{said}");
    assert_eq!(
        server.requests_to("/batchGetInfos").len(),
        1,
        "one question for all"
    );
}

#[tokio::test]
async fn older_servers_are_asked_trace_by_trace() {
    let server = Server::start(|r| match (r.path(), mlflow_prelude(r)) {
        ("/api/3.0/mlflow/traces/batchGetInfos", _) => Reply::new(404, "text/html", "<p>?"),
        (_, Some(reply)) => reply,
        ("/v1/traces", None) => Reply::stored(),
        (path, None) if path.contains("/traces/tr-") => Reply::json(
            404,
            json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "unknown"}),
        ),
        other => panic!("{other:?}"),
    });
    let sink = open(&location(&seven(&server))).await.unwrap();
    sink.write(&batch([root(1), root(2)])).await.unwrap();
    sink.write(&batch([root(3)])).await.unwrap();
    let single = |r: &&Request| r.path().contains("/traces/tr-");
    assert_eq!(server.requests().iter().filter(single).count(), 3);
    assert_eq!(server.requests_to("/batchGetInfos").len(), 1, "learnt once");
}

#[tokio::test]
async fn one_bad_span_does_not_sink_its_batch() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    let mut spans: Vec<SpanRecord> = (1..=64).map(root).collect();
    // Known to be refused, and so never sent; and what only the server can tell.
    spans[3] = root(4).with_attribute("session.id", "x".repeat(251));
    spans[20] = root(21)
        .with_attribute("test.unprocessable", true)
        .with_attribute("mlflow.chat.tokenUsage", "{\"input_tokens\": \"many\"}");
    let written = sink.write(&batch(spans)).await.unwrap();
    assert_eq!(
        names(&written),
        [(3, ErrorKind::InvalidSpan), (20, ErrorKind::InvalidSpan)]
    );
    let said = written.refused[1].error.to_string();
    assert!(
        said.contains("422") && said.contains("tokenUsage") && said.contains("Failed to log"),
        "{said}"
    );
    assert_eq!(mlflow.with("/s", |s| s.traces.len()), 62);
    assert!(server.requests_to("/v1/traces").len() <= 2 + 2 * 7);
}

#[tokio::test]
async fn a_500_that_does_not_heal_is_traced_to_its_span() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    let spans = (1..=16).map(|t| match t {
        9 => root(t).with_attribute("test.stumbles", true),
        t => root(t),
    });
    let batch = batch(spans);
    let error = sink.write(&batch).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Backoff)
    );
    let written = sink.write(&batch).await.unwrap();
    assert_eq!(names(&written), [(8, ErrorKind::InvalidSpan)]);
    assert_eq!(mlflow.with("/s", |s| s.traces.len()), 15);
}

#[tokio::test]
async fn a_server_that_rejects_everything_is_not_blamed_on_spans() {
    let refuse = |r: &Request| match mlflow_prelude(r) {
        Some(reply) => reply,
        None => Reply::json(400, json!({"detail": "this proxy takes no protobuf"})),
    };
    let server = Server::start(refuse);
    let sink = open(&location(&seven(&server))).await.unwrap();
    let error = sink.write(&batch((1..=100).map(root))).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unsupported, Retry::Never)
    );
    assert!(error.to_string().contains("takes no protobuf"), "{error}");
    assert!(server.requests_to("/v1/traces").len() < 64);
}

#[tokio::test]
async fn answers_that_ask_for_patience() {
    let server = script::start(
        mlflow_prelude,
        [
            Reply::text(429, "slow down").with_header("retry-after", "7"),
            Reply::text(503, "back soon"),
            Reply::json(409, json!({"error_code": "ABORTED", "message": "deadlock"})),
            Reply::Reset,
            Reply::json(
                500,
                json!({"error_code": "FEATURE_DISABLED", "message": "no"}),
            ),
            Reply::text(401, "who?"),
            Reply::text(
                403,
                "Invalid Host header - possible DNS rebinding attack detected",
            ),
            Reply::stored(),
        ],
    );
    let sink = open(&location(&seven(&server))).await.unwrap();
    let batch = batch([root(1)]);
    for (kind, retry, says) in [
        (
            ErrorKind::Throttled,
            Retry::After(Duration::from_secs(7)),
            "slow down",
        ),
        (ErrorKind::Unavailable, Retry::Backoff, "503"),
        (ErrorKind::Locked, Retry::Backoff, "ABORTED"),
        (ErrorKind::Unavailable, Retry::Backoff, "connection broke"),
        (ErrorKind::InvalidConfig, Retry::Never, "FEATURE_DISABLED"),
        (ErrorKind::Unauthenticated, Retry::Never, "give credentials"),
    ] {
        let error = sink.write(&batch).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.location().unwrap().as_str(), seven(&server));
        assert!(error.mend_hint().is_some_and(|m| !m.is_empty()), "{error}");
    }
    // A 403 may mean that the experiment is gone: it is looked up, and sent to once more.
    sink.write(&batch).await.unwrap();
    assert!(server.requests_to("/v1/traces").len() == 8);
}

#[tokio::test]
async fn a_success_that_is_none() {
    // A proxy that wants somebody to log in, and a server that stored a part.
    let partial = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse {
        partial_success: Some(Default::default()),
    };
    let mut partial = partial;
    if let Some(partial) = &mut partial.partial_success {
        partial.rejected_spans = 1;
        partial.error_message = "too old".into();
    }
    let partial = prost::Message::encode_to_vec(&partial);
    let server = script::start(
        mlflow_prelude,
        [
            Reply::new(200, "text/html; charset=utf-8", "<!doctype html><p>Log in"),
            Reply::new(200, "application/x-protobuf", partial.clone()),
            Reply::stored(),
            Reply::stored(),
            Reply::new(200, "application/x-protobuf", partial),
        ],
    );
    let sink = open(&location(&seven(&server))).await.unwrap();
    let batch = batch([root(1), root(2)]);
    let error = sink.write(&batch).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unsupported, Retry::Never)
    );
    assert!(error.to_string().contains("web page"), "{error}");
    let written = sink.write(&batch).await.unwrap();
    assert_eq!(names(&written), [(1, ErrorKind::InvalidSpan)]);
    assert!(written.refused[0].error.to_string().contains("too old"));
}

/// What an application says about a trace, as the server has it in the end.
#[tokio::test]
async fn values_of_a_trace_travel_with_its_root_or_are_completed() {
    let (mlflow, server) = mlflow();
    let location = location(&format!("{}/s?experiment_name=n", server.url()));
    let sink = open(&location).await.unwrap();
    let update = |set: &dyn Fn(&mut TraceUpdate)| {
        let mut update = TraceUpdate::new(TraceId::from(1));
        set(&mut update);
        vec![update]
    };
    let trace = || mlflow.with("/s", |s| s.traces.values().next().cloned());
    // Said before there is a span: waits.
    let none: [SpanRecord; 0] = [];
    let early = update(&|u| {
        u.tags.insert("env".into(), "dev".into());
        u.name = Some("given".into());
        u.session_id = Some("sess".into());
        u.metadata.insert("build".into(), "7".into());
    });
    sink.write(&updated(none.clone(), early)).await.unwrap();
    assert!(trace().is_none());
    // The first span is there: tags and name show while the trace runs.
    sink.write(&batch([child(1, 2)])).await.unwrap();
    let running = trace().unwrap();
    assert_eq!(running.tags["env"], "dev");
    assert_eq!(running.tags["mlflow.traceName"], "given");
    assert_eq!(running.state, "IN_PROGRESS");
    assert!(
        running.metadata.is_empty(),
        "not before its end: {:?}",
        running.metadata
    );
    // The sink was closed while nothing came; the location remembers.
    sink.close().await.unwrap();
    let sink = open(&location).await.unwrap();
    let late = update(&|u| {
        u.client_request_id = Some("req".into());
        u.request_preview = Some("hello?".into());
        u.run_id = Some("run-1".into());
        u.tags
            .insert("mlflow.trace.spansLocation".into(), "nowhere".into());
    });
    sink.write(&updated([root(1)], late)).await.unwrap();
    let ended = trace().unwrap();
    assert_eq!(ended.state, "OK");
    assert_eq!(
        ended.tags["mlflow.traceName"], "given",
        "not the root span's name"
    );
    assert_eq!(ended.metadata["mlflow.trace.session"], "sess");
    assert_eq!(ended.metadata["build"], "7");
    assert_eq!(ended.client_request_id.as_deref(), Some("req"));
    assert_eq!(ended.request_preview.as_deref(), Some("hello?"));
    assert_eq!(ended.response_preview, None);
    assert_eq!(ended.runs, ["run-1"]);
    assert!(!ended.tags.contains_key("mlflow.trace.spansLocation"));
    // Said after its end; what is there stays.
    let last = update(&|u| u.response_preview = Some("bye".into()));
    sink.write(&updated(none, last)).await.unwrap();
    let known = trace().unwrap();
    assert_eq!(known.response_preview.as_deref(), Some("bye"));
    assert_eq!(known.client_request_id.as_deref(), Some("req"), "not wiped");
    assert_eq!(known.state, "OK");
    assert_eq!(known.experiment, "1");
}

#[tokio::test]
async fn what_a_root_carries_needs_no_further_request() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.session_id = Some("sess".into());
    update.user_id = Some("{\"u\"}".into());
    update.name = Some("\"quoted\"".into());
    update.tags.insert("list".into(), "[1, 2]".into());
    sink.write(&updated([child(1, 2), root(1)], vec![update]))
        .await
        .unwrap();
    let trace = mlflow
        .with("/s", |s| s.traces.values().next().cloned())
        .unwrap();
    assert_eq!(trace.metadata["mlflow.trace.session"], "sess");
    assert_eq!(trace.metadata["mlflow.trace.user"], "{\"u\"}");
    assert_eq!(trace.tags["mlflow.traceName"], "\"quoted\"");
    assert_eq!(trace.tags["list"], "[1, 2]");
    let asked: Vec<String> = server
        .requests()
        .iter()
        .map(|r| r.path().to_owned())
        .collect();
    let tail = &asked[asked.len() - 2..];
    assert_eq!(
        tail,
        ["/s/api/3.0/mlflow/traces/batchGetInfos", "/s/v1/traces"],
        "{asked:?}"
    );
}

/// Runs, tags and whole traces that the server refuses for good: the spans are stored, and what is
/// given up is told once, for each trace.
#[tokio::test]
async fn values_the_server_refuses_are_told() {
    let mlflow = Arc::new(Mlflow::default());
    let answers = mlflow.clone();
    let server = Server::start(move |r| match r.path() {
        "/s/api/2.0/mlflow/traces/link-to-run" | "/s/api/3.0/mlflow/traces" => Reply::json(
            404,
            serde_json::json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}),
        ),
        path if path.ends_with("/tags") => Reply::json(
            400,
            serde_json::json!({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"}),
        ),
        _ => answers.answer(r),
    });
    let location = location(&format!("{}/s?experiment_name=n", server.url()));
    let sink = open(&location).await.unwrap();
    let mut linked = TraceUpdate::new(TraceId::from(1));
    linked.run_id = Some("no-such-run".into());
    let mut whole = TraceUpdate::new(TraceId::from(2));
    whole.client_request_id = Some("request".into());
    let updates = vec![linked, whole];
    let written = sink
        .write(&updated([root(1), root(2)], updates))
        .await
        .unwrap();
    assert!(written.refused.is_empty());
    let told: Vec<String> = written.lost_updates.iter().map(|e| e.to_string()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for (part, trace) in [("no-such-run", "run"), ("complete trace tr-", "02")] {
        let found = told.iter().any(|t| t.contains(part) && t.contains(trace));
        assert!(found, "{part}: {told:?}");
    }
    let mut tagged = TraceUpdate::new(TraceId::from(3));
    tagged.tags.insert("k".into(), "v".into());
    let written = sink
        .write(&updated([child(3, 4)], vec![tagged]))
        .await
        .unwrap();
    let told: Vec<String> = written.lost_updates.iter().map(|e| e.to_string()).collect();
    assert!(
        told.len() == 1 && told[0].contains("set tag `k`"),
        "{told:?}"
    );
    assert!(told[0].contains(location.uri().as_str()), "{told:?}");
    let none = sink.write(&batch([root(5)])).await.unwrap();
    assert!(none.lost_updates.is_empty(), "told once");
    assert_eq!(mlflow.with("/s", |s| s.traces.len()), 4);
}

#[tokio::test]
async fn the_same_batch_again_changes_nothing() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.client_request_id = Some("req".into());
    let batch: TraceBatch = updated([root(1), child(1, 2)], vec![update]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        sink.write(&batch).await.unwrap();
        seen.push(mlflow.with("/s", |s| format!("{:?}", s.traces)));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test]
async fn a_missing_end_is_not_sent() {
    let (mlflow, server) = mlflow();
    let sink = open(&location(&format!("{}/s?experiment_name=n", server.url())))
        .await
        .unwrap();
    let mut endless = span(1, 1);
    endless.end_time_unix_nano = 0;
    sink.write(&batch([endless.clone()])).await.unwrap();
    mlflow.with("/s", |s| {
        let trace = s.traces.values().next().unwrap();
        let stored = trace.spans.values().next().unwrap();
        assert_eq!(stored.span.end_time_unix_nano, endless.start_time_unix_nano);
    });
}
