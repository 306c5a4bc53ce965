//! Whether a log that lies beside a database file belongs to it.
//!
//! SQLite pairs a database with its log by name alone, and replays what it finds. After a crash, or
//! while a program has the file open, a backup that is moved or copied over the database gets the
//! log of the file before it, and both are damaged. So a log with content is compared with its
//! file before SQLite sees either:
//!
//! - Every transaction of this crate changes page 1, whose header counts changes. A write-ahead log
//!   continues the count of the file it was begun on, or the file equals one of the log's own pages
//!   because it was merged that far.
//! - The [`Mark`] beside an open file has its size and time as of the last merge. A file that still
//!   has both was not touched since. One that has not was written by somebody, unless the log was
//!   begun anew since: other programs merge too, and leave the mark as it is.
//!
//! A log that does not belong is renamed, never deleted: it may hold the last spans of a file that
//! was moved away.

mod formats;

use crate::beside::{Mark, beside, set_aside};
use crate::error::Fault;
use crate::stamp::Stamp;
use formats::{AHEAD_HEADER, Before, Content, Frames, HEADER, MAGIC, PAGES, number, read_at};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that somebody else overwrites counts as whole once it has been left alone for this long,
/// or has the size that its header states.
const QUIET: Duration = Duration::from_secs(1);

/// Makes sure that what lies beside the file belongs to it, before SQLite replays it. Logs that
/// belong to another file are renamed. `overwritten`: somebody wrote into the file while it was
/// open. No connection of this process may be open to it.
///
/// # Errors
/// `Replacing` while somebody writes the file, `InUse` where another program has it open together
/// with a log that is not its own, `Unsure` where it cannot be told.
pub(crate) fn settle(path: &Path, overwritten: bool) -> Result<(), Fault> {
    for log in [Log::Ahead, Log::Rollback] {
        let there = fs::metadata(beside(path, log.suffix()));
        if !there.is_ok_and(|meta| meta.len() > log.header()) {
            continue;
        }
        let failed = |e| Fault::Io(path.into(), e);
        if log.pairing(path).map_err(failed)? == Pairing::Sound {
            continue;
        }
        if changed_just_now(path) {
            return Err(Fault::Replacing(path.into()));
        }
        let hold = match Hold::take(path) {
            Ok(hold) => hold,
            Err(e) if is_held(&e) => match log.pairing(path).map_err(failed)? {
                // Who has both open has paired them.
                Pairing::Unsure => continue,
                Pairing::Sound => continue,
                Pairing::Stale => return Err(Fault::InUse(path.into())),
            },
            Err(e) => return Err(failed(e)),
        };
        // Nobody else has it open, so what is seen now stays.
        match log.pairing(path).map_err(failed)? {
            Pairing::Sound => {}
            Pairing::Stale => set_aside(path, log.suffix()).map_err(failed)?,
            Pairing::Unsure => return Err(Fault::Unsure(beside(path, log.suffix()))),
        }
        drop(hold);
    }
    remove_leftovers(path);
    if overwritten && changed_just_now(path) && !is_whole(path) {
        return Err(Fault::Replacing(path.into()));
    }
    Ok(())
}

