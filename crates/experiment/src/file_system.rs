//! What a file's surroundings are like: network file systems, and why a file cannot be used.

use crate::beside::beside;
use crate::error::Fault;
use rusqlite::ErrorCode;
use std::fs;
use std::io;
use std::path::Path;

/// Files that SQLite opens for a database: itself, its log, the log's index, and for a moment its
/// folder.
const FILES: usize = 4;

/// The name of the network file system a file is on; `None` where it is local, or cannot be told.
///
/// Write-ahead logging keeps an index in memory that all programs with the file open share, which
/// those on two machines do not. A file system in user space may be one, so it counts as one.
#[cfg(target_os = "linux")]
pub(crate) fn network(path: &Path) -> Option<&'static str> {
    #[cfg(test)]
    if let Some(pretended) = tests::PRETENDED.get() {
        return Some(pretended);
    }
    let folder = path.parent().unwrap_or(path);
    // Unsigned in some targets, and as wide as a pointer in others; the numbers are of 32 bits.
    let found = rustix::fs::statfs(folder).ok()?.f_type;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the type differs from target to target"
    )]
    network_of(found as u32)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn network(_path: &Path) -> Option<&'static str> {
    #[cfg(test)]
    if let Some(pretended) = tests::PRETENDED.get() {
        return Some(pretended);
    }
    None
}

/// File systems by the number that Linux gives them (`linux/magic.h`, and those of file systems
/// that are not part of it).
#[cfg(any(target_os = "linux", test))]
fn network_of(number: u32) -> Option<&'static str> {
    Some(match number {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x0bd0_0bd0 => "Lustre",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0xaad7_aaea => "PanFS",
        0x786f_4256 => "a folder shared by VirtualBox",
        0xbacb_acbc => "a folder shared by VMware",
        _ => return None,
    })
}

/// How many files this process may have open.
#[cfg(unix)]
pub(crate) fn open_files_limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A usual number, where it cannot be asked for.
#[cfg(not(unix))]
pub(crate) fn open_files_limit() -> u64 {
    1024
}

/// SQLite reports little more than that it could not do something with a file; the file system
/// tells why.
pub(crate) fn explained(fault: Fault, path: &Path) -> Fault {
    let code = match &fault {
        Fault::Sqlite(e) => e.sqlite_error_code(),
        Fault::Io(_, e) if is_out_of_files(e) => return too_many_files(),
        _ => return fault,
    };
    match code {
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => {
            why(path, true).unwrap_or(fault)
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            why(path, false).unwrap_or(fault)
        }
        _ => fault,
    }
}

fn too_many_files() -> Fault {
    Fault::TooManyFiles {
        limit: open_files_limit(),
    }
}

fn why(path: &Path, may_lack_files: bool) -> Option<Fault> {
    let folder = path.parent().unwrap_or(path);
    if may_lack_files {
        // As many as SQLite opens at once.
        let opened: Result<Vec<_>, _> = (0..FILES).map(|_| fs::File::open(folder)).collect();
        if opened.is_err_and(|e| is_out_of_files(&e)) {
            return Some(too_many_files());
        }
    }
    let io = |path: &Path, e: io::Error| Some(Fault::Io(path.into(), e));
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Some(Fault::Folder(path.into())),
        Ok(_) => {}
        Err(e) => return io(path, e),
    }
    if let Err(e) = writable(path) {
        return io(path, e);
    }
    for suffix in ["-wal", "-shm", "-journal"] {
        let log = beside(path, suffix);
        match writable(&log) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return io(&log, e),
            _ => {}
        }
    }
    if let Err(e) = writable(folder) {
        return io(folder, e);
    }
    has_no_room(folder).then_some(Fault::NoRoom(folder.into()))
}

/// Whether this process may write a file or folder. Does not open it.
#[cfg(unix)]
fn writable(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(path, Access::READ_OK | Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn writable(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn has_no_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|stat| stat.f_blocks > 0 && stat.f_bavail == 0)
}

#[cfg(not(unix))]
fn has_no_room(_folder: &Path) -> bool {
    false
}

/// Whether no further file can be opened: in this process, or on the machine.
#[cfg(unix)]
fn is_out_of_files(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = e.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .map(Errno::raw_os_error)
        .iter()
        .any(|n| number == Some(*n))
}

#[cfg(not(unix))]
fn is_out_of_files(_e: &io::Error) -> bool {
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// Lets this thread take every folder for one of a network.
        pub(crate) static PRETENDED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    #[test]
    fn file_systems_of_a_network() {
        for (number, name) in [
            (0x6969, "NFS"),
            (0xff53_4d42, "SMB"),
            (0xfe53_4d42, "SMB"),
            (0x0102_1997, "9p"),
            (0x6573_5546, "FUSE"),
            (0x0bd0_0bd0, "Lustre"),
        ] {
            assert_eq!(network_of(number), Some(name));
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs.
        for number in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
            0xf2f5_2010,
        ] {
            assert_eq!(network_of(number), None, "{number:#x}");
        }
    }
}
