//! Tables of annotations as their readers see them: by the rules that Databricks documents.

use super::{Fault, any, column, files, optional_text, table, text};
use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, RecordBatch};
use opentelemetry::trace::TraceId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet_variant::Variant;
use std::collections::BTreeMap;
use std::path::Path;
use trace_destination_core::{AnyValue, TraceUpdate};

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Annotation {
    pub(crate) id: String,
    pub(crate) target: (String, String),
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) value: Option<AnyValue>,
    /// Of the columns for text, those that are not NULL besides.
    pub(crate) others: Vec<(&'static str, String)>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) deleted: bool,
}

/// Every row of the table in a folder, in no order.
pub(crate) async fn annotations(folder: &Path) -> Result<Vec<Annotation>, Fault> {
    let mut all = Vec::new();
    let Some(table) = table(folder).await? else {
        return Ok(all);
    };
    for file in files(&table)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?;
        for batch in reader.build()? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                all.push(annotation(&batch, row)?);
            }
        }
    }
    Ok(all)
}

fn annotation(batch: &RecordBatch, row: usize) -> Result<Annotation, Fault> {
    let of = |name: &str| column(batch, name);
    let time = |array: &ArrayRef| array.as_primitive::<TimestampMicrosecondType>().value(row);
    let mut others = Vec::new();
    for name in ["comment", "created_by", "updated_by", "deleted_by"] {
        others.extend(optional_text(of(name)?, row).map(|text| (name, text)));
    }
    assert!(of("metadata")?.is_null(row), "metadata of what was set");
    let value = of("value")?.as_struct();
    let bytes = |name: &str| -> Result<&[u8], Fault> {
        let field = value
            .column_by_name(name)
            .ok_or("a VARIANT has two fields")?;
        Ok(field.as_binary::<i32>().value(row))
    };
    Ok(Annotation {
        id: text(of("annotation_id")?, row)?,
        target: (text(of("target_type")?, row)?, text(of("target_id")?, row)?),
        kind: text(of("annotation_type")?, row)?,
        name: text(of("name")?, row)?,
        value: match value.is_null(row) {
            true => None,
            false => Some(any(&Variant::try_new(
                bytes("metadata")?,
                bytes("value")?,
            )?)?),
        },
        others,
        created_at: time(of("created_at")?),
        updated_at: time(of("updated_at")?),
        deleted: !of("deleted_at")?.is_null(row),
    })
}

/// What the rows say of each trace: of each annotation the newest row that is not deleted, and of the
/// values in rows of metadata the newest.
pub(crate) fn values(rows: &[Annotation]) -> Vec<TraceUpdate> {
    let mut newest: BTreeMap<&str, &Annotation> = BTreeMap::new();
    for row in rows {
        let kept = newest.entry(&row.id).or_insert(row);
        if row.updated_at > kept.updated_at {
            *kept = row;
        }
    }
    let mut rows: Vec<_> = newest.into_values().filter(|row| !row.deleted).collect();
    rows.sort_by_key(|row| row.updated_at);
    let mut traces: BTreeMap<&str, TraceUpdate> = BTreeMap::new();
    for row in rows {
        assert_eq!(row.target.0, "TRACE");
        let id = TraceId::from_hex(&row.target.1).unwrap();
        let trace = traces
            .entry(&row.target.1)
            .or_insert_with(|| TraceUpdate::new(id));
        take(trace, row);
    }
    traces.into_values().collect()
}

fn take(trace: &mut TraceUpdate, row: &Annotation) {
    let text = |value: &AnyValue| match value {
        AnyValue::String(text) => text.to_string(),
        other => panic!("{other:?} is no text"),
    };
    match (row.kind.as_str(), row.value.as_ref().unwrap()) {
        ("TAG", value) => drop(trace.tags.insert(row.name.clone(), text(value))),
        ("RUN_LINK", value) => {
            assert_eq!(row.name, "run_link");
            trace.run_id = Some(text(value));
        }
        ("METADATA", AnyValue::Map(object)) => {
            assert_eq!(row.name, "metadata");
            for entry in object {
                match (entry.key.as_str(), &entry.value) {
                    ("client_request_id", value) => trace.client_request_id = Some(text(value)),
                    ("request_preview", value) => trace.request_preview = Some(text(value)),
                    ("response_preview", value) => trace.response_preview = Some(text(value)),
                    ("trace_metadata", AnyValue::Map(all)) => {
                        for entry in all {
                            let value = text(&entry.value);
                            trace.metadata.insert(entry.key.as_str().to_owned(), value);
                        }
                    }
                    other => panic!("metadata has no {other:?}"),
                }
            }
        }
        other => panic!("there is no annotation {other:?}"),
    }
    for (key, slot) in [
        ("mlflow.trace.session", &mut trace.session_id),
        ("mlflow.trace.user", &mut trace.user_id),
    ] {
        *slot = trace.metadata.get(key).cloned();
    }
    trace.name = trace.tags.get("mlflow.traceName").cloned();
}
