//! Spans as rows: a batch of traces becomes Arrow record batches of a spans table. What is said of a
//! trace as a whole becomes those of a table of annotations (`annotation`).
//!
//! ```text
//! TraceBatch ── group by group ──▶ resource, scope: converted once, places repeated per row
//!            └─ span by span ────▶ columns of numbers, text, VARIANT bytes ──▶ RecordBatches
//! ```
//!
//! What a row says, where the documented tables leave it open:
//!
//! - NULL is what OTLP leaves empty: `parent_span_id` of a root, `trace_state`, schema URLs,
//!   `status.message`, name and version of the instrumentation scope; and `service_name` where the
//!   resource has none that is text. Names of spans and events are never NULL. Lists without events
//!   or links are empty, and so are bags without attributes (`{}`).
//! - Of a key that repeats in a bag, or in a map inside of one, the last value is kept.
//! - Attributes keep their kind: an unset value is VARIANT's null, bytes are its binary, doubles
//!   stay doubles, also NaN and the infinities. In a table of version 1 they are
//!   [text].
//! - `flags` are the same 32 bits as a signed number. Counts above 2,147,483,647 are that number.
//! - `time` is the start, rounded down to microseconds, and `date` its day in UTC.
//! - `record_id` orders by the start, and is the same when the same span is stored again.
//!
//! A span is refused alone, with its reason, where a time is beyond 64 signed bits of nanoseconds
//! (the year 2262), a value is nested more than 100 deep, or its attributes are larger than the
//! 16 MiB that readers of VARIANT take.

mod annotation;
mod bag;
mod column;
mod fault;
mod group;
mod identity;
mod keys;
mod span;
mod text;
mod variant;

pub(crate) use annotation::Annotations;

use crate::schema::{SchemaVersion, TableSchema};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bag::{Dictionaries, Shared};
use group::GroupColumns;
use span::SpanColumns;
use trace_destination_core::{Refusal, TraceBatch};

/// The resource attribute that names the service (OpenTelemetry semantic conventions, Service).
const SERVICE_NAME: &str = "service.name";

/// Builds the rows of a table, batch after batch. Between batches it keeps what it learned of the
/// attributes' keys, at most some 128 KiB, and how large its columns were.
#[derive(Debug)]
pub(crate) struct Rows {
    schema: SchemaRef,
    shared: Shared,
    groups: GroupColumns,
    spans: SpanColumns,
}

impl Rows {
    /// Rows of a table of this version; none yet.
    pub(crate) fn new(version: SchemaVersion) -> Self {
        Self {
            schema: TableSchema::Spans(version).arrow(),
            shared: Shared::default(),
            groups: GroupColumns::new(version),
            spans: SpanColumns::new(version),
        }
    }

    /// Makes the rows of a batch, slice by slice, each with the schema [`TableSchema::arrow`] and at
    /// least one row. Gives the spans that cannot be rows, by their position in
    /// [`TraceBatch::spans`], with the reason.
    ///
    /// # Errors
    /// The first of `take`, which gets no slice after it.
    pub(crate) fn convert<E>(
        &mut self,
        batch: &TraceBatch,
        slice: Slice,
        take: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Vec<Refusal>, E> {
        self.convert_some(batch, slice, |_| true, take)
    }

    /// The same, of the spans whose position is `wanted` alone.
    ///
    /// # Errors
    /// As for [`Self::convert`].
    pub(crate) fn convert_some<E>(
        &mut self,
        batch: &TraceBatch,
        slice: Slice,
        wanted: impl Fn(usize) -> bool,
        mut take: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Vec<Refusal>, E> {
        let mut refused = Vec::new();
        let mut index = 0;
        for group in batch.groups() {
            let mut fault = self.groups.prepare(group, &mut self.shared).err();
            let mut taken = 0;
            for span in &group.spans {
                if !wanted(index) {
                    index += 1;
                    continue;
                }
                let outcome = match &fault {
                    None => self.spans.append(span, &mut self.shared),
                    Some(fault) => Err(fault.clone()),
                };
                match outcome {
                    Ok(()) => taken += 1,
                    Err(fault) => refused.push(Refusal {
                        index,
                        error: fault.of(span),
                    }),
                }
                index += 1;
                if slice.is_full(&self.spans) {
                    self.groups.repeat(group, std::mem::take(&mut taken));
                    take(self.finish())?;
                    // What it refers to went with the slice.
                    fault = self.groups.prepare(group, &mut self.shared).err();
                }
            }
            self.groups.repeat(group, taken);
        }
        if self.spans.len() > 0 {
            take(self.finish())?;
        }
        Ok(refused)
    }

    /// Memory held, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.bytes() + self.groups.bytes() + self.spans.bytes()
    }

    /// The rows so far; none are left.
    fn finish(&mut self) -> RecordBatch {
        let from = Dictionaries {
            blobs: self.shared.blobs.finish(),
            terms: self.shared.terms.finish(),
        };
        self.shared.variants.next_batch();
        let kind = |name: &str| {
            let field = self.schema.field_with_name(name);
            field.expect("the schema has all columns").data_type()
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        self.spans
            .finish_added(&mut columns, || self.groups.finish_service_name(&from));
        let nested = ["attributes", "events", "links", "status"].map(kind);
        self.spans.finish(nested, &mut columns, &from);
        columns.extend(
            self.groups
                .finish([kind("resource"), kind("instrumentation_scope")], &from),
        );
        RecordBatch::try_new(self.schema.clone(), columns)
            .expect("the columns are those of the schema, and equally long")
    }
}

/// How much of a batch becomes one record batch: whichever is reached first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    rows: usize,
    /// Of the spans' own attributes, which is most of what a row holds.
    bytes: usize,
}

impl Slice {
    /// What stays in a processor's cache between its conversion and its encoding, and is large
    /// enough not to show in what encoding costs: by measurement.
    pub(crate) const CACHED: Self = Self {
        rows: 2048,
        bytes: 1 << 20,
    };
    /// Everything at once.
    pub(crate) const ALL: Self = Self {
        rows: usize::MAX,
        bytes: usize::MAX,
    };

    fn is_full(self, spans: &SpanColumns) -> bool {
        spans.len() >= self.rows || spans.value_bytes() >= self.bytes
    }
}

/// A count as a signed number.
fn saturated(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
