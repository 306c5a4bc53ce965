//! The columns of the tables, and what Delta and Arrow call them.
//!
//! Sources: Databricks, "Configure OpenTelemetry (OTLP) clients to send data to Unity Catalog" and
//! "OpenTelemetry table reference for Zerobus Ingest" for spans; "Query OpenTelemetry traces stored in
//! Unity Catalog", section "MLflow annotation data formats", for annotations.

use super::{Mismatch, SchemaVersion};
use arrow_schema::{DataType as ArrowType, Field, Fields, TimeUnit};
use deltalake::kernel::{ArrayType, DataType, MapType, PrimitiveType, StructField, StructType};
use std::sync::Arc;

/// One column, or one field of a nested column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// No row of ours holds a NULL here.
    filled: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text,
    /// Text that a few values share between them: a dictionary in memory.
    Term,
    Int,
    Long,
    Timestamp,
    Date,
    /// Attributes.
    Bag,
    /// Attributes that many rows have in common: a dictionary in memory.
    SharedBag,
    Struct(&'static [Column]),
    List(&'static [Column]),
}

use Kind::{Bag, Date, Int, List, Long, SharedBag, Struct, Term, Text, Timestamp};

/// Always there.
const fn filled(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        filled: true,
    }
}

/// NULL where a span, or an annotation, does not say.
const fn optional(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        filled: false,
    }
}

/// All columns in the documented order; the first four are Databricks' additions.
pub(super) const V2: &[Column] = &[
    filled("record_id", Text),
    filled("time", Timestamp),
    filled("date", Date),
    optional("service_name", Term),
    filled("trace_id", Text),
    filled("span_id", Text),
    optional("trace_state", Text),
    optional("parent_span_id", Text),
    filled("flags", Int),
    filled("name", Text),
    filled("kind", Term),
    filled("start_time_unix_nano", Long),
    filled("end_time_unix_nano", Long),
    filled("attributes", Bag),
    filled("dropped_attributes_count", Int),
    filled(
        "events",
        List(&[
            filled("time_unix_nano", Long),
            filled("name", Text),
            filled("attributes", Bag),
            filled("dropped_attributes_count", Int),
        ]),
    ),
    filled("dropped_events_count", Int),
    filled(
        "links",
        List(&[
            filled("trace_id", Text),
            filled("span_id", Text),
            optional("trace_state", Text),
            filled("attributes", Bag),
            filled("dropped_attributes_count", Int),
            filled("flags", Int),
        ]),
    ),
    filled("dropped_links_count", Int),
    filled(
        "status",
        Struct(&[optional("message", Text), filled("code", Term)]),
    ),
    filled(
        "resource",
        Struct(&[
            filled("attributes", SharedBag),
            filled("dropped_attributes_count", Int),
        ]),
    ),
    optional("resource_schema_url", Term),
    filled(
        "instrumentation_scope",
        Struct(&[
            optional("name", Term),
            optional("version", Term),
            filled("attributes", SharedBag),
            filled("dropped_attributes_count", Int),
        ]),
    ),
    optional("span_schema_url", Term),
];

/// The older shape: no additions, and the bags are maps.
pub(super) const V1: &[Column] = V2.split_at(4).1;

/// All columns of annotations in the documented order. There is one version, with VARIANT: tables of
/// version `v1` of the schema have no annotations.
pub(super) const ANNOTATIONS: &[Column] = &[
    filled("annotation_id", Text),
    filled("target_type", Term),
    filled("target_id", Text),
    filled("annotation_type", Term),
    filled("name", Text),
    optional("value", Bag),
    optional("comment", Text),
    optional("metadata", Bag),
    filled("created_at", Timestamp),
    optional("created_by", Term),
    filled("updated_at", Timestamp),
    optional("updated_by", Term),
    optional("deleted_at", Timestamp),
    optional("deleted_by", Term),
];

/// The columns as a Delta table declares them.
pub(super) fn delta(version: SchemaVersion, columns: &[Column]) -> StructType {
    let fields = columns
        .iter()
        .map(|c| StructField::nullable(c.name, delta_type(version, &c.kind)));
    StructType::try_new(fields).expect("the names of the columns differ")
}

fn delta_type(version: SchemaVersion, kind: &Kind) -> DataType {
    match kind {
        Text | Term => DataType::STRING,
        Int => DataType::INTEGER,
        Long => DataType::LONG,
        Timestamp => DataType::TIMESTAMP,
        Date => DataType::DATE,
        Bag | SharedBag => match version {
            SchemaVersion::V1 => MapType::new(DataType::STRING, DataType::STRING, true).into(),
            SchemaVersion::V2 => DataType::unshredded_variant(),
        },
        Struct(fields) => delta(version, fields).into(),
        List(fields) => ArrayType::new(DataType::from(delta(version, fields)), true).into(),
    }
}

/// The columns as the rows are built in memory.
pub(super) fn arrow(version: SchemaVersion, columns: &[Column]) -> Fields {
    columns
        .iter()
        .map(|c| Field::new(c.name, arrow_kind(version, &c.kind), true))
        .collect()
}

