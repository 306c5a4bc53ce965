//! Every wrong place is a clear error of the right kind, and nothing is written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Error, ErrorKind, Retry, TraceLocation};
use trace_destination_experiment::ExperimentLocation;

fn open_error(location: &ExperimentLocation) -> Error {
    let error = match run(location.open()) {
        Ok(_) => panic!("{location} opened"),
        Err(error) => error,
    };
    assert_eq!(error.location(), Some(location.uri()));
    assert!(error.mend_hint().is_some(), "{error}");
    error
}

#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, retry: Retry, says: &str) {
    assert_eq!((error.kind(), error.retry()), (kind, retry), "{error:?}");
    assert!(error.to_string().contains(says), "{error}");
}

/// Makes a file look as if nobody had touched it for a while.
fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(then).unwrap();
}

struct Place {
    dir: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        Self { dir, path }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        all.sort();
        all
    }

    /// Opening fails, and leaves every byte and file as it was.
    fn refuses(&self, location: &ExperimentLocation) -> Error {
        let before = (self.files(), fs::read(&self.path).ok());
        let error = open_error(location);
        assert_eq!((self.files(), fs::read(&self.path).ok()), before, "{error}");
        error
    }
}

#[test]
fn uris_that_cannot_be_meant() {
    for (text, says) in [
        ("sqlite:///x.db", "no experiment is given"),
        ("sqlite:///x.db?experiment_name=", "0 characters"),
        (
            "sqlite:///x.db?experiment_id=abc",
            "`abc` is no experiment id",
        ),
        (
            "sqlite:///x.db?experiment_id=-1",
            "`-1` is no experiment id",
        ),
        (
            "sqlite:///x.db?experiment_id=1.0",
            "`1.0` is no experiment id",
        ),
        (
            "sqlite:///x.db?experiment_id=99999999999999999999",
            "is no experiment id",
        ),
        (
            "sqlite:///x.db?experiment_name=a&experiment=3",
            "parameter `experiment` is unknown",
        ),
        (
            "sqlite:///x.db?experiment_name=a&create=yes",
            "write true or false",
        ),
        (
            "sqlite:///x.db?experiment_name=a&synchronous=off",
            "write normal or full",
        ),
        (
            "sqlite:///x.db?experiment_name=a&artifact_root=",
            "the artifact root is empty",
        ),
        ("sqlite://x.db?experiment_name=a", "a `/` is missing"),
        ("sqlite:x.db?experiment_name=a", "a `/` is missing"),
        ("sqlite:///?experiment_name=a", "no database file"),
        ("sqlite:///:memory:?experiment_name=a", "would be lost"),
        ("http://h?experiment_name=a", "is not `sqlite`"),
    ] {
        let error = uri(text).unwrap_err();
        assert_error(&error, ErrorKind::InvalidConfig, Retry::Never, says);
    }
    let long = format!("sqlite:///x.db?experiment_name={}", "n".repeat(501));
    let error = uri(&long).unwrap_err();
    assert_error(
        &error,
        ErrorKind::InvalidConfig,
        Retry::Never,
        "501 characters",
    );
}

#[test]
fn canonical_uris() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let r = root.to_str().unwrap();
    let cases = [
        (
            format!("sqlite:///{r}/./a/../x.db?experiment_name=b"),
            format!("sqlite:///{r}/x.db?experiment_name=b"),
        ),
        (
            format!("SQLITE:///{r}/x.db?experiment_name=b&create=true&synchronous=normal"),
            format!("sqlite:///{r}/x.db?experiment_name=b"),
        ),
        (
            format!("sqlite:///{r}/x.db?synchronous=full&experiment_id=03&create=false"),
            format!("sqlite:///{r}/x.db?create=false&experiment_id=3&synchronous=full"),
        ),
        (
            format!("sqlite:///{r}/new/x y.db?experiment_name=a,b"),
            format!("sqlite:///{r}/new/x%20y.db?experiment_name=a%2Cb"),
        ),
    ];
    for (given, expected) in cases {
        let location = uri(&given).unwrap();
        assert_eq!(location.uri().as_str(), expected);
        assert_eq!(uri(&expected).unwrap().uri(), location.uri());
    }
    // A relative path is made absolute; a link is resolved, as far as it exists.
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(
        uri("sqlite:///rel/x.db?experiment_name=a").unwrap().path(),
        here.join("rel/x.db")
    );
    #[cfg(unix)]
    {
        fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let through = at(&root.join("link/sub/x.db"), "a");
        assert_eq!(through.path(), root.join("real/sub/x.db"));
        let store = through.capabilities().exclusive_store.unwrap();
        assert_eq!(Path::new(&store), root.join("real/sub/x.db"));
    }
}

