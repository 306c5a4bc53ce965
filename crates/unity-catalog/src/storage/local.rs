//! Local files. Each request blocks a thread, so a bounded number of them runs at a time: over all
//! roots, and beneath one, so that a disk that hangs does not hold up the others. New folders are
//! made for their owner unless the options say otherwise. What was written is on the disk before the
//! request ends, unless the options say otherwise.

mod disk;

use super::FolderAccess;
use async_trait::async_trait;
use bytes::Bytes;
pub(crate) use disk::partial_files;
use disk::{Above, Folders, failed, make_private, write};
pub(super) use disk::{Cached, Disk, Flush};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use trace_destination_core::waiting_for_turn;

/// Threads that work on local files at a time in this process.
const THREADS: usize = 16;
/// How many of them the tables beneath one root may use. Four roots that hang hold up the others.
const PER_ROOT: usize = 4;
/// Entries of a listing that are read in one turn.
const LISTED: usize = 1024;

static ALL: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(THREADS)));
static ROOTS: Mutex<Option<HashMap<PathBuf, Weak<Root>>>> = Mutex::new(None);

/// What the tables beneath one root share.
#[derive(Debug)]
struct Root {
    turns: Arc<Semaphore>,
    settled: Above,
}

/// That of a table: tables are `<root>/<catalog>/<schema>/<table>`.
fn root_of(location: &FilePath) -> Arc<Root> {
    let root = location.ancestors().nth(3).unwrap_or(location);
    let mut roots = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let roots = roots.get_or_insert_default();
    if let Some(found) = roots.get(root).and_then(Weak::upgrade) {
        return found;
    }
    roots.retain(|_, root| root.strong_count() > 0);
    let new = Arc::new(Root {
        turns: Arc::new(Semaphore::new(PER_ROOT)),
        settled: Above::default(),
    });
    roots.insert(root.to_owned(), Arc::downgrade(&new));
    new
}

/// The local file system, with the root `/`.
#[derive(Clone, Debug)]
pub(super) struct Local {
    files: LocalFileSystem,
    root: Arc<Root>,
    folders: Folders,
}

/// In the extensions of a request for an object: it is answered once the object's name is on the
/// disk. What a request left there that failed, or was given up, is seen by all and may still be lost
/// in a power failure. Other stores than that of local files need not be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled;

/// Waits for a turn, which is held while a thread works on files, and tells who waits for it that it
/// came; an error if nobody does any more.
async fn turn(turns: Arc<Semaphore>, came: oneshot::Sender<()>) -> Result<OwnedSemaphorePermit> {
    let failed = |e: io::Error| failed("waiting for a turn", FilePath::new(""), e);
    let mut came = came;
    let turn = tokio::select! {
        biased;
        () = came.closed() => Err(failed(io::ErrorKind::Interrupted.into())),
        // Never closed.
        turn = turns.acquire_owned() => turn.map_err(|e| failed(io::Error::other(e))),
    }?;
    match came.send(()) {
        Ok(()) => Ok(turn),
        Err(()) => Err(failed(io::ErrorKind::Interrupted.into())),
    }
}

impl Local {
    /// The file system for a table at `location`; `flush` is how files get to the disk.
    pub(super) fn new(location: &FilePath, access: FolderAccess, flush: Arc<dyn Flush>) -> Self {
        let root = root_of(location);
        let above = root.settled.clone();
        Self {
            files: LocalFileSystem::new(),
            root,
            folders: Folders::new(location, access, flush, above),
        }
    }

