//! What can go wrong here, and its one translation into the public error.

use crate::schema::{Difference, shown};
use rusqlite::ErrorCode;
use std::io;
use std::path::PathBuf;
use trace_destination_core::{Error, ErrorKind};

/// The operations an error can name.
pub(crate) const BUILD: &str = "build experiment location";
pub(crate) const OPEN: &str = "open experiment store";
pub(crate) const WRITE: &str = "write traces";
pub(crate) const CLOSE: &str = "close experiment store";

/// Everything that keeps a store from being opened or written.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// The file system refused, before SQLite was asked.
    Io(PathBuf, io::Error),
    /// The path is a folder.
    Folder(PathBuf),
    /// There is no file and none may be created.
    NoFile { path: PathBuf, why: &'static str },
    /// The folder that the file's own folder would be made in does not exist.
    NoFolder(PathBuf),
    /// The file system has no room left.
    NoRoom(PathBuf),
    /// This process, or the machine, may not open any more files.
    TooManyFiles { limit: u64 },
    /// A write-ahead log on a network file system.
    NetworkLog { path: PathBuf, kind: &'static str },
    /// The file was moved, replaced or overwritten while it was open.
    Replaced(PathBuf),
    /// Somebody is writing the file past SQLite.
    Replacing(PathBuf),
    /// The file was replaced, and another program has it, or the one before, open together with a
    /// log that is not its own.
    InUse(PathBuf),
    /// A log beside the file may belong to it or to another.
    Unsure(PathBuf),
    /// Another program keeps the log from being merged into the file.
    Unmerged(PathBuf),
    /// The file is a database, but none of MLflow's.
    Foreign { tables: String },
    /// MLflow tables without a usable revision, not touched lately.
    NoRevision { found: String },
    /// The schema is older than the `spans` table.
    TooOld { revision: String },
    /// A table is not as it would have to be for being written.
    Changed(Difference),
    /// A table or column is missing: one that the revision promises, or, where that is `unknown`,
    /// one that MLflow's tables have had so far.
    Incomplete {
        missing: String,
        unknown: Option<String>,
    },
    /// The file looks as if MLflow were creating or upgrading it right now.
    InTransition { found: String },
    /// There is no such experiment.
    NoExperiment(String),
    /// The experiment is deleted.
    Deleted { id: i64, name: String },
    /// Name and id are of different experiments.
    Disagree {
        id: i64,
        given: String,
        found: String,
    },
    /// The thread that was to write the batch went away.
    Abandoned,
    /// The parent of this process was inside SQLite when it forked.
    Forked,
    /// The sink was opened by the parent of this process.
    Inherited,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Fault {
    /// Whether somebody else holds the file, or what it takes to open it, for the moment.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Sqlite(e) => matches!(
                e.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ),
            Self::Replaced(_)
            | Self::Replacing(_)
            | Self::InUse(_)
            | Self::Unmerged(_)
            | Self::TooManyFiles { .. } => true,
            _ => false,
        }
    }

    /// Whether only these rows are at fault, so that other batches of the transaction may succeed
    /// without them.
    pub(crate) fn is_about_the_data(&self) -> bool {
        matches!(self, Self::Sqlite(e) if matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
        ))
    }

    /// The public error, for an operation of this crate.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        Error::from(Failed(operation, self))
    }
}

