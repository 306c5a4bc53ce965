//! Files of a log that it can be read without, damaged: as long as the commits are there, nobody is
//! stopped. A damaged commit stops everybody.

use crate::help::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, TraceLocation as _};

/// A table of four batches with checkpoints of versions 2 and 4.
async fn with_checkpoints(root: &Path) -> PathBuf {
    let location = location(root);
    let sink = open(&location).await;
    for sequence in 0..4 {
        sink.write(&numbered(1, sequence)).await.unwrap();
        if sequence % 2 == 1 {
            let care = location.maintenance().await.unwrap();
            assert_eq!(care.checkpoint().await.unwrap(), sequence + 1);
        }
    }
    sink.close().await.unwrap();
    shop(root).join("_delta_log")
}

fn checkpoint(log: &Path, version: u64) -> PathBuf {
    log.join(format!("{version:020}.checkpoint.parquet"))
}

/// What happens to a file, and how.
type Damage = (&'static str, fn(&Path));

fn damages() -> Vec<Damage> {
    fn write(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
    vec![
        ("empty", |path| write(path, Vec::clear)),
        ("cut in the middle", |path| {
            write(path, |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("cut at the end", |path| {
            write(path, |bytes| bytes.truncate(bytes.len() - 1));
        }),
        ("all zero", |path| write(path, |bytes| bytes.fill(0))),
        ("zero in the front half", |path| {
            write(path, |bytes| {
                let half = bytes.len() / 2;
                bytes[..half].fill(0);
            });
        }),
        ("something else", |path| {
            std::fs::write(path, "<html>not here</html>").unwrap();
        }),
    ]
}

async fn goes_on(root: &Path, what: &str, batches: u64) {
    let location = location(root);
    let sink = location.open().await;
    let sink = sink.unwrap_or_else(|e| panic!("{what}: {e:?}"));
    // A batch that is there, and one that is not: by another run of the process, and by this one.
    for sequence in [0, batches - 1, batches] {
        let written = sink.write(&numbered(1, sequence)).await;
        written.unwrap_or_else(|e| panic!("{what}: {e:?}"));
    }
    sink.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_stops_nobody() {
    for (what, damage) in damages() {
        for which in [vec![4], vec![2, 4]] {
            let dir = TempDir::new().unwrap();
            let log = with_checkpoints(dir.path()).await;
            for version in &which {
                damage(&checkpoint(&log, *version));
            }
            let what = format!("checkpoints {which:?} {what}");
            goes_on(dir.path(), &what, 4).await;
            // A new one was written, so that others can read the table too.
            let folder = shop(dir.path());
            assert_eq!(stored(&folder).await, expected(&[1], 5), "{what}");
            assert!(checkpoint(&log, 5).exists(), "{what}");
            goes_on(dir.path(), &what, 5).await;
            assert_eq!(stored(&folder).await, expected(&[1], 6), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pointer_stops_nobody() {
    for text in [
        "",
        "{",
        "{\"version\":4,\"si",
        "[]",
        "null",
        "{\"version\":\"4\",\"size\":1}",
        "{\"version\":-1,\"size\":1}",
        // To what is not there.
        "{\"version\":3,\"size\":1}",
        "{\"version\":77,\"size\":1}",
        "{\"version\":4,\"size\":1,\"parts\":3}",
        "\0\0\0\0",
    ] {
        let dir = TempDir::new().unwrap();
        let log = with_checkpoints(dir.path()).await;
        std::fs::write(log.join("_last_checkpoint"), text).unwrap();
        goes_on(dir.path(), &format!("pointer {text:?}"), 4).await;
        std::fs::remove_file(log.join("_last_checkpoint")).unwrap_or_default();
        assert_eq!(
            stored(&shop(dir.path())).await,
            expected(&[1], 5),
            "{text:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_checksums_and_compactions_stop_nobody() {
    for name in [
        "00000000000000000004.crc",
        "00000000000000000003.crc",
        "00000000000000000001.00000000000000000003.compacted.json",
    ] {
        for text in ["", "{", "\0\0"] {
            let dir = TempDir::new().unwrap();
            let log = with_checkpoints(dir.path()).await;
            std::fs::write(log.join(name), text).unwrap();
            for version in [2, 4] {
                std::fs::remove_file(checkpoint(&log, version)).unwrap();
            }
            std::fs::remove_file(log.join("_last_checkpoint")).unwrap();
            goes_on(dir.path(), &format!("{name}: {text:?}"), 4).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_commit_is_an_error() {
    for (what, damage) in damages() {
        // Behind the newest checkpoint, so that it is needed.
        let dir = TempDir::new().unwrap();
        let log = with_checkpoints(dir.path()).await;
        goes_on(dir.path(), what, 4).await;
        damage(&log.join("00000000000000000005.json"));
        let opened = location(dir.path()).open().await.map(drop);
        if what == "cut at the end" {
            // The last line has no need of its end.
            continue;
        }
        match opened {
            Err(error) => assert!(error.mend_hint().is_some(), "{what}: {error}"),
            // An empty commit has no action; nothing is read out of it that was not in it.
            Ok(()) => assert_eq!(what, "empty"),
        }
        // And where a checkpoint is damaged too, that is not made up for by what is left.
        let dir = TempDir::new().unwrap();
        let log = with_checkpoints(dir.path()).await;
        for version in [2, 4] {
            damage(&checkpoint(&log, version));
        }
        std::fs::remove_file(log.join("00000000000000000001.json")).unwrap();
        let error = location(dir.path()).open().await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
        assert!(error.mend_hint().is_some());
        assert_eq!(commits(&shop(dir.path())).len(), 4, "{what}");
    }
}

/// Where the first commits were cleaned up, what is left is not taken for the whole table: nothing is
/// written, no checkpoint is made of it, and no file counts as an orphan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_beginning_is_an_error() {
    let changes: Vec<Damage> = damages()
        .into_iter()
        .chain([(
            "gone",
            (|path| std::fs::remove_file(path).unwrap()) as fn(&Path),
        )])
        .collect();
    for (what, damage) in changes {
        let dir = TempDir::new().unwrap();
        let log = with_checkpoints(dir.path()).await;
        let commit = |version: u64| log.join(format!("{version:020}.json"));
        // What a change of the table's properties leaves behind the checkpoint.
        let first = std::fs::read_to_string(commit(0)).unwrap();
        let of_table = |line: &&str| {
            ["{\"metaData\"", "{\"protocol\""]
                .iter()
                .any(|a| line.starts_with(a))
        };
        let altered: Vec<&str> = first.lines().filter(of_table).collect();
        assert_eq!(altered.len(), 2);
        std::fs::write(commit(5), altered.join("\n")).unwrap();
        for version in 0..=4 {
            std::fs::remove_file(commit(version)).unwrap();
        }
        std::fs::remove_file(checkpoint(&log, 2)).unwrap();
        let care = location(dir.path()).maintenance().await.unwrap();
        damage(&checkpoint(&log, 4));
        let before = std::fs::read_dir(&log).unwrap().count();
        let opened = location(dir.path()).open().await.map(drop);
        assert!(opened.is_err(), "{what}");
        let orphans = care.remove_orphans(Some(std::time::Duration::ZERO)).await;
        assert!(orphans.is_err(), "{what}: {orphans:?}");
        assert_eq!(std::fs::read_dir(&log).unwrap().count(), before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_goes_on_too() {
    for (what, damage) in damages() {
        let dir = TempDir::new().unwrap();
        let log = with_checkpoints(dir.path()).await;
        damage(&checkpoint(&log, 4));
        let care = location(dir.path()).maintenance().await.unwrap();
        let orphans = care.orphans(Some(std::time::Duration::ZERO)).await;
        assert_eq!(orphans.unwrap(), [] as [&str; 0], "{what}");
        assert_eq!(care.clean_log().await.unwrap(), 0, "{what}");
        assert_eq!(care.checkpoint().await.unwrap(), 4, "{what}");
        assert_eq!(stored(&shop(dir.path())).await, expected(&[1], 4), "{what}");
    }
}
