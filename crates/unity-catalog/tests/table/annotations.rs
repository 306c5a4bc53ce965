//! Values of traces as a whole: what is in the table of annotations, and that it is there once.

use crate::help::*;
use crate::lake::{self, Annotation, values};
use opentelemetry::trace::TraceId;
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use trace_destination_core::{
    AnyValue, Attribute, ErrorKind, LocationUri, TraceBatch, TraceLocation as _, TraceUpdate,
    TraceValues,
};
use trace_destination_unity_catalog::UnityCatalogLocation;

/// Where the annotations of `main.traces.shop` are below a root.
pub(crate) fn beside(root: &Path) -> PathBuf {
    root.join("main/traces/shop_otel_annotations")
}

/// The batch with values.
pub(crate) fn with(batch: &TraceBatch, updates: Vec<TraceUpdate>) -> TraceBatch {
    TraceBatch::new(batch.id(), batch.groups().to_vec(), updates)
}

/// An update that sets everything.
pub(crate) fn full(trace: u128) -> TraceUpdate {
    let mut update = TraceUpdate::new(TraceId::from(trace));
    update.tags = [("env".to_owned(), "dev".to_owned())].into();
    update.metadata = [("build".to_owned(), "7".to_owned())].into();
    update.name = Some("checkout".into());
    update.session_id = Some("session-1".into());
    update.user_id = Some("user-1".into());
    update.client_request_id = Some("request-1".into());
    update.request_preview = Some("hello?".into());
    update.response_preview = Some("hello!".into());
    update.run_id = Some("run-1".into());
    update
}

/// A batch of [`numbered`] spans and everything set on their trace.
pub(crate) fn valued(writer: u128, sequence: u64) -> TraceBatch {
    let trace = (writer << 64) | (u128::from(sequence) + 1);
    with(&numbered(writer, sequence), vec![full(trace)])
}

async fn rows(root: &Path) -> Vec<Annotation> {
    let mut rows = lake::annotations(&beside(root)).await.unwrap();
    rows.sort_by(|a, b| (a.updated_at, &a.kind, &a.name).cmp(&(b.updated_at, &b.kind, &b.name)));
    rows
}

