//! The conventions of tower, and requests without a destination.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::{FutureExt as _, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use std::convert::Infallible;
use std::future::{pending, ready};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll};
use support::*;
use tower::buffer::Buffer;
use tower::{Layer, Service, ServiceExt, service_fn};
use trace_destination_core::{Destination, ErrorKind};
use trace_destination_tower::{DestinationLayer, Unresolved};

type Reply = Response<Full<&'static [u8]>>;

fn request(tenant: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(tenant) = tenant {
        request.extensions_mut().insert(Tenant(tenant.to_owned()));
    }
    request
}

fn by_template(stage: &Stage) -> DestinationLayer {
    DestinationLayer::from_template(stage.template(), tenant_of).unwrap()
}

fn tenant_of(request: &http::request::Parts) -> Option<&str> {
    let tenant = request.extensions.get::<Tenant>()?;
    Some(tenant.0.as_str())
}

/// Makes a span at once, one in the future and one when the future is dropped.
fn traced(
    stage: &Stage,
) -> impl Service<Request<()>, Response = Reply, Error = Infallible, Future: Send> + Clone + use<> {
    let stage = stage.clone();
    service_fn(move |request: Request<()>| {
        let tenant = request.extensions().get::<Tenant>().cloned();
        let tenant = tenant.map_or_else(|| "nobody".to_owned(), |tenant| tenant.0);
        stage.span("call", &tenant);
        let on_drop = OnDrop(stage.clone(), tenant.clone());
        let stage = stage.clone();
        async move {
            let _on_drop = on_drop;
            tokio::task::yield_now().await;
            stage.span("future", &tenant);
            Ok(Response::new(Full::new(&b"hello"[..])))
        }
    })
}

struct OnDrop(Stage, String);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.span("drop", &self.1);
    }
}

#[test]
fn call_future_and_drop_are_in_the_scope() {
    let stage = Stage::new("tower-scope");
    let service = by_template(&stage).layer(traced(&stage));
    block_on(async {
        let requests = (0..100).map(|n| {
            let service = service.clone();
            service.oneshot(request(Some(["a", "b", "c"][n % 3])))
        });
        futures_util::future::join_all(requests).await;
    });
    stage.flush();
    for (tenant, requests) in [("a", 34), ("b", 33), ("c", 33)] {
        let names = stage.at(tenant);
        for name in ["call", "future", "drop"] {
            assert_eq!(names.iter().filter(|n| *n == name).count(), requests);
        }
    }
    assert_eq!(stage.unrouted(), 0);
}

#[test]
fn a_future_dropped_halfway_is_dropped_in_the_scope() {
    let stage = Stage::new("tower-dropped");
    let mut service = by_template(&stage).layer(traced(&stage));
    let mut future = Box::pin(service.call(request(Some("a"))));
    assert!(future.as_mut().now_or_never().is_none());
    let elsewhere = std::thread::spawn(move || drop(future));
    elsewhere.join().unwrap();
    drop(service.call(request(Some("b")))); // never polled
    stage.flush();
    assert_eq!(stage.at("a"), ["call", "drop"]);
    assert_eq!(stage.at("b"), ["call", "drop"]);
    assert_eq!(stage.unrouted(), 0);
}

