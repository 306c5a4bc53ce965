//! Catalogs that mean harm: no answer costs more than a bound, hangs, panics or ends the process, no
//! secret goes to a host that was not named for it, and no place is taken on a stranger's word.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::alloc::System;
use std::time::{Duration, Instant};
use trace_destination_core::{Error, ErrorKind, TraceLocation as _};
use trace_destination_testkit::stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use trace_destination_testkit::{Hostile, Malice, Reply, Seen, Watch};
use trace_destination_unity_catalog::{CatalogServer, StorageCredentials, UnityCatalogLocation};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Memory is this process's, so one test at a time may use any.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const SECRET: &str = "hunter2-do-not-show";
const TIMEOUT: Duration = Duration::from_millis(400);
/// Longest time of all requests of one exchange.
const LONGEST: Duration = Duration::from_secs(15);
/// The stated bound: an answer is read up to 8 MiB, and the room for it grows by doubling.
const BOUND: usize = 48 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Table,
    Schema,
    Catalog,
    PathKeys,
    Token,
}

const STEPS: [Step; 5] = [
    Step::Table,
    Step::Schema,
    Step::Catalog,
    Step::PathKeys,
    Step::Token,
];

impl Step {
    fn is(self, seen: &Seen) -> bool {
        let path = seen.path();
        match self {
            Self::Table => path.contains("/tables/"),
            Self::Schema => path.contains("/schemas/"),
            Self::Catalog => path.contains("/catalogs/"),
            Self::PathKeys => path.ends_with("-credentials"),
            Self::Token => path == "/oidc/v1/token",
        }
    }

    fn server(self, url: &str) -> CatalogServer {
        let server = CatalogServer::new(url).unwrap().with_timeout(TIMEOUT);
        match self {
            Self::Token => server.with_oauth("id", SECRET),
            _ => server.with_token(SECRET),
        }
    }
}

