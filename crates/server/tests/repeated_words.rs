//! What a server says in the middle of an answer, as the name of an experiment or behind a version, is
//! repeated in an error as any other of its words: in one short line and without secrets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use support::http::{Reply, Server};
use support::{batch, builder, root};
use trace_destination_core::TraceLocation as _;
use trace_destination_server::{Credentials, OAuthClient};

const SECRET: &str = "hunter2-do-not-show";

#[tokio::test]
async fn names_and_versions_of_a_server_are_shown_as_its_other_words() {
    let long = "x".repeat(100_000);
    for said in [
        SECRET.to_owned(),
        format!("line\r\nbreak\u{1b}[2J {SECRET}"),
        format!("{long}{SECRET}"),
    ] {
        for (version, stage, query) in [
            (format!("3.3.{said}"), "active", "experiment_name=n"),
            (
                "3.17.2".to_owned(),
                "active",
                "experiment_id=7&experiment_name=n",
            ),
            ("3.17.2".to_owned(), "deleted", "experiment_id=7"),
            ("3.17.2".to_owned(), "deleted", "experiment_name=n"),
            (
                format!("3.17.2{said}"),
                "active",
                "experiment_name=n&workspace=w",
            ),
        ] {
            let name = match query {
                "experiment_name=n" => "n".to_owned(),
                _ => said.clone(),
            };
            let shown = version.clone();
            let server = Server::start(move |request| match request.path() {
                "/version" => Reply::text(200, &shown),
                "/api/3.0/mlflow/server-info" => Reply::json(200, json!({})),
                _ => Reply::json(
                    200,
                    json!({"experiment": {
                        "experiment_id": "7", "name": name, "lifecycle_stage": stage,
                    }}),
                ),
            });
            let location = builder(&format!("{}?{query}", server.url()))
                .with_bearer_token(SECRET)
                .build()
                .unwrap();
            let error = location.open().await.map(drop).unwrap_err();
            let text = error.to_string();
            assert!(text.len() < 1000, "{} bytes", text.len());
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(!text.contains(SECRET), "{text}");
            assert!(error.mend_hint().is_some(), "{text}");
        }
    }
}

/// A token that was given out is no less secret where it is asked for the next one.
#[tokio::test]
async fn a_server_of_tokens_that_repeats_the_last_one_is_not_repeated() {
    let is_first = AtomicBool::new(true);
    let server = Server::start(move |request| match request.path() {
        "/token" if is_first.swap(false, Ordering::Relaxed) => {
            Reply::json(200, json!({"access_token": SECRET, "expires_in": 3600}))
        }
        "/token" => Reply::json(
            401,
            json!({"error_description": format!("{SECRET} is over")}),
        ),
        _ => Reply::text(401, "no"),
    });
    let client = OAuthClient::new("id", "client", format!("{}/token", server.url()));
    let location = builder(&format!("otlp+{}", server.url()))
        .with_credentials(Credentials::oauth(client))
        .build()
        .unwrap();
    let sink = location.open().await.unwrap();
    let error = sink.write(&batch([root(1)])).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("[secret] is over"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}
