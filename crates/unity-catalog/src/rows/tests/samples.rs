//! The captured and the made traces, in both shapes.

use super::*;
use trace_destination_otlp::{decode_protobuf, sample};

fn captured() -> TraceBatch {
    groups_of(sample::captured())
}

fn groups_of(request: &[u8]) -> TraceBatch {
    let groups = decode_protobuf(request).unwrap().into_iter();
    batch(groups.map(|g| g.into_group()).collect())
}

#[test]
fn captured_traces_are_stored_as_they_are() {
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let batch = captured();
        assert_eq!(batch.span_count(), 252);
        assert_stored(&batch, version);
    }
}

#[test]
fn made_traces_are_stored_as_they_are() {
    for request in sample::generated() {
        for version in [SchemaVersion::V1, SchemaVersion::V2] {
            assert_stored(&groups_of(&request), version);
        }
    }
}

#[test]
fn rows_are_reused_from_batch_to_batch() {
    let (one, two) = (captured(), groups_of(&sample::generated()[0]));
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let mut rows = Rows::new(version);
        for batch in [&one, &two, &one, &two] {
            assert!(rows.append(batch).is_empty());
            assert_eq!(
                decode::round_trip(&rows.finish(), version),
                stored(batch, version)
            );
            assert_eq!(rows.len(), 0);
        }
        // Several batches in one.
        rows.append(&one);
        rows.append(&two);
        let both = decode::round_trip(&rows.finish(), version);
        assert_eq!(both[..252], stored(&one, version));
        assert_eq!(both[252..], stored(&two, version));
    }
}

#[test]
fn no_rows_are_a_batch_too() {
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let empty = Rows::new(version).finish();
        assert_eq!(empty.num_rows(), 0);
        assert_eq!(empty.schema(), version.arrow());
    }
}

#[test]
fn spans_of_the_sdk_become_the_rows_that_their_records_become() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry::{Array, KeyValue};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let tracer = provider.tracer("sdk");
    let attributes = vec![
        KeyValue::new("text", "value"),
        KeyValue::new("int", i64::MAX),
        KeyValue::new("double", 0.5),
        KeyValue::new("bool", true),
        KeyValue::new(
            "bools",
            opentelemetry::Value::Array(Array::Bool(vec![true, false])),
        ),
        KeyValue::new("ints", opentelemetry::Value::Array(Array::I64(vec![]))),
        KeyValue::new(
            "doubles",
            opentelemetry::Value::Array(Array::F64(vec![f64::NAN, -0.0])),
        ),
        KeyValue::new(
            "texts",
            opentelemetry::Value::Array(Array::String(vec!["a".into(), "b".into()])),
        ),
    ];
    let builder = tracer
        .span_builder("work")
        .with_attributes(attributes.clone());
    let mut span = builder.start(&tracer);
    opentelemetry::trace::Span::add_event(&mut span, "event", attributes);
    drop(span);
    let spans: Vec<Span> = exporter
        .get_finished_spans()
        .unwrap()
        .into_iter()
        .map(Span::from)
        .collect();
    assert!(!spans[0].is_ingested());
    let mut group = group(Vec::new());
    group.spans = spans;
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        assert_stored(&batch(vec![group.clone()]), version);
    }
}
