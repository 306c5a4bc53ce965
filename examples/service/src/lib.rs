//! A web service of many tenants. The request span starts before the tenant is known; the traces of
//! each request, with the body of its response, are stored at its tenant all the same.
//!
//! ```text
//! request ──▶ TraceLayer           starts the request span, whose trace is undecided
//!         ──▶ authenticate         token ▸ tenant
//!         ──▶ DestinationLayer     tenant ▸ destination, by a template; decides the trace
//!         ──▶ answer, events       the handlers do not know about destinations
//! ```

use axum::extract::{Request, State};
use axum::http::{StatusCode, header::AUTHORIZATION};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower_http::trace::TraceLayer;
use trace_destination::tower::DestinationLayer;
use trace_destination::{
    Destination, FlushReport, Pipeline, Template, bind_current_trace, update_current_trace,
};
use tracing::{Instrument, Span, field, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// How long the end of the process waits for traces that are not stored yet.
const LAST_FLUSH: Duration = Duration::from_secs(30);

/// Who a request is from; in its extensions once its token was looked up.
#[derive(Clone, Debug)]
pub struct Tenant(Arc<str>);

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Service {
    /// Stands for the database with the tokens.
    tokens: Arc<HashMap<String, Tenant>>,
    /// Work that goes on after its request was answered.
    tasks: TaskTracker,
}

impl Service {
    /// A service for tenants with their tokens.
    pub fn new(tenants: impl IntoIterator<Item = (String, String)>) -> Self {
        let tenant = |(token, name): (String, String)| (token, Tenant(name.into()));
        Self {
            tokens: Arc::new(tenants.into_iter().map(tenant).collect()),
            tasks: TaskTracker::new(),
        }
    }
}

/// The tenants of this example, `tenant-00` to `tenant-19`, with the tokens `token-00` to `token-19`.
pub fn tenants() -> impl Iterator<Item = (String, String)> {
    (0..20).map(|n| (format!("token-{n:02}"), format!("tenant-{n:02}")))
}

/// The subscriber of the process: spans to the pipeline, warnings to standard error.
///
/// # Errors
/// If the process has one already.
pub fn subscribe(pipeline: &Pipeline) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("service").build())
        .with_span_processor(pipeline.processor())
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("service"))
        .with_filter(Targets::new().with_target("example_service", LevelFilter::INFO));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(LevelFilter::WARN);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans).with(log))
}

/// The routes, with the layers in front of them.
///
/// # Errors
/// If the template has more than one variable.
pub fn router(service: Service, traces: Template) -> Result<Router, trace_destination::Error> {
    // A request whose traces have nowhere to go is served all the same: they are counted as unrouted,
    // and the reason is logged.
    let destination = DestinationLayer::from_template(traces, |request| {
        request.extensions.get().map(|Tenant(name)| &**name)
    })?;
    let request_span = TraceLayer::new_for_http().make_span_with(|request: &Request| {
        let id = request.headers().get("x-request-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        info_span!(
            "request",
            path = request.uri().path(),
            id,
            tenant = field::Empty
        )
    });
    // The last layer is the outermost.
    let tenants = Router::new()
        .route("/answer", get(answer))
        .route("/events", get(events))
        .layer(destination)
        .layer(from_fn_with_state(service.clone(), authenticate))
        .layer(request_span)
        .with_state(service);
    // Nobody's, and not traced.
    Ok(tenants.route("/health", get(|| async { "well\n" })))
}

/// Looks the token up: the request is of nobody until then, its span is there already.
async fn authenticate(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request.headers().get(AUTHORIZATION).cloned();
    let look_up = async {
        tokio::task::yield_now().await; // stands for the way to a database
        let token = token.as_ref()?.to_str().ok()?.strip_prefix("Bearer ")?;
        service.tokens.get(token).cloned()
    };
    let Some(tenant) = look_up.instrument(info_span!("authenticate")).await else {
        // Leaves no trace, on purpose. Without this the request span would be counted as unrouted.
        let _ = bind_current_trace(&Destination::discard());
        return StatusCode::UNAUTHORIZED.into_response();
    };
    Span::current().record("tenant", &*tenant.0);
    let session = request.headers().get("x-session-id");
    let session = session.and_then(|session| session.to_str().ok());
    // Waits with the trace until that is decided.
    update_current_trace(|trace| {
        trace.user_id = Some(tenant.0.to_string());
        trace.session_id = session.map(str::to_owned);
    });
    request.extensions_mut().insert(tenant);
    next.run(request).await
}

async fn answer(
    State(service): State<Service>,
    Extension(Tenant(name)): Extension<Tenant>,
) -> String {
    let answer = async {
        tokio::task::yield_now().await;
        format!("hello {name}\n")
    };
    let answer = answer
        .instrument(info_span!("answer", tenant = &*name))
        .await;
    // Goes on after the response. A task has a context of its own: the span brings this one along.
    let bookkeeping = async { tokio::task::yield_now().await };
    let span = info_span!("bookkeeping", tenant = &*name);
    service.tasks.spawn(bookkeeping.instrument(span));
    answer
}

/// The events are made while the client reads them, long after this function has returned.
async fn events(
    Extension(Tenant(name)): Extension<Tenant>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::iter(1..=3).then(move |n| {
        let span = info_span!("event", tenant = &*name, n);
        async move {
            tokio::task::yield_now().await;
            Ok(Event::default().data(format!("{n} of 3")))
        }
        .instrument(span)
    });
    Sse::new(events)
}

/// Serves until `shutdown`, then ends in order: the requests, the tasks they left, the traces.
///
/// # Errors
/// If the template does not fit the layer, or the listener fails.
pub async fn run(
    listener: TcpListener,
    pipeline: Pipeline,
    traces: Template,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<FlushReport, Box<dyn Error + Send + Sync>> {
    let service = Service::new(tenants());
    let tasks = service.tasks.clone();
    let router = router(service, traces)?;
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await?;
    tasks.close();
    tasks.wait().await;
    Ok(pipeline.shutdown(LAST_FLUSH).await)
}
