//! Request spans that start before the tenant is known: `tracing`, tower-http's `TraceLayer` around
//! the authentication, and a pipeline that binds late.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use http_body_util::BodyExt;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::convert::Infallible;
use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;
use support::*;
use tower::{Layer, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use trace_destination_core::{Destination, Pipeline, TraceBinding, bind_current_trace};
use trace_destination_tower::DestinationLayer;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// Runs a test on one thread, with `tracing` into the stage's pipeline.
fn traced<F: Future>(stage: &Stage, test: impl FnOnce() -> F) {
    let subscriber = tracing_subscriber::registry()
        .with(tracing_subscriber::filter::LevelFilter::INFO)
        .with(tracing_opentelemetry::layer().with_tracer(stage.tracer.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await.unwrap() });
    });
}

/// What the request says about itself, and nobody has checked.
fn claimed(request: &Request) -> String {
    let header = request.headers().get("tenant");
    header.map_or("nobody".into(), |value| value.to_str().unwrap().into())
}

/// The request span is there before the tenant is known.
fn request_span(router: Router) -> Router {
    let layer = TraceLayer::new_for_http()
        .make_span_with(|request: &Request| info_span!("request", tenant = claimed(request)))
        .on_failure(());
    router.layer(layer)
}

async fn authenticate(mut request: Request, next: Next) -> Response {
    let tenant = claimed(&request);
    async { tokio::task::yield_now().await }
        .instrument(info_span!("authenticate", tenant))
        .await;
    if tenant != "nobody" {
        request.extensions_mut().insert(Tenant(tenant));
    }
    next.run(request).await
}

fn layer(stage: &Stage) -> DestinationLayer {
    DestinationLayer::from_template(stage.template(), |request| {
        let tenant = request.extensions.get::<Tenant>();
        tenant.map(|tenant| tenant.0.as_str())
    })
    .unwrap()
}

async fn work(request: Request) -> String {
    let tenant = claimed(&request);
    info_span!("handler", tenant).in_scope(|| {});
    let task = async { tokio::task::yield_now().await };
    tokio::spawn(task.instrument(info_span!("task", tenant)))
        .await
        .unwrap();
    tenant
}

async fn silent(request: Request) -> String {
    tokio::task::yield_now().await;
    claimed(&request)
}

async fn panics() -> StatusCode {
    panic!("as told")
}

async fn events(request: Request) -> Body {
    let tenant = claimed(&request);
    let events = futures_util::stream::iter(0..3).then(move |n| {
        let tenant = tenant.clone();
        async move {
            tokio::task::yield_now().await;
            info_span!("event", tenant).in_scope(|| {});
            Ok::<_, Infallible>(format!("data: {n}\n\n"))
        }
    });
    Body::from_stream(events)
}

fn routes() -> Router {
    Router::new()
        .route("/work", get(work))
        .route("/silent", get(silent))
        .route("/events", get(events))
        .route("/panics", get(panics))
}

async fn ask(router: &Router, path: &str, tenant: &str) -> (StatusCode, String) {
    let request = Request::get(path)
        .header("tenant", tenant)
        .body(Body::empty())
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn a_request_span_around_the_authentication() {
    let stage = Stage::new("late-layer");
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        let router = request_span(router);
        let requests = (0..60).map(|n| {
            let (router, tenant) = (router.clone(), ["a", "b", "c"][n % 3]);
            tokio::spawn(async move {
                let path = ["/work", "/silent", "/events"][n / 3 % 3];
                assert_eq!(ask(&router, path, tenant).await.0, StatusCode::OK);
            })
        });
        for request in futures_util::future::join_all(requests).await {
            request.unwrap();
        }
    });
    let report = stage.flush();
    for tenant in ["a", "b", "c"] {
        let traces = stage.traces(tenant);
        let count = |names: &[&str]| traces.iter().filter(|trace| *trace == names).count();
        assert_eq!(count(&["authenticate", "handler", "request", "task"]), 7);
        assert_eq!(
            count(&["authenticate", "request"]),
            7,
            "a handler without spans"
        );
        assert_eq!(
            count(&["authenticate", "event", "event", "event", "request"]),
            6
        );
        assert_eq!(traces.len(), 20);
    }
    assert!(report.all_stored(), "{report}");
}

