//! Whether a table takes what is written to it, and the first difference where it does not.

use super::tables::{Column, Kind, Table};
use super::triggers::{self, Trigger};
use crate::error::Fault;
use rusqlite::Connection;

/// Longest name of a table, column, index or trigger in a message, in characters.
const SHOWN: usize = 80;

/// Why a table cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) mend: String,
    /// A table or a column is missing: an upgrade may be about to add it.
    pub(crate) missing: bool,
}

impl Difference {
    fn new(what: String, mend: impl Into<String>) -> Self {
        Self {
            what,
            mend: mend.into(),
            missing: false,
        }
    }

    pub(super) fn missing(what: String) -> Self {
        Self {
            what,
            mend: String::new(),
            missing: true,
        }
    }
}

/// A column as the database has it.
struct Found {
    name: String,
    declared: String,
    not_null: bool,
    default: bool,
    /// Position in the primary key, from 1; 0 where it is not part of it.
    key: i64,
    generated: bool,
}

/// The first difference between what a table has to be and what it is.
pub(super) fn difference(
    conn: &Connection,
    table: &Table,
    triggers: &[Trigger],
    written: &[&str],
) -> Result<Option<Difference>, Fault> {
    let Some((kind, strict)) = sort(conn, table.name)? else {
        return Ok(Some(Difference::missing(format!(
            "table `{}` is missing",
            table.name
        ))));
    };
    if kind != "table" {
        return Ok(Some(Difference::new(
            format!("`{}` is a {kind} instead of a table", table.name),
            "give it another name and restore the table, or name another file",
        )));
    }
    let found = columns(conn, table.name)?;
    if let Some(difference) = of_columns(table, &found, strict) {
        return Ok(Some(difference));
    }
    if let Some(trigger) = triggers::harmful(triggers, table.name, written) {
        return Ok(Some(of_trigger(table.name, trigger)));
    }
    if let Some(difference) = of_indexes(conn, table)? {
        return Ok(Some(difference));
    }
    of_references(conn, table, &found)
}

/// What is wrong with a table that has such a trigger.
pub(super) fn of_trigger(table: &str, trigger: &Trigger) -> Difference {
    Difference::new(
        format!(
            "trigger `{}` of table `{table}` could change or drop what is written",
            shown(&trigger.name)
        ),
        format!(
            "remove it{}, or name another file",
            by_statement("DROP TRIGGER", &trigger.name)
        ),
    )
}

/// Whether it is a table, a view or something else, and whether it is strict; nothing where there
/// is none.
fn sort(conn: &Connection, table: &str) -> Result<Option<(String, bool)>, Fault> {
    let mut statement = conn
        .prepare("SELECT type, strict FROM pragma_table_list(?1) WHERE schema = 'main' LIMIT 1")?;
    let mut rows = statement.query([table])?;
    Ok(match rows.next()? {
        Some(row) => Some((row.get(0)?, row.get(1)?)),
        None => None,
    })
}

