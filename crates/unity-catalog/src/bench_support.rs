//! The rows of a batch and the properties of the files, for measuring a bare `ArrowWriter` that
//! writes the same; not part of the API.

use crate::rows::Rows;
use crate::schema::SchemaVersion;
use arrow_array::RecordBatch;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;
use trace_destination_core::{Refusal, TraceBatch};

/// Converts batches to the rows of a table of version 2, as a table does.
#[derive(Debug)]
pub struct Converter(Rows);

impl Default for Converter {
    fn default() -> Self {
        Self(Rows::new(SchemaVersion::V2))
    }
}

impl Converter {
    /// The rows of a batch, and the spans that cannot be any.
    pub fn convert(&mut self, batch: &TraceBatch) -> (RecordBatch, Vec<Refusal>) {
        let refused = self.0.append(batch);
        (self.0.finish(), refused)
    }
}

/// How a table writes its files.
pub fn writer_options() -> ArrowWriterOptions {
    crate::table::writer_options()
}

/// Compression, dictionaries and statistics of those files.
pub fn writer_properties() -> WriterProperties {
    crate::table::writer_properties()
}