#[tokio::test]
async fn the_table_is_made_with_the_first_value_as_documented() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    sink.write(&numbered(7, 1)).await.unwrap();
    // Nothing is said, so there is nothing to store.
    let nothing = TraceUpdate::new(TraceId::from(1));
    let written = sink.write(&with(&numbered(7, 2), vec![nothing])).await;
    assert!(written.unwrap().lost_updates.is_empty());
    let folder = beside(dir.path());
    assert!(!folder.exists(), "spans alone make no second table");
    let written = sink.write(&valued(7, 3)).await.unwrap();
    assert!(written.lost_updates.is_empty() && written.refused.is_empty());

    let log = commits(&folder);
    assert_eq!(log.len(), 2);
    let metadata = actions(&log[&0], "metaData")[0];
    assert_eq!(metadata["name"], "shop_otel_annotations");
    assert_eq!(metadata["configuration"]["otel.schemaVersion"], "v2");
    assert_eq!(metadata["partitionColumns"], json!([]));
    let schema = metadata["schemaString"].as_str().unwrap();
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let column = |f: &serde_json::Value| {
        assert_eq!(f["nullable"], true);
        format!(
            "{} {}",
            f["name"].as_str().unwrap(),
            f["type"].as_str().unwrap()
        )
    };
    let columns: Vec<String> = schema["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(column)
        .collect();
    assert_eq!(
        columns.join(", "),
        "annotation_id string, target_type string, target_id string, annotation_type string, \
         name string, value variant, comment string, metadata variant, created_at timestamp, \
         created_by string, updated_at timestamp, updated_by string, deleted_at timestamp, \
         deleted_by string"
    );
    // One and the same transaction in both tables.
    let spans = commits(&shop(dir.path()));
    let of = |log: &serde_json::Value| (log["appId"].clone(), log["version"].clone());
    assert_eq!(
        of(actions(&log[&1], "txn")[0]),
        of(actions(&spans[&3], "txn")[0])
    );
    let add = actions(&log[&1], "add")[0];
    let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 4);
    let trace = "00000000000000070000000000000004";
    assert_eq!(stats["minValues"]["target_id"], trace);
    assert_eq!(stats["maxValues"]["annotation_type"], "TAG");
    assert!(stats["minValues"]["updated_at"].is_string());

    let rows = rows(dir.path()).await;
    let text = |t: &str| Some(AnyValue::String(t.to_owned().into()));
    let object = AnyValue::Map(vec![
        Attribute::new("client_request_id", "request-1"),
        Attribute::new("request_preview", "hello?"),
        Attribute::new("response_preview", "hello!"),
        Attribute::new(
            "trace_metadata",
            AnyValue::Map(vec![
                Attribute::new("build", "7"),
                Attribute::new("mlflow.trace.session", "session-1"),
                Attribute::new("mlflow.trace.user", "user-1"),
            ]),
        ),
    ]);
    let expected = [
        ("METADATA", "metadata", Some(object)),
        ("RUN_LINK", "run_link", text("run-1")),
        ("TAG", "env", text("dev")),
        ("TAG", "mlflow.traceName", text("checkout")),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (kind, name, value)) in rows.iter().zip(expected) {
        assert_eq!((row.kind.as_str(), row.name.as_str()), (kind, name));
        assert_eq!(row.value, value);
        assert_eq!(row.target, ("TRACE".to_owned(), trace.to_owned()));
        assert_eq!(row.created_at, row.updated_at);
        assert!(row.updated_at > 1_700_000_000_000_000 && !row.deleted);
        assert!(row.others.is_empty(), "{:?}", row.others);
        assert_eq!(row.id.parse::<uuid::Uuid>().unwrap().get_version_num(), 5);
    }
    let mut ids: Vec<_> = rows.iter().map(|row| &row.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), rows.len());
    // Written once and for all: a value that is set again must have the same id.
    assert_eq!(rows[2].id, "1f105eb6-1a5f-5ccf-aa5f-fd63500f1435");
}

#[tokio::test]
async fn the_newest_row_of_each_annotation_is_the_last_value_of_each_key() {
    let dir = TempDir::new().unwrap();
    let trace = TraceId::from(5_u128);
    let set = |edit: fn(&mut TraceUpdate)| {
        let mut update = TraceUpdate::new(trace);
        edit(&mut update);
        update
    };
    // Each by a process of its own, as services that share a trace do.
    let steps = [
        set(|t| {
            t.session_id = Some("first".into());
            t.metadata.insert("build".into(), "1".into());
            t.tags.insert("stage".into(), "begun".into());
            t.request_preview = Some("hello?".into());
        }),
        set(|t| t.user_id = Some("user-1".into())),
        set(|t| {
            t.session_id = Some("second".into());
            t.tags.insert("stage".into(), "done".into());
        }),
        set(|t| t.response_preview = Some("hello!".into())),
        set(|t| drop(t.metadata.insert("build".into(), "2".into()))),
        // Of the same meaning: what is set as such wins.
        set(|t| {
            t.name = Some("name".into());
            t.tags.insert("mlflow.traceName".into(), "tag".into());
            t.user_id = Some("user-2".into());
            t.metadata
                .insert("mlflow.trace.user".into(), "metadata".into());
            t.run_id = Some("run-1".into());
        }),
    ];
    let mut expected = TraceUpdate::new(trace);
    for (writer, update) in steps.into_iter().enumerate() {
        let sink = open(&location(dir.path())).await;
        let alone = with(&batch(writer as u128, 1, Vec::new()), vec![update.clone()]);
        assert!(sink.write(&alone).await.unwrap().lost_updates.is_empty());
        sink.close().await.unwrap();
        expected.merge(update);
    }
    let rows = rows(dir.path()).await;
    assert_eq!(rows.iter().filter(|row| row.name == "stage").count(), 2);
    let found = values(&rows);
    expected
        .tags
        .insert("mlflow.traceName".into(), "name".into());
    expected
        .metadata
        .insert("mlflow.trace.session".into(), "second".into());
    expected
        .metadata
        .insert("mlflow.trace.user".into(), "user-2".into());
    assert_eq!(found, [expected]);
    // No spans came, and none are there.
    assert_eq!(commits(&shop(dir.path())).len(), 1);
}

