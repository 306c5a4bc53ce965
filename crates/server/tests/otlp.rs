//! Any OTLP endpoint: what the specification asks of an exporter.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use opentelemetry::trace::TraceId;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::http::{Reply, Server};
use support::{batch, builder, location, open, root, script, updated, write};
use trace_destination_core::{ErrorKind, LocationUri, Retry, TraceLocation as _, TraceUpdate};
use trace_destination_server::{Compression, ServerLocation};

fn otlp(server: &Server) -> String {
    format!("otlp+{}", server.url())
}

#[test]
fn addresses() {
    for (given, canonical) in [
        ("otlp+http://h:4318", "otlp+http://h:4318"),
        ("otlp+http://h:4318/", "otlp+http://h:4318"),
        ("otlp+http://h:4318/v1/traces", "otlp+http://h:4318"),
        ("otlp+https://h/custom/path", "otlp+https://h/custom/path"),
        (
            "http://h:80/base/?experiment_id=07",
            "http://h/base?experiment_id=7",
        ),
        (
            "http://h?experiment_name=x&create=true",
            "http://h?experiment_name=x",
        ),
    ] {
        assert_eq!(location(given).to_string(), canonical);
        assert_eq!(location(canonical).to_string(), canonical, "no fixed point");
    }
    let uri: LocationUri = "otlp+http://collector:4317".parse().unwrap();
    let error = ServerLocation::builder()
        .with_uri(&uri)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("otlp+http://collector:4318"),
        "{error}"
    );
}

#[tokio::test]
async fn paths_are_used_as_they_are_given() {
    let server = Server::start(|_| Reply::stored());
    for (path, expected) in [("", "/v1/traces"), ("/a%20b/ingest", "/a%20b/ingest")] {
        let sink = open(&location(&format!("{}{path}", otlp(&server))))
            .await
            .unwrap();
        sink.write(&batch([root(1)])).await.unwrap();
        let request = server.requests().pop().unwrap();
        assert_eq!(request.path(), expected);
        assert_eq!(
            request.header("content-encoding"),
            None,
            "off unless asked for"
        );
        assert_eq!(request.header("x-mlflow-experiment-id"), None);
        let spans = support::decode::request(&request.body()).unwrap();
        assert!(spans[0].span.attributes.is_empty(), "nothing is added");
    }
}

