//! The server backend keeps every promise, towards a tracking server and towards an OTLP
//! collector. Harnesses and no list: the suite chooses the cases.
//!
//! Both stand-ins are real HTTP servers on a loopback port that store what they receive, decoded by
//! a path of their own.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use support::http::{Reply, Server};
use support::mlflow::{Mlflow, Trace};
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, RealFault, Stored, StoredSpan, Untouched,
    assert_conforms, writer,
};
use trace_destination_core::{
    AnyValue, Attribute, Error, ErrorKind, LocationUri, Registry, Template, TraceLocation,
    TraceUpdate,
};
use trace_destination_server::ServerLocation;

/// Which location the other process of the kill case writes.
const WRITES_TO: &str = "CONFORMANCE_WRITES_TO";

#[test]
fn tracking_server_conforms() {
    assert_conforms(TrackingServer::start());
}

#[test]
fn otlp_endpoint_conforms() {
    assert_conforms(Collector::start());
}

#[test]
#[ignore = "no test: the process that the kill case starts and kills"]
fn the_other_process() {
    let uri = std::env::var(WRITES_TO).expect("the kill case names a location");
    writer::run(Arc::new(support::location(&uri)))
        .expect("writing goes on until the process is killed");
}

fn other_process(uri: &LocationUri) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a program"));
    command
        .args(["--exact", "the_other_process", "--ignored", "--nocapture"])
        .env(WRITES_TO, uri.as_str());
    command
}

