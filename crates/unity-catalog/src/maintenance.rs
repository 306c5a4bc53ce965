//! What keeps a table quick and tidy: asked for, never done behind anybody's back.

use crate::error::{MAINTAIN, fault};
use crate::location::UnityCatalogLocation;
use crate::options::MissingTable;
use crate::schema::TableKind;
use crate::table::Log;
use deltalake::DeltaTable;
use deltalake::operations::vacuum::VacuumMode;
use deltalake::protocol::checkpoints::cleanup_metadata;
use std::time::Duration;
use trace_destination_core::{Error, ErrorKind, LocationUri};

/// How long files are kept that the log does not name, where a table does not say (Delta protocol).
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The version before which checkpoints and commits are protected (Delta RFC "Checkpoint
/// Protection").
const PROTECTED: &str = "delta.requireCheckpointProtectionBeforeVersion";

/// Care for one table, to be called now and then by whoever runs it: by hand, from a timer, from a
/// job. Safe while others write, but for what [`remove_orphans`](Self::remove_orphans) says.
///
/// Made by [`UnityCatalogLocation::maintenance`] and
/// [`annotations_maintenance`](UnityCatalogLocation::annotations_maintenance). Not done here, because it needs a query engine:
/// putting small files together (`OPTIMIZE`) and deleting old rows (`DELETE … WHERE time < …`).
#[derive(Debug)]
pub struct TableMaintenance {
    uri: LocationUri,
    log: Log,
}

impl UnityCatalogLocation {
    /// Opens the table of spans for maintenance. It must exist.
    ///
    /// # Errors
    /// `NotFound` if there is no such table, and as for opening it otherwise.
    pub async fn maintenance(&self) -> Result<TableMaintenance, Error> {
        self.maintenance_of(TableKind::Spans).await
    }

    /// Opens the table of annotations for maintenance. It must exist.
    ///
    /// # Errors
    /// `NotFound` if there is no such table: nothing was set on a trace as a whole yet.
    /// `InvalidConfig` if this location has none. And as for opening it otherwise.
    pub async fn annotations_maintenance(&self) -> Result<TableMaintenance, Error> {
        self.maintenance_of(TableKind::Annotations).await
    }

    async fn maintenance_of(&self, kind: TableKind) -> Result<TableMaintenance, Error> {
        let table = self.open_with(kind, MissingTable::Fail).await?;
        Ok(TableMaintenance {
            uri: self.uri.clone(),
            log: table.log().clone(),
        })
    }
}

impl TableMaintenance {
    /// Writes a checkpoint of the newest version, so that readers need not go through all commits
    /// since the last one; returns the version. Writers do this every hundred versions or so.
    ///
    /// # Errors
    /// If the log cannot be read, or the checkpoint not be written.
    pub async fn checkpoint(&self) -> Result<u64, Error> {
        let version = self.load().await?.version().unwrap_or_default();
        self.log
            .checkpoint(version, MAINTAIN)
            .await
            .map_err(|e| e.at(&self.uri))?;
        Ok(version)
    }

    /// Deletes commits and checkpoints that no reader of the last
    /// `delta.logRetentionDuration` (30 days unless the table says otherwise) can ask for; returns
    /// how many files went. Nothing newer than that, and nothing that is not behind a checkpoint,
    /// is touched.
    ///
    /// # Errors
    /// `Unsupported` if the table protects checkpoints (feature `checkpointProtection`), which takes
    /// an engine that knows the features of every version; and if the log cannot be read, or a file
    /// not be deleted.
    pub async fn clean_log(&self) -> Result<usize, Error> {
        let table = self.load().await?;
        let metadata = table.snapshot().map(|snapshot| snapshot.metadata().clone());
        let metadata = metadata.map_err(|e| self.failed("reading the log", e))?;
        let protected = metadata.configuration().get(PROTECTED);
        if protected.is_some_and(|before| before.trim() != "0") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                MAINTAIN,
                "the table protects its older checkpoints (checkpointProtection)",
            )
            .mend("leave the log to an engine with that feature: Delta's for Spark tidies up when it writes a checkpoint")
            .at(&self.uri));
        }
        cleanup_metadata(&table, None)
            .await
            .map_err(|e| self.failed("cleaning up the log", e))
    }

    /// The files beneath the table that [`remove_orphans`](Self::remove_orphans) would delete.
    ///
    /// # Errors
    /// If the log or the table's folder cannot be read.
    pub async fn orphans(&self, older_than: Option<Duration>) -> Result<Vec<String>, Error> {
        self.vacuum(older_than, true).await
    }

    /// Deletes files beneath the table that its log does not name: what a writer left behind that
    /// died between storing a file and committing it, or while it wrote a local file
    /// (`….parquet#1`, `….json#1`), and what other engines replaced or deleted.
    /// Returns their names. What was deleted cannot be read in older versions any more.
    ///
    /// Only files older than `older_than` go; without one, older than the table's
    /// `delta.deletedFileRetentionDuration` (7 days unless it says otherwise). A file belongs to no
    /// commit until its writer gets to it: give at least an hour while anybody writes, which is many
    /// times what a batch is tried for.
    ///
    /// # Errors
    /// If the log or the table's folder cannot be read, or a file not be deleted.
    pub async fn remove_orphans(&self, older_than: Option<Duration>) -> Result<Vec<String>, Error> {
        self.vacuum(older_than, false).await
    }

    async fn vacuum(&self, older_than: Option<Duration>, dry: bool) -> Result<Vec<String>, Error> {
        let table = self.load().await?;
        let kept = match older_than {
            Some(age) => age,
            None => {
                let snapshot = table.snapshot();
                let snapshot = snapshot.map_err(|e| self.failed("reading the table", e))?;
                let kept = snapshot.table_config().deleted_file_retention_duration;
                kept.unwrap_or(KEPT)
            }
        };
        let partial = self.log.partial_files(kept, dry).await;
        let partial = partial.map_err(|e| e.at(&self.uri))?;
        let mut vacuum = table.vacuum().with_mode(VacuumMode::Full).with_dry_run(dry);
        if let Some(age) = older_than {
            let age = chrono::Duration::from_std(age)
                .map_err(|e| self.failed("reading the age of orphans", e))?;
            vacuum = vacuum
                .with_retention_period(age)
                .with_enforce_retention_duration(false);
        }
        let (_, metrics) = vacuum
            .await
            .map_err(|e| self.failed("removing orphaned files", e))?;
        let mut deleted = metrics.files_deleted;
        deleted.extend(partial);
        Ok(deleted)
    }

    /// The table with its files, read without checkpoints that are damaged.
    async fn load(&self) -> Result<DeltaTable, Error> {
        let mut fallback = self.log.fallback();
        loop {
            match self.load_all().await {
                Ok(table) => {
                    fallback.succeeded();
                    return Ok(table);
                }
                Err(error) => fallback.after(error, &**self.log.store()).await?,
            }
        }
    }

    async fn load_all(&self) -> Result<DeltaTable, Error> {
        // Refuses a log without its beginning, which Delta's own loading takes for a whole table: its
        // live files would be orphans.
        self.log.load().await.map_err(|e| e.at(&self.uri))?;
        let log = self.log.delta().map_err(|e| e.at(&self.uri))?;
        let mut table = DeltaTable::new(log);
        match table.load().await {
            Ok(()) => Ok(table),
            Err(deltalake::DeltaTableError::NotATable(_)) => {
                Err(
                    Error::new(ErrorKind::NotFound, MAINTAIN, "the table's log is gone")
                        .mend("open it again")
                        .at(&self.uri),
                )
            }
            Err(e) => Err(self.failed("reading the log", e)),
        }
    }

    fn failed<E>(&self, doing: &str, error: E) -> Error
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        fault(MAINTAIN, doing, error).at(&self.uri)
    }
}
