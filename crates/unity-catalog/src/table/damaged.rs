//! Optional files of a log, done without where they are damaged. A checkpoint, the pointer to it, a
//! checksum and a compacted log repeat what commits say; as long as the commits are there, a table
//! can be read without them. A commit is never done without.

use async_trait::async_trait;
use bytes::Bytes;
use deltalake::logstore::commit_uri_from_version;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result as StoreResult,
};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trace_destination_core::{Error, ErrorKind};

/// Checkpoints that are done without one by one, before all are.
const ONE_BY_ONE: u32 = 2;
/// Names in a warning.
const NAMED: usize = 4;

/// What is done without in one open table: names, and which of the files that had them.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    files: Mutex<HashMap<Path, ObjectMeta>>,
    /// Whether a checkpoint is to be written that can be read.
    wants_checkpoint: AtomicBool,
}

impl Damaged {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<Path, ObjectMeta>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, location: &Path) -> bool {
        self.files().contains_key(location)
    }

    /// Whether this is the file that is done without; one of that name that was written since is not.
    fn is(&self, meta: &ObjectMeta) -> bool {
        let mut files = self.files();
        let Some(known) = files.get(&meta.location) else {
            return false;
        };
        let same = known.size == meta.size && known.last_modified == meta.last_modified;
        if !same {
            files.remove(&meta.location);
        }
        same
    }

    fn was_written(&self, location: &Path) {
        self.files().remove(location);
    }

    /// Whether a checkpoint is to be written before its time; true once.
    pub(super) fn take_wish(&self) -> bool {
        self.wants_checkpoint.swap(false, Ordering::AcqRel)
    }
}

/// The attempts to read a log, with ever fewer optional files.
#[derive(Debug)]
pub(crate) struct Fallback {
    damaged: Arc<Damaged>,
    /// What the first attempt said.
    first: Option<Error>,
    step: u32,
    hidden: Vec<Path>,
}

impl Fallback {
    pub(super) fn new(damaged: Arc<Damaged>) -> Self {
        Self {
            damaged,
            first: None,
            step: 0,
            hidden: Vec::new(),
        }
    }

    /// After an attempt that failed: `Ok` if another may do better, with fewer files.
    ///
    /// # Errors
    /// What the first attempt said, if it was not about what is in the log, or nothing is left to be
    /// done without.
    pub(crate) async fn after(&mut self, error: Error, log: &dyn ObjectStore) -> Result<(), Error> {
        let worth_it = is_of_content(&error);
        let first = self.first.get_or_insert(error).clone();
        if worth_it
            && let Ok(found) = optional_files(log).await
            && self.hide_more(found)
            && is_whole(log).await
        {
            return Ok(());
        }
        let mut files = self.damaged.files();
        for name in self.hidden.drain(..) {
            files.remove(&name);
        }
        Err(first)
    }

    /// After an attempt that succeeded: warns of what was done without.
    pub(crate) fn succeeded(self) {
        let Some(first) = self.first else { return };
        self.damaged.wants_checkpoint.store(true, Ordering::Release);
        let names = self.hidden.iter().filter_map(|path| path.filename());
        let names: Vec<&str> = names.take(NAMED).collect();
        tracing::warn!(
            files = names.join(", "),
            count = self.hidden.len(),
            error = %first,
            "optional files of a table's log cannot be read; the table is read from its other checkpoints and commits, and gets a new checkpoint"
        );
    }

    fn hide_more(&mut self, found: Vec<ObjectMeta>) -> bool {
        let newest = |metas: &[ObjectMeta]| metas.iter().filter_map(checkpoint_version).max();
        let (checkpoints, hints): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|meta| checkpoint_version(meta).is_some());
        while self.step <= ONE_BY_ONE + 1 {
            let chosen = match self.step {
                0 => hints.clone(),
                step if step <= ONE_BY_ONE => {
                    let newest = newest(&checkpoints);
                    let of_newest = |meta: &&ObjectMeta| checkpoint_version(meta) == newest;
                    checkpoints.iter().filter(of_newest).cloned().collect()
                }
                _ => checkpoints.clone(),
            };
            self.step += 1;
            if !chosen.is_empty() {
                let mut files = self.damaged.files();
                for meta in chosen {
                    self.hidden.push(meta.location.clone());
                    files.insert(meta.location.clone(), meta);
                }
                return true;
            }
        }
        false
    }
}

