//! The write-ahead log of an open file: how much is in it, merging it, and what makes it known as the
//! file's own after a crash.

use super::{Database, Seen};
use crate::beside::{Generation, Mark};
use crate::error::Fault;
use crate::pairing;
use crate::stamp::Stamp;
use std::hash::{BuildHasher, RandomState};

/// Pages in the write-ahead log, and how many of them are merged into the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) pages: i64,
    pub(super) merged: i64,
    /// The first salt in the header of the log; `None` where that is empty.
    pub(super) salt: Option<u32>,
}

impl LogState {
    pub(super) fn is_whole(&self) -> bool {
        self.merged >= self.pages
    }
}

/// How a merge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// The file is complete without its log.
    Whole,
    /// Another program reads what was there before, or merges.
    Hindered,
}

impl Database {
    /// Whether another program merged the log into the file, which writes it.
    pub(super) fn was_merged_by_others(&mut self) -> bool {
        let Ok(now) = self.log_state() else {
            return false;
        };
        let before = std::mem::replace(&mut self.log, now);
        // Begun anew by anybody, this connection included, once it was merged as a whole. That
        // alone changes the log, not the file.
        let begun_anew = now.pages < before.pages || now.salt != before.salt;
        match begun_anew {
            true => !before.is_whole() || now.merged > 0,
            false => now.merged > before.merged,
        }
    }

    pub(super) fn log_state(&self) -> Result<LogState, Fault> {
        let mut statement = self.conn.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        let salt = pairing::salt(&self.path);
        Ok(statement.query_row([], |row| {
            Ok(LogState {
                pages: row.get(1)?,
                merged: row.get(2)?,
                salt,
            })
        })?)
    }

    /// Before the first transaction that writes: gives the file a count of changes that no copy of
    /// it has, and marks it, so that after a crash its log is known to be its own.
    pub(super) fn prepare_to_write(&mut self) -> Result<(), Fault> {
        if self.marked || !self.wal {
            return Ok(());
        }
        if self.made {
            // A file without a table, which all of the log goes on from, has no copies.
            self.marked = true;
            self.mark(false);
            return Ok(());
        }
        let times = 1 + RandomState::new().hash_one(&self.path) % 8;
        for _ in 0..times {
            self.begin("BEGIN IMMEDIATE")?;
            let counted = self.count();
            self.finish(counted)?;
        }
        self.log = self.log_state()?;
        self.marked = true;
        self.merge("PASSIVE")?;
        Ok(())
    }

    /// Counts a change in the file's header, within a transaction. In a write-ahead log SQLite does
    /// so only for transactions that change page 1, and by itself not twice while it has that page
    /// in memory; taking back a change makes it look at the page again.
    pub(super) fn count(&self) -> Result<(), Fault> {
        let version: i64 = self
            .conn
            .prepare_cached("PRAGMA user_version")?
            .query_row([], |row| row.get(0))?;
        // The value it has: nothing else changes.
        let touch = format!("PRAGMA user_version = {version}");
        for statement in [
            &touch,
            "SAVEPOINT counted",
            &touch,
            "ROLLBACK TO counted",
            "RELEASE counted",
        ] {
            self.conn.prepare_cached(statement)?.execute([])?;
        }
        Ok(())
    }

    /// Moves what is in the log into the file. The file must have been seen to be the same.
    pub(super) fn merge(&mut self, how: &str) -> Result<Merged, Fault> {
        self.mark(true);
        // An empty log goes on from the one that was there before.
        let salt = pairing::salt(&self.path).or(self.log.salt);
        let mut statement = self
            .conn
            .prepare_cached(&format!("PRAGMA wal_checkpoint({how})"))?;
        let merged = statement.query_row([], |row| {
            let state = LogState {
                pages: row.get(1)?,
                merged: row.get(2)?,
                salt,
            };
            Ok((row.get::<_, i64>(0)? != 0, state))
        });
        drop(statement);
        if let Ok(Some(now)) = Stamp::of(&self.path)
            && now.id == self.stamp.id
        {
            self.stamp = now;
        }
        // Where it failed, what was merged is unknown, but of the same log.
        self.log = match &merged {
            Ok((_, state)) => *state,
            Err(_) => LogState { salt, ..self.log },
        };
        self.mark(false);
        let (busy, state) = merged?;
        Ok(match busy || !state.is_whole() {
            true => Merged::Hindered,
            false => Merged::Whole,
        })
    }

    /// Makes the file complete without its log, and the log empty.
    pub(crate) fn merge_all(&mut self) -> Result<Merged, Fault> {
        if !self.wal || self.log_state()?.pages == 0 {
            return Ok(Merged::Whole);
        }
        match self.seen() {
            Seen::Same => self.merge("TRUNCATE"),
            _ => Err(Fault::Replaced(self.path.clone())),
        }
    }

    pub(super) fn mark(&self, merging: bool) {
        if !self.marked {
            return;
        }
        let generation = Generation {
            salt: self.log.salt.unwrap_or_default(),
            whole: self.log.is_whole(),
        };
        // Of a log without a header nothing is known.
        let merging = merging || self.log.salt.is_none();
        if let Err(error) = Mark::new(&self.stamp, merging, generation).write(&self.path) {
            // An old one might contradict the log.
            Mark::remove(&self.path);
            tracing::debug!(%error, "a database could not be marked");
        }
    }
}
