//! Stores OpenTelemetry traces as Delta tables: in a folder, in S3, Azure or Google Cloud Storage,
//! named and governed by a Unity Catalog server or by the folder they are in.
//!
//! ```text
//!  lane ─ sink ─┐ rows ─ Parquet        ┌ catalog: name → location, credentials ┐
//!  lane ─ sink ─┼──────► one file ────► │ store:   put file, put commit         ├──► Delta table
//!  lane ─ sink ─┘        one commit     └ log:     whose version is this?       ┘
//! ```
//!
//! # Start
//! ```
//! use trace_destination_core::{Destination, LocationUri};
//! use trace_destination_unity_catalog::UnityCatalogLocation;
//!
//! // The folder is the catalog: no server needed.
//! let uri: LocationUri = "uc://main.traces.shop?root=/tmp/lakehouse".parse()?;
//! let destination = Destination::new(UnityCatalogLocation::from_uri(&uri)?);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```
//! Then `/tmp/lakehouse/main/traces/shop_otel_spans` is a Delta table: Spark, Databricks, DuckDB,
//! Trino and Polars read it.
//!
//! # The URI
//! | URI | table |
//! |---|---|
//! | `uc://catalog.schema.prefix` | `<prefix>_otel_spans` in the schema, as MLflow names it today |
//! | `uc://catalog.schema` | `mlflow_experiment_trace_otel_spans`, as MLflow named it before |
//! | `uc:Catalog.Schema.Prefix` | the same where case matters: a host, after `//`, is folded |
//!
//! A part of a name is 1 to 255 of the letters A to Z and a to z, digits, `_`, `-` and `@`. Only these
//! letters fold; a name with any other, such as the Kelvin sign, is refused. A tenant's name goes into
//! the schema or the prefix through a `Template`, which takes lower case only: Databricks folds names.
//!
//! | parameter | meaning |
//! |---|---|
//! | `root` | a folder, or the URL of a place in an object store, that is itself the catalog: tables are `<root>/<catalog>/<schema>/<table>` |
//! | `server` | the address of a Unity Catalog server or Databricks workspace |
//! | `create` | `false`: create and register no table |
//! | `durable` | `false`: local files need not be on the disk before a batch counts as stored |
//! | `annotations` | `false`: what is set on a trace as a whole goes on its root span instead of a table of its own |
//!
//! Any other parameter is an error. With neither root nor server, the environment says which; if it
//! does not either, the root is the folder `lakehouse` in the current directory. The canonical URI
//! always names one of the two: the same name in two catalogs is two places.
//!
//! # Environment
//! Read by [`UnityCatalogLocation::from_uri`] and [`UnityCatalogLocationBuilder::with_env`].
//!
//! | for | variable | meaning |
//! |---|---|---|
//! | catalog | `UNITY_CATALOG_ROOT` | the root, where the URI names neither root nor server |
//! | | `UNITY_CATALOG_URI` | address of a Unity Catalog server |
//! | | `UNITY_CATALOG_TOKEN`, or `UNITY_CATALOG_CLIENT_ID` with `_CLIENT_SECRET` and `_TOKEN_URL` | who asks it; without, it is asked without credentials |
//! | | `UNITY_CATALOG_STORAGE_ROOT` | storage URL below which new tables are put |
//! | | `UNITY_CATALOG_STORAGE_CREDENTIALS` | `vended` (unless set) or `own`: whose credentials open a table's storage |
//! | | `UNITY_CATALOG_FILE_LOCATIONS` | `true`: the server may name local files as the place of a table; for a server on this machine |
//! | | `UNITY_CATALOG_TIMEOUT`, `UNITY_CATALOG_CA_FILE` | seconds for one request (30); a PEM file of authorities to trust |
//! | | `DATABRICKS_HOST`, and `DATABRICKS_TOKEN` or `DATABRICKS_CLIENT_ID` with `_SECRET` | a Databricks workspace, where `UNITY_CATALOG_URI` is not set |
//! | stores | `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `AWS_ACCESS_KEY_ID`, … | S3 and what speaks its protocol (feature `s3`) |
//! | | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, … | Azure (feature `azure`) |
//! | | `GOOGLE_APPLICATION_CREDENTIALS`, … | Google Cloud Storage (feature `gcs`) |
//! | | `UNITY_CATALOG_S3_SESSION_TOKEN` | `keep` or `drop` the session token of S3 credentials that a catalog gives out |
//!
//! Credentials in the environment are for the server that is named beside them, by
//! `UNITY_CATALOG_URI` or `DATABRICKS_HOST`. Another gets none of them, and where nothing is named
//! nobody does; an answer of 401 or 403 then says what to set. From code, [`Credentials`] may change
//! while locations are open: a file that is read again, a function, an OAuth client, a provider of the
//! application.
//!
//! What a catalog answers is somebody else's word: a place with `..` in it, also encoded, is refused,
//! and so are files of this machine, unless `UNITY_CATALOG_FILE_LOCATIONS=true` or
//! `UNITY_CATALOG_STORAGE_ROOT` above them says otherwise.
//!
//! # Tables
//! A table that is absent is created with the columns of Databricks' spans table for OpenTelemetry,
//! version `v2`: 24 columns, attributes as VARIANT. A table that exists is written as it is if it has
//! the columns of `v2` or of `v1`, attributes as MAP; columns that somebody added are NULL. Written are
//! also tables with clustering, row tracking, in-commit timestamps, column mapping, deletion vectors and
//! other features that an append can keep. What it cannot keep is refused with an error that names it
//! and what mends it: columns that are missing or of another type, constraints and defaults in SQL,
//! catalog-managed tables, partitions.
//!
//! # Annotations
//! What an application sets on a trace as a whole (tags, metadata, name, session, user, previews,
//! client request id, run) is in a second table beside that of spans, `<prefix>_otel_annotations`, with
//! the columns that Databricks documents: one row for each thing that is said, of each
//! `annotation_id` the newest by `updated_at` counts. It is made, registered and checked as the table of
//! spans is, with the first such value; where there is none nothing is asked or made. The values of a
//! batch are written right after its spans, under the same transaction, so that they too are stored
//! once.
//!
//! Whatever is in the way of that table leaves the spans stored: an error that may pass is tried again
//! for 5 s, and then, or where a catalog or the table refuses, the values are told to be lost
//! ([`Written::lost_updates`](trace_destination_core::Written::lost_updates)). A refusal is tried again
//! after 60 s.
//!
//! # Places of others
//! A store or a catalog may belong to a tenant, so no answer of theirs is trusted. Objects of a log
//! are read up to 64 MiB, its lines up to 2 MiB and 64 levels, listings up to 100,000 names, each in
//! 20 s; a checkpoint in Parquet is looked at before it is decoded. Redirects are not followed, and a
//! log names no file outside its table. A server names local files only where its storage root, or
//! the configuration, allows it. Whatever is beyond that is an error that is not tried again.
//!
//! In local folders, new ones are made for their owner (0700, files 0600); those that exist keep
//! their mode. [`StorageOptions::with_folder_access`] widens that.
//!
//! # Exactly once
//! A batch is one Parquet file and one commit. The commit carries a transaction: the writer, which
//! is this run of this process and this location, and the number of the batch. Before it is written,
//! and whenever the store leaves open what became of it, the log is asked whether that transaction is
//! there. So a batch that comes again, after an error, a lost answer or the end of the process, is
//! stored once. The file has a name made of the same numbers and of its content: a repetition
//! replaces it with itself.
//!
//! Any number of processes may write one table. They race for version numbers, and the loser takes
//! the next: appending rows conflicts with nothing, neither with other appends nor with the
//! compaction or deletion of rows by other engines. If somebody changes the table's columns or
//! features, it is checked anew and the batch written as it is then, or refused.
//!
//! The commits are built with `deltalake` and put into the log by this crate: deltalake's own loop
//! reads the list of all files of the table for every commit it loses a race with, treats a deletion
//! by another engine as a conflict, and cannot tell its own commit from another's after a lost answer.
//! So what an open table holds in memory does not grow with the table, and opening reads the log
//! without its files.
//!
//! Ids of writers are let go of after a day (`delta.setTransactionRetentionDuration`, in tables
//! created here): every run of a process is a writer. No batch is tried for nearly as long.
//!
//! A span that comes again in another batch gets no second row if it is among the last 32,768 to
//! 65,536 that this open table stored (1,048,576 in all tables of a process): its ids, its start, its
//! end and its kind are what makes it the same, and the first one stays. What was stored before the
//! table was opened, or by another process, is not known.
//!
//! # Durability
//! A batch that was reported stored is committed: every reader sees it from then on, and it survives
//! the end of the process in any way. In an object store it survives what the store survives. In
//! local files it survives a power failure: a file is flushed, then gets its name, then its folder is
//! flushed, first for the batch's file and then for its commit. `durable=false` leaves that to the
//! system, which is quicker.
//!
//! Checkpoints and other optional files of a log that are damaged are done without where the commits
//! are there, with a warning and a new checkpoint; a damaged commit is an error.
//!
//! # Batches
//! Files and commits are to be few: a batch is sealed at 16,384 spans, 8 MiB or 5 s, whichever comes
//! first, and a flush seals it at once. A checkpoint is written every
//! `delta.checkpointInterval` versions (100 unless the table says otherwise), beside the batches. The
//! log is never cleaned up by writing; [`UnityCatalogLocation::maintenance`] does that on demand, and
//! removes the files a crash left behind.

