//! Answers of a store that are too large, too many, too slow, too deep, or not what they claim.

use crate::catalog_server::http::{Reply, Request};
use crate::catalog_server::store::Answers;
use crate::{ALONE, LOG, World};
use std::time::Duration;
use trace_destination_core::{ErrorKind, Retry};

const MIB: usize = 1 << 20;

fn pieces(headers: &[(&str, &str)], piece: Vec<u8>, times: u64, pause: Duration) -> Reply {
    Reply::Pieces {
        status: 200,
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        piece,
        times,
        pause,
    }
}

fn object(body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(200, "application/octet-stream", body)
        .with_header("etag", "\"7\"")
        .with_header("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT")
}

fn is_commit(request: &Request) -> bool {
    request.method == "GET" && request.path().ends_with("00000.json")
}

fn is_pointer(request: &Request) -> bool {
    request.method == "GET" && request.path().ends_with("_last_checkpoint")
}

fn lists(request: &Request) -> bool {
    request.query("list-type").is_some()
}

/// A listing of these names, which goes on where `more`.
fn listing(names: &[String], size: &str, more: bool) -> Reply {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    text.push_str(&format!("<IsTruncated>{more}</IsTruncated>"));
    if more {
        text.push_str("<NextContinuationToken>more</NextContinuationToken>");
    }
    for name in names {
        text.push_str(&format!("<Contents><Key>{name}</Key><LastModified>2026-11-22T08:00:00.000Z</LastModified><ETag>\"7\"</ETag><Size>{size}</Size></Contents>"));
    }
    text.push_str("</ListBucketResult>");
    Reply::new(200, "application/xml", text)
}

fn in_log(name: &str) -> String {
    format!("{}{name}", LOG.trim_start_matches("/bucket/"))
}

fn script(script: impl Fn(&Request) -> Option<Reply> + Send + 'static) -> Answers {
    Box::new(script)
}

