//! The log of one table: the few things a writer asks of it.

mod commits;

use super::ahead::Ahead;
use super::damaged::{Damaged, Fallback, WithoutDamaged};
use super::engine::Confined;
use super::fetched::Fetched;
use super::protocol::{Domains, commits_elsewhere};
use crate::error::{MAINTAIN, OPEN, fault, log_fault};
use crate::storage::{Bounded, Limits, partial_files};
use bytes::Bytes;
pub(crate) use commits::Mark;
use delta_kernel::{Snapshot, SnapshotRef};
use deltalake::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use futures_util::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use trace_destination_core::{Error, ErrorKind, waiting_for_turn};
use url::Url;

/// Where the log is, in a store that is rooted at the table.
const FOLDER: &str = "_delta_log";

/// Logs of one store that are read at a time. By store, so that one that does not answer holds up no
/// other.
const READERS: usize = 16;
/// Threads that read logs which were fetched before: they wait for nothing.
const READING: usize = 4;
/// Threads that read logs which were too large to be fetched before, and wait for their stores.
const WAITING: usize = 8;
/// How long one of the latter may wait in all.
const WAIT: Duration = Duration::from_secs(60);
/// Threads that write checkpoints. Each has its store's time to do it in.
const CHECKPOINTS: usize = 2;

static READING_TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(READING));
static WAITING_TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(WAITING));
static CHECKPOINT_TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CHECKPOINTS));

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
    /// Within the limits of a writer.
    store: Arc<dyn ObjectStore>,
    raw: Arc<dyn ObjectStore>,
    /// Whether the store is of local files.
    local: bool,
    /// The folder of the table, if it is of local files.
    folder: Option<PathBuf>,
    readers: Arc<Semaphore>,
    damaged: Arc<Damaged>,
}

/// A version of a table, and what it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) snapshot: SnapshotRef,
    pub(super) domains: Domains,
    /// The commit of the version.
    pub(super) mark: Mark,
    /// Its content, where it is still there.
    pub(super) commit: Option<Bytes>,
    fetched: Arc<Fetched>,
}

