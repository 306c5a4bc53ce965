//! Whether a table can be appended to as it is: its features, its columns, its layout.

mod features;

use crate::config::CHECKPOINT_INTERVAL;
use crate::error::{Fault, OPEN, log_fault, shown};
use crate::schema::{Layout, Mismatch, TableKind, TableSchema, recognise};
use delta_kernel::engine::arrow_conversion::TryIntoArrow as _;
use delta_kernel::table_features::{ColumnMappingMode, TableFeature};
use delta_kernel::{DeltaResult, Engine, Snapshot};
use features::{Obstacle, Use};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use trace_destination_core::ErrorKind;

/// The metadata domain with the highest number of a row (Delta protocol, "Row IDs").
pub(super) const ROW_TRACKING_DOMAIN: &str = "delta.rowTracking";
/// The metadata domain with the columns by which a table is clustered ("Clustered Table").
pub(super) const CLUSTERING_DOMAIN: &str = "delta.clustering";
/// Characters of a cause that names what a table has, and bytes of its mend.
const LONGEST: usize = 1_000;
/// What always works, destroys nothing, and leads nowhere back.
const ANOTHER_TABLE: &str =
    "name another table and let it be created here: a view over both shows all rows";

/// What a writer needs to know of a table.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The table's own id, which no other has.
    pub(super) id: String,
    pub(super) layout: Arc<Layout>,
    pub(super) checkpoint_interval: u64,
    /// Whether rows get numbers.
    pub(super) row_tracking: bool,
    /// Whether commits have timestamps that rise.
    pub(super) in_commit_timestamps: bool,
}

impl Shape {
    /// That of a table that was just created here.
    pub(super) fn new(id: String, rows: TableSchema) -> Self {
        Self {
            id,
            layout: Layout::documented(rows),
            checkpoint_interval: CHECKPOINT_INTERVAL,
            row_tracking: false,
            in_commit_timestamps: false,
        }
    }
}

/// What the metadata domains of a table ask of those who append to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains {
    /// Paths of the clustering columns, as files name them.
    clustering: Vec<Vec<String>>,
    /// The domain of row tracking, as it is.
    pub(super) row_tracking: Option<String>,
}

impl Domains {
    /// Reads those that matter, from the log where there are any.
    ///
    /// # Errors
    /// If the log cannot be read, or the clustering columns are no list.
    pub(super) fn of(snapshot: &Snapshot, engine: &dyn Engine) -> DeltaResult<Self> {
        let table = snapshot.table_configuration();
        let clustering = snapshot.get_physical_clustering_columns(engine)?;
        let clustering = clustering.unwrap_or_default();
        Ok(Self {
            clustering: clustering.into_iter().map(|c| c.into_inner()).collect(),
            row_tracking: match table.is_feature_supported(&TableFeature::RowTracking) {
                true => snapshot.get_domain_metadata_internal(ROW_TRACKING_DOMAIN, engine)?,
                false => None,
            },
        })
    }
}

/// The id of a table.
pub(super) fn id_of(snapshot: &Snapshot) -> &str {
    snapshot.table_configuration().metadata().id()
}

