//! Databricks' OTLP ingest as MLflow's client speaks to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::TraceId;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::http::{Reply, Request, Server};
use support::{batch, child, open, root, updated};
use trace_destination_core::{
    AnyValue, ErrorKind, LocationUri, Registry, Retry, SpanRecord, TraceLocation, TraceSink,
    TraceUpdate,
};
use trace_destination_server::ServerLocation;

/// Each test has a workspace of its own behind the same location, which is one place at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const TABLE: &str = "databricks://?table=cat.sch.pre_otel_spans";

fn from_env(
    uri: &str,
    vars: &[(&str, &str)],
) -> Result<ServerLocation, trace_destination_core::Error> {
    let env: BTreeMap<String, String> = vars
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let uri: LocationUri = uri.parse()?;
    ServerLocation::builder()
        .with_uri(&uri)
        .with_env(&env)
        .build()
}

fn value<'a>(span: &'a SpanRecord, key: &str) -> Option<&'a str> {
    match &span
        .attributes
        .iter()
        .find(|a| a.key.as_str() == key)?
        .value
    {
        AnyValue::String(text) => Some(text.as_str()),
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test]
async fn spans_go_to_the_table_as_mlflow_sends_them() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|_| Reply::stored());
    let host = server.url();
    let vars = [("DATABRICKS_HOST", &*host), ("DATABRICKS_TOKEN", "dapi-1")];
    let location = from_env(TABLE, &vars).unwrap();
    let sink = open(&location).await.unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.session_id = Some("sess".into());
    update.user_id = Some("me".into());
    let spans = [
        child(1, 2),
        root(1)
            .with_attribute("mlflow.traceRequestId", "tr-old")
            .with_attribute("mlflow.spanType", "AGENT"),
    ];
    sink.write(&updated(spans, vec![update])).await.unwrap();
    let [request, info] = &*server.requests() else {
        panic!()
    };
    assert_eq!(request.target, "/api/2.0/otel/v1/traces");
    assert_eq!(request.header("authorization"), Some("Bearer dapi-1"));
    assert_eq!(
        request.header("x-databricks-uc-table-name"),
        Some("cat.sch.pre_otel_spans")
    );
    assert_eq!(
        request.header("content-type"),
        Some("application/x-protobuf")
    );
    assert_eq!(request.header("content-encoding"), None);
    let spans = support::decode::request(&request.raw).unwrap();
    let id = format!("trace:/cat.sch.pre/{}", TraceId::from(1));
    for stored in &spans {
        assert_eq!(value(&stored.span, "mlflow.traceRequestId"), Some(&*id));
    }
    let (child, root) = (&spans[0].span, &spans[1].span);
    assert_eq!(value(child, "session.id"), None);
    assert_eq!(value(root, "session.id"), Some("sess"));
    assert_eq!(value(root, "user.id"), Some("me"));
    assert_eq!(value(root, "mlflow.spanType"), Some("AGENT"));
    let hex = TraceId::from(1).to_string();
    assert_eq!(
        info.target,
        format!("/api/4.0/mlflow/traces/cat.sch.pre/{hex}/info")
    );
    assert_eq!(
        info.json(),
        json!({
            "trace_id": hex,
            "trace_location": {
                "type": "UC_TABLE_PREFIX",
                "uc_table_prefix": {
                    "catalog_name": "cat",
                    "schema_name": "sch",
                    "table_prefix": "pre",
                    "spans_table_name": "cat.sch.pre_otel_spans",
                },
            },
            "request_time": "2023-11-14T22:13:20Z",
            "execution_duration": "0.100000000s",
            "state": "OK",
            "trace_metadata": {
                "mlflow.trace_schema.version": "4",
                "mlflow.trace.session": "sess",
                "mlflow.trace.user": "me",
            },
            "tags": {"mlflow.traceName": "span"},
        })
    );
}