impl Log {
    /// `location` is where the table is.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, location: &Url) -> Self {
        let damaged = Arc::<Damaged>::default();
        let store: Arc<dyn ObjectStore> = Arc::new(WithoutDamaged::new(store, damaged.clone()));
        Self {
            store: Arc::new(Bounded::new(store.clone(), Limits::WRITING)),
            raw: store,
            local: location.scheme() == "file",
            folder: match location.scheme() {
                "file" => location.to_file_path().ok(),
                _ => None,
            },
            readers: readers(location),
            damaged,
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The log as Delta's own operations want it, for a table that is cared for by hand.
    pub(crate) fn delta(&self) -> Result<LogStoreRef, Error> {
        let store = Bounded::new(self.raw.clone(), Limits::MAINTENANCE);
        self.logstore(Arc::new(store))
    }

    fn logstore(&self, store: Arc<dyn ObjectStore>) -> Result<LogStoreRef, Error> {
        // Delta's reader wants addresses beneath which the store's paths are; ours begin at the
        // table. Whether listings come sorted it tells by the scheme.
        let root = match self.local {
            true => "file:///",
            false => "table:///",
        };
        let root = Url::parse(root).map_err(|e| fault(OPEN, "naming the table's root", e))?;
        let config = StorageConfig::default();
        Ok(default_logstore(store.clone(), store, &root, &config))
    }

    /// The newest state of the table, without its files; `None` if there is no table. Checkpoints
    /// that cannot be read are done without where older ones and the commits are enough.
    pub(crate) async fn load(&self) -> Result<Option<Loaded>, Error> {
        let mut fallback = self.fallback();
        loop {
            match self.load_all().await {
                Ok(loaded) => {
                    fallback.succeeded();
                    return Ok(loaded);
                }
                Err(error) => fallback.after(error, &*self.store).await?,
            }
        }
    }

    async fn load_all(&self) -> Result<Option<Loaded>, Error> {
        let doing = "reading the table's log";
        // Never closed: an error would only mean that there is no limit.
        let _turn = waiting_for_turn(self.readers.clone().acquire_owned()).await;
        let mut fetched = self.fetch(OPEN, doing).await?;
        if fetched.is_empty() {
            if self.is_empty().await? {
                return Ok(None);
            }
            // Made since it was listed.
            fetched = self.fetch(OPEN, doing).await?;
        }
        let fetched = Arc::new(fetched);
        let loaded: Result<_, delta_kernel::Error> = self
            .reading(fetched.clone(), |engine, root| {
                let snapshot = Snapshot::builder_for(root).build(engine)?;
                is_whole(&snapshot)?;
                let domains = Domains::of(&snapshot, engine)?;
                Ok((snapshot, domains))
            })
            .await?;
        match loaded {
            Ok((snapshot, domains)) => {
                let newest = self.newest(&fetched, snapshot.version()).await;
                let (mark, commit) = newest.map_err(|e| fault(OPEN, doing, e))?;
                Ok(Some(Loaded {
                    snapshot,
                    domains,
                    mark,
                    commit,
                    fetched,
                }))
            }
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
            // Delta's reader does not begin with a table whose newest version its catalog knows.
            Err(e) if e.to_string().contains("catalog-managed") => Err(commits_elsewhere(e)),
            Err(e) => Err(log_fault(OPEN, doing, e)),
        }
    }

    /// The commit of the newest version, from what was fetched where it is among that.
    async fn newest(
        &self,
        fetched: &Fetched,
        version: u64,
    ) -> Result<(Mark, Option<Bytes>), object_store::Error> {
        let path = commit_uri_from_version(Some(version));
        if let Some((meta, bytes)) = fetched.whole.get(&path) {
            return Ok((Mark::of(&path, meta, Some(bytes)), Some(bytes.clone())));
        }
        if let Some((bytes, mark)) = self.read(version).await? {
            return Ok((mark, Some(bytes)));
        }
        // It was cleaned up: the checkpoint that stands for it is what there is.
        let name = path.filename().unwrap_or_default().replace("json", "");
        let mut listed = fetched.listing.iter();
        let stands = listed.find(|m| m.location.filename().is_some_and(|f| f.starts_with(&name)));
        Ok((
            stands.map_or_else(Mark::default, |meta| Mark::of(&meta.location, meta, None)),
            None,
        ))
    }

    async fn fetch(&self, operation: &'static str, doing: &str) -> Result<Fetched, Error> {
        let fetched = Fetched::of(&*self.store).await;
        fetched.map_err(|e| fault(operation, doing, e))
    }

    /// Reads what was fetched, or more, on a thread when there is one.
    async fn reading<T: Send + 'static>(
        &self,
        fetched: Arc<Fetched>,
        run: impl FnOnce(&dyn delta_kernel::Engine, Url) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turns = match fetched.is_complete() {
            true => &*READING_TURNS,
            false => &*WAITING_TURNS,
        };
        let turn = waiting_for_turn(turns.acquire()).await.ok();
        let store = Bounded::new(self.raw.clone(), Limits::WRITING);
        let store = Ahead::new(Arc::new(store), fetched, WAIT, !self.local);
        self.on_thread(OPEN, Arc::new(store), turn, run).await
    }

