//! Shutting down while requests are under way; alone in a process, because the hook for panics is
//! the process's.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::http::{Reply, Server};
use support::location;
use trace_destination_core::{Destination, Pipeline};

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn nothing_panics_when_requests_are_cut_off() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(info);
    }));
    // Some answers never come, some come while everything ends.
    let server = Server::start(|request| match request.path().len() % 2 {
        0 => Reply::Hang,
        _ => Reply::After(Duration::from_millis(4), Box::new(Reply::text(503, "busy"))),
    });
    for round in 0..60 {
        let pipeline = Pipeline::builder().strict().build().unwrap();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        let tracer = provider.tracer("t");
        for lane in 0..12 {
            let uri = format!("otlp+{}/{}", server.url(), "x".repeat(lane + 1));
            let at = Destination::new(location(&uri)).in_context(&opentelemetry::Context::new());
            tracer.start_with_context("cut off", &at).end();
        }
        let began = Instant::now();
        let deadline = Duration::from_millis(3 + round % 7);
        let report = pipeline.shutdown(deadline).wait();
        assert!(!report.all_stored(), "{report}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        drop(provider);
    }
    // Whoever was left behind has had its time.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}
