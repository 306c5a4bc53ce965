//! The shapes that tables of spans and of annotations can have, and which of them an existing table
//! has.

mod columns;
mod layout;

pub(crate) use layout::{Layout, Measure};

use arrow_schema::{Schema, SchemaRef};
use columns::{ANNOTATIONS, Column, V1, V2};
use deltalake::kernel::{DataType, StructType};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The table property in which Databricks' tables for OpenTelemetry name their shape ("OpenTelemetry
/// table reference for Zerobus Ingest").
pub(crate) const VERSION_PROPERTY: &str = "otel.schemaVersion";

/// The shape of a spans table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaVersion {
    /// 20 columns, every bag of attributes a MAP<STRING, STRING>.
    V1,
    /// 24 columns, every bag of attributes a VARIANT.
    V2,
}

impl SchemaVersion {
    /// The value of [`VERSION_PROPERTY`].
    pub(crate) fn property(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// Spans.
    Spans,
    /// What is known of a trace as a whole: MLflow's data that OpenTelemetry has no signal for.
    Annotations,
}

impl TableKind {
    /// The shape of new tables.
    pub(crate) fn newest(self) -> TableSchema {
        match self {
            Self::Spans => TableSchema::Spans(SchemaVersion::V2),
            Self::Annotations => TableSchema::Annotations,
        }
    }

    /// The rows, for people.
    pub(crate) fn rows(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Annotations => "annotations",
        }
    }

    /// What a table of them is, for people.
    pub(crate) fn comment(self) -> &'static str {
        match self {
            Self::Spans => "OpenTelemetry spans, one row each",
            Self::Annotations => {
                "MLflow annotations of traces; of each annotation_id the newest row by updated_at counts"
            }
        }
    }
}

/// The documented columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableSchema {
    /// Spans.
    Spans(SchemaVersion),
    /// Annotations, of which there is one version.
    Annotations,
}

impl TableSchema {
    /// All there are, in the order of [`index`](Self::index).
    const ALL: [Self; 3] = [
        Self::Spans(SchemaVersion::V1),
        Self::Spans(SchemaVersion::V2),
        Self::Annotations,
    ];

    fn index(self) -> usize {
        match self {
            Self::Spans(version) => version as usize,
            Self::Annotations => 2,
        }
    }

    /// What the rows are.
    pub(crate) fn kind(self) -> TableKind {
        match self {
            Self::Spans(_) => TableKind::Spans,
            Self::Annotations => TableKind::Annotations,
        }
    }

    /// What the rows are, for people.
    pub(crate) fn rows(self) -> &'static str {
        self.kind().rows()
    }

    /// How bags of attributes are kept, and the value of [`VERSION_PROPERTY`].
    pub(crate) fn version(self) -> SchemaVersion {
        match self {
            Self::Spans(version) => version,
            Self::Annotations => SchemaVersion::V2,
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Spans(SchemaVersion::V1) => V1,
            Self::Spans(SchemaVersion::V2) => V2,
            Self::Annotations => ANNOTATIONS,
        }
    }

    /// The columns readers find files by.
    fn found_by(self) -> &'static [&'static str] {
        match self {
            Self::Spans(_) => &[
                "time",
                "date",
                "service_name",
                "trace_id",
                "start_time_unix_nano",
            ],
            Self::Annotations => &["target_id", "annotation_type", "updated_at"],
        }
    }

    /// Columns whose values hardly repeat: a dictionary of them costs and saves nothing.
    fn unique(self) -> &'static [&'static str] {
        match self {
            Self::Spans(_) => &[
                "record_id",
                "time",
                "span_id",
                "start_time_unix_nano",
                "end_time_unix_nano",
            ],
            Self::Annotations => &["annotation_id"],
        }
    }

    /// The columns as a Delta table declares them: every one nullable, as documented.
    pub(crate) fn delta(self) -> StructType {
        columns::delta(self.version(), self.columns())
    }

    /// The columns as [`Rows`](crate::rows::Rows) builds them: the same Parquet columns as
    /// [`delta`](Self::delta)'s, in memory with 64-bit offsets where text is different in every row
    /// and dictionaries where it repeats.
    ///
    /// A VARIANT is a struct of two binaries without Arrow's extension type, hence a Parquet group
    /// without annotation. That is what Delta asks for, and the most readers take it: the table says
    /// that it is a VARIANT, and Parquet readers older than the annotation fail on it.
    ///
    /// Files are to be written without this schema embedded
    /// ([`ArrowWriterOptions::with_skip_arrow_metadata`](parquet::arrow::arrow_writer::ArrowWriterOptions::with_skip_arrow_metadata)):
    /// how the rows lay in our memory is nothing a reader should copy.
    pub(crate) fn arrow(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 3]> = LazyLock::new(|| {
            TableSchema::ALL
                .map(|s| Arc::new(Schema::new(columns::arrow(s.version(), s.columns()))))
        });
        Arc::clone(&SCHEMAS[self.index()])
    }
}

