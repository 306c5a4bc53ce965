//! What a batch becomes, and that it becomes it once.

use crate::help::*;
use crate::lake;
use tempfile::TempDir;
use trace_destination_core::{AnyValue, TraceLocation as _};
use trace_destination_unity_catalog::{MissingTable, UnityCatalogLocation};

#[tokio::test]
async fn a_table_is_made_with_the_documented_columns_features_and_properties() {
    let dir = TempDir::new().unwrap();
    open(&location(dir.path())).await.close().await.unwrap();
    let log = commits(&shop(dir.path()));
    assert_eq!(log.len(), 1);
    let protocol = actions(&log[&0], "protocol")[0];
    assert_eq!(protocol["minReaderVersion"], 3);
    assert_eq!(protocol["minWriterVersion"], 7);
    assert_eq!(
        protocol["readerFeatures"],
        serde_json::json!(["variantType"])
    );
    assert_eq!(
        protocol["writerFeatures"],
        serde_json::json!(["variantType"])
    );
    let metadata = actions(&log[&0], "metaData")[0];
    let properties = &metadata["configuration"];
    assert_eq!(properties["otel.schemaVersion"], "v2");
    assert_eq!(properties["delta.checkpointPolicy"], "classic");
    assert_eq!(
        properties["delta.setTransactionRetentionDuration"],
        "interval 1 days"
    );
    assert_eq!(metadata["partitionColumns"], serde_json::json!([]));
    assert_eq!(metadata["name"], "shop_otel_spans");
    let schema: serde_json::Value =
        serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    let names: Vec<_> = schema["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 24);
    assert_eq!(names[..4], ["record_id", "time", "date", "service_name"]);
    // Opening it again makes nothing.
    open(&location(dir.path())).await.close().await.unwrap();
    assert_eq!(commits(&shop(dir.path())).len(), 1);
}

#[tokio::test]
async fn a_batch_is_one_file_and_one_commit_with_transaction_and_statistics() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    sink.write(&numbered(7, 4)).await.unwrap();
    let folder = shop(dir.path());
    let log = commits(&folder);
    assert_eq!(log.len(), 2);
    let commit = &log[&1];
    let info = actions(commit, "commitInfo")[0];
    assert_eq!(info["operation"], "WRITE");
    assert_eq!(info["isBlindAppend"], true);
    assert_eq!(info["operationMetrics"]["numOutputRows"], "3");
    let [txn] = actions(commit, "txn")[..] else {
        panic!("one transaction: {commit:?}");
    };
    let app = txn["appId"].as_str().unwrap();
    assert!(
        app.starts_with("trace-destination:00000000000000000000000000000007:"),
        "{app}"
    );
    assert_eq!(txn["version"], 4);
    assert!(txn["lastUpdated"].as_i64().unwrap() > 1_700_000_000_000);
    let [add] = actions(commit, "add")[..] else {
        panic!("one file: {commit:?}");
    };
    assert_eq!(add["dataChange"], true);
    let path = folder.join(add["path"].as_str().unwrap());
    assert_eq!(add["size"], std::fs::metadata(path).unwrap().len());
    let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 3);
    // The bounds are in milliseconds, rounded outwards: rows are at 1.000001 ms and so on.
    assert_eq!(stats["minValues"]["time"], "2026-11-22T00:00:00.001Z");
    assert_eq!(stats["maxValues"]["time"], "2026-11-22T00:00:00.003Z");
    assert_eq!(stats["minValues"]["date"], "2026-11-22");
    assert_eq!(stats["minValues"]["service_name"], "svc");
    assert_eq!(
        stats["maxValues"]["trace_id"],
        "00000000000000070000000000000005"
    );
    assert_eq!(stats["nullCount"]["service_name"], 0);
    assert_eq!(parquet_files(&folder).len(), 1);
    assert_eq!(stored(&folder).await.len(), 3);
}

#[tokio::test]
async fn a_batch_that_comes_again_is_stored_once() {
    let dir = TempDir::new().unwrap();
    let location = location(dir.path());
    let folder = shop(dir.path());
    let first = open(&location).await;
    for sequence in 0..3 {
        first.write(&numbered(1, sequence)).await.unwrap();
    }
    // At once, to the same sink; the one before it; to a sink opened later; by another process of
    // the same writer that is still open.
    let second = open(&location).await;
    for sink in [&first, &second] {
        for sequence in [2, 1, 2] {
            sink.write(&numbered(1, sequence)).await.unwrap();
        }
    }
    second.write(&numbered(1, 3)).await.unwrap();
    // `first` does not know of it yet.
    first.write(&numbered(1, 3)).await.unwrap();
    first.close().await.unwrap();
    open(&location).await.write(&numbered(1, 3)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 4));
    assert_eq!(commits(&folder).len(), 5);
    assert_eq!(parquet_files(&folder).len(), 4, "a repetition left a file");
}

#[tokio::test]
async fn places_that_are_one_table_keep_their_batches_apart() {
    // One pipeline numbers the batches of each place by itself, under one writer.
    let dir = TempDir::new().unwrap();
    let by_prefix = location(dir.path());
    let alias = UnityCatalogLocation::builder()
        .with_uri(by_prefix.uri())
        .with_missing(MissingTable::Fail)
        .build()
        .unwrap();
    assert_ne!(by_prefix.uri(), alias.uri());
    let one = batch(1, 0, vec![span(1, 1)]);
    let other = batch(1, 0, vec![span(2, 1)]);
    open(&by_prefix).await.write(&one).await.unwrap();
    open(&alias).await.write(&other).await.unwrap();
    assert_eq!(stored(&shop(dir.path())).await.len(), 2);
}

#[tokio::test]
async fn refused_spans_are_named_each_time_and_an_empty_batch_commits_nothing() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    sink.write(&batch(1, 0, Vec::new())).await.unwrap();
    assert_eq!(commits(&shop(dir.path())).len(), 1);
    let mut odd = span(1, 2);
    odd.start_time_unix_nano = u64::MAX;
    let mixed = batch(1, 1, vec![span(1, 1), odd.clone(), span(1, 3)]);
    for _ in 0..2 {
        let written = sink.write(&mixed).await.unwrap();
        assert_eq!(written.refused.len(), 1);
        assert_eq!(written.refused[0].index, 1);
    }
    let written = sink.write(&batch(1, 2, vec![odd])).await.unwrap();
    assert_eq!(written.refused.len(), 1);
    assert_eq!(stored(&shop(dir.path())).await.len(), 2);
    assert_eq!(commits(&shop(dir.path())).len(), 2);
}

#[tokio::test]
async fn a_table_of_version_1_is_written_as_such() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    std::fs::create_dir_all(folder.join("_delta_log")).unwrap();
    std::fs::write(
        folder.join("_delta_log/00000000000000000000.json"),
        include_str!("v1.json"),
    )
    .unwrap();
    let sink = open(&location(dir.path())).await;
    let typed = span(1, 1).with_attribute("count", 3_i64);
    sink.write(&batch(1, 0, vec![typed])).await.unwrap();
    let rows = lake::spans(&folder).await.unwrap();
    assert_eq!(rows.len(), 1);
    let values: Vec<_> = rows[0].span.attributes.iter().map(|a| &a.value).collect();
    assert_eq!(
        values,
        [&AnyValue::String("3".into()), &AnyValue::String("a".into())]
    );
}
