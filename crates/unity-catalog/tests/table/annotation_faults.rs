//! Values of traces where something is in the way: spans are stored whatever becomes of them, each
//! value is stored once or told to be lost.

use crate::annotations::{beside, full, valued, with};
use crate::faulty_store::{FaultyStore, Weather};
use crate::help::*;
use crate::hooked_store::{Hook, HookedStore, Hooks};
use crate::lake::{self, values};
use object_store::ObjectStore;
use opentelemetry::trace::TraceId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Retry, TraceBatch, TraceLocation as _, Written};
use trace_destination_unity_catalog::test_support::wrapped;
use trace_destination_unity_catalog::{MissingTable, UnityCatalogLocation};

async fn rows(root: &Path) -> usize {
    lake::annotations(&beside(root)).await.unwrap().len()
}

/// Fails unless the values of one trace are told to be lost, with all there is to know.
fn assert_lost(written: &Written, kind: ErrorKind, says: &[&str]) {
    assert!(written.refused.is_empty());
    let [lost] = &*written.lost_updates else {
        panic!("{written:?}");
    };
    let text = lost.to_string();
    assert_eq!(lost.kind(), kind, "{text}");
    assert!(lost.location().is_some(), "no location: {text}");
    for part in [&["write trace-level values", "annotations=false"], says].concat() {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

/// A writer that ends right before it puts a file of the second table, at every such moment, and
/// the same batch by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_ends_between_the_two_commits_doubles_nothing() {
    let spans_commit = "_delta_log/00000000000000000001.json";
    for (earlier, ends_before) in [
        (false, "_delta_log/00000000000000000000.json"),
        (false, ".parquet"),
        (false, "_delta_log/00000000000000000001.json"),
        (true, ".parquet"),
        (true, "_delta_log/00000000000000000002.json"),
    ] {
        let dir = TempDir::new().unwrap();
        let plain = location(dir.path());
        if earlier {
            let sink = open(&plain).await;
            let alone = with(&batch(9, 1, Vec::new()), vec![full(9)]);
            sink.write(&alone).await.unwrap();
        }
        let hooks = Hooks::default();
        let end = {
            let hooks = hooks.clone();
            move || {
                let run = Box::new(|| panic!("the process ends"));
                let before = ends_before.to_owned();
                *hooks.lock().unwrap() = Some(Hook { before, run });
            }
        };
        // From the commit of the spans on.
        *hooks.lock().unwrap() = Some(Hook {
            before: spans_commit.to_owned(),
            run: Box::new(end),
        });
        let hooked = {
            let hooks = hooks.clone();
            let wrap = move |inner: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
                let hooks = hooks.clone();
                Arc::new(HookedStore { inner, hooks })
            };
            wrapped(plain.clone(), Arc::new(wrap))
        };
        let dying = tokio::spawn(async move { open(&hooked).await.write(&valued(1, 1)).await });
        let ended = dying.await.unwrap_err();
        assert!(ended.is_panic(), "{ends_before}: {ended}");
        let before = usize::from(earlier) * 4;
        assert_eq!(stored(&shop(dir.path())).await.len(), 3, "{ends_before}");
        assert_eq!(rows(dir.path()).await, before, "{ends_before}");
        // The next one gets the same batch, and once more.
        let sink = open(&plain).await;
        for _ in 0..2 {
            let written = sink.write(&valued(1, 1)).await.unwrap();
            assert!(written.lost_updates.is_empty(), "{written:?}");
        }
        assert_eq!(stored(&shop(dir.path())).await.len(), 3, "{ends_before}");
        assert_eq!(rows(dir.path()).await, before + 4, "{ends_before}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_store_that_fails_each_value_is_stored_once_or_told_to_be_lost() {
    let dir = TempDir::new().unwrap();
    let weather = Weather::new(21, 8, Duration::ZERO);
    let location = {
        let weather = weather.clone();
        let wrap = move |store: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(FaultyStore::new(store, weather.clone()))
        };
        wrapped(location(dir.path()), Arc::new(wrap))
    };
    let mut sink = None;
    for _ in 0..500 {
        if let Ok(opened) = location.open().await {
            sink = Some(opened);
            break;
        }
    }
    let sink = sink.unwrap();
    let mut kept = BTreeSet::new();
    for sequence in 0..30 {
        let written = persist(&*sink, &valued(1, sequence)).await.unwrap();
        if written.lost_updates.is_empty() {
            let trace = (1_u128 << 64) | (u128::from(sequence) + 1);
            kept.insert(TraceId::from(trace).to_string());
        }
        // Again, as after an answer that got lost.
        persist(&*sink, &valued(1, sequence)).await.unwrap();
    }
    // Requests that are still on their way land now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stored(&shop(dir.path())).await, expected(&[1], 30));
    let rows = lake::annotations(&beside(dir.path())).await.unwrap();
    let ids: BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(ids.len(), rows.len(), "a value is there twice");
    let found: BTreeSet<_> = values(&rows)
        .into_iter()
        .map(|u| u.trace_id.to_string())
        .collect();
    assert!(found.is_superset(&kept), "{kept:?} {found:?}");
    assert!(kept.len() > 20, "hardly any value was stored");
    assert!(weather.tally().lost + weather.tally().landed > 0);
}

/// Version 0 of a table of annotations, as made here.
async fn first() -> (Value, Value, Value) {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    sink.write(&valued(1, 1)).await.unwrap();
    let first = commits(&beside(dir.path())).remove(&0).unwrap();
    let metadata = actions(&first, "metaData")[0].clone();
    let schema = metadata["schemaString"].as_str().unwrap();
    let schema = serde_json::from_str(schema).unwrap();
    (actions(&first, "protocol")[0].clone(), metadata, schema)
}

/// Makes a table of annotations whose columns somebody changed.
async fn changed(root: &Path, edit: impl FnOnce(&mut Vec<Value>, &mut Value)) {
    let (protocol, mut metadata, mut schema) = first().await;
    edit(schema["fields"].as_array_mut().unwrap(), &mut metadata);
    metadata["schemaString"] = schema.to_string().into();
    let lines = [json!({"protocol": protocol}), json!({"metaData": metadata})];
    commit_by_others(&beside(root), 0, &lines);
}

#[tokio::test]
async fn a_table_that_is_none_of_annotations_is_left_alone_and_spans_are_stored() {
    type Edit = fn(&mut Vec<Value>, &mut Value);
    let cases: [(Edit, &str); 6] = [
        (
            |c, _| c.retain(|f| f["name"] != "target_id"),
            "missing columns `target_id` STRING",
        ),
        (
            |c, _| c[5]["type"] = "string".into(),
            "`value` is STRING instead of VARIANT",
        ),
        (
            |c, _| c[12]["nullable"] = false.into(),
            "`deleted_at` is NOT NULL, but annotations may have none",
        ),
        (
            |c, _| {
                let mut own = column("tenant", "string");
                own["nullable"] = false.into();
                c.push(own);
            },
            "columns that are NOT NULL and that annotations do not have `tenant` STRING",
        ),
        (
            |_, m| m["partitionColumns"] = json!(["annotation_type"]),
            "partitioned by annotation_type",
        ),
        (
            |_, m| m["configuration"]["otel.schemaVersion"] = "v3".into(),
            "`v3`, which is unknown",
        ),
    ];
    for (edit, says) in cases {
        let dir = TempDir::new().unwrap();
        changed(dir.path(), edit).await;
        let sink = open(&location(dir.path())).await;
        for sequence in 1..=3 {
            let written = sink.write(&valued(1, sequence)).await.unwrap();
            assert_lost(&written, ErrorKind::Unsupported, &[says]);
        }
        assert_eq!(stored(&shop(dir.path())).await.len(), 9);
        assert_eq!(commits(&beside(dir.path())).len(), 1);
        assert!(parquet_files(&beside(dir.path())).is_empty());
    }
}

#[tokio::test]
async fn columns_that_somebody_added_or_moved_are_no_hindrance() {
    let dir = TempDir::new().unwrap();
    changed(dir.path(), |columns, metadata| {
        columns.reverse();
        columns.insert(3, column("tenant", "string"));
        columns.push(column("more", "variant"));
        columns[0]["metadata"]["comment"] = "who".into();
        metadata["configuration"] = json!({});
    })
    .await;
    let sink = open(&location(dir.path())).await;
    let written = sink.write(&valued(1, 1)).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    let found = values(&lake::annotations(&beside(dir.path())).await.unwrap());
    assert_eq!(found[0].session_id.as_deref(), Some("session-1"));
}

#[tokio::test]
async fn a_table_of_spans_in_its_place_gets_no_annotations() {
    let dir = TempDir::new().unwrap();
    open(&location(dir.path()))
        .await
        .write(&numbered(1, 1))
        .await
        .unwrap();
    std::fs::rename(shop(dir.path()), beside(dir.path())).unwrap();
    let sink = open(&location(dir.path())).await;
    let written = sink.write(&valued(1, 2)).await.unwrap();
    assert_lost(
        &written,
        ErrorKind::Unsupported,
        &["not an OpenTelemetry annotations table"],
    );
    assert_eq!(stored(&shop(dir.path())).await.len(), 3);
}

#[tokio::test]
async fn where_no_table_is_to_be_made_values_are_lost_until_there_is_one() {
    let dir = TempDir::new().unwrap();
    open(&location(dir.path())).await.close().await.unwrap();
    let fixed = UnityCatalogLocation::builder()
        .with_uri(location(dir.path()).uri())
        .with_missing(MissingTable::Fail)
        .build()
        .unwrap();
    let sink = open(&fixed).await;
    let written = sink.write(&valued(1, 1)).await.unwrap();
    let says = ["main.traces.shop_otel_annotations", "create=false"];
    assert_lost(&written, ErrorKind::NotFound, &says);
    assert!(!beside(dir.path()).exists());
    open(&location(dir.path()))
        .await
        .write(&valued(2, 1))
        .await
        .unwrap();
    let written = open(&fixed).await.write(&valued(1, 2)).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    assert_eq!(stored(&shop(dir.path())).await.len(), 9);
}

/// The time is that of the test: nothing is waited for.
#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_reached_for_long_does_not_hold_up_spans() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    // A link that leads to itself: an error that may pass.
    let folder = beside(dir.path());
    std::os::unix::fs::symlink(&folder, &folder).unwrap();
    let began = tokio::time::Instant::now();
    let written = sink.write(&valued(1, 1)).await.unwrap();
    assert_lost(&written, ErrorKind::Unavailable, &[]);
    let tried = began.elapsed();
    assert!(tried >= Duration::from_secs(5), "given up after {tried:?}");
    let again = tokio::time::Instant::now();
    let written = sink.write(&valued(1, 2)).await.unwrap();
    assert_lost(&written, ErrorKind::Unavailable, &[]);
    assert!(
        again.elapsed() < Duration::from_secs(5),
        "tried for long each time"
    );
    std::fs::remove_file(&folder).unwrap();
    let written = sink.write(&valued(1, 3)).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    assert_eq!(stored(&shop(dir.path())).await, expected(&[1], 4)[3..]);
    assert_eq!(rows(dir.path()).await, 4);
}