#[tokio::test]
async fn values_that_come_again_are_stored_once() {
    let dir = TempDir::new().unwrap();
    let location = location(dir.path());
    let (first, second) = (open(&location).await, open(&location).await);
    for sequence in 0..3 {
        first.write(&valued(1, sequence)).await.unwrap();
    }
    // To the same sink, to another that is open, and to one that is opened later.
    for sink in [&first, &second, &open(&location).await] {
        for sequence in [2, 1, 2] {
            let written = sink.write(&valued(1, sequence)).await.unwrap();
            assert!(written.lost_updates.is_empty());
        }
    }
    assert_eq!(stored(&shop(dir.path())).await, expected(&[1], 3));
    assert_eq!(rows(dir.path()).await.len(), 3 * 4);
    let folder = beside(dir.path());
    assert_eq!(commits(&folder).len(), 4);
    assert_eq!(parquet_files(&folder).len(), 3, "a repetition left a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_lose_and_double_no_value() {
    let dir = TempDir::new().unwrap();
    let writing: Vec<_> = (1..=6_u128)
        .map(|writer| {
            let location = location(dir.path());
            tokio::spawn(async move {
                let sink = open(&location).await;
                for sequence in 0..8 {
                    let written = persist(&*sink, &valued(writer, sequence)).await.unwrap();
                    assert!(written.lost_updates.is_empty(), "{written:?}");
                }
            })
        })
        .collect();
    for written in writing {
        written.await.unwrap();
    }
    let rows = rows(dir.path()).await;
    assert_eq!(rows.len(), 6 * 8 * 4);
    assert_eq!(values(&rows).len(), 6 * 8);
    let versions: Vec<u64> = commits(&beside(dir.path())).into_keys().collect();
    assert_eq!(versions, (0..=48).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_of_one_process_have_their_own_values() {
    let dir = TempDir::new().unwrap();
    let location = |tenant: u128| {
        UnityCatalogLocation::builder()
            .with_name(format!("main.tenant_{tenant}.shop"))
            .with_root(dir.path().display().to_string())
            .build()
            .unwrap()
    };
    let writing: Vec<_> = (1..=100_u128)
        .map(|tenant| {
            let location = location(tenant);
            tokio::spawn(async move {
                let sink = open(&location).await;
                let mut batch = valued(tenant, 1);
                if tenant % 2 == 0 {
                    batch = with(&batch, Vec::new());
                }
                let written = sink.write(&batch).await.unwrap();
                assert!(written.lost_updates.is_empty(), "{written:?}");
            })
        })
        .collect();
    for written in writing {
        written.await.unwrap();
    }
    for tenant in 1..=100_u128 {
        let schema = dir.path().join(format!("main/tenant_{tenant}"));
        let folder = schema.join("shop_otel_annotations");
        let found = values(&lake::annotations(&folder).await.unwrap());
        assert_eq!(folder.exists(), tenant % 2 == 1);
        let traces: Vec<TraceId> = found.iter().map(|update| update.trace_id).collect();
        let own = TraceId::from((tenant << 64) | 2);
        assert_eq!(traces, vec![own; usize::from(tenant % 2 == 1)]);
    }
}

#[tokio::test]
async fn keys_and_values_of_any_kind_come_back_as_they_were() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    let mut update = TraceUpdate::new(TraceId::from(9_u128));
    let odd = [
        String::new(),
        "\0".into(),
        "a\0b".into(),
        "\u{1}\u{7f}\u{85}\u{2028}\r\n\t".into(),
        "'; DROP TABLE x; --\"`$[\\]".into(),
        "$.a['b'].*".into(),
        "\u{10ffff}\u{feff}e\u{301}".into(),
        "k".repeat(64 << 10),
        "\u{1f600}".repeat(16 << 10),
    ];
    for (i, text) in odd.iter().enumerate() {
        let value = odd[(i + 1) % odd.len()].clone();
        update.tags.insert(text.clone(), value.clone());
        update.metadata.insert(text.clone(), value);
    }
    for i in 0..10_000 {
        update.tags.insert(format!("tag-{i}"), format!("value-{i}"));
    }
    for i in 0..1_000 {
        update.metadata.insert(format!("key-{i}"), i.to_string());
    }
    update.run_id = Some("\0".into());
    update.client_request_id = Some(String::new());
    let written = sink
        .write(&with(&numbered(1, 1), vec![update.clone()]))
        .await
        .unwrap();
    assert!(written.lost_updates.is_empty(), "{written:?}");
    let found = values(&rows(dir.path()).await);
    assert!(found == [update], "some key or value differs");
}

#[tokio::test]
async fn a_value_that_no_reader_takes_is_told_and_the_rest_is_stored() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    let mut large = full(1);
    large
        .tags
        .insert("large".into(), "x".repeat((16 << 20) - 4));
    let mut huge = full(2);
    huge.metadata.insert("huge".into(), "x".repeat(17 << 20));
    let updates = vec![large, full(3), huge];
    let written = sink.write(&with(&numbered(1, 1), updates)).await.unwrap();
    assert!(written.refused.is_empty());
    let [tag, metadata] = &*written.lost_updates else {
        panic!("{written:?}");
    };
    for (error, name, trace) in [(tag, "`large`", 1_u128), (metadata, "`metadata`", 2)] {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidSpan);
        assert!(text.contains(name) && text.contains("16777216"), "{text}");
        assert!(text.contains(&TraceId::from(trace).to_string()), "{text}");
        assert!(error.location().is_some() && error.mend_hint().is_some());
    }
    assert_eq!(rows(dir.path()).await.len(), 4 + 4 + 3);
    assert_eq!(stored(&shop(dir.path())).await.len(), 3);
}

