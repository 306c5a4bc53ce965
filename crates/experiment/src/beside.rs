//! Files that lie beside a database: its logs, and the mark of this crate.

use crate::stamp::Stamp;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The ending of the mark.
pub(crate) const MARK: &str = "-mark";
/// Logs that were set aside, after which another is an error.
const MAX_ASIDE: u32 = 1000;

/// The file with a longer name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A note beside a file that is open for writing: its size and time as of the last merge of its
/// write-ahead log. A process that is killed leaves it there, and the next one sees by it whether
/// the file is still the one that the log was begun on. Another program may merge and begin the log
/// anew after that; the mark is no evidence about such a log. Nothing is lost where it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) len: u64,
    modified: (i64, i64),
    /// A merge had begun.
    pub(crate) merging: bool,
    generation: Generation,
}

/// Which run of a write-ahead log, from one beginning to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    /// The first salt in the log's header. SQLite adds one when it begins the log anew.
    pub(crate) salt: u32,
    /// All of the log was merged, so that the next transaction may begin it anew.
    pub(crate) whole: bool,
}

impl Mark {
    pub(crate) fn new(stamp: &Stamp, merging: bool, generation: Generation) -> Self {
        Self {
            len: stamp.len,
            modified: stamp.modified,
            merging,
            generation,
        }
    }

    /// Whether the mark is evidence about a log with this salt.
    pub(crate) fn is_about(&self, salt: u32) -> bool {
        let Generation { salt: own, whole } = self.generation;
        self.merging || salt == own || whole && salt == own.wrapping_add(1)
    }

    /// Whether a file is as it was.
    pub(crate) fn is_of(&self, stamp: &Stamp) -> bool {
        (self.len, self.modified) == (stamp.len, stamp.modified)
    }

    /// The mark beside a file; `None` where there is none that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = fs::File::open(beside(path, MARK)).ok()?;
        file.take(1024).read_to_string(&mut text).ok()?;
        let mut words = text.lines().next()?.split_ascii_whitespace();
        let known = (words.next()?, words.next()?) == ("trace-destination", "2");
        let mut number = || words.next()?.parse::<i64>().ok();
        let mark = Self {
            len: u64::try_from(number()?).ok()?,
            modified: (number()?, number()?),
            merging: number()? != 0,
            generation: Generation {
                salt: u32::try_from(number()?).ok()?,
                whole: number()? != 0,
            },
        };
        known.then_some(mark)
    }

    /// Puts the mark beside a file. Its length is always the same, so that one write replaces it.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
            // As SQLite does for its own files.
            let mode = fs::metadata(path)?.permissions().mode();
            options.mode(mode & 0o666);
        }
        let text = format!(
            "trace-destination 2 {:020} {:020} {:09} {} {:010} {}\n\
             # size and time of the database beside this file, as of the last merge of its log;\n\
             # to be deleted only while no program has the database open\n",
            self.len,
            self.modified.0,
            self.modified.1,
            u8::from(self.merging),
            self.generation.salt,
            u8::from(self.generation.whole),
        );
        let mark = beside(path, MARK);
        let opened = match options.open(&mark) {
            // Left by another user, who may write the database too.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                fs::remove_file(&mark)?;
                options.open(&mark)
            }
            opened => opened,
        };
        let mut file = opened?;
        file.write_all(text.as_bytes())?;
        if self.merging {
            // Before the file changes: after a power failure, an older mark beside a file that was
            // merged in part would contradict its log.
            file.sync_data()?;
        }
        Ok(())
    }

    /// Takes the mark away.
    pub(crate) fn remove(path: &Path) {
        // Without it nothing is wrong.
        let _ = fs::remove_file(beside(path, MARK));
    }
}

/// Renames a log that belongs to another file, and says so in the log. The new name is that of a
/// log too: the file it belongs to can be put before it.
pub(crate) fn set_aside(path: &Path, suffix: &str) -> io::Result<()> {
    let log = beside(path, suffix);
    for n in 1..MAX_ASIDE {
        let kept = beside(path, &format!("-stale{n}{suffix}"));
        if kept.try_exists()? {
            continue;
        }
        fs::rename(&log, &kept)?;
        if suffix == "-wal" {
            let _ = fs::remove_file(beside(path, "-shm"));
        }
        Mark::remove(path);
        tracing::warn!(
            file = %path.display(),
            kept_as = %kept.display(),
            "a log beside the database belongs to another file, as after a backup was restored or \
             the file was moved; it was renamed and not replayed"
        );
        return Ok(());
    }
    Err(io::Error::other(format!(
        "too many logs named `{}` and the like",
        beside(path, &format!("-stale1{suffix}")).display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_the_file_as_it_was() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        fs::write(&path, "1234").unwrap();
        assert_eq!(Mark::read(&path), None);
        let stamp = Stamp::of(&path).unwrap().unwrap();
        for merging in [true, false] {
            for whole in [true, false] {
                let salt = u32::MAX;
                let mark = Mark::new(&stamp, merging, Generation { salt, whole });
                mark.write(&path).unwrap();
                assert_eq!(Mark::read(&path), Some(mark));
                assert!(mark.is_of(&stamp));
                assert!(mark.is_about(salt));
                assert_eq!(mark.is_about(0), merging || whole);
                assert_eq!(mark.is_about(1), merging);
            }
        }
        for (len, modified) in [(5, stamp.modified), (4, (stamp.modified.0, 1))] {
            let other = Stamp {
                len,
                modified,
                ..stamp
            };
            assert!(!Mark::read(&path).unwrap().is_of(&other));
        }
        for text in [
            "",
            "trace-destination 1 4 0 0 0 0 0",
            "trace-destination 2 4 0 0 0",
            "trace-destination 2 4 0",
            "x\n\0",
        ] {
            fs::write(beside(&path, MARK), text).unwrap();
            assert_eq!(Mark::read(&path), None, "{text}");
        }
        Mark::remove(&path);
        assert!(!beside(&path, MARK).exists());
    }

    #[test]
    fn logs_that_are_set_aside_keep_out_of_each_others_way() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        for n in 1..4 {
            fs::write(beside(&path, "-wal"), n.to_string()).unwrap();
            set_aside(&path, "-wal").unwrap();
            let kept = fs::read_to_string(beside(&path, &format!("-stale{n}-wal")));
            assert_eq!(kept.unwrap(), n.to_string());
        }
        assert!(!beside(&path, "-wal").exists());
    }
}
