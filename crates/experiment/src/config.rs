//! Names and limits: the parts of a location URI, environment variables, timeouts.

use std::time::Duration;
use trace_destination_core::BatchLimits;

/// The scheme of the location URIs this crate understands.
pub const SCHEME: &str = "sqlite";

/// URI parameter: the experiment's name. Created if absent, unless [`CREATE_PARAM`] says no.
pub const EXPERIMENT_NAME_PARAM: &str = "experiment_name";
/// URI parameter: the experiment's id, a decimal number. It must exist.
pub const EXPERIMENT_ID_PARAM: &str = "experiment_id";
/// URI parameter: `true` (default) to create an absent experiment, and the file, or `false`.
pub const CREATE_PARAM: &str = "create";
/// URI parameter: `normal` (default) or `full`; see [`Synchronous`](crate::Synchronous).
pub const SYNCHRONOUS_PARAM: &str = "synchronous";
/// URI parameter: where MLflow keeps the files of experiments created here.
pub const ARTIFACT_ROOT_PARAM: &str = "artifact_root";
/// URI parameter: `owner` (default) or `umask`; see [`Access`](crate::Access).
pub const ACCESS_PARAM: &str = "access";
/// URI parameter: `keep` (default), `wal` or `delete`; see [`JournalMode`](crate::JournalMode).
pub const JOURNAL_MODE_PARAM: &str = "journal_mode";

/// Every URI parameter; any other is an error.
pub(crate) const PARAMS: [&str; 7] = [
    EXPERIMENT_NAME_PARAM,
    EXPERIMENT_ID_PARAM,
    CREATE_PARAM,
    SYNCHRONOUS_PARAM,
    ARTIFACT_ROOT_PARAM,
    ACCESS_PARAM,
    JOURNAL_MODE_PARAM,
];

/// Environment variable: MLflow's tracking URI; taken here if its scheme is [`SCHEME`].
pub const TRACKING_URI_VAR: &str = "MLFLOW_TRACKING_URI";
/// Environment variable: the experiment's name.
pub const EXPERIMENT_NAME_VAR: &str = "MLFLOW_EXPERIMENT_NAME";
/// Environment variable: the experiment's id.
pub const EXPERIMENT_ID_VAR: &str = "MLFLOW_EXPERIMENT_ID";

/// Longest experiment name MLflow takes (`MAX_EXPERIMENT_NAME_LENGTH`, 3.17.2), in characters.
pub(crate) const MAX_EXPERIMENT_NAME: usize = 500;

/// The experiment MLflow makes in every database.
pub(crate) const DEFAULT_EXPERIMENT: (i64, &str) = (0, "Default");

/// How long requests wait for a lock that another process holds on their file. The lane's backoff
/// goes on from there.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// How much of [`BUSY_TIMEOUT`] a thread waits inside SQLite. Between two such attempts nothing
/// but a timer waits.
pub(crate) const BUSY_SLICE: Duration = Duration::from_millis(5);

/// The time between two attempts, in turn; the last is repeated.
pub(crate) const BUSY_DELAYS: [Duration; 4] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
];

/// Pages in the write-ahead log after which it is merged into the file, as SQLite's own
/// `wal_autocheckpoint` has it: 4 MiB.
pub(crate) const MERGE_AFTER_PAGES: i64 = 1000;

/// How long a commit may be in the log alone: after this the log is merged and emptied, so that a
/// plain copy of the file has everything.
pub(crate) const MERGE_AFTER: Duration = Duration::from_secs(2);

/// How long a file stays as it is, written by others but not merged as far as its log tells, before
/// that counts as overwritten. SQLite writes the file first and then tells how far it got.
pub(crate) const DOUBT: Duration = Duration::from_millis(100);

/// To this size the log is cut once it is begun anew, in bytes. It grows beyond that only while
/// another program reads an old state of the file.
pub(crate) const LOG_LIMIT_BYTES: i64 = 16 << 20;

/// Most memory SQLite uses for the pages of one file, in KiB. Trace ids are random, so each batch
/// touches pages all over the indexes; with SQLite's own 2,000 they are read again and again.
pub(crate) const CACHE_KIB: i64 = 16_384;

/// What the open files of a process share, in KiB, as long as each has [`MIN_CACHE_KIB`].
pub(crate) const TOTAL_CACHE_KIB: i64 = 65_536;

/// Least memory SQLite may use for the pages of one file, in KiB.
pub(crate) const MIN_CACHE_KIB: i64 = 256;

/// Larger than the pipeline's usual batches: each transaction writes the pages it touched once, so
/// four times the spans store more than twice as many per second. A full one takes about 50 ms.
pub(crate) const PREFERRED_BATCH: BatchLimits = BatchLimits {
    spans: 2048,
    bytes: 4 << 20,
    age: Duration::from_secs(1),
};

/// Spans after which a transaction takes no further batch in, so that others get their turn: MLflow
/// gives up on a lock after 20 s, and this many spans take well under one.
pub(crate) const MAX_SPANS_PER_TRANSACTION: usize = 8192;

/// Experiments after which a transaction resolves no further one.
pub(crate) const MAX_OPENS_PER_TRANSACTION: usize = 256;

/// Memory for rows that wait for their transaction, per file, in KiB of the spans they are made of.
/// Rows of one batch may be more.
pub(crate) const ROWS_KIB: u32 = 16_384;

/// A file that changed this recently and is not readable as an MLflow database may be in the
/// middle of being created or upgraded by MLflow, which does so step by step.
pub(crate) const UPGRADE_GRACE: Duration = Duration::from_secs(30);

/// Longest text SQLite stores (`SQLITE_MAX_LENGTH`, 10^9 bytes), with room for the rest of the row.
pub(crate) const MAX_TEXT: usize = 990_000_000;

/// Traces whose state is remembered between batches, per store and generation of the memory.
pub(crate) const REMEMBERED_TRACES: usize = 4096;

/// Memory for traces that are remembered between batches, in bytes, per store and generation of the
/// memory. Nearly all of it are the trees of traces with usage or cost, of some 150 bytes per span.
pub(crate) const REMEMBERED_BYTES: usize = 8 << 20;

/// What the open files of a process share for that, per generation, in bytes, as long as each has
/// [`MIN_REMEMBERED_BYTES`].
pub(crate) const TOTAL_REMEMBERED_BYTES: usize = 32 << 20;

/// Least memory of a store for traces, in bytes, per generation.
pub(crate) const MIN_REMEMBERED_BYTES: usize = 64 << 10;

/// Memory for what applications set on traces, in bytes, per store and generation of the memory.
pub(crate) const REMEMBERED_EXPLICIT_BYTES: usize = 1 << 20;