#[tokio::test]
async fn what_was_said_before_waits_for_the_root() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|_| Reply::stored());
    let host = server.url();
    let vars = [("DATABRICKS_HOST", &*host), ("DATABRICKS_TOKEN", "dapi-1")];
    let location = from_env(
        "databricks://?table=c.s.mlflow_experiment_trace_otel_spans",
        &vars,
    );
    let location = location.unwrap();
    let sink = open(&location).await.unwrap();
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.tags.insert("env".into(), "dev".into());
    sink.write(&updated([child(1, 2)], vec![update]))
        .await
        .unwrap();
    assert_eq!(server.requests_to("/info").len(), 0);
    sink.close().await.unwrap();
    let sink = open(&location).await.unwrap();
    sink.write(&batch([root(1), root(2)])).await.unwrap();
    sink.write(&batch([child(1, 3)])).await.unwrap();
    let [info, other] = &*server.requests_to("/info") else {
        panic!()
    };
    let (info, other) = match info.json()["tags"]["env"].is_null() {
        true => (other, info),
        false => (info, other),
    };
    assert_eq!(info.json()["tags"]["env"], "dev");
    assert_eq!(other.json()["trace_id"], TraceId::from(2).to_string());
    let location = json!({
        "type": "UC_SCHEMA",
        "uc_schema": {"catalog_name": "c", "schema_name": "s"},
    });
    assert_eq!(info.json()["trace_location"], location);
}

/// A workspace that gives out tokens with a short life and takes each of them until it is revoked.
fn workspace(life: u64) -> (Server, Arc<AtomicUsize>) {
    let revoked = Arc::new(AtomicUsize::new(0));
    let (given, until) = (AtomicUsize::new(0), revoked.clone());
    let answer = move |request: &Request| match request.path() {
        "/oidc/v1/token" => {
            assert_eq!(request.header("authorization"), Some("Basic aWQ6c2VjcmV0"));
            assert_eq!(request.raw, b"grant_type=client_credentials&scope=all-apis");
            let n = given.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::json(
                200,
                json!({"access_token": format!("t{n}"), "token_type": "Bearer", "expires_in": life}),
            )
        }
        _ => {
            let token = request.header("authorization").unwrap();
            let n: usize = token.strip_prefix("Bearer t").unwrap().parse().unwrap();
            match n > until.load(Ordering::SeqCst) {
                true => Reply::stored(),
                false => Reply::json(401, json!({"error_code": "401", "message": "expired"})),
            }
        }
    };
    (Server::start(answer), revoked)
}

#[tokio::test]
async fn tokens_of_a_service_principal_are_shared_and_renewed() {
    let _alone = ALONE.lock().await;
    let (server, revoked) = workspace(3600);
    let host = server.url();
    let vars = [
        ("DATABRICKS_HOST", &*host),
        ("DATABRICKS_CLIENT_ID", "id"),
        ("DATABRICKS_CLIENT_SECRET", "secret"),
    ];
    let first = open(&from_env(TABLE, &vars).unwrap()).await.unwrap();
    let other = "databricks://?table=cat.sch.other";
    let second = open(&from_env(other, &vars).unwrap()).await.unwrap();
    for t in 1..=3 {
        first.write(&batch([root(t)])).await.unwrap();
        second.write(&batch([root(t)])).await.unwrap();
    }
    assert_eq!(server.requests_to("/token").len(), 1);
    // Taken back before its time.
    revoked.store(1, Ordering::SeqCst);
    first.write(&batch([root(9)])).await.unwrap();
    assert_eq!(server.requests_to("/token").len(), 2);
    revoked.store(99, Ordering::SeqCst);
    let error = first.write(&batch([root(9)])).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unauthenticated, Retry::Never)
    );
    // Renewed before its end: a token for 2 s is used for one.
    let (server, _) = workspace(2);
    let host = server.url();
    let vars = [("DATABRICKS_HOST", &*host), vars[1], vars[2]];
    let sink = open(&from_env(TABLE, &vars).unwrap()).await.unwrap();
    sink.write(&batch([root(1)])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    sink.write(&batch([root(2)])).await.unwrap();
    assert_eq!(server.requests_to("/token").len(), 2);
}

/// The table, written by an OAuth client.
async fn open_as_client(server: &Server) -> Box<dyn TraceSink> {
    let host = server.url();
    let vars = [
        ("DATABRICKS_HOST", &*host),
        ("DATABRICKS_CLIENT_ID", "id"),
        ("DATABRICKS_CLIENT_SECRET", "secret"),
    ];
    open(&from_env(TABLE, &vars).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_client_that_is_refused_says_so_without_its_secret() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|r| match r.path() {
        "/oidc/v1/token" => Reply::json(
            401,
            json!({"error": "invalid_client", "error_description": r.header("authorization")}),
        ),
        _ => Reply::stored(),
    });
    let sink = open_as_client(&server).await;
    let error = sink.write(&batch([root(1)])).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unauthenticated, Retry::Never)
    );
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("invalid_client") && said.contains("DATABRICKS_CLIENT_ID"),
        "{said}"
    );
    assert!(!said.contains("aWQ6c2VjcmV0"), "{said}");
    assert_eq!(
        server.requests().len(),
        1,
        "nothing is sent without a token"
    );
}

