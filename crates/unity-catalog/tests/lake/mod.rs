//! Tables as their readers see them: the files the log names, by `deltalake`, read with `parquet`.
//! None of it is the writer's code.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and fails by panicking"
)]

mod annotations;

pub(crate) use annotations::{Annotation, annotations, values};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use deltalake::{DeltaTable, DeltaTableBuilder};
use opentelemetry::trace::{SpanId, TraceId};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet_variant::Variant;
use std::path::{Path, PathBuf};
use trace_destination_conformance::StoredSpan;
use trace_destination_core::{
    AnyValue, Attribute, Event, Link, Resource, Scope, SpanKind, SpanRecord, Status, StatusCode,
};
use url::Url;

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The table in a folder, as it is now; `None` if there is none.
pub(crate) async fn table(folder: &Path) -> Result<Option<DeltaTable>, Fault> {
    if !folder.join("_delta_log").exists() {
        return Ok(None);
    }
    let url = Url::from_directory_path(folder).map_err(|()| "not a folder")?;
    match DeltaTableBuilder::from_url(url)?.load().await {
        Ok(table) => Ok(Some(table)),
        // Its first version is being written.
        Err(deltalake::DeltaTableError::NotATable(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The files a table is made of.
pub(crate) fn files(table: &DeltaTable) -> Result<Vec<PathBuf>, Fault> {
    table
        .get_file_uris()?
        .map(|uri| match Url::parse(&uri) {
            Ok(url) if url.scheme() == "file" => {
                url.to_file_path().map_err(|()| "not a path".into())
            }
            _ => Ok(PathBuf::from(uri)),
        })
        .collect()
}

/// Every row of the table in a folder, one span each.
pub(crate) async fn spans(folder: &Path) -> Result<Vec<StoredSpan>, Fault> {
    let mut all = Vec::new();
    let Some(table) = table(folder).await? else {
        return Ok(all);
    };
    for file in files(&table)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?;
        for batch in reader.build()? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                all.push(span(&batch, row)?);
            }
        }
    }
    Ok(all)
}

/// Ids of every row, without the rest: quicker.
pub(crate) async fn ids(folder: &Path) -> Result<Vec<(String, String)>, Fault> {
    let mut all = Vec::new();
    let Some(table) = table(folder).await? else {
        return Ok(all);
    };
    for file in files(&table)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?;
        let columns = parquet::arrow::ProjectionMask::columns(
            reader.parquet_schema(),
            ["trace_id", "span_id"],
        );
        for batch in reader.with_projection(columns).build()? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                all.push((
                    text(column(&batch, "trace_id")?, row)?,
                    text(column(&batch, "span_id")?, row)?,
                ));
            }
        }
    }
    Ok(all)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Fault> {
    batch
        .column_by_name(name)
        .ok_or_else(|| format!("there is no column {name}").into())
}

fn text(array: &ArrayRef, row: usize) -> Result<String, Fault> {
    optional_text(array, row).ok_or_else(|| "a text is NULL".into())
}

fn optional_text(array: &ArrayRef, row: usize) -> Option<String> {
    (!array.is_null(row)).then(|| array.as_string::<i32>().value(row).to_owned())
}

fn count(array: &ArrayRef, row: usize) -> u32 {
    match array.is_null(row) {
        true => 0,
        false => array.as_primitive::<Int32Type>().value(row) as u32,
    }
}

fn nanos(array: &ArrayRef, row: usize) -> u64 {
    match array.is_null(row) {
        true => 0,
        false => array.as_primitive::<Int64Type>().value(row) as u64,
    }
}

fn field<'a>(of: &'a StructArray, name: &str) -> Result<&'a ArrayRef, Fault> {
    of.column_by_name(name)
        .ok_or_else(|| format!("there is no field {name}").into())
}

/// A bag of attributes, sorted by key: VARIANT keeps no order.
fn bag(array: &ArrayRef, row: usize) -> Result<Vec<Attribute>, Fault> {
    if array.is_null(row) {
        return Ok(Vec::new());
    }
    if let Some(map) = array.as_map_opt() {
        let entries = map.value(row);
        let (keys, values) = (entries.column(0), entries.column(1));
        let mut all = (0..entries.len())
            .map(|i| Ok(Attribute::new(text(keys, i)?, text(values, i)?)))
            .collect::<Result<Vec<_>, Fault>>()?;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        return Ok(all);
    }
    let variant = array.as_struct();
    let bytes =
        |name| -> Result<&[u8], Fault> { Ok(field(variant, name)?.as_binary::<i32>().value(row)) };
    let value = Variant::try_new(bytes("metadata")?, bytes("value")?)?;
    match any(&value)? {
        AnyValue::Map(entries) => Ok(entries),
        other => Err(format!("a bag of attributes is {other:?}").into()),
    }
}

