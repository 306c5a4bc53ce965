//! Files that are read again when they change: tokens and certificates.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// How often a file is checked; it is read only if it has changed.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Identifies the content of a file without reading it: length, time, inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, Option<SystemTime>, u64)>);

impl Stamp {
    pub(crate) fn of(file: &Path) -> Self {
        // Of the file that a symbolic link leads to: secrets are often swapped by changing links.
        let Ok(about) = std::fs::metadata(file) else {
            return Self(None);
        };
        Self(Some((about.len(), about.modified().ok(), number(&about))))
    }
}

#[cfg(unix)]
fn number(about: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}

/// When a file was last checked.
#[derive(Debug)]
pub(crate) struct Looked(Instant);

impl Looked {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// Whether it is time to check again; if so, counts as checked.
    pub(crate) fn is_due(&mut self, every: Duration) -> bool {
        let due = self.0.elapsed() >= every;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
