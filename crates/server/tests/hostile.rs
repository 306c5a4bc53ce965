//! Servers that mean harm: no answer costs more than a bound, hangs, panics or ends the process, and
//! no secret goes to a host that was not named for it, nor into a text.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{batch, builder, root};
use trace_destination_core::{Error, LocationUri, TraceLocation as _, Written};
use trace_destination_server::{
    Credential, CredentialProvider, Credentials, OAuthClient, ServerLocation, ServerLocationBuilder,
};
use trace_destination_testkit::stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use trace_destination_testkit::{Hostile, Malice, Reply, Seen, Watch};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Memory is this process's, so one test at a time may use any.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const SECRET: &str = "hunter2-do-not-show";
/// Longest time of one request here.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Longest time of all requests of one exchange.
const LONGEST: Duration = Duration::from_secs(15);
/// The stated bound: an answer is read up to 1 MiB, and decoded into less than this.
const BOUND: usize = 12 << 20;

/// What a server does right before it does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Version,
    Experiment,
    Create,
    LookUp,
    Spans,
    Otlp,
    Token,
    Workspace,
}

const STEPS: [Step; 8] = [
    Step::Version,
    Step::Experiment,
    Step::Create,
    Step::LookUp,
    Step::Spans,
    Step::Otlp,
    Step::Token,
    Step::Workspace,
];

