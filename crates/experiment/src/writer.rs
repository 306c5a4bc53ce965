//! One transaction per set of ready batches.

use crate::connection::{Database, Manner, Merged, Seen};
use crate::error::{Fault, OPEN, WRITE};
use crate::experiment;
use crate::memory::Memory;
use crate::options::Synchronous;
use crate::pairing;
use crate::process::Process;
use crate::requests::{Answers, Entry, Opening, Stored, Writing};
use crate::schema::Shape;
use crate::target::Target;
use crate::trace::Tables;
use rusqlite::Connection;
use std::path::PathBuf;
use trace_destination_core::Error;

/// What became of a batch, or why its transaction went on without it.
type Answer = Result<Stored, Fault>;

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
        operation: &'static str,
        step: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<Result<(), Error>, Fault> {
        if self == Self::None {
            return step().map(Ok);
        }
        conn.prepare_cached("SAVEPOINT step")?.execute([])?;
        let result = match step() {
            Err(fault) if fault.is_about_the_data() => {
                conn.prepare_cached("ROLLBACK TO step")?.execute([])?;
                Err(fault.during(operation))
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
    /// Somebody wrote into the file while it was open; it was not opened since.
    overwritten: bool,
    memory: Memory,
    /// SQLite's count of changes by others, as of the last transaction.
    foreign_changes: i64,
}

impl Writer {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            database: None,
            overwritten: false,
            memory: Memory::new(),
            foreign_changes: 0,
        }
    }

    /// Resolves the experiments of locations, creating what is missing if that is wanted. Answers
    /// those it can, and takes them out of `opens`.
    ///
    /// # Errors
    /// Why the others could not be resolved, all of them.
    pub(crate) fn resolve(
        &mut self,
        opens: &mut Vec<Opening>,
        answers: &mut Answers,
    ) -> Result<(), Fault> {
        let manner = manner(opens.iter().map(|open| &*open.what));
        let database = self.connect(manner)?;
        // Looking does not wait for writers, and most locations find what they name.
        database.begin_read()?;
        let found = with_shape(database, |conn, shape| {
            each(opens, |target| experiment::find(conn, shape, target))
        });
        let found = database.finish(found)?;
        let mut missing = Vec::new();
        for (open, found) in std::mem::take(opens).into_iter().zip(found) {
            match found {
                Ok(Some(resolved)) => answers.of_open(open, Ok(resolved)),
                Ok(None) => missing.push(open),
                Err(fault) => answers.of_open(open, Err(fault.during(OPEN))),
            }
        }
        *opens = missing;
        let Some(synchronous) = opens.iter().map(|open| open.what.synchronous).max() else {
            return Ok(());
        };
        database.set_synchronous(synchronous)?;
        database.begin_write()?;
        let made = with_shape(database, |conn, shape| {
            each(opens, |target| {
                let mut resolved = None;
                let put = || {
                    resolved = Some(experiment::find_or_create(conn, shape, target)?);
                    Ok(())
                };
                let refused = Care::EachRow.around(conn, OPEN, put)?;
                Ok(refused.and_then(|()| resolved.ok_or_else(|| Fault::Abandoned.during(OPEN))))
            })
        });
        let made = database.finish_write(made)?;
        for (open, made) in opens.drain(..).zip(made) {
            answers.of_open(open, made.unwrap_or_else(|fault| Err(fault.during(OPEN))));
        }
        Ok(())
    }

    /// Writes the batches in one transaction and answers each. A batch whose experiment is gone
    /// fails alone; rows that the database refuses are refused alone.
    ///
    /// # Errors
    /// Why the transaction failed, and with it all batches, which stay in `writes`.
    pub(crate) fn write(
        &mut self,
        writes: &mut Vec<Writing>,
        answers: &mut Answers,
    ) -> Result<(), Fault> {
        let mut result = self.try_write(writes, Care::None);
        if result.as_ref().is_err_and(Fault::is_about_the_data) {
            // Which rows it was is only worth knowing when it happens.
            self.memory.forget();
            result = self.try_write(writes, Care::EachRow);
        }
        if result.is_err() {
            self.memory.forget();
        }
        let written = result?;
        for (write, answer) in writes.drain(..).zip(written) {
            answers.of_write(write, answer.map_err(|fault| fault.during(WRITE)));
        }
        Ok(())
    }

    fn try_write(&mut self, writes: &[Writing], care: Care) -> Result<Vec<Answer>, Fault> {
        let targets = || writes.iter().map(|write| &*write.what.experiment.target);
        self.connect(manner(targets()))?;
        let Some(database) = &mut self.database else {
            return Err(Fault::Abandoned);
        };
        let synchronous = targets().map(|t| t.synchronous).max();
        database.set_synchronous(synchronous.unwrap_or(Synchronous::Normal))?;
        database.begin_write()?;
        let written = write_all(
            database,
            &mut self.memory,
            &mut self.foreign_changes,
            writes.iter().map(|write| &write.what),
            care,
        );
        database.finish_write(written)
    }

    /// Opens the file if it is not open, or is no longer the one at its path.
    fn connect(&mut self, manner: Manner) -> Result<&mut Database, Fault> {
        if let Some(mut open) = self.database.take() {
            match open.seen() {
                Seen::Same => self.database = Some(open),
                Seen::Changing => {
                    self.database = Some(open);
                    return Err(Fault::Replacing(self.path.clone()));
                }
                seen => self.retire(open, seen)?,
            }
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                self.memory.forget();
                let database = Database::open(&self.path, manner, self.overwritten)?;
                self.overwritten = false;
                database
            }
        };
        let database = self.database.insert(database);
        let shares = &Process::current().connections;
        database.fit_cache(shares.cache_kib())?;
        self.memory.set_limit(shares.remembered_bytes());
        Ok(database)
    }

    /// Closes a connection whose file is not in its place any more, or keeps it where that is not
    /// safe yet.
    fn retire(&mut self, open: Database, seen: Seen) -> Result<(), Fault> {
        tracing::debug!(file = %self.path.display(), ?seen, "a database changed while it was open");
        self.memory.forget();
        self.overwritten |= seen == Seen::Overwritten;
        open.retire(seen).map_err(|(open, fault)| {
            self.database = Some(*open);
            fault
        })
    }

    /// Makes the file complete without its log, wherever it is by now. True where nothing is left to
    /// do.
    pub(crate) fn merge(&mut self) -> Result<bool, Fault> {
        let Some(mut open) = self.database.take() else {
            return Ok(true);
        };
        match open.seen() {
            Seen::Same => {
                let merged = open.merge_all();
                self.database = Some(open);
                Ok(merged? == Merged::Whole)
            }
            Seen::Changing => {
                self.database = Some(open);
                Err(Fault::Replacing(self.path.clone()))
            }
            seen => self.retire(open, seen).map(|()| true),
        }
    }

    /// Merges the log and closes the file; the next request opens it again. A log that belongs to
    /// another file by now is renamed, so that nobody replays it.
    pub(crate) fn close(&mut self) -> Result<(), Fault> {
        let Some(mut open) = self.take_database() else {
            return Ok(());
        };
        match open.seen_at_last() {
            Seen::Same => open.close(),
            seen => {
                open.retire(seen).map_err(|(_open, fault)| fault)?;
                let overwritten = matches!(seen, Seen::Overwritten | Seen::Changing);
                pairing::settle(&self.path, overwritten)
            }
        }
    }

    /// Takes the connection out; the next request opens another.
    pub(crate) fn take_database(&mut self) -> Option<Database> {
        self.memory.forget();
        self.database.take()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.database.is_some()
    }

    /// Memory that is kept between batches, in bytes; SQLite's own is not in it.
    pub(crate) fn remembered_bytes(&self) -> usize {
        self.memory.bytes()
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

/// How the file is to be opened for all of the targets: an absent one is made where any of them may
/// make it.
fn manner<'a>(targets: impl Iterator<Item = &'a Target>) -> Manner {
    targets.fold(Manner::default(), |manner, target| Manner {
        create: manner
            .create
            .max(experiment::may_create(target).then_some(target.access)),
        journal_mode: manner.journal_mode.max(target.journal_mode),
    })
}