/// Checks what is known of a table; an error names what is in the way and the way out.
pub(super) fn shape_of(
    snapshot: &Snapshot,
    domains: &Domains,
    kind: TableKind,
) -> Result<Shape, Fault> {
    let table = snapshot.table_configuration();
    let (protocol, metadata) = (table.protocol(), table.metadata());
    let schema = snapshot.schema();
    let properties = metadata.configuration();
    let listed = protocol
        .reader_features()
        .into_iter()
        .chain(protocol.writer_features())
        .flatten();
    let mut names: Vec<String> = listed.map(ToString::to_string).collect();
    // Versions before 7 stand for features by number.
    if protocol.min_writer_version() < 7 {
        let implied = features::IMPLIED.iter();
        let implied = implied.filter(|(since, _)| protocol.min_writer_version() >= *since);
        names.extend(implied.map(|(_, name)| (*name).to_owned()));
    }
    if protocol.min_reader_version() > 3 || protocol.min_writer_version() > 7 {
        names.push(format!(
            "protocol {}/{}",
            protocol.min_reader_version(),
            protocol.min_writer_version()
        ));
    }
    let rows = recognise(kind, &schema, properties);
    let of_table = Use {
        schema: &schema,
        properties,
        rows: rows.as_ref().map_or_else(|m| m.expected, |rows| *rows),
    };
    let obstacles = names
        .iter()
        .filter_map(|name| Some((name.as_str(), features::obstacle(name, &of_table)?)));
    let obstacles: BTreeMap<&str, Obstacle> = obstacles.collect();
    if !obstacles.is_empty() {
        return Err(refused(&obstacles));
    }
    if !metadata.partition_columns().is_empty() {
        return Err(unsupported(
            format!(
                "the table is partitioned by {}",
                metadata.partition_columns().join(", ")
            ),
            ANOTHER_TABLE,
        ));
    }
    let rows = rows.map_err(|mismatch| {
        let mend = mend(&mismatch);
        unsupported(mismatch.to_string(), mend)
    })?;
    let physical: arrow_schema::Schema = (&*table.physical_schema())
        .try_into_arrow()
        .map_err(|e| log_fault(OPEN, "reading the table's columns", e.into()))?;
    let mapped = table.column_mapping_mode() != ColumnMappingMode::None;
    let layout = Layout::of(
        rows,
        &schema,
        physical.fields(),
        mapped,
        &domains.clustering,
    );
    let layout = layout.map_err(|column| {
        unsupported(
            format!("the table is clustered by {column}, of which there can be no statistics"),
            format!("ALTER TABLE … CLUSTER BY other columns, or {ANOTHER_TABLE}"),
        )
    })?;
    let interval = properties
        .get("delta.checkpointInterval")
        .and_then(|text| text.trim().parse().ok())
        .filter(|n| *n > 0);
    let suspended = properties
        .get("delta.rowTrackingSuspended")
        .is_some_and(|value| features::is_true(value));
    Ok(Shape {
        id: metadata.id().to_owned(),
        layout,
        checkpoint_interval: interval.unwrap_or(CHECKPOINT_INTERVAL),
        row_tracking: table.is_feature_supported(&TableFeature::RowTracking) && !suspended,
        in_commit_timestamps: table.is_feature_enabled(&TableFeature::InCommitTimestamp),
    })
}

/// `cause` may name columns and features, which whoever made the table chose.
fn unsupported(cause: String, mend: impl Into<Cow<'static, str>>) -> Fault {
    let cause = shown(&cause, LONGEST);
    Fault::new(ErrorKind::Unsupported, OPEN, cause).mend(mend)
}

/// The error of a table whose commits its catalog has.
pub(super) fn commits_elsewhere(error: delta_kernel::Error) -> Fault {
    let cause = "the table has features that rows from here would break: catalogManaged (its commits go through the catalog)";
    unsupported(cause.to_owned(), ANOTHER_TABLE).caused_by(error)
}

/// The error of a table with features that an append would break.
fn refused(obstacles: &BTreeMap<&str, Obstacle>) -> Fault {
    let names: Vec<String> = obstacles
        .iter()
        .map(|(name, obstacle)| match &obstacle.what {
            Some(what) => format!("{name} ({what})"),
            None => (*name).to_owned(),
        })
        .collect();
    let mends: Option<Vec<&str>> = obstacles.values().map(|o| o.mend.as_deref()).collect();
    let mend = match mends {
        Some(mends) => format!("{}; or {ANOTHER_TABLE}", mends.join(" and ")),
        None => ANOTHER_TABLE.to_owned(),
    };
    // A statement that cannot be shown as it is does not mend anything.
    let mend = match mend.contains(char::is_control) || mend.len() > LONGEST {
        true => ANOTHER_TABLE.to_owned(),
        false => mend,
    };
    let names = names.join(", ");
    unsupported(
        format!("the table has features that rows from here would break: {names}"),
        mend,
    )
}

/// What makes a table one of its kind, where that is possible.
fn mend(mismatch: &Mismatch) -> String {
    let alone = mismatch.missing.is_empty() && mismatch.different.is_empty();
    match alone {
        true => format!("ALTER TABLE … ALTER COLUMN … DROP NOT NULL, or {ANOTHER_TABLE}"),
        false => ANOTHER_TABLE.to_owned(),
    }
}
