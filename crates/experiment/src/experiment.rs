//! From an experiment's name or id to its row, and the row's making.

use crate::clock::now_ms;
use crate::config::DEFAULT_EXPERIMENT;
use crate::error::Fault;
use crate::options::MissingExperiment;
use crate::schema::{Shape, shown};
use crate::target::Target;
use rusqlite::{Connection, OptionalExtension, params};

/// An active experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) id: i64,
    /// Where the files of its traces go. MLflow always sets it; a foreign row may not.
    pub(crate) artifact_location: Option<String>,
}

struct Row {
    id: i64,
    name: String,
    artifact_location: Option<String>,
    active: bool,
}

/// Whether this target may bring an experiment, or a file, into being.
pub(crate) fn may_create(target: &Target) -> bool {
    target.missing == MissingExperiment::Create
        && match target.id {
            None => true,
            // MLflow makes the default experiment in every database, so its id is no invention.
            Some(id) => id == DEFAULT_EXPERIMENT.0 && !named_otherwise(target),
        }
}

fn named_otherwise(target: &Target) -> bool {
    target
        .name
        .as_deref()
        .is_some_and(|n| n != DEFAULT_EXPERIMENT.1)
}

/// The experiment a target names; `None` if it does not exist and may be created.
pub(crate) fn find(
    conn: &Connection,
    shape: &Shape,
    target: &Target,
) -> Result<Option<Resolved>, Fault> {
    let row = match (target.id, target.name.as_deref()) {
        (Some(id), _) => by_id(conn, id)?,
        (None, Some(name)) => by_name(conn, shape, name)?,
        (None, None) => None,
    };
    let Some(row) = row else {
        if may_create(target) {
            return Ok(None);
        }
        return Err(Fault::NoExperiment(match (target.id, &target.name) {
            (Some(id), _) => id.to_string(),
            (None, name) => format!("`{}`", name.as_deref().unwrap_or_default()),
        }));
    };
    if let Some(given) = target.name.as_ref().filter(|n| **n != row.name) {
        return Err(Fault::Disagree {
            id: row.id,
            given: given.clone(),
            found: row.name,
        });
    }
    if !row.active {
        return Err(Fault::Deleted {
            id: row.id,
            name: row.name,
        });
    }
    Ok(Some(Resolved {
        id: row.id,
        artifact_location: row.artifact_location,
    }))
}

/// The experiment a target names, made if it is missing. Within a write transaction.
pub(crate) fn find_or_create(
    conn: &Connection,
    shape: &Shape,
    target: &Target,
) -> Result<Resolved, Fault> {
    if let Some(found) = find(conn, shape, target)? {
        return Ok(found);
    }
    if let Some(difference) = &shape.no_new_experiment {
        return Err(Fault::Changed(difference.clone()));
    }
    let (default_id, default_name) = DEFAULT_EXPERIMENT;
    let name = target.name.as_deref().unwrap_or(default_name);
    // MLflow insists on id 0 for `Default`, and fails to open a file where the name is taken.
    let free = || Ok::<_, Fault>(by_id(conn, default_id)?.is_none());
    let id = (name == default_name && free()?).then_some(default_id);
    let now = now_ms();
    let (extra, value) = match shape.workspaces {
        true => (", workspace", ", 'default'"),
        false => ("", ""),
    };
    conn.execute(
        &format!(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, \
             creation_time, last_update_time{extra}) VALUES (?1, ?2, '', 'active', ?3, ?3{value})"
        ),
        params![id, name, now],
    )?;
    let id = conn.last_insert_rowid();
    let artifact_location = format!("{}/{id}", artifact_root(conn, target)?);
    conn.execute(
        "UPDATE experiments SET artifact_location = ?2 WHERE experiment_id = ?1",
        params![id, artifact_location],
    )?;
    Ok(Resolved {
        id,
        artifact_location: Some(artifact_location),
    })
}

/// Whether an experiment that was resolved before is still there and active; its artifact
/// location as it is now.
pub(crate) fn still_active(conn: &Connection, id: i64) -> Result<Option<Resolved>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT artifact_location FROM experiments \
         WHERE experiment_id = ?1 AND lifecycle_stage = 'active'",
    )?;
    Ok(statement
        .query_row([id], |row| {
            Ok(Resolved {
                id,
                artifact_location: row.get(0)?,
            })
        })
        .optional()?)
}

/// How an experiment is called in messages.
pub(crate) fn describe(conn: &Connection, id: i64) -> String {
    match by_id(conn, id) {
        Ok(Some(row)) => format!("experiment {id} `{}`", shown(&row.name)),
        _ => format!("experiment {id}"),
    }
}

/// The root MLflow itself would use, as far as the file tells: the one of its `Default`
/// experiment. Otherwise the folder beside the file, which is MLflow's own default for a client
/// that runs there.
fn artifact_root(conn: &Connection, target: &Target) -> Result<String, Fault> {
    if let Some(root) = &target.artifact_root {
        return Ok(root.trim_end_matches('/').to_owned());
    }
    let default = by_id(conn, DEFAULT_EXPERIMENT.0)?.and_then(|row| row.artifact_location);
    if let Some(root) = default.as_deref().and_then(|l| l.strip_suffix("/0")) {
        return Ok(root.to_owned());
    }
    let folder = target.path.parent().unwrap_or(&target.path);
    Ok(folder.join("mlruns").to_string_lossy().into_owned())
}

fn by_id(conn: &Connection, id: i64) -> Result<Option<Row>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT experiment_id, name, artifact_location, lifecycle_stage = 'active' \
         FROM experiments WHERE experiment_id = ?1",
    )?;
    Ok(statement.query_row([id], row).optional()?)
}

fn by_name(conn: &Connection, shape: &Shape, name: &str) -> Result<Option<Row>, Fault> {
    // Names are unique within a workspace; a program without workspaces is in `default`.
    let sql = format!(
        "SELECT experiment_id, name, artifact_location, lifecycle_stage = 'active' \
         FROM experiments WHERE name = ?1{}",
        if shape.workspaces {
            " AND workspace = 'default'"
        } else {
            ""
        }
    );
    Ok(conn
        .prepare_cached(&sql)?
        .query_row([name], row)
        .optional()?)
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get(0)?,
        name: row.get(1)?,
        artifact_location: row.get(2)?,
        active: row.get::<_, Option<bool>>(3)?.unwrap_or(false),
    })
}
