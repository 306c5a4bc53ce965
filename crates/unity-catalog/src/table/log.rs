//! The log of one table: the few things a writer asks of it.

use crate::error::{OPEN, fault};
use bytes::Bytes;
use delta_kernel::{Snapshot, SnapshotRef};
use deltalake::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind};
use url::Url;

/// Where the log is, in a store that is rooted at the table.
const FOLDER: &str = "_delta_log";

/// The log of a table, in a store that is rooted at it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    store: Arc<dyn ObjectStore>,
    delta: LogStoreRef,
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
        Ok(Self { store, delta })
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
        let engine = self.delta.engine(None);
        let root = self.delta.root_url().clone();
        let loaded =
            tokio::task::spawn_blocking(move || Snapshot::builder_for(root).build(engine.as_ref()));
        let loaded = loaded
            .await
            .map_err(|e| fault(OPEN, "reading the log", e))?;
        match loaded {
            Ok(snapshot) => Ok(Some(snapshot)),
            // A folder with something else in it, or a log that is being deleted.
            Err(e) if e.to_string().contains("No files in log segment") => Ok(None),
            Err(e) => {
                let fault = fault(OPEN, "reading the table's log", e);
                // Everything the store said is classified; what is left is the log itself.
                Err(match fault.kind() {
                    ErrorKind::Unavailable => fault,
                    _ => fault,
                })
            }
        }
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
        let engine = self.delta.engine(None);
        tokio::task::spawn_blocking(move || snapshot.get_app_id_version(&app_id, engine.as_ref()))
            .await
            .map_err(|e| fault(OPEN, "looking for a transaction", e))?
            .map_err(|e| fault(OPEN, "looking for the writer's last transaction", e))
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
        let engine = self.delta.engine(None);
        let root = self.delta.root_url().clone();
        tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::builder_for(root)
                .at_version(version)
                .build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
        })
        .await
        .map_err(|e| fault(operation, "writing a checkpoint", e))?
        .map_err(|e: delta_kernel::Error| fault(operation, "writing a checkpoint", e))
    }
}
