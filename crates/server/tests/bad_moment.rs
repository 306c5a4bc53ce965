//! Walks the tables that `docs/server.md` prints: a place that answers so for a moment costs no more
//! spans than the table says, and none of those that come after. A moment is a number of answers and
//! not a time, so that a slow machine sees the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rcgen::{CertificateParams, KeyPair};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::http::{Reply, Request, Server};
use support::mlflow::Mlflow;
use support::{builder, decode};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use trace_destination_core::{
    Destination, LocationState, LocationUri, Pipeline, TraceLocation as _,
};
use trace_destination_server::ServerLocation;

/// Answers that a bad moment lasts.
const MOMENT: i64 = 5;
/// Spans of one wave.
const WAVE: usize = 25;
/// Longest time until everything is settled, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(90);
/// A host that no resolver is asked for: its first label is longer than names may be.
const NO_HOST: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.test";

/// One row of a table: what happens, and whether it may cost the spans of the requests it met.
#[derive(Clone, Debug)]
struct Row {
    title: String,
    may_cost: bool,
}

/// The rows of a table of the documentation.
fn rows(table: &str) -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = format!("<!-- answers of {table}: begin -->");
    let end = format!("<!-- answers of {table}: end -->");
    let part = page.split(&begin).nth(1).unwrap();
    let part = part.split(&end).next().unwrap();
    let rows: Vec<Row> = part
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let may_cost = match cells[3] {
                "0" => false,
                "at most those" => true,
                other => panic!("{other}"),
            };
            Row {
                title: cells[1].to_owned(),
                may_cost,
            }
        })
        .collect();
    assert!(rows.len() > 20, "{table}: {} rows", rows.len());
    rows
}

/// What a place does in its bad moment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bad {
    Status(u16, Option<String>),
    WebPage,
    Wire(Wire),
    /// Its name is not found.
    NoName,
    /// It is tested in another way, or comes to no request.
    Apart,
}

/// What goes wrong below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Reset,
    ResetAfterRequest,
    CutAnswer,
    Hang,
    Alert,
    Garbage,
    Untrusted,
    /// 413 before the request was read, and the connection closed upon it.
    Early413,
}

/// Everything a row stands for.
fn meanings(title: &str) -> Vec<Bad> {
    let wire = |all: &[Wire]| all.iter().map(|w| Bad::Wire(*w)).collect();
    let statuses = |all: &[u16]| all.iter().map(|s| Bad::Status(*s, None)).collect();
    match title {
        "any 3xx" => statuses(&[301, 302, 303, 307, 308]),
        "any other 4xx" => statuses(&[418]),
        "any other 5xx" => statuses(&[506, 520, 599]),
        "anything else" => statuses(&[402, 451, 999]),
        "success, but a web page" => vec![Bad::WebPage],
        // See `of_a_server_that_is_started_late`.
        "nothing listens at this address" => vec![Bad::Apart],
        "no connection could be made" => vec![Bad::NoName],
        "the connection broke" => wire(&[
            Wire::Reset,
            Wire::ResetAfterRequest,
            Wire::CutAnswer,
            Wire::Early413,
        ]),
        "the server did not answer in time" => wire(&[Wire::Hang]),
        "the server's certificate is not trusted" => wire(&[Wire::Untrusted]),
        "the server ended the TLS handshake" => wire(&[Wire::Alert]),
        "the TLS handshake failed" => wire(&[Wire::Garbage]),
        // Found when a location is built or before anything is sent, and not for a moment.
        "the request cannot be made" => vec![Bad::Apart],
        // Done by the facade's test `mistakes`: proxies are of the whole process.
        "what answers there is not HTTP"
        | "the proxy cannot be reached"
        | "the proxy makes no connection to the server"
        | "the proxy asks for credentials" => vec![Bad::Apart],
        _ => {
            let (statuses, codes) = match title.split_once(" `") {
                Some((statuses, code)) => (statuses, Some(code.trim_end_matches('`').to_owned())),
                None => (title, None),
            };
            let each = statuses.split(", ").map(|status| {
                let status = status.parse();
                let status = status.unwrap_or_else(|_| panic!("`{title}` is no known row"));
                Bad::Status(status, codes.clone())
            });
            each.collect()
        }
    }
}

