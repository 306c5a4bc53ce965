//! One connection: opened, created, checked, merged, and opened again when its file was replaced.

mod ended;
mod log;
mod made;

pub(crate) use log::Merged;

use crate::beside::beside;
use crate::config::{
    BUSY_SLICE, BUSY_TIMEOUT, DOUBT, LOG_LIMIT_BYTES, MERGE_AFTER_PAGES, UPGRADE_GRACE,
};
use crate::error::Fault;
use crate::options::{Access, JournalMode, Synchronous};
use crate::pairing;
use crate::process::{Process, Slot};
use crate::schema::{self, Shape};
use crate::sql::Statements;
use crate::stamp::{FileId, Stamp};
use log::LogState;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// How a file is opened, as the locations want it that share the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// An absent or empty file is made, for these users.
    pub(crate) create: Option<Access>,
    pub(crate) journal_mode: JournalMode,
}

/// An open database, with its shape as of the last look.
pub(crate) struct Database {
    pub(crate) conn: Connection,
    path: PathBuf,
    /// The file as it was when this connection or another one that was noticed wrote it last.
    stamp: Stamp,
    /// The file as somebody wrote it who may be merging it, and since when it is like that.
    doubt: Option<(Stamp, Instant)>,
    /// The write-ahead log, and its index.
    beside: [Option<FileId>; 2],
    /// The log is a write-ahead log; otherwise `synchronous=NORMAL` would not be safe.
    wal: bool,
    log: LogState,
    /// It was made by this connection.
    made: bool,
    /// A mark lies beside the file.
    marked: bool,
    synchronous: Option<Synchronous>,
    /// Memory for pages, in KiB.
    cache: i64,
    known: Option<Known>,
    _slot: Slot,
}

/// What became of the file of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is at its path, and nobody but SQLite wrote it.
    Same,
    /// Somebody writes it, who may be merging its log.
    Changing,
    /// Its log was deleted or replaced.
    WithoutLog,
    /// Somebody wrote into it past SQLite.
    Overwritten,
    /// Another file is at its path, or none.
    Elsewhere,
}

/// A shape, and what it was read from.
pub(crate) struct Known {
    cookie: i64,
    revision: String,
    pub(crate) shape: Shape,
    pub(crate) statements: Statements,
    used: bool,
}

