//! Care for a table, and what writing does of it by itself.

use crate::help::*;
use std::time::Duration;
use tempfile::TempDir;
use trace_destination_core::ErrorKind;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_written_on_schedule_and_read() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let location = location(dir.path());
    let sink = open(&location).await;
    for sequence in 0..105 {
        sink.write(&numbered(1, sequence)).await.unwrap();
    }
    sink.close().await.unwrap();
    let log = folder.join("_delta_log");
    assert!(log.join("00000000000000000100.checkpoint.parquet").exists());
    let last = std::fs::read_to_string(log.join("_last_checkpoint")).unwrap();
    assert!(last.contains("\"version\":100"), "{last}");
    // The commits before it are not needed any more, by readers or by us.
    for version in 0..100 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    assert_eq!(stored(&folder).await, expected(&[1], 105));
    let sink = open(&location).await;
    sink.write(&numbered(1, 50)).await.unwrap();
    sink.write(&numbered(1, 105)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 106));
}

#[tokio::test]
async fn orphans_go_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let location = location(dir.path());
    let sink = open(&location).await;
    sink.write(&numbered(1, 0)).await.unwrap();
    // What a writer leaves that dies between its file and its commit.
    let named = parquet_files(&folder).remove(0);
    let orphan = named.replace("-0000000000-", "-0000000001-");
    std::fs::copy(folder.join(&named), folder.join(&orphan)).unwrap();

    let care = location.maintenance().await.unwrap();
    assert_eq!(care.orphans(None).await.unwrap(), [] as [&str; 0]);
    assert_eq!(care.remove_orphans(None).await.unwrap(), [] as [&str; 0]);
    let now = Some(Duration::ZERO);
    // What is not older than now may be as young as this moment.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(care.orphans(now).await.unwrap(), [orphan.as_str()]);
    assert!(folder.join(&orphan).exists());
    assert_eq!(care.remove_orphans(now).await.unwrap(), [orphan.as_str()]);
    assert!(!folder.join(&orphan).exists());
    assert_eq!(stored(&folder).await, expected(&[1], 1));
    // Writing goes on, after the versions that maintenance took.
    sink.write(&numbered(1, 1)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 2));
}

#[tokio::test]
async fn the_log_is_cleaned_up_behind_checkpoints_only() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let location = location(dir.path());
    let sink = open(&location).await;
    for sequence in 0..4 {
        sink.write(&numbered(1, sequence)).await.unwrap();
    }
    let care = location.maintenance().await.unwrap();
    assert_eq!(care.clean_log().await.unwrap(), 0);
    assert_eq!(care.checkpoint().await.unwrap(), 4);
    assert_eq!(care.clean_log().await.unwrap(), 0, "all of it is young");
    let month_ago = std::time::SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    for entry in std::fs::read_dir(folder.join("_delta_log")).unwrap() {
        let file = std::fs::File::options()
            .write(true)
            .open(entry.unwrap().path());
        file.unwrap().set_modified(month_ago).unwrap();
    }
    assert_eq!(care.clean_log().await.unwrap(), 4);
    assert_eq!(commits(&folder).len(), 1);
    sink.write(&numbered(1, 4)).await.unwrap();
    assert_eq!(stored(&folder).await, expected(&[1], 5));
}

#[tokio::test]
async fn a_table_that_is_not_there_cannot_be_cared_for() {
    let dir = TempDir::new().unwrap();
    let error = location(dir.path()).maintenance().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
