//! The log of one table: the few things a writer asks of it.

use crate::error::{OPEN, fault, log_fault};
use bytes::Bytes;
use delta_kernel::{Snapshot, SnapshotRef};
use deltalake::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;
use trace_destination_core::{Error, ErrorKind, waiting_for_turn};
use url::Url;

/// Where the log is, in a store that is rooted at the table.
const FOLDER: &str = "_delta_log";

/// Logs of one store that are read at a time. Delta's reader blocks a thread for as long as it
/// reads, and the requests it waits for may need threads too: without a limit, many tables that are
/// opened at once would wait for each other for ever. By store, so that one that does not answer
/// holds up no other.
const READERS: usize = 16;

static STORES: Mutex<Option<HashMap<String, Weak<Semaphore>>>> = Mutex::new(None);

/// What the readers of all logs in one bucket, container or file system share.
fn readers(location: &Url) -> Arc<Semaphore> {
    let store = format!(
        "{}://{}",
        location.scheme(),
        location.host_str().unwrap_or_default()
    );
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    if let Some(readers) = stores.get(&store).and_then(Weak::upgrade) {
        return readers;
    }
    stores.retain(|_, readers| readers.strong_count() > 0);
    let readers = Arc::new(Semaphore::new(READERS));
    stores.insert(store, Arc::downgrade(&readers));
    readers
}

/// The log of a table, in a store that is rooted at it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    store: Arc<dyn ObjectStore>,
    delta: LogStoreRef,
    readers: Arc<Semaphore>,
}

impl Log {
    /// `location` is where the table is, for people and for the log's own records.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, location: &Url) -> Result<Self, Error> {
        // Delta's reader wants addresses beneath which the store's paths are; ours begin at the
        // table. Whether listings come sorted it tells by the scheme.
        let root = match location.scheme() {
            "file" => "file:///",
            _ => "table:///",
        };
        let root = Url::parse(root).map_err(|e| fault(OPEN, "naming the table's root", e))?;
        let delta = default_logstore(
            store.clone(),
            store.clone(),
            &root,
            &StorageConfig::default(),
        );
        let readers = readers(location);
        Ok(Self {
            store,
            delta,
            readers,
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) fn delta(&self) -> &LogStoreRef {
        &self.delta
    }

    /// The newest state of the table, without its files; `None` if there is no table.
    pub(crate) async fn load(&self) -> Result<Option<SnapshotRef>, Error> {
        if self.is_empty().await? {
            return Ok(None);
        }
        let loaded = self
            .blocking(|engine, root| Snapshot::builder_for(root).build(engine))
            .await
            .map_err(|e| fault(OPEN, "reading the table's log", e))?;
        match loaded {
            Ok(snapshot) => Ok(Some(snapshot)),
            // Not `None`: whoever finds no table makes one, and a listing may be late or in the
            // middle of a clean-up.
            Err(e) if e.to_string().contains("No files in log segment") => Err(Error::new(
                ErrorKind::Unavailable,
                OPEN,
                "the folder _delta_log holds files, and no version of a table is among them",
            )
            .retryable()
            .mend("if it stays so, remove them or name another table")
            .caused_by(e)),
            Err(e) => Err(log_fault(OPEN, "reading the table's log", e)),
        }
    }

    /// Runs Delta's own reader or writer, when it is this log's turn.
    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&dyn delta_kernel::Engine, Url) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        // Never closed: an error would only mean that there is no limit.
        let turn = waiting_for_turn(self.readers.clone().acquire_owned()).await;
        let engine = self.delta.engine(None);
        let root = self.delta.root_url().clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            run(engine.as_ref(), root)
        })
        .await
    }

    async fn is_empty(&self) -> Result<bool, Error> {
        let folder = Path::from(FOLDER);
        match self.store.list(Some(&folder)).next().await {
            None | Some(Err(object_store::Error::NotFound { .. })) => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(e)) => Err(fault(OPEN, "listing the table's log", e)),
        }
    }

    /// The newest version a writer committed under `app_id`.
    pub(crate) async fn transaction(
        &self,
        snapshot: SnapshotRef,
        app_id: String,
    ) -> Result<Option<i64>, Error> {
        self.blocking(move |engine, _| snapshot.get_app_id_version(&app_id, engine))
            .await
            .map_err(|e| fault(OPEN, "looking for a transaction", e))?
            .map_err(|e| log_fault(OPEN, "looking for the writer's last transaction", e))
    }

    /// The content of a commit; `None` if there is none.
    pub(crate) async fn read(&self, version: u64) -> Result<Option<Bytes>, object_store::Error> {
        match self
            .store
            .get(&commit_uri_from_version(Some(version)))
            .await
        {
            Ok(found) => found.bytes().await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether a commit is there.
    pub(crate) async fn contains(&self, version: u64) -> Result<bool, object_store::Error> {
        match self
            .store
            .head(&commit_uri_from_version(Some(version)))
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes a commit unless there is one; `false` if there is. Sent once: what an error means is
    /// found out by reading.
    pub(crate) async fn put(
        &self,
        version: u64,
        commit: Bytes,
    ) -> Result<bool, object_store::Error> {
        let path = commit_uri_from_version(Some(version));
        match self
            .store
            .put_opts(&path, commit.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(true),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes a checkpoint of a version.
    pub(crate) async fn checkpoint(
        &self,
        version: u64,
        operation: &'static str,
    ) -> Result<(), Error> {
        self.blocking(move |engine, root| {
            let snapshot = Snapshot::builder_for(root)
                .at_version(version)
                .build(engine)?;
            snapshot.checkpoint(engine, None).map(|_| ())
        })
        .await
        .map_err(|e| fault(operation, "writing a checkpoint", e))?
        .map_err(|e| log_fault(operation, "writing a checkpoint", e))
    }
}