/// A fault and the operation it ended.
struct Failed(&'static str, Fault);

impl From<Failed> for Error {
    fn from(Failed(operation, fault): Failed) -> Self {
        use ErrorKind as K;
        let error = |kind, cause: String| Error::new(kind, operation, cause);
        match fault {
            Fault::Sqlite(e) => sqlite(operation, e),
            Fault::Io(path, e) => {
                let (kind, again, mend) = io_kind(e.kind());
                let error = error(kind, format!("`{}` cannot be used", path.display()))
                    .mend(mend)
                    .caused_by(e);
                if again { error.retryable() } else { error }
            }
            Fault::Folder(path) => error(
                K::InvalidConfig,
                format!("`{}` is a folder", path.display()),
            )
            .mend("name a file in it"),
            Fault::NoFile { path, why } => {
                error(K::NotFound, format!("`{}` does not exist", path.display())).mend(why)
            }
            Fault::NoFolder(folder) => error(
                K::NotFound,
                format!("the folder `{}` does not exist", folder.display()),
            )
            .mend("create it, or correct the path: only the last folder of a path is made"),
            Fault::NoRoom(folder) => error(
                K::StorageFull,
                format!("no room is left in `{}`", folder.display()),
            )
            .mend("free some space; it is tried again")
            .retryable(),
            Fault::TooManyFiles { limit } => error(
                K::Unavailable,
                format!("no further file can be opened: this process may have {limit} open"),
            )
            .mend("raise the limit (`ulimit -n`), or write to fewer files; it is tried again")
            .retryable(),
            Fault::NetworkLog { path, kind } => error(
                K::Unsupported,
                format!(
                    "`{}` is on a network file system ({kind}), where write-ahead logging can \
                     damage it",
                    path.display()
                ),
            )
            .mend(
                "keep the file on a local disk, or add `journal_mode=delete`, which is slower; \
                 end other programs that have it open first",
            ),
            Fault::Replaced(path) => error(
                K::Unavailable,
                format!(
                    "`{}` was moved, replaced or overwritten while it was open",
                    path.display()
                ),
            )
            .mend("it is tried again with the file that is there then")
            .retryable(),
            Fault::Replacing(path) => error(
                K::Unavailable,
                format!(
                    "`{}` is being overwritten by another program",
                    path.display()
                ),
            )
            .mend("it is tried again; if it stays, the file was copied in part: copy it again")
            .retryable(),
            Fault::InUse(path) => error(
                K::Locked,
                format!(
                    "`{}` was replaced while another program has it open, together with the log \
                     of the file before it",
                    path.display()
                ),
            )
            .mend("end or restart the other program, as MLflow's server; it is tried again")
            .retryable(),
            Fault::Unsure(log) => error(
                K::Corrupt,
                format!(
                    "`{}` was left by a program that was killed, and the database beside it \
                     changed since, so that it may be the log of another file",
                    log.display()
                ),
            )
            .mend(
                "where the database was restored or replaced, rename the log; where it was not, \
                 open the database once with `sqlite3`; it is tried again",
            )
            .retryable(),
            Fault::Unmerged(path) => error(
                K::Locked,
                format!(
                    "another program reads `{}`, so that its newest rows are in its log, \
                     beside it",
                    path.display()
                ),
            )
            .mend("nothing is lost; take the `-wal` file along when the file is copied or moved")
            .retryable(),
            Fault::Foreign { tables } => error(
                K::Unsupported,
                format!("the database is not MLflow's: it holds {tables}"),
            )
            .mend("name a file that MLflow made, or one that does not exist yet"),
            Fault::NoRevision { found } => error(
                K::Unsupported,
                format!("the database has no single MLflow schema revision: {found}"),
            )
            .mend("restore the file, or let MLflow repair it"),
            Fault::TooOld { revision } => error(
                K::Unsupported,
                format!("schema revision {revision} is too old to hold spans"),
            )
            .mend("run `mlflow db upgrade` on it"),
            Fault::Changed(Difference { what, mend, .. }) => error(K::Unsupported, what).mend(mend),
            Fault::Incomplete {
                missing,
                unknown: None,
            } => error(
                K::Corrupt,
                format!("{missing}, although the schema revision promises it"),
            )
            .mend("restore the file; nothing was written"),
            Fault::Incomplete {
                missing,
                unknown: Some(revision),
            } => error(
                K::Unsupported,
                format!(
                    "schema revision `{}` is unknown, and {missing}",
                    shown(&revision)
                ),
            )
            .mend("update this program, or name another file"),
            Fault::InTransition { found } => error(
                K::Unavailable,
                format!("MLflow seems to be creating or upgrading the database: {found}"),
            )
            .mend("it is tried again; if it stays, run `mlflow db upgrade`")
            .retryable(),
            Fault::NoExperiment(which) => {
                error(K::NotFound, format!("there is no experiment {which}"))
                    .mend("create it in MLflow, or give an `experiment_name` to have it created")
            }
            Fault::Deleted { id, name } => {
                let name = shown(&name);
                error(K::NotFound, format!("experiment {id} `{name}` is deleted"))
                    .mend("restore it in MLflow, or name another one")
            }
            Fault::Disagree { id, given, found } => error(
                K::Conflict,
                format!(
                    "experiment {id} is named `{}`, not `{given}`",
                    shown(&found)
                ),
            )
            .mend("give the name or the id, or both of one experiment"),
            Fault::Abandoned => error(
                K::Unavailable,
                "the runtime ended before the batch was written".into(),
            )
            .retryable(),
            Fault::Forked => error(
                K::Unsupported,
                "the process that forked this one was using the database at that moment, so its \
                 locks cannot be told here"
                    .into(),
            )
            .mend(
                "fork after `shutdown`, or while no span is on its way; or start the child as a \
                 program of its own",
            ),
            Fault::Inherited => error(
                K::Unsupported,
                "the sink was opened before this process was forked".into(),
            )
            .mend("make a new pipeline in the child"),
        }
    }
}

fn sqlite(operation: &'static str, e: rusqlite::Error) -> Error {
    use ErrorCode as C;
    use ErrorKind as K;
    let (kind, again, cause, mend) = match e.sqlite_error_code() {
        Some(C::DatabaseBusy | C::DatabaseLocked | C::FileLockingProtocolFailed) => (
            K::Locked,
            true,
            "another program holds the database",
            "it is tried again; end long transactions elsewhere",
        ),
        Some(C::DiskFull) => (
            K::StorageFull,
            true,
            "the disk or the database is full",
            "free some space",
        ),
        Some(C::ReadOnly | C::PermissionDenied | C::AuthorizationForStatementDenied) => (
            K::PermissionDenied,
            false,
            "the file or its folder is not writable",
            "allow this user to write both",
        ),
        Some(C::NotADatabase) => (
            K::Unsupported,
            false,
            "the file is not an SQLite database",
            "name a file that MLflow made, or one that does not exist yet",
        ),
        Some(C::DatabaseCorrupt) => (
            K::Corrupt,
            false,
            "the database is damaged",
            "restore it from a backup",
        ),
        Some(C::SystemIoFailure | C::CannotOpen | C::OutOfMemory | C::SchemaChanged) => (
            K::Unavailable,
            true,
            "the file system failed",
            "see the cause; it is tried again",
        ),
        Some(C::TooBig) => (
            K::InvalidSpan,
            false,
            "a value is larger than SQLite stores",
            "shorten the span's attributes",
        ),
        Some(C::ConstraintViolation | C::TypeMismatch) => (
            K::Unsupported,
            false,
            "the database refuses the rows",
            "check that its tables are as MLflow made them",
        ),
        Some(_) => (
            K::Unsupported,
            false,
            "the database cannot be used",
            "check that its tables are as MLflow made them",
        ),
        None => (
            K::Corrupt,
            false,
            "the database holds a value of an unexpected type",
            "check that its rows are as MLflow made them",
        ),
    };
    let error = Error::new(kind, operation, cause).mend(mend).caused_by(e);
    if again { error.retryable() } else { error }
}

fn io_kind(kind: io::ErrorKind) -> (ErrorKind, bool, &'static str) {
    use ErrorKind as K;
    use io::ErrorKind as I;
    match kind {
        I::PermissionDenied | I::ReadOnlyFilesystem => (
            K::PermissionDenied,
            false,
            "allow this user to write the file and its folder",
        ),
        I::StorageFull | I::QuotaExceeded => (K::StorageFull, true, "free some space"),
        I::NotFound | I::NotADirectory | I::InvalidFilename | I::InvalidInput => {
            (K::NotFound, false, "name a folder that can exist")
        }
        _ => (K::Unavailable, true, "see the cause; it is tried again"),
    }
}
