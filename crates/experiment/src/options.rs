//! Choices of a location.

/// What to do when the experiment, or the whole file, is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissingExperiment {
    /// Create it, as MLflow's `set_experiment` does. An experiment given by id alone is never
    /// created, but for the default experiment, 0.
    #[default]
    Create,
    /// Fail with `NotFound`.
    Fail,
}

/// How sure a stored batch is to survive a power failure. Nothing that was stored is lost when
/// the process is killed, in either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Synchronous {
    /// SQLite's `synchronous=NORMAL`: a power failure or a crash of the operating system may take
    /// back the last transactions before it; it never damages the file.
    #[default]
    Normal,
    /// SQLite's `synchronous=FULL`: each transaction is on the disk before its batch counts as
    /// stored. Several times slower with small batches.
    Full,
}

/// Who may read and write the files and folders that are created here. Those that exist keep
/// their mode. Without effect where files have no Unix modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Their owner: mode `0600` for files, `0700` for folders.
    #[default]
    Owner,
    /// Whom the umask of the process leaves: mode `0666` for files and `0777` for folders, less the
    /// umask. With umask `0007` a server of the same group may use the file too.
    Umask,
}

/// The kind of log SQLite keeps for a file (`PRAGMA journal_mode`). Set when the file is opened; one
/// that another program uses at that moment keeps its mode until the next time.
///
/// Where locations of one file differ, `Wal` goes before `Delete`, and that before `Keep`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JournalMode {
    /// Files that are made here use write-ahead logging; those that exist keep their mode.
    #[default]
    Keep,
    /// A rollback journal: readers and a writer wait for each other, and a batch takes several
    /// times as long. The only mode for network file systems.
    Delete,
    /// Write-ahead logging: readers and a writer go on side by side.
    Wal,
}
