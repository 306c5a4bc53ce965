//! One open table: found or made, checked, appended to.

mod ahead;
mod checkpoint;
mod commit;
mod create;
mod damaged;
mod engine;
mod fetched;
mod file;
mod log;
mod open;
mod protocol;
mod recent;
mod replaced;
mod state;
mod stats;
mod thrift;

pub(crate) use file::{Encoder, writer_options, writer_properties};
pub(crate) use log::Log;

use crate::config::APP_ID_PREFIX;
use crate::error::{WRITE, fault};
use crate::schema::TableKind;
use commit::{Outcome, Stamp, commit};
use file::{Encoded, check_size};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode};
use protocol::id_of;
use recent::{Memory, Sorted};
use state::{History, State};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use trace_destination_core::{BatchId, Error, ErrorKind, Refusal, TraceBatch};

/// How often a table that changes under a batch is looked at anew.
const CHANGES: u32 = 5;
/// How long closing a table waits for the checkpoint it has under way.
const CLOSING: Duration = Duration::from_secs(5);

/// An open table. What it holds does not grow with the table: the files are the log's business.
#[derive(Debug)]
pub(crate) struct Table {
    encoder: Arc<Encoder>,
    log: Log,
    state: Mutex<State>,
    checkpoint: std::sync::Mutex<Option<JoinHandle<()>>>,
    memory: Memory,
}

