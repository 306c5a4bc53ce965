//! Tables that people and engines changed: columns that were added, and features that an append has
//! to keep. The logs are as Spark writes them.

use crate::help::*;
use arrow_array::{Array, ArrayRef, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Event, TraceLocation as _};

/// A span with a status, an event and what else there is within columns.
fn batch_with_event(sequence: u64) -> trace_destination_core::TraceBatch {
    let mut with = span(9, sequence + 1);
    with.events.push(Event {
        name: "said".into(),
        time_unix_nano: MIDNIGHT,
        attributes: Vec::new(),
        dropped_attributes_count: 3,
    });
    with.status.message = "fine".into();
    batch(1, sequence, vec![with, span(9, 100 + sequence)])
}

/// The rows of the only file.
fn rows(folder: &Path) -> RecordBatch {
    let files = parquet_files(folder);
    assert_eq!(files.len(), 1, "{files:?}");
    let file = File::open(folder.join(&files[0])).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    reader.next().unwrap().unwrap()
}

/// A column, or a field within one, by its names; of lists the elements.
fn at(rows: &RecordBatch, path: &[&str]) -> ArrayRef {
    let mut found = rows
        .column_by_name(path[0])
        .unwrap_or_else(|| panic!("no {path:?}"))
        .clone();
    for name in &path[1..] {
        use arrow_array::cast::AsArray as _;
        if let Some(list) = found.as_list_opt::<i32>() {
            found = list.values().clone();
        }
        found = found
            .as_struct()
            .column_by_name(name)
            .unwrap_or_else(|| panic!("no {path:?}"))
            .clone();
    }
    found
}

