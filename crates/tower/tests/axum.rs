//! Behind axum, on real connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response, Sse, sse::Event};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::FutureExt as _;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow::Break;
use support::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower_http::catch_panic::CatchPanicLayer;
use trace_destination_tower::DestinationLayer;

/// Where the authentication and the tests meet: what a test is told when something has happened.
#[derive(Clone)]
struct App {
    stage: Stage,
    told: mpsc::UnboundedSender<&'static str>,
}

/// Tells the test that a value was dropped.
struct Tell(App, &'static str);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.told.send(self.1);
    }
}

/// The tenant of a token; each token is used by one tenant.
async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let tenant = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer token-of-"))
        .map(str::to_owned)
        .ok_or(StatusCode::UNAUTHORIZED)?;
    request.extensions_mut().insert(Tenant(tenant));
    Ok(next.run(request).await)
}

/// Runs inside the layer, after the authentication.
async fn audit(
    State(app): State<App>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    request: Request,
    next: Next,
) -> Response {
    app.stage.span("middleware", &tenant);
    next.run(request).await
}

/// An extractor that makes a span.
struct Traced(String);

impl FromRequestParts<App> for Traced {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        let Tenant(tenant) = parts
            .extensions
            .get()
            .cloned()
            .ok_or(StatusCode::FORBIDDEN)?;
        tokio::task::yield_now().await;
        app.stage.span("extractor", &tenant);
        Ok(Self(tenant))
    }
}

async fn plain(State(app): State<App>, Traced(tenant): Traced) -> String {
    let work = {
        let (app, tenant) = (app.clone(), tenant.clone());
        async move {
            tokio::task::yield_now().await;
            app.stage.span("task", &tenant);
        }
    };
    tokio::spawn(work.with_current_context()).await.unwrap();
    app.stage.span("handler", &tenant);
    tenant
}

async fn events(
    State(app): State<App>,
    Traced(tenant): Traced,
    Path(count): Path<usize>,
) -> impl IntoResponse {
    let events = app.stage.chunks(count, &tenant);
    Sse::new(events.map(|data| Ok::<_, Infallible>(Event::default().data(data.trim()))))
}

/// Sends one event and then waits for a client that goes away.
async fn endless(State(app): State<App>, Traced(tenant): Traced) -> impl IntoResponse {
    let end = (
        SpanOnDrop(app.stage.clone(), tenant.clone()),
        Tell(app.clone(), "dropped"),
    );
    let first = app.stage.chunks(1, &tenant);
    let rest = futures_util::stream::pending().map(move |data| {
        let _end = &end;
        data
    });
    Body::from_stream(first.chain(rest).map(Ok::<_, Infallible>))
}

struct SpanOnDrop(Stage, String);

impl Drop for SpanOnDrop {
    fn drop(&mut self) {
        self.0.span("drop", &self.1);
    }
}

/// Never answers; the client goes away while it waits.
async fn stuck(State(app): State<App>, Traced(tenant): Traced) {
    let _end = (
        SpanOnDrop(app.stage.clone(), tenant.clone()),
        Tell(app.clone(), "dropped"),
    );
    app.stage.span("handler", &tenant);
    let _ = app.told.send("stuck");
    std::future::pending().await
}

async fn panics(State(app): State<App>, Traced(tenant): Traced) -> StatusCode {
    let _end = SpanOnDrop(app.stage.clone(), tenant.clone());
    app.stage.span("handler", &tenant);
    panic!("as told")
}

/// The body panics after its first chunk: the connection breaks.
async fn body_panics(State(app): State<App>, Traced(tenant): Traced) -> Body {
    let end = (
        SpanOnDrop(app.stage.clone(), tenant.clone()),
        Tell(app.clone(), "dropped"),
    );
    let chunks = app
        .stage
        .chunks(2, &tenant)
        .enumerate()
        .map(move |(n, chunk)| {
            let _end = &end;
            assert_eq!(n, 0, "as told");
            Ok::<_, Infallible>(chunk)
        });
    Body::from_stream(chunks)
}

/// Serves until the test ends.
async fn serve(name: &str) -> (Stage, SocketAddr, mpsc::UnboundedReceiver<&'static str>) {
    let stage = Stage::new(name);
    let (told, hears) = mpsc::unbounded_channel();
    let app = App {
        stage: stage.clone(),
        told,
    };
    let layer = DestinationLayer::from_template(stage.template(), |request| {
        request
            .extensions
            .get::<Tenant>()
            .map(|tenant| tenant.0.as_str())
    })
    .unwrap()
    .on_unresolved(|_| Break(StatusCode::FORBIDDEN.into_response()));
    let router = Router::new()
        .route("/", get(plain))
        .route("/events/{count}", get(events))
        .route("/endless", get(endless))
        .route("/stuck", get(stuck))
        .route("/panics", get(panics))
        .route("/body-panics", get(body_panics))
        .layer(from_fn_with_state(app.clone(), audit))
        .layer(CatchPanicLayer::new())
        .layer(layer)
        .layer(from_fn(authenticate))
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (stage, address, hears)
}

