use super::*;
use crate::schema::SchemaVersion;
use opentelemetry::trace::{SpanId, TraceId};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use trace_destination_core::{
    AnyValue, Attribute, BatchId, ErrorKind, Event, Link, Resource, Scope, Span, SpanGroup,
    SpanRecord,
};

mod arbitrary;
mod decode;
mod edges;
#[path = "../../../tests/support/expected_rows.rs"]
mod expected;
mod samples;

fn batch(groups: Vec<SpanGroup>) -> TraceBatch {
    let id = BatchId {
        writer: uuid::Uuid::nil(),
        sequence: 1,
    };
    TraceBatch::new(id, groups, Vec::new())
}

fn group(spans: Vec<SpanRecord>) -> SpanGroup {
    SpanGroup {
        resource: Arc::default(),
        scope: Arc::default(),
        spans: spans.into_iter().map(Span::from).collect(),
    }
}

fn record() -> SpanRecord {
    SpanRecord::new(
        TraceId::from(7),
        SpanId::from(8),
        "span",
        1_000_000,
        2_000_000,
    )
}

/// The rows of a batch, all at once, and what was refused.
fn rows_of(rows: &mut Rows, batch: &TraceBatch) -> (RecordBatch, Vec<Refusal>) {
    let mut slices = slices_of(rows, batch, Slice::ALL);
    assert!(slices.0.len() <= 1);
    (slices.0.pop().unwrap_or_else(|| rows.finish()), slices.1)
}

/// The rows of a batch in slices, and what was refused.
fn slices_of(
    rows: &mut Rows,
    batch: &TraceBatch,
    slice: Slice,
) -> (Vec<RecordBatch>, Vec<Refusal>) {
    let mut slices = Vec::new();
    let Ok(refused) = rows.convert(batch, slice, |rows| {
        slices.push(rows);
        Ok::<_, Infallible>(())
    });
    assert_eq!(rows.spans.len(), 0);
    (slices, refused)
}

fn with_attributes(attributes: Vec<Attribute>) -> SpanRecord {
    SpanRecord {
        attributes,
        ..record()
    }
}

/// What a Parquet file of the batch holds, with nothing refused.
fn stored(batch: &TraceBatch, version: SchemaVersion) -> Vec<Value> {
    let (rows, refused) = rows_of(&mut Rows::new(version), batch);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(rows.num_rows(), batch.span_count());
    decode::round_trip(&rows, version)
}

/// Compares what is stored with what is expected, as text: doubles keep the sign of their zero.
fn assert_stored(batch: &TraceBatch, version: SchemaVersion) {
    let number = match version {
        SchemaVersion::V1 => 1,
        SchemaVersion::V2 => 2,
    };
    let expected: Vec<Value> = batch
        .groups()
        .iter()
        .flat_map(|g| expected::expected_rows(g, number))
        .collect();
    let found = stored(batch, version);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.to_string(), expected.to_string());
    }
}
