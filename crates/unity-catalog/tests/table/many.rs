//! As many tables in one process as a platform has tenants.

use crate::help::*;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use trace_destination_core::{Destination, Pipeline, Resource, Scope};
use trace_destination_unity_catalog::UnityCatalogLocation;

const TABLES: u64 = 1_000;
const FLUSH: Duration = Duration::from_secs(300);

#[test]
fn a_thousand_tables_are_made_and_written_by_one_process() {
    let dir = TempDir::new().unwrap();
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let destinations: Vec<Destination> = (0..TABLES)
        .map(|i| {
            let location = UnityCatalogLocation::builder()
                .with_name(format!("main.tenant_{i}.shop"))
                .with_root(dir.path().display().to_string())
                .build();
            Destination::new(location.unwrap())
        })
        .collect();
    let resource = Arc::new(Resource::default());
    let scope = Arc::new(Scope::default());
    // First every table is made, then all are open.
    for round in [1u128, 2] {
        for (tenant, destination) in destinations.iter().enumerate() {
            let trace = (round << 64) | (tenant as u128 + 1);
            let spans = (1..=3).map(|id| span(trace, id)).collect();
            let sent = pipeline.ingest(resource.clone(), scope.clone(), spans, destination);
            assert_eq!(sent.dropped, 0);
        }
        let report = pipeline.flush(FLUSH).wait();
        assert!(report.all_stored(), "{report}");
        assert_eq!(report.locations.len() as u64, TABLES);
    }
    let stats = pipeline.stats();
    assert!(stats.locations.iter().all(|l| l.stored == 6));
    assert!(pipeline.shutdown(FLUSH).wait().all_stored());
    for tenant in 0..TABLES {
        let folder = dir
            .path()
            .join(format!("main/tenant_{tenant}/shop_otel_spans"));
        let log = commits(&folder);
        let rows = log.values().flat_map(|commit| actions(commit, "add"));
        let rows = rows.map(|add| {
            let stats: serde_json::Value =
                serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            stats["numRecords"].as_u64().unwrap()
        });
        assert_eq!(rows.sum::<u64>(), 6, "tenant {tenant}");
    }
}
