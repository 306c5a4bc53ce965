use super::*;
use crate::beside::Mark;
use crate::file_system::tests::PRETENDED;

fn manner(journal_mode: JournalMode) -> Manner {
    Manner {
        create: Some(Access::Owner),
        journal_mode,
    }
}

fn open(path: &Path, journal_mode: JournalMode) -> Database {
    Database::open(path, manner(journal_mode), false).unwrap()
}

fn synchronous(database: &Database) -> i64 {
    let sql = "PRAGMA synchronous";
    database.conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn normal_is_for_write_ahead_logs_only() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut database = open(&dir.path().join("x.db"), JournalMode::Keep);
    assert!(database.wal);
    for (wanted, found) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
        database.set_synchronous(wanted).unwrap();
        assert_eq!(synchronous(&database), found);
    }
    database.wal = false;
    database.set_synchronous(Synchronous::Normal).unwrap();
    assert_eq!(synchronous(&database), 2);
}

#[test]
fn a_file_that_exists_keeps_its_mode_unless_another_is_asked_for() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN").unwrap();
    schema::create(&other).unwrap();
    other.execute_batch("COMMIT; BEGIN").unwrap();
    assert!(!schema::is_empty(&other).unwrap(), "a reader");
    assert!(!open(&path, JournalMode::Keep).wal);
    // One that is in use is switched the next time.
    assert!(!open(&path, JournalMode::Wal).wal);
    other.execute_batch("COMMIT").unwrap();
    assert!(!open(&path, JournalMode::Keep).wal);
    assert!(open(&path, JournalMode::Wal).wal);
    assert!(open(&path, JournalMode::Keep).wal);
    assert!(!open(&path, JournalMode::Delete).wal);
}

#[test]
fn a_new_file_has_the_mode_that_is_asked_for() {
    let dir = tempfile::TempDir::new().unwrap();
    for (mode, wal) in [
        (JournalMode::Keep, true),
        (JournalMode::Wal, true),
        (JournalMode::Delete, false),
    ] {
        let path = dir.path().join(format!("{mode:?}.db"));
        assert_eq!(open(&path, mode).wal, wal, "{mode:?}");
    }
}

#[test]
fn a_network_gets_no_write_ahead_log() {
    let dir = tempfile::TempDir::new().unwrap();
    let (of_wal, new) = (dir.path().join("wal.db"), dir.path().join("new.db"));
    let of_delete = dir.path().join("delete.db");
    drop(open(&of_wal, JournalMode::Wal));
    drop(open(&of_delete, JournalMode::Delete));
    PRETENDED.set(Some("NFS"));
    for (path, mode) in [
        (&of_wal, JournalMode::Keep),
        (&of_wal, JournalMode::Wal),
        (&of_delete, JournalMode::Wal),
        (&new, JournalMode::Keep),
        (&new, JournalMode::Wal),
    ] {
        let before = std::fs::read(path).unwrap_or_default();
        let Err(fault) = Database::open(path, manner(mode), false) else {
            panic!("{} {mode:?}", path.display());
        };
        let error = fault.during("open").to_string();
        assert!(
            error.contains("NFS") && error.contains("journal_mode=delete"),
            "{error}"
        );
        assert_eq!(std::fs::read(path).unwrap_or_default(), before);
    }
    // What the error advises works.
    assert!(!open(&of_delete, JournalMode::Keep).wal);
    for path in [&of_wal, &new] {
        assert!(!open(path, JournalMode::Delete).wal);
        let database = open(path, JournalMode::Keep);
        assert!(!database.wal);
        // Nothing of the way there is left.
        Connection::open(path)
            .unwrap()
            .execute_batch("BEGIN IMMEDIATE")
            .unwrap();
    }
    PRETENDED.set(None);
}

/// Where it cannot be written it must not stay as it was.
#[cfg(target_os = "linux")]
#[test]
fn a_mark_that_cannot_be_written_is_removed() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let mut database = open(&path, JournalMode::Keep);
    let mut write = || {
        database.begin_write().unwrap();
        database.finish_write(Ok(())).unwrap();
        assert_eq!(database.merge_all().unwrap(), Merged::Whole);
    };
    write();
    // A full disk, as far as the mark is concerned.
    let mark = beside(&path, "-mark");
    std::fs::remove_file(&mark).unwrap();
    std::os::unix::fs::symlink("/dev/full", &mark).unwrap();
    write();
    assert!(Mark::read(&path).is_some(), "as soon as it can be");
}

#[test]
fn every_transaction_counts_a_change() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let mut database = open(&path, JournalMode::Keep);
    database
        .conn
        .execute_batch("PRAGMA user_version = 7")
        .unwrap();
    let mut counts = Vec::new();
    for _ in 0..5 {
        database.begin_write().unwrap();
        database.finish_write(Ok(())).unwrap();
        assert_eq!(database.merge_all().unwrap(), Merged::Whole);
        let header = std::fs::read(&path).unwrap();
        counts.push(u32::from_be_bytes([
            header[24], header[25], header[26], header[27],
        ]));
        assert_eq!(header[60..64], [0, 0, 0, 7], "somebody else's number");
    }
    assert!(
        counts.windows(2).all(|two| two[1] == two[0] + 1),
        "{counts:?}"
    );
}

/// SQLite writes the file before it tells how far the log is merged.
#[test]
fn a_merge_of_another_program_that_is_not_done_is_no_overwriting() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let mut database = open(&path, JournalMode::Keep);
    let touch = |seconds| {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(at).unwrap();
    };
    for seconds in 1..4 {
        database.begin_write().unwrap();
        database.finish_write(Ok(())).unwrap();
        touch(seconds);
        assert_ne!(database.seen(), Seen::Overwritten);
        assert_ne!(database.seen(), Seen::Same);
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA wal_checkpoint")
            .unwrap();
        assert_eq!(database.seen(), Seen::Same);
    }
    // Nobody merges.
    touch(9);
    assert_ne!(database.seen(), Seen::Overwritten);
    assert_eq!(database.seen_at_last(), Seen::Overwritten);
}