impl Database {
    /// Opens a file that holds an MLflow database this crate can write. Where the manner allows it,
    /// a file that is absent or empty becomes one first, in one transaction. `overwritten`:
    /// somebody wrote into the file while it was open before.
    pub(crate) fn open(path: &Path, manner: Manner, overwritten: bool) -> Result<Self, Fault> {
        let process = Process::current();
        process.may_open(path)?;
        let there = made::is_there(path, manner.create.is_some())?;
        pairing::settle(path, overwritten)?;
        if let (false, Some(access)) = (there, manner.create) {
            made::make(path, access)?;
        }
        let io = |e| Fault::Io(path.into(), e);
        let absent = || no_file(path);
        let before = Stamp::of(path).map_err(io)?.ok_or_else(absent)?;
        if before.len == 0 && manner.create.is_none() {
            return Err(no_file(path));
        }
        let journal = made::journal_mode(path, manner.journal_mode, before.len == 0)?;
        let slot = process.connections.slot();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY_SLICE)?;
        conn.set_prepared_statement_cache_capacity(64);
        conn.pragma_update(None, "foreign_keys", true)?;
        if journal.is_of_network {
            // Its index is in the memory of this process then, and nobody else gets in.
            conn.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        }
        let mut database = Self {
            conn,
            path: path.into(),
            stamp: before,
            doubt: None,
            beside: [None; 2],
            wal: false,
            log: LogState::default(),
            made: false,
            marked: false,
            synchronous: None,
            cache: 0,
            known: None,
            _slot: slot,
        };
        database.fit_cache(process.connections.cache_kib())?;
        if schema::is_empty(&database.conn).map_err(|f| database.translated(f))? {
            if manner.create.is_none() {
                return Err(no_file(path));
            }
            database.set_journal_mode(journal.wanted.or(Some("wal")))?;
            database.create()?;
        } else {
            database.look()?;
            database.set_journal_mode(journal.wanted)?;
        }
        if journal.is_of_network {
            let conn = &database.conn;
            conn.pragma_update_and_check(None, "locking_mode", "NORMAL", |_| Ok(()))?;
            // Let go at the next access.
            schema::is_empty(conn)?;
        }
        if database.wal {
            // Merging is this crate's, so that it is known who wrote the file.
            database.pragma("wal_autocheckpoint", 0)?;
            database.pragma("journal_size_limit", LOG_LIMIT_BYTES)?;
            database.log = database.log_state()?;
        }
        let id = |suffix| Some(Stamp::of(&beside(path, suffix)).ok()??.id);
        database.beside = [id("-wal"), id("-shm")];
        match Stamp::of(path).map_err(io)? {
            Some(after) if after.id == before.id => database.stamp = after,
            _ => return Err(Fault::Replaced(path.into())),
        }
        Ok(database)
    }

    fn pragma(&self, name: &str, value: i64) -> Result<(), Fault> {
        Ok(self
            .conn
            .pragma_update_and_check(None, name, value, |_| Ok(()))?)
    }

    /// What became of the file since the last transaction. One that was deleted or replaced would
    /// take writes that nobody ever sees; one that was overwritten would be damaged by them.
    pub(crate) fn seen(&mut self) -> Seen {
        let Ok(Some(now)) = Stamp::of(&self.path) else {
            return Seen::Elsewhere;
        };
        if now.id != self.stamp.id {
            return Seen::Elsewhere;
        }
        if !self.wal {
            // Every program writes into it, and SQLite notices by itself.
            self.stamp = now;
            return Seen::Same;
        }
        if now != self.stamp {
            if !self.was_merged_by_others() || now.len == 0 {
                return match self.doubt {
                    Some((stamp, since)) if stamp == now && since.elapsed() >= DOUBT => {
                        Seen::Overwritten
                    }
                    Some((stamp, _)) if stamp == now => Seen::Changing,
                    _ => {
                        self.doubt = Some((now, Instant::now()));
                        Seen::Changing
                    }
                };
            }
            self.doubt = None;
            self.stamp = now;
            self.mark(false);
        }
        let log = Stamp::of(&beside(&self.path, "-wal"));
        match self.beside[0] {
            Some(id) if !matches!(log, Ok(Some(log)) if log.id == id) => Seen::WithoutLog,
            _ => Seen::Same,
        }
    }

    /// What became of the file, once that is clear or it has changed for too long. Blocks.
    pub(crate) fn seen_at_last(&mut self) -> Seen {
        let began = Instant::now();
        loop {
            match self.seen() {
                Seen::Changing if began.elapsed() < BUSY_TIMEOUT => std::thread::sleep(BUSY_SLICE),
                seen => return seen,
            }
        }
    }

    /// Begins a transaction that reads.
    pub(crate) fn begin_read(&mut self) -> Result<(), Fault> {
        self.begin("BEGIN")
    }

    /// Begins a transaction that writes, in a file that is still the one that was opened.
    pub(crate) fn begin_write(&mut self) -> Result<(), Fault> {
        self.prepare_to_write()?;
        self.begin("BEGIN IMMEDIATE")?;
        // Looked at again: the lock may have taken a while.
        let begun = match self.seen() {
            Seen::Same => self.count(),
            _ => Err(Fault::Replaced(self.path.clone())),
        };
        if begun.is_err() {
            self.roll_back();
        }
        begun
    }

    fn begin(&mut self, how: &str) -> Result<(), Fault> {
        // A panic may have left one open.
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        self.conn.prepare_cached(how)?.execute([])?;
        Ok(())
    }

    /// Commits, or rolls everything back.
    pub(crate) fn finish<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        let result = result.and_then(|value| {
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        });
        if result.is_err() {
            self.roll_back();
            // What such a file looks like in the middle of it is not worth telling.
            if self.seen() != Seen::Same {
                return Err(Fault::Replaced(self.path.clone()));
            }
        }
        result
    }

    /// Commits, or rolls everything back. What was committed counts only if the file was in its
    /// place the whole time.
    pub(crate) fn finish_write<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        let value = self.finish(result)?;
        if self.seen_at_last() != Seen::Same {
            return Err(Fault::Replaced(self.path.clone()));
        }
        if self.wal {
            self.log = self.log_state()?;
            // Where a reader is in the way, not again with every transaction.
            let unmerged = self.log.pages - self.log.merged;
            if unmerged >= MERGE_AFTER_PAGES
                && let Err(fault) = self.merge("PASSIVE")
            {
                // What was committed is stored, wherever it lies.
                tracing::debug!(error = ?fault, "the log of a database could not be merged yet");
            }
        }
        Ok(value)
    }

    fn roll_back(&self) {
        // Some failures end the transaction by themselves.
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a failed transaction could not be rolled back");
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no transaction is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.conn.is_autocommit()
    }

    /// Sets the memory for pages, in KiB.
    pub(crate) fn fit_cache(&mut self, kib: i64) -> Result<(), Fault> {
        if kib != self.cache {
            self.conn.pragma_update(None, "cache_size", -kib)?;
            self.cache = kib;
        }
        Ok(())
    }

    /// Sets how sure the following commits are.
    pub(crate) fn set_synchronous(&mut self, wanted: Synchronous) -> Result<(), Fault> {
        let wanted = if self.wal { wanted } else { Synchronous::Full };
        if self.synchronous != Some(wanted) {
            let value = match wanted {
                Synchronous::Normal => "NORMAL",
                Synchronous::Full => "FULL",
            };
            self.conn.pragma_update(None, "synchronous", value)?;
            self.synchronous = Some(wanted);
        }
        Ok(())
    }

    /// The connection, and the shape of the database as the current transaction sees it. Cheap
    /// where nothing changed.
    pub(crate) fn look(&mut self) -> Result<(&Connection, &Known), Fault> {
        let mut known = match look(&self.conn, self.known.take()) {
            Ok(known) => known,
            Err(fault) => return Err(self.translated(fault)),
        };
        let looked_up = !std::mem::replace(&mut known.used, true);
        if looked_up
            && !schema::is_known(&known.revision)
            && Process::current()
                .shapes
                .is_news(&self.path, &known.revision)
        {
            tracing::warn!(
                file = %self.path.display(),
                revision = %schema::shown(&known.revision),
                "the MLflow schema revision of the database is not known to this program; its tables \
                 take what is written, and are written"
            );
        }
        Ok((&self.conn, self.known.insert(known)))
    }

    /// Makes the tables, unless another process has done so meanwhile. A process that dies in
    /// between leaves an empty file, which the next one fills.
    fn create(&mut self) -> Result<(), Fault> {
        self.set_synchronous(Synchronous::Full)?;
        let transaction = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if schema::is_empty(&transaction)? {
            schema::create(&transaction)?;
            self.made = true;
        }
        transaction.commit()?;
        self.look()?;
        Ok(())
    }

    /// Switches to another kind of log, where one is wanted. A file that is in use at this moment
    /// stays as it is.
    fn set_journal_mode(&mut self, wanted: Option<&str>) -> Result<(), Fault> {
        let mode = |sql: &str| self.conn.query_row(sql, [], |row| row.get::<_, String>(0));
        let mut found = mode("PRAGMA journal_mode")?;
        // Of those that are not write-ahead, each is as good as another.
        if let Some(wanted) = wanted
            && (wanted == "wal") != (found == "wal")
        {
            match mode(&format!("PRAGMA journal_mode = {wanted}")) {
                Ok(now) => found = now,
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.wal = found == "wal";
        Ok(())
    }

    /// A refusal that may be of the moment: MLflow makes and upgrades a file in many steps, which
    /// others can see.
    fn translated(&self, fault: Fault) -> Fault {
        let found = match &fault {
            Fault::NoRevision { found } => found.clone(),
            Fault::TooOld { revision } => format!("it is at revision {revision}"),
            Fault::Incomplete { missing, .. } => missing.clone(),
            _ => return fault,
        };
        if changed_lately(&self.path) {
            Fault::InTransition { found }
        } else {
            fault
        }
    }
}

fn look(conn: &Connection, known: Option<Known>) -> Result<Known, Fault> {
    let revision = schema::revision(conn)?;
    let cookie = schema::cookie(conn)?;
    if let Some(known) = known
        && known.cookie == cookie
        && known.revision == revision
    {
        return Ok(known);
    }
    conn.flush_prepared_statement_cache();
    let shape = Process::current().shapes.of(conn, &revision)?;
    let statements = Statements::of(&shape);
    Ok(Known {
        cookie,
        revision,
        shape,
        statements,
        used: false,
    })
}

fn no_file(path: &Path) -> Fault {
    Fault::NoFile {
        path: path.into(),
        why: "give an `experiment_name` without `create=false` to have it made",
    }
}

fn changed_lately(path: &Path) -> bool {
    [
        path.to_owned(),
        beside(path, "-wal"),
        beside(path, "-journal"),
    ]
    .iter()
    .filter_map(|p| fs::metadata(p).and_then(|m| m.modified()).ok())
    .any(|at| {
        SystemTime::now()
            .duration_since(at)
            .map_or(true, |age| age < UPGRADE_GRACE)
    })
}

#[cfg(test)]
mod tests;
