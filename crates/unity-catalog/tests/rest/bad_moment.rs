//! Walks the table of answers that `docs/server.md` prints: a catalog that answers so for a moment
//! costs no spans at all. A moment is a number of answers and not a time.

use crate::catalog_server::http::Reply;
use crate::support::{Governed, traces};
use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::path::Path;
use std::time::{Duration, Instant};
use trace_destination_core::{Destination, Pipeline, TraceLocation as _};

/// Answers that a bad moment lasts.
const MOMENT: usize = 4;
const WAVE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// What every row of the table stands for, by its title.
fn moments() -> Vec<(String, Reply)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
    let page = std::fs::read_to_string(page).unwrap();
    let part = page
        .split("<!-- answers of unity-catalog: begin -->")
        .nth(1)
        .unwrap();
    let part = part
        .split("<!-- answers of unity-catalog: end -->")
        .next()
        .unwrap();
    let mut all = Vec::new();
    for line in part.lines().filter(|l| l.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let title = cells[1];
        assert_eq!(
            cells[3], "0",
            "no answer of a catalog is about spans: {line}"
        );
        let mut add = |reply: Reply| all.push((title.to_owned(), reply));
        let mut status = |s: u16| add(Reply::new(s, "text/plain", "a bad moment"));
        match title {
            "any 3xx" => [301, 302, 307].into_iter().for_each(status),
            "any other 5xx" => [500, 507, 520].into_iter().for_each(status),
            "anything else" => [402, 413, 415, 418].into_iter().for_each(status),
            "success, but no JSON" => add(Reply::new(200, "text/html", "<p>Log in")),
            "the connection broke" => add(Reply::Reset),
            codes if codes.starts_with('`') => {
                for code in codes.split(", ") {
                    let code = code.trim_matches('`').replace('*', "TABLE_");
                    // A table that is not there is made; one that cannot be found is no failure.
                    if matches!(&*code, "TABLE_NOT_FOUND" | "TABLE_DOES_NOT_EXIST") {
                        continue;
                    }
                    let body = serde_json::json!({"error_code": code, "message": "a bad moment"});
                    add(Reply::json(400, &body));
                }
            }
            numbers if numbers.starts_with(|c: char| c.is_ascii_digit()) => {
                numbers.split(", ").for_each(|n| status(n.parse().unwrap()));
            }
            // Below HTTP all backends have one client, which the tests of the other one walk.
            "nothing listens at this address"
            | "no connection could be made"
            | "the server did not answer in time"
            | "the server's certificate is not trusted"
            | "the server ended the TLS handshake"
            | "the TLS handshake failed"
            | "the request cannot be made"
            | "what answers there is not HTTP"
            | "the proxy cannot be reached"
            | "the proxy makes no connection to the server"
            | "the proxy asks for credentials" => {}
            other => panic!("`{other}` is no known row"),
        }
    }
    assert!(all.len() > 50, "{} moments", all.len());
    all
}

#[test]
fn a_catalog_in_a_bad_moment_costs_nothing() {
    let governed = Governed::start();
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("moments");
    let mut lanes = Vec::new();
    for (i, (title, reply)) in moments().into_iter().enumerate() {
        let name = format!("m{i:03}");
        let path: &'static str = format!("main.traces.{name}_").leak();
        for _ in 0..MOMENT {
            governed.server.state().script.push((path, reply.clone()));
        }
        let location = governed.location(&format!("main.traces.{name}"));
        let uri = location.uri().clone();
        lanes.push((title, path, name, uri, Destination::new(location)));
    }
    let wave = || {
        for (_, _, _, _, at) in &lanes {
            let cx = at.in_context(&opentelemetry::Context::new());
            for _ in 0..WAVE {
                tracer.start_with_context("span", &cx).end();
            }
        }
    };
    let settle = || {
        let begun = Instant::now();
        loop {
            let report = pipeline.flush(Duration::from_secs(2)).wait();
            if report.is_complete() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{report}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wave();
    let _ = pipeline.flush(Duration::from_millis(100)).wait();
    wave();
    settle();
    wave();
    settle();
    let stats = pipeline.stats();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (title, path, name, uri, _) in &lanes {
        let of = stats.location(uri).unwrap();
        assert_eq!(
            (of.stored, of.dropped.total()),
            (3 * WAVE as u64, 0),
            "{title}: {of:?}"
        );
        let script = &governed.server.state().script;
        let left = script.iter().filter(|(p, _)| p == path).count();
        // A table that is said to be missing, without a word of why, is made after the first answer.
        let is_enough = left == 0 || (left < MOMENT && title.contains("404"));
        assert!(is_enough, "{title}: {left} answers are left");
        let folder = governed
            .folder
            .path()
            .join(format!("main/traces/{name}_otel_spans"));
        assert_eq!(runtime.block_on(traces(&folder)).len(), 3 * WAVE, "{title}");
    }
}