fn arrow_kind(version: SchemaVersion, kind: &Kind) -> ArrowType {
    match kind {
        Text => ArrowType::LargeUtf8,
        Term => arrow_type::term(),
        Int => ArrowType::Int32,
        Long => ArrowType::Int64,
        Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Date => ArrowType::Date32,
        Bag => match version {
            SchemaVersion::V1 => arrow_type::map(ArrowType::LargeUtf8),
            SchemaVersion::V2 => arrow_type::variant(ArrowType::LargeBinary),
        },
        SharedBag => match version {
            SchemaVersion::V1 => arrow_type::map(arrow_type::term()),
            SchemaVersion::V2 => arrow_type::variant(arrow_type::shared_bytes()),
        },
        Struct(fields) => ArrowType::Struct(arrow(version, fields)),
        List(fields) => {
            let element = ArrowType::Struct(arrow(version, fields));
            ArrowType::List(Arc::new(Field::new("element", element, true)))
        }
    }
}

/// How the rows hold what Arrow has several types for.
mod arrow_type {
    use super::{ArrowType, Field};
    use std::sync::Arc;

    /// Text in a dictionary.
    pub(super) fn term() -> ArrowType {
        ArrowType::Dictionary(Box::new(ArrowType::Int32), Box::new(ArrowType::Utf8))
    }

    /// Bytes in a dictionary.
    pub(super) fn shared_bytes() -> ArrowType {
        ArrowType::Dictionary(Box::new(ArrowType::Int32), Box::new(ArrowType::Binary))
    }

    /// A VARIANT, whose dictionary of keys many rows have in common.
    pub(super) fn variant(value: ArrowType) -> ArrowType {
        ArrowType::Struct(
            [
                Field::new("metadata", shared_bytes(), false),
                Field::new("value", value, false),
            ]
            .into_iter()
            .collect(),
        )
    }

    /// A MAP, with the names of Parquet's specification.
    pub(super) fn map(text: ArrowType) -> ArrowType {
        let entries = ArrowType::Struct(
            [
                Field::new("key", text.clone(), false),
                Field::new("value", text, true),
            ]
            .into_iter()
            .collect(),
        );
        ArrowType::Map(Arc::new(Field::new("key_value", entries, false)), false)
    }
}

/// Notes everything in which `table` differs from `columns`; `path` is what the names are under.
pub(super) fn compare(
    version: SchemaVersion,
    path: &str,
    columns: &[Column],
    table: &StructType,
    mismatch: &mut Mismatch,
) {
    for column in columns {
        let name = format!("{path}{}", column.name);
        let Some(field) = table.field(column.name) else {
            mismatch.missing.push(format!(
                "`{name}` {}",
                spell(&delta_type(version, &column.kind))
            ));
            continue;
        };
        if !field.nullable && !column.filled {
            mismatch.different.push(format!(
                "`{name}` is NOT NULL, but {} may have none",
                mismatch.expected.rows()
            ));
        }
        match (&column.kind, &field.data_type) {
            (Struct(inner), DataType::Struct(found)) => {
                compare(version, &format!("{name}."), inner, found, mismatch);
            }
            (List(inner), DataType::Array(array)) => match &array.element_type {
                DataType::Struct(found) => {
                    compare(version, &format!("{name}.element."), inner, found, mismatch);
                }
                _ => differs(version, &name, column, &field.data_type, mismatch),
            },
            (kind, found) if *found == delta_type(version, kind) => {}
            (_, found) => differs(version, &name, column, found, mismatch),
        }
    }
    for field in table.fields() {
        if columns.iter().any(|c| c.name == field.name) {
            continue;
        }
        let shown = format!("`{path}{}` {}", field.name, spell(&field.data_type));
        match (field.nullable, &field.data_type) {
            // Somebody's own column: rows have a NULL in it.
            (true, DataType::Primitive(PrimitiveType::Void)) => mismatch.added.push(shown),
            (true, data_type) if !has_void(data_type) => mismatch.added.push(shown),
            (true, _) => mismatch.different.push(format!(
                "{shown} has VOID within it, which no file can hold"
            )),
            (false, _) => mismatch.required.push(shown),
        }
    }
}

/// Whether a type has VOID within it (Delta protocol, "Void Type": no data may be written then).
fn has_void(data_type: &DataType) -> bool {
    match data_type {
        DataType::Primitive(p) => *p == PrimitiveType::Void,
        DataType::Struct(s) => s.fields().any(|f| has_void(&f.data_type)),
        DataType::Array(a) => has_void(&a.element_type),
        DataType::Map(m) => has_void(&m.key_type) || has_void(&m.value_type),
        DataType::Variant(_) => false,
    }
}

fn differs(
    version: SchemaVersion,
    name: &str,
    column: &Column,
    found: &DataType,
    mismatch: &mut Mismatch,
) {
    mismatch.different.push(format!(
        "`{name}` is {} instead of {}",
        spell(found),
        spell(&delta_type(version, &column.kind))
    ));
}

/// A type on one line, as SQL spells it.
fn spell(data_type: &DataType) -> String {
    match data_type {
        DataType::Primitive(p) => match p.to_string().as_str() {
            "integer" => "INT".to_owned(),
            "long" => "BIGINT".to_owned(),
            other => other.to_uppercase(),
        },
        DataType::Array(a) => format!("ARRAY<{}>", spell(&a.element_type)),
        DataType::Map(m) => format!("MAP<{}, {}>", spell(&m.key_type), spell(&m.value_type)),
        DataType::Variant(_) => "VARIANT".to_owned(),
        DataType::Struct(s) => {
            let fields: Vec<String> = s
                .fields()
                .map(|f| format!("{}: {}", f.name, spell(&f.data_type)))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
    }
}
