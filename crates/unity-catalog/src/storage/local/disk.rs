//! Files that appear whole or not at all, and are on the disk before they do.
//!
//! The order: the bytes of a file are flushed, then it gets its name, then the folder is flushed. So
//! whatever has a name is whole, and whatever was reported as written keeps its name. A batch is two
//! files, and the second, its commit, is begun after the first was reported.

use crate::storage::FolderAccess;
use object_store::{Error, PutMode, PutPayload, Result};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How what was written gets to the disk.
pub(in crate::storage) trait Flush: fmt::Debug + Send + Sync {
    /// Flushes the bytes of a file.
    fn file(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Flushes the names in a folder.
    fn folder(&self, path: &Path) -> io::Result<()>;
}

/// Waits until it is there.
#[derive(Debug)]
pub(in crate::storage) struct Disk;

impl Flush for Disk {
    fn file(&self, file: &File, _: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        // Elsewhere folders cannot be opened.
        #[cfg(unix)]
        match File::open(path)?.sync_all() {
            // Network and user-space file systems may not know what that is.
            Err(e) if !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                return Err(e);
            }
            _ => {}
        }
        let _ = path;
        Ok(())
    }
}

/// Leaves it to the system, which takes its time: half a minute as a rule.
#[derive(Debug)]
pub(in crate::storage) struct Cached;

impl Flush for Cached {
    fn file(&self, _: &File, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// The folders of one table, as far as it takes to write files into them.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// The folder above the root of tables: what is above that is somebody else's.
    top: PathBuf,
    table: PathBuf,
    access: FolderAccess,
    flush: Arc<dyn Flush>,
    /// Folders of the table whose own names are on the disk, and so are those above them.
    settled: Arc<Mutex<HashSet<PathBuf>>>,
    /// The same of the folders above the table, for all tables beneath the root.
    above: Above,
}

/// Folders above tables whose own names are on the disk.
pub(super) type Above = Arc<Mutex<HashSet<PathBuf>>>;

/// How many of them are remembered: there may be a schema for each tenant.
const ABOVE: usize = 4_096;

impl Folders {
    /// Those of the table at `location`, which is `<root>/<catalog>/<schema>/<table>`.
    pub(super) fn new(
        location: &Path,
        access: FolderAccess,
        flush: Arc<dyn Flush>,
        above: Above,
    ) -> Self {
        let top = location.ancestors().nth(4).unwrap_or(location);
        Self {
            top: top.to_owned(),
            table: location.to_owned(),
            access,
            flush,
            settled: Arc::default(),
            above,
        }
    }

    /// Makes the folders above a file. Those that exist keep their mode. The first time, their names
    /// are flushed: also those that exist, which somebody else may have made a moment ago.
    pub(super) fn make_parent(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let made = parent.ancestors().take_while(|folder| !folder.exists());
        let made: HashSet<&Path> = made.collect();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        if self.access == FolderAccess::Owner {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        #[cfg(not(unix))]
        let _ = self.access;
        builder
            .create(parent)
            .map_err(|e| failed("making the folder", parent, e))?;
        let mut flushed = Vec::new();
        // Whose name is in which folder.
        for folder in parent.ancestors() {
            let Some(holder) = folder.parent() else { break };
            let is_ours = folder.starts_with(&self.top) && folder != self.top;
            let is_new = made.contains(folder);
            if !is_new && (!is_ours || self.is_settled(folder)) {
                break;
            }
            match self.flush.folder(holder) {
                // One that may be passed through and not be read was not made here.
                Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_new => {}
                done => done.map_err(|e| failed("flushing", holder, e))?,
            }
            flushed.push(folder);
        }
        self.are_settled(&flushed);
        Ok(())
    }

    /// Where it is remembered of a folder.
    fn memory(&self, folder: &Path) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        let memory = match folder.starts_with(&self.table) && folder != self.table {
            true => &self.settled,
            false => &self.above,
        };
        memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_settled(&self, folder: &Path) -> bool {
        self.memory(folder).contains(folder)
    }

    fn are_settled(&self, folders: &[&Path]) {
        // From above: whatever is remembered, what is above it is.
        for folder in folders.iter().rev() {
            let mut memory = self.memory(folder);
            if memory.len() >= ABOVE {
                memory.clear();
            }
            memory.insert((*folder).to_owned());
        }
    }

    /// Makes sure that the name of a file, if it has one, stays.
    pub(super) fn settle(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        match self.flush.folder(parent) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("flushing", parent, e)),
            _ => Ok(()),
        }
    }

    /// Flushes a file that has its name already: nothing depends on it.
    pub(super) fn flush_whole(&self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| failed("opening", path, e))?;
        self.flush
            .file(&file, path)
            .map_err(|e| failed("flushing", path, e))?;
        self.settle(path)
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

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
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

/// A new file beside `path`, under the name that `object_store` gives to files that are not
/// complete. In a folder that only its owner may enter, the file is the owner's too.
fn staged(path: &Path) -> Result<(File, PathBuf)> {
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
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let folder = path.parent().and_then(|parent| parent.metadata().ok());
    folder.is_some_and(|folder| folder.mode() & 0o077 == 0)
}

/// Writes a file that appears whole or not at all.
pub(super) fn write(
    path: &Path,
    payload: &PutPayload,
    mode: &PutMode,
    folders: &Folders,
) -> Result<()> {
    folders.make_parent(path)?;
    let (mut file, staged) = staged(path)?;
    let written = payload.iter().try_for_each(|part| file.write_all(part));
    let done = written
        .map_err(|e| failed("writing", path, e))
        .and_then(|()| {
            let flushed = folders.flush.file(&file, &staged);
            flushed.map_err(|e| failed("flushing", path, e))
        })
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
    done?;
    folders.settle(path)
}

/// A file in a folder that only its owner may enter is the owner's too.
pub(super) fn make_private(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if is_private(path) {
        use std::os::unix::fs::PermissionsExt as _;
        return std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| failed("changing the mode of", path, e));
    }
    let _ = path;
    Ok(())
}

/// How deep a table's folders are looked through.
const DEPTH: u32 = 8;

/// The files beneath `table` that were begun before `older_than` and never finished, by their paths
/// in it; deleted unless `dry`. They have the name of the file they were to become, `#` and a number.
///
/// # Errors
/// If a folder cannot be read, or a file not be deleted.
pub(crate) fn partial_files(
    table: &Path,
    older_than: Duration,
    dry: bool,
) -> io::Result<Vec<String>> {
    let before = SystemTime::now().checked_sub(older_than);
    let mut found = Vec::new();
    let mut folders = vec![(table.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Neither of these follows a link.
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
                continue;
            }
            let name = entry.file_name();
            if !kind.is_file() || !name.to_str().is_some_and(is_partial) {
                continue;
            }
            let changed = match entry.metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?.modified()?,
            };
            if before.is_none_or(|before| changed >= before) {
                continue;
            }
            if !dry {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    removed => removed?,
                }
            }
            let shown = path.strip_prefix(table).unwrap_or(&path);
            found.push(shown.to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file of this name is one that was never finished.
pub(super) fn is_partial(name: &str) -> bool {
    let Some((whole, number)) = name.rsplit_once('#') else {
        return false;
    };
    let ours = [".parquet", ".json", ".crc", "_last_checkpoint"];
    ours.iter().any(|end| whole.ends_with(end))
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}