/// Does the same for each target; a failure of the database ends it for all.
fn each<T>(
    opens: &[Opening],
    mut run: impl FnMut(&Target) -> Result<T, Fault>,
) -> Result<Vec<Result<T, Fault>>, Fault> {
    opens
        .iter()
        .map(|open| match run(&open.what) {
            Err(fault @ Fault::Sqlite(_)) => Err(fault),
            result => Ok(result),
        })
        .collect()
}

fn with_shape<T>(
    database: &mut Database,
    run: impl FnOnce(&Connection, &Shape) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let (conn, known) = database.look()?;
    run(conn, &known.shape)
}

fn write_all<'e>(
    database: &mut Database,
    memory: &mut Memory,
    foreign_changes: &mut i64,
    entries: impl Iterator<Item = &'e Entry>,
    care: Care,
) -> Result<Vec<Answer>, Fault> {
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
    let mut answers = Vec::new();
    for Entry { experiment, rows } in entries {
        let resolved = match experiment.current(conn, &known.shape) {
            Ok(resolved) => resolved,
            Err(fault @ Fault::Sqlite(_)) => return Err(fault),
            Err(fault) => {
                answers.push(Err(fault));
                continue;
            }
        };
        let mut stored = Stored::default();
        for trace in &rows.traces {
            let mut of_trace = Stored::default();
            let written = care.around(conn, WRITE, || {
                tables.write(memory, rows, trace, &resolved, care, &mut of_trace)
            })?;
            if let Err(error) = written {
                let spans = &rows.spans[trace.spans.clone()];
                of_trace.refused = spans.iter().map(|row| row.refused(&error)).collect();
                of_trace.lost_updates = Vec::from_iter(trace.update.is_some().then_some(error));
            }
            stored.refused.append(&mut of_trace.refused);
            stored.lost_updates.append(&mut of_trace.lost_updates);
        }
        answers.push(Ok(stored));
    }
    Ok(answers)
}
