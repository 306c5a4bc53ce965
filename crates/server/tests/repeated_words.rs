//! What a server says in the middle of an answer, as the name of an experiment or behind a version, is
//! repeated in an error as any other of its words: in one short line and without secrets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::json;
use support::builder;
use support::http::{Reply, Server};
use trace_destination_core::TraceLocation as _;

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
