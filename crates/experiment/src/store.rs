//! What all locations of one file share in a process: one connection, one queue.
//!
//! Sinks and locations put requests into the queue and wait. Whoever finds nobody at work starts a
//! task, which lends a thread to the file's writer for one transaction after the other until nothing
//! is left; each takes in everything that is ready, of whatever experiment. So there is no thread
//! per file, a thread is never kept for a lock that others hold, and lanes that become ready while
//! a transaction runs share the next one.

mod duty;
mod seat;

pub(crate) use seat::Seat;

use crate::config::{MAX_OPENS_PER_TRANSACTION, MAX_SPANS_PER_TRANSACTION, ROWS_KIB};
use crate::connection::Database;
use crate::error::{CLOSE, Fault, OPEN, WRITE};
use crate::experiment::{self, Resolved};
use crate::file_system;
use crate::lock::lock;
use crate::pool::{Class, OVERDUE};
use crate::process::Process;
use crate::requests::{Entry, Opening, Request, Stored, Work, Writing};
use crate::rows::Rows;
use crate::schema::Shape;
use crate::target::Target;
use crate::writer::Writer;
use duty::{Duty, MergeTurn};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Instant;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use trace_destination_core::{Error, TraceBatch, waiting_for_turn};

/// Batches of fewer bytes take about a millisecond to make into rows, which is not worth another
/// thread.
const QUICK: usize = 128 << 10;

/// One database file.
pub(crate) struct Store {
    process: Arc<Process>,
    path: PathBuf,
    queue: Mutex<Queue>,
    /// Outlives the store until its connection is closed.
    writer: Arc<Mutex<Writer>>,
    /// Room for rows that wait, in KiB.
    rows: Semaphore,
    /// Sinks that are open.
    seats: AtomicUsize,
    /// The last transaction was neither kept waiting nor slow.
    proven: AtomicBool,
    connected: AtomicBool,
    /// What the writer remembers of traces, in bytes.
    remembered: AtomicUsize,
    /// Used since the last look for idle connections.
    used: AtomicBool,
    /// Written since the log was merged into the file.
    unmerged: AtomicBool,
    /// A task waits for the time to merge.
    merging: AtomicBool,
}

#[derive(Default)]
struct Queue {
    opens: VecDeque<Opening>,
    writes: VecDeque<Writing>,
    /// A task is at work and will look into the queue again.
    draining: bool,
}

/// An experiment that was opened, with the id it had then.
pub(crate) struct Experiment {
    pub(crate) target: Arc<Target>,
    resolved: Mutex<Resolved>,
}

impl Experiment {
    /// The experiment as it is now: the same id while that is active, else what the name stands
    /// for by now. Within a write transaction.
    pub(crate) fn current(&self, conn: &Connection, shape: &Shape) -> Result<Resolved, Fault> {
        let mut resolved = lock(&self.resolved);
        *resolved = match experiment::still_active(conn, resolved.id)? {
            Some(same) => same,
            None => experiment::find_or_create(conn, shape, &self.target)?,
        };
        Ok(resolved.clone())
    }
}

impl Store {
    /// A store whose file was used before has the writer of that time, which may be connected.
    pub(crate) fn new(
        process: Arc<Process>,
        path: PathBuf,
        left: Option<Arc<Mutex<Writer>>>,
    ) -> Self {
        let connected = left.is_some();
        Self {
            process,
            writer: left.unwrap_or_else(|| new_writer(&path)),
            path,
            queue: Mutex::default(),
            rows: Semaphore::new(ROWS_KIB as usize),
            seats: AtomicUsize::new(0),
            proven: AtomicBool::new(false),
            connected: AtomicBool::new(connected),
            remembered: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            unmerged: AtomicBool::new(connected),
            merging: AtomicBool::new(false),
        }
    }

    /// Opens the file, if that has not been done, and resolves an experiment.
    pub(crate) async fn open(
        self: &Arc<Self>,
        target: Arc<Target>,
    ) -> Result<Arc<Experiment>, Error> {
        let (request, pending) = Request::new(target.clone());
        self.enqueue(|queue| queue.opens.push_back(request));
        let resolved = pending.outcome().await;
        let resolved = resolved.unwrap_or_else(|| Err(Fault::Abandoned.during(OPEN)))?;
        Ok(Arc::new(Experiment {
            target,
            resolved: Mutex::new(resolved),
        }))
    }