#[test]
fn a_layer_around_the_request_span() {
    let stage = Stage::new("late-around");
    traced(&stage, || async {
        let template = stage.template();
        let layer = DestinationLayer::new(move |request| {
            let claimed = request.headers.get("tenant")?.to_str().ok()?;
            Some(template.destination([("tenant", claimed)]))
        });
        let inside = request_span(routes().layer(from_fn(authenticate)));
        let router = Router::new().fallback_service(layer.layer(inside));
        let requests = (0..12).map(|n| {
            let (router, tenant) = (router.clone(), ["a", "b"][n % 2]);
            tokio::spawn(async move {
                let path = ["/work", "/silent", "/events"][n / 2 % 3];
                assert_eq!(ask(&router, path, tenant).await.0, StatusCode::OK);
            })
        });
        for request in futures_util::future::join_all(requests).await {
            request.unwrap();
        }
    });
    let report = stage.flush();
    assert!(report.all_stored(), "{report}");
    for tenant in ["a", "b"] {
        assert_eq!(stage.traces(tenant).len(), 6);
        assert_eq!(stage.at(tenant).len(), 2 * (4 + 2 + 5));
    }
    assert_eq!(stage.pipeline.stats().ignored_scopes, 0);
}

#[test]
fn a_panic_of_a_handler_without_spans() {
    let stage = Stage::new("late-panic");
    traced(&stage, || async {
        let router = routes()
            .layer(layer(&stage))
            .layer(CatchPanicLayer::new())
            .layer(from_fn(authenticate));
        let (status, _) = ask(&request_span(router), "/panics", "a").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    });
    assert!(stage.flush().all_stored());
    assert_eq!(stage.at("a"), ["authenticate", "request"]);
}

#[test]
fn a_body_that_is_dropped_halfway() {
    let stage = Stage::new("late-dropped");
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        let request = Request::get("/events").header("tenant", "a");
        let request = request.body(Body::empty()).unwrap();
        let response = request_span(router).oneshot(request).await.unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
    });
    assert!(stage.flush().all_stored());
    assert_eq!(stage.at("a"), ["authenticate", "event", "request"]);
}

#[test]
fn of_nested_layers_in_an_undecided_trace_the_inner_one_decides() {
    let stage = Stage::new("late-nested");
    traced(&stage, || async {
        let outer = stage.to("outer");
        let router = routes()
            .layer(layer(&stage))
            .layer(DestinationLayer::new(move |_| outer.clone()));
        // In front of both, so that nothing between them waits.
        let router = request_span(router.layer(from_fn(authenticate)));
        for path in ["/work", "/silent", "/events"] {
            assert_eq!(ask(&router, path, "inner").await.0, StatusCode::OK);
        }
    });
    assert!(stage.flush().all_stored());
    assert_eq!(stage.traces("inner").len(), 3);
    assert_eq!(stage.at("inner").len(), 4 + 2 + 5);
    assert_eq!(stage.at("outer"), [""; 0]);
}

#[test]
fn a_trace_that_is_bound_is_not_bound_again() {
    let stage = Stage::new("late-bound");
    traced(&stage, || async {
        // The outer layer is outside of the request span and chooses by what the request shows.
        let (first, second) = (stage.to("first"), stage.to("second"));
        let inner = DestinationLayer::new(move |_| second.clone());
        let inside = routes().layer(inner).layer(from_fn(authenticate));
        let router = DestinationLayer::new(move |_| first.clone()).layer(request_span(inside));
        let request = Request::get("/silent").header("tenant", "first");
        let request = request.body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap();
    });
    assert!(stage.flush().all_stored());
    assert_eq!(stage.traces("first"), [["authenticate", "request"]]);
    assert_eq!(stage.at("second"), [""; 0]);
}

/// One connection serves many tenants, so no request may be below its span.
#[test]
fn a_span_around_the_connection() {
    let stage = Stage::new("late-connection");
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        let span = TraceLayer::new_for_http().make_span_with(
            |request: &Request| info_span!(parent: None, "request", tenant = claimed(request)),
        );
        let router = router.layer(span);
        let connection = async {
            for n in 0..12 {
                let path = ["/work", "/silent", "/events"][n % 3];
                let tenant = ["a", "b", "c", "d"][n % 4];
                assert_eq!(ask(&router, path, tenant).await.0, StatusCode::OK);
            }
        };
        let span = info_span!("connection", tenant = "nobody");
        connection.instrument(span).await;
    });
    stage.flush();
    for tenant in ["a", "b", "c", "d"] {
        assert_eq!(stage.at(tenant).len(), 4 + 2 + 5);
        assert_eq!(stage.traces(tenant).len(), 3);
    }
    assert_eq!(stage.unrouted(), 1, "the connection's span is of nobody");
}

