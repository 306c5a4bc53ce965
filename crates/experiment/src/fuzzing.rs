//! For fuzz targets, and compiled for them only: what is derived from spans, and how a database of
//! others is read and written.

use crate::derive::{self, Rollup};
use crate::error::Fault;
use crate::memory::Memory;
use crate::options::MissingExperiment;
use crate::requests::Stored;
use crate::rows::Rows;
use crate::sql::Statements;
use crate::target::Target;
use crate::trace::Tables;
use crate::writer::Care;
use crate::{experiment, schema};
use rusqlite::Connection;
use trace_destination_core::{Error, SpanGroup, TraceBatch};

/// What one span gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The column `spans.content`.
    pub content: String,
    /// Both previews.
    pub previews: [Option<String>; 2],
    /// Session, user, model and provider.
    pub names: [Option<String>; 4],
    /// The trace's name and tags.
    pub tags: Vec<(String, String)>,
    /// Ids of the span and of its parent, and what of usage and cost is its own.
    node: (
        String,
        Option<String>,
        Option<derive::Usage>,
        Option<derive::Cost>,
    ),
}

/// Derives the values of every span.
pub fn derive(groups: &[SpanGroup]) -> Vec<Result<Derived, Error>> {
    let spans = groups
        .iter()
        .flat_map(|group| group.spans.iter().map(|span| (span, &*group.resource)));
    spans
        .map(|(span, resource)| {
            let facts = derive::span_facts(span, resource)?;
            let (previews, tags) = match facts.root {
                Some(root) => (
                    [root.request_preview, root.response_preview],
                    root.name
                        .map(|name| (String::new(), name))
                        .into_iter()
                        .chain(root.tags)
                        .chain(derive::resource_tags(resource))
                        .collect(),
                ),
                None => ([None, None], Vec::new()),
            };
            Ok(Derived {
                content: facts.content,
                previews,
                names: [
                    facts.session_id,
                    facts.user_id,
                    facts.model_name,
                    facts.model_provider,
                ],
                tags,
                node: (facts.span_id, facts.parent_span_id, facts.usage, facts.cost),
            })
        })
        .collect()
}

/// Token usage and cost of a trace whose spans come in this order.
pub fn totals<'a>(
    spans: impl IntoIterator<Item = &'a Derived>,
) -> (Option<[Option<i64>; 6]>, Option<[Option<f64>; 3]>) {
    let mut rollup = Rollup::default();
    for span in spans {
        let (id, parent, usage, cost) = &span.node;
        rollup.insert(id, parent.as_deref(), *usage, *cost);
    }
    (
        rollup.usage().map(|usage| usage.columns()),
        rollup.cost().map(|cost| cost.columns()),
    )
}

/// What `spans.content` gives back of usage and cost, beside what the span gave.
pub fn read_back(span: &Derived) -> [String; 2] {
    let (usage, cost) = derive::stored_values(&span.content);
    [
        format!(
            "{:?} {:?}",
            span.node.2.map(|u| u.columns()),
            span.node.3.map(|c| c.columns())
        ),
        format!(
            "{:?} {:?}",
            usage.map(|u| u.columns()),
            cost.map(|c| c.columns())
        ),
    ]
}

/// The tables of a new file.
///
/// # Errors
/// Whatever SQLite says.
pub fn create(conn: &Connection) -> Result<(), Error> {
    schema::create(conn).map_err(during)
}

/// Whether the tables of a database take what is written.
///
/// # Errors
/// The first difference.
pub fn check(conn: &Connection) -> Result<(), Error> {
    let shape = |conn| schema::Shapes::default().of(conn, &schema::revision(conn)?);
    shape(conn).map(drop).map_err(during)
}

/// Writes a batch as a sink does, into the experiment `name`, row by row where `apart`.
///
/// # Errors
/// Whatever keeps it from being stored.
pub fn write(
    conn: &Connection,
    name: &str,
    batch: &TraceBatch,
    apart: bool,
) -> Result<usize, Error> {
    collect(conn, name, batch, apart).map_err(during)
}

fn during(fault: Fault) -> Error {
    fault.during("fuzz a database")
}

fn collect(conn: &Connection, name: &str, batch: &TraceBatch, apart: bool) -> Result<usize, Fault> {
    let shape = schema::Shapes::default().of(conn, &schema::revision(conn)?)?;
    let target = Target {
        name: Some(name.to_owned()),
        id: None,
        missing: MissingExperiment::Create,
        path: "/fuzz/fuzz.db".into(),
        synchronous: crate::Synchronous::Normal,
        artifact_root: None,
        access: crate::Access::Owner,
        journal_mode: crate::JournalMode::Keep,
    };
    conn.execute_batch("BEGIN")?;
    let experiment = experiment::find_or_create(conn, &shape, &target)?;
    let statements = Statements::of(&shape);
    let rows = Rows::of(batch);
    let mut memory = Memory::new();
    let mut stored = Stored::default();
    let mut tables = Tables::open(conn, &shape, &statements)?;
    let care = match apart {
        true => Care::EachRow,
        false => Care::None,
    };
    for trace in &rows.traces {
        tables.write(&mut memory, &rows, trace, &experiment, care, &mut stored)?;
    }
    conn.execute_batch("COMMIT")?;
    Ok(stored.refused.len())
}