fn fine(seen: &Seen) -> Reply {
    match seen.path() {
        "/version" => Reply::new(200, "text/plain", "3.17.2"),
        "/api/2.0/mlflow/experiments/get-by-name" => {
            Reply::json(404, r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#)
        }
        "/api/2.0/mlflow/experiments/create" => Reply::json(200, r#"{"experiment_id":"7"}"#),
        "/api/2.0/mlflow/experiments/get" => Reply::json(
            200,
            r#"{"experiment":{"experiment_id":"7","name":"e","lifecycle_stage":"active"}}"#,
        ),
        "/api/3.0/mlflow/traces/batchGetInfos" => Reply::json(200, "{}"),
        "/api/3.0/mlflow/server-info" => Reply::json(200, r#"{"workspaces_enabled":true}"#),
        "/oidc/v1/token" => Reply::json(200, r#"{"access_token":"given"}"#),
        _ => Reply::new(200, "application/x-protobuf", ""),
    }
}

impl Step {
    fn is(self, seen: &Seen) -> bool {
        let path = seen.path();
        match self {
            Self::Version => path == "/version",
            Self::Experiment => path.ends_with("/get-by-name"),
            Self::Create => path.ends_with("/create"),
            Self::LookUp => path.ends_with("/batchGetInfos"),
            Self::Spans | Self::Otlp => path == "/v1/traces",
            Self::Token => path == "/oidc/v1/token",
            Self::Workspace => path.ends_with("/server-info"),
        }
    }

    /// A location on a server, with credentials that must go nowhere else.
    fn location(self, url: &str) -> ServerLocation {
        let with = |uri: String| builder(&uri).with_bearer_token(SECRET);
        let builder: ServerLocationBuilder = match self {
            Self::Otlp => with(format!("otlp+{url}")),
            Self::Workspace => with(format!("{url}?experiment_name=e&workspace=w")),
            Self::Token => {
                let uri: LocationUri = format!("databricks://h?table=c.s.{}", port(url))
                    .parse()
                    .unwrap();
                ServerLocation::builder()
                    .with_uri(&uri)
                    .with_databricks_host(url)
                    .with_databricks_oauth("id", SECRET)
            }
            _ => with(format!("{url}?experiment_name=e")),
        };
        builder.with_timeout(TIMEOUT).build().unwrap()
    }
}

fn port(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

/// Opens a location and sends a span whose trace has to be looked up.
async fn send(location: &ServerLocation) -> Result<Written, Error> {
    let sink = location.open().await?;
    sink.write(&batch([support::child(1, 2)])).await
}

/// Runs one exchange within its bounds; what came of it, as text.
async fn bounded(what: &str, location: ServerLocation) -> (bool, String) {
    let (watch, begun) = (Watch::start(), Instant::now());
    let done = tokio::time::timeout(Duration::from_secs(20), send(&location)).await;
    let done = done.unwrap_or_else(|_| panic!("{what}: it hangs"));
    let most = watch.most();
    assert!(most < BOUND, "{what}: {most} bytes");
    // A few requests, each within its time, on a machine that may be busy.
    assert!(begun.elapsed() < LONGEST, "{what}: {:?}", begun.elapsed());
    let text = match &done {
        Ok(written) => format!("{written:?}"),
        Err(error) => {
            assert!(error.location().is_some(), "{what}: {error}");
            assert!(
                error.mend_hint().is_some_and(|m| m.len() > 8),
                "{what}: {error}"
            );
            let mut text = format!("{error} {error:?}");
            let mut beneath = std::error::Error::source(error);
            while let Some(error) = beneath {
                text += &format!(" {error} {error:?}");
                beneath = error.source();
            }
            text
        }
    };
    assert!(!text.contains("hunter2"), "{what}: {text}");
    assert!(text.len() < 8 << 10, "{what}: {} bytes of text", text.len());
    (done.is_ok(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_costs_more_than_its_bound() {
    let _alone = ALONE.lock().await;
    for step in STEPS {
        for malice in Malice::ALL {
            for status in [200, 500] {
                // What has no status of its own is tried once.
                let bare = matches!(
                    malice,
                    Malice::Silent
                        | Malice::Noise
                        | Malice::EndlessContinue
                        | Malice::EndlessStatus
                );
                let slow = matches!(malice, Malice::Slow | Malice::SilentBody);
                if status == 500 && (bare || slow) {
                    continue;
                }
                let harm = malice.clone();
                let server = Hostile::start(move |seen| match step.is(seen) {
                    true => Reply::Harm(status, harm.clone()),
                    false => fine(seen),
                });
                let what = format!("{malice:?} with {status} at {step:?}");
                // On a busy machine an exchange may be over before the harm begins.
                let mut tries = 0;
                while tries < 5 && !server.seen().iter().any(|s| step.is(s)) {
                    bounded(&what, step.location(&server.url())).await;
                    tries += 1;
                }
                assert!(server.seen().iter().any(|s| step.is(s)), "{what}");
                // Not more was taken than is read, and what was on the way.
                let sent = server.sent();
                assert!(sent < 512 << 20, "{what}: {sent} bytes were taken");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_lead_to_no_other_host() {
    let _alone = ALONE.lock().await;
    let elsewhere = Hostile::start(fine);
    let other = elsewhere.address.port();
    let (sent, received) = (Arc::new(Mutex::new(0)), Mutex::new(0));
    for step in STEPS {
        for status in [300, 301, 302, 303, 304, 305, 307, 308] {
            for to in [
                format!("http://127.0.0.1:{other}/v1/traces"),
                format!("https://127.0.0.1:{other}/"),
                format!("//127.0.0.1:{other}/x"),
                format!("http://user:hunter2@127.0.0.1:{other}/"),
                format!("http://localhost:{other}/"),
                "file:///etc/passwd".to_owned(),
                "javascript:alert(1)".to_owned(),
                "::::".to_owned(),
                "x".repeat(8000),
            ] {
                // A path below this server is another matter, see below.
                if to.starts_with(['x', ':']) && matches!(status, 307 | 308) {
                    continue;
                }
                let (target, counted) = (to.clone(), sent.clone());
                let server = Hostile::start(move |seen| match step.is(seen) {
                    true => {
                        *counted.lock().unwrap() += 1;
                        Reply::redirect(status, &target)
                    }
                    false => fine(seen),
                });
                let what = format!("{status} to {to:.60} at {step:?}");
                let (is_ok, text) = bounded(&what, step.location(&server.url())).await;
                assert!(!is_ok, "{what} counts as a success: {text}");
                assert_eq!(elsewhere.seen().len(), 0, "{what}");
                *received.lock().unwrap() += 1;
            }
        }
    }
    // On a busy machine some are over before they are redirected.
    let (sent, received) = (*sent.lock().unwrap(), *received.lock().unwrap());
    assert!(
        2 * sent > received,
        "{sent} redirects in {received} exchanges"
    );
}

/// On one origin a redirect that keeps method and body is followed, a few times; one that would make
/// something else of the request is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_on_one_origin() {
    let _alone = ALONE.lock().await;
    for (status, hops, is_stored) in [
        (308, 1, true),
        (307, 3, true),
        (307, 4, false),
        (308, usize::MAX, false),
        (301, 1, false),
        (302, 1, false),
        (303, 1, false),
    ] {
        let hop = std::sync::atomic::AtomicUsize::new(0);
        let server = Hostile::start(move |_| {
            let n = hop.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match n < hops {
                true => Reply::redirect(status, &format!("/hop/{n}")),
                false => Reply::new(200, "application/x-protobuf", ""),
            }
        });
        let what = format!("{status}, {hops} times");
        let (is_ok, text) = bounded(&what, Step::Otlp.location(&server.url())).await;
        assert_eq!(is_ok, is_stored, "{what}: {text}");
        let seen = server.seen();
        assert!(seen.len() <= 4, "{what}: {} requests", seen.len());
        for request in &seen {
            assert_eq!(request.method, "POST", "{what}");
            assert_eq!(request.body, seen[0].body, "{what}");
        }
    }
}

/// Times beyond all clocks: none panics, and none makes a lane wait for a year.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_that_are_not_so() {
    let _alone = ALONE.lock().await;
    for life in [
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
        "-1",
        "-9223372036854775808",
        "0",
        "0.25",
        "\"3600\"",
        "\"soon\"",
        "null",
        "[]",
        "{\"a\":{}}",
        "true",
    ] {
        let body = format!(r#"{{"access_token":"given","expires_in":{life}}}"#);
        let server = Hostile::start(move |seen| match Step::Token.is(seen) {
            true => Reply::json(200, &body),
            false => fine(seen),
        });
        let location = Step::Token.location(&server.url());
        for _ in 0..2 {
            let (is_ok, text) = bounded(life, location.clone()).await;
            assert!(is_ok, "{life}: {text}");
        }
    }
    for after in [
        "18446744073709551615",
        "99999999999999999999999",
        "-1",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 0001 00:00:00 GMT",
        "1e9",
        "",
    ] {
        let header = after.to_owned();
        let server = Hostile::start(move |_| {
            Reply::new(503, "text/plain", "").with_header("retry-after", &header)
        });
        let location = Step::Otlp.location(&server.url());
        let error = send(&location).await.unwrap_err();
        if let trace_destination_core::Retry::After(delay) = error.retry() {
            assert!(delay <= Duration::from_secs(3600), "{after}: {delay:?}");
        }
    }
}

/// Names and ids that a server gives end up in headers, paths and errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_are_none() {
    let _alone = ALONE.lock().await;
    for id in [
        "",
        "../../x",
        "7\\r\\nx-evil: 1",
        "7?a=b",
        "\\u0000",
        &"9".repeat(100_000),
    ] {
        let body = format!(r#"{{"experiment_id":"{id}"}}"#);
        let server = Hostile::start(move |seen| match Step::Create.is(seen) {
            true => Reply::json(200, &body),
            false => fine(seen),
        });
        let (is_ok, text) =
            bounded(&format!("{id:.20}"), Step::Create.location(&server.url())).await;
        assert!(!is_ok, "{id:.20}: {text}");
        assert!(server.seen().iter().all(|s| s.path() != "/v1/traces"));
    }
}

/// A server that repeats what it is sent, in every way it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_repeated_is_masked() {
    let _alone = ALONE.lock().await;
    let echo = |media_type: &'static str, status: u16, make: fn(&str) -> String| {
        Hostile::start(move |seen| {
            let sent = seen.header("authorization").unwrap_or_default().to_owned();
            match seen.path() {
                "/version" => Reply::new(200, "text/plain", make(&sent)),
                _ => Reply::new(status, media_type, make(&sent)),
            }
        })
    };
    let ways: [fn(&str) -> String; 6] = [
        |s| s.to_owned(),
        |s| s.replace('-', "%2D"),
        |s| format!("{}{s}", " ".repeat(5000)),
        |s| format!("{}{s}", "\u{1}".repeat(4080)),
        |s| s.chars().map(|c| format!("{c}\u{2}")).collect(),
        |s| format!(r#"{{"message":"{s}","error_code":"{s}"}}"#),
    ];
    for make in ways {
        for (media_type, status) in [
            ("text/plain", 400),
            ("application/json", 401),
            ("text/html", 500),
        ] {
            for step in [Step::Otlp, Step::Version] {
                let server = echo(media_type, status, make);
                bounded("echo", step.location(&server.url())).await;
            }
        }
        // A success that carries a message.
        let server = Hostile::start(move |seen| {
            let said = make(seen.header("authorization").unwrap_or_default());
            let said = said
                .replace('"', "\\\"")
                .replace(['\u{1}', '\u{2}'], "\\u0001");
            let body =
                format!(r#"{{"partialSuccess":{{"rejectedSpans":"1","errorMessage":"{said}"}}}}"#);
            Reply::json(200, &body)
        });
        let (is_ok, text) = bounded("partial success", Step::Otlp.location(&server.url())).await;
        assert!(is_ok && text.contains("without saying which"), "{text}");
    }
    // An address of tokens with a secret in its query, and one that nobody answers at.
    for url in [
        "http://127.0.0.1:1/t?key=hunter2-do-not-show",
        "http://u:hunter2@127.0.0.1:1/t",
    ] {
        let client = OAuthClient::new("id", SECRET, url);
        let credentials = Credentials::oauth(client);
        assert!(!format!("{credentials:?}").contains("hunter2"));
        let location = builder(&format!("otlp+http://127.0.0.1:1/{}", url.len()))
            .with_credentials(credentials)
            .build()
            .unwrap();
        let (_, text) = bounded(url, location).await;
        assert!(text.contains("127.0.0.1:1/t"), "{text}");
    }
    for url in [
        "",
        "hunter2",
        "ftp://hunter2",
        "http://",
        "file:///hunter2",
        "http://[hunter2",
    ] {
        let client = OAuthClient::new("id", SECRET, url);
        let built = builder("otlp+http://h")
            .with_credentials(Credentials::oauth(client))
            .build();
        let error = built.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

/// Credentials that change beneath open locations: by a file, a function, a provider.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_rotate_beneath_open_locations() {
    #[derive(Debug)]
    struct Vault(Arc<Mutex<String>>);
    #[async_trait::async_trait]
    impl CredentialProvider for Vault {
        async fn credential(&self) -> Result<Credential, Error> {
            tokio::task::yield_now().await;
            Ok(Credential::header(
                "x-api-key",
                self.0.lock().unwrap().clone(),
            ))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let current = Arc::new(Mutex::new(String::new()));
    let read = current.clone();
    for (name, credentials) in [
        ("file", Credentials::bearer_file(&file)),
        (
            "function",
            Credentials::from_fn(move || Ok(Credential::bearer(read.lock().unwrap().clone()))),
        ),
        (
            "provider",
            Credentials::provider(Arc::new(Vault(current.clone()))),
        ),
    ] {
        let valid = Arc::new(Mutex::new(String::new()));
        let takes = valid.clone();
        let server = Hostile::start(move |seen| {
            let sent = seen
                .header("authorization")
                .map(|a| a.trim_start_matches("Bearer "));
            let sent = sent.or(seen.header("x-api-key")).unwrap_or_default();
            match sent == *takes.lock().unwrap() {
                true => Reply::new(200, "application/x-protobuf", ""),
                false => Reply::new(401, "text/plain", format!("no: {sent}")),
            }
        });
        let set = |token: &str| {
            // As agents of vaults do it: another file under the same name.
            std::fs::write(file.with_extension("new"), format!("{token}\n")).unwrap();
            std::fs::rename(file.with_extension("new"), &file).unwrap();
            *current.lock().unwrap() = token.to_owned();
        };
        set("hunter2-first");
        *valid.lock().unwrap() = "hunter2-first".into();
        let mut sinks = Vec::new();
        for i in 0..3 {
            let uri = format!("otlp+{}/{i}", server.url());
            let location = builder(&uri)
                .with_credentials(credentials.clone())
                .build()
                .unwrap();
            sinks.push(location.open().await.unwrap());
        }
        for round in ["hunter2-first", "hunter2-second", "hunter2-third"] {
            set(round);
            *valid.lock().unwrap() = round.into();
            for sink in &sinks {
                sink.write(&batch([root(1)]))
                    .await
                    .unwrap_or_else(|e| panic!("{name} {round}: {e}"));
            }
        }
        // Taken back: one more request at most, and an error without it.
        *valid.lock().unwrap() = "another".into();
        let before = server.seen().len();
        let error = sinks[0].write(&batch([root(1)])).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert_eq!(
            server.seen().len(),
            before + 1,
            "{name}: it is the same one"
        );
        // A file that is gone or empty for a moment does not take the token away.
        *valid.lock().unwrap() = "hunter2-third".into();
        if name == "file" {
            for text in [None, Some(""), Some("\n")] {
                match text {
                    None => std::fs::remove_file(&file).unwrap(),
                    Some(text) => std::fs::write(&file, text).unwrap(),
                }
                tokio::time::sleep(Duration::from_millis(1100)).await;
                sinks[1].write(&batch([root(1)])).await.unwrap();
            }
        }
    }
}

/// Two locations with equal URIs share one provider, or the second is an error.
#[test]
fn one_place_has_one_provider() {
    let uri = "otlp+http://127.0.0.1:1/one_place_has_one_provider";
    let provider = Credentials::from_fn(|| Ok(Credential::none()));
    let with =
        |credentials: &Credentials| builder(uri).with_credentials(credentials.clone()).build();
    let first = with(&provider).unwrap();
    with(&provider).unwrap();
    for other in [
        Credentials::from_fn(|| Ok(Credential::none())),
        Credentials::none(),
        Credentials::bearer("x"),
        Credentials::oauth(OAuthClient::new("i", "s", "http://127.0.0.1:1")),
    ] {
        let error = with(&other).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }
    drop(first);
    with(&Credentials::bearer("x")).unwrap();
}

/// A workspace's credentials go to the workspace that they are written down with.
#[test]
fn a_workspaces_credentials_stay_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cfg");
    std::fs::write(
        &file,
        "[DEFAULT]\nhost = https://one.example\ntoken = hunter2\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let uri: LocationUri = "databricks://?table=c.s.t".parse().unwrap();
    let build = |vars: &[(&str, &str)], host: Option<&str>| {
        let mut all = BTreeMap::from([("DATABRICKS_CONFIG_FILE".to_owned(), file.to_owned())]);
        all.extend(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let mut builder = ServerLocation::builder().with_uri(&uri);
        if let Some(host) = host {
            builder = builder.with_databricks_host(host);
        }
        builder.with_env(&all).build()
    };
    build(&[], None).unwrap();
    build(&[("DATABRICKS_HOST", "one.example/")], None).unwrap();
    build(&[], Some("https://one.example")).unwrap();
    let token = ("DATABRICKS_TOKEN", "hunter2-2");
    let two = ("DATABRICKS_HOST", "https://two.example");
    build(&[two, token], None).unwrap();
    for (vars, host) in [
        (vec![two], None),
        (vec![("DATABRICKS_HOST", "http://one.example")], None),
        (vec![], Some("https://two.example")),
        (vec![two, token], Some("https://three.example")),
    ] {
        let error = build(&vars, host).unwrap_err();
        assert!(
            error.to_string().contains("no credentials"),
            "{vars:?} {host:?}: {error}"
        );
    }
}

/// A server of tokens that hangs costs all who wait for it one wait, and nobody on the same host who
/// has other credentials any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_tokens_that_hangs_holds_up_nobody_else() {
    let _alone = ALONE.lock().await;
    let tokens = Hostile::always(200, Malice::Silent);
    let server = Hostile::start(fine);
    let client = OAuthClient::new("id", SECRET, format!("{}/t", tokens.url()));
    let mut waiting = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for i in 0..64 {
        let uri = format!("otlp+{}/waits{i}", server.url());
        let credentials = Credentials::oauth(client.clone());
        let waits = builder(&uri)
            .with_credentials(credentials)
            .with_timeout(TIMEOUT);
        let waits = waits.build().unwrap();
        waiting.spawn(async move { send(&waits).await.unwrap_err() });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for i in 0..20 {
        let uri = format!("otlp+{}/fine{i}", server.url());
        let fine = builder(&uri)
            .with_bearer_token("x")
            .with_timeout(Duration::from_secs(5));
        send(&fine.build().unwrap()).await.unwrap();
    }
    while let Some(error) = waiting.join_next().await {
        let text = error.unwrap().to_string();
        assert!(text.contains("/t got no answer"), "{text}");
    }
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    let asked = tokens.seen().len();
    assert!(asked < 8, "{asked} requests for one token");
}
