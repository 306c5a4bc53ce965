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

/// Every URI parameter; any other is an error.
pub(crate) const PARAMS: [&str; 5] = [
    EXPERIMENT_NAME_PARAM,
    EXPERIMENT_ID_PARAM,
    CREATE_PARAM,
    SYNCHRONOUS_PARAM,
    ARTIFACT_ROOT_PARAM,
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

/// How long a statement waits for a lock that another process holds. Short: the lane's backoff
/// waits longer without keeping a thread.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// Most memory SQLite uses for the pages of one file, in KiB. Trace ids are random, so each batch
/// touches pages all over the indexes; with SQLite's own 2,000 they are read again and again.
pub(crate) const CACHE_KIB: i64 = 16_384;

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

/// A file that changed this recently and is not readable as an MLflow database may be in the
/// middle of being created or upgraded by MLflow, which does so step by step.
pub(crate) const UPGRADE_GRACE: Duration = Duration::from_secs(30);

/// Longest text SQLite stores (`SQLITE_MAX_LENGTH`, 10^9 bytes), with room for the rest of the row.
pub(crate) const MAX_TEXT: usize = 990_000_000;

/// Traces whose state is remembered between batches, per store and generation of the memory.
pub(crate) const REMEMBERED_TRACES: usize = 4096;

/// Spans whose place in the tree of their trace is remembered between batches, per store and
/// generation of the memory. Only traces with usage or cost have their tree remembered.
pub(crate) const REMEMBERED_SPANS: usize = 32_768;
