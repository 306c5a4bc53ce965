//! Many locations on one host, and several hosts side by side.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::http::{Reply, Server};
use support::mlflow::Mlflow;
use support::{batch, builder, location, open, root};
use trace_destination_core::{Destination, ErrorKind, Pipeline, RetryPolicy, TraceLocation as _};

const LOCATIONS: usize = 300;
const LIMIT: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_locations_share_few_connections() {
    let mlflow = Arc::new(Mlflow::default());
    let answers = mlflow.clone();
    let server = Server::start(move |r| {
        let reply = answers.answer(r);
        Reply::After(Duration::from_millis(2), Box::new(reply))
    });
    let mut tasks = Vec::new();
    for i in 0..LOCATIONS {
        let location = location(&format!("{}/s?experiment_name=e{i}", server.url()));
        tasks.push(tokio::spawn(async move {
            let sink = open(&location).await.unwrap();
            for t in 0..3 {
                let trace = (i * 10 + t + 1) as u128;
                sink.write(&batch([root(trace)])).await.unwrap();
            }
            sink
        }));
    }
    let mut sinks = Vec::new();
    for task in tasks {
        sinks.push(task.await.unwrap());
    }
    assert_eq!(mlflow.with("/s", |s| s.traces.len()), LOCATIONS * 3);
    assert_eq!(server.requests_to("/version").len(), 1);
    let busiest = server.busiest.load(Ordering::SeqCst);
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(busiest <= LIMIT, "{busiest} requests at once");
    assert!(connections <= 2 * LIMIT, "{connections} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_credentials_are_another_host() {
    let server = Server::start(|_| Reply::stored());
    let mut sinks = Vec::new();
    for token in ["a", "b"] {
        let uri = format!("otlp+{}/{token}", server.url());
        let location = builder(&uri).with_bearer_token(token).build().unwrap();
        let sink = open(&location).await.unwrap();
        sink.write(&batch([root(1)])).await.unwrap();
        sinks.push(sink);
    }
    let requests = server.requests();
    let sent: Vec<_> = requests.iter().map(|r| r.header("authorization")).collect();
    assert_eq!(sent, [Some("Bearer a"), Some("Bearer b")]);
}

#[test]
fn one_place_has_one_way_to_it() {
    let uri = "otlp+http://127.0.0.1:1/one_place_has_one_way_to_it";
    let with = |token| builder(uri).with_bearer_token(token).build();
    let first = with("secret-a").unwrap();
    let same = with("secret-a").unwrap();
    let error = with("secret-b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let text = format!("{error} {error:?}");
    assert!(text.contains("in use") && text.contains(uri), "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert!(builder(uri).with_header("x", "y").build().is_err());
    drop(first);
    assert!(with("secret-b").is_err(), "it is in use still");
    drop(same);
    with("secret-b").unwrap();
}

/// Slow answers, one at a time: whoever waits for its turn longer than a batch is tried is not given
/// up for it.
#[test]
fn waiting_for_a_turn_costs_no_spans() {
    const LANES: usize = 30;
    const SLOW: Duration = Duration::from_millis(400);
    let server = Server::start(|_| Reply::After(SLOW, Box::new(Reply::stored())));
    let pipeline = Pipeline::builder()
        .strict()
        .with_retry(RetryPolicy {
            deadline: Duration::from_secs(1),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("hosts");
    for i in 0..LANES {
        let uri = format!("otlp+{}/lane{i}", server.url());
        let at = Destination::new(builder(&uri).with_concurrency(1).build().unwrap());
        tracer
            .start_with_context("waits", &at.in_context(&opentelemetry::Context::new()))
            .end();
    }
    // A single attempt may take 10 s by itself, which is less than all of them together.
    let report = pipeline.flush(Duration::from_secs(60)).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(server.requests().len(), LANES);
    assert_eq!(server.busiest.load(Ordering::SeqCst), 1);
}

/// Through a pipeline: a host that never answers, with many locations, and one that does.
#[test]
fn a_hanging_host_holds_no_other() {
    let (stuck, healthy) = (
        Server::start(|_| Reply::Hang),
        Server::start(|_| Reply::stored()),
    );
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("hosts");
    let none = opentelemetry::Context::new();
    for i in 0..40 {
        let uri = format!("otlp+{}/t{i}", stuck.url());
        let at = Destination::new(location(&uri)).in_context(&none);
        tracer.start_with_context("stuck", &at).end();
    }
    let good = location(&format!("otlp+{}", healthy.url()));
    let uri = good.uri().clone();
    let at = Destination::new(good).in_context(&none);
    for _ in 0..100 {
        tracer.start_with_context("fine", &at).end();
    }
    // Long enough for the healthy host on a busy machine; the other has not a chance in it.
    let report = pipeline.flush(Duration::from_secs(5)).wait();
    let found = report.location(&uri).unwrap();
    assert_eq!((found.stored, found.pending), (100, 0), "{report}");
    assert!(stuck.busiest.load(Ordering::SeqCst) <= LIMIT);
    let report = pipeline.shutdown(Duration::from_millis(200)).wait();
    assert!(!report.all_stored());
}

#[test]
fn pipelines_come_and_go_on_one_host() {
    let server = Server::start(|_| Reply::stored());
    let good = Destination::new(location(&format!("otlp+{}", server.url())));
    for _ in 0..5 {
        // Each has a runtime of its own; connections of the last one are gone with it.
        let pipeline = Pipeline::builder().strict().build().unwrap();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        let at = good.in_context(&opentelemetry::Context::new());
        provider.tracer("t").start_with_context("s", &at).end();
        let report = pipeline.shutdown(Duration::from_secs(20)).wait();
        assert!(report.all_stored(), "{report}");
    }
    assert_eq!(server.requests().len(), 5);
}

/// A host that hangs has its own permits, whoever asks it: 64 tenants there with 64 credentials, and
/// 5,000 at a host that is down, hold up nobody at a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_in_trouble_hold_nobody_elsewhere() {
    const DEAD: usize = 5_000;
    const HUNG: usize = 64;
    let (stuck, healthy) = (
        Server::start(|_| Reply::Hang),
        Server::start(|_| Reply::stored()),
    );
    // Bound and never listened on: nobody else gets the port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let down = port.local_addr().unwrap();
    drop(port);
    let mut troubled = tokio::task::JoinSet::new();
    for i in 0..HUNG {
        let uri = format!("otlp+{}/hung{i}", stuck.url());
        let location = builder(&uri).with_bearer_token(format!("t{i}")).build();
        troubled.spawn(async move { send(location.unwrap()).await.is_ok() });
    }
    for i in 0..DEAD {
        let uri = format!("otlp+http://{down}/dead{i}");
        let location = builder(&uri).with_bearer_token(format!("t{i}")).build();
        troubled.spawn(async move { send(location.unwrap()).await.is_ok() });
    }
    let begun = std::time::Instant::now();
    for i in 0..100 {
        let uri = format!("otlp+{}/fine{i}", healthy.url());
        send(location(&uri)).await.unwrap();
    }
    // A request in trouble takes 10 s; none of these waits for one.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(healthy.requests().len(), 100);
    assert!(stuck.busiest.load(Ordering::SeqCst) <= LIMIT);
    let connections = stuck.connections.load(Ordering::SeqCst);
    assert!(connections <= 2 * LIMIT, "{connections} connections");
    let mut failed = 0;
    while failed < DEAD {
        let done = troubled.join_next().await.unwrap();
        assert!(!done.unwrap(), "nothing is stored where nobody is");
        failed += 1;
    }
}

async fn send(
    location: trace_destination_server::ServerLocation,
) -> Result<trace_destination_core::Written, trace_destination_core::Error> {
    open(&location).await?.write(&batch([root(1)])).await
}
