//! What a file looks like from outside: enough to notice that it is another one, or was written by
//! somebody else.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

/// Device and number of a file, which no other file has while it is open.
pub(crate) type FileId = (u64, u64);

/// A file as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) id: FileId,
    pub(crate) len: u64,
    /// When its content changed last: seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    /// When its content, name or mode changed last.
    pub(crate) changed: (i64, i64),
}

impl Stamp {
    /// The file at a path; `None` where there is none.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(Self::read(&meta))),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    #[cfg(unix)]
    fn read(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            id: (meta.dev(), meta.ino()),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// An open database can be neither deleted nor renamed there.
    #[cfg(not(unix))]
    fn read(meta: &Metadata) -> Self {
        Self {
            id: (0, 0),
            len: u64::from(meta.len() > 0),
            modified: (0, 0),
            changed: (0, 0),
        }
    }
}

fn is_absent(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