#[test]
fn a_request_without_a_destination_runs_unset_in_any_scope() {
    let stage = Stage::new("tower-unset");
    let service = by_template(&stage).layer(traced(&stage));
    let _previous = stage.to("previous").enter();
    // Not there, and names that do not fit.
    for tenant in [None, Some(""), Some("\u{200b}"), Some(" a"), Some("a\0b")] {
        let response = block_on(service.clone().oneshot(request(tenant))).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    stage.flush();
    assert_eq!(stage.at("previous"), [""; 0]);
    assert_eq!(stage.unrouted(), 15);
}

#[test]
fn names_stay_in_their_hole() {
    let stage = Stage::new("tower-hostile");
    let service = by_template(&stage).layer(traced(&stage));
    for tenant in [
        "x,memory:tower-hostile-a",
        "../a",
        "a?b=c",
        "a&b",
        "{tenant}",
        "%61",
    ] {
        block_on(service.clone().oneshot(request(Some(tenant)))).unwrap();
        stage.flush();
        assert_eq!(stage.at(tenant), ["call", "drop", "future"]);
    }
    assert_eq!(stage.at("a"), [""; 0]);
}

#[test]
fn the_policy_decides() {
    let stage = Stage::new("tower-policy");
    let seen = Arc::new(AtomicU32::new(0));
    let counted = seen.clone();
    let other = stage.to("quarantine");
    let layer = by_template(&stage).on_unresolved(move |why| match why {
        Unresolved::Absent => ControlFlow::Continue(Destination::discard()),
        Unresolved::Failed(error) if error.kind() == ErrorKind::InvalidName => {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut response = Response::new(Full::new(&b"no such tenant"[..]));
            *response.status_mut() = StatusCode::FORBIDDEN;
            ControlFlow::Break(response)
        }
        _ => ControlFlow::Continue(other.clone()),
    });
    let service = layer.layer(traced(&stage));
    block_on(async {
        service.clone().oneshot(request(None)).await.unwrap();
        let refused = service.clone().oneshot(request(Some(""))).await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "no such tenant");
        service.clone().oneshot(request(Some("a"))).await.unwrap();
    });
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    stage.flush();
    assert_eq!(stage.at("a"), ["call", "drop", "future"]);
    let stats = stage.pipeline.stats();
    // The refused request made no span: the service was not called.
    assert_eq!((stats.discarded, stats.unrouted), (3, 0));
}

#[test]
fn an_error_of_the_function_reaches_the_policy() {
    let stage = Stage::new("tower-error");
    let template = stage.template();
    let layer = DestinationLayer::new(move |request| {
        let name = tenant_of(request)?;
        Some(template.destination([("tenant", name), ("region", "eu")]))
    })
    .on_unresolved(|why| {
        assert!(matches!(&why, Unresolved::Failed(e) if e.kind() == ErrorKind::InvalidConfig));
        assert!(why.to_string().contains("region"), "{why}");
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        ControlFlow::Break(response)
    });
    let response = block_on(layer.layer(traced(&stage)).oneshot(request(Some("a")))).unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn a_template_of_several_variables_needs_a_function() {
    let template = trace_destination_core::Registry::new()
        .with_scheme("memory", |uri| {
            let location = trace_destination_core::MemoryLocation::from_uri(uri)?;
            Ok(Arc::new(location) as Arc<dyn trace_destination_core::TraceLocation>)
        })
        .with_holes("memory", trace_destination_core::MemoryLocation::holes())
        .template("memory:{region}-{tenant}")
        .unwrap();
    let error = DestinationLayer::from_template(template, |_| None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("2 variables"), "{error}");
}

#[test]
fn of_nested_layers_the_inner_one_applies() {
    let stage = Stage::new("tower-nested");
    let outer = |name: &'static str| {
        let to = stage.to(name);
        DestinationLayer::new(move |_| to.clone())
    };
    let nested =
        outer("outer").layer(outer("middle").layer(by_template(&stage).layer(traced(&stage))));
    block_on(async {
        nested
            .clone()
            .oneshot(request(Some("inner")))
            .await
            .unwrap();
        nested.clone().oneshot(request(None)).await.unwrap();
    });
    stage.flush();
    assert_eq!(stage.at("inner"), ["call", "drop", "future"]);
    assert_eq!(stage.at("outer"), [""; 0]);
    assert_eq!(stage.at("middle"), [""; 0]);
    assert_eq!(stage.unrouted(), 3, "the inner layer found none");
}

