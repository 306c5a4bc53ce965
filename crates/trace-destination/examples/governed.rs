//! Stores the traces of each tenant in a Delta table, in a local folder that serves as the catalog. No
//! server is needed, and everything that reads Delta reads the tables. Run it:
//!
//! ```text
//! cargo run --example governed --features unity-catalog
//! ```
//!
//! With `UNITY_CATALOG_URI` set, and no `?root=`, the same names are tables of that server.
#![allow(clippy::print_stdout)]

use std::time::Duration;
use trace_destination::unity_catalog::UnityCatalogLocation;
use trace_destination::{Pipeline, Template};

/// Named as in Unity Catalog: catalog, schema, and the prefix of the table, which is the tenant's name.
const TENANT: &str = "uc://main.traces.{tenant}?root=lakehouse";
const TENANTS: [&str; 2] = ["acme", "globex"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. One table for each tenant, created when its first trace is stored.
    let template = Template::new(TENANT)?;

    // 2. Traces captured from a real agent, each to the tenant it belongs to.
    let pipeline = Pipeline::builder().strict().build()?;
    let mut replayed = 0;
    for group in
        trace_destination_otlp::decode_protobuf(trace_destination_otlp::sample::captured())?
    {
        for span in group.spans {
            let tenant = TENANTS[usize::from(span.trace_id.to_bytes()[0]) % TENANTS.len()];
            let (resource, scope) = (group.resource.clone(), group.scope.clone());
            let destination = template.destination([("tenant", tenant)])?;
            let sent = pipeline.ingest(resource, scope, vec![span], &destination);
            replayed += sent.accepted;
        }
    }

    // 3. Stored is committed: readers see it from now on.
    let report = pipeline.shutdown(Duration::from_secs(30)).await;
    if !report.all_stored() {
        return Err(format!("not everything was stored:\n{report}").into());
    }
    println!("{replayed} spans replayed\n{report}\n");

    // 4. Maintenance of the tables: here a checkpoint, so that readers start quickly.
    for tenant in TENANTS {
        let destination = template.destination([("tenant", tenant)])?;
        let table = UnityCatalogLocation::from_uri(destination.locations()[0].uri())?;
        let version = table.maintenance().await?.checkpoint().await?;
        println!("{} is at version {version}", table.table_name());
    }
    println!(
        "\nduckdb -c \"INSTALL delta; LOAD delta; SELECT service_name, name, count(*) \
         FROM delta_scan('lakehouse/main/traces/acme_otel_spans') GROUP BY ALL\""
    );
    Ok(())
}
