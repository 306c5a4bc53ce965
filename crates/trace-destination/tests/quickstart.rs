//! The `quickstart` example, run as its users run it.
#![cfg(feature = "experiment")]

use rusqlite::{Connection, OpenFlags};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// MLflow's list shows the traces of the last seven days. Captured traces are moved to now, so an
/// hour, in milliseconds, shows that they were.
const RECENT: i64 = 60 * 60 * 1_000;

#[test]
fn its_traces_are_recent_and_it_leaves_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let ran = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", "quickstart"])
        .args(["--manifest-path", manifest])
        .current_dir(folder.path())
        .output()
        .expect("cargo runs");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );

    let files = std::fs::read_dir(folder.path()).expect("the folder is there");
    let files: Vec<_> = files.map(|f| f.expect("a file").file_name()).collect();
    assert_eq!(files, ["quickstart.db"]);

    let file = folder.path().join("quickstart.db");
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a file");
    let (traces, first, last): (i64, i64, i64) = db
        .query_row(
            "SELECT count(*), min(timestamp_ms), max(timestamp_ms) FROM trace_info",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )
        .expect("traces");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_millis()).expect("before 292277026");
    // Six live requests, two of the platform, and 44 that were captured.
    assert_eq!(traces, 52);
    assert!(first > now - RECENT && last <= now, "{first} to {last}");
}
