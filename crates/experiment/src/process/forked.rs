//! What a child does with the connections of its parent.
//!
//! SQLite keeps track of a process's file locks in memory, by file. The child's copy lists locks
//! that only the parent holds, and a connection that the child opens beside an inherited one would
//! take no locks of its own: the parent, finding none, deletes the log under the child's hands. So
//! inherited connections have to go before the child opens the same file.
//!
//! One that was idle during the fork holds no lock and no transaction. Closing it without a
//! checkpoint writes nothing, and releases only locks of the child. One that was in use must not be
//! touched: it is leaked, and its file refused.

use super::Process;
use crate::connection::Database;
use crate::store::{InUse, take_database};
use rusqlite::Connection;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError, mpsc};
use std::time::Duration;

/// Longer than it takes to close as many connections as there can be.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the parent's connections.
pub(super) enum Inherited {
    /// They are closed, but for those of files that were in use.
    Closed { in_use: HashSet<PathBuf> },
    /// A thread that exists only in the parent holds a lock that this needs.
    Stuck,
}

impl Inherited {
    /// Closes what can be closed.
    pub(super) fn settle(parent: &Arc<Process>) -> Self {
        let mut idle = Vec::new();
        let mut in_use = HashSet::new();
        let mut next = Some(parent);
        while let Some(process) = next {
            let files = match process.files.try_lock() {
                Ok(files) => files,
                Err(TryLockError::Poisoned(files)) => files.into_inner(),
                Err(TryLockError::WouldBlock) => return Self::Stuck,
            };
            for (path, open) in files.iter() {
                let Some(writer) = open.writer.upgrade() else {
                    continue;
                };
                match take_database(&writer) {
                    Ok(database) => idle.extend(database),
                    Err(InUse) => {
                        in_use.insert(path.clone());
                    }
                }
                // Should it be the last, its files are not to be closed.
                std::mem::forget(writer);
            }
            match process.orphans.try_lock() {
                Ok(mut orphans) => idle.append(&mut orphans),
                Err(_) => return Self::Stuck,
            }
            next = process.parent.as_ref();
        }
        let (open, broken): (Vec<_>, Vec<_>) = idle.into_iter().partition(Database::is_idle);
        for database in broken {
            in_use.insert(database.path().to_owned());
            std::mem::forget(database);
        }
        match close(open) {
            true => Self::Closed { in_use },
            false => Self::Stuck,
        }
    }

    pub(super) fn may_open(&self, path: &Path) -> bool {
        match self {
            Self::Closed { in_use } => !in_use.contains(path),
            Self::Stuck => false,
        }
    }
}

/// Closes connections that were opened before the fork; false if SQLite does not answer, because a
/// thread that is not here was inside it. Asks SQLite also where there is nothing to close.
pub(super) fn close(databases: Vec<Database>) -> bool {
    let (done, told) = mpsc::channel();
    let closing = move || {
        // Also shows that the locks SQLite has for the whole process are free.
        let works = Connection::open_in_memory().is_ok();
        for database in databases {
            database.close_inherited();
        }
        let _ = done.send(works);
    };
    let thread = std::thread::Builder::new().name("sqlite-after-fork".into());
    thread.spawn(closing).is_ok() && told.recv_timeout(PATIENCE) == Ok(true)
}