fn stats(commit: &[Value]) -> Value {
    let add = actions(commit, "add")[0];
    serde_json::from_str(add["stats"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn columns_that_somebody_added_are_null() {
    let mut first = First::new(&["timestampNtz"], &[]).await;
    let row = json!({"type": "struct", "fields": [column("a", "double"), column("b", "variant")]});
    let map =
        json!({"type": "map", "keyType": "string", "valueType": row, "valueContainsNull": true});
    let list = json!({"type": "array", "elementType": "decimal(10,2)", "containsNull": false});
    let top = first.fields(&[]);
    top.insert(0, column("tenant", "string"));
    top.insert(9, column("cost", map.clone()));
    top.push(column("prices", list));
    top.push(column("seen", "timestamp_ntz"));
    top.push(column("nothing", "void"));
    first
        .fields(&["status"])
        .insert(0, column("reason", "string"));
    first
        .fields(&["events"])
        .insert(2, column("severity", "integer"));
    first.fields(&["resource"]).push(column("owner", map));
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    first.write(&folder);
    open(&location(dir.path()))
        .await
        .write(&batch_with_event(0))
        .await
        .unwrap();

    let rows = rows(&folder);
    let added: [&[&str]; 7] = [
        &["tenant"],
        &["cost"],
        &["prices"],
        &["seen"],
        &["status", "reason"],
        &["events", "severity"],
        &["resource", "owner"],
    ];
    for path in added {
        let column = at(&rows, path);
        assert!(!column.is_empty(), "{path:?}");
        assert_eq!(column.null_count(), column.len(), "{path:?}");
    }
    assert!(
        rows.column_by_name("nothing").is_none(),
        "VOID is in a file"
    );
    let spans = crate::lake::spans(&folder).await.unwrap();
    assert_eq!(spans.len(), 2);
    let with = spans.iter().find(|s| !s.span.events.is_empty()).unwrap();
    assert_eq!(with.span.status.message, "fine");
    assert_eq!(with.span.events[0].name, "said");
    assert_eq!(with.span.events[0].dropped_attributes_count, 3);
    assert_eq!(with.span.attributes.len(), 1);
}

#[tokio::test]
async fn a_column_that_is_added_between_batches_is_null_from_then_on() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let mut first = First::new(&[], &[]).await;
    first.write(&folder);
    let sink = open(&location(dir.path())).await;
    sink.write(&numbered(1, 0)).await.unwrap();
    first.fields(&[]).insert(3, column("tenant", "string"));
    first.fields(&["links"]).push(column("why", "string"));
    first.metadata["schemaString"] = first.schema.to_string().into();
    commit_by_others(&folder, 2, &[json!({"metaData": first.metadata})]);
    sink.write(&numbered(1, 1)).await.unwrap();
    sink.write(&numbered(1, 2)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 3));
    assert_eq!(commits(&folder).len(), 5);
    assert_eq!(
        parquet_files(&folder).len(),
        3,
        "a file of the columns before is left"
    );
    // One that needs a value is refused, and told how to be mended.
    first.fields(&[])[3]["nullable"] = false.into();
    first.metadata["schemaString"] = first.schema.to_string().into();
    commit_by_others(&folder, 5, &[json!({"metaData": first.metadata})]);
    let error = sink.write(&numbered(1, 3)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`tenant` STRING"), "{error}");
    assert!(
        error.mend_hint().unwrap().contains("DROP NOT NULL"),
        "{error}"
    );
    assert_eq!(commits(&folder).len(), 6);
}

#[tokio::test]
async fn the_documented_table_with_its_clustering_is_written() {
    // What Databricks documents for spans, with the features it gives to new tables.
    let clustering = json!({"clusteringColumns": [["time"], ["service_name"], ["trace_id"]]});
    let first = First::new(
        &[
            "variantType-preview",
            "variantShredding-preview",
            "deletionVectors",
            "v2Checkpoint",
            "vacuumProtocolCheck",
        ],
        &[
            "appendOnly",
            "invariants",
            "clustering",
            "domainMetadata",
            "checkpointProtection",
        ],
    )
    .await
    .with("delta.enableVariantShredding", "true")
    .with("delta.requireCheckpointProtectionBeforeVersion", "0")
    .with_domain("delta.clustering", clustering)
    .with_domain("somebody's", json!({"a": 1}));
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    first.write(&folder);
    let location = location(dir.path());
    let sink = open(&location).await;
    sink.write(&batch_with_event(0)).await.unwrap();
    let log = commits(&folder);
    let stats = stats(&log[&1]);
    for column in ["time", "service_name", "trace_id"] {
        for kind in ["minValues", "maxValues", "nullCount"] {
            assert!(
                !stats[kind][column].is_null(),
                "{kind} of {column} in {stats}"
            );
        }
    }
    assert!(actions(&log[&1], "domainMetadata").is_empty());
    // Domains outlive a checkpoint, after which there are no commits to read them from.
    assert_eq!(
        location
            .maintenance()
            .await
            .unwrap()
            .checkpoint()
            .await
            .unwrap(),
        1
    );
    std::fs::remove_file(folder.join("_delta_log/00000000000000000000.json")).unwrap();
    sink.write(&batch_with_event(1)).await.unwrap();
    let table = open(&location).await;
    table.write(&batch_with_event(2)).await.unwrap();
    assert_eq!(stored(&folder).await.len(), 6);
}

#[tokio::test]
async fn clustering_columns_have_statistics_wherever_they_are() {
    let paths = json!([
        ["status", "code"],
        ["flags"],
        ["date"],
        ["name"],
        ["tenant"],
        ["parent_span_id"]
    ]);
    let mut first = First::new(&[], &["clustering", "domainMetadata"])
        .await
        .with_domain("delta.clustering", json!({"clusteringColumns": paths}));
    first.fields(&[]).push(column("tenant", "string"));
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    first.write(&folder);
    let sink = open(&location(dir.path())).await;
    sink.write(&batch_with_event(0)).await.unwrap();
    let found = stats(&commits(&folder)[&1]);
    assert_eq!(found["minValues"]["status"]["code"], "STATUS_CODE_UNSET");
    assert_eq!(found["nullCount"]["status"]["code"], 0);
    assert_eq!(found["minValues"]["flags"], 0);
    assert_eq!(found["maxValues"]["date"], "2026-11-22");
    assert_eq!(found["maxValues"]["name"], "work");
    for column in ["tenant", "parent_span_id"] {
        assert_eq!(found["nullCount"][column], 2, "{column} in {found}");
        assert!(found["minValues"][column].is_null());
    }
    // The columns change: what comes next has statistics of the new ones.
    let domain = json!({"clusteringColumns": [["kind"]]}).to_string();
    let action = json!({"domainMetadata": {"domain": "delta.clustering", "configuration": domain, "removed": false}});
    commit_by_others(&folder, 2, &[action]);
    sink.write(&batch_with_event(1)).await.unwrap();
    let found = stats(&commits(&folder)[&3]);
    assert_eq!(found["maxValues"]["kind"], "SPAN_KIND_INTERNAL");
    assert!(found["nullCount"]["flags"].is_null(), "{found}");
    // By a column that cannot have any, which no engine would allow.
    let domain = json!({"clusteringColumns": [["attributes"]]}).to_string();
    let action = json!({"domainMetadata": {"domain": "delta.clustering", "configuration": domain, "removed": false}});
    commit_by_others(&folder, 4, &[action]);
    let error = sink.write(&batch_with_event(2)).await.err().unwrap();
    assert!(error.to_string().contains("attributes"), "{error}");
    assert_eq!(commits(&folder).len(), 5);
}

fn high_water(commit: &[Value]) -> i64 {
    let domain = actions(commit, "domainMetadata")[0];
    assert_eq!(domain["domain"], "delta.rowTracking");
    let configuration: Value =
        serde_json::from_str(domain["configuration"].as_str().unwrap()).unwrap();
    configuration["rowIdHighWaterMark"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_get_numbers_that_no_other_row_has() {
    let mut first = First::new(&[], &["rowTracking", "domainMetadata"])
        .await
        .with("delta.enableRowTracking", "true")
        .with("delta.checkpointInterval", "11");
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    first.write(&folder);
    let location = location(dir.path());
    let (one, two) = (open(&location).await, open(&location).await);
    for sequence in 0..4 {
        one.write(&numbered(1, sequence)).await.unwrap();
        two.write(&numbered(2, sequence)).await.unwrap();
    }
    // Another engine reserves some, between two of ours, and one of its commits says nothing.
    let reserved = json!({"rowIdHighWaterMark": 99}).to_string();
    let domain = json!({"domainMetadata": {"domain": "delta.rowTracking", "configuration": reserved, "removed": false}});
    commit_by_others(&folder, 9, &[domain]);
    commit_by_others(
        &folder,
        10,
        &[json!({"commitInfo": {"operation": "OPTIMIZE"}})],
    );
    one.write(&numbered(1, 4)).await.unwrap();
    // Batches that come again get no other numbers.
    two.write(&numbered(2, 3)).await.unwrap();
    // Opened anew, with a checkpoint to read from, for which closing waits.
    one.close().await.unwrap();
    let one = open(&location).await;
    let checkpoint = "_delta_log/00000000000000000011.checkpoint.parquet";
    assert!(folder.join(checkpoint).exists());
    open(&location).await.write(&numbered(2, 4)).await.unwrap();
    let mut next = 0;
    for (version, commit) in commits(&folder) {
        let adds = actions(&commit, "add");
        if adds.is_empty() {
            continue;
        }
        if version > 10 {
            next = next.max(100);
        }
        assert_eq!(adds[0]["baseRowId"], next, "version {version}");
        assert_eq!(adds[0]["defaultRowCommitVersion"], version);
        assert_eq!(high_water(&commit), next + 2);
        let info = actions(&commit, "commitInfo")[0];
        assert_eq!(info["tags"]["delta.rowTracking.preserved"], "true");
        next += 3;
    }
    assert_eq!(next, 106);
    assert_eq!(stored(&folder).await, expected(&[1, 2], 5));

    // Suspended: no numbers are given out.
    first.metadata["configuration"]["delta.enableRowTracking"] = "false".into();
    first.metadata["configuration"]["delta.rowTrackingSuspended"] = "true".into();
    first.metadata["schemaString"] = first.schema.to_string().into();
    commit_by_others(&folder, 13, &[json!({"metaData": first.metadata})]);
    one.write(&numbered(1, 5)).await.unwrap();
    let commit = &commits(&folder)[&14];
    assert!(actions(commit, "add")[0]["baseRowId"].is_null());
    assert!(actions(commit, "domainMetadata").is_empty());
}

#[tokio::test]
async fn a_table_that_does_not_say_its_row_numbers_is_refused() {
    for highest in [json!({"rowIdHighWaterMark": "x"}), json!({}), json!([1])] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let first = First::new(&[], &["rowTracking", "domainMetadata"]).await;
        first
            .with_domain("delta.rowTracking", highest)
            .write(&folder);
        let error = location(dir.path()).open().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(commits(&folder).len(), 1);
    }
    // There is room for two rows, and none for a third.
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let first = First::new(&[], &["rowTracking", "domainMetadata"]).await;
    first
        .with_domain(
            "delta.rowTracking",
            json!({"rowIdHighWaterMark": i64::MAX - 2}),
        )
        .write(&folder);
    let error = open(&location(dir.path()))
        .await
        .write(&numbered(1, 0))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(commits(&folder).len(), 1);
}

#[tokio::test]
async fn timestamps_of_commits_rise_whatever_the_clock_says() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let first = First::new(&[], &["inCommitTimestamp"]).await;
    first
        .with("delta.enableInCommitTimestamps", "true")
        .write(&folder);
    let location = location(dir.path());
    let (one, two) = (open(&location).await, open(&location).await);
    one.write(&numbered(1, 0)).await.unwrap();
    two.write(&numbered(2, 0)).await.unwrap();
    // Somebody's clock is a century ahead.
    let ahead = 4_900_000_000_000_i64;
    commit_by_others(
        &folder,
        3,
        &[json!({"commitInfo": {"inCommitTimestamp": ahead, "operation": "WRITE"}})],
    );
    one.write(&numbered(1, 1)).await.unwrap();
    two.write(&numbered(2, 1)).await.unwrap();
    open(&location).await.write(&numbered(1, 2)).await.unwrap();
    let mut last = 0;
    for (version, commit) in commits(&folder) {
        let timestamp = commit[0]["commitInfo"]["inCommitTimestamp"].as_i64();
        let timestamp = timestamp.unwrap_or_else(|| panic!("version {version}: {:?}", commit[0]));
        assert!(timestamp > last, "version {version}");
        last = timestamp;
    }
    assert_eq!(last, ahead + 3);
    assert_eq!(stored(&folder).await.len(), 15);
    // Where the feature is only there to be used, commits are as ever.
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    First::new(&[], &["inCommitTimestamp"]).await.write(&folder);
    open(&self::location(dir.path()))
        .await
        .write(&numbered(1, 0))
        .await
        .unwrap();
    assert!(commits(&folder)[&1][0]["commitInfo"]["inCommitTimestamp"].is_null());
}

/// Gives every field an id, and a physical name in which `name` is recognised.
fn map_columns(schema: &mut Value, next: &mut u64) {
    if schema["type"] == "array" {
        return map_columns(&mut schema["elementType"], next);
    }
    let Some(fields) = schema.get_mut("fields").and_then(Value::as_array_mut) else {
        return;
    };
    for field in fields {
        let physical = format!("col-{}", field["name"].as_str().unwrap());
        field["metadata"] =
            json!({"delta.columnMapping.id": *next, "delta.columnMapping.physicalName": physical});
        *next += 1;
        map_columns(&mut field["type"], next);
    }
}

#[tokio::test]
async fn mapped_columns_have_their_physical_names_and_ids() {
    for mode in ["name", "id"] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let clustering = json!({"clusteringColumns": [["col-status", "col-code"], ["col-time"]]});
        let mut first = First::new(&["columnMapping"], &["clustering", "domainMetadata"])
            .await
            .with("delta.columnMapping.mode", mode)
            .with("delta.columnMapping.maxColumnId", "100")
            .with_domain("delta.clustering", clustering);
        first.fields(&["status"]).push(column("reason", "string"));
        let mut next = 1;
        map_columns(&mut first.schema, &mut next);
        first.write(&folder);
        let sink = open(&location(dir.path())).await;
        sink.write(&batch_with_event(0)).await.unwrap();
        let found = stats(&commits(&folder)[&1]);
        assert_eq!(
            found["minValues"]["col-status"]["col-code"],
            "STATUS_CODE_UNSET"
        );
        assert_eq!(found["maxValues"]["col-service_name"], "svc");
        assert!(found["minValues"]["time"].is_null(), "{found}");

        let rows = rows(&folder);
        let names = at(&rows, &["col-events", "col-name"]);
        assert_eq!(
            arrow_array::cast::AsArray::as_string::<i32>(&names).value(0),
            "said"
        );
        assert_eq!(at(&rows, &["col-status", "col-reason"]).null_count(), 2);
        at(&rows, &["col-attributes", "metadata"]);
        at(&rows, &["col-resource", "col-attributes", "value"]);
        // Ids as the table has them, and of nothing else.
        let file = File::open(folder.join(&parquet_files(&folder)[0])).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let mut ids = Vec::new();
        fn collect(of: &parquet::schema::types::Type, ids: &mut Vec<i32>) {
            let info = of.get_basic_info();
            assert_eq!(
                info.has_id(),
                info.name().starts_with("col-"),
                "{}",
                info.name()
            );
            if info.has_id() {
                ids.push(info.id());
            }
            if of.is_group() {
                of.get_fields().iter().for_each(|field| collect(field, ids));
            }
        }
        let root = reader.parquet_schema().root_schema();
        root.get_fields()
            .iter()
            .for_each(|field| collect(field, &mut ids));
        assert_eq!(ids, (1..i32::try_from(next).unwrap()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_a_table_demands_in_sql_is_refused_with_the_table_unharmed() {
    let marked = |key: &'static str, value: &'static str| {
        move |first: &mut First| {
            let mut tenant = column("tenant", "string");
            tenant["metadata"][key] = value.into();
            first.fields(&[]).push(tenant);
        }
    };
    type Edit = Box<dyn Fn(&mut First)>;
    let cases: [(&[&str], Edit, &str, &str); 6] = [
        (
            &["checkConstraints"],
            Box::new(|first| {
                first.metadata["configuration"]["delta.constraints.named"] = "name <> ''".into()
            }),
            "checkConstraints (named)",
            "DROP CONSTRAINT named",
        ),
        (
            &["allowColumnDefaults"],
            Box::new(marked("CURRENT_DEFAULT", "'a'")),
            "default of tenant",
            "ALTER COLUMN tenant DROP DEFAULT",
        ),
        (
            &["generatedColumns"],
            Box::new(marked("delta.generationExpression", "upper(name)")),
            "column tenant",
            "another table",
        ),
        (
            &["invariants"],
            Box::new(marked("delta.invariants", "{}")),
            "column tenant",
            "another table",
        ),
        (
            &["icebergCompatV2"],
            Box::new(|first| {
                first.metadata["configuration"]["delta.enableIcebergCompatV2"] = "true".into()
            }),
            "icebergCompatV2",
            "'false'",
        ),
        (
            &["catalogManaged", "inCommitTimestamp"],
            Box::new(|_| ()),
            "catalogManaged",
            "another table",
        ),
    ];
    for (features, edit, said, mend) in cases {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let (read, write) = match said {
            "catalogManaged" => features.split_at(1),
            _ => features.split_at(0),
        };
        let mut first = First::new(read, write).await;
        first.write(&folder);
        // As long as nothing of it is used, rows are written; the use comes while a table is open.
        let opened = match said {
            "catalogManaged" => None,
            _ => Some(open(&location(dir.path())).await),
        };
        edit(&mut first);
        first.write(&folder);
        let error = match opened {
            Some(sink) => sink.write(&numbered(1, 0)).await.err().unwrap(),
            None => location(dir.path()).open().await.err().unwrap(),
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(
            error.mend_hint().unwrap().contains(mend),
            "{:?}",
            error.mend_hint()
        );
        assert_eq!(commits(&folder).len(), 1);
        assert!(parquet_files(&folder).is_empty());
    }
}

#[tokio::test]
async fn protected_checkpoints_are_not_cleaned_up() {
    for (before, kept) in [("0", false), ("2", true)] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let first = First::new(&[], &["checkpointProtection"]).await;
        first
            .with("delta.requireCheckpointProtectionBeforeVersion", before)
            .with("delta.logRetentionDuration", "interval 0 seconds")
            .write(&folder);
        let location = location(dir.path());
        let sink = open(&location).await;
        for sequence in 0..3 {
            sink.write(&numbered(1, sequence)).await.unwrap();
        }
        let care = location.maintenance().await.unwrap();
        care.checkpoint().await.unwrap();
        match care.clean_log().await {
            Ok(_) => assert!(!kept, "before {before}"),
            Err(error) => {
                assert!(kept, "{error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(
                    error.to_string().contains("checkpointProtection"),
                    "{error}"
                );
                assert_eq!(commits(&folder).len(), 4);
            }
        }
        sink.write(&numbered(1, 3)).await.unwrap();
        assert_eq!(stored(&folder).await, expected(&[1], 4));
    }
}
