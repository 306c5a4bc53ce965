//! The end of a connection: closed with its log merged, or given up because the file is not what it
//! was.

use super::log::Merged;
use super::{Database, Seen};
use crate::beside::{Mark, beside, set_aside};
use crate::config::{BUSY_SLICE, BUSY_TIMEOUT};
use crate::error::Fault;
use crate::pairing::{self, Hold};
use crate::stamp::{FileId, Stamp};
use rusqlite::config::DbConfig;
use std::fs;
use std::time::Instant;

impl Database {
    /// Merges the log and closes the file, which is still the one at its path.
    ///
    /// # Errors
    /// `Unmerged` where another program that reads the file keeps the log from being merged.
    pub(crate) fn close(mut self) -> Result<(), Fault> {
        let began = Instant::now();
        let mut merged = self.merge_all();
        while merged
            .as_ref()
            .is_ok_and(|merged| *merged == Merged::Hindered)
            && began.elapsed() < BUSY_TIMEOUT
        {
            std::thread::sleep(BUSY_SLICE);
            merged = self.merge_all();
        }
        let (path, marked) = (self.path, self.marked);
        // Deletes the log, unless another program has the file open.
        self.conn.close().map_err(|(_conn, e)| e)?;
        match merged? {
            Merged::Whole => {
                if marked {
                    Mark::remove(&path);
                }
                Ok(())
            }
            Merged::Hindered => Err(Fault::Unmerged(path)),
        }
    }

    /// Closes a file that is not at its path any more, or not as it was left. Nothing is written
    /// to the file at the path.
    ///
    /// # Errors
    /// The connection, and why it must stay open for now.
    pub(crate) fn retire(mut self, seen: Seen) -> Result<(), (Box<Self>, Fault)> {
        match seen {
            Seen::Same => Ok(()),
            // The log stays as it is: whether it belongs is for the next to find out.
            Seen::Overwritten | Seen::Changing => self.close_unmerged(),
            Seen::WithoutLog if self.has_successor() => {
                if !self.log.is_whole() {
                    tracing::error!(
                        file = %self.path.display(),
                        "the log of a database was deleted while it was open, and another program \
                         has begun a new one; what was in the deleted log is lost"
                    );
                }
                // Pages of the old log would damage what the new one goes on from.
                self.close_unmerged()
            }
            Seen::WithoutLog => match self.merge("TRUNCATE") {
                Ok(Merged::Whole) => Ok(()),
                Ok(Merged::Hindered) => {
                    let fault = Fault::Unmerged(self.path.clone());
                    Err((Box::new(self), fault))
                }
                Err(fault) => Err((Box::new(self), fault)),
            },
            Seen::Elsewhere if !self.wal => Ok(()),
            Seen::Elsewhere => {
                // Whoever has the file at the path open may share the log with this one.
                let hold = match Hold::take(&self.path) {
                    Err(e) if pairing::is_held(&e) && self.log.is_whole() => {
                        // Nothing of this connection is missing in the file before.
                        Mark::remove(&self.path);
                        return self.close_unmerged();
                    }
                    Err(e) if pairing::is_held(&e) => {
                        let fault = Fault::InUse(self.path.clone());
                        return Err((Box::new(self), fault));
                    }
                    Err(e) => {
                        let fault = Fault::Io(self.path.clone(), e);
                        return Err((Box::new(self), fault));
                    }
                    Ok(hold) => hold,
                };
                // Into the file that this is about, wherever it is by now.
                let merged = self.merge("TRUNCATE");
                if let Ok(Merged::Hindered) = merged {
                    let fault = Fault::InUse(self.path.clone());
                    return Err((Box::new(self), fault));
                }
                let ([log, index], path) = (self.beside, self.path.clone());
                // SQLite sees that the file was moved, and leaves what is at the path alone.
                drop(self);
                let is_at = |id: FileId, suffix| {
                    let found = Stamp::of(&beside(&path, suffix));
                    matches!(found, Ok(Some(found)) if found.id == id)
                };
                if let Some(log) = log
                    && is_at(log, "-wal")
                {
                    let _ = match merged {
                        Ok(_) => fs::remove_file(beside(&path, "-wal")),
                        Err(_) => set_aside(&path, "-wal"),
                    };
                }
                if let Some(index) = index
                    && is_at(index, "-shm")
                {
                    let _ = fs::remove_file(beside(&path, "-shm"));
                }
                Mark::remove(&path);
                drop(hold);
                Ok(())
            }
        }
    }

    /// Closes the connection without touching the file or its log.
    fn close_unmerged(self) -> Result<(), (Box<Self>, Fault)> {
        let quiet = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        match self.conn.set_db_config(quiet, true) {
            Ok(_) => Ok(()),
            Err(e) => Err((Box::new(self), e.into())),
        }
    }

    /// Whether another program uses a log that was made in the place of the one of this connection.
    fn has_successor(&self) -> bool {
        let [log, index] = self.beside;
        let another = |id: Option<FileId>, suffix| {
            let found = Stamp::of(&beside(&self.path, suffix)).ok()??;
            (Some(found.id) != id).then_some(found)
        };
        match another(log, "-wal") {
            None => false,
            Some(found) if found.len > 0 => true,
            // Whoever has the index open holds a lock on it. Not tried on one that this connection
            // shares, whose own locks would end.
            Some(_) => {
                let held = |e| pairing::is_held(&e);
                another(index, "-shm").is_some()
                    && Hold::take(&beside(&self.path, "-shm")).is_err_and(held)
            }
        }
    }

    /// Closes an idle connection that the parent of this process opened, without writing to the
    /// file or its log: that is for those who hold locks on them.
    pub(crate) fn close_inherited(self) {
        let quiet = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if self.conn.set_db_config(quiet, true).is_err() {
            std::mem::forget(self);
        }
    }
}