/// What a store says, and whether a table can be written all the same.
fn cases() -> Vec<(&'static str, Answers, Option<ErrorKind>)> {
    const HUGE: &str = "99999999999";
    let meta = [
        ("etag", "\"7\""),
        ("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT"),
    ];
    let with = move |name: &'static str, value: &'static str| {
        let mut headers = meta.to_vec();
        headers.push((name, value));
        headers
    };
    let at_once = Duration::ZERO;
    vec![
        (
            "a commit that claims 100 GB",
            script(move |r| {
                is_commit(r).then(|| {
                    pieces(
                        &with("content-length", HUGE),
                        b"{\"add\":{}}\n".repeat(900),
                        99,
                        at_once,
                    )
                })
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a pointer that claims 100 GB",
            script(move |r| {
                is_pointer(r)
                    .then(|| pieces(&with("content-length", HUGE), vec![b' '; 9000], 99, at_once))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit of 65 MiB",
            script(|r| is_commit(r).then(|| object(vec![b'\n'; 65 * MIB]))),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit without an end",
            script(move |r| {
                is_commit(r).then(|| {
                    pieces(
                        &with("transfer-encoding", "chunked"),
                        vec![b' '; MIB],
                        1 << 20,
                        at_once,
                    )
                })
            }),
            Some(ErrorKind::Unavailable),
        ),
        (
            "a commit that is longer than it claims",
            script(move |r| {
                is_commit(r).then(|| {
                    let headers = [
                        with("transfer-encoding", "chunked"),
                        vec![("content-length", "20")],
                    ];
                    pieces(&headers.concat(), vec![b' '; MIB], 1 << 20, at_once)
                })
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit that is shorter than it claims",
            script(move |r| {
                is_commit(r).then(|| {
                    pieces(
                        &with("content-length", "20000"),
                        vec![b'\n'; 100],
                        1,
                        at_once,
                    )
                })
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit that trickles",
            script(move |r| {
                is_commit(r).then(|| {
                    let pause = Duration::from_millis(100);
                    pieces(&with("content-length", "20000"), vec![b'\n'], 20_000, pause)
                })
            }),
            Some(ErrorKind::Timeout),
        ),
        (
            "a commit of one line",
            script(|r| is_commit(r).then(|| object(vec![b'1'; 60 * MIB]))),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit that is deep",
            script(|r| {
                is_commit(r)
                    .then(|| object(format!("{{\"commitInfo\":{}", "{\"a\":".repeat(100_000))))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a commit of small values",
            script(|r| is_commit(r).then(|| object(format!("{}\n", ",".repeat(MIB)).repeat(5)))),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a pointer to a version that no table has",
            script(|r| {
                is_pointer(r).then(|| object(format!("{{\"version\":{},\"size\":1}}", u64::MAX)))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a pointer that is deep",
            script(|r| {
                is_pointer(r)
                    .then(|| object(format!("{{\"version\":1,\"x\":{}", "[".repeat(900_000))))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a listing without an end",
            script(|r| {
                let names: Vec<_> = (0..1000)
                    .map(|n| in_log(&format!("{n:020}.json")))
                    .collect();
                lists(r).then(|| listing(&names, "100", true))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a listing of nothing without an end",
            script(|r| lists(r).then(|| listing(&[], "100", true))),
            Some(ErrorKind::Timeout),
        ),
        (
            "a page without an end",
            script(move |r| {
                lists(r).then(|| {
                    let piece = b"<Contents></Contents>".repeat(50_000);
                    pieces(&[("transfer-encoding", "chunked")], piece, 1 << 20, at_once)
                })
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a page that is deep",
            script(|r| {
                let text = format!("<ListBucketResult>{}", "<a>".repeat(2_000_000));
                lists(r).then(|| Reply::new(200, "application/xml", text))
            }),
            Some(ErrorKind::Unavailable),
        ),
        (
            "a listing of versions that no table has",
            script(|r| {
                let names = [u64::MAX - 1, u64::MAX].map(|n| in_log(&format!("{n:020}.json")));
                lists(r).then(|| listing(&names, "100", false))
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a listing of times that no calendar has",
            script(|r| {
                let names = [in_log("00000000000000000000.json")];
                let Reply::Answer {
                    status,
                    headers,
                    body,
                } = listing(&names, "100", false)
                else {
                    return None;
                };
                let text = String::from_utf8(body)
                    .ok()?
                    .replace("2026-11-22T", "999999-99-99T");
                lists(r).then(|| Reply::Answer {
                    status,
                    headers,
                    body: text.into(),
                })
            }),
            Some(ErrorKind::Unavailable),
        ),
        (
            "a checkpoint that claims all bytes there are",
            script(|r| {
                let names = [
                    in_log("00000000000000000001.checkpoint.parquet"),
                    in_log("00000000000000000002.json"),
                ];
                if lists(r) {
                    return Some(listing(&names, &u64::MAX.to_string(), false));
                }
                let max = u64::MAX;
                r.path().ends_with(".parquet").then(|| {
                    Reply::new(206, "x", vec![0; 8])
                        .with_header("etag", "\"7\"")
                        .with_header("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT")
                        .with_header("content-range", format!("bytes {}-{max}/{max}", max - 7))
                })
            }),
            Some(ErrorKind::Corrupt),
        ),
        (
            "an error without an end",
            script(move |r| {
                is_commit(r).then(|| {
                    let headers = [("transfer-encoding", "chunked")];
                    match pieces(&headers, vec![b'x'; MIB], 1 << 20, at_once) {
                        Reply::Pieces {
                            headers,
                            piece,
                            times,
                            pause,
                            ..
                        } => Reply::Pieces {
                            status: 403,
                            headers,
                            piece,
                            times,
                            pause,
                        },
                        other => other,
                    }
                })
            }),
            Some(ErrorKind::PermissionDenied),
        ),
        (
            "an error that claims 100 GB",
            script(move |r| {
                is_commit(r).then(|| {
                    match pieces(
                        &with("content-length", HUGE),
                        vec![b'x'; MIB],
                        999_999,
                        at_once,
                    ) {
                        Reply::Pieces {
                            headers,
                            piece,
                            times,
                            pause,
                            ..
                        } => Reply::Pieces {
                            status: 400,
                            headers,
                            piece,
                            times,
                            pause,
                        },
                        other => other,
                    }
                })
            }),
            Some(ErrorKind::Unavailable),
        ),
        (
            "no answer at all",
            script(|r| {
                let hang = Reply::After(Duration::from_secs(3600), Box::new(Reply::Reset));
                is_commit(r).then_some(hang)
            }),
            Some(ErrorKind::Timeout),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_costs_more_than_a_bound() {
    let _alone = ALONE.lock().await;
    let world = World::start().await;
    let mut wrong = Vec::new();
    for (name, script, expected) in cases() {
        world.say(script);
        let written = world.write(name).await;
        let kind = written.as_ref().err().map(|e| e.kind());
        if kind != expected {
            wrong.push(format!("{name}: {written:?} and not {expected:?}"));
        }
        if let Err(error) = written
            && error.kind() == ErrorKind::Corrupt
        {
            assert_eq!(error.retry(), Retry::Never, "{name}: {error}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Afterwards the table is as it was.
    world.say(|_| None);
    world.write("an honest store").await.unwrap();
}