/// Finds out which shape of its kind a table has, by its columns; the property may only agree.
///
/// Columns may stand in any order. One that is declared NOT NULL is fine where no row of ours
/// holds a NULL. Columns that somebody added, also within structs, are fine where they may be NULL.
///
/// # Errors
/// If it is neither, with all that keeps it from being the one it is closer to.
pub(crate) fn recognise(
    kind: TableKind,
    table: &StructType,
    properties: &HashMap<String, String>,
) -> Result<TableSchema, Mismatch> {
    let property = properties.get(VERSION_PROPERTY).map(String::as_str);
    let declared = TableSchema::ALL
        .into_iter()
        .filter(|schema| schema.kind() == kind)
        .find(|schema| property == Some(schema.version().property()));
    let schema = declared.unwrap_or_else(|| {
        let bag = table.field("attributes").map(|f| &f.data_type);
        match (kind, table.field("record_id"), bag) {
            (TableKind::Spans, None, Some(DataType::Map(_))) => {
                TableSchema::Spans(SchemaVersion::V1)
            }
            _ => kind.newest(),
        }
    });
    let mut mismatch = Mismatch::new(schema);
    if let (Some(property), None) = (property, declared) {
        mismatch.different.push(format!(
            "the property {VERSION_PROPERTY} is `{property}`, which is unknown"
        ));
    }
    columns::compare(schema.version(), "", schema.columns(), table, &mut mismatch);
    if mismatch.is_empty() {
        Ok(schema)
    } else {
        Err(mismatch)
    }
}

/// Whether the rows have a column of this name.
pub(crate) fn recognised(schema: TableSchema, name: &str) -> bool {
    schema.columns().iter().any(|column| column.name == name)
}

/// Why a table is none of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The shape the table was compared to.
    pub(crate) expected: TableSchema,
    /// Columns the table lacks.
    pub(crate) missing: Vec<String>,
    /// Columns of the table that the rows do not have, and that may not be NULL.
    pub(crate) required: Vec<String>,
    /// Columns of the table that the rows do not have. Alone they are no difference; they may be what
    /// others were renamed to.
    pub(crate) added: Vec<String>,
    /// Columns of another type, each with both types.
    pub(crate) different: Vec<String>,
}

impl Mismatch {
    fn new(expected: TableSchema) -> Self {
        Self {
            expected,
            missing: Vec::new(),
            required: Vec::new(),
            added: Vec::new(),
            different: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.required.is_empty() && self.different.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.expected.rows();
        write!(
            f,
            "the table is not an OpenTelemetry {rows} table of version {}",
            self.expected.version().property()
        )?;
        let others = format!("columns that {rows} do not have ");
        let required = format!("columns that are NOT NULL and that {rows} do not have ");
        let mut separator = ": ";
        let renamed = match self.missing.is_empty() {
            true => &Vec::new(),
            false => &self.added,
        };
        for (what, columns) in [
            ("missing columns ", &self.missing),
            (&*others, renamed),
            (&*required, &self.required),
            ("", &self.different),
        ] {
            if !columns.is_empty() {
                write!(f, "{separator}{what}{}", columns.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