impl Table {
    /// Makes sure that the table's store keeps to what every commit relies on.
    pub(crate) async fn check_store(&self) -> Result<(), Error> {
        let state = self.state.lock().await;
        let loaded = match &state.history {
            History::Loaded(loaded) => Some(loaded),
            History::Empty | History::Unknown => None,
        };
        self.log.check_store(state.tip.version, loaded).await
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// What encodes batches ahead of [`append`](Self::append).
    pub(crate) fn encoder(&self) -> Arc<Encoder> {
        Arc::clone(&self.encoder)
    }

    /// Stores the rows of a batch as one file and one commit, unless that was done before: its spans,
    /// or in a table of annotations its updates. Gives those that cannot be rows, by their position.
    pub(crate) async fn append(&self, batch: &TraceBatch) -> Result<Vec<Refusal>, Error> {
        let state = &mut *self.state.lock().await;
        let stamp = self.stamp(batch.id())?;
        // The log may have been cleaned up to a checkpoint, be gone, or be that of another table: then
        // the next version would be written into nowhere, or among columns that were not read.
        if let Some(tip) = state.doubtful.take() {
            self.undo(state, tip).await?;
        }
        if !self.is_known(state).await? {
            self.reload(state).await?;
        }
        for _ in 0..CHANGES {
            let shape = Arc::clone(&state.shape);
            let mut encoded = self.encoder.encoded(batch, &shape.layout).await?;
            if encoded.file.is_none() {
                return Ok(encoded.refused);
            }
            if self.is_stored(state, batch.id(), &stamp).await? {
                return self.found(state, batch, encoded.refused).await;
            }
            let sorted = self.sort(batch, &encoded.refused);
            if !sorted.repeated.is_empty() {
                // Somebody may have removed the rows since.
                if !self.is_unchanged(state, &stamp).await? {
                    self.reload(state).await?;
                    continue;
                }
                let left_out = &sorted.repeated;
                encoded = self
                    .encoder
                    .encoded_without(batch, &shape.layout, left_out)
                    .await?;
            }
            let Encoded { file, refused, .. } = encoded;
            let Some(file) = file else {
                self.memory.tell(&sorted);
                return Ok(refused);
            };
            check_size(&file)?;
            let path = Path::from(file.name.as_str());
            self.log
                .store()
                .put_opts(
                    &path,
                    file.content.clone().into(),
                    PutMode::Overwrite.into(),
                )
                .await
                .map_err(|e| fault(WRITE, "storing a file", e))?;
            match commit(&self.log, &mut state.tip, &shape, &file, &stamp).await? {
                Outcome::Committed(tip) if self.is_known(state).await? => {
                    let version = tip.version;
                    state.tip = tip;
                    state.writer = Some((batch.id().writer, Some(stamp.sequence)));
                    self.memory.remember(&sorted, &refused);
                    self.memory.tell(&sorted);
                    self.checkpoint_if_due(version, shape.checkpoint_interval);
                    return Ok(refused);
                }
                Outcome::Committed(tip) => self.undo(state, tip).await?,
                Outcome::Changed => self.reload(state).await?,
                Outcome::Replaced => {
                    let known = self.reload(state).await;
                    if known
                        .as_ref()
                        .is_err_and(|e| e.kind() == ErrorKind::Unsupported)
                    {
                        // It lies beside a table that will never name it.
                        let _ = self.log.store().delete(&path).await;
                    }
                    known?;
                }
            }
            if self.is_stored(state, batch.id(), &stamp).await? {
                return self.found(state, batch, refused).await;
            }
            if state.shape.layout != shape.layout {
                // Made for other columns; the log will never name it.
                let _ = self.log.store().delete(&path).await;
            }
        }
        Err(Error::new(
            ErrorKind::Locked,
            WRITE,
            "the table's metadata is being changed all the time",
        )
        .retryable()
        .mend("see who alters the table"))
    }

    /// After a batch was found in the log: it stays there, and its spans are remembered.
    async fn found(
        &self,
        state: &State,
        batch: &TraceBatch,
        refused: Vec<Refusal>,
    ) -> Result<Vec<Refusal>, Error> {
        self.log.settle(state.tip.version).await?;
        let sorted = self.sort(batch, &refused);
        self.memory.remember(&sorted, &refused);
        Ok(refused)
    }

    /// Which spans of a batch came before. An annotation may: its newest row counts.
    fn sort(&self, batch: &TraceBatch, refused: &[Refusal]) -> Sorted {
        match self.encoder.kind {
            TableKind::Spans => self.memory.sort(batch, refused),
            TableKind::Annotations => Sorted::default(),
        }
    }

    /// Whether the log has the batch already.
    async fn is_stored(
        &self,
        state: &mut State,
        id: BatchId,
        stamp: &Stamp,
    ) -> Result<bool, Error> {
        let last = match state.writer {
            Some((writer, last)) if writer == id.writer => last,
            _ => {
                if matches!(state.history, History::Unknown) {
                    self.reload(state).await?;
                }
                let last = match &state.history {
                    History::Loaded(loaded) => {
                        let loaded = loaded.clone();
                        self.log.transaction(loaded, stamp.app_id.clone()).await?
                    }
                    History::Empty | History::Unknown => None,
                };
                state.writer = Some((id.writer, last));
                state.history = History::Unknown;
                last
            }
        };
        Ok(last.is_some_and(|last| last >= stamp.sequence))
    }

    /// Looks at the table anew: its version, columns and features.
    async fn reload(&self, state: &mut State) -> Result<(), Error> {
        let Some(snapshot) = self.log.load().await? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                WRITE,
                "the table's log is gone: it was dropped or moved",
            )
            .mend("restore it, or let it be created anew: that is tried when this location is opened again"));
        };
        if id_of(&snapshot.snapshot) != state.shape.id {
            tracing::warn!(
                id = id_of(&snapshot.snapshot),
                rows = self.encoder.kind.rows(),
                "a table was removed and another one made at its place; rows go on to that if it is a table for them"
            );
        }
        *state = State::of(snapshot, self.encoder.kind)?;
        // It may be another table, which has none of them.
        self.memory.clear();
        Ok(())
    }

    fn stamp(&self, id: BatchId) -> Result<Stamp, Error> {
        let sequence =
            i64::try_from(id.sequence).map_err(|e| fault(WRITE, "numbering a batch", e))?;
        Ok(Stamp {
            app_id: format!(
                "{APP_ID_PREFIX}:{}:{:016x}",
                id.writer.simple(),
                self.encoder.lane
            ),
            sequence,
        })
    }

    /// Starts a checkpoint after every so many versions, beside the batches and without a say in
    /// their outcome: readers do without it, only slower.
    fn checkpoint_if_due(&self, version: u64, interval: u64) {
        if !version.is_multiple_of(interval) && !self.log.wants_checkpoint() {
            return;
        }
        let mut current = self
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|c| !c.is_finished()) {
            return;
        }
        let log = self.log.clone();
        *current = Some(tokio::spawn(async move {
            if let Err(error) = log.checkpoint(version, WRITE).await {
                tracing::warn!(version, error = %error, "no checkpoint of a table could be written; it is tried again some versions later");
            }
        }));
    }

    /// Waits a little for a checkpoint that is being written.
    pub(crate) async fn close(self) {
        let current = self
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut checkpoint) = current
            && tokio::time::timeout(CLOSING, &mut checkpoint)
                .await
                .is_err()
        {
            checkpoint.abort();
        }
    }
}
