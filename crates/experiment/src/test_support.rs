//! For tests of this crate and of the conformance suite; not part of the API.

use crate::location::ExperimentLocation;
use crate::process::Process;
use trace_destination_core::Error;

/// Lets the open file of a location grow to `pages` pages and no further, as a full disk would.
/// Ends with the connection.
///
/// # Errors
/// Whatever SQLite says.
pub fn limit_pages(location: &ExperimentLocation, pages: u32) -> Result<(), Error> {
    Process::current()
        .store(location.path())
        .limit_pages(pages)
        .map_err(|fault| fault.during("limit the file"))
}

/// Memory that all open files of this process hold beside the batches themselves, in bytes.
pub fn held_bytes() -> usize {
    Process::current().held_bytes()
}

/// The DDL of revision `a1b2c3d4e5f6` as MLflow makes it, without what new files have beyond it.
pub const OLDEST: &str = crate::schema::MLFLOW_TABLES;