#[test]
fn a_missing_file_that_may_not_be_made() {
    let place = Place::new();
    let p = place.path.display();
    for text in [
        format!("sqlite:///{p}?experiment_id=3"),
        format!("sqlite:///{p}?experiment_id=3&experiment_name=a"),
        format!("sqlite:///{p}?experiment_name=a&create=false"),
    ] {
        let error = place.refuses(&uri(&text).unwrap());
        assert_error(&error, ErrorKind::NotFound, Retry::Never, "does not exist");
    }
    let deep = uri(&format!("sqlite:///{p}/y/z.db?experiment_id=3")).unwrap();
    assert_eq!(open_error(&deep).kind(), ErrorKind::NotFound);
    assert!(place.files().is_empty());
}

#[test]
fn an_empty_file_is_a_new_one_only_where_that_may_be_made() {
    let place = Place::new();
    fs::write(&place.path, b"").unwrap();
    let p = place.path.display();
    let by_id = uri(&format!("sqlite:///{p}?experiment_id=3")).unwrap();
    assert_eq!(place.refuses(&by_id).kind(), ErrorKind::NotFound);
    run(store(&at(&place.path, "a"), &batch(conversation(1)))).unwrap();
    assert_eq!(count(&place.path, "spans"), 2);
}

#[test]
fn a_file_that_is_not_sqlite() {
    let place = Place::new();
    fs::write(&place.path, "to be or not to be, ".repeat(100)).unwrap();
    let error = place.refuses(&at(&place.path, "a"));
    assert_error(
        &error,
        ErrorKind::Unsupported,
        Retry::Never,
        "not an SQLite database",
    );
}

#[test]
fn a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder() {
    let place = Place::new();
    fs::create_dir(&place.path).unwrap();
    let error = open_error(&at(&place.path, "a"));
    assert_error(
        &error,
        ErrorKind::InvalidConfig,
        Retry::Never,
        "is a folder",
    );

    let place = Place::new();
    fs::write(&place.path, b"text").unwrap();
    let below = ExperimentLocation::builder()
        .with_path(place.path.join("y.db"))
        .with_experiment_name("a")
        .build();
    // Known at configuration time where the file is there already.
    let error = below.unwrap_err();
    assert_error(
        &error,
        ErrorKind::InvalidConfig,
        Retry::Never,
        "cannot be resolved",
    );
}

#[test]
#[cfg(unix)]
fn a_folder_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    // For a superuser no mode is an obstacle; the kernel's own folder is.
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let folder = match fs::write(dir.path().join("probe"), b"") {
        Err(_) => dir.path(),
        Ok(()) => Path::new("/proc/self"),
    };
    for name in ["x.db", "new/x.db"] {
        let error = open_error(&at(&folder.join(name), "a"));
        assert!(
            matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::NotFound
            ),
            "{error:?}"
        );
        assert_eq!(error.retry(), Retry::Never);
        assert!(!folder.join(name).exists());
    }
}

#[test]
fn a_database_of_someone_else() {
    let place = Place::new();
    Connection::open(&place.path)
        .unwrap()
        .execute_batch("CREATE TABLE orders (id INTEGER); CREATE TABLE customers (id INTEGER);")
        .unwrap();
    let error = place.refuses(&at(&place.path, "a"));
    assert_error(
        &error,
        ErrorKind::Unsupported,
        Retry::Never,
        "it holds `customers`, `orders`",
    );
}