#[tokio::test]
async fn variables_of_the_specification() {
    let server = Server::start(|_| Reply::stored());
    let with = |vars: &[(&str, &str)]| {
        let env: BTreeMap<String, String> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let uri: LocationUri = otlp(&server).parse().unwrap();
        ServerLocation::builder()
            .with_uri(&uri)
            .with_env(&env)
            .build()
            .unwrap()
    };
    let location = with(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=general"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "Api-Key=s%20p=x, b = 2 ,",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &server.url()),
    ]);
    open(&location)
        .await
        .unwrap()
        .write(&batch((1..=60).map(root)))
        .await
        .unwrap();
    let request = server.requests().pop().unwrap();
    assert_eq!(request.header("api-key"), Some("s p=x"));
    assert_eq!(request.header("b"), Some("2"));
    assert_eq!(
        request.header("a"),
        None,
        "the specific variable replaces the general one"
    );
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert_eq!(support::decode::request(&request.body()).unwrap().len(), 60);
    drop(location);
    // Keys meant for another endpoint stay at home.
    let location = with(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=x"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://vendor.example"),
    ]);
    open(&location)
        .await
        .unwrap()
        .write(&batch([root(1)]))
        .await
        .unwrap();
    assert_eq!(server.requests().pop().unwrap().header("api-key"), None);
    // Milliseconds for one request.
    let silent = Server::start(|_| Reply::Hang);
    let env = BTreeMap::from([("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "150".to_owned())]);
    let uri: LocationUri = otlp(&silent).parse().unwrap();
    let location = ServerLocation::builder()
        .with_uri(&uri)
        .with_env(&env)
        .build()
        .unwrap();
    let error = open(&location)
        .await
        .unwrap()
        .write(&batch([root(1)]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Timeout, Retry::Backoff)
    );
}

#[tokio::test]
async fn partial_success_is_counted() {
    let partial = |rejected, message: &str| {
        let response = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: message.into(),
            }),
        };
        Reply::new(200, "application/x-protobuf", response.encode_to_vec())
    };
    let json = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
    let server = script::start(
        |_| None,
        [
            partial(3, "quota"),
            partial(0, "be gentle"),
            Reply::new(200, "application/json", json),
            Reply::new(200, "application/json", "{}"),
            Reply::text(200, "ok"),
            partial(99, "all of them"),
        ],
    );
    let sink = open(&location(&otlp(&server))).await.unwrap();
    for (count, says) in [
        (3, "quota"),
        (0, ""),
        (2, "too old"),
        (0, ""),
        (0, ""),
        (8, "all of"),
    ] {
        let written = sink.write(&batch((1..=8).map(root))).await.unwrap();
        assert_eq!(written.refused.len(), count);
        for refusal in written.refused {
            let said = refusal.error.to_string();
            assert!(
                said.contains(says) && said.contains("without saying which"),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn what_may_be_tried_again_is_what_the_specification_says() {
    for (status, retried) in [
        (429, true),
        (502, true),
        (503, true),
        (504, true),
        (401, false),
        (404, false),
        (408, false),
        (500, false),
        (501, false),
        (507, false),
    ] {
        let server =
            Server::start(move |_| Reply::text(status, "no").with_header("retry-after", "4"));
        let sink = open(&location(&otlp(&server))).await.unwrap();
        let error = sink.write(&batch([root(1)])).await.unwrap_err();
        let expected = match retried {
            true => Retry::After(Duration::from_secs(4)),
            false => Retry::Never,
        };
        assert_eq!(error.retry(), expected, "{status}");
    }
}

#[tokio::test]
async fn an_offender_is_found() {
    let server = Server::start(|r| {
        let spans = support::decode::request(&r.body()).unwrap();
        match spans.iter().any(|s| s.span.name == "bad") {
            true => Reply::text(400, "a bad name"),
            false => Reply::stored(),
        }
    });
    let location = builder(&otlp(&server))
        .with_compression(Compression::Gzip)
        .build()
        .unwrap();
    let sink = open(&location).await.unwrap();
    sink.write(&batch([root(100)])).await.unwrap();
    let spans = (1..=20).map(|t| {
        let mut span = root(t);
        if t == 13 {
            span.name = "bad".into();
        }
        span
    });
    let written = sink.write(&batch(spans)).await.unwrap();
    let found: Vec<_> = written.refused.iter().map(|r| r.index).collect();
    assert_eq!(found, [12]);
    assert!(written.refused[0].error.to_string().contains("a bad name"));
    assert!(location.capabilities().exclusive_store.is_none());
}

/// The only way by which an endpoint holds a span twice: it stored it and its answer came too late.
/// Every further request is an attempt of the pipeline's and counted.
#[test]
fn every_request_is_an_attempt_that_is_counted() {
    let slow = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |_| match slow.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::After(Duration::from_millis(800), Box::new(Reply::stored())),
        2 => Reply::Reset,
        _ => Reply::stored(),
    });
    let location = support::builder(&otlp(&server))
        .with_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let uri = trace_destination_core::TraceLocation::uri(&location).clone();
    let pipeline = trace_destination_core::Pipeline::builder()
        .strict()
        .build()
        .unwrap();
    let (resource, scope) = Default::default();
    let to = trace_destination_core::Destination::new(location);
    let ingested = pipeline.ingest(resource, scope, vec![root(1)], &to);
    assert_eq!(ingested.accepted, 1);
    let report = pipeline.flush(Duration::from_secs(20)).wait();
    assert!(report.all_stored(), "{report}");
    let retries = pipeline.stats().location(&uri).unwrap().retries;
    assert_eq!((server.requests().len() as u64, retries), (4, 3));
}

#[tokio::test]
async fn values_of_a_trace_are_told_to_be_lost() {
    let server = Server::start(|_| Reply::stored());
    let sink = open(&location(&otlp(&server))).await.unwrap();
    let update = || vec![TraceUpdate::new(TraceId::from(7))];
    for (spans, requests) in [(vec![root(7)], 1), (vec![], 1)] {
        let written = sink.write(&updated(spans, update())).await.unwrap();
        assert!(written.refused.is_empty());
        let [lost] = &*written.lost_updates else {
            panic!("{:?}", written.lost_updates)
        };
        assert_eq!(lost.kind(), ErrorKind::Unsupported);
        let text = lost.to_string();
        assert!(
            text.contains("trace 00000000000000000000000000000007"),
            "{text}"
        );
        assert_eq!(server.requests().len(), requests);
    }
}

/// What a server answers that reads no gzip: the same is sent once without, and the host is
/// remembered, also when its sink was opened anew.
#[tokio::test]
async fn a_server_that_reads_no_gzip() {
    for status in [400, 406, 415, 500] {
        let server = Server::start(move |r| match r.header("content-encoding") {
            Some(_) => Reply::text(status, "no gzip here"),
            None => Reply::stored(),
        });
        let location = builder(&otlp(&server))
            .with_compression(Compression::Gzip)
            .build()
            .unwrap();
        for n in 0..3 {
            let sink = open(&location).await.unwrap();
            let spans = (1..=40).map(|t| root(n * 100 + t));
            let written = sink.write(&batch(spans)).await.unwrap();
            assert!(written.refused.is_empty(), "{status}: {written:?}");
        }
        let sent = server.requests();
        let packed = sent.iter().map(|r| r.header("content-encoding").is_some());
        let packed: Vec<bool> = packed.collect();
        match status {
            // Empty requests show that it is gzip that it stumbles over.
            500 => {
                assert_eq!(packed, [true, false, true, false, false, false]);
                assert_eq!(counts(&server), [40, 0, 0, 40, 40, 40]);
            }
            _ => assert_eq!(packed, [true, false, false, false], "{status}"),
        }
    }
    // One that takes gzip is believed: a 400 is about the spans then, and an encoding's own status
    // is about gzip even so.
    for (status, tried_plain) in [(400, false), (500, false), (406, true), (415, true)] {
        let first = std::sync::atomic::AtomicBool::new(true);
        let server = Server::start(move |r| match r.header("content-encoding") {
            Some(_) if !first.swap(false, Ordering::SeqCst) => Reply::text(status, "no more"),
            _ => Reply::stored(),
        });
        let location = builder(&otlp(&server))
            .with_compression(Compression::Gzip)
            .build()
            .unwrap();
        let sink = open(&location).await.unwrap();
        sink.write(&batch((1..=40).map(root))).await.unwrap();
        server.forget();
        let written = sink.write(&batch((101..=140).map(root))).await.unwrap();
        assert!(written.refused.is_empty(), "{status}: {written:?}");
        let sizes = server.requests().into_iter().skip(1).map(|r| {
            let packed = r.header("content-encoding").is_some();
            (packed, support::decode::request(&r.body()).unwrap().len())
        });
        let whole = sizes.into_iter().any(|s| s == (false, 40));
        assert_eq!(whole, tried_plain, "{status}");
    }
}

/// Spans in each request.
fn counts(server: &Server) -> Vec<usize> {
    let sent = server.requests().into_iter();
    let sent = sent.map(|r| support::decode::request(&r.body()).unwrap().len());
    sent.collect()
}

/// The first compressed request of a host is in doubt after a 500 as any other is: the same spans are
/// not sent at once without compression.
#[tokio::test]
async fn a_first_500_to_gzip_is_in_doubt() {
    for moment in [1, 2, 3, usize::MAX] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(
            move |_| match asked.fetch_add(1, Ordering::SeqCst) < moment {
                // What it read may be stored.
                true => Reply::text(500, "out of memory"),
                false => Reply::stored(),
            },
        );
        let location = builder(&otlp(&server))
            .with_compression(Compression::Gzip)
            .build()
            .unwrap();
        let batch = batch((1..=40).map(root));
        for _ in 0..3 {
            if write(&location, &batch).await.is_ok() {
                break;
            }
        }
        let whole = counts(&server).into_iter().filter(|n| *n == 40);
        assert_eq!(whole.count(), 1, "{moment}: {:?}", counts(&server));
    }
}