type Client = SendRequest<Empty<Bytes>>;

/// One connection, which is kept for all requests.
async fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn send(
    client: &mut Client,
    path: &str,
    tenant: &str,
) -> http::Response<hyper::body::Incoming> {
    client.ready().await.unwrap();
    let request = http::Request::get(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer token-of-{tenant}"))
        .body(Empty::new())
        .unwrap();
    client.send_request(request).await.unwrap()
}

async fn read(response: http::Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn tenants_alternate_on_one_connection() {
    block_on(async {
        let (stage, address, _hears) = serve("axum-keep-alive").await;
        let mut client = connect(address).await;
        for n in 0..30 {
            let tenant = ["a", "b", "c"][n % 3];
            let response = send(&mut client, "/", tenant).await;
            let length: HeaderMap = response.headers().clone();
            assert_eq!(
                length["content-length"], "1",
                "the size of the body is passed on"
            );
            assert_eq!(read(response).await, tenant);
            let events = read(send(&mut client, "/events/3", tenant).await).await;
            assert_eq!(events.matches("data:").count(), 6);
            // Nobody's, between those of tenants.
            let response = send(&mut client, "/", "").await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            read(response).await;
        }
        stage.flush();
        for tenant in ["a", "b", "c"] {
            let names = stage.at(tenant);
            let count = |name: &str| names.iter().filter(|n| *n == name).count();
            assert_eq!(count("chunk"), 30);
            assert_eq!((count("middleware"), count("extractor")), (20, 20));
            assert_eq!((count("task"), count("handler")), (10, 10));
            assert_eq!(names.len(), 90);
        }
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn a_client_leaves_in_the_middle_of_a_body() {
    block_on(async {
        let (stage, address, mut hears) = serve("axum-disconnect").await;
        for tenant in ["a", "b"] {
            let mut client = connect(address).await;
            let mut response = send(&mut client, "/endless", tenant).await;
            assert!(response.frame().await.unwrap().is_ok());
            drop((response, client));
            assert_eq!(hears.recv().await, Some("dropped"));
        }
        stage.flush();
        for tenant in ["a", "b"] {
            assert_eq!(
                stage.at(tenant),
                ["chunk", "drop", "extractor", "middleware"]
            );
        }
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn a_client_leaves_before_the_answer() {
    block_on(async {
        let (stage, address, mut hears) = serve("axum-cancelled").await;
        for tenant in ["a", "b"] {
            let mut client = connect(address).await;
            let request = send(&mut client, "/stuck", tenant);
            tokio::select! {
                _ = request => panic!("it never answers"),
                told = hears.recv() => assert_eq!(told, Some("stuck")),
            }
            drop(client);
            assert_eq!(hears.recv().await, Some("dropped"));
        }
        stage.flush();
        for tenant in ["a", "b"] {
            assert_eq!(
                stage.at(tenant),
                ["drop", "extractor", "handler", "middleware"]
            );
        }
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn handlers_and_bodies_that_panic_disturb_no_other_tenant() {
    block_on(async {
        let (stage, address, mut hears) = serve("axum-panics").await;
        let mut kept = connect(address).await;
        for _ in 0..5 {
            let response = send(&mut kept, "/panics", "a").await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            read(response).await;
            assert_eq!(read(send(&mut kept, "/", "b").await).await, "b");
            let mut broken = connect(address).await;
            let response = send(&mut broken, "/body-panics", "c").await;
            assert!(response.into_body().collect().await.is_err());
            assert_eq!(hears.recv().await, Some("dropped"));
            assert_eq!(read(send(&mut kept, "/", "b").await).await, "b");
        }
        stage.flush();
        let counts = |tenant: &str, names: &[&str]| -> Vec<usize> {
            let stored = stage.at(tenant);
            let count = |name: &&str| stored.iter().filter(|n| n == name).count();
            names.iter().map(count).collect()
        };
        let names = ["middleware", "extractor", "handler", "task", "drop"];
        assert_eq!(counts("a", &names), [5, 5, 5, 0, 5]);
        assert_eq!(counts("b", &names), [10, 10, 10, 10, 0]);
        assert_eq!(counts("c", &names), [5, 5, 0, 0, 5]);
        assert_eq!(counts("c", &["chunk"]), [10]);
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn many_connections_at_once() {
    block_on(async {
        let (stage, address, _hears) = serve("axum-many").await;
        let clients = (0..20).map(|client| async move {
            let mut connection = connect(address).await;
            for n in 0..10 {
                let tenant = format!("t{}", (client + n * 7) % 20);
                assert_eq!(
                    read(send(&mut connection, "/", &tenant).await).await,
                    tenant
                );
                read(send(&mut connection, "/events/5", &tenant).await).await;
            }
        });
        for client in futures_util::future::join_all(clients.map(tokio::spawn)).await {
            client.unwrap();
        }
        stage.flush();
        for tenant in 0..20 {
            assert_eq!(stage.at(&format!("t{tenant}")).len(), 10 * 11);
        }
        assert_eq!(stage.unrouted(), 0);
    });
}
