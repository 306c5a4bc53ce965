//! The rows of a batch and the properties of the files, for measuring a bare `ArrowWriter` that
//! writes the same; not part of the API.

use crate::rows::{Rows, Slice};
use crate::schema::SchemaVersion;
use arrow_array::RecordBatch;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;
use std::convert::Infallible;
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
    /// Gives `take` the rows of a batch, slice by slice as a table does; returns the spans that cannot
    /// be any.
    pub fn each_slice(
        &mut self,
        batch: &TraceBatch,
        mut take: impl FnMut(RecordBatch),
    ) -> Vec<Refusal> {
        self.convert(batch, Slice::CACHED, &mut take)
    }

    /// All rows of a batch at once, or none if no span can be one, and the spans that cannot.
    pub fn whole(&mut self, batch: &TraceBatch) -> (Option<RecordBatch>, Vec<Refusal>) {
        let mut all = None;
        let refused = self.convert(batch, Slice::ALL, &mut |rows| all = Some(rows));
        (all, refused)
    }

    fn convert(
        &mut self,
        batch: &TraceBatch,
        slice: Slice,
        take: &mut dyn FnMut(RecordBatch),
    ) -> Vec<Refusal> {
        let Ok(refused) = self.0.convert(batch, slice, |rows| {
            take(rows);
            Ok::<_, Infallible>(())
        });
        refused
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
