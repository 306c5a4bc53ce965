//! The Unity Catalog backend with its local catalog keeps every promise. A harness and no list: the
//! suite chooses the cases.

mod harness;
mod lake;

use harness::LakeHarness;
use std::process::Command;
use std::sync::Arc;
use trace_destination_conformance::{assert_conforms, writer};
use trace_destination_core::LocationUri;
use trace_destination_unity_catalog::UnityCatalogLocation;

/// Which location the other process of the kill case writes.
const WRITES_TO: &str = "CONFORMANCE_WRITES_TO";

#[test]
fn unity_catalog_conforms() {
    let this = |uri: &LocationUri| {
        let program = std::env::current_exe().expect("a test has a program");
        let mut command = Command::new(program);
        command
            .args(["--exact", "the_other_process", "--ignored", "--nocapture"])
            .env(WRITES_TO, uri.as_str());
        command
    };
    assert_conforms(LakeHarness::new(this).expect("a folder can be made"));
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