mod access;
#[doc(hidden)]
pub mod bench_support;
mod builder;
mod catalog;
mod config;
mod error;
mod location;
mod maintenance;
mod name;
mod options;
mod rows;
mod schema;
mod sink;
mod storage;
mod table;

#[doc(hidden)]
pub mod test_support;
mod wrapped;

pub use builder::UnityCatalogLocationBuilder;
pub use catalog::rest::{
    CatalogServer, DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET, DATABRICKS_HOST,
    DATABRICKS_TOKEN, StorageCredentials, UNITY_CATALOG_CA_FILE, UNITY_CATALOG_CLIENT_ID,
    UNITY_CATALOG_CLIENT_SECRET, UNITY_CATALOG_STORAGE_CREDENTIALS, UNITY_CATALOG_STORAGE_ROOT,
    UNITY_CATALOG_TIMEOUT, UNITY_CATALOG_TOKEN, UNITY_CATALOG_TOKEN_URL, UNITY_CATALOG_URI,
};
pub use config::{
    ANNOTATIONS_PARAM, CREATE_PARAM, DURABLE_PARAM, ROOT_PARAM, SCHEME, SERVER_PARAM,
    UNITY_CATALOG_ROOT,
};
pub use location::UnityCatalogLocation;
pub use maintenance::TableMaintenance;
pub use options::MissingTable;
pub use storage::{
    FolderAccess, SessionToken, StorageOptions, UNITY_CATALOG_FILE_LOCATIONS,
    UNITY_CATALOG_S3_SESSION_TOKEN,
};
pub use trace_destination_http::{Credential, CredentialProvider, Credentials, OAuthClient};
