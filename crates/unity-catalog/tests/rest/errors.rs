//! What goes wrong is an error that names the location, the operation, the cause and the mend; and
//! nothing is left behind.

use crate::catalog_server::http::Reply;
use crate::catalog_server::{State, error};
use crate::support::{Governed, TABLE, at, write};
use std::time::{Duration, Instant};
use trace_destination_core::{Error, ErrorKind, Retry};
use trace_destination_unity_catalog::CatalogServer;

/// Opens and writes where something is wrong, and looks at the error.
async fn refused(governed: &Governed, name: &str, says: &[&str]) -> Error {
    refused_by(governed, at(name, governed.client()), says).await
}

async fn refused_by(
    governed: &Governed,
    location: trace_destination_unity_catalog::UnityCatalogLocation,
    says: &[&str],
) -> Error {
    let error = write(&location, 1).await.unwrap_err();
    let text = error.to_string();
    assert!(error.location().is_some(), "no location: {text}");
    assert!(
        error.mend_hint().is_some_and(|m| m.len() > 10),
        "no mend: {text}"
    );
    assert!(
        text.contains(&governed.server.url()[7..]),
        "no server: {text}"
    );
    for part in says {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    error
}

#[tokio::test]
async fn wrong_names() {
    let governed = Governed::start();
    for (name, says) in [
        (
            "other.traces.a",
            ["CATALOG_NOT_FOUND", "create the catalog"],
        ),
        ("main.other.a", ["SCHEMA_NOT_FOUND", "create the schema"]),
    ] {
        let error = refused(&governed, name, &says).await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.operation().contains("look up table"), "{error}");
    }
    governed.assert_untouched();
}

#[tokio::test]
async fn no_permission_at_any_step_leaves_nothing_behind() {
    for (denied, says) in [
        ("/tables/", "SELECT and MODIFY"),
        ("/schemas", "USE SCHEMA"),
        ("/temporary-path-credentials", "CREATE EXTERNAL TABLE"),
    ] {
        let governed = Governed::start();
        governed.server.state().denied.push(denied);
        let error = refused(&governed, "main.traces.shop", &["PERMISSION_DENIED", says]).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.retry(), Retry::Never);
        governed.assert_untouched();
    }
}

#[tokio::test]
async fn no_permission_to_write_a_table_that_exists() {
    let governed = Governed::start();
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    governed
        .server
        .state()
        .denied
        .push("/temporary-table-credentials");
    let place = governed.place().display().to_string();
    let says = [
        "PERMISSION_DENIED",
        "SELECT and MODIFY",
        "EXTERNAL USE SCHEMA",
        &place,
    ];
    let error = refused(&governed, "main.traces.shop", &says).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(crate::support::traces(&governed.place()).await, [1]);
}

/// A log without a registration is found and registered once the right is there.
#[tokio::test]
async fn a_registration_that_was_refused_is_made_up_for() {
    let governed = Governed::start();
    let denied = || error(403, "PERMISSION_DENIED", "Access denied.");
    let script = |state: &mut State| state.script.push(("unity-catalog/tables", denied()));
    let absent = error(404, "TABLE_NOT_FOUND", "Table not found");
    {
        let mut state = governed.server.state();
        state.script.push(("/tables/", absent));
        script(&mut state);
    }
    let error = refused(
        &governed,
        "main.traces.shop",
        &["register table", "CREATE TABLE"],
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(governed.server.state().tables.is_empty());
    write(&governed.location("main.traces.shop"), 2)
        .await
        .unwrap();
    assert!(governed.server.state().tables.contains_key(TABLE));
    assert_eq!(crate::support::traces(&governed.place()).await, [2]);
}

#[tokio::test]
async fn no_place_for_a_new_table() {
    let governed = Governed::start();
    governed.server.state().catalogs.insert("main".into(), None);
    let says = [TABLE, "storage root", "UNITY_CATALOG_STORAGE_ROOT"];
    let error = refused(&governed, "main.traces.shop", &says).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    governed.assert_untouched();
    // One that is not understood names itself.
    let root = Some("r2://bucket/x".to_owned());
    governed.server.state().catalogs.insert("main".into(), root);
    let error = write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    governed.assert_untouched();
}

#[tokio::test]
async fn tables_that_cannot_be_written() {
    let governed = Governed::start();
    for (kind, format, location, says) in [
        ("VIEW", "DELTA", "", "VIEW"),
        ("EXTERNAL", "PARQUET", "s3://b/t", "PARQUET"),
        ("MANAGED", "DELTA", "s3://b/t", "MANAGED"),
        ("EXTERNAL", "DELTA", "r2://b/t", "is not understood"),
    ] {
        governed.server.state().put(TABLE, location, kind, format);
        let error = write(&governed.location("main.traces.shop"), 1)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(TABLE), "{text}");
        assert!(error.mend_hint().is_some(), "{text}");
    }
}