fn columns(conn: &Connection, table: &str) -> Result<Vec<Found>, Fault> {
    let mut statement = conn.prepare(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)",
    )?;
    let found = statement.query_map([table], |row| {
        let default: Option<String> = row.get(3)?;
        Ok(Found {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            default: default.is_some_and(|d| !d.trim().eq_ignore_ascii_case("null")),
            key: row.get(4)?,
            generated: row.get::<_, i64>(5)? != 0,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn of_columns(table: &Table, found: &[Found], strict: bool) -> Option<Difference> {
    let t = table.name;
    for wanted in &table.columns {
        let Some(column) = found.iter().find(|f| same(&f.name, wanted.name)) else {
            return Some(Difference::missing(format!(
                "table `{t}` lacks the column `{}`",
                wanted.name
            )));
        };
        if column.generated {
            return Some(Difference::new(
                format!("column `{}` of table `{t}` is generated", wanted.name),
                "make it an ordinary column, or name another file",
            ));
        }
        if !keeps(&column.declared, wanted.kind, strict) {
            return Some(Difference::new(
                format!(
                    "column `{}` of table `{t}` has the type `{}`, which changes or refuses the \
                     values that are written",
                    wanted.name,
                    shown(&column.declared)
                ),
                "give it the type that MLflow gives it, or name another file",
            ));
        }
        if wanted.null && column.not_null {
            return Some(Difference::new(
                format!("column `{}` of table `{t}` may not be NULL", wanted.name),
                "let it be NULL, or name another file",
            ));
        }
    }
    let extra = found.iter().find(|f| {
        let is_written = table.columns.iter().any(|c| same(&f.name, c.name));
        !is_written && !f.generated && needs_a_value(f, found)
    })?;
    Some(Difference::new(
        format!(
            "table `{t}` has a column `{}` that must have a value and has no default",
            shown(&extra.name)
        ),
        format!(
            "remove it{}, let it be NULL or give it a default, or name another file",
            by_statement(&format!("ALTER TABLE {t} DROP COLUMN"), &extra.name)
        ),
    ))
}

/// Whether an insert that leaves the column out fails.
fn needs_a_value(column: &Found, all: &[Found]) -> bool {
    if column.default {
        return false;
    }
    // SQLite numbers the rows of such a column by itself.
    let numbered = column.key == 1
        && column.declared.eq_ignore_ascii_case("integer")
        && all.iter().all(|c| c.key < 2);
    column.not_null && !numbered
}

/// Whether a column of a declared type keeps such values as they are: SQLite's affinities, and the
/// types of strict tables.
fn keeps(declared: &str, kind: Kind, strict: bool) -> bool {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    let (text, integer, real) = match strict {
        true => (
            has("TEXT") || has("ANY"),
            has("INT") || has("ANY"),
            has("REAL") || has("ANY"),
        ),
        // In SQLite's order: the first that fits decides.
        false if has("INT") => (false, true, true),
        false if has("CHAR") || has("CLOB") || has("TEXT") => (true, false, false),
        false if has("BLOB") || declared.is_empty() => (true, true, true),
        false if has("REAL") || has("FLOA") || has("DOUB") => (false, false, true),
        // NUMERIC turns text into a number where it looks like one.
        false => (kind == Kind::Json, true, true),
    };
    match kind {
        Kind::Text | Kind::Json => text,
        Kind::Integer => integer,
        Kind::Real => real,
    }
}

fn of_indexes(conn: &Connection, table: &Table) -> Result<Option<Difference>, Fault> {
    let mut statement = conn
        .prepare("SELECT name, origin, partial FROM pragma_index_list(?1) WHERE \"unique\" <> 0")?;
    let mut indexes = statement.query([table.name])?;
    let mut unique = false;
    while let Some(row) = indexes.next()? {
        let (name, origin, partial): (String, String, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let columns = indexed(conn, &name)?;
        let holds = |column: &str| {
            let mut exact = columns.iter().flatten();
            exact.any(|(c, exact)| same(c, column) && *exact)
        };
        let whole = table.key.iter().all(|column| holds(column));
        unique |= whole && !partial && columns.len() == table.key.len();
        if whole || table.fresh.is_some_and(holds) {
            continue;
        }
        let names: Vec<_> = columns
            .iter()
            .map(|c| c.as_ref().map_or("an expression".into(), |(c, _)| shown(c)))
            .collect();
        let remove = match origin.as_str() {
            "c" => format!("remove it{}", by_statement("DROP INDEX", &name)),
            _ => "rebuild the table without it".to_owned(),
        };
        return Ok(Some(Difference::new(
            format!(
                "the unique index `{}` of table `{}` over {} refuses rows that differ in {}",
                shown(&name),
                table.name,
                names.join(", "),
                table.key.join(", ")
            ),
            format!("{remove}, or name another file"),
        )));
    }
    if table.upsert && !unique {
        return Ok(Some(Difference::new(
            format!(
                "table `{}` has no unique index over {}, so that a row could be stored twice",
                table.name,
                table.key.join(", ")
            ),
            "restore the primary key that MLflow gives it, or name another file",
        )));
    }
    Ok(None)
}

/// The columns of an index, nothing for an expression, and whether each tells all texts apart.
fn indexed(conn: &Connection, index: &str) -> Result<Vec<Option<(String, bool)>>, Fault> {
    let mut statement =
        conn.prepare("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key <> 0")?;
    let columns = statement.query_map([index], |row| {
        let name: Option<String> = row.get(0)?;
        let collation: Option<String> = row.get(1)?;
        let exact = collation.is_none_or(|c| c.eq_ignore_ascii_case("binary"));
        Ok(name.map(|name| (name, exact)))
    })?;
    Ok(columns.collect::<Result<_, _>>()?)
}

fn of_references(
    conn: &Connection,
    table: &Table,
    found: &[Found],
) -> Result<Option<Difference>, Fault> {
    let mut statement =
        conn.prepare("SELECT \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1)")?;
    let mut references = statement.query([table.name])?;
    while let Some(row) = references.next()? {
        let (parent, from, to): (String, String, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let is = |column: &Column| same(column.name, &from);
        let satisfied = match table.columns.iter().any(is) {
            true => table.parents.iter().any(|(column, known, there)| {
                same(column, &from)
                    && same(known, &parent)
                    && to.as_ref().is_none_or(|to| same(to, there))
            }),
            // What is left empty refers to nothing.
            false => found.iter().any(|f| same(&f.name, &from) && !f.default),
        };
        if !satisfied {
            return Ok(Some(Difference::new(
                format!(
                    "column `{}` of table `{}` refers to `{}`, which does not hold what is written",
                    shown(&from),
                    table.name,
                    shown(&parent)
                ),
                "rebuild the table without this reference, or name another file",
            )));
        }
    }
    Ok(None)
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// A name as a message shows it: anybody may have chosen it.
pub(crate) fn shown(name: &str) -> String {
    let mut shown = String::new();
    for c in name.chars().take(SHOWN) {
        match c {
            '\'' | '"' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// The statement that does something to what has this name, for a mend; nothing where the name
/// cannot be shown as it is.
fn by_statement(verb: &str, name: &str) -> String {
    match shown(name) == name {
        true => format!(" (`{verb} \"{}\"`)", name.replace('"', "\"\"")),
        false => String::new(),
    }
}
