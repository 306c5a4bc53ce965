//! Local files. Each request blocks a thread, so a bounded number of them runs at a time: over all
//! roots, and beneath one, so that a disk that hangs does not hold up the others. New folders are
//! made for their owner unless the options say otherwise.

use super::FolderAccess;
use async_trait::async_trait;
use bytes::Bytes;
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
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trace_destination_core::waiting_for_turn;

/// Threads that work on local files at a time in this process.
const THREADS: usize = 16;
/// How many of them the tables beneath one root may use. Four roots that hang hold up the others.
const PER_ROOT: usize = 4;
/// Entries of a listing that are read in one turn.
const LISTED: usize = 1024;

static ALL: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(THREADS)));
static ROOTS: Mutex<Option<HashMap<PathBuf, Weak<Semaphore>>>> = Mutex::new(None);

/// The turns of one root. Tables are `<root>/<catalog>/<schema>/<table>`.
fn turns(location: &FilePath) -> Arc<Semaphore> {
    let root = location.ancestors().nth(3).unwrap_or(location);
    let mut roots = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let roots = roots.get_or_insert_default();
    if let Some(turns) = roots.get(root).and_then(Weak::upgrade) {
        return turns;
    }
    roots.retain(|_, turns| turns.strong_count() > 0);
    let turns = Arc::new(Semaphore::new(PER_ROOT));
    roots.insert(root.to_owned(), Arc::downgrade(&turns));
    turns
}

/// The local file system, with the root `/`.
#[derive(Clone, Debug)]
pub(super) struct Local {
    files: LocalFileSystem,
    root: Arc<Semaphore>,
    access: FolderAccess,
}

/// Held while a thread works on files.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Local {
    /// The file system for a table at `location`.
    pub(super) fn new(location: &FilePath, access: FolderAccess) -> Self {
        Self {
            files: LocalFileSystem::new(),
            root: turns(location),
            access,
        }
    }

    async fn turn(&self) -> Result<Turn> {
        // This root may be what hangs: waiting for it counts as waiting for the place.
        let own = self.root.clone().acquire_owned().await;
        let any = waiting_for_turn(ALL.clone().acquire_owned()).await;
        // Never closed.
        let closed = |e| failed("waiting for a turn", FilePath::new(""), io::Error::other(e));
        Ok((own.map_err(closed)?, any.map_err(closed)?))
    }

    /// Runs what blocks one thread. It keeps its turn until it is done, also if nobody waits for it
    /// any more: the thread is not free before.
    async fn run<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn().await?;
        let running = tokio::spawn(async move {
            let done = request.await;
            drop(turn);
            done
        });
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
        let (path, access) = (self.files.path_to_filesystem(location)?, self.access);
        self.blocking(move || make_parent(&path, access)).await
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

/// What went wrong with a file.
#[derive(Debug)]
struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} failed", self.doing, self.path.display())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn failed(doing: &'static str, path: &FilePath, source: io::Error) -> Error {
    let kind = source.kind();
    let shown = path.display().to_string();
    let source = Box::new(FileError {
        doing,
        path: path.to_owned(),
        source,
    });
    match kind {
        ErrorKind::AlreadyExists => Error::AlreadyExists {
            path: shown,
            source,
        },
        _ => Error::Generic {
            store: "LocalFileSystem",
            source,
        },
    }
}

/// Makes the folders above a file. Those that exist keep their mode.
fn make_parent(path: &FilePath, access: FolderAccess) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if access == FolderAccess::Owner {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    }
    #[cfg(not(unix))]
    let _ = access;
    builder
        .create(parent)
        .map_err(|e| failed("making the folder", parent, e))
}

/// A new file beside `path`, under the name that `object_store` gives to files that are not
/// complete. In a folder that only its owner may enter, the file is the owner's too.
fn staged(path: &FilePath) -> Result<(File, PathBuf)> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_private(path) {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    for number in 1_u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let name = PathBuf::from(name);
        match options.open(&name) {
            Ok(file) => return Ok((file, name)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("creating", &name, e)),
        }
    }
    Err(failed("creating", path, ErrorKind::StorageFull.into()))
}

/// Whether only its owner may enter the folder of a file.
#[cfg(unix)]
fn is_private(path: &FilePath) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let folder = path.parent().and_then(|parent| parent.metadata().ok());
    folder.is_some_and(|folder| folder.mode() & 0o077 == 0)
}

/// Writes a file that appears whole or not at all.
fn write(
    path: &FilePath,
    payload: &PutPayload,
    mode: &PutMode,
    access: FolderAccess,
) -> Result<()> {
    make_parent(path, access)?;
    let (mut file, staged) = staged(path)?;
    let written = payload.iter().try_for_each(|part| file.write_all(part));
    drop(file);
    let done = written
        .map_err(|e| failed("writing", path, e))
        .and_then(|()| match mode {
            PutMode::Overwrite => {
                std::fs::rename(&staged, path).map_err(|e| failed("replacing", path, e))
            }
            _ => {
                let linked =
                    std::fs::hard_link(&staged, path).map_err(|e| failed("creating", path, e));
                let _ = std::fs::remove_file(&staged);
                linked
            }
        });
    if done.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    done
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
        let (path, access) = (self.files.path_to_filesystem(location)?, self.access);
        self.blocking(move || write(&path, &payload, &opts.mode, access))
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
        let (files, from, to) = (self.files.clone(), from.clone(), to.clone());
        self.run(async move { files.copy_opts(&from, &to, options).await })
            .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.make_parent(to).await?;
        let (files, from, to) = (self.files.clone(), from.clone(), to.clone());
        self.run(async move { files.rename_opts(&from, &to, options).await })
            .await
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
        let path = self.path.clone();
        self.local.blocking(move || make_private(&path)).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// A file in a folder that only its owner may enter is the owner's too.
fn make_private(path: &FilePath) -> Result<()> {
    #[cfg(unix)]
    if is_private(path) {
        use std::os::unix::fs::PermissionsExt as _;
        return std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| failed("changing the mode of", path, e));
    }
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests;