fn at(uri: &str) -> Result<Arc<dyn TraceLocation>, Error> {
    let uri: LocationUri = uri.parse()?;
    let location = ServerLocation::builder().with_uri(&uri).build()?;
    Ok(Arc::new(location))
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Tracking servers, one below each path of one HTTP server.
#[derive(Debug)]
struct TrackingServer {
    mlflow: Arc<Mlflow>,
    server: Server,
}

impl TrackingServer {
    fn start() -> Self {
        let mlflow = Arc::new(Mlflow::default());
        let answers = mlflow.clone();
        Self {
            mlflow,
            server: Server::start_with(None, false, move |r| answers.answer(r)),
        }
    }

    fn path(&self, location: &dyn TraceLocation) -> String {
        location.uri().path().to_owned()
    }
}

#[async_trait]
impl Harness for TrackingServer {
    fn name(&self) -> &str {
        "server"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let (n, url) = (number(), self.server.url());
        Ok(at(&format!("{url}/s{n}?experiment_name={hint}-{n}"))?)
    }

    async fn sibling(
        &self,
        location: &dyn TraceLocation,
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        let (path, url) = (self.path(location), self.server.url());
        Ok(at(&format!(
            "{url}{path}?experiment_name=sibling-{}",
            number()
        ))?)
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let name = location.uri().query("experiment_name").unwrap_or_default();
        let traces: Vec<(String, Trace)> = self.mlflow.with(&self.path(location), |store| {
            let id = store.experiments.iter().find(|e| e.name == name);
            let id = id.map(|e| e.id.clone());
            let all = store.traces.iter();
            all.filter(|(_, t)| Some(&t.experiment) == id.as_ref())
                .map(|(id, t)| (id.clone(), t.clone()))
                .collect()
        });
        let mut stored = Stored::default();
        for (_, trace) in traces {
            let Some(first) = trace.spans.values().next() else {
                continue;
            };
            let mut update = TraceUpdate::new(first.span.trace_id);
            update.tags = trace.tags;
            update.session_id = trace.metadata.get("mlflow.trace.session").cloned();
            update.user_id = trace.metadata.get("mlflow.trace.user").cloned();
            update.metadata = trace.metadata;
            update.name = update.tags.get("mlflow.traceName").cloned();
            update.client_request_id = trace.client_request_id;
            update.request_preview = trace.request_preview;
            update.response_preview = trace.response_preview;
            update.run_id = trace.runs.into_iter().next_back();
            stored.updates.push(update);
            stored.spans.extend(trace.spans.into_values());
        }
        Ok(stored)
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_trace_values()
            .with_groups()
            .with_unavailable()
            .with_broken()
            .with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let registry = Registry::new()
            .with_scheme("http", |uri| at(uri.as_str()))
            .with_holes("http", ServerLocation::holes("http"));
        let (n, url) = (number(), self.server.url());
        Ok(registry.template(&format!("{url}/s{n}?experiment_name={{tenant}}"))?)
    }

    /// Roots carry the name of their trace, a span without an end ends where it began, and bytes
    /// in a resource are base64.
    fn keeps(&self, mut stored: StoredSpan) -> StoredSpan {
        let span = &mut stored.span;
        if span.parent_span_id.is_none() {
            let name = span.name.to_string();
            span.attributes
                .push(Attribute::new("mlflow.traceTag.mlflow.traceName", name));
        }
        if span.end_time_unix_nano == 0 {
            span.end_time_unix_nano = span.start_time_unix_nano;
        }
        for attribute in &mut stored.resource.attributes {
            bytes_to_text(&mut attribute.value);
        }
        stored
    }

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        let answer = |status: u16, code: &str| {
            Some((
                status,
                json!({"error_code": code, "message": "as the case wants it"}),
            ))
        };
        self.mlflow.with(&self.path(location), |store| {
            store.fault = match fault {
                RealFault::Unavailable => answer(503, "TEMPORARILY_UNAVAILABLE"),
                RealFault::Broken => answer(403, "PERMISSION_DENIED"),
                RealFault::Heal => None,
            };
        });
        Ok(())
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let url = self.server.url();
        let store = |edit: &dyn Fn(&mut support::mlflow::Store)| {
            let path = format!("/s{}", number());
            self.mlflow.with(&path, |store| edit(store));
            path
        };
        let mut all = Vec::new();
        let mut add = |what: &str, uri: String, expected, retried, path: Option<String>| {
            let mlflow = self.mlflow.clone();
            let untouched =
                match path {
                    None => Untouched::nowhere(),
                    Some(path) => Untouched::new(move || {
                        match mlflow.with(&path, |store| store.traces.len()) {
                            0 => Ok(()),
                            n => Err(Failure::new(format!("{n} traces were stored"))),
                        }
                    }),
                };
            all.push(Misconfigured {
                what: what.to_owned(),
                location: at(&uri),
                expected,
                retried,
                untouched,
            });
        };
        let path = store(&|_| {});
        let uri = format!("{url}{path}?experiment_id=99");
        add(
            "an experiment id that does not exist",
            uri,
            ErrorKind::NotFound,
            false,
            Some(path),
        );
        let path = store(&|_| {});
        let uri = format!("{url}{path}?experiment_name=absent&create=false");
        add(
            "a name that may not be created",
            uri,
            ErrorKind::NotFound,
            false,
            Some(path),
        );
        let path = store(&|s| {
            s.experiment("gone");
            s.experiments[0].deleted = true;
        });
        let uri = format!("{url}{path}?experiment_name=gone");
        add(
            "a deleted experiment",
            uri,
            ErrorKind::NotFound,
            false,
            Some(path),
        );
        let path = store(&|s| {
            s.experiment("one");
        });
        let uri = format!("{url}{path}?experiment_name=other&experiment_id=1");
        add(
            "a name and an id that disagree",
            uri,
            ErrorKind::Conflict,
            false,
            Some(path),
        );
        let path = store(&|s| s.authorization = Some("Basic dTpw".into()));
        let uri = format!("{url}{path}?experiment_name=x");
        add(
            "no credentials",
            uri,
            ErrorKind::Unauthenticated,
            false,
            Some(path),
        );
        let path = store(&|s| s.version = Some("3.3.2".into()));
        let uri = format!("{url}{path}?experiment_name=x");
        add(
            "an MLflow too old for OTLP",
            uri,
            ErrorKind::Unsupported,
            false,
            Some(path),
        );
        let path = store(&|s| s.version = Some("<!doctype html><h1>Welcome</h1>".into()));
        let uri = format!("{url}{path}?experiment_name=x");
        add(
            "a plain web server",
            uri,
            ErrorKind::Unsupported,
            false,
            Some(path),
        );
        let path = store(&|_| {});
        let uri = format!("{url}{path}?experiment_name=x&workspace=team");
        add(
            "a workspace on a server without any",
            uri,
            ErrorKind::InvalidConfig,
            false,
            Some(path),
        );
        let uri = format!("http://127.0.0.1:{}?experiment_name=x", free_port()?);
        add(
            "a port nobody listens on",
            uri,
            ErrorKind::Unavailable,
            true,
            None,
        );
        let uri = format!("https://{}?experiment_name=x", self.server.address);
        add(
            "a port that does not speak TLS",
            uri,
            ErrorKind::InvalidConfig,
            false,
            None,
        );
        for (what, uri) in [
            ("no experiment", format!("{url}/x")),
            (
                "an id that is no number",
                format!("{url}?experiment_id=abc"),
            ),
            (
                "an unknown parameter",
                format!("{url}?experiment_name=x&token=y"),
            ),
        ] {
            add(what, uri, ErrorKind::InvalidConfig, false, None);
        }
        Ok(all)
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        Some(other_process(location.uri()))
    }
}

