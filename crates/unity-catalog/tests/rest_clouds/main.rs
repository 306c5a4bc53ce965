//! Tables in object stores, with credentials that the catalog gives out: they reach the store, are
//! renewed before they end and when they are taken back, and are never shown. The stores are
//! stand-ins of this process.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../catalog_server/mod.rs"]
mod catalog_server;
#[path = "../lake/mod.rs"]
#[allow(unreachable_pub, reason = "other programs use it too")]
mod lake;
#[path = "../rest/support.rs"]
#[allow(dead_code, reason = "other programs use more of it")]
mod support;

use catalog_server::UnityServer;
use catalog_server::http::Reply;
use catalog_server::store::{Cloud, Store};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{TABLE, batch};
use trace_destination_core::{ErrorKind, Retry, TraceLocation as _, TraceSink};
use trace_destination_unity_catalog::{
    CatalogServer, StorageCredentials, StorageOptions, UnityCatalogLocation,
};

/// A catalog, a store, and credentials that are numbered.
struct World {
    catalog: UnityServer,
    store: Store,
    cloud: Cloud,
    /// How many credentials were given out.
    given: Arc<AtomicUsize>,
}

impl World {
    /// Credentials live for `life` milliseconds; without it they never end.
    fn start(cloud: Cloud, life: Option<i64>) -> Self {
        let (catalog, store) = (UnityServer::start(), Store::start(cloud));
        let given = Arc::new(AtomicUsize::new(0));
        let root = match cloud {
            Cloud::S3 => "s3://bucket/lake",
            Cloud::Gcs => "gs://bucket/lake",
            Cloud::Azure => "abfss://bucket@account.dfs.core.windows.net/lake",
        };
        let counted = given.clone();
        let mut state = catalog.state();
        state.catalogs.insert("main".into(), Some(root.into()));
        state.vend = Some(Box::new(move |_| {
            let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let end = life.map(|life| Timestamp::now().as_millisecond() + life);
            vended(cloud, n, end)
        }));
        drop(state);
        Self {
            catalog,
            store,
            cloud,
            given,
        }
    }

    fn options(&self) -> StorageOptions {
        let url = self.store.url();
        let options = StorageOptions::new().with_retry_timeout(Duration::from_secs(1));
        match self.cloud {
            Cloud::S3 => options
                .with_option("aws_endpoint_url", url)
                .with_option("aws_region", "here")
                .with_option("aws_allow_http", "true"),
            Cloud::Gcs => options
                .with_option("google_base_url", url)
                .with_option("google_allow_http", "true"),
            Cloud::Azure => options
                .with_option("azure_endpoint", url)
                .with_option("azure_allow_http", "true"),
        }
    }

    fn location(&self) -> UnityCatalogLocation {
        self.location_of(CatalogServer::new(&self.catalog.url()).unwrap())
    }

    fn location_of(&self, server: CatalogServer) -> UnityCatalogLocation {
        UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_server(server)
            .with_storage(self.options())
            .build()
            .unwrap()
    }

