use super::*;
use crate::beside::Generation;
use rusqlite::Connection;
use std::io::Write;
use tempfile::TempDir;

/// A database with a write-ahead log of three transactions, as a killed process leaves it.
fn crashed(dir: &Path) -> std::path::PathBuf {
    let (made, path) = (dir.join("made.db"), dir.join("x.db"));
    let _ = fs::remove_file(&made);
    let conn = Connection::open(&made).unwrap();
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .unwrap();
    conn.execute_batch("CREATE TABLE t (a)").unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA user_version = 1")
        .unwrap();
    for _ in 0..2 {
        conn.execute_batch("CREATE TABLE IF NOT EXISTS u (b); INSERT INTO t VALUES (1)")
            .unwrap();
    }
    fs::copy(&made, &path).unwrap();
    fs::copy(beside(&made, "-wal"), beside(&path, "-wal")).unwrap();
    path
}

fn pairing(path: &Path) -> Pairing {
    Log::Ahead.pairing(path).unwrap()
}

/// A mark about the log beside the file, or about one before it.
fn mark(path: &Path, stamp: &Stamp, merging: bool, before: u32) {
    let generation = Generation {
        salt: salt(path).unwrap().wrapping_sub(before),
        whole: false,
    };
    Mark::new(stamp, merging, generation).write(path).unwrap();
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom};
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_log_goes_on_from_its_file() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    assert_eq!(pairing(&path), Pairing::Sound);
    let count = number(&fs::read(&path).unwrap(), 24);
    for other in [count - 2, count + 2, count + 100, 0] {
        overwrite(&path, 24, &other.to_be_bytes());
        assert_eq!(pairing(&path), Pairing::Stale, "{other} for {count}");
    }
    overwrite(&path, 24, &count.to_be_bytes());
    assert_eq!(pairing(&path), Pairing::Sound);
}

#[test]
fn a_mark_contradicts_and_confirms() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    let stamp = Stamp::of(&path).unwrap().unwrap();
    let other = Stamp {
        modified: (1, 1),
        ..stamp
    };
    for (stamp, merging, expected) in [
        (&stamp, false, Pairing::Sound),
        (&other, false, Pairing::Unsure),
        (&other, true, Pairing::Sound),
    ] {
        mark(&path, stamp, merging, 0);
        assert_eq!(pairing(&path), expected);
    }
}

#[test]
fn an_old_mark_without_a_log_is_removed() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    let stamp = Stamp::of(&path).unwrap().unwrap();
    let other = Stamp { len: 1, ..stamp };
    for (stamp, log, kept) in [
        (&stamp, None, true),
        (&other, None, false),
        (&other, Some(""), false),
        (&stamp, Some(""), true),
    ] {
        let _ = fs::remove_file(beside(&path, "-wal"));
        Mark::new(stamp, false, Generation::default())
            .write(&path)
            .unwrap();
        if let Some(log) = log {
            fs::write(beside(&path, "-wal"), log).unwrap();
        }
        settle(&path, false).unwrap();
        assert_eq!(Mark::read(&path).is_some(), kept, "{stamp:?} {log:?}");
    }
}

/// As another program leaves it, which merges the log and begins it anew.
#[test]
fn a_mark_is_no_evidence_about_a_later_log() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    let stamp = Stamp::of(&path).unwrap().unwrap();
    let moved = Stamp {
        modified: (1, 1),
        ..stamp
    };
    let grown = Stamp { len: 4096, ..moved };
    for (stamp, before, expected) in [
        (&grown, 0, Pairing::Stale),
        (&grown, 1, Pairing::Sound),
        (&moved, 1, Pairing::Sound),
    ] {
        mark(&path, stamp, false, before);
        assert_eq!(pairing(&path), expected);
    }
    // One that says that its log was merged is about the next as well.
    let generation = Generation {
        salt: salt(&path).unwrap().wrapping_sub(1),
        whole: true,
    };
    Mark::new(&grown, false, generation).write(&path).unwrap();
    assert_eq!(pairing(&path), Pairing::Stale);
    // The content of the file is evidence in any case.
    mark(&path, &grown, false, 1);
    overwrite(&path, 24, &[0; 4]);
    assert_eq!(pairing(&path), Pairing::Stale);
}

#[test]
fn a_file_that_the_log_was_merged_into() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    let log = fs::read(beside(&path, "-wal")).unwrap();
    drop(
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA wal_checkpoint"),
    );
    // As if another program had merged it and were killed.
    fs::write(beside(&path, "-wal"), log).unwrap();
    let other = Stamp {
        len: 1,
        ..Stamp::of(&path).unwrap().unwrap()
    };
    mark(&path, &other, false, 0);
    assert_eq!(pairing(&path), Pairing::Sound);
    // One that has the first page alone.
    let len = fs::metadata(&path).unwrap().len();
    overwrite(&path, len - 4096, &[7; 4096]);
    assert_eq!(pairing(&path), Pairing::Unsure);
    Mark::remove(&path);
    assert_eq!(pairing(&path), Pairing::Sound);
}

#[test]
fn files_that_are_absent_empty_or_no_database() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    fs::remove_file(beside(&path, "-wal")).unwrap();
    assert_eq!(pairing(&path), Pairing::Sound);
    let path = crashed(dir.path());
    for content in [&b""[..], b"x", &[0; 100], &[0xff; 5000]] {
        fs::write(&path, content).unwrap();
        assert_eq!(pairing(&path), Pairing::Stale);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(pairing(&path), Pairing::Stale);
    settle(&path, false).unwrap();
    assert!(!beside(&path, "-wal").exists());
    assert!(beside(&path, "-stale1-wal").exists());
}

/// SQLite makes a file with a transaction that writes its first page.
#[test]
fn a_rollback_journal_of_a_file_that_was_being_made() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .unwrap();
    drop(conn);
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for number in [0_u32, 0, 0, 512, 4096] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(512, 0);
    fs::write(beside(&path, "-journal"), journal).unwrap();
    assert_eq!(Log::Rollback.pairing(&path).unwrap(), Pairing::Sound);
    // One with tables was never empty for this journal.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(8192)
        .unwrap();
    assert_eq!(Log::Rollback.pairing(&path).unwrap(), Pairing::Stale);
}

/// Whatever is in a log, it is an answer or an error, and soon.
#[test]
fn logs_of_garbage() {
    let dir = TempDir::new().unwrap();
    let path = crashed(dir.path());
    let sound = fs::read(beside(&path, "-wal")).unwrap();
    let mut random = 1_u64;
    for round in 0..400_usize {
        let mut log = sound.clone();
        for _ in 0..=round % 7 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Mostly in headers.
            let at = (random >> 33) as usize % if round % 2 == 0 { 64 } else { log.len() };
            log[at] = (random >> 25) as u8;
        }
        log.truncate(log.len() - (round * 13) % log.len());
        fs::write(beside(&path, "-wal"), &log).unwrap();
        let _ = Log::Ahead.pairing(&path);
        let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        journal.extend(&log);
        fs::write(beside(&path, "-journal"), &journal).unwrap();
        let _ = Log::Rollback.pairing(&path);
    }
}