/// A catalog without tables, whose storage is out of reach.
fn fine(seen: &Seen) -> Reply {
    let path = seen.path();
    if path.contains("/tables/") {
        Reply::json(404, r#"{"error_code":"TABLE_NOT_FOUND"}"#)
    } else if path.contains("/catalogs/") {
        Reply::json(200, r#"{"storage_root":"s3://bucket/lake"}"#)
    } else if path.ends_with("-credentials") {
        Reply::json(403, r#"{"error_code":"PERMISSION_DENIED"}"#)
    } else if path == "/oidc/v1/token" {
        Reply::json(200, r#"{"access_token":"given"}"#)
    } else {
        Reply::json(200, "{}")
    }
}

fn at(server: CatalogServer) -> UnityCatalogLocation {
    let builder = UnityCatalogLocation::builder().with_name("main.traces.shop");
    builder.with_server(server).build().unwrap()
}

/// Opens a table within its bounds; the error it ends in.
async fn refused(what: &str, server: CatalogServer) -> (Error, String) {
    let (watch, begun) = (Watch::start(), Instant::now());
    let location = at(server);
    let done = tokio::time::timeout(Duration::from_secs(20), location.open()).await;
    let done = done.unwrap_or_else(|_| panic!("{what}: it hangs"));
    let most = watch.most();
    assert!(most < BOUND, "{what}: {most} bytes");
    assert!(begun.elapsed() < LONGEST, "{what}: {:?}", begun.elapsed());
    let error = done.err().unwrap_or_else(|| panic!("{what}: it opened"));
    assert!(error.location().is_some(), "{what}: {error}");
    assert!(
        error.mend_hint().is_some_and(|m| m.len() > 8),
        "{what}: {error}"
    );
    let mut text = format!("{error} {error:?}");
    let mut beneath = std::error::Error::source(&error);
    while let Some(error) = beneath {
        text += &format!(" {error} {error:?}");
        beneath = error.source();
    }
    assert!(!text.contains("hunter2"), "{what}: {text}");
    assert!(text.len() < 8 << 10, "{what}: {} bytes of text", text.len());
    (error, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_costs_more_than_its_bound() {
    let _alone = ALONE.lock().await;
    for step in STEPS {
        for malice in Malice::ALL {
            let harm = malice.clone();
            let server = Hostile::start(move |seen| match step.is(seen) {
                true => Reply::Harm(200, harm.clone()),
                false => fine(seen),
            });
            let what = format!("{malice:?} at {step:?}");
            // On a busy machine an exchange may be over before the harm begins.
            let mut tries = 0;
            while tries < 5 && !server.seen().iter().any(|s| step.is(s)) {
                refused(&what, step.server(&server.url())).await;
                tries += 1;
            }
            assert!(server.seen().iter().any(|s| step.is(s)), "{what}");
            assert!(server.sent() < 512 << 20, "{what}: {} bytes", server.sent());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_lead_to_no_other_host() {
    let _alone = ALONE.lock().await;
    let elsewhere = Hostile::start(fine);
    let other = elsewhere.address.port();
    for step in STEPS {
        for status in [301, 302, 303, 307, 308] {
            for to in [
                format!("http://127.0.0.1:{other}/x"),
                format!("//127.0.0.1:{other}/x"),
                format!("https://127.0.0.1:{other}/"),
                format!("http://hunter2@127.0.0.1:{other}/"),
            ] {
                let target = to.clone();
                let server = Hostile::start(move |seen| match step.is(seen) {
                    true => Reply::redirect(status, &target),
                    false => fine(seen),
                });
                refused(
                    &format!("{status} to {to} at {step:?}"),
                    step.server(&server.url()),
                )
                .await;
            }
        }
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

/// A place that a catalog names is somebody else's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_lie() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("lake");
    std::fs::create_dir(&inside).unwrap();
    let path = inside.display().to_string();
    let victim = folder.path().join("victim").display().to_string();
    let upwards = [
        format!("file://{path}/../victim"),
        format!("file://{path}/%2e%2e/victim"),
        format!("file://{path}/%2E./victim"),
        format!("file://{path}/%252e%252e/victim"),
        format!("file://{path}/%25252e%25252e/victim"),
        format!("file://{path}/..%2fvictim"),
        format!("file://{path}/..%5cvictim"),
        format!("{path}/../victim"),
        format!("{path}/./x"),
        "s3://bucket/a/../../other".to_owned(),
        "s3://bucket/a/%2e%2e/other".to_owned(),
        "abfss://c@a.dfs.core.windows.net/..%2F..".to_owned(),
        "gs://b/%252e%252e".to_owned(),
    ];
    let wrong = [
        "file:x",
        "~/x",
        "x",
        "../x",
        "http://h/x",
        "",
        " ",
        "s3:",
        "file://h/x",
        "\u{1}",
    ];
    for as_root in [false, true] {
        let says = |place: &str| {
            let place = serde_json::to_string(place).unwrap();
            Hostile::start(move |seen| match (as_root, seen.path()) {
                (false, path) if path.contains("/tables/") => Reply::json(
                    200,
                    &format!(
                        r#"{{"table_type":"EXTERNAL","data_source_format":"DELTA","storage_location":{place}}}"#
                    ),
                ),
                (true, path) if path.contains("/schemas/") => {
                    Reply::json(200, &format!(r#"{{"storage_root":{place}}}"#))
                }
                _ => fine(seen),
            })
        };
        for place in upwards.iter().map(String::as_str).chain(wrong) {
            let server = says(place);
            let own = Step::Table.server(&server.url());
            let own = own.with_storage_credentials(StorageCredentials::Own);
            if as_root && place.is_empty() {
                continue; // None is said, and the catalog's own counts.
            }
            let (error, text) = refused(&format!("{place:?} {as_root}"), own).await;
            let kind = error.kind();
            let is_refused = matches!(
                kind,
                ErrorKind::Unsupported | ErrorKind::InvalidConfig | ErrorKind::PermissionDenied
            );
            assert!(is_refused, "{place:?}: {text}");
        }
        // Files of this machine, which nobody allowed.
        for place in [
            format!("file://{victim}"),
            victim.clone(),
            format!("FILE://{victim}"),
        ] {
            let server = says(&place);
            let remote = Step::Table.server(&server.url());
            let remote = remote.with_storage_credentials(StorageCredentials::Own);
            let (error, text) = refused(&place, remote.clone()).await;
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
            assert!(text.contains("the local folder"), "{text}");
            if !as_root {
                // Below a root that is configured it is what was asked for; beside it, it is not.
                let root = format!("file://{path}");
                let (_, text) = refused(&place, remote.with_storage_root(&root).unwrap()).await;
                assert!(text.contains("the local folder"), "{text}");
            }
        }
        let long = format!("s3://b/{}", "x".repeat(100_000));
        let server = says(&long);
        refused("a long place", Step::Table.server(&server.url())).await;
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
}

/// Names and ids that a catalog gives end up in errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_without_end() {
    let _alone = ALONE.lock().await;
    let long = "k".repeat(200_000);
    for body in [
        format!(r#"{{"table_type":"{long}"}}"#),
        format!(
            r#"{{"table_type":"VIEW","data_source_format":"{long}","storage_location":"s3://b/t"}}"#
        ),
        format!(
            r#"{{"table_type":"\u0007{long}","data_source_format":"DELTA","storage_location":"s3://b/t"}}"#
        ),
        format!(
            r#"{{"columns":[{}{{"name":1}}]}}"#,
            r#"{"name":"x"},"#.repeat(100_000)
        ),
        format!(r#"{{"columns":{}1}}"#, "[".repeat(100_000)),
    ] {
        let server = Hostile::start(move |seen| match Step::Table.is(seen) {
            true => Reply::json(200, &body),
            false => fine(seen),
        });
        refused("a description", Step::Table.server(&server.url())).await;
    }
}

/// A catalog that repeats what it is sent, and one whose errors have no end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_repeated_is_masked() {
    let _alone = ALONE.lock().await;
    let ways: [fn(&str) -> String; 5] = [
        |s| s.to_owned(),
        |s| format!(r#"{{"message":"{s}","error_code":"{s}"}}"#),
        |s| format!(r#"{{"message":"{}{s}"}}"#, " ".repeat(5000)),
        |s| s.replace('-', "%2D"),
        |s| s.chars().map(|c| format!("{c}\u{2}")).collect(),
    ];
    for step in STEPS {
        for make in ways {
            for status in [400, 401, 500] {
                let server = Hostile::start(move |seen| match step.is(seen) {
                    true => {
                        let sent = seen.header("authorization").unwrap_or_default();
                        Reply::json(status, &make(sent))
                    }
                    false => fine(seen),
                });
                refused("echo", step.server(&server.url())).await;
            }
        }
    }
    let server = Step::Token.server("http://127.0.0.1:1");
    let server = server.with_token_url("http://127.0.0.1:1/t?key=hunter2");
    assert!(!format!("{server:?}").contains("hunter2"));
    let (_, text) = refused("a token's address", server).await;
    assert!(text.contains("127.0.0.1:1/t?key=[secret]"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_that_are_not_so() {
    let _alone = ALONE.lock().await;
    for life in [
        "18446744073709551615",
        "1e300",
        "-1",
        "0.25",
        "\"3600\"",
        "null",
        "[]",
    ] {
        let body = format!(r#"{{"access_token":"given","expires_in":{life}}}"#);
        let server = Hostile::start(move |seen| match Step::Token.is(seen) {
            true => Reply::json(200, &body),
            false => fine(seen),
        });
        let (error, text) = refused(life, Step::Token.server(&server.url())).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{life}: {text}");
    }
    for end in [
        "9223372036854775807",
        "-9223372036854775808",
        "1",
        "1e300",
        "\"soon\"",
    ] {
        for date in [
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Mon, 01 Jan 0001 00:00:00 GMT",
            "soon",
        ] {
            let body = format!(
                r#"{{"aws_temp_credentials":{{"access_key_id":"k","secret_access_key":"s"}},"expiration_time":{end}}}"#
            );
            let server = Hostile::start(move |seen| match Step::PathKeys.is(seen) {
                true => Reply::json(200, &body).with_header("date", date),
                false => fine(seen),
            });
            let location = at(Step::PathKeys.server(&server.url()).with_timeout(TIMEOUT));
            // What the store makes of it is another matter: nothing panics, and it ends.
            let opened = tokio::time::timeout(Duration::from_secs(5), location.open()).await;
            drop(opened);
        }
    }
}

/// Credentials from a function, for a catalog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_rotate_beneath_a_location() {
    use std::sync::{Arc, Mutex};
    use trace_destination_unity_catalog::{Credential, Credentials};
    let _alone = ALONE.lock().await;
    let current = Arc::new(Mutex::new("one".to_owned()));
    let read = current.clone();
    let credentials =
        Credentials::from_fn(move || Ok(Credential::bearer(read.lock().unwrap().clone())));
    let server = Hostile::start(fine);
    let catalog = CatalogServer::new(&server.url()).unwrap();
    let location = at(catalog.with_credentials(credentials));
    for token in ["one", "two"] {
        *current.lock().unwrap() = token.into();
        let error = location.open().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let last = server.seen().pop().unwrap();
        assert_eq!(
            last.header("authorization"),
            Some(&*format!("Bearer {token}"))
        );
    }
}