/// One location, and what its place saw.
struct Lane {
    what: String,
    may_cost: bool,
    at: Destination,
    uri: LocationUri,
    place: Arc<Place>,
    /// The place is well until the second wave.
    well_first: bool,
    /// It has no end.
    for_good: bool,
}

#[derive(Debug)]
struct Place {
    bad: Bad,
    /// Answers of the bad moment that are still to come.
    left: AtomicI64,
    /// Names of the spans in requests that were answered so.
    met: Mutex<BTreeSet<String>>,
    stored: Mutex<BTreeSet<String>>,
}

impl Place {
    fn new(bad: Bad, is_well: bool) -> Arc<Self> {
        Arc::new(Self {
            bad,
            left: AtomicI64::new(if is_well { 0 } else { MOMENT }),
            met: Mutex::default(),
            stored: Mutex::default(),
        })
    }

    /// Takes one answer of the bad moment.
    fn is_bad(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) > 0
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    /// Answers a request for spans, or another one by `well`.
    fn answer(&self, request: &Request, well: impl FnOnce(&Request) -> Reply) -> Reply {
        let names = || -> BTreeSet<String> {
            match request.header("content-type") {
                Some("application/x-protobuf") => decode::request(&request.body())
                    .unwrap()
                    .into_iter()
                    .map(|s| s.span.name.to_string())
                    .collect(),
                _ => BTreeSet::new(),
            }
        };
        let bad = match &self.bad {
            Bad::Status(status, None) => Reply::text(*status, "a bad moment"),
            Bad::Status(status, Some(code)) => Reply::json(
                *status,
                serde_json::json!({"error_code": code, "message": "a bad moment"}),
            ),
            Bad::WebPage => Reply::new(200, "text/html", "<!doctype html><p>Log in"),
            _ => return self.store(names(), well(request)),
        };
        match self.is_bad() {
            true => {
                self.met.lock().unwrap().extend(names());
                bad
            }
            false => self.store(names(), well(request)),
        }
    }

    fn store(&self, names: BTreeSet<String>, reply: Reply) -> Reply {
        if matches!(&reply, Reply::Answer { status: 200, .. }) {
            self.stored.lock().unwrap().extend(names);
        }
        reply
    }
}

/// A certificate for this machine, written to a file with its key.
fn certificate(folder: &Path, name: &str) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = folder.join(format!("{name}.pem"));
    let text = format!("{}{}", certificate.pem(), key.serialize_pem());
    std::fs::write(&file, text).unwrap();
    file
}

fn acceptor(file: &Path) -> TlsAcceptor {
    let key = PrivateKeyDer::from_pem_file(file).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(support::certificates(file), key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Stands before a server: for its bad moment it does harm to connections, then it passes them on.
fn front(wire: Wire, place: Arc<Place>, well: SocketAddr, untrusted: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let place = place.clone();
            std::thread::spawn(move || {
                // A connection that never asks for anything is none of the moment's.
                if stream.peek(&mut [0; 1]).unwrap_or(0) == 0 {
                    return;
                }
                match place.is_bad() {
                    true => harm(wire, stream, untrusted),
                    false => pass_on(stream, well),
                }
            });
        }
    });
    address
}

