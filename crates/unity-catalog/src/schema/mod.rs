//! The two shapes a spans table can have, and which of them an existing table has.

mod columns;
mod layout;

pub(crate) use layout::{Layout, Measure};

use arrow_schema::{Schema, SchemaRef};
use columns::{Column, V1, V2};
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

    fn columns(self) -> &'static [Column] {
        match self {
            Self::V1 => V1,
            Self::V2 => V2,
        }
    }

    /// The columns as a Delta table declares them: every one nullable, as documented.
    pub(crate) fn delta(self) -> StructType {
        columns::delta(self, self.columns())
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
        static SCHEMAS: LazyLock<[SchemaRef; 2]> = LazyLock::new(|| {
            [SchemaVersion::V1, SchemaVersion::V2]
                .map(|v| Arc::new(Schema::new(columns::arrow(v, v.columns()))))
        });
        Arc::clone(&SCHEMAS[self as usize])
    }
}

/// Finds out which shape a table has, by its columns; the property may only agree.
///
/// Columns may stand in any order. One that is declared NOT NULL is fine where no row of ours
/// holds a NULL. Columns that somebody added, also within structs, are fine where they may be NULL.
///
/// # Errors
/// If it is neither, with all that keeps it from being the one it is closer to.
pub(crate) fn recognise(
    table: &StructType,
    properties: &HashMap<String, String>,
) -> Result<SchemaVersion, Mismatch> {
    let property = properties.get(VERSION_PROPERTY).map(String::as_str);
    let declared = [SchemaVersion::V1, SchemaVersion::V2]
        .into_iter()
        .find(|v| property == Some(v.property()));
    let version = declared.unwrap_or_else(|| {
        let bag = table.field("attributes").map(|f| &f.data_type);
        match (table.field("record_id"), bag) {
            (None, Some(DataType::Map(_))) => SchemaVersion::V1,
            _ => SchemaVersion::V2,
        }
    });
    let mut mismatch = Mismatch::new(version);
    if let (Some(property), None) = (property, declared) {
        mismatch.different.push(format!(
            "the property {VERSION_PROPERTY} is `{property}`, which is unknown"
        ));
    }
    columns::compare(version, "", version.columns(), table, &mut mismatch);
    if mismatch.is_empty() {
        Ok(version)
    } else {
        Err(mismatch)
    }
}

/// Whether spans have a column of this name.
pub(crate) fn recognised(version: SchemaVersion, name: &str) -> bool {
    version.columns().iter().any(|column| column.name == name)
}

/// Why a table is no spans table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The shape the table was compared to.
    pub(crate) expected: SchemaVersion,
    /// Columns the table lacks.
    pub(crate) missing: Vec<String>,
    /// Columns of the table that spans do not have, and that may not be NULL.
    pub(crate) required: Vec<String>,
    /// Columns of the table that spans do not have. Alone they are no difference; they may be what
    /// others were renamed to.
    pub(crate) added: Vec<String>,
    /// Columns of another type, each with both types.
    pub(crate) different: Vec<String>,
}

impl Mismatch {
    fn new(expected: SchemaVersion) -> Self {
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
        write!(
            f,
            "the table is not an OpenTelemetry spans table of version {}",
            self.expected.property()
        )?;
        let mut separator = ": ";
        let renamed = match self.missing.is_empty() {
            true => &Vec::new(),
            false => &self.added,
        };
        for (what, columns) in [
            ("missing columns ", &self.missing),
            ("columns that spans do not have ", renamed),
            (
                "columns that are NOT NULL and that spans do not have ",
                &self.required,
            ),
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
