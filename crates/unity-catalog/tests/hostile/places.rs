//! Where a store or a catalog would have requests, and files, go.

use crate::catalog_server::UnityServer;
use crate::catalog_server::http::{Reply, Server};
use crate::{ALONE, World, support};
use serde_json::json;
use trace_destination_core::{ErrorKind, TraceLocation as _};
use trace_destination_unity_catalog::{CatalogServer, StorageOptions, UnityCatalogLocation};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_sent_elsewhere() {
    let _alone = ALONE.lock().await;
    let world = World::start().await;
    let elsewhere = Server::start(|_| Reply::new(200, "text/plain", ""));
    for status in [301, 302, 303, 307, 308] {
        let target = elsewhere.url();
        world.say(move |request| {
            let to = format!("{target}{}", request.target);
            Some(Reply::new(status, "text/plain", "").with_header("location", to))
        });
        let error = world.write("a redirect").await.unwrap_err();
        let expected = match status {
            307 => ErrorKind::Unavailable,
            _ => ErrorKind::InvalidConfig,
        };
        assert_eq!(error.kind(), expected, "{status}: {error}");
    }
    let seen = elsewhere.requests();
    assert!(seen.is_empty(), "{seen:?}");
}

/// A server that has the table at a place.
fn catalog(place: &str) -> UnityServer {
    let server = UnityServer::start();
    let place = place.to_owned();
    let table = json!({
        "name": "shop_otel_spans", "catalog_name": "main", "schema_name": "traces",
        "table_type": "EXTERNAL", "data_source_format": "DELTA", "columns": [],
        "table_id": "00000000-0000-0000-0000-000000000001", "storage_location": place,
    });
    server.state().script = vec![
        ("/tables/", Reply::json(200, &table)),
        ("/temporary-", Reply::json(200, &json!({"url": place}))),
    ];
    server
}

fn location(
    server: &UnityServer,
    root: Option<&str>,
    storage: StorageOptions,
) -> UnityCatalogLocation {
    let mut client = CatalogServer::new(&server.url()).unwrap();
    if let Some(root) = root {
        client = client.with_storage_root(root).unwrap();
    }
    UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_server(client)
        .with_storage(storage)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_chooses_no_folder_of_this_machine() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (lake, outside) = (root.join("lake"), root.join("outside"));
    std::fs::create_dir(&lake).unwrap();
    std::fs::create_dir(&outside).unwrap();
    let (lake, outside) = (lake.to_str().unwrap(), outside.to_str().unwrap());
    for (root, place) in [
        (None, outside.to_owned()),
        (None, format!("file://{outside}")),
        (None, format!("file:{outside}")),
        (None, format!("file://localhost{outside}")),
        (Some(lake), format!("file://{outside}/t")),
        (Some(lake), format!("file://{lake}/../outside/t")),
        (Some(lake), format!("file://{lake}/%2e%2e/outside/t")),
        (Some(lake), format!("file://{lake}/%2E./outside/t")),
        (Some(lake), format!("file://{lake}%2f..%2foutside/t")),
        (Some(lake), format!("file://{lake}-not/t")),
        (Some(lake), format!("{lake}/../outside/t")),
        (Some(lake), "s3://bucket/t".to_owned()),
        (Some("s3://bucket/lake"), outside.to_owned()),
        (Some("s3://bucket/lake"), "gs://bucket/t".to_owned()),
    ] {
        let server = catalog(&place);
        let storage = StorageOptions::new().with_option("aws_region", "here");
        let error = location(&server, root, storage).open().await.err();
        let error = error.unwrap_or_else(|| panic!("{root:?}: {place} is opened"));
        let refused = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
        assert!(refused.contains(&error.kind()), "{place}: {error}");
        assert!(error.mend_hint().is_some(), "{error}");
    }
    for entry in ["lake", "outside", "lake-not"] {
        let entries = std::fs::read_dir(dir.path().join(entry)).map_or(0, Iterator::count);
        assert_eq!(entries, 0, "{entry}");
    }
    // Whoever allows it, or has the root there, gets it.
    let server = catalog(&format!("file://{lake}/t"));
    support::write(&location(&server, Some(lake), StorageOptions::new()), 1)
        .await
        .unwrap();
    let server = catalog(&format!("file://{outside}/t"));
    let allowed = StorageOptions::new().with_file_locations(true);
    support::write(&location(&server, None, allowed), 1)
        .await
        .unwrap();
}