    /// Runs Delta's own reader or writer, which block a thread. Its turn is kept until it is done.
    async fn on_thread<T: Send + 'static>(
        &self,
        operation: &'static str,
        store: Arc<dyn ObjectStore>,
        turn: Option<SemaphorePermit<'static>>,
        run: impl FnOnce(&dyn delta_kernel::Engine, Url) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let delta = self.logstore(store)?;
        let root = delta.root_url().clone();
        let engine = Confined::new(delta.engine(None), root.clone());
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            run(&engine, root)
        })
        .await
        .map_err(|e| fault(operation, "reading the table's log", e))
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
        mut loaded: Loaded,
        app_id: String,
    ) -> Result<Option<i64>, Error> {
        let mut fallback = self.fallback();
        loop {
            match self.transaction_of(loaded, app_id.clone()).await {
                Ok(found) => {
                    fallback.succeeded();
                    return Ok(found);
                }
                Err(error) => {
                    fallback.after(error.clone(), &*self.store).await?;
                    let Some(again) = self.load().await? else {
                        return Err(error);
                    };
                    loaded = again;
                }
            }
        }
    }

    async fn transaction_of(&self, loaded: Loaded, app_id: String) -> Result<Option<i64>, Error> {
        let Loaded {
            snapshot, fetched, ..
        } = loaded;
        let _turn = waiting_for_turn(self.readers.clone().acquire_owned()).await;
        self.reading(fetched, move |engine, _| {
            snapshot.get_app_id_version(&app_id, engine)
        })
        .await?
        .map_err(|e| log_fault(OPEN, "looking for the writer's last transaction", e))
    }

    /// The files beneath a local table that were begun before `older_than` and never finished, by
    /// their paths in it; deleted unless `dry`. Stores show nobody such files.
    pub(crate) async fn partial_files(
        &self,
        older_than: Duration,
        dry: bool,
    ) -> Result<Vec<String>, Error> {
        let Some(folder) = self.folder.clone() else {
            return Ok(Vec::new());
        };
        let found = tokio::task::spawn_blocking(move || partial_files(&folder, older_than, dry));
        let doing = "looking for unfinished files";
        found
            .await
            .map_err(|e| fault(MAINTAIN, doing, e))?
            .map_err(|e| fault(MAINTAIN, doing, e))
    }

    /// Whether a checkpoint is to be written now, because one was found damaged; true once.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.damaged.take_wish()
    }

    /// The attempts to read the log, with ever fewer optional files.
    pub(crate) fn fallback(&self) -> Fallback {
        Fallback::new(self.damaged.clone())
    }

    /// Writes a checkpoint of a version, from the one before it if that can be read.
    pub(crate) async fn checkpoint(
        &self,
        version: u64,
        operation: &'static str,
    ) -> Result<(), Error> {
        let mut fallback = self.fallback();
        loop {
            match self.checkpoint_from_all(version, operation).await {
                Ok(()) => {
                    fallback.succeeded();
                    // It was just written.
                    self.damaged.take_wish();
                    return Ok(());
                }
                Err(error) => fallback.after(error, &*self.store).await?,
            }
        }
    }

    /// A store that does not answer is found out before the turn of others is taken.
    async fn checkpoint_from_all(
        &self,
        version: u64,
        operation: &'static str,
    ) -> Result<(), Error> {
        let doing = "writing a checkpoint";
        let (limits, turn, fetched) = match operation {
            // Somebody asked for it and waits, about a table that may be large.
            MAINTAIN => (Limits::MAINTENANCE, None, Fetched::default()),
            _ => {
                let mut fetched = self.fetch(operation, doing).await?;
                let turn = CHECKPOINT_TURNS.acquire().await.ok();
                if !self.local {
                    let store = Bounded::new(self.raw.clone(), Limits::CHECKPOINT);
                    let whole = fetched.whole_checkpoint(&store).await;
                    whole.map_err(|e| fault(operation, doing, e))?;
                }
                (Limits::CHECKPOINT, turn, fetched)
            }
        };
        let store = Bounded::new(self.raw.clone(), limits);
        let strict = !self.local && operation != MAINTAIN;
        let store = Ahead::new(Arc::new(store), Arc::new(fetched), limits.time, strict);
        self.on_thread(operation, Arc::new(store), turn, move |engine, root| {
            let snapshot = Snapshot::builder_for(root)
                .at_version(version)
                .build(engine)?;
            is_whole(&snapshot)?;
            snapshot.checkpoint(engine, None).map(|_| ())
        })
        .await?
        .map_err(|e| log_fault(operation, doing, e))
    }
}

/// Refuses a log whose beginning was cleaned up and whose checkpoint is not there: Delta's reader
/// takes the commits that are left for all there were.
fn is_whole(snapshot: &Snapshot) -> Result<(), delta_kernel::Error> {
    let segment = snapshot.log_segment();
    let first = segment.listed.ascending_commit_files.first();
    match segment.checkpoint_version.is_some() || first.is_none_or(|first| first.version == 0) {
        true => Ok(()),
        false => Err(delta_kernel::Error::InvalidCheckpoint(
            "the first commits were cleaned up, and the checkpoint that stands for them is not there"
                .to_owned(),
        )),
    }
}
