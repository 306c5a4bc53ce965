//! The file from which `cargo xtask bench` prints its table.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// One row of the table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Result {
    /// What was measured.
    pub row: String,
    /// Against what.
    pub baseline: String,
    /// The goal as text, such as `<= 1.00x`.
    pub goal: String,
    /// Median over the pairs of ours divided by the baseline's; for a goal in units, the figure.
    pub median_ratio: f64,
    /// The bootstrapped 95 % bound of the median on the side of the goal: the upper one where less
    /// is better, the lower one where more is.
    pub upper95: f64,
    /// Whether that bound meets the goal.
    pub met: bool,
    /// Number of pairs; 0 for a void run.
    pub n: usize,
    /// Absolute figures and what else is worth knowing.
    pub note: String,
}

/// Where results are kept: `trace-destination-bench.json` in cargo's target directory.
pub fn path() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    target.join("trace-destination-bench.json")
}

/// Puts a result into the file, in place of an earlier one of the same row.
///
/// # Errors
/// If the file cannot be read or written. One that holds something else is replaced.
pub fn record(result: Result) -> io::Result<()> {
    let path = path();
    let mut all: Vec<Result> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    match all.iter_mut().find(|r| r.row == result.row) {
        Some(there) => *there = result,
        None => all.push(result),
    }
    let scratch = path.with_extension("json.new");
    std::fs::write(&scratch, serde_json::to_vec_pretty(&all)?)?;
    std::fs::rename(scratch, path)
}