#[test]
fn panics_leave_no_scope_behind() {
    let stage = Stage::new("tower-panic");
    let choosing = DestinationLayer::new(|_| -> Option<Destination> { panic!("as told") });
    let mut in_function = choosing.layer(traced(&stage));
    let mut in_call = by_template(&stage).layer(service_fn(
        |_: Request<()>| -> std::future::Ready<Result<Reply, Infallible>> { panic!("as told") },
    ));
    let mut in_future = by_template(&stage).layer(service_fn(|_: Request<()>| async {
        panic!("as told");
        #[allow(unreachable_code, reason = "it gives the future its type")]
        Ok::<Reply, Infallible>(Response::new(Full::default()))
    }));
    let panics = |f: &mut dyn FnMut()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
    panics(&mut || drop(in_function.call(request(Some("a")))));
    panics(&mut || drop(in_call.call(request(Some("a")))));
    let mut future = Box::pin(in_future.call(request(Some("a"))));
    panics(&mut || drop(future.as_mut().now_or_never()));
    stage.span("after", "nobody");
    drop(future);
    stage.span("after", "nobody");
    stage.flush();
    assert_eq!(stage.at("a"), [""; 0]);
    assert_eq!(stage.unrouted(), 2);
}

/// Fails if it is called without having been ready: what a clone that was never polled does.
struct Strict {
    ready: bool,
    let_in: Arc<AtomicBool>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            let_in: self.let_in.clone(),
        }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Reply;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Reply, &'static str>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), &'static str>> {
        if !self.let_in.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        match request.extensions().get::<Tenant>() {
            Some(_) => ready(Ok(Response::new(Full::default()))),
            None => ready(Err("refused")),
        }
    }
}

#[test]
fn readiness_and_errors_are_those_of_the_service_inside() {
    let stage = Stage::new("tower-ready");
    let let_in = Arc::new(AtomicBool::new(false));
    let mut service = by_template(&stage).layer(Strict {
        ready: false,
        let_in: let_in.clone(),
    });
    let mut cx = TaskContext::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_pending());
    let_in.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
        let _unused_clone = service.clone();
        let response = service.call(request(Some("a"))).now_or_never().unwrap();
        assert!(response.is_ok());
    }
    let failed = service.oneshot(request(None)).now_or_never().unwrap();
    assert_eq!(failed.unwrap_err(), "refused");
}

#[test]
fn limits_inside_hold() {
    let stage = Stage::new("tower-limit");
    let inner = service_fn(|_: Request<()>| pending::<Result<Reply, Infallible>>());
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut service = by_template(&stage).layer(limited);
    let mut cx = TaskContext::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    let running = service.call(request(Some("a")));
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_pending());
    drop(running);
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
}

/// A buffer calls the service inside it from a task of its own.
#[test]
fn a_buffer_belongs_around_the_layer() {
    let stage = Stage::new("tower-buffer");
    block_on(async {
        let inside = by_template(&stage).layer(Buffer::new(traced(&stage), 4));
        inside.oneshot(request(Some("inside"))).await.unwrap();
        let around = Buffer::new(by_template(&stage).layer(traced(&stage)), 4);
        around.oneshot(request(Some("around"))).await.unwrap();
    });
    stage.flush();
    assert_eq!(stage.at("inside"), ["drop", "future"]);
    assert_eq!(stage.unrouted(), 1, "the span of `call`");
    assert_eq!(stage.at("around"), ["call", "drop", "future"]);
}

/// A request span of OpenTelemetry's API, whose context is attached around each poll.
#[test]
fn a_request_span_without_tracing() {
    let stage = Stage::new("tower-otel");
    let service = by_template(&stage).layer(traced(&stage));
    block_on(async {
        for tenant in ["a", "b"] {
            let tag = KeyValue::new("tenant", tenant);
            let span = stage.tracer.span_builder("request").with_attributes([tag]);
            let request_span = Context::current_with_span(span.start(&stage.tracer));
            let service = service.clone();
            let answer = async move { service.oneshot(request(Some(tenant))).await };
            answer.with_context(request_span).await.unwrap();
        }
    });
    let report = stage.flush();
    assert!(report.all_stored(), "{report}");
    for tenant in ["a", "b"] {
        assert_eq!(
            stage.traces(tenant),
            [["call", "drop", "future", "request"]]
        );
    }
}

/// What frameworks ask of a service and its future.
#[test]
fn everything_is_send_and_cloneable() {
    fn fits<S>(_: &S)
    where
        S: Service<Request<()>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Response: Send,
    {
    }
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    let stage = Stage::new("tower-types");
    let layer = by_template(&stage);
    shared(&layer);
    fits(&layer.layer(Strict {
        ready: false,
        let_in: Arc::default(),
    }));
}