fn harm(wire: Wire, mut stream: TcpStream, untrusted: SocketAddr) {
    let mut some = [0; 512];
    match wire {
        Wire::Reset => {}
        Wire::ResetAfterRequest => {
            // A while without another byte: the request is here.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
            while matches!(stream.read(&mut some), Ok(n) if n > 0) {}
        }
        Wire::CutAnswer => {
            let _ = stream.read(&mut some);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        }
        Wire::Hang => {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            while matches!(stream.read(&mut some), Ok(n) if n > 0) {}
        }
        // A fatal `handshake_failure`.
        Wire::Alert => {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 4096]);
        }
        Wire::Garbage => {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 4096]);
        }
        Wire::Untrusted => pass_on(stream, untrusted),
        Wire::Early413 => {
            let _ = stream.read(&mut some[..64]);
            let _ = stream
                .write_all(b"HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    }
}

fn pass_on(from: TcpStream, to: SocketAddr) {
    let Ok(to) = TcpStream::connect(to) else {
        return;
    };
    let (from2, to2) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::spawn(move || copy(to2, from2));
    copy(from, to);
}

/// How locations of one protocol are named, and how their places answer when they are well.
trait Protocol {
    const TABLE: &'static str;
    fn uri(server: &str, path: &str) -> String;
    fn well(store: &Mlflow, request: &Request) -> Reply;
}

struct Otlp;

impl Protocol for Otlp {
    const TABLE: &'static str = "otlp";

    fn uri(server: &str, path: &str) -> String {
        format!("otlp+{server}{path}")
    }

    fn well(_: &Mlflow, _: &Request) -> Reply {
        Reply::stored()
    }
}

struct Tracking;

impl Protocol for Tracking {
    const TABLE: &'static str = "mlflow";

    fn uri(server: &str, path: &str) -> String {
        format!("{server}{path}?experiment_name=e")
    }

    fn well(store: &Mlflow, request: &Request) -> Reply {
        store.answer(request)
    }
}

/// What lanes of one protocol need.
struct World {
    lanes: Vec<Lane>,
    _servers: Vec<Server>,
    _folder: tempfile::TempDir,
}

fn world<P: Protocol + 'static>() -> World {
    let folder = tempfile::tempdir().unwrap();
    let (known, unknown) = (
        certificate(folder.path(), "known"),
        certificate(folder.path(), "unknown"),
    );
    let places: Arc<Mutex<BTreeMap<String, Arc<Place>>>> = Arc::default();
    let store = Arc::new(Mlflow::default());
    let serve = |tls: Option<TlsAcceptor>| {
        let (places, store) = (places.clone(), store.clone());
        Server::start_with(tls, false, move |request| {
            let path = request.path();
            let end = path[1..].find('/').map_or(path.len(), |i| i + 1);
            let place = places.lock().unwrap()[&path[..end]].clone();
            place.answer(request, |request| P::well(&store, request))
        })
    };
    let plain = serve(None);
    let trusted = serve(Some(acceptor(&known)));
    let untrusted = serve(Some(acceptor(&unknown)));
    let mut lanes = Vec::new();
    for row in rows(P::TABLE) {
        for bad in meanings(&row.title) {
            // What happens to connections cannot begin while one is open.
            let may_begin_well = matches!(bad, Bad::Status(..) | Bad::WebPage);
            for well_first in [false, true] {
                if bad == Bad::Apart || (well_first && !may_begin_well) {
                    continue;
                }
                let path = format!("/r{}", lanes.len());
                let place = Place::new(bad.clone(), well_first);
                places.lock().unwrap().insert(path.clone(), place.clone());
                let server = match &bad {
                    Bad::NoName => format!("http://{NO_HOST}"),
                    Bad::Wire(wire) => {
                        let tls = matches!(wire, Wire::Alert | Wire::Garbage | Wire::Untrusted);
                        let well = match tls {
                            true => trusted.address,
                            false => plain.address,
                        };
                        let address = front(*wire, place.clone(), well, untrusted.address);
                        format!("http{}://{address}", if tls { "s" } else { "" })
                    }
                    _ => plain.url(),
                };
                let location: ServerLocation = builder(&P::uri(&server, &path))
                    .with_certificate_authorities(&known)
                    .with_timeout(match bad {
                        Bad::Wire(Wire::Hang) => Duration::from_millis(300),
                        _ => Duration::from_secs(30),
                    })
                    .build()
                    .unwrap();
                lanes.push(Lane {
                    what: format!("{} {bad:?} well first: {well_first}", P::TABLE),
                    may_cost: row.may_cost,
                    uri: location.uri().clone(),
                    at: Destination::new(location),
                    place,
                    well_first,
                    for_good: bad == Bad::NoName,
                });
            }
        }
    }
    World {
        lanes,
        _servers: vec![plain, trusted, untrusted],
        _folder: folder,
    }
}