#[tokio::test]
async fn profiles() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|_| Reply::stored());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cfg");
    let text = format!(
        "[DEFAULT]\nhost = {0}\ntoken = default\n\n[Prod]\n# key\nhost={0}\ntoken=prod\n[empty]\n",
        server.url()
    );
    std::fs::write(&file, text).unwrap();
    let file = ("DATABRICKS_CONFIG_FILE", file.to_str().unwrap());
    let env_token = ("DATABRICKS_TOKEN", "env");
    let profile = ("DATABRICKS_CONFIG_PROFILE", "Prod");
    for (authority, vars, token) in [
        ("", vec![file], "default"),
        ("prod", vec![file, env_token], "prod"),
        ("", vec![file, profile], "prod"),
        ("", vec![file, env_token], "env"),
    ] {
        let uri = format!("databricks://{authority}?table=c.s.t");
        let location = from_env(&uri, &vars).unwrap();
        open(&location)
            .await
            .unwrap()
            .write(&batch([root(1)]))
            .await
            .unwrap();
        let request = server.requests().pop().unwrap();
        assert_eq!(
            request.header("authorization"),
            Some(&*format!("Bearer {token}"))
        );
    }
    for (uri, vars, says) in [
        (
            "databricks://absent?table=c.s.t",
            vec![file],
            "no Databricks profile `absent`",
        ),
        (
            "databricks://empty?table=c.s.t",
            vec![file],
            "workspace is not known",
        ),
        (
            "databricks://?table=c.s.t",
            vec![("DATABRICKS_HOST", "h")],
            "no credentials",
        ),
        (
            "databricks://prod?table=c.s",
            vec![file],
            "catalog.schema.table",
        ),
        ("databricks://prod", vec![file], "catalog.schema.table"),
        ("databricks://prod/x?table=c.s.t", vec![file], "no path"),
        (
            "databricks://prod?table=c.s.t&token=x",
            vec![file],
            "unknown",
        ),
    ] {
        let error = from_env(uri, &vars).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.mend_hint().is_some());
    }
}

#[tokio::test]
async fn a_token_that_the_server_repeats_is_in_no_error() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|request: &Request| match request.path() {
        "/oidc/v1/token" => Reply::json(200, json!({"access_token": "dose-of-secrecy"})),
        _ => {
            let said = format!("no: {}", request.header("authorization").unwrap());
            Reply::json(403, json!({"error_code": "DENIED", "message": said}))
        }
    });
    let sink = open_as_client(&server).await;
    let error = sink.write(&batch([root(1)])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no: Bearer [secret]"), "{text}");
    assert!(!text.contains("dose-of-secrecy"), "{text}");
}

#[tokio::test]
async fn a_template_keeps_each_tenant_in_a_table_and_a_location_of_its_own() {
    let _alone = ALONE.lock().await;
    let registry = Registry::new()
        .with_scheme("databricks", |uri| {
            let vars = [
                ("DATABRICKS_HOST", "http://127.0.0.1:1"),
                ("DATABRICKS_TOKEN", "t"),
            ];
            from_env(uri.as_str(), &vars).map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
        })
        .with_holes("databricks", ServerLocation::holes("databricks"));
    let template = registry
        .template("databricks://?table=cat.sch.t_{tenant}_otel_spans")
        .unwrap();
    let to = |tenant: &str| template.destination([("tenant", tenant)]);
    assert_eq!(
        to("acme").unwrap().to_string(),
        "databricks://?table=cat.sch.t_acme_otel_spans"
    );
    for tenant in ["Acme", "a.b", "a&x=1", "", "a/b", "\u{212a}"] {
        assert_eq!(
            to(tenant).unwrap_err().kind(),
            ErrorKind::InvalidName,
            "{tenant}"
        );
    }
    let bare = registry
        .template("databricks://?table=cat.sch.{tenant}_otel_spans")
        .unwrap();
    assert!(
        bare.destination([("tenant", "mlflow_experiment_trace")])
            .is_err()
    );
    // Without the ending, the ids of all traces would name the whole schema.
    for text in [
        "databricks://?table=cat.sch.{tenant}",
        "databricks://?table=cat.{tenant}.x_otel_spans",
        "databricks://?table={tenant}.sch.x_otel_spans",
        "databricks://{tenant}?table=cat.sch.x_otel_spans",
    ] {
        let error = registry.template(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
}
