//! Who is asking: tokens as they are, and those an OAuth client gets; none of it is ever shown.

use crate::support::{Governed, at, traces, write};
use std::collections::BTreeMap;
use trace_destination_core::{ErrorKind, Retry};
use trace_destination_unity_catalog::{CatalogServer, UnityCatalogLocation};

fn sent(governed: &Governed) -> Vec<String> {
    let requests = governed.server.requests_to("/unity-catalog/");
    let headers = requests.iter().map(|r| r.header("authorization"));
    let mut all: Vec<String> = headers.map(|h| h.unwrap_or("none").to_owned()).collect();
    all.dedup();
    all
}

#[tokio::test]
async fn nobody_a_token_or_one_from_the_environment() {
    let governed = Governed::start();
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    assert_eq!(sent(&governed), ["none"]);
    governed
        .server
        .state()
        .tokens
        .insert("hunter2-right".into());
    let server = governed.client().with_token("hunter2-right");
    write(&at("main.traces.shop", server), 2).await.unwrap();
    let vars = BTreeMap::from([
        ("UNITY_CATALOG_URI".to_owned(), governed.server.url()),
        ("UNITY_CATALOG_TOKEN".to_owned(), "hunter2-right".to_owned()),
        ("UNITY_CATALOG_FILE_LOCATIONS".to_owned(), "true".to_owned()),
    ]);
    let location = UnityCatalogLocation::builder()
        .with_uri(&"uc://main.traces.shop".parse().unwrap())
        .with_env(&vars)
        .build()
        .unwrap();
    write(&location, 3).await.unwrap();
    assert!(!format!("{location:?} {location}").contains("hunter2"));
    assert_eq!(traces(&governed.place()).await, [1, 2, 3]);
    assert_eq!(sent(&governed), ["none", "Bearer hunter2-right"]);
}

#[tokio::test]
async fn a_token_that_is_missing_wrong_or_over() {
    let governed = Governed::start();
    governed.server.state().tokens.insert("right".into());
    for (server, says) in [
        (governed.client(), "set UNITY_CATALOG_TOKEN"),
        (
            governed.client().with_token("hunter2-over"),
            "wrong or over",
        ),
    ] {
        let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert_eq!(error.retry(), Retry::Never);
        let text = format!("{error} {error:?}");
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // A server that repeats what it was sent.
    let echo = crate::catalog_server::error(401, "UNAUTHENTICATED", "hunter2-over is over");
    governed.server.state().script.push(("/tables/", echo));
    let server = governed.client().with_token("hunter2-over");
    let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("[secret] is over"), "{text}");
    // And one that says so much that its words are cut, in the middle of the token.
    let long = format!("{} hunter2-over", "x".repeat(290));
    let echo = crate::catalog_server::error(401, "UNAUTHENTICATED", &long);
    governed.server.state().script.push(("/tables/", echo));
    let server = governed.client().with_token("hunter2-over");
    let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("xxx [se") && !text.contains("hunter2"),
        "{text}"
    );
    governed.assert_untouched();
}

#[tokio::test]
async fn a_token_endpoint_that_has_no_end() {
    let governed = Governed::start();
    governed.server.state().oauth = Some(("client".into(), "right".into(), 3600));
    let flood = crate::catalog_server::error(200, "OK", &"x".repeat(9 << 20));
    governed.server.state().script.push(("/oidc/", flood));
    let server = governed.client().with_oauth("client", "right");
    let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/oidc/v1/token was answered with more than 64 KiB"),
        "{text}"
    );
    governed.assert_untouched();
}

#[tokio::test]
async fn an_oauth_client_shares_its_token_and_gets_another_when_it_is_taken_back() {
    let governed = Governed::start();
    governed.server.state().oauth = Some(("client".into(), "hunter2".into(), 3600));
    let server = || governed.client().with_oauth("client", "hunter2");
    // One stays open: connections and tokens live as long as somebody uses them.
    let (first, second) = (
        at("main.traces.shop", server()),
        at("main.traces.b", server()),
    );
    let (a, b) = tokio::join!(write(&first, 1), write(&second, 2));
    a.unwrap();
    b.unwrap();
    let issued = governed.server.state().issued;
    assert!(issued <= 2, "{issued} tokens");
    governed.server.state().tokens.clear();
    governed.server.state().tokens.insert("another's".into());
    write(&first, 3).await.unwrap();
    assert_eq!(traces(&governed.place()).await, [1, 3]);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let governed = Governed::start();
    // Used for half of its life, which is nothing.
    governed.server.state().oauth = Some(("client".into(), "hunter2".into(), 0));
    let server = governed.client().with_oauth("client", "hunter2");
    write(&at("main.traces.shop", server), 1).await.unwrap();
    let (issued, requests) = (governed.server.state().issued, sent(&governed));
    assert_eq!(issued, requests.len(), "one for each request: {requests:?}");
}

#[tokio::test]
async fn an_oauth_client_that_is_refused() {
    let governed = Governed::start();
    governed.server.state().oauth = Some(("client".into(), "right".into(), 3600));
    let server = governed.client().with_oauth("client", "hunter2-wrong");
    let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("/oidc/v1/token") && text.contains("invalid_client"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    governed.assert_untouched();
    // Tokens from elsewhere.
    let elsewhere = Governed::start();
    elsewhere.server.state().oauth = Some(("client".into(), "secret".into(), 3600));
    governed.server.state().oauth = None;
    governed.server.state().tokens.insert("issued-1".into());
    let url = format!("{}/oidc/v1/token", elsewhere.server.url());
    let server = CatalogServer::new(&governed.server.url()).unwrap();
    let server = server.with_oauth("client", "secret").with_token_url(url);
    write(&at("main.traces.shop", server), 1).await.unwrap();
    assert_eq!(elsewhere.server.state().issued, 1);
}