/// Whether an error is about what is in the log, and not about a store that does not answer.
pub(super) fn is_of_content(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Corrupt => true,
        // Delta's reader has no kind for a log whose parts do not fit.
        ErrorKind::Unavailable => !crate::error::comes_from_a_store(error),
        _ => false,
    }
}

fn checkpoint_version(meta: &ObjectMeta) -> Option<u64> {
    let name = meta.location.filename()?;
    let (version, rest) = name.split_once('.')?;
    rest.starts_with("checkpoint.").then_some(())?;
    version.parse().ok()
}

/// Whether what is left of a log begins with a checkpoint, or with version 0. Where neither is there,
/// the beginning was cleaned up, and what is left would be taken for everything.
async fn is_whole(log: &dyn ObjectStore) -> bool {
    let first = commit_uri_from_version(Some(0));
    if log.head(&first).await.is_ok() {
        return true;
    }
    let Ok(left) = optional_files(log).await else {
        return false;
    };
    let mut parts: HashMap<u64, u64> = HashMap::new();
    left.iter().any(|meta| {
        let Some(version) = checkpoint_version(meta) else {
            return false;
        };
        // `<version>.checkpoint.<part>.<parts>.parquet`, where it has more than one.
        let name = meta.location.filename().unwrap_or_default();
        let mut ends = name
            .rsplit('.')
            .skip(1)
            .map(|part| part.parse::<u64>().ok());
        match (ends.next().flatten(), ends.next().flatten()) {
            (Some(of), Some(_)) => {
                let found = parts.entry(version).or_default();
                *found += 1;
                *found >= of
            }
            _ => true,
        }
    })
}

/// The files of a log that it can be read without, of those that are not done without yet.
async fn optional_files(log: &dyn ObjectStore) -> StoreResult<Vec<ObjectMeta>> {
    let folder = Path::from("_delta_log");
    let is_optional = |meta: &ObjectMeta| {
        let name = meta.location.filename().unwrap_or_default();
        name == "_last_checkpoint"
            || name.ends_with(".crc")
            || name.ends_with(".compacted.json")
            || checkpoint_version(meta).is_some()
    };
    let listing = log.list(Some(&folder));
    let found = listing.try_filter(|meta| std::future::ready(is_optional(meta)));
    found.try_collect().await
}

/// A table's store without what is damaged.
#[derive(Debug)]
pub(super) struct WithoutDamaged {
    store: Arc<dyn ObjectStore>,
    damaged: Arc<Damaged>,
}

impl WithoutDamaged {
    pub(super) fn new(store: Arc<dyn ObjectStore>, damaged: Arc<Damaged>) -> Self {
        Self { store, damaged }
    }

    fn check(&self, location: &Path) -> StoreResult<()> {
        match self.damaged.has(location) {
            true => Err(StoreError::NotFound {
                path: location.to_string(),
                source: "it is damaged, and done without".into(),
            }),
            false => Ok(()),
        }
    }

    fn listed(
        &self,
        listing: BoxStream<'static, StoreResult<ObjectMeta>>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let damaged = self.damaged.clone();
        listing
            .try_filter(move |meta| std::future::ready(!damaged.is(meta)))
            .boxed()
    }
}

impl fmt::Display for WithoutDamaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WithoutDamaged({})", self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for WithoutDamaged {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> StoreResult<PutResult> {
        let put = self.store.put_opts(location, payload, opts).await?;
        self.damaged.was_written(location);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let upload = self.store.put_multipart_opts(location, opts).await?;
        Ok(Box::new(Upload {
            upload,
            location: location.clone(),
            damaged: self.damaged.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.check(location)?;
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.check(location)?;
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listed(self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listed(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        listed.objects.retain(|meta| !self.damaged.is(meta));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.check(from)?;
        self.store.copy_opts(from, to, options).await?;
        self.damaged.was_written(to);
        Ok(())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        self.check(from)?;
        self.store.rename_opts(from, to, options).await?;
        self.damaged.was_written(to);
        Ok(())
    }
}

/// A file in parts, which replaces a damaged one.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    damaged: Arc<Damaged>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let done = self.upload.complete().await?;
        self.damaged.was_written(&self.location);
        Ok(done)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.upload.abort().await
    }
}
