//! What a database of somebody else holds in the place of a revision or a name is repeated in an error
//! in one short line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rusqlite::{Connection, params};
use std::time::{Duration, SystemTime};
use support::*;
use tempfile::TempDir;
use trace_destination_core::TraceLocation;
use trace_destination_experiment::ExperimentLocation;

/// Opening a file that `change` changed fails; the error.
fn refused(change: impl FnOnce(&Connection), query: &str) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(HEAD).unwrap();
    change(&conn);
    drop(conn);
    // Nobody is upgrading it.
    let then = SystemTime::now() - Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(then).unwrap();
    let uri = format!("sqlite:///{}?{query}", path.display());
    let location = ExperimentLocation::from_uri(&uri.parse().unwrap()).unwrap();
    let error = run(location.open()).map(drop).unwrap_err();
    error.to_string()
}

#[test]
fn revisions_and_names_of_others_are_one_short_line() {
    let words = format!("a\nb\u{1b}[2J{}", "x".repeat(100_000));
    let revisions = |conn: &Connection| {
        let two = "INSERT INTO alembic_version VALUES (?1)";
        conn.execute(two, [&words]).unwrap();
    };
    let unknown = |conn: &Connection| {
        let other = "UPDATE alembic_version SET version_num = ?1";
        conn.execute(other, [&words]).unwrap();
        conn.execute_batch("ALTER TABLE spans RENAME COLUMN content TO x")
            .unwrap();
    };
    let tables = |conn: &Connection| {
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let names: Vec<String> = {
            let mut query = conn
                .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
                .unwrap();
            let names = query.query_map([], |row| row.get(0)).unwrap();
            names.collect::<Result<_, _>>().unwrap()
        };
        for name in names.iter().filter(|name| !name.starts_with("sqlite_")) {
            conn.execute_batch(&format!("DROP TABLE \"{name}\""))
                .unwrap();
        }
        conn.execute_batch(&format!("CREATE TABLE \"{words}\" (a)"))
            .unwrap();
    };
    let experiment = |stage: &'static str| {
        let words = words.clone();
        move |conn: &Connection| {
            conn.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage, artifact_location) \
                 VALUES (7, ?1, ?2, '/x')",
                params![words, stage],
            )
            .unwrap();
        }
    };
    for text in [
        refused(revisions, "experiment_name=n"),
        refused(unknown, "experiment_name=n"),
        refused(tables, "experiment_name=n"),
        refused(experiment("deleted"), "experiment_id=7"),
        refused(experiment("active"), "experiment_id=7&experiment_name=n"),
    ] {
        assert!(text.len() < 1000, "{} bytes", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.contains("a\\nb"), "{text}");
    }
}
