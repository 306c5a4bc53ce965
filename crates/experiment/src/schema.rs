//! The shapes of an MLflow tracking database: making a file, telling shapes apart, refusing.
//!
//! The tables decide, not the revision: [`shape`] looks at every table that is written. A revision
//! that is not in the list is written where its tables are as one of the known ones has them.
//!
//! Two shapes matter. Up to revision `b7e2c1a4d9f3` a trace's name, session, token usage and cost
//! are rows of `trace_tags` and `trace_request_metadata`; from `75868b020152` on they are columns
//! of `trace_info`, and rows of these names are ignored. Between the first revision with spans and
//! that one, tables and columns came one by one; [`Shape`] says for each whether it is there.
//!
//! While MLflow is upgrading a file, columns exist before the revision says so, and rows are moved
//! into them at some moment in between. A batch that gets in then writes both, so that nothing
//! depends on the moment: `spans.dimension_attributes` goes after the rows have been moved.

mod check;
mod revisions;
mod shapes;
mod tables;
mod triggers;

pub(crate) use check::{Difference, shown};
pub(crate) use shapes::Shapes;
pub(crate) use tables::TRACE_VALUES;

use crate::error::Fault;
use check::difference;
use revisions::{OLDEST, PROMOTED, position};
use rusqlite::{Connection, OptionalExtension};
use tables::{Kind, SPAN_VALUES, Table};
use triggers::Trigger;

/// The tables and indexes of a new file, as MLflow makes them.
pub(crate) const MLFLOW_TABLES: &str = include_str!("schema/a1b2c3d4e5f6.sql");

/// What a new file has beyond that.
const SPAN_VALUES_KEPT: &str = include_str!("schema/span_values.sql");

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
    /// Why no experiment can be created. Those that exist can be written all the same.
    pub(crate) no_new_experiment: Option<Difference>,
}

/// Makes the tables of a new file, within the caller's transaction.
pub(crate) fn create(conn: &Connection) -> Result<(), Fault> {
    conn.execute_batch(MLFLOW_TABLES)?;
    Ok(conn.execute_batch(SPAN_VALUES_KEPT)?)
}

/// Whether this revision is one that was tried: up to that of MLflow 3.18.0.
pub(crate) fn is_known(revision: &str) -> bool {
    position(revision).is_some()
}

/// The statements that made the tables, for telling whether they are the same as elsewhere.
fn text(conn: &Connection) -> Result<String, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT type, tbl_name, name, sql FROM sqlite_schema WHERE type = 'trigger' OR tbl_name \
         COLLATE NOCASE IN ('experiments', 'trace_info', 'trace_tags', 'trace_request_metadata', \
         'spans', 'assessments', 'trace_metrics', 'span_metrics', 'entity_associations')",
    )?;
    let mut rows = statement.query([])?;
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        for i in 0..4 {
            let part: Option<String> = row.get(i)?;
            text.push_str(&part.unwrap_or_default());
            // In no name and no statement.
            text.push('\0');
        }
    }
    Ok(text)
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
            found: {
                let found: Vec<String> = found.iter().map(|found| shown(found)).collect();
                format!("`alembic_version` holds {}", found.join(", "))
            },
        }),
    }
}

/// What a database at `revision` has room for.
///
/// # Errors
/// Where a table cannot be written: the first difference.
fn shape(conn: &Connection, revision: &str) -> Result<Shape, Fault> {
    let at = position(revision);
    if at.is_some() && at < position(OLDEST) {
        return Err(Fault::TooOld {
            revision: revision.into(),
        });
    }
    let refused = |difference: Difference| match difference.missing {
        true => Fault::Incomplete {
            missing: difference.what,
            unknown: at.is_none().then(|| revision.to_owned()),
        },
        false => Fault::Changed(difference),
    };
    let trace_info = columns(conn, "trace_info")?;
    let spans = columns(conn, "spans")?;
    let has = |columns: &[String], name: &str| columns.iter().any(|c| c == name);
    let all = |columns: &[String], names: &[&str]| names.iter().all(|name| has(columns, name));
    let dimensions = has(&spans, "dimension_attributes");
    // From a revision on they have to be there; before it, and under an unknown one, a half of them
    // is an upgrade that goes on, or a shape that is not known.
    let promoted = at >= position(PROMOTED)
        || at.is_none() && TRACE_VALUES.iter().any(|name| has(&trace_info, name));
    let trace_columns = promoted || all(&trace_info, &TRACE_VALUES);
    let legacy_rows = !trace_columns || dimensions;
    let mut shape = Shape {
        trace_columns,
        span_columns: promoted || all(&spans, &SPAN_VALUES),
        legacy_rows,
        dimensions,
        trace_metrics: legacy_rows && has_table(conn, "trace_metrics")?,
        span_metrics: legacy_rows && has_table(conn, "span_metrics")?,
        generation: has(&trace_info, "db_payload_generation"),
        assessment_times: has(&columns(conn, "assessments")?, "trace_timestamp_ms"),
        workspaces: has(&columns(conn, "experiments")?, "workspace"),
        associations: has_table(conn, "entity_associations")?,
        no_new_experiment: None,
    };
    let written = shape.tables();
    let mut names: Vec<&str> = written.iter().map(|t| t.name).collect();
    names.push("experiments");
    let triggers = triggers(conn)?;
    for table in &written {
        if let Some(difference) = difference(conn, table, &triggers, &names)? {
            return Err(refused(difference));
        }
    }
    if shape.assessment_times
        && let Some(trigger) = triggers::harmful(&triggers, "assessments", &names)
    {
        return Err(refused(check::of_trigger("assessments", trigger)));
    }
    let experiments = tables::experiments(shape.workspaces);
    shape.no_new_experiment = difference(conn, &experiments, &triggers, &names)?;
    if let Some(difference) = shape.no_new_experiment.take_if(|d| d.missing) {
        return Err(refused(difference));
    }
    // Where links cannot be rows, they are metadata.
    shape.associations = shape.associations
        && difference(conn, &tables::entity_associations(), &triggers, &names)?.is_none();
    Ok(shape)
}

impl Shape {
    /// The tables that every trace is written to.
    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            tables::trace_info(self.trace_columns, self.generation),
            tables::of_trace("trace_tags", Kind::Text),
            tables::of_trace("trace_request_metadata", Kind::Text),
            tables::spans(self.span_columns, self.dimensions),
        ];
        if self.trace_metrics {
            tables.push(tables::of_trace("trace_metrics", Kind::Real));
        }
        if self.span_metrics {
            tables.push(tables::span_metrics());
        }
        tables
    }
}

/// Every trigger but the one that new files have.
fn triggers(conn: &Connection) -> Result<Vec<Trigger>, Fault> {
    let own = SPAN_VALUES_KEPT
        .find("CREATE TRIGGER")
        .map_or("", |at| &SPAN_VALUES_KEPT[at..]);
    let mut statement =
        conn.prepare("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let found = statement.query_map([], |row| {
        let sql: String = row.get(2)?;
        Ok(Trigger::new(row.get(0)?, row.get(1)?, &sql))
    })?;
    let mut found = found.collect::<Result<Vec<_>, _>>()?;
    found.retain(|trigger| !trigger.is(own));
    Ok(found)
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
    let shown: Vec<_> = tables
        .iter()
        .take(3)
        .map(|t| format!("`{}`", shown(t)))
        .collect();
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
