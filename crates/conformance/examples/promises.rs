//! Runs the suite on the reference backend, and prints the report as JSON:
//!
//! ```sh
//! cargo run -p trace-destination-conformance --example promises -- 9      # one promise's cases
//! cargo run -p trace-destination-conformance --example promises -- light  # all but the slow ones
//! cargo run -p trace-destination-conformance --example promises
//! ```
//!
//! `cargo xtask mutants` runs it in a copy of the workspace that has a fault in it.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::process::ExitCode;
use std::sync::Arc;
use trace_destination_conformance::{Failure, MemoryHarness, Suite};

fn main() -> Result<ExitCode, Failure> {
    let suite = Suite::new().with_harness(Arc::new(MemoryHarness::new()));
    let suite = match std::env::args().nth(1).as_deref() {
        None => suite,
        Some("light") => suite.without_heavy(),
        Some(promise) => suite.with_promise(promise.parse()?),
    };
    // What fails is in the report.
    std::panic::set_hook(Box::new(|_| {}));
    let report = suite.run();
    println!("{}", report.to_json()?);
    Ok(match report.verdict() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}