    /// Stores a batch, in a transaction that others may share.
    pub(crate) async fn write(
        self: &Arc<Self>,
        experiment: &Arc<Experiment>,
        batch: &TraceBatch,
    ) -> Result<Stored, Error> {
        if !self.process.is_current() {
            return Err(Fault::Inherited.during(WRITE));
        }
        let bytes: usize = batch.spans().map(|span| span.approximate_bytes()).sum();
        let kib = u32::try_from(bytes >> 10).map_or(ROWS_KIB, |kib| kib.clamp(1, ROWS_KIB));
        let room = waiting_for_turn(self.rows.acquire_many(kib)).await;
        // Made here, before the file's turn comes, so that lanes do it in parallel.
        let mut rows = {
            let _permit = waiting_for_turn(self.process.pool.encoder()).await;
            match bytes < QUICK {
                true => Rows::of(batch),
                false => in_place(|| Rows::of(batch)),
            }
        };
        let refused = std::mem::take(&mut rows.refused);
        let (request, pending) = Request::new(Entry {
            experiment: experiment.clone(),
            rows,
        });
        self.enqueue(|queue| queue.writes.push_back(request));
        let stored = pending.outcome().await;
        drop(room);
        let mut stored = stored.unwrap_or_else(|| Err(Fault::Abandoned.during(WRITE)))?;
        stored.refused.extend(refused);
        stored.refused.sort_by_key(|refusal| refusal.index);
        Ok(stored)
    }

    fn enqueue(self: &Arc<Self>, push: impl FnOnce(&mut Queue)) {
        let start = {
            let mut queue = lock(&self.queue);
            push(&mut queue);
            !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            let duty = Duty {
                store: self.clone(),
                done: false,
            };
            tokio::spawn(duty.drain());
        }
    }

    /// Moves requests from the queue into `work`, as many as one transaction should take.
    fn take_requests(&self, work: &mut Work) {
        let mut queue = lock(&self.queue);
        while work.opens.len() < MAX_OPENS_PER_TRANSACTION
            && let Some(mut open) = queue.opens.pop_front()
        {
            if !open.is_given_up() {
                open.begin();
                work.opens.push(open);
            }
        }
        let mut spans = work.spans();
        while spans < MAX_SPANS_PER_TRANSACTION
            && let Some(mut write) = queue.writes.pop_front()
        {
            if !write.is_given_up() {
                write.begin();
                spans += write.what.rows.spans.len();
                work.writes.push(write);
            }
        }
    }

    /// Works on everything that is ready. What a lock keeps from being done stays in `work`, but
    /// for the `last` time. True where the file gave no trouble.
    fn step(self: &Arc<Self>, work: &mut Work, last: bool) -> bool {
        self.take_requests(work);
        let mut writer = lock(&self.writer);
        let began = Instant::now();
        if !writer.is_connected() {
            self.process.make_room();
        }
        let mut busy = false;
        let (opens, writes, answers) = work.parts();
        if !opens.is_empty()
            && let Err(fault) = self.with_files(&mut writer, |w| w.resolve(opens, answers))
        {
            busy = fault.is_busy();
            if last || !busy {
                let error = fault.during(OPEN);
                for open in opens.drain(..) {
                    answers.of_open(open, Err(error.clone()));
                }
            }
        }
        if !writes.is_empty() && (last || !busy) {
            match self.with_files(&mut writer, |w| w.write(writes, answers)) {
                Ok(()) => self.unmerged.store(true, Ordering::SeqCst),
                Err(fault) => {
                    busy = fault.is_busy();
                    if last || !busy {
                        let error = fault.during(WRITE);
                        for write in writes.drain(..) {
                            answers.of_write(write, Err(error.clone()));
                        }
                    }
                }
            }
        }
        if self.seats.load(Ordering::Relaxed) == 0 && !answers.has_opened() && !busy {
            // Locations that cannot be opened leave nothing open.
            let _ = writer.close();
        }
        let connected = writer.is_connected();
        self.remembered
            .store(writer.remembered_bytes(), Ordering::Relaxed);
        drop(writer);
        self.used.store(true, Ordering::Relaxed);
        // Its own mark: the connection may be that of a store before this one.
        let was_connected = self.connected.swap(connected, Ordering::Relaxed);
        if connected && !was_connected {
            self.process.connections.opened(self);
        }
        work.tell();
        connected && !busy && began.elapsed() < OVERDUE
    }