fn any(value: &Variant<'_, '_>) -> Result<AnyValue, Fault> {
    Ok(match value {
        Variant::Null => AnyValue::Empty,
        Variant::BooleanTrue => AnyValue::Bool(true),
        Variant::BooleanFalse => AnyValue::Bool(false),
        Variant::Int8(v) => AnyValue::Int((*v).into()),
        Variant::Int16(v) => AnyValue::Int((*v).into()),
        Variant::Int32(v) => AnyValue::Int((*v).into()),
        Variant::Int64(v) => AnyValue::Int(*v),
        Variant::Double(v) => AnyValue::Double(*v),
        Variant::Binary(v) => AnyValue::Bytes(v.to_vec()),
        Variant::String(v) => AnyValue::String((*v).to_owned().into()),
        Variant::ShortString(v) => AnyValue::String(v.as_str().to_owned().into()),
        Variant::List(items) => {
            AnyValue::Array(items.iter().map(|i| any(&i)).collect::<Result<_, _>>()?)
        }
        Variant::Object(entries) => {
            let mut all = Vec::new();
            for (key, value) in entries.iter() {
                all.push(Attribute::new(key.to_owned(), any(&value)?));
            }
            all.sort_by(|a, b| a.key.cmp(&b.key));
            AnyValue::Map(all)
        }
        other => return Err(format!("attributes hold no {other:?}").into()),
    })
}

fn span(batch: &RecordBatch, row: usize) -> Result<StoredSpan, Fault> {
    let of = |name: &str| column(batch, name);
    let mut span = SpanRecord::new(
        TraceId::from_hex(&text(of("trace_id")?, row)?)?,
        SpanId::from_hex(&text(of("span_id")?, row)?)?,
        text(of("name")?, row)?,
        nanos(of("start_time_unix_nano")?, row),
        nanos(of("end_time_unix_nano")?, row),
    );
    span.parent_span_id = optional_text(of("parent_span_id")?, row)
        .map(|id| SpanId::from_hex(&id))
        .transpose()?;
    span.trace_state = optional_text(of("trace_state")?, row).unwrap_or_default();
    span.flags = count(of("flags")?, row);
    span.kind = match text(of("kind")?, row)?.as_str() {
        "SPAN_KIND_UNSPECIFIED" => SpanKind::Unspecified,
        "SPAN_KIND_INTERNAL" => SpanKind::Internal,
        "SPAN_KIND_SERVER" => SpanKind::Server,
        "SPAN_KIND_CLIENT" => SpanKind::Client,
        "SPAN_KIND_PRODUCER" => SpanKind::Producer,
        "SPAN_KIND_CONSUMER" => SpanKind::Consumer,
        other => return Err(format!("there is no kind {other}").into()),
    };
    span.attributes = bag(of("attributes")?, row)?;
    span.dropped_attributes_count = count(of("dropped_attributes_count")?, row);
    span.dropped_events_count = count(of("dropped_events_count")?, row);
    span.dropped_links_count = count(of("dropped_links_count")?, row);
    let events = of("events")?.as_list::<i32>().value(row);
    let events = events.as_struct();
    for i in 0..events.len() {
        span.events.push(Event {
            name: text(field(events, "name")?, i)?.into(),
            time_unix_nano: nanos(field(events, "time_unix_nano")?, i),
            attributes: bag(field(events, "attributes")?, i)?,
            dropped_attributes_count: count(field(events, "dropped_attributes_count")?, i),
        });
    }
    let links = of("links")?.as_list::<i32>().value(row);
    let links = links.as_struct();
    for i in 0..links.len() {
        span.links.push(Link {
            trace_id: TraceId::from_hex(&text(field(links, "trace_id")?, i)?)?,
            span_id: SpanId::from_hex(&text(field(links, "span_id")?, i)?)?,
            trace_state: optional_text(field(links, "trace_state")?, i).unwrap_or_default(),
            flags: count(field(links, "flags")?, i),
            attributes: bag(field(links, "attributes")?, i)?,
            dropped_attributes_count: count(field(links, "dropped_attributes_count")?, i),
        });
    }
    let status = of("status")?.as_struct();
    span.status = Status {
        code: match text(field(status, "code")?, row)?.as_str() {
            "STATUS_CODE_UNSET" => StatusCode::Unset,
            "STATUS_CODE_OK" => StatusCode::Ok,
            "STATUS_CODE_ERROR" => StatusCode::Error,
            other => return Err(format!("there is no status {other}").into()),
        },
        message: optional_text(field(status, "message")?, row)
            .unwrap_or_default()
            .into(),
    };
    let resource = of("resource")?.as_struct();
    let scope = of("instrumentation_scope")?.as_struct();
    Ok(StoredSpan {
        span,
        resource: Resource {
            attributes: bag(field(resource, "attributes")?, row)?,
            dropped_attributes_count: count(field(resource, "dropped_attributes_count")?, row),
            schema_url: optional_text(of("resource_schema_url")?, row),
        },
        scope: Scope {
            name: optional_text(field(scope, "name")?, row).unwrap_or_default(),
            version: optional_text(field(scope, "version")?, row),
            schema_url: optional_text(of("span_schema_url")?, row),
            attributes: bag(field(scope, "attributes")?, row)?,
            dropped_attributes_count: count(field(scope, "dropped_attributes_count")?, row),
        },
    })
}
