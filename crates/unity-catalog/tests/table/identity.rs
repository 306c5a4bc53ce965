//! Tables that are removed and made anew at the same place, while somebody writes to them.

use crate::help::*;
use crate::hooked_store::{Hook, HookedStore, Hooks};
use object_store::ObjectStore;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, Retry};
use trace_destination_unity_catalog::UnityCatalogLocation;
use trace_destination_unity_catalog::test_support::wrapped;

/// Commits that the table has when it is replaced.
const BEFORE: u64 = 3;

/// A table of something else, with so many versions.
fn something_else(folder: &Path, versions: u64) {
    let schema =
        json!({"type": "struct", "fields": [column("id", "long"), column("day", "string")]});
    let metadata = json!({"id": "22222222-2222-2222-2222-222222222222",
        "format": {"provider": "parquet", "options": {}}, "schemaString": schema.to_string(),
        "partitionColumns": [], "configuration": {}, "createdTime": 0});
    let first = [
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": metadata}),
    ];
    commit_by_others(folder, 0, &first);
    others(folder, 1..versions);
}

/// Commits that do nothing.
fn others(folder: &Path, versions: std::ops::Range<u64>) {
    for version in versions {
        let info = json!({"commitInfo": {"timestamp": version, "operation": "WRITE"}});
        commit_by_others(folder, version, &[info]);
    }
}

/// Everything in the log and beside it, but for folders.
fn files(folder: &Path) -> Vec<String> {
    let list = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let files = entries.filter(|e| e.file_type().unwrap().is_file());
        files
            .map(|e| e.file_name().into_string().unwrap())
            .collect()
    };
    let mut all = list(folder);
    all.extend(list(&folder.join("_delta_log")));
    all.sort();
    all
}

/// Versions of the log, which have no gap.
fn versions(folder: &Path) -> u64 {
    let log = commits(folder);
    assert_eq!(
        log.keys().copied().collect::<Vec<_>>(),
        (0..log.len() as u64).collect::<Vec<_>>()
    );
    log.len() as u64
}

#[tokio::test]
async fn nothing_is_committed_to_a_table_of_something_else() {
    // Fewer versions than there were, as many, more, and so many that the next is taken, too.
    for after in [1, 2, BEFORE, BEFORE + 1, BEFORE + 2, BEFORE + 7, 100] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let sink = open(&location(dir.path())).await;
        for sequence in 0..BEFORE {
            sink.write(&numbered(1, sequence)).await.unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        something_else(&folder, after);
        let unharmed = files(&folder);
        for _ in 0..2 {
            let error = sink.write(&numbered(1, BEFORE)).await.err().unwrap();
            assert_eq!(
                (error.kind(), error.retry()),
                (ErrorKind::Unsupported, Retry::Never),
                "{error}"
            );
            assert!(error.to_string().contains("trace_id"), "{error}");
            assert_eq!(files(&folder), unharmed, "{after} versions");
        }
    }
}

#[tokio::test]
async fn spans_go_on_to_a_new_table_of_spans() {
    for (after, older) in [
        (1, false),
        (2, true),
        (BEFORE + 1, false),
        (BEFORE + 5, true),
    ] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        let sink = open(&location(dir.path())).await;
        for sequence in 0..BEFORE {
            sink.write(&numbered(1, sequence)).await.unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        match older {
            true => {
                let lines = include_str!("v1.json").lines();
                let lines: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
                commit_by_others(&folder, 0, &lines);
            }
            false => First::new(&[], &[]).await.write(&folder),
        }
        others(&folder, 1..after);
        sink.write(&numbered(1, BEFORE)).await.unwrap();
        sink.write(&numbered(1, BEFORE + 1)).await.unwrap();
        assert_eq!(versions(&folder), after + 2);
        assert_eq!(
            stored(&folder).await,
            &expected(&[1], BEFORE + 2)[3 * BEFORE as usize..]
        );
        assert_eq!(
            parquet_files(&folder).len(),
            2,
            "a file of the other columns is left"
        );
    }
}

fn hooked(root: &Path) -> (UnityCatalogLocation, Hooks) {
    let hooks = Hooks::default();
    let wrap = {
        let hooks = hooks.clone();
        move |inner: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            let hooks = hooks.clone();
            Arc::new(HookedStore { inner, hooks })
        }
    };
    (wrapped(location(root), Arc::new(wrap)), hooks)
}

