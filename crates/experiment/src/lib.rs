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
//! | `journal_mode` | `wal` or `delete`: the kind of log; `keep` is the default: write-ahead logging for files made here, what they have for others |
//! | `access` | `umask`: files and folders created here have the mode that the umask leaves, for a server of another user; `owner` is the default: `0600` and `0700` |
//! | `artifact_root` | where MLflow keeps files of experiments created here: by default what the file's `Default` experiment has, else `mlruns` beside the file |
//!
//! A name or an id is needed; where both are given they must be of one experiment.
//!
//! # Tables
//! Rows go to `trace_info`, `trace_tags`, `trace_request_metadata` and `spans`, and links to runs to
//! `entity_associations`. Values of a trace as a whole come out as MLflow 3.17.2's own server
//! derives them from the same spans, whatever order and however often they arrive: a span is stored
//! by its key and replaces itself. What an application sets on the trace itself beats what its
//! spans say.
//!
//! A file that is absent or empty is made in the shape of schema revision `a1b2c3d4e5f6`, which
//! every MLflow from 3.3.2 on opens and upgrades by itself, keeping all rows. It also has the
//! columns in which later revisions keep the cost and model of a single span, and a trigger on
//! `spans` that keeps their values through the upgrade, which would empty them; the upgrade drops
//! the trigger.
//!
//! In a file that exists, the tables decide whether and how it is written, not its revision. They
//! are looked up in every transaction, so MLflow may upgrade the file while it is written. A revision
//! that is not known is written where its tables take the rows, and reported once per file through
//! `tracing`. Columns that may be left out, further indexes and triggers that write elsewhere do not
//! matter. Refused, with nothing written and the difference named (`Unsupported`): a column that
//! must have a value and has no default, a type that changes values, a unique index that refuses
//! rows of different keys, a reference that rows do not satisfy, a trigger that could change or
//! drop rows; a file without the `spans` table (run `mlflow db upgrade`), and a database with other
//! tables only (MLflow itself would add its tables to it). A file that changed in the last 30 s and
//! lacks tables, columns or its revision counts as being upgraded and is tried again.
//!
//! # Durability
//! What was reported stored is committed. It survives the end of the process in any way. Files that
//! are made here use write-ahead logging with `synchronous=NORMAL`: a power failure may take back
//! the last transactions, never damage the file. With [`Synchronous::Full`] a batch is on the disk
//! before it is reported. A file that exists keeps its [`JournalMode`] unless another is asked for;
//! without write-ahead logging `FULL` is always used. On network file systems write-ahead logging
//! is refused with `Unsupported`.
//!
//! # The file and its log
//! When the last sink of a file is closed, and so when `shutdown` returns, the log is merged and
//! gone: a copy of the file has everything. While sinks are open, that holds 2 s after the last
//! write. The log is merged whenever it has 1,000 pages.
//!
//! A file that is moved, replaced, overwritten or deleted while it is open is noticed before and
//! after every transaction: what was stored goes with the file it was stored in, and the next batch
//! into the file that is at the path then. A log that a killed process left is replayed only into
//! the file it belongs to; another is renamed (`…-stale1-wal`), and where it cannot be told,
//! opening fails with `Corrupt` and nothing is written. For that, a note (`…-mark`) lies beside a
//! file while it is open for writing, and every transaction counts a change in the file's header.
//! `docs/sqlite.md` in the repository has the cases one by one.
//!
//! # Concurrent writers
//! All locations of one file in a process share one connection; batches that are ready at the same
//! time share a transaction, and so do experiments that are opened. Other processes, MLflow among
//! them, may read and write the same file at any time. Who holds the file longer than 250 ms makes
//! a batch fail with `Locked`, which the lane tries again; nothing waits longer than that, and no
//! transaction here lasts nearly as long as the 20 s MLflow waits. Where MLflow creates the same absent file within the same few
//! milliseconds, its own start may fail once (`table … already exists`); nothing is lost, and its
//! next start finds the file. A trace id lives at one place in a file: spans of a trace that is
//! stored under another experiment are refused with `Conflict`; the error does not name that one.
//!
//! Not kept up to date: the daily summaries that an MLflow server makes with
//! `MLFLOW_SQL_TRACE_ROLLUPS_ENABLED`, for spans that arrive after the summary of their day.
//!
//! # Many files
//! At most eight threads of a process are inside SQLite for files that work, and eight for files
//! that are new, locked or slow. None waits longer than 5 ms for a lock; the rest of the 250 ms is
//! a timer's. Work that takes longer than 500 ms, as on a network file system that hangs, keeps its
//! thread but not its turn, so that up to 256 such files hold up no other for long.
//!
//! Connections stay open while a sink is, as long as they take half of the files that the process
//! may open (`RLIMIT_NOFILE`; three each) and are 512 at most; beyond that, the one that was not
//! used for longest is closed before another is opened. Where the application leaves fewer, idle
//! ones are closed until a file can be opened; where none is idle, that fails with `Unavailable`,
//! and is tried again. All of them together use 256 MiB for pages,
//! or 1 MiB each where they are more than 256, and 16 MiB each at most. What is remembered of traces
//! between batches is bounded likewise: by 256 MiB for all, and 16 MiB for each. What applications
//! set on traces is remembered apart, up to 2 MiB per file; beyond that, values of spans may
//! replace older ones of these.
//!
//! # Fork
//! A child that is forked may write the same files with a pipeline of its own. Connections of the
//! parent that were idle are closed in the child before it opens a file. A file that a thread of
//! the parent was using at the moment of the fork is refused there with `Unsupported`: its locks
//! cannot be told from the parent's. So fork after a complete `flush`, or after `shutdown`.

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