/// A 500 of an OTLP endpoint may come after a part was stored: an empty request comes first, and the
/// same request does not come again.
#[tokio::test]
async fn a_request_in_doubt_is_not_repeated() {
    let bad = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_bad = bad.clone();
    let server = Server::start(move |_| match is_bad.load(Ordering::SeqCst) {
        true => Reply::text(500, "restarting"),
        false => Reply::stored(),
    });
    let location = location(&otlp(&server));
    let batch = batch((1..=8).map(root));
    for _ in 0..3 {
        let error = write(&location, &batch).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Never),
            "{error}"
        );
    }
    assert_eq!(counts(&server), [8, 0, 0, 0]);
    bad.store(false, Ordering::SeqCst);
    assert!(write(&location, &batch).await.unwrap().refused.is_empty());
    assert_eq!(counts(&server)[4..], [0, 4, 4]);
}

/// What was taken when a batch was tried apart is not sent again after an answer that ends the
/// attempt, and no span that was rejected on the way is forgotten.
#[tokio::test]
async fn what_was_taken_of_a_batch_is_not_sent_again() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "quota".into(),
        }),
    };
    let partial = Reply::new(200, "application/x-protobuf", partial.encode_to_vec());
    for (interruption, objection) in [(429, 400), (503, 400), (429, 500), (401, 413)] {
        let taken = std::sync::Arc::new(std::sync::Mutex::new((Vec::new(), 0)));
        let (answers, first) = (taken.clone(), partial.clone());
        let server = Server::start(move |r| {
            let spans = support::decode::request(&r.body()).unwrap();
            let mut taken = answers.lock().unwrap();
            let (names, requests): &mut (Vec<String>, usize) = &mut taken;
            // Once some spans are taken, requests are interrupted, at growing distances.
            if spans.is_empty() {
                return Reply::stored();
            }
            if !names.is_empty() {
                *requests += 1;
                if (1..20).any(|n| n * (n + 1) / 2 == *requests) {
                    return Reply::text(interruption, "a moment");
                }
            }
            if spans.iter().any(|s| s.span.name == "bad") {
                return Reply::text(objection, "a bad name");
            }
            let is_first = names.is_empty();
            names.extend(spans.iter().map(|s| s.span.name.to_string()));
            match is_first {
                true => first.clone(),
                false => Reply::stored(),
            }
        });
        let location = location(&otlp(&server));
        let batch = batch((1..=16).map(|t| {
            let mut span = root(t);
            span.name = if t == 12 {
                "bad".into()
            } else {
                format!("{t}").into()
            };
            span
        }));
        let mut attempts = 1;
        let written = loop {
            match write(&location, &batch).await {
                Ok(written) => break written,
                Err(error) => assert_ne!(error.kind(), ErrorKind::InvalidSpan, "{error}"),
            }
            attempts += 1;
            assert!(attempts < 60, "{interruption} {objection}: no end");
        };
        assert!(attempts > 2, "{attempts} attempts");
        let mut names = taken.lock().unwrap().0.clone();
        names.sort_by_key(|name| name.parse::<u32>().unwrap());
        let good = (1..=16).filter(|t| *t != 12).map(|t| t.to_string());
        assert_eq!(
            names,
            good.collect::<Vec<_>>(),
            "{interruption} {objection}"
        );
        let refused: Vec<String> = written
            .refused
            .iter()
            .map(|r| r.error.to_string())
            .collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert_eq!(written.refused[0].index, 11);
        assert!(refused[0].contains("a bad name"), "{refused:?}");
        assert!(refused[1].contains("without saying which"), "{refused:?}");
        // The next batch begins anew.
        let next = support::batch((21..=24).map(root));
        while write(&location, &next).await.is_err() {}
        assert_eq!(taken.lock().unwrap().0.len(), 15 + 4);
    }
}

