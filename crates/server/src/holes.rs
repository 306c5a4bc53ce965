//! Where names may stand in the URIs of servers, and which names stand for something else there.

use crate::config::{EXPERIMENT_NAME_PARAM, TABLE_PARAM, WORKSPACE_PARAM};
use crate::databricks::{PREFIXED_TABLE, SCHEMA_TABLE};
use trace_destination_core::{Hole, NameRule};

/// Longest experiment name that every database of a server takes (`experiments.name`,
/// `VARCHAR(256)`, MLflow 3.17.2). MySQL cuts longer ones where its strict mode is off.
const MAX_STORED_NAME: usize = 256;
/// Longest name of a workspace (`experiments.workspace`, `VARCHAR(63)`, MLflow 3.17.2).
const MAX_WORKSPACE: usize = 63;
/// The experiment, and the workspace, of whatever names none.
const DEFAULT: &str = "default";

pub(crate) fn holes(scheme: &str) -> Vec<Hole> {
    match scheme {
        "http" | "https" => vec![
            // Which database the server has is not known here. MySQL and SQL Server fold case,
            // accents and width, and ignore blanks at the end.
            Hole::query(EXPERIMENT_NAME_PARAM, NameRule::Printable)
                .with_max_len(MAX_STORED_NAME)
                .with_check(not_default),
            Hole::query(WORKSPACE_PARAM, NameRule::Identifier)
                .with_max_len(MAX_WORKSPACE)
                .with_check(not_default),
        ],
        // Databricks folds names to lower case. Without the ending, all tables of a schema would be
        // one location in the ids of their traces.
        "databricks" => vec![
            Hole::query(TABLE_PARAM, NameRule::Identifier)
                .in_parts('.', 2..=2)
                .with_ending(PREFIXED_TABLE)
                .with_check(not_whole_schema),
        ],
        _ => Vec::new(),
    }
}

fn not_default(name: &str) -> Result<(), &'static str> {
    match name.eq_ignore_ascii_case(DEFAULT) {
        true => Err("it is the one of everything that names none"),
        false => Ok(()),
    }
}

fn not_whole_schema(table: &str) -> Result<(), &'static str> {
    match table == SCHEMA_TABLE {
        true => Err("it is the table of the whole schema"),
        false => Ok(()),
    }
}
