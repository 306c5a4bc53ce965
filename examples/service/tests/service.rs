//! A thousand requests of twenty tenants, in SQLite files and in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use trace_destination::{MemoryStore, Pipeline, Template};

const REQUESTS: usize = 1000;
const TENANTS: usize = 20;
/// Connections at once; each is used for requests of all tenants by turns.
const CONNECTIONS: usize = 25;

/// Spans by trace: the id of the request, and each span's name and tenant.
type Traces = BTreeMap<String, Trace>;

#[derive(Debug, Default)]
struct Trace {
    request: Option<String>,
    names: Vec<String>,
    tenants: BTreeSet<String>,
    /// What the service sets on the trace: the user, then the session.
    values: [Option<String>; 2],
}

impl Trace {
    fn add(&mut self, name: &str, id: Option<&str>, tenant: Option<&str>) {
        if let Some(id) = id {
            self.request = Some(id.to_owned());
        }
        self.names.push(name.to_owned());
        self.tenants.extend(tenant.map(str::to_owned));
    }
}

fn tenant_of(request: usize) -> usize {
    // Neighbours on a connection are of different tenants.
    request * 7 % TENANTS
}

/// The spans of a whole trace, sorted.
fn whole(request: usize) -> &'static [&'static str] {
    match is_stream(request) {
        true => &["authenticate", "event", "event", "event", "request"],
        false => &["answer", "authenticate", "bookkeeping", "request"],
    }
}

fn is_stream(request: usize) -> bool {
    request / TENANTS % 2 == 1
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn ask(
    client: &mut SendRequest<Empty<Bytes>>,
    path: &str,
    token: &str,
    id: &str,
) -> (u16, String) {
    client.ready().await.unwrap();
    let request = hyper::Request::get(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("x-request-id", id)
        .header("x-session-id", format!("session of {token}"))
        .body(Empty::new())
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The requests of one connection, and between them some of nobody.
async fn one_client(address: SocketAddr, requests: Vec<usize>) {
    let mut client = connect(address).await;
    for (n, request) in requests.into_iter().enumerate() {
        let tenant = tenant_of(request);
        let path = if is_stream(request) {
            "/events"
        } else {
            "/answer"
        };
        let (token, id) = (format!("token-{tenant:02}"), format!("request-{request}"));
        let (status, body) = ask(&mut client, path, &token, &id).await;
        assert_eq!(status, 200);
        match is_stream(request) {
            true => assert_eq!(body, "data: 1 of 3\n\ndata: 2 of 3\n\ndata: 3 of 3\n\n"),
            false => assert_eq!(body, format!("hello tenant-{tenant:02}\n")),
        }
        if n % 10 == 0 {
            assert_eq!(ask(&mut client, path, "stolen", &id).await.0, 401);
            assert_eq!(ask(&mut client, "/health", "", "").await.0, 200);
        }
    }
}

/// What a tenant's file holds, read without this project's code.
fn in_file(path: &Path) -> Traces {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = file
        .prepare("select trace_id, name, content from spans")
        .unwrap();
    let mut traces = Traces::new();
    let mut rows = query.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (trace, name): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let content: String = row.get(2).unwrap();
        let content: serde_json::Value = serde_json::from_str(&content).unwrap();
        // MLflow keeps each value of an attribute as JSON in a string.
        let text = |key: &str| -> Option<String> {
            serde_json::from_str(content["attributes"][key].as_str()?).ok()
        };
        let (id, tenant) = (text("id"), text("tenant"));
        let trace = traces.entry(trace).or_default();
        trace.add(&name, id.as_deref(), tenant.as_deref());
    }
    for (n, key) in ["mlflow.trace.user", "mlflow.trace.session"]
        .into_iter()
        .enumerate()
    {
        let mut query = file
            .prepare("select request_id, value from trace_request_metadata where key = ?1")
            .unwrap();
        let mut rows = query.query([key]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let trace: String = row.get(0).unwrap();
            traces.entry(trace).or_default().values[n] = row.get(1).unwrap();
        }
    }
    traces
}

fn in_memory(tenant: &str) -> Traces {
    let mut traces = Traces::new();
    let store = MemoryStore::named(&format!("service-{tenant}"));
    for stored in store.spans() {
        let attributes = stored.span.attributes();
        let text = |key| attributes.get(key).and_then(|value| value.as_str());
        let trace = traces
            .entry(stored.span.trace_id().to_string())
            .or_default();
        trace.add(stored.span.name(), text("id"), text("tenant"));
        if let Some(update) = store.update(stored.span.trace_id()) {
            trace.values = [update.user_id, update.session_id];
        }
    }
    traces
}

fn check(tenant: usize, place: &str, traces: Traces) {
    let name = format!("tenant-{tenant:02}");
    let mut requests = BTreeSet::new();
    for (trace_id, mut trace) in traces {
        let id = trace.request.take();
        let id = id.unwrap_or_else(|| {
            panic!("{place} of {name} has {trace_id} without its root: {trace:?}")
        });
        let request: usize = id.strip_prefix("request-").unwrap().parse().unwrap();
        trace.names.sort();
        assert_eq!(trace.names, whole(request), "{place} of {name}, {id}");
        assert_eq!(tenant_of(request), tenant, "{place} of {name} has {id}");
        assert_eq!(
            trace.tenants,
            BTreeSet::from([name.clone()]),
            "{place}, {id}"
        );
        let session = format!("session of token-{tenant:02}");
        let values = [Some(name.clone()), Some(session)];
        assert_eq!(trace.values, values, "{place} of {name}, {id}");
        assert!(requests.insert(request), "{place} of {name} has {id} twice");
    }
    let expected: BTreeSet<usize> = (0..REQUESTS).filter(|r| tenant_of(*r) == tenant).collect();
    assert_eq!(requests, expected, "{place} of {name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_trace_is_whole_at_its_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let template = format!(
        "sqlite:///{}/{{tenant}}/mlflow.db?experiment_name=service,memory:service-{{tenant}}",
        root.display()
    );
    let pipeline = Pipeline::builder().strict().build().unwrap();
    example_service::subscribe(&pipeline).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(example_service::run(
        listener,
        pipeline.clone(),
        Template::new(&template).unwrap(),
        async move {
            let _ = ended.await;
        },
    ));

    let clients = (0..CONNECTIONS).map(|client| {
        let requests = (client..REQUESTS).step_by(CONNECTIONS).collect();
        tokio::spawn(one_client(address, requests))
    });
    let clients = stream::iter(clients.collect::<Vec<_>>()).buffer_unordered(CONNECTIONS);
    let clients = clients.for_each(|client| async move { client.unwrap() });
    tokio::time::timeout(Duration::from_secs(120), clients)
        .await
        .unwrap();
    end.send(()).unwrap();
    let report = server.await.unwrap().unwrap();
    assert!(report.all_stored(), "{report}");

    // Each connection asked four times with a stolen token: two spans each, on purpose nowhere.
    let stats = pipeline.stats();
    assert_eq!(stats.discarded, 2 * 4 * CONNECTIONS as u64);
    assert_eq!(
        (stats.unrouted, stats.orphaned, stats.ignored_scopes),
        (0, 0, 0)
    );
    assert_eq!(report.locations.len(), 2 * TENANTS);
    for tenant in 0..TENANTS {
        let name = format!("tenant-{tenant:02}");
        check(
            tenant,
            "the file",
            in_file(&root.join(&name).join("mlflow.db")),
        );
        check(tenant, "memory", in_memory(&name));
    }
    let folders = std::fs::read_dir(&root).unwrap().count();
    assert_eq!(folders, TENANTS, "nothing beside the files of the tenants");
}
