//! Rows read back from Parquet by code that shares nothing with what wrote them: the reader of the
//! `parquet` crate, without our schema, and the decoder of `parquet-variant`.

use super::expected::double;
use crate::schema::SchemaVersion;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet_variant::Variant;
use serde_json::{Map, Value, json};

/// Writes rows as a table does, and reads the file.
pub(super) fn round_trip(batch: &RecordBatch, version: SchemaVersion) -> Vec<Value> {
    read(file(batch, version))
}

pub(super) fn file(batch: &RecordBatch, version: SchemaVersion) -> Bytes {
    let mut file = Vec::new();
    let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(
        &mut file,
        crate::schema::TableSchema::Spans(version).arrow(),
        options,
    )
    .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file.into()
}

fn read(file: Bytes) -> Vec<Value> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            let fields = batch.schema();
            let cells = fields.fields().iter().zip(batch.columns());
            let object: Map<String, Value> = cells
                .map(|(field, column)| (field.name().clone(), cell(column, row)))
                .collect();
            rows.push(Value::Object(object));
        }
    }
    rows
}

fn cell(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => {
            assert_eq!(&**zone, "UTC");
            column
                .as_primitive::<TimestampMicrosecondType>()
                .value(row)
                .into()
        }
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let epoch = jiff::civil::date(1970, 1, 1);
            let date = epoch.checked_add(jiff::Span::new().days(days)).unwrap();
            date.to_string().into()
        }
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(row);
            (0..values.len()).map(|i| cell(&values, i)).collect()
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let keys = entries.column(0).as_string::<i32>();
            let mut sorted: Vec<(String, Value)> = (0..entries.len())
                .map(|i| (keys.value(i).to_owned(), cell(entries.column(1), i)))
                .collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            assert!(
                sorted.windows(2).all(|w| w[0].0 != w[1].0),
                "a map repeats a key"
            );
            Value::Object(sorted.into_iter().collect())
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct();
            if fields[0].name() == "metadata" {
                assert_eq!(fields[1].name(), "value");
                assert!(!fields[0].is_nullable() && !fields[1].is_nullable());
                let metadata = columns.column(0).as_binary::<i32>().value(row);
                let value = columns.column(1).as_binary::<i32>().value(row);
                let variant = Variant::try_new(metadata, value).unwrap();
                return variant_cell(&variant.with_full_validation().unwrap());
            }
            let cells = fields.iter().zip(columns.columns());
            cells
                .map(|(field, column)| (field.name().clone(), cell(column, row)))
                .collect::<Map<_, _>>()
                .into()
        }
        other => panic!("no column has the type {other}"),
    }
}

fn variant_cell(variant: &Variant<'_, '_>) -> Value {
    match variant {
        Variant::Null => Value::Null,
        Variant::BooleanTrue => true.into(),
        Variant::BooleanFalse => false.into(),
        Variant::Int8(v) => (*v).into(),
        Variant::Int16(v) => (*v).into(),
        Variant::Int32(v) => (*v).into(),
        Variant::Int64(v) => (*v).into(),
        Variant::Double(v) => double(*v),
        Variant::Binary(v) => json!({"$bytes": STANDARD.encode(v)}),
        Variant::String(v) => (*v).into(),
        Variant::ShortString(v) => v.as_str().into(),
        Variant::List(v) => v.iter().map(|v| variant_cell(&v)).collect(),
        Variant::Object(v) => {
            let mut keys: Vec<&str> = v.iter().map(|(key, _)| key).collect();
            assert!(keys.is_sorted(), "fields stand in the order of their keys");
            keys.dedup();
            assert_eq!(keys.len(), v.len(), "an object repeats a key");
            for key in keys {
                assert!(v.get(key).is_some(), "`{key}` is found by its name");
            }
            v.iter()
                .map(|(key, value)| {
                    let dollar = if key.starts_with('$') { "$" } else { "" };
                    (format!("{dollar}{key}"), variant_cell(&value))
                })
                .collect::<Map<_, _>>()
                .into()
        }
        other => panic!("OTLP has no {other:?}"),
    }
}