/// Removes the mark of another state of the file where no log has content, and with it an empty log
/// and its index that a process left which was killed after it noticed that the file had been
/// replaced: SQLite would take them for those of the new one.
fn remove_leftovers(path: &Path) {
    let log = beside(path, "-wal");
    let is_empty = match fs::metadata(&log) {
        Ok(meta) => meta.len() <= Log::Ahead.header(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    let is_of = |mark: Mark| matches!(Stamp::of(path), Ok(Some(stamp)) if mark.is_of(&stamp));
    if is_empty
        && Mark::read(path).is_some_and(|mark| !is_of(mark))
        && let Ok(hold) = Hold::take(path)
    {
        let _ = fs::remove_file(&log);
        let _ = fs::remove_file(beside(path, "-shm"));
        Mark::remove(path);
        drop(hold);
    }
}

/// Whether a file has a write-ahead log, by its header.
pub(crate) fn uses_write_ahead_log(path: &Path) -> io::Result<bool> {
    let mut header = [0; HEADER];
    let mut file = File::open(path)?;
    Ok(read_at(&mut file, 0, &mut header)? && header.starts_with(MAGIC) && header[18] == 2)
}

/// The first salt in the header of the write-ahead log of a file, which changes whenever that is
/// begun anew; `None` where there is none. SQLite has no locks on the log that closing it would end.
pub(crate) fn salt(path: &Path) -> Option<u32> {
    let mut log = File::open(beside(path, Log::Ahead.suffix())).ok()?;
    formats::salt(&mut log).ok()?
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairing {
    /// The log belongs to the file, or holds nothing that would be replayed.
    Sound,
    /// It belongs to another file, or to another state of this one.
    Stale,
    /// It may belong to either.
    Unsure,
}

/// The two kinds of logs that SQLite replays.
#[derive(Clone, Copy)]
enum Log {
    Ahead,
    Rollback,
}

impl Log {
    fn suffix(self) -> &'static str {
        match self {
            Self::Ahead => "-wal",
            Self::Rollback => "-journal",
        }
    }

    /// Bytes before the first page.
    fn header(self) -> u64 {
        match self {
            Self::Ahead => AHEAD_HEADER,
            Self::Rollback => 28,
        }
    }

    fn pairing(self, path: &Path) -> io::Result<Pairing> {
        let mut log = match File::open(beside(path, self.suffix())) {
            Ok(log) => log,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Pairing::Sound),
            Err(e) => return Err(e),
        };
        let stamp = Stamp::of(path)?;
        let mark = Mark::read(path);
        match self {
            Self::Ahead => {
                let Some(frames) = Frames::read(&mut log)? else {
                    return Ok(Pairing::Sound);
                };
                let Some(stamp) = stamp.filter(|stamp| stamp.len > 0) else {
                    return Ok(Pairing::Stale);
                };
                // Not opened where the mark suffices: closing a file ends the locks that other
                // connections of this process may hold on it.
                if mark.is_some_and(|mark| mark.is_of(&stamp) && !mark.merging) {
                    return Ok(Pairing::Sound);
                }
                let mark = mark.filter(|mark| mark.is_about(frames.salt));
                let mut main = File::open(path)?;
                Ok(match frames.content(&mut main, &mut log)? {
                    Content::Merged => Pairing::Sound,
                    Content::Other => Pairing::Stale,
                    // Nothing was merged, so its size would be the same.
                    Content::Begun if mark.is_some_and(|m| !m.merging && m.len != stamp.len) => {
                        Pairing::Stale
                    }
                    Content::Begun | Content::Partly | Content::Unknown => match mark {
                        Some(mark) if !mark.merging => Pairing::Unsure,
                        _ => Pairing::Sound,
                    },
                })
            }
            Self::Rollback => {
                let Some(before) = Before::read(&mut log)? else {
                    return Ok(Pairing::Sound);
                };
                if stamp.is_none_or(|stamp| stamp.len == 0) {
                    // A file that was just being made has nothing to be taken back to.
                    return Ok(match before.pages {
                        0 => Pairing::Sound,
                        _ => Pairing::Stale,
                    });
                }
                if stamp.is_some_and(|stamp| before.is_of_new(stamp.len)) {
                    return Ok(Pairing::Sound);
                }
                let mut header = [0; HEADER];
                let read = read_at(&mut File::open(path)?, 0, &mut header)?;
                Ok(
                    match read && header.starts_with(MAGIC) && before.is_of(&header) {
                        true => Pairing::Sound,
                        false => Pairing::Stale,
                    },
                )
            }
        }
    }
}

/// Whether the file is as large as its header states. One that is being copied is not.
fn is_whole(path: &Path) -> bool {
    let mut header = [0; HEADER];
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    if !read_at(&mut file, 0, &mut header).unwrap_or(false) || !header.starts_with(MAGIC) {
        return false;
    }
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u64::from(size),
    };
    let states = size * u64::from(number(&header, PAGES));
    file.metadata().is_ok_and(|meta| meta.len() >= states)
}

fn changed_just_now(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| {
        let age = SystemTime::now().duration_since(at);
        age.is_ok_and(|age| age < QUIET)
    })
}

/// Holds a lock that no connection of another process goes beside: as long as it lasts, nobody has
/// the file open.
#[derive(Debug)]
pub(crate) struct Hold(
    #[expect(dead_code, reason = "the lock ends when it is closed")] Option<File>,
);

impl Hold {
    /// `WouldBlock` where another process has the file open. Holds nothing where there is no file.
    #[cfg(unix)]
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        use rustix::fs::{FlockOperation, fcntl_lock};
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self(None)),
            Err(e) => return Err(e),
        };
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(Some(file)))
    }

    /// An open database can be neither replaced nor locked from outside there.
    #[cfg(not(unix))]
    pub(crate) fn take(_path: &Path) -> io::Result<Self> {
        Ok(Self(None))
    }
}

/// Whether another process has the file open.
pub(crate) fn is_held(e: &io::Error) -> bool {
    // Some systems answer `EACCES`, which opening the file gives as well; both are tried again.
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy
    )
}

#[cfg(test)]
mod tests;
