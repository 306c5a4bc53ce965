//! Tables that change, vanish, or were never for us.

use crate::help::*;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Retry, TraceLocation as _};
use trace_destination_unity_catalog::{MissingTable, UnityCatalogLocation};

fn metadata(folder: &Path) -> Value {
    let log = commits(folder);
    log.values()
        .rev()
        .find_map(|commit| actions(commit, "metaData").first().map(|m| (*m).clone()))
        .unwrap()
}

#[tokio::test]
async fn what_other_engines_do_with_rows_is_no_conflict() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let sink = open(&location(dir.path())).await;
    sink.write(&numbered(1, 0)).await.unwrap();
    let log = commits(&folder);
    let path = actions(&log[&1], "add")[0]["path"].clone();
    // The first file is deleted, by somebody whose way of doing it has things we do not know.
    commit_by_others(
        &folder,
        2,
        &[
            json!({"commitInfo": {"operation": "DELETE", "surprise": {"a": [1]}}}),
            json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 1}}),
            json!({"txn": {"appId": "somebody", "version": 1}}),
        ],
    );
    sink.write(&numbered(1, 1)).await.unwrap();
    assert_eq!(commits(&folder).len(), 4);
    assert_eq!(stored(&folder).await, &expected(&[1], 2)[3..]);
}

#[tokio::test]
async fn a_table_that_is_altered_is_looked_at_anew() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let sink = open(&location(dir.path())).await;
    sink.write(&numbered(1, 0)).await.unwrap();
    let mut altered = metadata(&folder);
    altered["configuration"]["owner"] = json!("somebody");
    commit_by_others(&folder, 2, &[json!({"metaData": altered})]);
    sink.write(&numbered(1, 1)).await.unwrap();
    // The batch was written under what the table is now, once.
    assert_eq!(stored(&folder).await, expected(&[1], 2));

    let mut unknown: Value = actions(&commits(&folder)[&0], "protocol")[0].clone();
    unknown["writerFeatures"] = json!(["variantType", "somethingNew"]);
    commit_by_others(&folder, 4, &[json!({"protocol": unknown})]);
    let error = sink.write(&numbered(1, 2)).await.err().unwrap();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unsupported, Retry::Never)
    );
    assert!(error.to_string().contains("somethingNew"), "{error}");
    assert_eq!(commits(&folder).len(), 5, "nothing was committed");
}

#[tokio::test]
async fn a_batch_finds_a_table_that_became_another_version() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let sink = open(&location(dir.path())).await;
    // Somebody replaces the columns by those of version 1 while the sink is open.
    let first: Vec<Value> = include_str!("v1.json")
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let replaced = actions(&first, "metaData")[0];
    commit_by_others(&folder, 1, &[json!({"metaData": replaced})]);
    sink.write(&numbered(1, 0)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 1));
    assert_eq!(
        parquet_files(&folder).len(),
        1,
        "the file with the other columns is left"
    );
}

#[tokio::test]
async fn a_log_that_was_cleaned_up_or_lost_is_noticed() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let location = location(dir.path());
    let sink = open(&location).await;
    for sequence in 0..3 {
        sink.write(&numbered(1, sequence)).await.unwrap();
    }
    // Another writer goes on, checkpoints, and cleans up.
    let other = open(&location).await;
    for sequence in 0..3 {
        other.write(&numbered(2, sequence)).await.unwrap();
    }
    let version = location
        .maintenance()
        .await
        .unwrap()
        .checkpoint()
        .await
        .unwrap();
    assert_eq!(version, 6);
    for version in 0..6 {
        std::fs::remove_file(folder.join(format!("_delta_log/{version:020}.json"))).unwrap();
    }
    sink.write(&numbered(1, 3)).await.unwrap();
    assert!(!commits(&folder).contains_key(&4), "written into nowhere");
    // Redelivered, with nothing but the checkpoint to tell.
    open(&location).await.write(&numbered(1, 2)).await.unwrap();
    assert_eq!(stored(&folder).await.len(), 21);

    std::fs::remove_dir_all(&folder).unwrap();
    let error = sink.write(&numbered(1, 4)).await.err().unwrap();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::NotFound, Retry::Never)
    );
    assert_eq!(error.location(), Some(location.uri()));
    assert!(!folder.exists(), "a part of a table was made");
}

#[tokio::test]
async fn tables_that_cannot_be_written_are_refused_by_name() {
    let v1 = |edit: &dyn Fn(&mut Value, &mut Value)| {
        let mut lines: Vec<Value> = include_str!("v1.json")
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let (protocol, rest) = lines.split_at_mut(1);
        edit(&mut protocol[0]["protocol"], &mut rest[0]["metaData"]);
        lines
    };
    let features = |names: &'static [&'static str]| {
        v1(&move |p, _| {
            let read: Vec<_> = names.iter().filter(|n| n.starts_with("catalog")).collect();
            *p = json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": read, "writerFeatures": names});
        })
    };
    let refused: [(Vec<Value>, &str); 6] = [
        (
            features(&["catalogManaged", "somethingNew"]),
            "catalogManaged",
        ),
        (
            features(&["coordinatedCommits-preview"]),
            "coordinatedCommits",
        ),
        (
            v1(&|_, m| m["partitionColumns"] = json!(["kind"])),
            "partitioned by kind",
        ),
        (
            v1(&|p, m| {
                *p = json!({"minReaderVersion": 1, "minWriterVersion": 3});
                m["configuration"]["delta.constraints.named"] = json!("name IS NOT NULL");
            }),
            "checkConstraints",
        ),
        (
            v1(&|_, m| {
                let schema = m["schemaString"].as_str().unwrap();
                m["schemaString"] = json!(schema.replace("\"trace_state\"", "\"colour\""));
            }),
            "colour",
        ),
        (
            v1(&|_, m| {
                let schema = m["schemaString"].as_str().unwrap();
                m["schemaString"] = json!(schema.replacen("\"string\"", "\"long\"", 1));
            }),
            "trace_id",
        ),
    ];
    for (lines, named) in refused {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        std::fs::create_dir_all(folder.join("_delta_log")).unwrap();
        commit_by_others(&folder, 0, &lines);
        let error = location(dir.path()).open().await.err().unwrap();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unsupported, Retry::Never),
            "{error}"
        );
        assert!(error.to_string().contains(named), "{named}: {error}");
        let mend = error.mend_hint().unwrap();
        assert!(
            mend.contains("another table") && !mend.contains("drop this"),
            "{mend}"
        );
        assert_eq!(commits(&folder).len(), 1);
        assert!(parquet_files(&folder).is_empty());
    }
    // What Spark lists in the tables it makes, without a use of it.
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    std::fs::create_dir_all(folder.join("_delta_log")).unwrap();
    commit_by_others(
        &folder,
        0,
        &features(&[
            "appendOnly",
            "invariants",
            "checkConstraints",
            "generatedColumns",
            "changeDataFeed",
        ]),
    );
    open(&location(dir.path()))
        .await
        .write(&numbered(1, 0))
        .await
        .unwrap();
    assert_eq!(stored(&folder).await.len(), 3);
}

#[tokio::test]
async fn an_absent_table_is_made_only_where_it_may_be() {
    let dir = TempDir::new().unwrap();
    let location = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_root(dir.path().display().to_string())
        .with_missing(MissingTable::Fail)
        .build()
        .unwrap();
    let error = location.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("main.traces.shop_otel_spans"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
