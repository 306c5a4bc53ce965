//! Stores that are not what a table needs, or are configured wrongly: found out when the table is
//! opened, with an error that names the mend, and with nothing stored that is reported otherwise.

use crate::catalog_server::http::Reply;
use crate::support;
use crate::{ALONE, LOG, World};
use std::time::{Duration, Instant};
use trace_destination_core::{ErrorKind, Retry, TraceLocation as _};
use trace_destination_unity_catalog::{StorageOptions, UnityCatalogLocation};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_conditions_is_refused_when_a_table_is_opened() {
    let _alone = ALONE.lock().await;
    // A table that is there, and one that is not.
    for exists in [true, false] {
        let world = World::start().await;
        let before = {
            let mut contents = world.store.contents();
            contents.ignores_conditions = true;
            if !exists {
                contents.objects.clear();
            }
            contents.objects.clone()
        };
        let error = world.location().open().await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.to_string().contains("If-None-Match"), "{error}");
        assert!(error.mend_hint().is_some_and(|m| m.contains("MinIO")));
        // Nothing of what was there is another now.
        let contents = world.store.contents();
        for (name, (bytes, _)) in &before {
            assert_eq!(&contents.objects[name].0, bytes, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_finds_out() {
    let _alone = ALONE.lock().await;
    let world = World::start().await;
    let puts = || {
        let requests = world.store.server.requests();
        requests.iter().filter(|r| r.method == "PUT").count()
    };
    let before = puts();
    let sink = world.location().open().await.unwrap();
    assert_eq!(puts() - before, 1);
    sink.write(&support::batch(3)).await.unwrap();
    assert_eq!(puts() - before, 3, "a file and its commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_objects_that_stand_for_folders_are_no_obstacle() {
    let _alone = ALONE.lock().await;
    let table = LOG.trim_end_matches("_delta_log/");
    for exists in [true, false] {
        let world = World::start().await;
        {
            let mut contents = world.store.contents();
            if !exists {
                contents.objects.clear();
            }
            for marker in [
                "/bucket/lake/".to_owned(),
                table.to_owned(),
                format!("{}_$folder$", table.trim_end_matches('/')),
                LOG.to_owned(),
                format!("{}_$folder$", LOG.trim_end_matches('/')),
                format!("{LOG}_sidecars/"),
                format!("{LOG}_$folder$"),
            ] {
                let key = marker.trim_start_matches('/').to_owned();
                contents.objects.insert(key, (Vec::new(), 1));
            }
        }
        let location = world.location();
        support::write(&location, 3).await.unwrap();
        let care = location.maintenance().await.unwrap();
        let orphans = care.orphans(Some(Duration::ZERO)).await.unwrap();
        assert_eq!(orphans, [] as [&str; 0]);
        care.checkpoint().await.unwrap();
        support::write(&location, 4).await.unwrap();
    }
}

/// What a store answers whose address, bucket, region or keys are wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_configurations_are_told_at_once() {
    let _alone = ALONE.lock().await;
    let xml = |status, code: &str| {
        let text = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        Reply::new(status, "application/xml", text)
    };
    for (reply, kind, mend) in [
        (
            xml(404, "NoSuchBucket"),
            ErrorKind::NotFound,
            "create the bucket",
        ),
        (
            xml(400, "AuthorizationHeaderMalformed"),
            ErrorKind::InvalidConfig,
            "AWS_REGION",
        ),
        (
            xml(301, "PermanentRedirect"),
            ErrorKind::InvalidConfig,
            "AWS_REGION",
        ),
        (
            xml(403, "InvalidAccessKeyId"),
            ErrorKind::Unauthenticated,
            "AWS_ACCESS_KEY_ID",
        ),
        (
            xml(403, "SignatureDoesNotMatch"),
            ErrorKind::Unauthenticated,
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            xml(501, "NotImplemented"),
            ErrorKind::Unsupported,
            "conditional writes",
        ),
    ] {
        let world = World::start().await;
        world.store.contents().fault = Some(reply);
        let began = Instant::now();
        let error = support::write(&world.location(), 3).await.unwrap_err();
        let took = began.elapsed();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(error.retry(), Retry::Never, "{error:?}");
        let said = error.mend_hint().unwrap_or_default();
        assert!(said.contains(mend), "{error:?}");
        // The client's own retries end after half a second here.
        assert!(took < Duration::from_secs(20), "{took:?}: {error}");
    }
}

#[tokio::test]
async fn options_that_are_mistyped_are_errors_when_a_location_is_made() {
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
        ("AWS_ENDPOINT_URL", "minio"),
        ("AWS_SESSION_TOKEN", "hunter2\n"),
        ("AWS_ACCESS_KEY_ID", "hunter2\u{fc}"),
        ("AWS_REGION", " here"),
    ] {
        let options = StorageOptions::new()
            .with_option("aws_region", "here")
            .with_option(name, value);
        let built = UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root("s3://bucket/mistyped")
            .with_storage(options.clone())
            .build();
        let error = built.map(|l| l.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(&name.to_ascii_lowercase()));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        // They are for other stores: a folder is no worse for them.
        let dir = std::env::temp_dir();
        let local = UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root(dir.display().to_string())
            .with_storage(options)
            .build();
        assert!(local.is_ok());
    }
}
