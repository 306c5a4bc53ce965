//! The Unity Catalog backend keeps every promise, with its local catalog and with a server that is
//! the stand-in of this process. Harnesses and no list: the suite chooses the cases.

mod catalog_server;
mod governed;
mod harness;
mod lake;

use governed::GovernedHarness;
use harness::LakeHarness;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use trace_destination_conformance::{assert_conforms, writer};
use trace_destination_core::LocationUri;
use trace_destination_unity_catalog::{UNITY_CATALOG_FILE_LOCATIONS, UnityCatalogLocation};

/// Which location the other process of the kill case writes.
const WRITES_TO: &str = "CONFORMANCE_WRITES_TO";

/// One suite at a time: cases that look at every span of the process would see those of Delta's
/// readers in the other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn unity_catalog_conforms() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_conforms(LakeHarness::new(other_process).expect("a folder can be made"));
}

#[test]
fn governed_tables_conform() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_conforms(GovernedHarness::new(other_process).expect("a folder can be made"));
}

fn other_process(uri: &LocationUri) -> Command {
    let program = std::env::current_exe().expect("a test has a program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "the_other_process", "--ignored", "--nocapture"])
        .env(WRITES_TO, uri.as_str())
        // The server is on this machine, and its tables are in its folder.
        .env(UNITY_CATALOG_FILE_LOCATIONS, "true");
    command
}

#[test]
#[ignore = "no test: the process that the kill case starts and kills"]
fn the_other_process() {
    let uri: LocationUri = std::env::var(WRITES_TO)
        .expect("the kill case names a location")
        .parse()
        .expect("a location is a URI");
    let location = UnityCatalogLocation::from_uri(&uri).expect("the URI is of a table");
    writer::run(Arc::new(location)).expect("writing goes on until the process is killed");
}