#[tokio::test]
async fn a_table_that_is_replaced_between_reading_and_committing_is_noticed() {
    let next = format!("{:020}.json", BEFORE + 1);
    // Before the file is stored, and at the very moment of the commit.
    for before in [".parquet", &next] {
        for after in [1, BEFORE + 1, BEFORE + 2, BEFORE + 9] {
            let dir = TempDir::new().unwrap();
            let folder = shop(dir.path());
            let (location, hooks) = hooked(dir.path());
            let sink = open(&location).await;
            for sequence in 0..BEFORE {
                sink.write(&numbered(1, sequence)).await.unwrap();
            }
            let replace = {
                let folder = folder.clone();
                move || {
                    std::fs::remove_dir_all(&folder).unwrap();
                    something_else(&folder, after);
                }
            };
            *hooks.lock().unwrap() = Some(Hook {
                before: before.to_owned(),
                run: Box::new(replace),
            });
            let error = sink.write(&numbered(1, BEFORE)).await.err().unwrap();
            assert!(
                hooks.lock().unwrap().is_none(),
                "the table was not replaced"
            );
            assert_eq!(
                error.kind(),
                ErrorKind::Unsupported,
                "{before} {after}: {error}"
            );
            assert_eq!(versions(&folder), after, "{before}");
            assert_eq!(parquet_files(&folder), [""; 0], "{before} {after}");
        }
    }
}

#[tokio::test]
async fn a_batch_goes_once_to_a_table_of_spans_that_is_made_anew_meanwhile() {
    let next = format!("{:020}.json", BEFORE + 1);
    for before in [".parquet", &next] {
        for after in [1, BEFORE + 1, BEFORE + 2] {
            let dir = TempDir::new().unwrap();
            let folder = shop(dir.path());
            let (location, hooks) = hooked(dir.path());
            let sink = open(&location).await;
            for sequence in 0..BEFORE {
                sink.write(&numbered(1, sequence)).await.unwrap();
            }
            let first = First::new(&[], &["rowTracking", "domainMetadata"]).await;
            let replace = {
                let folder = folder.clone();
                move || {
                    std::fs::remove_dir_all(&folder).unwrap();
                    first.write(&folder);
                    others(&folder, 1..after);
                }
            };
            *hooks.lock().unwrap() = Some(Hook {
                before: before.to_owned(),
                run: Box::new(replace),
            });
            sink.write(&numbered(1, BEFORE)).await.unwrap();
            assert_eq!(versions(&folder), after + 1, "{before}");
            // What is committed is what the new table asks for, not the old one.
            let log = commits(&folder);
            let add = actions(&log[&after], "add")[0].clone();
            assert_eq!(add["baseRowId"], 0, "{before} {after}");
            assert_eq!(stored(&folder).await.len(), 3);
        }
    }
}

#[tokio::test]
async fn a_table_that_is_dropped_at_the_moment_of_a_commit_is_not_made_again_in_part() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let (location, hooks) = hooked(dir.path());
    let sink = open(&location).await;
    sink.write(&numbered(1, 0)).await.unwrap();
    let gone = folder.clone();
    *hooks.lock().unwrap() = Some(Hook {
        before: format!("{:020}.json", 2),
        run: Box::new(move || std::fs::remove_dir_all(&gone).unwrap()),
    });
    let error = sink.write(&numbered(1, 1)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(files(&folder), [""; 0]);
}

#[tokio::test]
async fn a_table_that_is_copied_restored_or_touched_stays_the_same() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let sink = open(&location(dir.path())).await;
    for sequence in 0..BEFORE {
        sink.write(&numbered(1, sequence)).await.unwrap();
    }
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to.join("_delta_log")).unwrap();
        for file in files(from) {
            let within = match file.ends_with(".json") {
                true => Path::new("_delta_log").join(&file),
                false => file.into(),
            };
            std::fs::copy(from.join(&within), to.join(&within)).unwrap();
        }
    };
    let backup = dir.path().join("backup");
    copy(&folder, &backup);
    // The same content in other files.
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&backup, &folder);
    for sequence in BEFORE..2 * BEFORE {
        sink.write(&numbered(1, sequence)).await.unwrap();
    }
    assert_eq!(stored(&folder).await, expected(&[1], 2 * BEFORE));
    // An older state: what came after it is lost, and nothing that comes now.
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&backup, &folder);
    sink.write(&numbered(1, 2 * BEFORE)).await.unwrap();
    assert_eq!(versions(&folder), BEFORE + 2);
    assert_eq!(stored(&folder).await.len() as u64, 3 * (BEFORE + 1));
}

#[tokio::test]
async fn a_table_that_is_replaced_before_its_first_batch_is_noticed() {
    // Made here, and found.
    for made in [true, false] {
        let dir = TempDir::new().unwrap();
        let folder = shop(dir.path());
        if !made {
            First::new(&[], &[]).await.write(&folder);
        }
        let sink = open(&location(dir.path())).await;
        std::fs::remove_dir_all(&folder).unwrap();
        something_else(&folder, 1);
        let error = sink.write(&numbered(1, 0)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(versions(&folder), 1);
        // Somebody puts the right table there in the end.
        std::fs::remove_dir_all(&folder).unwrap();
        First::new(&[], &[]).await.write(&folder);
        sink.write(&numbered(1, 0)).await.unwrap();
        assert_eq!(stored(&folder).await, expected(&[1], 1));
    }
}