#[tokio::test]
async fn switched_off_there_is_no_second_table_and_values_go_on_the_root_span() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().display();
    let built = |rest: &str| {
        let uri: LocationUri = format!("uc://main.traces.shop?root={root}{rest}")
            .parse()
            .unwrap();
        UnityCatalogLocation::builder().with_uri(&uri).build()
    };
    let on = built("&annotations=true").unwrap();
    assert_eq!(on.uri(), location(dir.path()).uri());
    assert_eq!(on.capabilities().trace_values, TraceValues::Stored);
    assert_eq!(
        on.annotations_table_name().as_deref(),
        Some("main.traces.shop_otel_annotations")
    );
    let off = built("&annotations=false").unwrap();
    assert!(off.uri().as_str().contains("annotations=false"), "{off}");
    assert_eq!(off.capabilities().trace_values, TraceValues::OnRootSpan);
    assert_eq!(off.annotations_table_name(), None);
    let error = built("&annotations=no").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("annotations"), "{error}");
    // Nobody sends it any; whoever does is told.
    let written = open(&off).await.write(&valued(1, 1)).await.unwrap();
    assert_eq!(written.lost_updates.len(), 1);
    assert_eq!(stored(&shop(dir.path())).await.len(), 3);
    assert!(!beside(dir.path()).exists());
    // A name that has no room for the longer suffix.
    let long = UnityCatalogLocation::builder()
        .with_name(format!("main.traces.{}", "x".repeat(240)))
        .with_root(root.to_string())
        .build()
        .unwrap();
    assert_eq!(long.capabilities().trace_values, TraceValues::OnRootSpan);
}

#[tokio::test]
async fn the_table_is_maintained_as_that_of_spans() {
    let dir = TempDir::new().unwrap();
    let location = location(dir.path());
    let sink = open(&location).await;
    let missing = location.annotations_maintenance().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(
        missing.to_string().contains("shop_otel_annotations"),
        "{missing}"
    );
    sink.write(&valued(1, 1)).await.unwrap();
    let maintenance = location.annotations_maintenance().await.unwrap();
    assert_eq!(maintenance.checkpoint().await.unwrap(), 1);
    assert!(maintenance.orphans(None).await.unwrap().is_empty());
    sink.write(&valued(1, 2)).await.unwrap();
    assert_eq!(values(&rows(dir.path()).await).len(), 2);
}
