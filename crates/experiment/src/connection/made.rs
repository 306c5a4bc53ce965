//! Before SQLite sees a file: whether it is there, how it is made, and which kind of log it may use.

use super::no_file;
use crate::error::Fault;
use crate::file_system;
use crate::options::{Access, JournalMode};
use crate::pairing;
use std::fs;
use std::io;
use std::path::Path;

/// Whether there is a file; an error where there is none and none may be made.
pub(super) fn is_there(path: &Path, may_make: bool) -> Result<bool, Fault> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(Fault::Folder(path.into())),
        Ok(_) => Ok(true),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Fault::Io(path.into(), e)),
        Err(_) if may_make => Ok(false),
        Err(_) => Err(no_file(path)),
    }
}

/// Makes an empty file, and the folder it is in, before SQLite would make one that everybody may
/// read. SQLite gives the log and its index the mode of the file. A folder further up is not made:
/// it is more likely misspelt, or a disk that is not mounted.
pub(super) fn make(path: &Path, access: Access) -> Result<(), Fault> {
    let folder = path.parent().unwrap_or(path);
    let mut folders = fs::DirBuilder::new();
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let (of_folder, of_file) = match access {
            Access::Owner => (0o700, 0o600),
            Access::Umask => (0o777, 0o666),
        };
        folders.mode(of_folder);
        file.mode(of_file);
    }
    #[cfg(not(unix))]
    let _ = access;
    match folders.create(folder) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::NoFolder(folder.parent().unwrap_or(folder).into()));
        }
        // Of a folder that may not be written to, as `/` may not, or on a mount that is read-only.
        Err(_) if folder.is_dir() => {}
        Err(e) => return Err(Fault::Io(folder.into(), e)),
    }
    match file.open(path) {
        Ok(_) => Ok(()),
        // Somebody else was quicker: the file is as they made it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The folder is at fault, not the file.
        Err(e) => Err(Fault::Io(folder.into(), e)),
    }
}

/// The kind of log that a file is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    /// `None` where it keeps what it has.
    pub(super) wanted: Option<&'static str>,
    /// It has a write-ahead log now, on a file system where that must not be used by two machines.
    pub(super) is_of_network: bool,
}

/// Which kind of log a file is to have.
///
/// # Errors
/// `NetworkLog` where it would be a write-ahead log on a network file system.
pub(super) fn journal_mode(path: &Path, mode: JournalMode, empty: bool) -> Result<Journal, Fault> {
    let wanted = match mode {
        JournalMode::Wal => Some("wal"),
        JournalMode::Delete => Some("delete"),
        JournalMode::Keep => empty.then_some("wal"),
    };
    let Some(kind) = file_system::network(path) else {
        return Ok(Journal {
            wanted,
            is_of_network: false,
        });
    };
    let read = || pairing::uses_write_ahead_log(path).map_err(|e| Fault::Io(path.into(), e));
    let has = !empty && read()?;
    match wanted {
        Some("delete") => {}
        None if !has => {}
        _ => {
            return Err(Fault::NetworkLog {
                path: path.into(),
                kind,
            });
        }
    }
    Ok(Journal {
        wanted,
        is_of_network: has,
    })
}
