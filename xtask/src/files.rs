//! The files of the repository, without asking git: an archive of it has none.

use crate::cargo::root;
use std::path::PathBuf;
use walkdir::WalkDir;

/// Folders that are made here, or are not the repository's.
const OTHERS: [&str; 4] = [".git", ".live", "artifacts", "target"];

/// The files below a folder of the repository, by their path from its root, sorted. Folders that are
/// links are not followed.
pub(crate) fn below(folder: &str) -> Result<Vec<PathBuf>, String> {
    let walk = WalkDir::new(root().join(folder)).sort_by_file_name();
    let own = walk.into_iter().filter_entry(|entry| {
        !OTHERS.iter().any(|other| entry.file_name() == *other) || entry.depth() == 0
    });
    let mut files = Vec::new();
    for entry in own {
        let entry = entry.map_err(|e| format!("{folder}: {e}"))?;
        // A file that is a link is one; a folder that is a link is not followed.
        if entry.path().is_file()
            && let Ok(file) = entry.path().strip_prefix(root())
        {
            files.push(file.to_owned());
        }
    }
    Ok(files)
}