/// A span that is refused in a batch of its own, by a server that refuses empty requests too: it does
/// not hold the lane for good, since the server has taken others.
#[tokio::test]
async fn a_poison_span_alone_ends_after_some_attempts() {
    let server = Server::start(|r| {
        let spans = support::decode::request(&r.body()).unwrap();
        let poison = |s: &trace_destination_conformance::StoredSpan| s.span.name == *"poison";
        match spans.is_empty() || spans.iter().any(poison) {
            true => Reply::text(400, "no"),
            false => Reply::stored(),
        }
    });
    let mut poison = root(7);
    poison.name = "poison".into();
    let poison = batch([poison]);
    let fresh = location(&format!("{}/fresh", otlp(&server)));
    for _ in 0..20 {
        // Nothing shows that this place takes spans at all: they are kept.
        let error = write(&fresh, &poison).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unsupported, Retry::Never)
        );
    }
    let proven = location(&format!("{}/proven", otlp(&server)));
    write(&proven, &batch([root(1)])).await.unwrap();
    let mut attempts = 1;
    let written = loop {
        match write(&proven, &poison).await {
            Ok(written) => break written,
            Err(error) => assert_eq!(error.retry(), Retry::Never, "{error}"),
        }
        attempts += 1;
        assert!(attempts < 20, "it holds the lane");
    };
    assert_eq!(written.refused.len(), 1);
    assert!(attempts >= 8, "{attempts}: a moment must not cost it");
    write(&proven, &batch([root(2)])).await.unwrap();
}

