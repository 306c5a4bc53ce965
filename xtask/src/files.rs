//! The files of the repository, without asking git: an archive of it has none.

use crate::cargo::root;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made here, or are not the repository's.
const OTHERS: [&str; 4] = [".git", ".live", "artifacts", "target"];

/// The files below a folder of the repository, by their path from its root, sorted. Folders that are
/// links are not followed.
pub(crate) fn below(folder: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files).map_err(|e| format!("{folder}: {e}"))?;
    files.sort();
    let relative = |file: &PathBuf| file.strip_prefix(root()).map(Path::to_owned).ok();
    Ok(files.iter().filter_map(relative).collect())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !OTHERS.iter().any(|other| entry.file_name() == *other) {
                walk(&path, files)?;
            }
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
