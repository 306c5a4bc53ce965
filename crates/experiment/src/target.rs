//! What a location names, checked and resolved.

use crate::options::{Access, JournalMode, MissingExperiment, Synchronous};
use std::path::PathBuf;

/// What a location names, checked and resolved.
#[derive(Debug)]
pub(crate) struct Target {
    /// Absolute, without symbolic links as far as it existed.
    pub(crate) path: PathBuf,
    /// At least one of name and id is given.
    pub(crate) name: Option<String>,
    pub(crate) id: Option<i64>,
    pub(crate) missing: MissingExperiment,
    pub(crate) synchronous: Synchronous,
    pub(crate) artifact_root: Option<String>,
    pub(crate) access: Access,
    pub(crate) journal_mode: JournalMode,
}
