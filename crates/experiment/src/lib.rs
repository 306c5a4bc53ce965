//! Stores OpenTelemetry traces in a local MLflow experiment: writes the SQLite database that
//! `mlflow ui` and `mlflow server` open, with no MLflow on the machine.
//!
//! ```text
//!  lane ─ sink ─┐ rows                      ┌ one transaction ───────────────┐
//!  lane ─ sink ─┼──────► store (per file) ──┤ shape? experiment? then per    ├──► mlflow.db
//!  lane ─ sink ─┘        queue, one writer  │ trace: trace_info, tags, spans │
//!                                           └────────────────────────────────┘
//! ```
//!
//! # Start
//! ```
//! use trace_destination_core::{Destination, LocationUri};
//! use trace_destination_experiment::ExperimentLocation;
//!
//! let uri: LocationUri = "sqlite:///traces.db?experiment_name=checkout".parse()?;
//! let destination = Destination::new(ExperimentLocation::from_uri(&uri)?);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```
//! Then `mlflow ui --backend-store-uri sqlite:///traces.db` shows the traces.
//!
//! # The URI
//! `sqlite:///relative.db?…` or, with four slashes, `sqlite:////absolute/path.db?…`. The canonical
//! URI has the absolute path, without symbolic links. Parameters; any other is an error:
//!
//! | parameter | meaning |
//! |---|---|
//! | `experiment_name` | the experiment by name; created if absent, as MLflow's `set_experiment` does |
//! | `experiment_id` | the experiment by id; it must exist, but for `0`, which MLflow makes in every file |
//! | `create` | `false`: create neither an experiment nor a file |
//! | `synchronous` | `full`: see [Durability](#durability); `normal` is the default |
//! | `journal_mode` | `wal` or `delete`: the kind of log; `keep` is the default: write-ahead logging for new files, the mode they have for existing ones |
//! | `access` | `umask`: new files and folders have the mode that the umask leaves, for a server that runs as another user; `owner` is the default: `0600` and `0700` |
//! | `artifact_root` | where MLflow keeps files of experiments that this crate creates; by default the root of the file's `Default` experiment, else `mlruns` beside the file |
//!
//! A name or an id is required; if both are given, they must belong to one experiment.
//!
//! # Tables
//! Rows go to `trace_info`, `trace_tags`, `trace_request_metadata` and `spans`, and links to runs
//! to `entity_associations`. Trace-level values are derived from the spans as MLflow 3.17.2's own
//! server derives them, in whatever order and however often spans arrive: a span is stored by its
//! key and replaces itself. Values that the application sets on the trace take precedence over
//! those of spans.
//!
//! A file that is absent or empty is created with schema revision `a1b2c3d4e5f6`, which every
//! MLflow from 3.3.2 on opens and upgrades by itself, keeping all rows. It also has the columns in
//! which later revisions keep the cost and model of a single span, and a trigger on `spans` that
//! preserves their values during the upgrade, which would clear them. The upgrade drops the
//! trigger.
//!
//! In an existing file, the tables decide whether and how it is written, not its revision. They are
//! read in every transaction, so MLflow may upgrade the file while it is written. A file with an
//! unknown revision is written if its tables take the rows, and reported once through `tracing`.
//! Columns that may be left out, further indexes and triggers that write elsewhere do not matter.
//!
//! A file is refused with `Unsupported`, which names the difference, and nothing is written, if it
//! has: a column that must have a value and has no default; a type that changes values; a unique
//! index that rejects rows with different keys; a reference that rows do not satisfy; a trigger
//! that could change or drop rows; no `spans` table (run `mlflow db upgrade`); or only other tables
//! (MLflow itself would add its tables to such a database). A file that changed in the last 30 s
//! and lacks tables, columns or its revision counts as being upgraded, and is tried again.
//!
//! # Durability
//! Spans that are reported as stored are committed, and survive the end of the process in any way.
//! New files use write-ahead logging with `synchronous=NORMAL`: after a power failure the last
//! transactions may be missing, but the file is whole. With [`Synchronous::Full`] a batch is on the
//! disk before it is reported. An existing file keeps its [`JournalMode`] unless the location sets
//! another; without write-ahead logging `FULL` is always used. On network file systems, write-ahead
//! logging is refused with `Unsupported`.
//!
//! # The file and its log
//! When the last sink of a file is closed, and so when `shutdown` returns, the log is merged and
//! deleted: a copy of the file has everything. While sinks are open, the log is merged 2 s after
//! the last write, and whenever it has 1,000 pages.
//!
//! Before and after every transaction, the sink checks whether the file was moved, replaced,
//! overwritten or deleted. Stored spans stay in the file in which they were stored; the next batch
//! goes to the file that is at the path then. A log that a killed process left is replayed only
//! into its own file. A log of another file is renamed (`…-stale1-wal`); if it cannot be determined
//! whose log it is, opening fails with `Corrupt` and nothing is written. For this, a note
//! (`…-mark`) lies beside a file while it is open for writing, and every transaction counts a
//! change in the file's header. `docs/sqlite.md` in the repository has the cases one by one.
//!
//! # Concurrent writers
//! All locations of one file in a process share one connection. Batches that are ready at the same
//! time share a transaction, and so do experiments that are opened. Other processes, including
//! MLflow, may read and write the same file at any time. If another process locks the file for
//! longer than 250 ms, the batch fails with `Locked` and is tried again. No transaction of this
//! crate lasts nearly as long as the 20 s for which MLflow waits. If MLflow creates the same absent
//! file within the same few milliseconds, its own start may fail once (`table … already exists`);
//! nothing is lost, and its next start finds the file.
//!
//! A trace id exists only once in a file. Spans of a trace that is stored in another experiment are
//! refused with `Conflict`; the error does not name the other experiment.
//!
//! Daily summaries, which an MLflow server makes with `MLFLOW_SQL_TRACE_ROLLUPS_ENABLED`, are not
//! updated for spans that arrive after the summary of their day.
//!
//! # Many files
//! At most eight threads of a process are inside SQLite for files that work, and eight for files
//! that are new, locked or slow. A thread waits at most 5 ms for a lock; the rest of the 250 ms is
//! spent on a timer. Work that takes longer than 500 ms, as on a network file system that hangs,
//! keeps its thread but gives up its turn, so that up to 256 such files do not delay others for
//! long.
//!
//! Connections stay open while their sinks are, at most 512, and as long as they use at most half
//! of the files that the process may open (`RLIMIT_NOFILE`; three each). Beyond that, the least
//! recently used connection is closed before another is opened. If the application leaves fewer
//! files, idle connections are closed until a file can be opened; if none is idle, opening fails
//! with `Unavailable` and is tried again.
//!
//! All connections together use 64 MiB for page caches, or 256 KiB each if they are more than 256,
//! and at most 16 MiB each. What is remembered of traces between batches is bounded by 64 MiB for all and 16 MiB for each. Trace-level
//! values of applications are remembered separately, up to 2 MiB per file; beyond that, values of
//! spans may replace older ones of these.
//!
//! # Fork
//! A forked child may write the same files with a pipeline of its own. Idle connections of the
//! parent are closed in the child before it opens a file. A file that a thread of the parent was
//! using at the moment of the fork is refused in the child with `Unsupported`, because its locks
//! cannot be distinguished from the parent's. So fork after a complete `flush`, or after
//! `shutdown`.

mod beside;
mod builder;
mod clock;
mod config;
mod connection;
mod derive;
mod error;
mod experiment;
mod file_system;
mod holes;
mod location;
mod lock;
mod memory;
mod options;
mod pairing;
mod pool;
mod process;
mod requests;
mod rows;
mod schema;
mod sql;
mod stamp;
mod store;
mod target;
mod trace;
mod writer;

#[doc(hidden)]
pub mod bench_support;
#[cfg(fuzzing)]
pub mod fuzzing;
#[doc(hidden)]
pub mod test_support;

pub use builder::ExperimentLocationBuilder;
pub use config::{
    ACCESS_PARAM, ARTIFACT_ROOT_PARAM, CREATE_PARAM, EXPERIMENT_ID_PARAM, EXPERIMENT_ID_VAR,
    EXPERIMENT_NAME_PARAM, EXPERIMENT_NAME_VAR, JOURNAL_MODE_PARAM, SCHEME, SYNCHRONOUS_PARAM,
    TRACKING_URI_VAR,
};
pub use location::ExperimentLocation;
pub use options::{Access, JournalMode, MissingExperiment, Synchronous};
