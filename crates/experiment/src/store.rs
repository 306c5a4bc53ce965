//! What all locations of one file share in a process: one connection, one queue.
//!
//! A sink hands its rows over and waits. Whoever finds nobody at work starts a job on the
//! runtime's pool for blocking work, which takes everything that is ready, of whatever experiment,
//! into one transaction, and goes on until nothing is left. So there is no thread per file, and
//! lanes that become ready while a transaction runs share the next one.

use crate::config::MAX_SPANS_PER_TRANSACTION;
use crate::error::{Fault, WRITE};
use crate::experiment::{self, Resolved};
use crate::location::Target;
use crate::rows::Rows;
use crate::schema::Shape;
use crate::writer::{Answer, Entry, Writer};
use rusqlite::Connection;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::oneshot;
use trace_destination_core::{Error, Written};

/// The open stores of this process, by canonical path.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// One database file.
pub(crate) struct Store {
    path: PathBuf,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<(Entry, oneshot::Sender<Answer>)>,
    /// A job is at work and will look into the queue again.
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
    /// The store of a file; the same one for all who ask while anybody holds it.
    pub(crate) fn shared(path: &Path) -> Arc<Self> {
        let mut open = lock(&OPEN);
        if let Some(store) = open.get(path).and_then(Weak::upgrade) {
            return store;
        }
        let store = Arc::new(Self {
            path: path.into(),
            queue: Mutex::default(),
            writer: Mutex::new(Writer::new(path.into())),
        });
        open.insert(path.into(), Arc::downgrade(&store));
        store
    }

    /// Opens the file, if that has not been done, and resolves an experiment.
    pub(crate) async fn open(
        self: &Arc<Self>,
        target: Arc<Target>,
    ) -> Result<Arc<Experiment>, Fault> {
        let store = self.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let resolved = lock(&store.writer).resolve(&target)?;
            Ok(Arc::new(Experiment {
                target,
                resolved: Mutex::new(resolved),
            }))
        });
        opening.await.unwrap_or(Err(Fault::Abandoned))
    }

    /// Stores the rows of a batch, in a transaction that others may share.
    pub(crate) async fn write(
        self: &Arc<Self>,
        experiment: Arc<Experiment>,
        mut rows: Rows,
    ) -> Result<Written, Error> {
        let refused = std::mem::take(&mut rows.refused);
        let (sender, answer) = oneshot::channel();
        let start = {
            let mut queue = lock(&self.queue);
            queue.ready.push_back((Entry { experiment, rows }, sender));
            !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            let duty = Duty {
                store: self.clone(),
                done: false,
            };
            tokio::task::spawn_blocking(move || duty.drain());
        }
        match answer.await {
            Ok(answer) => {
                let mut written = answer?;
                written.refused.extend(refused);
                written.refused.sort_by_key(|refusal| refusal.index);
                Ok(written)
            }
            Err(_) => Err(Fault::Abandoned.during(WRITE)),
        }
    }

    /// Limits the size of the file, as a full disk would.
    pub(crate) fn limit_pages(&self, pages: u32) -> Result<(), Fault> {
        lock(&self.writer).limit_pages(pages)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let mut open = lock(&OPEN);
        // Another store may have taken the place meanwhile.
        if open.get(&self.path).is_some_and(|w| w.strong_count() == 0) {
            open.remove(&self.path);
        }
    }
}

/// The duty to empty the queue. Dropped undone, as when the runtime ends before the job ran, it
/// gives the waiting batches back instead of leaving them waiting.
struct Duty {
    store: Arc<Store>,
    done: bool,
}

impl Duty {
    fn drain(mut self) {
        loop {
            let mut entries = Vec::new();
            let mut senders = Vec::new();
            let mut spans = 0;
            {
                let mut queue = lock(&self.store.queue);
                while spans < MAX_SPANS_PER_TRANSACTION
                    && let Some((entry, sender)) = queue.ready.pop_front()
                {
                    // Nobody waits any more: the batch was given up at a deadline.
                    if !sender.is_closed() {
                        spans += entry.rows.spans.len();
                        entries.push(entry);
                        senders.push(sender);
                    }
                }
                if entries.is_empty() {
                    // From here on the queue belongs to whoever fills it next.
                    queue.draining = false;
                    self.done = true;
                    return;
                }
            }
            let answers = lock(&self.store.writer).write(&entries);
            for (sender, answer) in senders.into_iter().zip(answers) {
                // Who stopped waiting does not want the answer.
                let _ = sender.send(answer);
            }
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.done {
            let mut queue = lock(&self.store.queue);
            queue.draining = false;
            queue.ready.clear();
        }
    }
}

/// Locks without minding a panic elsewhere: the database rolls back what was not committed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{MissingExperiment, Synchronous};
    use trace_destination_core::{BatchId, TraceBatch};

    fn empty() -> Rows {
        let id = BatchId {
            writer: uuid::Uuid::nil(),
            sequence: 0,
        };
        Rows::of(&TraceBatch::new(id, Vec::new(), Vec::new()))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap()
    }

    #[test]
    fn a_runtime_that_ends_before_the_job_ran_leaves_the_store_usable() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        let target = Arc::new(Target {
            path: path.clone(),
            name: Some("a".into()),
            id: None,
            missing: MissingExperiment::Create,
            synchronous: Synchronous::Normal,
            artifact_root: None,
        });
        let store = Store::shared(&path);
        let first = runtime();
        let experiment = first.block_on(store.open(target)).unwrap();
        // The only thread for blocking work is busy, so the job waits and is dropped unrun.
        let (free, wait) = std::sync::mpsc::channel::<()>();
        first.spawn_blocking(move || wait.recv());
        let waiting = {
            let (store, experiment) = (store.clone(), experiment.clone());
            first.spawn(async move { store.write(experiment, empty()).await })
        };
        while lock(&store.queue).ready.is_empty() {
            std::thread::yield_now();
        }
        first.shutdown_background();
        free.send(()).unwrap();
        let answer = runtime().block_on(waiting);
        assert!(!matches!(answer, Ok(Ok(_))), "nothing can have been stored");
        while lock(&store.queue).draining {
            std::thread::yield_now();
        }
        runtime()
            .block_on(store.write(experiment, empty()))
            .unwrap();
    }

    #[test]
    fn one_store_per_file_while_it_is_held() {
        let path = Path::new("/nowhere/shared.db");
        let one = Store::shared(path);
        assert!(Arc::ptr_eq(&one, &Store::shared(path)));
        drop(one);
        assert!(!lock(&OPEN).contains_key(path));
    }
}