#[test]
fn half_made_files_are_tried_again_while_they_are_fresh() {
    type Spoil = &'static str;
    let cases: [(Spoil, &str, ErrorKind); 5] = [
        (
            "DROP TABLE alembic_version",
            "`alembic_version` is missing",
            ErrorKind::Unsupported,
        ),
        (
            "DELETE FROM alembic_version",
            "`alembic_version` is empty",
            ErrorKind::Unsupported,
        ),
        (
            "INSERT INTO alembic_version VALUES ('770bee3ae1dd')",
            "holds",
            ErrorKind::Unsupported,
        ),
        (
            "UPDATE alembic_version SET version_num = '770bee3ae1dd'",
            "770bee3ae1dd",
            ErrorKind::Unsupported,
        ),
        (
            "DROP TABLE spans",
            "table `spans` is missing",
            ErrorKind::Corrupt,
        ),
    ];
    // Before anything else MLflow makes this table.
    let place = Place::new();
    Connection::open(&place.path)
        .unwrap()
        .execute_batch("CREATE TABLE experiments (experiment_id INTEGER)")
        .unwrap();
    let error = place.refuses(&at(&place.path, "a"));
    assert_error(
        &error,
        ErrorKind::Unavailable,
        Retry::Backoff,
        "`alembic_version` is missing",
    );
    for (spoil, says, kind) in cases {
        let place = Place::new();
        made_by_mlflow(&place.path, OLDEST)
            .execute_batch(spoil)
            .unwrap();
        let error = place.refuses(&at(&place.path, "a"));
        assert_error(&error, ErrorKind::Unavailable, Retry::Backoff, says);
        age(&place.path);
        let error = place.refuses(&at(&place.path, "a"));
        assert_error(&error, kind, Retry::Never, says);
    }
}

#[test]
fn experiments_that_are_not_there() {
    let place = Place::new();
    let conn = made_by_mlflow(&place.path, HEAD);
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
         VALUES (1, 'alive', 'x', 'active'), (2, 'gone', 'x', 'deleted')",
    )
    .unwrap();
    let p = place.path.display();
    for (query, kind, says) in [
        ("experiment_id=9", ErrorKind::NotFound, "no experiment 9"),
        (
            "experiment_name=x&create=false",
            ErrorKind::NotFound,
            "no experiment `x`",
        ),
        (
            "experiment_id=2",
            ErrorKind::NotFound,
            "experiment 2 `gone` is deleted",
        ),
        (
            "experiment_name=gone",
            ErrorKind::NotFound,
            "experiment 2 `gone` is deleted",
        ),
        (
            "experiment_id=1&experiment_name=other",
            ErrorKind::Conflict,
            "experiment 1 is named `alive`, not `other`",
        ),
    ] {
        let error = open_error(&uri(&format!("sqlite:///{p}?{query}")).unwrap());
        assert_error(&error, kind, Retry::Never, says);
    }
    assert_eq!(count(&place.path, "experiments"), 3);
    // What agrees opens.
    let both = uri(&format!(
        "sqlite:///{p}?experiment_id=1&experiment_name=alive"
    ))
    .unwrap();
    run(store(&both, &batch(conversation(1)))).unwrap();
    drop(conn);
}

#[test]
fn the_default_experiment_has_id_0_as_mlflow_insists() {
    for query in [
        "experiment_id=0",
        "experiment_name=Default",
        "experiment_id=0&experiment_name=Default",
    ] {
        let place = Place::new();
        let location = uri(&format!("sqlite:///{}?{query}", place.path.display())).unwrap();
        run(store(&location, &batch(conversation(1)))).unwrap();
        assert_eq!(
            texts(&place.path, "SELECT experiment_id, name FROM experiments"),
            ["0|Default"]
        );
        run(store(&at(&place.path, "next"), &batch(conversation(2)))).unwrap();
        assert_eq!(
            texts(
                &place.path,
                "SELECT experiment_id FROM experiments WHERE name = 'next'"
            ),
            ["1"]
        );
    }
}

