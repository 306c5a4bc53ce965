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
mod protocol;
mod recent;
mod replaced;
mod state;
mod stats;
mod thrift;

pub(crate) use file::{Encoder, writer_options, writer_properties};
pub(crate) use log::Log;

use crate::catalog::{Catalog, NewTable, TableEntry};
use crate::config::{APP_ID_PREFIX, COMMENT};
use crate::error::{OPEN, WRITE, fault};
use crate::name::TableName;
use crate::options::MissingTable;
use commit::{Outcome, Stamp, Tip, commit};
use create::{COLUMNS, Created, create, properties};
use file::{Encoded, check_size, fingerprint};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use protocol::{Shape, id_of};
use recent::Memory;
use state::{History, State};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use trace_destination_core::{
    BatchId, Error, ErrorKind, LocationUri, Refusal, TraceBatch, Written,
};
use url::Url;

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

/// How long the maker of a table is given to register it: looked for after each of these.
const REGISTERED_BY_ITS_MAKER: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
];

impl Table {
    /// Finds the table; makes and registers it if it is missing and wanted; checks that it can be
    /// written.
    pub(crate) async fn open(
        uri: &LocationUri,
        name: &TableName,
        catalog: &dyn Catalog,
        missing: MissingTable,
    ) -> Result<Self, Error> {
        let mut entry = catalog.get(name).await?;
        let (location, store) = match find(catalog, name, entry.as_ref(), missing).await {
            // Catalogs refuse the place of a new table once somebody else has made one there.
            Err(error) if entry.is_none() && error.kind() == ErrorKind::PermissionDenied => {
                entry = catalog.get(name).await?;
                if entry.is_none() {
                    return Err(error);
                }
                find(catalog, name, entry.as_ref(), missing).await?
            }
            found => found?,
        };
        let log = Log::new(store, &location);
        let (state, made_here) = match log.load().await? {
            Some(snapshot) => (State::of(snapshot)?, false),
            None => make(&log, name, &location, entry.as_ref(), missing).await?,
        };
        let log = match entry {
            Some(_) => log,
            // Only now: what is registered is there and can be written.
            None => register(catalog, name, &location, &state, made_here, log).await?,
        };
        let lane = fingerprint(uri.as_str().as_bytes());
        Ok(Self {
            encoder: Arc::new(Encoder::new(lane, Arc::clone(&state.shape.layout))),
            log,
            state: Mutex::new(state),
            checkpoint: std::sync::Mutex::default(),
            memory: Memory::default(),
        })
    }

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

    /// Stores the spans of a batch as one file and one commit, unless that was done before.
    pub(crate) async fn append(&self, batch: &TraceBatch) -> Result<Written, Error> {
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
                return Ok(written(encoded.refused));
            }
            if self.is_stored(state, batch.id(), &stamp).await? {
                return self.found(state, batch, encoded.refused).await;
            }
            let sorted = self.memory.sort(batch, &encoded.refused);
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
                return Ok(written(refused));
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
                    return Ok(written(refused));
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
    ) -> Result<Written, Error> {
        self.log.settle(state.tip.version).await?;
        let sorted = self.memory.sort(batch, &refused);
        self.memory.remember(&sorted, &refused);
        Ok(written(refused))
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
                "a table was removed and another one made at its place; spans go on to that if it is a table of spans"
            );
        }
        *state = State::of(snapshot)?;
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

/// A table in the catalog whose files are written through the catalog only.
fn check_kind(name: &TableName, entry: &TableEntry) -> Result<(), Error> {
    match entry.kind.as_deref() {
        None | Some("EXTERNAL") => Ok(()),
        Some(kind) => Err(Error::new(
            ErrorKind::Unsupported,
            OPEN,
            format!("{name} is a {kind} table; only EXTERNAL ones are written directly"),
        )
        .mend("name another table and let it be created here, or use Databricks' own ingest (databricks:)")),
    }
}

fn absent(name: &TableName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        OPEN,
        format!("there is no table {name}"),
    )
    .mend("create it, or leave out create=false")
}

/// Creates the log of a table that has none; true if it was written here, and not by somebody else
/// at the same moment.
async fn make(
    log: &Log,
    name: &TableName,
    location: &Url,
    entry: Option<&TableEntry>,
    missing: MissingTable,
) -> Result<(State, bool), Error> {
    if missing == MissingTable::Fail {
        return Err(absent(name));
    }
    // Registered ahead of its log: what the catalog promises is what it has to become.
    if let Some(entry) = entry.filter(|e| !e.columns.is_empty()) {
        let ours: Vec<_> = COLUMNS.delta().fields().map(|f| f.name().clone()).collect();
        if ours != entry.columns {
            return Err(Error::new(
                ErrorKind::Unsupported,
                OPEN,
                format!("the catalog has {name} with other columns, and its location {location} holds no table"),
            )
            .mend("drop it from the catalog to have it created here, or write its first version"));
        }
    }
    let created = create(log, name, location).await;
    let created = match created {
        Ok(Some(Created { id, mark })) => {
            let tip = Tip {
                version: 0,
                mark,
                row_ids: -1,
                timestamp: None,
            };
            let state = State {
                tip,
                shape: Arc::new(Shape::new(id, COLUMNS)),
                history: History::Empty,
                writer: None,
                doubtful: None,
            };
            return Ok((state, true));
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // Made by somebody else, or, after an error, perhaps by us all the same.
    match (log.load().await, created) {
        (Ok(Some(snapshot)), _) => Ok((State::of(snapshot)?, false)),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(None), Ok(_)) => Err(Error::new(
            ErrorKind::Unavailable,
            OPEN,
            format!("{location} says that it holds a table and does not show it"),
        )
        .retryable()
        .mend("use a store that shows what was written at once")),
    }
}

/// Makes the table known to the catalog, and takes the store its entry gives access to.
///
/// Whoever wrote version 0 does so; others give them time first. The open-source server (main of
/// August 2026) registers a name twice when two ask at the same moment, and answers every question
/// about it with status 500 from then on.
async fn register(
    catalog: &dyn Catalog,
    name: &TableName,
    location: &Url,
    state: &State,
    made_here: bool,
    log: Log,
) -> Result<Log, Error> {
    if !made_here {
        for wait in REGISTERED_BY_ITS_MAKER {
            tokio::time::sleep(wait).await;
            if catalog.get(name).await?.is_some() {
                // Registering again finds it, and whether it is the same place.
                break;
            }
        }
    }
    let new = NewTable {
        location,
        schema: &state.shape.layout.version().delta(),
        comment: COMMENT,
        properties: &properties(state.shape.layout.version()),
    };
    let entry = catalog.register(name, &new).await?;
    match entry.id.as_deref() {
        None => Ok(log),
        id => {
            let store = catalog.storage(&entry.location, id).await?;
            Ok(Log::new(store, &entry.location))
        }
    }
}

/// Where a table is, or is to be, and its store.
async fn find(
    catalog: &dyn Catalog,
    name: &TableName,
    entry: Option<&TableEntry>,
    missing: MissingTable,
) -> Result<(Url, Arc<dyn ObjectStore>), Error> {
    let (location, id) = match entry {
        Some(entry) => {
            check_kind(name, entry)?;
            (entry.location.clone(), entry.id.as_deref())
        }
        None if missing == MissingTable::Fail => return Err(absent(name)),
        None => (catalog.place(name).await?, None),
    };
    let store = catalog.storage(&location, id).await?;
    Ok((location, store))
}

/// What is said about a batch whose rows are stored.
fn written(refused: Vec<Refusal>) -> Written {
    Written {
        refused,
        ..Written::default()
    }
}