/// A failure that comes only with spans: a batch that is alone is worth some attempts.
#[tokio::test]
async fn a_moment_in_which_only_spans_fail_costs_none() {
    for count in [1, 3] {
        let left = std::sync::atomic::AtomicI64::new(7);
        let server = Server::start(move |r| {
            let is_empty = support::decode::request(&r.body()).unwrap().is_empty();
            match !is_empty && left.fetch_sub(1, Ordering::SeqCst) > 0 {
                true => Reply::text(500, "the exporter behind is away"),
                false => Reply::stored(),
            }
        });
        let location = location(&otlp(&server));
        let batch = batch((1..=count).map(root));
        let written = loop {
            match write(&location, &batch).await {
                Ok(written) => break written,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        };
        assert!(written.refused.is_empty(), "{written:?}");
    }
}

/// 413 before the request was read, with the connection closed upon it, so that the answer may be
/// lost: what is too large is sent in parts, and no part is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_refused_before_it_is_read() {
    for answer_is_lost in [false, true] {
        refused_early(answer_is_lost).await;
    }
}

async fn refused_early(answer_is_lost: bool) {
    use std::io::{Read as _, Write as _};
    const LIMIT: usize = 300_000;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stored = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = stored.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept) = (stream.unwrap(), kept.clone());
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let head = loop {
                    let mut some = [0; 2048];
                    let n = stream.read(&mut some).unwrap_or(0);
                    seen.extend_from_slice(&some[..n]);
                    let end = seen.windows(4).position(|w| w == b"\r\n\r\n");
                    match end {
                        Some(end) => break end + 4,
                        None if n == 0 => return,
                        None => {}
                    }
                };
                let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
                let length = text
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                let length: usize = length.unwrap().trim().parse().unwrap();
                let status = match length > LIMIT {
                    true if answer_is_lost => return,
                    true => 413,
                    false => {
                        let mut rest = vec![0; head + length - seen.len()];
                        stream.read_exact(&mut rest).unwrap();
                        seen.extend(rest);
                        let spans = support::decode::request(&seen[head..]).unwrap();
                        kept.lock()
                            .unwrap()
                            .extend(spans.iter().map(|s| s.span.trace_id));
                        200
                    }
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    let location = location(&format!("otlp+http://{address}"));
    let large = |t| root(t).with_attribute("text", "x".repeat(100_000));
    let batch = batch((1..=16).map(large));
    let mut attempts = 0;
    let written = loop {
        match write(&location, &batch).await {
            Ok(written) => break written,
            Err(error) => assert_eq!(error.retry(), Retry::Backoff, "{error}"),
        }
        attempts += 1;
        assert!(attempts < 20, "it is never sent in parts");
    };
    assert!(written.refused.is_empty(), "{written:?}");
    let stored: std::collections::HashSet<_> = stored.lock().unwrap().iter().copied().collect();
    assert_eq!(stored.len(), 16);
}
