//! The shapes of an MLflow tracking database: making a file, telling shapes apart, refusing.
//!
//! Two shapes matter. Up to revision `b7e2c1a4d9f3` a trace's name, session, token usage and cost
//! are rows of `trace_tags` and `trace_request_metadata`; from `75868b020152` on they are columns
//! of `trace_info`, and rows of these names are ignored. Between the first revision with spans and
//! that one, tables and columns came one by one; [`Shape`] says for each whether it is there.
//!
//! While MLflow is upgrading a file, columns exist before the revision says so, and rows are moved
//! into them at some moment in between. A batch that gets in then writes both, so that nothing
//! depends on the moment.

mod revisions;

use crate::error::Fault;
use revisions::{OLDEST, PROMOTED, position};
use rusqlite::{Connection, OptionalExtension};

/// The tables and indexes of a new file.
const NEW_FILE: &str = include_str!("schema/a1b2c3d4e5f6.sql");

/// What a database has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `trace_info` has columns for name, session, usage and cost.
    pub(crate) trace_columns: bool,
    /// `spans` has columns for cost and model.
    pub(crate) span_columns: bool,
    /// Name, session, usage and cost are read from rows, or still will be by an upgrade.
    pub(crate) legacy_rows: bool,
    /// `spans` has `dimension_attributes`, the older place of the model.
    pub(crate) dimensions: bool,
    /// The older place of token counts exists.
    pub(crate) trace_metrics: bool,
    /// The older place of span costs exists.
    pub(crate) span_metrics: bool,
    /// `trace_info` counts its writes.
    pub(crate) generation: bool,
    /// `assessments` repeats the time of its trace.
    pub(crate) assessment_times: bool,
    /// Experiments belong to a workspace.
    pub(crate) workspaces: bool,
    /// Traces are linked to runs by rows of their own.
    pub(crate) associations: bool,
}

/// Makes the tables of a new file, within the caller's transaction.
pub(crate) fn create(conn: &Connection) -> Result<(), Fault> {
    Ok(conn.execute_batch(NEW_FILE)?)
}

/// Whether the database holds nothing at all, as a file of zero bytes does.
pub(crate) fn is_empty(conn: &Connection) -> Result<bool, Fault> {
    let objects: i64 = conn
        .prepare_cached("SELECT count(*) FROM sqlite_schema")?
        .query_row([], |row| row.get(0))?;
    Ok(objects == 0)
}

/// The schema's version as SQLite counts it: changes with every table that changes.
pub(crate) fn cookie(conn: &Connection) -> Result<i64, Fault> {
    Ok(conn
        .prepare_cached("PRAGMA schema_version")?
        .query_row([], |row| row.get(0))?)
}

/// The one revision the database is at.
pub(crate) fn revision(conn: &Connection) -> Result<String, Fault> {
    let mut statement = match conn.prepare_cached("SELECT version_num FROM alembic_version LIMIT 3")
    {
        Ok(statement) => statement,
        Err(_) if !has_table(conn, "alembic_version")? => return Err(without_revision(conn)?),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.push(row.get::<_, String>(0)?);
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Fault::NoRevision {
            found: "`alembic_version` is empty".into(),
        }),
        _ => Err(Fault::NoRevision {
            found: format!("`alembic_version` holds {}", found.join(", ")),
        }),
    }
}

/// What a database at `revision` has room for.
pub(crate) fn shape(conn: &Connection, revision: &str) -> Result<Shape, Fault> {
    let Some(at) = position(revision) else {
        return Err(Fault::Unknown {
            revision: revision.into(),
        });
    };
    if Some(at) < position(OLDEST) {
        return Err(Fault::TooOld {
            revision: revision.into(),
        });
    }
    let legacy_rows = Some(at) < position(PROMOTED);
    let trace_info = columns(conn, "trace_info")?;
    let spans = columns(conn, "spans")?;
    let has = |columns: &[String], name: &str| columns.iter().any(|c| c == name);
    let shape = Shape {
        trace_columns: has(&trace_info, "trace_name") && has(&trace_info, "total_cost"),
        span_columns: has(&spans, "model_provider") && has(&spans, "total_cost"),
        legacy_rows,
        dimensions: has(&spans, "dimension_attributes"),
        trace_metrics: legacy_rows && has_table(conn, "trace_metrics")?,
        span_metrics: legacy_rows && has_table(conn, "span_metrics")?,
        generation: has(&trace_info, "db_payload_generation"),
        assessment_times: has(&columns(conn, "assessments")?, "trace_timestamp_ms"),
        workspaces: has(&columns(conn, "experiments")?, "workspace"),
        associations: has_table(conn, "entity_associations")?,
    };
    let missing = if trace_info.is_empty() {
        "table `trace_info` is missing"
    } else if spans.is_empty() {
        "table `spans` is missing"
    } else if !legacy_rows && !shape.trace_columns {
        "`trace_info` lacks the columns for names and usage"
    } else {
        return Ok(shape);
    };
    Err(Fault::Incomplete {
        missing: missing.into(),
    })
}

/// Why a database that is not empty has no revision.
fn without_revision(conn: &Connection) -> Result<Fault, Fault> {
    let mut statement = conn.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let tables = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    // MLflow makes these first, one by one, and only then the table of revisions.
    let first = ["experiments", "runs", "tags", "metrics", "params"];
    let begun = !tables.is_empty() && tables.iter().all(|t| first.contains(&t.as_str()));
    if begun || first.iter().all(|t| tables.iter().any(|x| x == t)) {
        return Ok(Fault::NoRevision {
            found: "`alembic_version` is missing".into(),
        });
    }
    let shown: Vec<_> = tables.iter().take(3).map(|t| format!("`{t}`")).collect();
    Ok(Fault::Foreign {
        tables: match tables.len() {
            0 => "no table".into(),
            n if n > shown.len() => format!("{} and {} more", shown.join(", "), n - shown.len()),
            _ => shown.join(", "),
        },
    })
}

fn has_table(conn: &Connection, name: &str) -> Result<bool, Fault> {
    Ok(conn
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [name],
            |_| Ok(()),
        )
        .optional()?
        .is_some())
}

fn columns(conn: &Connection, table: &str) -> Result<Vec<String>, Fault> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}