    /// Runs what blocks one thread. It keeps its turn until it is done, also if nobody waits for it
    /// any more: the thread is not free before.
    ///
    /// The turns are waited for in a task of its own. Delta's reader begins several requests and
    /// then looks at one of them only; a turn that came to another would be kept for ever.
    async fn run<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turns = self.root.turns.clone();
        let (has_own, own) = oneshot::channel();
        let (has_any, any) = oneshot::channel();
        let running = tokio::spawn(async move {
            let own = turn(turns, has_own).await?;
            let any = turn(ALL.clone(), has_any).await?;
            let done = request.await;
            drop((own, any));
            done
        });
        // This root may be what hangs: waiting for it counts as waiting for the place.
        if own.await.is_ok() {
            // Where the task has ended, its result is the answer.
            let _ = waiting_for_turn(any).await;
        }
        running.await?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        request: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(async move { tokio::task::spawn_blocking(request).await? })
            .await
    }

    async fn make_parent(&self, location: &Path) -> Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        let folders = self.folders.clone();
        self.blocking(move || folders.make_parent(&path)).await
    }

    async fn flush_whole(&self, location: &Path) -> Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        let folders = self.folders.clone();
        self.blocking(move || folders.flush_whole(&path)).await
    }

    fn listing(
        &self,
        open: impl FnOnce(&LocalFileSystem) -> BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let start = (self.clone(), open(&self.files));
        // A turn is not kept while somebody else decides when to read on.
        stream::try_unfold(start, |(local, mut listing)| async move {
            let pulled = local.run(async move {
                let batch: Vec<_> = listing.by_ref().take(LISTED).collect().await;
                Ok((batch, listing))
            });
            let (batch, listing) = pulled.await?;
            Ok::<_, Error>(match batch.is_empty() {
                true => None,
                false => Some((stream::iter(batch), (local, listing))),
            })
        })
        .try_flatten()
        .boxed()
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.files, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Local {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            return self.files.put_opts(location, payload, opts).await;
        }
        let path = self.files.path_to_filesystem(location)?;
        let folders = self.folders.clone();
        self.blocking(move || write(&path, &payload, &opts.mode, &folders))
            .await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.make_parent(location).await?;
        let path = self.files.path_to_filesystem(location)?;
        let (files, to) = (self.files.clone(), location.clone());
        let upload = self.run(async move { files.put_multipart_opts(&to, opts).await });
        Ok(Box::new(Upload {
            upload: upload.await?,
            local: self.clone(),
            path,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.extensions.get::<Settled>().is_some() {
            let path = self.files.path_to_filesystem(location)?;
            let folders = self.folders.clone();
            self.blocking(move || folders.settle(&path)).await?;
        }
        let (files, from, head) = (self.files.clone(), location.clone(), options.head);
        let opened = self.run(async move { files.get_opts(&from, options).await });
        let result = opened.await?;
        if head {
            return Ok(result);
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let attributes = result.attributes.clone();
        let local = self.clone();
        // Read only when somebody wants it, who has seen how much it is.
        let body = stream::once(async move { local.run(result.bytes()).await });
        Ok(GetResult {
            payload: GetResultPayload::Stream(body.boxed()),
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (files, from, ranges) = (self.files.clone(), location.clone(), ranges.to_vec());
        self.run(async move { files.get_ranges(&from, &ranges).await })
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let local = self.clone();
        locations
            .and_then(move |location| {
                let local = local.clone();
                async move {
                    let (files, gone) = (local.files.clone(), location.clone());
                    local
                        .run(async move { files.delete(&gone).await })
                        .await
                        .map(|()| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(|files| files.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(|files| files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (files, prefix) = (self.files.clone(), prefix.cloned());
        self.run(async move { files.list_with_delimiter(prefix.as_ref()).await })
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.make_parent(to).await?;
        let (files, from) = (self.files.clone(), from.clone());
        let target = to.clone();
        self.run(async move { files.copy_opts(&from, &target, options).await })
            .await?;
        self.flush_whole(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.make_parent(to).await?;
        let (files, from) = (self.files.clone(), from.clone());
        let target = to.clone();
        self.run(async move { files.rename_opts(&from, &target, options).await })
            .await?;
        self.flush_whole(to).await
    }
}

/// A file that is written in parts.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    local: Local,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, local) = (self.upload.put_part(data), self.local.clone());
        Box::pin(async move { local.run(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.upload.complete().await?;
        let (path, folders) = (self.path.clone(), self.local.folders.clone());
        let settled = move || {
            make_private(&path)?;
            folders.flush_whole(&path)
        };
        self.local.blocking(settled).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests;
