//! Tables governed by a Unity Catalog server, which here is the strict stand-in of this process.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../catalog_server/mod.rs"]
mod catalog_server;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../lake/mod.rs"]
#[allow(unreachable_pub, reason = "other programs use it too")]
mod lake;

mod auth;
mod conformance;
mod create;
mod errors;
mod support;

/// Which location the other process of the kill case writes.
const WRITES_TO: &str = "CONFORMANCE_WRITES_TO";

#[test]
#[ignore = "no test: the process that the kill case starts and kills"]
fn the_other_process() {
    let uri: trace_destination_core::LocationUri = std::env::var(WRITES_TO)
        .expect("the kill case names a location")
        .parse()
        .expect("a location is a URI");
    let location = trace_destination_unity_catalog::UnityCatalogLocation::from_uri(&uri)
        .expect("the URI is of a table");
    trace_destination_conformance::writer::run(std::sync::Arc::new(location))
        .expect("writing goes on until the process is killed");
}