#[tokio::test]
async fn storage_the_server_has_no_credentials_for() {
    let governed = Governed::start();
    let root = Some("s3://bucket/traces".to_owned());
    governed.server.state().catalogs.insert("main".into(), root);
    let says = [
        "FAILED_PRECONDITION",
        "s3://bucket/traces/main/traces",
        "STORAGE_CREDENTIALS=own",
    ];
    let error = refused(&governed, "main.traces.shop", &says).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    governed.assert_untouched();
}

#[tokio::test]
async fn credentials_that_are_over_when_they_come() {
    let governed = Governed::start();
    {
        let mut state = governed.server.state();
        state
            .catalogs
            .insert("main".into(), Some("gs://bucket/traces".into()));
        state.vend = Some(Box::new(|_| {
            let hour_ago = jiff::Timestamp::now().as_millisecond() - 3_600_000;
            serde_json::json!({
                "gcp_oauth_token": {"oauth_token": "ya29-hunter2"}, "expiration_time": hour_ago,
            })
        }));
    }
    let error = write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("over already") && text.contains("clocks"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    governed.assert_untouched();
}

#[tokio::test]
async fn a_server_in_trouble_is_tried_again() {
    let later = || error(429, "RESOURCE_EXHAUSTED", "slow down").with_header("retry-after", "7");
    for (reply, kind, retry) in [
        (
            error(500, "INTERNAL", "x"),
            ErrorKind::Unavailable,
            Retry::Backoff,
        ),
        (
            error(409, "ABORTED", "x"),
            ErrorKind::Locked,
            Retry::Backoff,
        ),
        (
            later(),
            ErrorKind::Throttled,
            Retry::After(Duration::from_secs(7)),
        ),
        (
            Reply::new(502, "text/html", "<html>x</html>"),
            ErrorKind::Unavailable,
            Retry::Backoff,
        ),
        (Reply::Reset, ErrorKind::Unavailable, Retry::Backoff),
    ] {
        let governed = Governed::start();
        // A connection that breaks is tried once more beneath: all of them are to break.
        for _ in 0..4 {
            governed
                .server
                .state()
                .script
                .push(("/tables/", reply.clone()));
        }
        let error = refused(&governed, "main.traces.shop", &[]).await;
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
        governed.assert_untouched();
        governed.server.state().script.clear();
        write(&governed.location("main.traces.shop"), 1)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time() {
    let governed = Governed::start();
    let slow = Reply::After(Duration::from_secs(60), Box::new(Reply::Reset));
    governed.server.state().script.push(("/tables/", slow));
    let server = governed.client().with_timeout(Duration::from_millis(200));
    let started = Instant::now();
    let error = write(&at("main.traces.shop", server), 1).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    governed.assert_untouched();
}

#[tokio::test]
async fn answers_that_are_no_catalogs() {
    for (reply, kind) in [
        (
            Reply::new(200, "text/html", "<html>Welcome"),
            ErrorKind::Unsupported,
        ),
        (
            Reply::new(301, "text/html", "moved"),
            ErrorKind::Unsupported,
        ),
        (
            Reply::json(200, &serde_json::json!({"storage_location": 7})),
            ErrorKind::Unsupported,
        ),
    ] {
        let governed = Governed::start();
        governed.server.state().script.push(("/tables/", reply));
        let error = refused(&governed, "main.traces.shop", &[]).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
    let governed = Governed::start();
    let nowhere = CatalogServer::new(&format!("{}/nowhere", governed.server.url())).unwrap();
    let error = refused_by(&governed, at("main.traces.shop", nowhere), &[]).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// The open-source server answers 404 without naming the missing thing where it cannot tell.
#[tokio::test]
async fn a_plain_not_found_is_looked_into() {
    let governed = Governed::start();
    let plain = error(404, "NOT_FOUND", "not found");
    governed
        .server
        .state()
        .script
        .push(("/tables/", plain.clone()));
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    governed.server.state().script.push(("/tables/", plain));
    let error = refused(&governed, "main.other.a", &["SCHEMA_NOT_FOUND"]).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
