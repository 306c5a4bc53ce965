//! Tasks that a store starts and that end by themselves.

use super::Store;
use crate::config::{BUSY_DELAYS, BUSY_TIMEOUT, MERGE_AFTER};
use crate::error::Fault;
use crate::lock::lock;
use crate::requests::Work;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// The duty to merge the log of a file some time after it was written.
pub(super) struct MergeTurn(pub(super) Weak<Store>);

impl MergeTurn {
    pub(super) async fn run(mut self) {
        loop {
            tokio::time::sleep(MERGE_AFTER).await;
            let Some(store) = self.0.upgrade() else {
                return;
            };
            if !store.unmerged.load(Ordering::SeqCst) {
                store.merging.store(false, Ordering::SeqCst);
                // Whoever wrote meanwhile may have found this turn still there.
                if !store.unmerged.load(Ordering::SeqCst)
                    || store.merging.swap(true, Ordering::SeqCst)
                {
                    // What comes now is the turn of another.
                    self.0 = Weak::new();
                    return;
                }
                continue;
            }
            let (process, class) = (store.process.clone(), store.class());
            match process.pool.run(class, move || store.merge()).await {
                Ok(Ok(())) => {}
                // What was written is still in the log, and the next turn tries again.
                Ok(Err(fault)) => {
                    tracing::debug!(error = ?fault, "a database's log could not be merged yet");
                }
                Err(_abandoned) => return,
            }
        }
    }
}

impl Drop for MergeTurn {
    fn drop(&mut self) {
        if let Some(store) = self.0.upgrade() {
            store.merging.store(false, Ordering::Relaxed);
        }
    }
}

/// The duty to empty the queue. Dropped undone, as when the runtime ends before it is through, it
/// gives the waiting requests back instead of leaving them waiting.
pub(super) struct Duty {
    pub(super) store: Arc<Store>,
    pub(super) done: bool,
}

impl Duty {
    pub(super) async fn drain(mut self) {
        while !self.is_done() {
            if self.serve().await.is_err() {
                return;
            }
        }
    }

    /// Whether the queue is empty; from then on it belongs to whoever fills it next.
    fn is_done(&mut self) -> bool {
        let mut queue = lock(&self.store.queue);
        if queue.opens.is_empty() && queue.writes.is_empty() {
            queue.draining = false;
            self.done = true;
        }
        self.done
    }

    /// Lends a thread to the writer until what it took is done, or others have held the file for
    /// too long.
    async fn serve(&self) -> Result<(), Fault> {
        let process = &self.store.process;
        let mut work = Work::default();
        let mut began = None;
        for attempt in 0.. {
            let waited = began.map(|began: Instant| began.elapsed());
            let last = waited.is_some_and(|waited| waited >= BUSY_TIMEOUT);
            let store = self.store.clone();
            let step = move || {
                let proven = store.step(&mut work, last);
                (work, proven)
            };
            let (rest, proven) = process.pool.run(self.store.class(), step).await?;
            work = rest;
            self.store.proven.store(proven, Ordering::Relaxed);
            self.store.merge_soon();
            if work.is_empty() {
                break;
            }
            began = began.or_else(|| Some(Instant::now()));
            let delay = BUSY_DELAYS[BUSY_DELAYS.len().min(attempt + 1) - 1];
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.done {
            let mut queue = lock(&self.store.queue);
            queue.draining = false;
            queue.opens.clear();
            queue.writes.clear();
        }
    }
}
