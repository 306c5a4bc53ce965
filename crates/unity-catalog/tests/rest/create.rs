//! Finding, making and registering tables.

use crate::catalog_server::UnityServer;
use crate::catalog_server::http::Reply;
use crate::lake;
use crate::support::{Governed, TABLE, at, traces, write};
use opentelemetry::trace::{SpanId, TraceId};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Destination, ErrorKind, Pipeline, RetryPolicy, SpanRecord, TraceLocation as _,
};
use trace_destination_unity_catalog::{CatalogServer, MissingTable, StorageOptions};
use url::Url;

#[tokio::test]
async fn a_missing_table_is_made_registered_and_found_again() {
    let governed = Governed::start();
    let location = governed.location("main.traces.shop");
    write(&location, 1).await.unwrap();
    write(&location, 2).await.unwrap();
    assert_eq!(traces(&governed.place()).await, [1, 2]);
    assert_eq!(
        governed.server.requests_to("/tables").len(),
        3,
        "get, create, get"
    );
    let table = governed.server.state().tables[TABLE].clone();
    assert_eq!(table["table_type"], "EXTERNAL");
    assert_eq!(table["properties"]["otel.schemaVersion"], "v2");
    let place = Url::from_file_path(governed.place()).unwrap();
    assert_eq!(table["storage_location"], place.as_str());
    // What is registered is what is there, column by column.
    let columns = table["columns"].as_array().unwrap();
    let written = lake::table(&governed.place()).await.unwrap().unwrap();
    let schema = written.snapshot().unwrap().schema();
    let fields: Vec<_> = schema.fields().collect();
    assert_eq!(columns.len(), 24);
    assert_eq!(fields.len(), 24);
    for (i, (column, field)) in columns.iter().zip(fields).enumerate() {
        assert_eq!(column["position"], i);
        let said: Value = serde_json::from_str(column["type_json"].as_str().unwrap()).unwrap();
        assert_eq!(said, serde_json::to_value(field).unwrap());
    }
    let text = |name: &str| {
        let column = columns.iter().find(|c| c["name"] == name).unwrap();
        column["type_text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text("attributes"), "variant");
    assert_eq!(text("start_time_unix_nano"), "bigint");
    assert_eq!(text("status"), "struct<message:string,code:string>");
}

#[tokio::test]
async fn credentials_are_asked_for_before_anything_is_written() {
    let governed = Governed::start();
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    let paths: Vec<String> = governed
        .server
        .requests_to("/")
        .iter()
        .map(|r| r.path().replace("/api/2.1/unity-catalog", ""))
        .collect();
    assert_eq!(
        paths,
        [
            &format!("/tables/{TABLE}"),
            "/schemas/main.traces",
            "/catalogs/main",
            "/temporary-path-credentials",
            "/tables",
            "/temporary-table-credentials",
        ]
    );
}

#[tokio::test]
async fn new_tables_go_where_code_then_schema_then_catalog_says() {
    let governed = Governed::start();
    let other = tempfile::tempdir().unwrap();
    let third = tempfile::tempdir().unwrap();
    let url = |folder: &tempfile::TempDir| Url::from_file_path(folder.path()).unwrap().to_string();
    governed
        .server
        .state()
        .schemas
        .insert("main.traces".into(), Some(url(&other)));
    write(&governed.location("main.traces.a"), 1).await.unwrap();
    let place = |folder: &tempfile::TempDir, name: &str| {
        let table = format!("main/traces/{name}_otel_spans");
        traces_in(folder.path().join(table))
    };
    assert_eq!(place(&other, "a").await, [1]);
    let server = governed.client().with_storage_root(&url(&third)).unwrap();
    write(&at("main.traces.b", server), 2).await.unwrap();
    assert_eq!(place(&third, "b").await, [2]);
    governed
        .server
        .state()
        .schemas
        .insert("main.traces".into(), None);
    write(&governed.location("main.traces.c"), 3).await.unwrap();
    assert_eq!(place(&governed.folder, "c").await, [3]);
}

async fn traces_in(folder: std::path::PathBuf) -> Vec<u128> {
    traces(&folder).await
}

#[tokio::test]
async fn a_registered_table_is_written_where_it_is() {
    let governed = Governed::start();
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    // Other settings of this process do not matter then.
    let elsewhere = tempfile::tempdir().unwrap();
    let server = governed.client();
    let server = server
        .with_storage_root(elsewhere.path().to_str().unwrap())
        .unwrap();
    write(&at("main.traces.shop", server), 2).await.unwrap();
    assert_eq!(traces(&governed.place()).await, [1, 2]);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn two_creators_at_once_make_one_table() {
    let governed = Governed::start();
    let locations: Vec<_> = (0..8)
        .map(|_| governed.location("main.traces.shop"))
        .collect();
    let writes = locations.iter().zip(1..).map(|(l, n)| write(l, n));
    for done in futures_util::future::join_all(writes).await {
        done.unwrap();
    }
    assert_eq!(traces(&governed.place()).await, (1..=8).collect::<Vec<_>>());
    assert_eq!(governed.server.state().tables.len(), 1);
}

#[tokio::test]
async fn a_creator_that_loses_the_race_writes_the_winners_table() {
    let governed = Governed::start();
    let place = Url::from_file_path(governed.place()).unwrap();
    governed.server.state().before_create = Some(Box::new(move |state| {
        state.put(TABLE, place.as_str(), "EXTERNAL", "DELTA");
    }));
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    assert_eq!(traces(&governed.place()).await, [1]);
}

#[tokio::test]
async fn a_creator_that_loses_the_race_to_another_place_says_so() {
    let governed = Governed::start();
    governed.server.state().before_create = Some(Box::new(|state| {
        state.put(TABLE, "s3://theirs/shop", "EXTERNAL", "DELTA");
    }));
    let error = write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let text = error.to_string();
    let place = Url::from_file_path(governed.place()).unwrap();
    for part in [TABLE, "s3://theirs/shop", place.as_str(), "storage root"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Where the server checks overlaps, the place of a table that was registered a moment ago is
/// refused: the table is there then.
#[tokio::test]
async fn a_place_that_was_taken_meanwhile_is_looked_up_again() {
    let governed = Governed::start();
    governed.server.state().tokens.insert("right".into());
    let server = || governed.client().with_token("right");
    write(&at("main.traces.shop", server()), 1).await.unwrap();
    let refused = crate::catalog_server::error(404, "TABLE_NOT_FOUND", "Table not found");
    governed.server.state().script.push(("/tables/", refused));
    write(&at("main.traces.shop", server()), 2).await.unwrap();
    assert_eq!(traces(&governed.place()).await, [1, 2]);
}

#[tokio::test]
async fn an_answer_that_got_lost_is_no_second_table() {
    let governed = Governed::start();
    // The table is registered, and nobody hears of it.
    let place = Url::from_file_path(governed.place()).unwrap();
    governed
        .server
        .state()
        .put(TABLE, place.as_str(), "EXTERNAL", "DELTA");
    let absent = crate::catalog_server::error(404, "TABLE_NOT_FOUND", "Table not found");
    {
        // The first entry that fits is taken: the look-up, then the creation.
        let mut state = governed.server.state();
        state.script.push(("/tables/", absent));
        let given = Reply::json(200, &serde_json::json!({}));
        state.script.push(("/temporary-path-credentials", given));
        state.script.push(("unity-catalog/tables", Reply::Reset));
    }
    write(&governed.location("main.traces.shop"), 1)
        .await
        .unwrap();
    assert_eq!(traces(&governed.place()).await, [1]);
    assert_eq!(governed.server.state().tables.len(), 1);
}

#[tokio::test]
async fn a_table_that_must_not_be_made_is_not() {
    let governed = Governed::start();
    let location = trace_destination_unity_catalog::UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_server(governed.client())
        .with_storage(StorageOptions::new().with_file_locations(true))
        .with_missing(MissingTable::Fail)
        .build()
        .unwrap();
    let error = location.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    governed.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tables_at_once() {
    let governed = Governed::start();
    let opened = (0..50).map(|n| {
        let location = governed.location(&format!("main.traces.t{n}"));
        tokio::spawn(async move { write(&location, 1).await })
    });
    for done in futures_util::future::join_all(opened).await {
        done.unwrap().unwrap();
    }
    assert_eq!(governed.server.state().tables.len(), 50);
}

/// More tables than a slow catalog serves in the time that a batch is tried: waiting for a turn at
/// the catalog costs no spans.
#[test]
fn a_slow_catalog_serves_many_tables_one_after_the_other() {
    const TABLES: usize = 120;
    let folder = tempfile::tempdir().unwrap();
    let server = UnityServer::slow(folder.path(), Duration::from_millis(30));
    let client = CatalogServer::new(&server.url()).unwrap();
    let pipeline = Pipeline::builder()
        .strict()
        .with_retry(RetryPolicy {
            deadline: Duration::from_secs(1),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let span = SpanRecord::new(TraceId::from(1), SpanId::from(1), "waits", 1, 2);
    for i in 0..TABLES {
        let name = format!("main.traces.tenant_{i}");
        let place = Destination::new(at(&name, client.clone()));
        let (resource, scope) = (Arc::default(), Arc::default());
        let sent = pipeline.ingest(resource, scope, vec![span.clone()], &place);
        assert_eq!(sent.accepted, 1);
    }
    // A single attempt may take 10 s by itself, which is less than all of them together.
    let report = pipeline.flush(Duration::from_secs(120)).wait();
    assert!(report.all_stored(), "{report}");
    assert_eq!(server.state().tables.len(), TABLES);
}
