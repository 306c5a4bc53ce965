//! A second table, and a catalog that may not want it.

use crate::catalog_server::{State, error};
use crate::lake;
use crate::support::{Governed, TABLE, batch, traces};
use opentelemetry::trace::TraceId;
use std::path::PathBuf;
use trace_destination_core::{
    ErrorKind, TraceBatch, TraceLocation as _, TraceSink, TraceUpdate, Written,
};

const ANNOTATIONS: &str = "main.traces.shop_otel_annotations";

async fn write(sink: &dyn TraceSink, trace: u128, valued: bool) -> Written {
    let plain = batch(trace);
    let mut update = TraceUpdate::new(TraceId::from(trace));
    update.session_id = Some("session-1".into());
    let updates = if valued { vec![update] } else { Vec::new() };
    let batch = TraceBatch::new(plain.id(), plain.groups().to_vec(), updates);
    sink.write(&batch).await.unwrap()
}

fn place(governed: &Governed) -> PathBuf {
    governed
        .folder
        .path()
        .join("main/traces/shop_otel_annotations")
}

#[tokio::test]
async fn the_second_table_is_made_and_registered_with_the_first_value() {
    let governed = Governed::start();
    let sink = governed.location("main.traces.shop").open().await.unwrap();
    write(&*sink, 1, false).await;
    let asked = governed.server.requests_to("/").len();
    write(&*sink, 2, false).await;
    assert_eq!(governed.server.requests_to("/").len(), asked);
    assert!(!governed.server.state().tables.contains_key(ANNOTATIONS));
    assert!(governed.server.requests_to("annotations").is_empty());

    let written = write(&*sink, 3, true).await;
    assert!(written.lost_updates.is_empty(), "{written:?}");
    let table = governed.server.state().tables[ANNOTATIONS].clone();
    assert_eq!(table["table_type"], "EXTERNAL");
    assert_eq!(table["properties"]["otel.schemaVersion"], "v2");
    let columns = table["columns"].as_array().unwrap();
    assert_eq!(columns.len(), 14);
    let written = lake::table(&place(&governed)).await.unwrap().unwrap();
    let schema = written.snapshot().unwrap().schema();
    for (column, field) in columns.iter().zip(schema.fields()) {
        let said: serde_json::Value =
            serde_json::from_str(column["type_json"].as_str().unwrap()).unwrap();
        assert_eq!(said, serde_json::to_value(field).unwrap());
    }
    let found = lake::values(&lake::annotations(&place(&governed)).await.unwrap());
    assert_eq!(found.len(), 1);
    // Found by the next one, and registered once.
    let again = governed.location("main.traces.shop").open().await.unwrap();
    assert!(write(&*again, 4, true).await.lost_updates.is_empty());
    assert_eq!(lake::annotations(&place(&governed)).await.unwrap().len(), 2);
    assert!(governed.server.state().tables.contains_key(TABLE));
}

#[tokio::test]
async fn a_catalog_that_refuses_the_second_table_keeps_getting_spans() {
    for (denied, says) in [
        (
            "/tables/main.traces.shop_otel_annotations",
            "SELECT and MODIFY",
        ),
        ("/temporary-path-credentials", "CREATE EXTERNAL TABLE"),
    ] {
        let governed = Governed::start();
        let sink = governed.location("main.traces.shop").open().await.unwrap();
        write(&*sink, 1, false).await;
        governed.server.state().denied.push(denied);
        let mut asked = Vec::new();
        for trace in 2..=6 {
            let written = write(&*sink, trace, true).await;
            assert!(written.refused.is_empty());
            let [lost] = &*written.lost_updates else {
                panic!("{written:?}");
            };
            let text = lost.to_string();
            assert_eq!(lost.kind(), ErrorKind::PermissionDenied, "{text}");
            let url = &governed.server.url()[7..];
            for part in ["PERMISSION_DENIED", says, "annotations=false", url] {
                assert!(text.contains(part), "`{part}` is missing in: {text}");
            }
            assert!(text.contains(&TraceId::from(trace).to_string()), "{text}");
            asked.push(governed.server.requests_to("/").len());
        }
        // Not with every batch.
        assert_eq!(asked[0], asked[4], "{asked:?}");
        assert_eq!(traces(&governed.place()).await, [1, 2, 3, 4, 5, 6]);
        assert!(!place(&governed).exists(), "something was left behind");
        // Another one, once it is allowed.
        governed.server.state().denied.clear();
        let sink = governed.location("main.traces.shop").open().await.unwrap();
        assert!(write(&*sink, 7, true).await.lost_updates.is_empty());
    }
}

#[tokio::test]
async fn a_catalog_that_fails_for_a_moment_is_asked_again() {
    let governed = Governed::start();
    let sink = governed.location("main.traces.shop").open().await.unwrap();
    let unavailable = |state: &mut State| {
        let reply = error(503, "TEMPORARILY_UNAVAILABLE", "Try again");
        state.script.push(("otel_annotations", reply));
    };
    for _ in 0..3 {
        unavailable(&mut governed.server.state());
    }
    let written = write(&*sink, 1, true).await;
    assert!(written.lost_updates.is_empty(), "{written:?}");
    assert_eq!(lake::annotations(&place(&governed)).await.unwrap().len(), 1);
    assert_eq!(traces(&governed.place()).await, [1]);
}

/// A view of MLflow's, or a table that only Databricks writes, has the name.
#[tokio::test]
async fn a_name_that_is_something_else_in_the_catalog_is_left_alone() {
    let governed = Governed::start();
    let sink = governed.location("main.traces.shop").open().await.unwrap();
    write(&*sink, 1, true).await;
    for (key, value) in [("table_type", "MANAGED"), ("data_source_format", "ICEBERG")] {
        governed.server.state().tables.get_mut(ANNOTATIONS).unwrap()[key] = value.into();
        let sink = governed.location("main.traces.shop").open().await.unwrap();
        let written = write(&*sink, 2, true).await;
        let [lost] = &*written.lost_updates else {
            panic!("{written:?}");
        };
        assert_eq!(lost.kind(), ErrorKind::Unsupported, "{lost}");
        assert!(lost.to_string().contains(value), "{lost}");
    }
    assert_eq!(lake::annotations(&place(&governed)).await.unwrap().len(), 1);
}