#[test]
fn an_experiment_that_is_deleted_while_it_is_written() {
    let place = Place::new();
    run(async {
        let sink = at(&place.path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        let conn = Connection::open(&place.path).unwrap();
        conn.execute_batch("UPDATE experiments SET lifecycle_stage = 'deleted'")
            .unwrap();
        let error = sink.write(&batch(conversation(2))).await.unwrap_err();
        assert_error(
            &error,
            ErrorKind::NotFound,
            Retry::Never,
            "experiment 1 `a` is deleted",
        );
        assert_eq!(count(&place.path, "trace_info"), 1);
        // Restored, it goes on; renamed, it is still the experiment that was resolved.
        conn.execute_batch("UPDATE experiments SET lifecycle_stage = 'active', name = 'b'")
            .unwrap();
        sink.write(&batch(conversation(2))).await.unwrap();
        assert_eq!(
            texts(&place.path, "SELECT DISTINCT experiment_id FROM spans"),
            ["1"]
        );
        sink.close().await.unwrap();
    });
}

#[test]
fn a_locked_database_is_tried_again_soon() {
    let place = Place::new();
    run(async {
        let sink = at(&place.path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        let other = Connection::open(&place.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let before = std::time::Instant::now();
        let error = sink.write(&batch(conversation(2))).await.unwrap_err();
        assert_error(
            &error,
            ErrorKind::Locked,
            Retry::Backoff,
            "another program holds the database",
        );
        assert!(before.elapsed() < Duration::from_secs(10));
        // Reading what is there does not need the lock.
        let second = at(&place.path, "a").open().await.unwrap();
        other.execute_batch("COMMIT").unwrap();
        second.write(&batch(conversation(2))).await.unwrap();
        assert_eq!(count(&place.path, "trace_info"), 2);
    });
}

#[test]
fn a_file_that_was_deleted_or_replaced_is_not_written_into_the_void() {
    let place = Place::new();
    run(async {
        let sink = at(&place.path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        for file in place.files() {
            fs::remove_file(file).unwrap();
        }
        sink.write(&batch(conversation(2))).await.unwrap();
        assert_eq!(
            texts(&place.path, "SELECT request_id FROM trace_info"),
            ["tr-00000000000000000000000000000002"]
        );
        sink.close().await.unwrap();
    });
    assert_sound(&place.path);
}

#[test]
fn a_folder_that_is_misspelt_is_not_made() {
    let place = Place::new();
    let path = place.dir.path().join("srv/tracse/x.db");
    let error = open_error(&at(&path, "a"));
    assert_error(
        &error,
        ErrorKind::NotFound,
        Retry::Never,
        "srv` does not exist",
    );
    assert!(place.files().is_empty(), "{:?}", place.files());
    // As the error advises.
    fs::create_dir(place.dir.path().join("srv")).unwrap();
    run(store(&at(&path, "a"), &batch(conversation(1)))).unwrap();
    let error = open_error(&at(path.parent().unwrap(), "a"));
    assert_error(
        &error,
        ErrorKind::InvalidConfig,
        Retry::Never,
        "is a folder",
    );
}

/// Where the user that runs the tests is bound by them.
#[cfg(unix)]
#[test]
fn files_and_folders_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for wal in [false, true] {
        let place = Place::new();
        let folder = place.dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let (path, new) = (folder.join("x.db"), folder.join("new.db"));
        let mode = if wal { "wal" } else { "delete" };
        made_by_mlflow(&path, HEAD)
            .pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
            .unwrap();
        for (file_mode, folder_mode, at_fault) in [
            (0o400, 0o700, &path),
            (0o600, 0o500, &folder),
            (0o000, 0o700, &path),
        ] {
            set(&path, file_mode);
            set(&folder, folder_mode);
            let bound = fs::File::create(folder.join("probe")).is_err()
                || fs::File::options().write(true).open(&path).is_err();
            if bound {
                let failed = run(store(&at(&path, "a"), &batch(conversation(1)))).unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed:?}");
                let text = failed.to_string();
                let named = format!("`{}`", at_fault.display());
                assert!(
                    text.contains(&named) && text.contains("allow this user"),
                    "{text}"
                );
                if folder_mode == 0o500 {
                    let failed = open_error(&at(&new, "a"));
                    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed:?}");
                }
            }
            set(&folder, 0o700);
            set(&path, 0o600);
        }
        run(store(&at(&path, "a"), &batch(conversation(1)))).unwrap();
    }
}