/// Clients choose the trace id; here every one chooses the same.
#[test]
fn one_traceparent_from_many_tenants() {
    let stage = Stage::new("late-traceparent");
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        let span = TraceLayer::new_for_http().make_span_with(|request: &Request| {
            let span = info_span!("request", tenant = claimed(request));
            let sent = SpanContext::new(
                TraceId::from_bytes([7; 16]),
                SpanId::from_bytes([7; 8]),
                TraceFlags::SAMPLED,
                true,
                TraceState::NONE,
            );
            span.set_parent(Context::new().with_remote_span_context(sent))
                .unwrap();
            span
        });
        let router = router.layer(span);
        let requests = (0..24).map(|n| {
            let (router, tenant) = (router.clone(), ["a", "b", "c", "d"][n % 4]);
            tokio::spawn(async move {
                let path = ["/work", "/silent", "/events"][n % 3];
                assert_eq!(ask(&router, path, tenant).await.0, StatusCode::OK);
            })
        });
        for request in futures_util::future::join_all(requests).await {
            request.unwrap();
        }
    });
    let report = stage.flush();
    assert!(report.all_stored(), "{report}");
    for tenant in ["a", "b", "c", "d"] {
        assert_eq!(stage.at(tenant).len(), 2 * (4 + 2 + 5));
        assert_eq!(stage.traces(tenant).len(), 1);
    }
}

#[test]
fn requests_of_nobody() {
    let stage = Stage::new("late-nobody");
    traced(&stage, || async {
        let health = layer(&stage).on_unresolved(|_| Continue(Destination::discard()));
        let router = routes().layer(health).layer(from_fn(authenticate));
        ask(&request_span(router), "/silent", "nobody").await;
    });
    assert!(stage.flush().all_stored(), "discarded on purpose");
    assert_eq!(stage.pipeline.stats().discarded, 2);
    traced(&stage, || async {
        let refused = layer(&stage).on_unresolved(|_| {
            // The request span is of nobody: its trace is decided here.
            assert_eq!(
                bind_current_trace(&Destination::discard()),
                TraceBinding::Bound
            );
            Break(StatusCode::FORBIDDEN.into_response())
        });
        let router = routes().layer(refused).layer(from_fn(authenticate));
        let (status, _) = ask(&request_span(router), "/silent", "nobody").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    });
    assert!(stage.flush().all_stored());
    assert_eq!(stage.pipeline.stats().discarded, 4);
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        ask(&request_span(router), "/silent", "nobody").await;
    });
    let report = stage.flush();
    assert!(!report.all_stored(), "{report}");
    assert_eq!(stage.unrouted(), 2, "counted, and not silently gone");
}

/// Without late binding the request span goes nowhere, and is counted.
#[test]
fn without_late_binding() {
    let off = Pipeline::builder().strict();
    let stage = Stage::with("late-off", off.with_late_binding(Duration::ZERO, 0));
    traced(&stage, || async {
        let router = routes().layer(layer(&stage)).layer(from_fn(authenticate));
        ask(&request_span(router), "/silent", "a").await;
    });
    stage.flush();
    assert_eq!(stage.at("a"), [""; 0]);
    assert_eq!(stage.unrouted(), 2);
}

/// An extractor that authenticates, and binds the trace: there is no layer.
struct Authenticated(String);

impl FromRequestParts<Stage> for Authenticated {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, stage: &Stage) -> Result<Self, StatusCode> {
        let header = parts.headers.get("tenant").and_then(|t| t.to_str().ok());
        let tenant = header.ok_or(StatusCode::UNAUTHORIZED)?.to_owned();
        async { tokio::task::yield_now().await }
            .instrument(info_span!("authenticate", tenant))
            .await;
        let destination = stage.template().destination([("tenant", &tenant)]);
        let destination = destination.map_err(|_| StatusCode::FORBIDDEN)?;
        match bind_current_trace(&destination).is_bound() {
            true => Ok(Self(tenant)),
            false => Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

#[test]
fn an_extractor_that_authenticates() {
    async fn handler(_: State<Stage>, Authenticated(tenant): Authenticated) -> Body {
        info_span!("handler", tenant).in_scope(|| {});
        let task = async { tokio::task::yield_now().await };
        tokio::spawn(task.instrument(info_span!("task", tenant)));
        // `TraceLayer` enters the request span around each poll of the body.
        Body::from_stream(futures_util::stream::iter(0..3).map(move |_| {
            info_span!("event", tenant).in_scope(|| {});
            Ok::<_, Infallible>("data: x\n\n")
        }))
    }
    let stage = Stage::new("late-extractor");
    traced(&stage, || async {
        let router = Router::new().route("/", get(handler));
        let router = request_span(router.with_state(stage.clone()));
        for tenant in ["a", "b", "a"] {
            assert_eq!(ask(&router, "/", tenant).await.0, StatusCode::OK);
        }
        assert_eq!(ask(&router, "/", " ").await.0, StatusCode::FORBIDDEN);
    });
    stage.flush();
    let whole = [
        "authenticate",
        "event",
        "event",
        "event",
        "handler",
        "request",
        "task",
    ];
    assert_eq!(stage.traces("a"), [whole, whole]);
    assert_eq!(stage.traces("b"), [whole]);
    assert_eq!(stage.unrouted(), 2);
}