fn wave(tracer: &SdkTracer, lane: &Lane, number: usize) {
    let cx = lane.at.in_context(&opentelemetry::Context::new());
    for i in 0..WAVE {
        let span = tracer.start_with_context(format!("{number}-{i}"), &cx);
        // Large enough in sum to be refused before it is read.
        let mut span = span;
        span.set_attribute(opentelemetry::KeyValue::new(
            "text",
            "0123456789abcdef".repeat(256),
        ));
        span.end();
    }
}

fn walk<P: Protocol + 'static>() {
    let world = world::<P>();
    assert!(world.lanes.len() > 60, "{} moments", world.lanes.len());
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("moments");
    let settle = |is_settled: &dyn Fn() -> bool| {
        let begun = Instant::now();
        loop {
            let report = pipeline.flush(Duration::from_secs(2)).wait();
            let pending = |lane: &&Lane| {
                let of = report.location(&lane.uri);
                of.is_some_and(|of| of.pending > 0) && !lane.for_good
            };
            let waits: Vec<&str> = world
                .lanes
                .iter()
                .filter(pending)
                .map(|l| &*l.what)
                .collect();
            if waits.is_empty() && is_settled() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{waits:?} wait still: {report}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for lane in world.lanes.iter().filter(|lane| lane.well_first) {
        wave(&tracer, lane, 0);
    }
    settle(&|| true);
    for lane in world.lanes.iter().filter(|lane| lane.well_first) {
        lane.place.left.store(MOMENT, Ordering::SeqCst);
    }
    for number in [1, 2] {
        for lane in &world.lanes {
            wave(&tracer, lane, number);
        }
        let _ = pipeline.flush(Duration::from_millis(100)).wait();
    }
    settle(&|| {
        let mut lanes = world.lanes.iter().filter(|lane| !lane.for_good);
        lanes.all(|lane| lane.place.is_over())
    });
    for lane in &world.lanes {
        wave(&tracer, lane, 3);
    }
    settle(&|| true);
    let stats = pipeline.stats();
    for lane in &world.lanes {
        let what = &lane.what;
        let of = stats.location(&lane.uri).unwrap();
        let ended = (WAVE * if lane.well_first { 4 } else { 3 }) as u64;
        if lane.for_good {
            assert_eq!(
                (of.dropped.total(), of.accepted - of.stored),
                (0, ended),
                "{what}: {of:?}"
            );
            assert_eq!(of.state, LocationState::Retrying, "{what}: {of:?}");
            continue;
        }
        let lost = of.dropped.total();
        assert_eq!(of.stored + lost, ended, "{what}: {of:?}");
        let met = lane.place.met.lock().unwrap();
        let most = if lane.may_cost { met.len() as u64 } else { 0 };
        assert!(
            lost <= most,
            "{what}: {lost} lost of {most} at most: {of:?}"
        );
        let stored = lane.place.stored.lock().unwrap();
        assert_eq!(stored.len() as u64, of.stored, "{what}");
        for number in [0, 3] {
            let of_wave = stored
                .iter()
                .filter(|n| n.starts_with(&format!("{number}-")));
            let expected = if number == 0 && !lane.well_first {
                0
            } else {
                WAVE
            };
            assert_eq!(of_wave.count(), expected, "{what}: wave {number}");
        }
    }
}

#[test]
fn of_otlp_endpoints() {
    walk::<Otlp>();
}

#[test]
fn of_tracking_servers() {
    walk::<Tracking>();
}

/// A place where nothing listens for a moment.
#[test]
fn of_a_server_that_is_started_late() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let at = Destination::new(builder(&format!("otlp+http://{address}")).build().unwrap());
    let cx = at.in_context(&opentelemetry::Context::new());
    let tracer = provider.tracer("moments");
    tracer.start_with_context("early", &cx).end();
    let report = pipeline.flush(Duration::from_millis(300)).wait();
    assert!(!report.is_complete(), "{report}");
    let Ok(listener) = TcpListener::bind(address) else {
        // Another process of this machine took the port meanwhile.
        return;
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer);
        }
    });
    let report = pipeline.flush(Duration::from_secs(60)).wait();
    assert!(report.all_stored(), "{report}");
}