#[tokio::test]
async fn values_alone_wait_with_the_lane_while_their_place_is_away() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    sink.write(&valued(1, 1)).await.unwrap();
    let log = shop(dir.path()).join("_delta_log");
    let away = dir.path().join("away");
    std::fs::rename(&log, &away).unwrap();
    // A link that leads to itself: an error that may pass.
    std::os::unix::fs::symlink(&log, &log).unwrap();
    let alone = valued(1, 2);
    let alone = TraceBatch::new(alone.id(), Vec::new(), alone.updates().to_vec());
    let error = sink.write(&alone).await.unwrap_err();
    assert_ne!(error.retry(), Retry::Never, "{error}");
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    let written = sink.write(&alone).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    assert_eq!(rows(dir.path()).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_mended_is_written_again() {
    let dir = TempDir::new().unwrap();
    changed(dir.path(), |columns, _| columns.truncate(3)).await;
    let sink = open(&location(dir.path())).await;
    let written = sink.write(&valued(1, 1)).await.unwrap();
    assert_lost(&written, ErrorKind::Unsupported, &["annotation_type"]);
    std::fs::remove_dir_all(beside(dir.path())).unwrap();
    // Not asked for each batch, and asked again later.
    let written = sink.write(&valued(1, 2)).await.unwrap();
    assert_lost(&written, ErrorKind::Unsupported, &["annotation_type"]);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let written = sink.write(&valued(1, 3)).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    // Dropped while it is open: made anew after the same while.
    std::fs::remove_dir_all(beside(dir.path())).unwrap();
    let written = sink.write(&valued(1, 4)).await.unwrap();
    assert_lost(&written, ErrorKind::NotFound, &["dropped or moved"]);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let written = sink.write(&valued(1, 5)).await.unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    assert_eq!(rows(dir.path()).await, 4);
    assert_eq!(stored(&shop(dir.path())).await.len(), 15);
}
