//! One transaction per set of ready batches.

use crate::builder::Synchronous;
use crate::connection::Database;
use crate::error::{Fault, WRITE};
use crate::experiment::{self, Resolved};
use crate::location::Target;
use crate::memory::Memory;
use crate::rows::Rows;
use crate::schema::Shape;
use crate::store::Experiment;
use crate::trace::Tables;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;
use trace_destination_core::{Error, Written};

/// A batch of one experiment.
pub(crate) struct Entry {
    pub(crate) experiment: Arc<Experiment>,
    pub(crate) rows: Rows,
}

/// What there is to tell of a batch that was stored, or why it was not.
pub(crate) type Answer = Result<Written, Error>;

/// What is done against rows that the database refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// Nothing: they end the transaction.
    None,
    /// Each step can be taken back alone. Costs a copy of every page it touches.
    EachRow,
}

impl Care {
    /// Takes a step. The inner error says that the database refused it, and that it left nothing.
    pub(crate) fn around(
        self,
        conn: &Connection,
        step: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<Result<(), Error>, Fault> {
        if self == Self::None {
            return step().map(Ok);
        }
        conn.prepare_cached("SAVEPOINT step")?.execute([])?;
        let result = match step() {
            Err(fault) if fault.is_about_the_data() => {
                conn.prepare_cached("ROLLBACK TO step")?.execute([])?;
                Err(fault.during(WRITE))
            }
            result => Ok(result?),
        };
        conn.prepare_cached("RELEASE step")?.execute([])?;
        Ok(result)
    }
}

/// The one writer of a file in this process.
pub(crate) struct Writer {
    path: PathBuf,
    database: Option<Database>,
    memory: Memory,
    /// SQLite's count of changes by others, as of the last transaction.
    foreign_changes: i64,
}

impl Writer {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            database: None,
            memory: Memory::new(),
            foreign_changes: 0,
        }
    }

    /// Resolves the experiment of a location, creating what is missing if that is wanted.
    pub(crate) fn resolve(&mut self, target: &Target) -> Result<Resolved, Fault> {
        self.connect(experiment::may_create(target))?;
        let Some(database) = &mut self.database else {
            return Err(Fault::Abandoned);
        };
        // Looking does not wait for writers, and most locations find what they name.
        begin(database, "BEGIN")?;
        let found = with_shape(database, |conn, shape| {
            experiment::find(conn, shape, target)
        });
        if let Some(found) = finish(database, found)? {
            return Ok(found);
        }
        database.set_synchronous(target.synchronous)?;
        begin(database, "BEGIN IMMEDIATE")?;
        let created = with_shape(database, |conn, shape| {
            experiment::find_or_create(conn, shape, target)
        });
        finish(database, created)
    }

    /// Writes the batches in one transaction and answers each. A batch whose experiment is gone
    /// fails alone; rows that the database refuses are refused alone.
    pub(crate) fn write(&mut self, entries: &[Entry]) -> Vec<Answer> {
        let mut result = self.try_write(entries, Care::None);
        if result.as_ref().is_err_and(Fault::is_about_the_data) {
            // Which rows it was is only worth knowing when it happens.
            self.memory.forget();
            result = self.try_write(entries, Care::EachRow);
        }
        match result {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(|fault| fault.during(WRITE)))
                .collect(),
            Err(fault) => {
                self.memory.forget();
                let error = fault.during(WRITE);
                entries.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn try_write(
        &mut self,
        entries: &[Entry],
        care: Care,
    ) -> Result<Vec<Result<Written, Fault>>, Fault> {
        let targets = || entries.iter().map(|entry| &entry.experiment.target);
        self.connect(targets().any(|t| experiment::may_create(t)))?;
        let Some(database) = &mut self.database else {
            return Err(Fault::Abandoned);
        };
        let synchronous = targets().map(|t| t.synchronous).max();
        database.set_synchronous(synchronous.unwrap_or(Synchronous::Normal))?;
        begin(database, "BEGIN IMMEDIATE")?;
        let written = write_all(
            database,
            &mut self.memory,
            &mut self.foreign_changes,
            entries,
            care,
        );
        finish(database, written)
    }

    /// Opens the file if it is not open, or is no longer the one at its path.
    fn connect(&mut self, create: bool) -> Result<(), Fault> {
        if self.database.as_ref().is_some_and(Database::is_current) {
            return Ok(());
        }
        self.memory.forget();
        // Closed first, so that closing cannot touch the files of its successor.
        self.database = None;
        self.database = Some(Database::open(&self.path, create)?);
        Ok(())
    }

    /// Limits the size of the file, as a full disk would.
    pub(crate) fn limit_pages(&mut self, pages: u32) -> Result<(), Fault> {
        if let Some(database) = &self.database {
            database
                .conn
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        Ok(())
    }
}

fn with_shape<T>(
    database: &mut Database,
    run: impl FnOnce(&Connection, &Shape) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let (conn, known) = database.look()?;
    run(conn, &known.shape)
}

fn begin(database: &Database, how: &str) -> Result<(), Fault> {
    // A panic may have left one open.
    if !database.conn.is_autocommit() {
        database.conn.execute_batch("ROLLBACK")?;
    }
    database.conn.prepare_cached(how)?.execute([])?;
    Ok(())
}

/// Commits, or rolls everything back.
fn finish<T>(database: &Database, result: Result<T, Fault>) -> Result<T, Fault> {
    let result = result.and_then(|value| {
        database.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(value)
    });
    // Some failures end the transaction by themselves.
    if result.is_err()
        && !database.conn.is_autocommit()
        && let Err(error) = database.conn.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a failed transaction could not be rolled back");
    }
    result
}

fn write_all(
    database: &mut Database,
    memory: &mut Memory,
    foreign_changes: &mut i64,
    entries: &[Entry],
    care: Care,
) -> Result<Vec<Result<Written, Fault>>, Fault> {
    let changes = database
        .conn
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?;
    if changes != *foreign_changes {
        memory.forget();
        *foreign_changes = changes;
    }
    let (conn, known) = database.look()?;
    let mut tables = Tables::open(conn, &known.shape, &known.statements)?;
    let mut answers = Vec::with_capacity(entries.len());
    for Entry { experiment, rows } in entries {
        let resolved = match experiment.current(conn, &known.shape) {
            Ok(resolved) => resolved,
            Err(fault @ Fault::Sqlite(_)) => return Err(fault),
            Err(fault) => {
                answers.push(Err(fault));
                continue;
            }
        };
        let mut told = Written::default();
        for trace in &rows.traces {
            let put = &mut told;
            let written = care.around(conn, || {
                tables.write(memory, rows, trace, &resolved, care, put)
            })?;
            if let Err(error) = written {
                let spans = &rows.spans[trace.spans.clone()];
                let refused = &mut told.refused;
                refused.retain(|r| !spans.iter().any(|row| row.index == r.index));
                refused.extend(spans.iter().map(|row| row.refused(&error)));
            }
        }
        answers.push(Ok(told));
    }
    Ok(answers)
}