fn bytes_to_text(value: &mut AnyValue) {
    match value {
        AnyValue::Bytes(bytes) => {
            *value = base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into();
        }
        AnyValue::Array(values) => values.iter_mut().for_each(bytes_to_text),
        AnyValue::Map(entries) => {
            for entry in entries {
                bytes_to_text(&mut entry.value);
            }
        }
        _ => {}
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

type Received = BTreeMap<String, Vec<StoredSpan>>;

/// An OTLP collector that keeps everything, by the path it was sent to.
#[derive(Debug)]
struct Collector {
    received: Arc<Mutex<Received>>,
    faults: Arc<Mutex<BTreeMap<String, u16>>>,
    server: Server,
}

impl Collector {
    fn start() -> Self {
        let received = Arc::<Mutex<Received>>::default();
        let faults = Arc::<Mutex<BTreeMap<String, u16>>>::default();
        let (store, failing) = (received.clone(), faults.clone());
        let server = Server::start_with(None, false, move |request| {
            let path = request.path().to_owned();
            if path.starts_with("/page") {
                return Reply::new(200, "text/html", "<!doctype html><p>Welcome");
            }
            if let Some(status) = failing.lock().unwrap().get(&path) {
                return Reply::text(*status, "as the case wants it");
            }
            match support::decode::request(&request.body()) {
                Ok(spans) => {
                    store.lock().unwrap().entry(path).or_default().extend(spans);
                    Reply::stored()
                }
                Err(_) => Reply::text(400, "not OTLP"),
            }
        });
        Self {
            received,
            faults,
            server,
        }
    }

    fn url(&self) -> String {
        format!("otlp+{}", self.server.url())
    }
}

#[async_trait]
impl Harness for Collector {
    fn name(&self) -> &str {
        "otlp"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        Ok(at(&format!(
            "{}/{hint}-{}/v1/traces",
            self.url(),
            number()
        ))?)
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let received = self.received.lock().unwrap();
        Ok(Stored {
            spans: received
                .get(location.uri().path())
                .cloned()
                .unwrap_or_default(),
            updates: Vec::new(),
        })
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_groups()
            .with_unavailable()
            .with_broken()
    }

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        let path = location.uri().path().to_owned();
        let mut faults = self.faults.lock().unwrap();
        match fault {
            RealFault::Unavailable => faults.insert(path, 503),
            RealFault::Broken => faults.insert(path, 401),
            RealFault::Heal => faults.remove(&path),
        };
        Ok(())
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let wrong = |what: &str, uri: String, expected, retried| Misconfigured {
            what: what.to_owned(),
            location: at(&uri),
            expected,
            retried,
            untouched: Untouched::nowhere(),
        };
        let closed = format!("otlp+http://127.0.0.1:{}", free_port()?);
        let tls = format!("otlp+https://{}", self.server.address);
        let page = format!("{}/page", self.url());
        let parameter = format!("{}?token=x", self.url());
        Ok(vec![
            wrong(
                "a port nobody listens on",
                closed,
                ErrorKind::Unavailable,
                true,
            ),
            wrong(
                "a port that does not speak TLS",
                tls,
                ErrorKind::InvalidConfig,
                false,
            ),
            wrong("a plain web server", page, ErrorKind::Unsupported, false),
            wrong(
                "the port of OTLP over gRPC",
                "otlp+http://127.0.0.1:4317".into(),
                ErrorKind::Unsupported,
                false,
            ),
            wrong("a parameter", parameter, ErrorKind::InvalidConfig, false),
        ])
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        Some(other_process(location.uri()))
    }
}
