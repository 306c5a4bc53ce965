//! The rows of a batch as plain values, for measuring a bare `rusqlite` that inserts the same; not
//! part of the API.

use crate::connection::{Database, Manner};
use crate::error::Fault;
use crate::experiment::Resolved;
use crate::rows::Rows;
use crate::schema;
use crate::sql::{self, Statements};
use rusqlite::types::Value;
use std::path::Path;
use trace_destination_core::{Error, TraceBatch};

/// One row: which of [`STATEMENTS`] inserts it, and the values to bind.
#[derive(Clone, Debug)]
pub struct Row {
    /// Position in [`STATEMENTS`].
    pub statement: usize,
    /// Values in the order of the statement's parameters.
    pub values: Vec<Value>,
}

/// Plain inserts for files of the shape in which new files are made.
pub const STATEMENTS: [&str; 4] = [
    "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status, \
     request_preview, response_preview, client_request_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    "INSERT INTO trace_tags (\"key\", value, request_id) VALUES (?1, ?2, ?3)",
    "INSERT INTO trace_request_metadata (\"key\", value, request_id) VALUES (?1, ?2, ?3)",
    "INSERT INTO spans (trace_id, span_id, experiment_id, parent_span_id, name, type, status, \
     start_time_unix_nano, end_time_unix_nano, content) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
];

/// Everything a batch adds to an experiment that holds none of its traces, each row once, in an
/// order that satisfies the foreign keys. Found by writing the batch into a scratch file at `path`,
/// so that it is what the sink really stores.
///
/// # Errors
/// Whatever keeps the batch from being stored.
pub fn rows(batch: &TraceBatch, experiment_id: i64, path: &Path) -> Result<Vec<Row>, Error> {
    collect(batch, experiment_id, path).map_err(|fault| fault.during("derive rows"))
}

fn collect(batch: &TraceBatch, experiment_id: i64, path: &Path) -> Result<Vec<Row>, Fault> {
    let mut database = open(path)?;
    let (conn, _) = database.look()?;
    conn.execute(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) \
         VALUES (?1, 'bench', ?2, 'active')",
        rusqlite::params![experiment_id, "/mlruns/1"],
    )?;
    let experiment = Resolved {
        id: experiment_id,
        artifact_location: Some("/mlruns/1".into()),
    };
    let shape = schema::Shapes::default().of(conn, &schema::revision(conn)?)?;
    let statements = Statements::of(&shape);
    let rows = Rows::of(batch);
    let mut memory = crate::memory::Memory::new();
    let mut tables = crate::trace::Tables::open(conn, &shape, &statements)?;
    conn.execute_batch("BEGIN")?;
    for trace in &rows.traces {
        tables.write(
            &mut memory,
            &rows,
            trace,
            &experiment,
            crate::writer::Care::None,
            &mut crate::requests::Stored::default(),
        )?;
    }
    conn.execute_batch("COMMIT")?;
    let mut found = Vec::new();
    for (statement, select) in [
        "SELECT request_id, experiment_id, timestamp_ms, execution_time_ms, status, \
         request_preview, response_preview, client_request_id FROM trace_info ORDER BY rowid",
        "SELECT \"key\", value, request_id FROM trace_tags ORDER BY rowid",
        "SELECT \"key\", value, request_id FROM trace_request_metadata ORDER BY rowid",
        "SELECT trace_id, span_id, experiment_id, parent_span_id, name, type, status, \
         start_time_unix_nano, end_time_unix_nano, content FROM spans ORDER BY rowid",
    ]
    .into_iter()
    .enumerate()
    {
        let mut query = conn.prepare(select)?;
        let width = query.column_count();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..width).map(|i| row.get(i)).collect::<Result<_, _>>()?;
            found.push(Row { statement, values });
        }
    }
    Ok(found)
}

fn open(path: &Path) -> Result<Database, Fault> {
    let manner = Manner {
        create: Some(crate::Access::Owner),
        ..Manner::default()
    };
    Database::open(path, manner, false)
}

/// A new file with its tables, in write-ahead mode, as the sink makes it.
///
/// # Errors
/// Whatever keeps the file from being made.
pub fn create(path: &Path) -> Result<rusqlite::Connection, Error> {
    open(path)
        .and_then(|mut database| {
            database.set_synchronous(crate::Synchronous::Normal)?;
            let conn = database.conn;
            // SQLite's own, in place of the sink's way of merging.
            conn.pragma_update_and_check(None, "wal_autocheckpoint", 1000, |_| Ok(()))?;
            Ok(conn)
        })
        .map_err(|fault| fault.during("create bench file"))
}

/// Tag keys that every trace has.
pub const COMMON_TAGS: [&str; 2] = [sql::ARTIFACT_LOCATION, sql::SPANS_LOCATION];

/// Encodes a batch as the sink does before it takes its turn at the database; gives the number of
/// spans, so that the work cannot be left out.
pub fn encode(batch: &TraceBatch) -> usize {
    Rows::of(batch).spans.len()
}