    /// The store takes the credentials with these numbers, and no others.
    fn takes(&self, numbers: impl IntoIterator<Item = usize>) {
        let all = numbers.into_iter().map(|n| proof(self.cloud, n));
        self.store.contents().takes = all.collect();
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    fn commits(&self) -> usize {
        let contents = self.store.contents();
        let keys = contents.objects.keys();
        keys.filter(|k| k.contains("/_delta_log/") && k.ends_with(".json"))
            .count()
    }

    fn files(&self) -> usize {
        let contents = self.store.contents();
        let keys = contents.objects.keys();
        keys.filter(|k| k.ends_with(".parquet")).count()
    }
}

fn vended(cloud: Cloud, n: usize, end: Option<i64>) -> Value {
    let mut given = match cloud {
        Cloud::S3 => json!({"aws_temp_credentials": {
            "access_key_id": format!("KEY{n}"),
            "secret_access_key": format!("hunter2-secret-{n}"),
            "session_token": format!("hunter2-session-{n}"),
        }}),
        Cloud::Gcs => json!({"gcp_oauth_token": {"oauth_token": format!("hunter2-ya29-{n}")}}),
        Cloud::Azure => json!({"azure_user_delegation_sas": {
            "sas_token": format!("sv=2022-11-02&sp=rwdl&sig=hunter2%2Fsig%3D{n}"),
        }}),
    };
    given["expiration_time"] = json!(end);
    given
}

/// What a request with these credentials shows.
fn proof(cloud: Cloud, n: usize) -> String {
    match cloud {
        Cloud::S3 => format!("KEY{n}/hunter2-session-{n}"),
        Cloud::Gcs => format!("hunter2-ya29-{n}"),
        Cloud::Azure => format!("hunter2/sig={n}"),
    }
}

const HOUR: Option<i64> = Some(3_600_000);

async fn write(sink: &dyn TraceSink, trace: u128) -> Result<(), trace_destination_core::Error> {
    let written = sink.write(&batch(trace)).await?;
    assert!(written.refused.is_empty(), "{written:?}");
    Ok(())
}

#[tokio::test]
async fn each_cloud_gets_what_the_catalog_gave_out() {
    for cloud in [Cloud::S3, Cloud::Gcs, Cloud::Azure] {
        let world = World::start(cloud, HOUR);
        // The first for the place of the new table, the second for the table.
        world.takes([1, 2]);
        let sink = world.location().open().await.unwrap();
        for trace in 1..=3 {
            write(&*sink, trace).await.unwrap();
        }
        assert_eq!((world.commits(), world.files()), (4, 3), "{cloud:?}");
        assert_eq!(world.given(), 2, "{cloud:?}");
        assert!(world.store.contents().refused.is_empty(), "{cloud:?}");
        let asked = |path| world.catalog.requests_to(path).pop().unwrap().json();
        assert_eq!(asked("path-credentials")["operation"], "PATH_CREATE_TABLE");
        assert_eq!(asked("table-credentials")["operation"], "READ_WRITE");
        assert_eq!(world.catalog.state().tables.len(), 1);
    }
}

#[tokio::test]
async fn credentials_taken_back_under_an_open_table_are_replaced() {
    for cloud in [Cloud::S3, Cloud::Gcs, Cloud::Azure] {
        let world = World::start(cloud, HOUR);
        world.takes([1, 2]);
        let sink = world.location().open().await.unwrap();
        write(&*sink, 1).await.unwrap();
        world.takes([3]);
        write(&*sink, 2).await.unwrap();
        write(&*sink, 3).await.unwrap();
        assert_eq!((world.commits(), world.files()), (4, 3), "{cloud:?}");
        assert_eq!(world.given(), 3, "{cloud:?}");
        assert_eq!(world.store.contents().refused.len(), 1, "{cloud:?}");
    }
}

#[tokio::test]
async fn credentials_are_renewed_before_they_end() {
    let world = World::start(Cloud::S3, Some(2_000));
    world.takes(1..100);
    let sink = world.location().open().await.unwrap();
    write(&*sink, 1).await.unwrap();
    let given = world.given();
    // Half of their life, and the second that the server's clock does not show.
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    write(&*sink, 2).await.unwrap();
    assert!(world.given() > given);
    // Those that are over would be refused.
    world.takes([world.given()]);
    write(&*sink, 3).await.unwrap();
    assert!(world.store.contents().refused.is_empty());
}

#[tokio::test]
async fn a_clock_that_is_wrong_here_or_there_does_not_matter() {
    for clock in [-7 * 24 * 3600, 7 * 24 * 3600] {
        let world = World::start(Cloud::S3, HOUR);
        world.takes([1, 2]);
        {
            let mut state = world.catalog.state();
            state.clock = clock;
            let mut number = 0;
            state.vend = Some(Box::new(move |_| {
                number += 1;
                let now = Timestamp::now().as_millisecond() + clock * 1000;
                vended(Cloud::S3, number, Some(now + 3_600_000))
            }));
        }
        let sink = world.location().open().await.unwrap();
        write(&*sink, 1).await.unwrap();
        write(&*sink, 2).await.unwrap();
        let asked = world.catalog.requests_to("temporary-");
        assert_eq!(asked.len(), 2, "one for the place and one for the table");
    }
}

#[tokio::test]
async fn a_session_token_the_store_never_issued_is_left_out() {
    // Without an end, and with an endpoint of one's own.
    let world = World::start(Cloud::S3, None);
    world.store.contents().takes = (1..5).map(|n| format!("KEY{n}/-")).collect();
    let sink = world.location().open().await.unwrap();
    write(&*sink, 1).await.unwrap();
    assert!(world.store.contents().refused.is_empty());
}

#[tokio::test]
async fn refused_for_good_is_an_error_without_secrets() {
    for cloud in [Cloud::S3, Cloud::Gcs, Cloud::Azure] {
        let world = World::start(cloud, HOUR);
        world.takes([]);
        let error = world.location().open().await.err().unwrap();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(
            error.kind(),
            ErrorKind::Unauthenticated,
            "{cloud:?}: {text}"
        );
        assert!(error.location().is_some() && error.mend_hint().is_some());
        assert_eq!(world.given(), 2, "asked once more, and no more than that");
        assert!(world.catalog.state().tables.is_empty());
        assert!(world.store.contents().objects.is_empty());
    }
}

#[tokio::test]
async fn denied_by_the_store() {
    let world = World::start(Cloud::S3, HOUR);
    world.takes([1, 2]);
    let sink = world.location().open().await.unwrap();
    write(&*sink, 1).await.unwrap();
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    world.store.contents().fault = Some(Reply::new(403, "application/xml", denied));
    for _ in 0..3 {
        let error = write(&*sink, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
    assert_eq!(world.given(), 3, "asked once whether others would do");
    world.store.contents().fault = None;
    world.takes([3]);
    write(&*sink, 2).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_tried_again_and_nothing_is_registered() {
    let world = World::start(Cloud::S3, HOUR);
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let location = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_server(CatalogServer::new(&world.catalog.url()).unwrap())
        .with_storage(
            world
                .options()
                .with_option("aws_endpoint_url", format!("http://{closed}")),
        )
        .build()
        .unwrap();
    let error = location.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    let text = format!("{error} {error:?}");
    assert!(text.contains(&closed.to_string()), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(world.catalog.state().tables.is_empty());
}

#[tokio::test]
async fn a_catalog_that_gives_no_more_out_is_what_the_error_says() {
    let world = World::start(Cloud::S3, Some(1_000));
    world.takes(1..100);
    let sink = world.location().open().await.unwrap();
    write(&*sink, 1).await.unwrap();
    world
        .catalog
        .state()
        .denied
        .push("/temporary-table-credentials");
    // While they last nobody notices.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let error = write(&*sink, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let text = error.to_string();
    for part in [
        "get storage credentials",
        "s3://bucket/lake/main/traces/shop_otel_spans",
        "EXTERNAL USE SCHEMA",
    ] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    world.catalog.state().denied.clear();
    write(&*sink, 2).await.unwrap();
    assert_eq!((world.commits(), world.files()), (3, 2));
}

#[tokio::test]
async fn own_credentials_where_the_catalog_has_none() {
    let world = World::start(Cloud::S3, HOUR);
    world.catalog.state().vend = None;
    world.store.contents().takes.insert("MINE/-".into());
    let server = CatalogServer::new(&world.catalog.url()).unwrap();
    let server = server.with_storage_credentials(StorageCredentials::Own);
    let location = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_server(server)
        .with_storage(
            world
                .options()
                .with_option("aws_access_key_id", "MINE")
                .with_option("aws_secret_access_key", "hunter2"),
        )
        .build()
        .unwrap();
    let sink = location.open().await.unwrap();
    write(&*sink, 1).await.unwrap();
    assert!(world.catalog.requests_to("temporary-").is_empty());
    assert!(world.catalog.state().tables.contains_key(TABLE));
    assert!(!format!("{location:?}").contains("hunter2"));
    // Nor do they show in an error.
    world.store.contents().takes.clear();
    let error = write(&*sink, 2).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn stores_that_cannot_be_reached_as_configured() {
    let world = World::start(Cloud::S3, HOUR);
    let server = CatalogServer::new(&world.catalog.url()).unwrap();
    for (options, says) in [
        (StorageOptions::new(), "AWS_REGION"),
        (
            StorageOptions::new().with_option("aws_endpoint_url", world.store.url()),
            "AWS_ALLOW_HTTP",
        ),
        (
            world.options().with_option("aws_colour", "red"),
            "aws_colour",
        ),
    ] {
        let location = UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_server(server.clone())
            .with_storage(options)
            .build()
            .unwrap();
        let error = location.open().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.mend_hint().is_some(), "{error}");
    }
    assert!(world.catalog.state().tables.is_empty());
}
