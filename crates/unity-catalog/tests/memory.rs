//! What open tables hold, measured for a whole process: alone, since other tests hold memory too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "table/help.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod help;
mod lake;

use help::*;
use tempfile::TempDir;
use trace_destination_unity_catalog::UnityCatalogLocation;

#[tokio::test]
async fn open_tables_hold_little() {
    // 200 tables open at once, each written to; what they hold together stays far below what their
    // batches need while they are written.
    let dir = TempDir::new().unwrap();
    let mut open_tables = Vec::new();
    let before = resident();
    for n in 0..200 {
        let location = UnityCatalogLocation::builder()
            .with_name(format!("main.traces.t{n}"))
            .with_root(dir.path().display().to_string())
            .build()
            .unwrap();
        let sink = open(&location).await;
        sink.write(&numbered(n, 0)).await.unwrap();
        open_tables.push(sink);
    }
    let each = resident().saturating_sub(before) / open_tables.len();
    println!("{} KiB for each open table", each >> 10);
    assert!(each < 256 << 10, "{each} bytes for each open table");
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}
