//! Names and limits: the parts of a location URI, environment variables, batches.

use std::time::Duration;
use trace_destination_core::BatchLimits;

/// The scheme of the location URIs this crate understands.
pub const SCHEME: &str = "uc";

/// URI parameter: a folder, or the URL of a place in an object store, that is itself the catalog:
/// tables are `<root>/<catalog>/<schema>/<table>`.
pub const ROOT_PARAM: &str = "root";
/// URI parameter: the address of the Unity Catalog server, or of the Databricks workspace.
pub const SERVER_PARAM: &str = "server";
/// URI parameter: `true` (default) to create and register an absent table, or `false`.
pub const CREATE_PARAM: &str = "create";
/// URI parameter: `true` (default) to have each batch on the disk before it counts as stored, where
/// the table is in local files, or `false`.
pub const DURABLE_PARAM: &str = "durable";
/// URI parameter: `true` (default) to store what is set on a trace as a whole in the table of
/// annotations, or `false` to have it on the root span.
pub const ANNOTATIONS_PARAM: &str = "annotations";

/// Every URI parameter; any other is an error.
pub(crate) const PARAMS: [&str; 5] = [
    ROOT_PARAM,
    SERVER_PARAM,
    CREATE_PARAM,
    DURABLE_PARAM,
    ANNOTATIONS_PARAM,
];

/// Environment variable: what [`ROOT_PARAM`] says, where the URI names neither root nor server.
pub const UNITY_CATALOG_ROOT: &str = "UNITY_CATALOG_ROOT";

/// The folder that is the catalog where nothing else is said, in the current directory.
pub(crate) const DEFAULT_ROOT: &str = "lakehouse";

/// Each batch becomes a file and a commit, so they are to be few: larger and later than the
/// pipeline's own limits, and half of what a lane may hold, so that one can grow while another is
/// being written.
pub(crate) const BATCH: BatchLimits = BatchLimits {
    spans: 16_384,
    bytes: 8 << 20,
    age: Duration::from_secs(5),
};

/// Characters of a key and of a value set on a trace: a table has no limit, so these only keep one
/// value from being a batch of its own. Names, sessions and previews have MLflow's limits, so that
/// what a table has can be shown beside what MLflow's server has.
pub(crate) const MAX_KEY: usize = 64 << 10;
pub(crate) const MAX_VALUE: usize = 1 << 20;

/// In front of the writer's id in the `appId` of a transaction.
pub(crate) const APP_ID_PREFIX: &str = "trace-destination";

/// Properties of the tables created here. `setTransactionRetentionDuration` lets go of the ids of
/// writers that are long gone: each run of a process is a writer, and each id is carried in every
/// checkpoint. A day is far beyond the time in which a batch may come again, which is a pipeline's
/// retry deadline (minutes), and beyond what clocks differ by.
pub(crate) const PROPERTIES: [(&str, &str); 3] = [
    ("delta.checkpointPolicy", "classic"),
    ("delta.checkpointInterval", "100"),
    ("delta.setTransactionRetentionDuration", "interval 1 days"),
];
/// Versions between two checkpoints where a table does not say (deltalake 1.1).
pub(crate) const CHECKPOINT_INTERVAL: u64 = 100;
