//! Whether a table can be appended to as it is: its features, its columns, its layout.

use crate::config::CHECKPOINT_INTERVAL;
use crate::error::{Fault, OPEN};
use crate::schema::{SchemaVersion, recognise};
use delta_kernel::schema::{ArrayType, DataType, StructField, StructType};
use delta_kernel::{Snapshot, table_features::TableFeature};
use std::collections::{BTreeSet, HashMap};
use trace_destination_core::ErrorKind;

/// What a writer needs to know of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) columns: SchemaVersion,
    pub(super) checkpoint_interval: u64,
}

impl Shape {
    /// That of a table that was just created here.
    pub(super) fn new(columns: SchemaVersion) -> Self {
        Self {
            columns,
            checkpoint_interval: CHECKPOINT_INTERVAL,
        }
    }
}

/// Features a plain append satisfies by itself, whatever the table holds.
const FREE: [TableFeature; 6] = [
    TableFeature::AppendOnly,
    TableFeature::DeletionVectors,
    TableFeature::TimestampWithoutTimezone,
    TableFeature::V2Checkpoint,
    TableFeature::VariantType,
    TableFeature::VariantTypePreview,
];

/// Checks what is known of a table; an error names what is in the way and the way out.
pub(super) fn shape_of(snapshot: &Snapshot) -> Result<Shape, Fault> {
    let table = snapshot.table_configuration();
    let (protocol, metadata) = (table.protocol(), table.metadata());
    let schema = snapshot.schema();
    let properties = metadata.configuration();
    let mut foreign: BTreeSet<String> = protocol
        .reader_features()
        .into_iter()
        .chain(protocol.writer_features())
        .flatten()
        .filter(|f| !is_satisfied(f, &schema, properties))
        .map(ToString::to_string)
        .collect();
    // Versions before 7 stand for features by number.
    if protocol.min_writer_version() < 7 {
        let implied = [
            (2, TableFeature::Invariants),
            (3, TableFeature::CheckConstraints),
            (4, TableFeature::GeneratedColumns),
            (5, TableFeature::ColumnMapping),
            (6, TableFeature::IdentityColumns),
        ];
        foreign.extend(
            implied
                .iter()
                .filter(|(since, f)| {
                    protocol.min_writer_version() >= *since && !is_satisfied(f, &schema, properties)
                })
                .map(|(_, f)| f.to_string()),
        );
    }
    if protocol.min_reader_version() > 3 || protocol.min_writer_version() > 7 {
        foreign.insert(format!(
            "protocol {}/{}",
            protocol.min_reader_version(),
            protocol.min_writer_version()
        ));
    }
    if !foreign.is_empty() {
        let names: Vec<_> = foreign.into_iter().collect();
        return Err(Fault::new(
            ErrorKind::Unsupported,
            OPEN,
            format!("the table has features that this build cannot write: {}", names.join(", ")),
        )
        .mend("name another table and let it be created here, or drop these features from it; managed and clustered tables are written by Databricks' own ingest (databricks:)"));
    }
    if !metadata.partition_columns().is_empty() {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            OPEN,
            format!(
                "the table is partitioned by {}",
                metadata.partition_columns().join(", ")
            ),
        )
        .mend("name a table without partitions, or one that is absent, to have it created"));
    }
    let columns = recognise(&schema, properties).map_err(|mismatch| {
        Fault::new(ErrorKind::Unsupported, OPEN, mismatch.to_string())
            .mend("name another table, or drop this one to have it created with the columns of otel.schemaVersion v2")
    })?;
    let interval = properties
        .get("delta.checkpointInterval")
        .and_then(|text| text.trim().parse().ok())
        .filter(|n| *n > 0);
    Ok(Shape {
        columns,
        checkpoint_interval: interval.unwrap_or(CHECKPOINT_INTERVAL),
    })
}

/// Whether an append of plain rows keeps what a feature asks of writers. Of those that only matter
/// where a column or property makes use of them, only the use is refused: Spark lists several of
/// them in every table it makes.
fn is_satisfied(
    feature: &TableFeature,
    schema: &StructType,
    properties: &HashMap<String, String>,
) -> bool {
    let unmarked = |key: &str| !any_field(schema, &|f| f.metadata().contains_key(key));
    let unset = |prefix: &str| !properties.keys().any(|k| k.starts_with(prefix));
    match feature {
        f if FREE.contains(f) => true,
        TableFeature::Invariants => unmarked("delta.invariants"),
        TableFeature::GeneratedColumns => unmarked("delta.generationExpression"),
        TableFeature::IdentityColumns => unmarked("delta.identity.start"),
        TableFeature::AllowColumnDefaults => true,
        TableFeature::CheckConstraints => unset("delta.constraints."),
        // Rows that are only added need no change files.
        TableFeature::ChangeDataFeed => true,
        TableFeature::ColumnMapping => properties
            .get("delta.columnMapping.mode")
            .is_none_or(|mode| mode == "none"),
        _ => false,
    }
}

fn any_field(schema: &StructType, found: &dyn Fn(&StructField) -> bool) -> bool {
    schema
        .fields()
        .any(|field| found(field) || any_within(field.data_type(), found))
}

fn any_within(data_type: &DataType, found: &dyn Fn(&StructField) -> bool) -> bool {
    match data_type {
        DataType::Struct(inner) => any_field(inner, found),
        DataType::Array(array) => {
            let element: &ArrayType = array;
            any_within(element.element_type(), found)
        }
        DataType::Map(map) => {
            any_within(map.key_type(), found) || any_within(map.value_type(), found)
        }
        _ => false,
    }
}
