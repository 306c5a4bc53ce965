//! Servers whose answers are the input: answers are apart by lines of `--`. The first line of each is
//! the status and headers, `200|Content-Type: application/json`, the rest its body. After the last
//! one the server is away.
#![allow(dead_code, reason = "not every target uses all of it")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};
use trace_destination_core::{BatchId, SpanGroup, TraceBatch, TraceLocation, TraceUpdate, Written};
use trace_destination_http::fuzzing::{Reply, serve};
use trace_destination_otlp::decode_json;

#[path = "error_text.rs"]
pub mod error_text;

/// Requests that one input may lead to: three spans are taken apart, their traces looked up and
/// completed, and each request is sent a few times.
const REQUESTS: usize = 200;

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    builder.build().expect("a runtime")
});

static GROUPS: LazyLock<Vec<SpanGroup>> = LazyLock::new(|| {
    let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000a","name":"root",
         "startTimeUnixNano":"1","endTimeUnixNano":"2"},
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000b",
         "parentSpanId":"000000000000000a","name":"child","startTimeUnixNano":"1"},
        {"traceId":"0000000000000000000000000000000b","spanId":"000000000000000c",
         "parentSpanId":"00000000000000ff","name":"other","startTimeUnixNano":"1"}]}]}]}"#;
    let decoded = decode_json(spans.as_bytes()).expect("it is OTLP");
    decoded
        .into_iter()
        .map(|group| group.into_group())
        .collect()
});

fn reply(bytes: &[u8]) -> Reply {
    let (head, body) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut parts = head.split('|');
    let status = parts.next().and_then(|status| status.trim().parse().ok());
    let headers = parts.filter_map(|part| part.split_once(':'));
    Reply {
        status: status.filter(|s| (100..1000).contains(s)).unwrap_or(200),
        headers: headers
            .map(|(name, value)| (name.trim().into(), value.trim().into()))
            .collect(),
        body: body.to_vec(),
    }
}

pub fn replies(input: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(4).position(|window| window == b"\n--\n") {
        found.push(reply(&rest[..at]));
        rest = &rest[at + 4..];
    }
    found.push(reply(rest));
    found
}

/// Has all requests answered by these replies, one after the other.
pub fn answer_with(replies: Vec<Reply>) {
    let asked = Rc::new(Cell::new(0));
    let mut replies = replies.into_iter();
    serve(move |url, _| {
        asked.set(asked.get() + 1);
        assert!(
            asked.get() <= REQUESTS,
            "request {} is to {url}",
            asked.get()
        );
        let away = Reply {
            status: 503,
            ..Reply::default()
        };
        replies.next().unwrap_or(away)
    });
}

fn checked(written: &Written, secrets: &[&str]) {
    let mut positions: Vec<usize> = written.refused.iter().map(|r| r.index).collect();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(
        positions.len(),
        written.refused.len(),
        "a span is refused once"
    );
    assert!(positions.iter().all(|i| *i < 3));
    let errors = written.refused.iter().map(|refusal| &refusal.error);
    for error in errors.chain(&written.lost_updates) {
        error_text::check(error, secrets);
    }
}

/// Opens a location, writes the same spans twice and closes it.
pub fn hold(location: &dyn TraceLocation, secrets: &[&str]) {
    let trace = u128::from(10_u8);
    let update = TraceUpdate {
        name: Some("name".into()),
        session_id: Some("session".into()),
        client_request_id: Some("request".into()),
        run_id: Some("run".into()),
        tags: [("tag".into(), "value".into())].into(),
        ..TraceUpdate::new(trace.into())
    };
    RUNTIME.block_on(async {
        let sink = match location.open().await {
            Ok(sink) => sink,
            Err(error) => return error_text::check(&error, secrets),
        };
        for sequence in 0..2 {
            let id = BatchId {
                writer: uuid::Uuid::from_u128(1),
                sequence,
            };
            let batch = TraceBatch::new(id, GROUPS.clone(), vec![update.clone()]);
            match sink.write(&batch).await {
                Ok(written) => checked(&written, secrets),
                Err(error) => error_text::check(&error, secrets),
            }
        }
        if let Err(error) = sink.close().await {
            error_text::check(&error, secrets);
        }
    });
}