    /// Does something with the file. Where no further file can be opened, connections that are not
    /// in use are closed, one after the other, until it can.
    fn with_files(
        &self,
        writer: &mut Writer,
        mut run: impl FnMut(&mut Writer) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            let fault = match run(writer) {
                Ok(()) => return Ok(()),
                Err(fault) => file_system::explained(fault, &self.path),
            };
            if !matches!(fault, Fault::TooManyFiles { .. }) {
                return Err(fault);
            }
            // What is half open would keep its files.
            let _ = writer.close();
            if !self.process.free_files() {
                return Err(fault);
            }
        }
    }

    fn class(&self) -> Class {
        match self.is_proven() {
            true => Class::Proven,
            false => Class::Unproven,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether nobody has used the connection since this was asked before.
    pub(crate) fn is_idle(&self) -> bool {
        !self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether the file gave no trouble the last time, so that closing it will not either.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Closes the connection, unless somebody uses it. True where it was closed. Blocks.
    pub(crate) fn disconnect_if_idle(&self) -> bool {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let was_connected = writer.is_connected();
        // Closed under the lock: whoever opens the file next finds it at rest.
        if let Err(fault) = self.close(&mut writer) {
            let error = fault.during(CLOSE);
            tracing::debug!(file = %self.path.display(), %error, "an idle database was closed");
        }
        was_connected
    }

    /// Merges the log and closes the connection when nobody uses it any more. Blocks.
    fn disconnect(&self) -> Result<(), Fault> {
        self.close(&mut lock(&self.writer))
    }

    fn close(&self, writer: &mut Writer) -> Result<(), Fault> {
        let closed = writer.close();
        self.connected
            .store(writer.is_connected(), Ordering::Relaxed);
        self.unmerged.store(false, Ordering::Relaxed);
        closed.map_err(|fault| file_system::explained(fault, &self.path))
    }

    /// Makes the file complete without its log, where something was written since the last time.
    /// Blocks.
    fn merge(&self) -> Result<(), Fault> {
        let mut writer = lock(&self.writer);
        if !self.unmerged.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let merged = writer.merge();
        self.connected
            .store(writer.is_connected(), Ordering::Relaxed);
        if !matches!(merged, Ok(true)) {
            self.unmerged.store(true, Ordering::Relaxed);
        }
        merged.map(|_| ())
    }

    /// Sees to it that what was written is merged before long, if that has not been done.
    fn merge_soon(self: &Arc<Self>) {
        if self.unmerged.load(Ordering::SeqCst) && !self.merging.swap(true, Ordering::SeqCst) {
            let turn = MergeTurn(Arc::downgrade(self));
            tokio::spawn(turn.run());
        }
    }

    /// Memory that is held beside the batches themselves, in bytes: what is remembered of traces,
    /// and rows that wait for their transaction. SQLite's own is not in it.
    pub(crate) fn held_bytes(&self) -> usize {
        let rows = (ROWS_KIB as usize).saturating_sub(self.rows.available_permits()) << 10;
        self.remembered.load(Ordering::Relaxed) + rows
    }

    /// Its writer, for as long as anybody has it.
    pub(crate) fn writer(&self) -> Weak<Mutex<Writer>> {
        Arc::downgrade(&self.writer)
    }

    /// Limits the size of the file, as a full disk would.
    pub(crate) fn limit_pages(&self, pages: u32) -> Result<(), Fault> {
        lock(&self.writer).limit_pages(pages)
    }
}

/// Does work that takes a while; a worker of a runtime hands its other tasks to another thread
/// meanwhile.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A thread uses the connection.
pub(crate) struct InUse;

/// Takes the connection out of a writer; an error if a thread was using it. For a child that was
/// forked.
pub(crate) fn take_database(writer: &Mutex<Writer>) -> Result<Option<Database>, InUse> {
    match writer.try_lock() {
        Ok(mut writer) => Ok(writer.take_database()),
        Err(TryLockError::Poisoned(writer)) => Ok(writer.into_inner().take_database()),
        Err(TryLockError::WouldBlock) => Err(InUse),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.process.is_current() {
            match take_database(&self.writer) {
                Ok(None) => {}
                Ok(Some(database)) => Process::current().adopt(database),
                // Never dropped: that would close the connection of a thread of the parent.
                Err(InUse) => std::mem::forget(self.writer.clone()),
            }
            return;
        }
        let writer = std::mem::replace(&mut self.writer, new_writer(&self.path));
        let (process, path) = (self.process.clone(), self.path.clone());
        if !self.connected.load(Ordering::Relaxed) {
            process.forget(&path);
            return;
        }
        // Sinks were dropped without being closed.
        let close = move || {
            let mut connection = lock(&writer);
            // A store that took the file over closes it.
            if !process.has_store(&path) {
                let _ = connection.close();
            }
            drop(connection);
            process.forget(&path);
        };
        match Handle::try_current() {
            Ok(runtime) => {
                let process = self.process.clone();
                runtime.spawn(async move { process.pool.run(Class::Unproven, close).await });
            }
            Err(_) => close(),
        }
    }
}

fn new_writer(path: &Path) -> Arc<Mutex<Writer>> {
    Arc::new(Mutex::new(Writer::new(path.into())))
}

#[cfg(test)]
mod tests;
