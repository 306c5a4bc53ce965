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
            let (found, refused) = rows_of(&mut rows, batch);
            assert!(refused.is_empty());
            assert_eq!(decode::round_trip(&found, version), stored(batch, version));
        }
    }
}

#[test]
fn slices_together_are_the_whole() {
    let agents = captured();
    // Several resources and scopes, so that slices end within groups and at their ends.
    let made: Vec<_> = sample::generated().iter().map(|r| groups_of(r)).collect();
    let all = made
        .iter()
        .chain([&agents])
        .flat_map(|b| b.groups().to_vec());
    let all = batch(all.collect());
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let whole = stored(&all, version);
        let mut rows = Rows::new(version);
        for (rows_each, bytes) in [(1, usize::MAX), (7, usize::MAX), (100, 20_000), (2, 1)] {
            let slice = Slice {
                rows: rows_each,
                bytes,
            };
            let (slices, refused) = slices_of(&mut rows, &all, slice);
            assert!(refused.is_empty());
            assert!(
                slices
                    .iter()
                    .all(|s| (1..=rows_each).contains(&s.num_rows()))
            );
            let together: Vec<_> = slices
                .iter()
                .flat_map(|slice| decode::round_trip(slice, version))
                .collect();
            assert_eq!(together, whole);
        }
    }
}

#[test]
fn a_refused_span_is_named_by_its_place_in_the_batch_whatever_the_slices() {
    let bad = || SpanRecord {
        start_time_unix_nano: u64::MAX,
        ..record()
    };
    let spans = vec![bad(), record(), record(), bad(), record(), bad(), bad()];
    let all = batch(vec![
        group(spans),
        group(vec![bad()]),
        group(vec![record(), bad()]),
    ]);
    let expected = [0, 3, 5, 6, 7, 9];
    for rows in [1, 2, 3, usize::MAX] {
        let slice = Slice {
            rows,
            bytes: usize::MAX,
        };
        let (slices, refused) = slices_of(&mut Rows::new(SchemaVersion::V2), &all, slice);
        assert_eq!(slices.iter().map(|s| s.num_rows()).sum::<usize>(), 4);
        assert!(slices.iter().all(|s| s.num_rows() > 0));
        let refused: Vec<_> = refused.iter().map(|r| r.index).collect();
        assert_eq!(refused, expected);
    }
}

#[test]
fn nothing_is_made_after_an_error() {
    let all = batch(vec![group(vec![record(), record(), record()])]);
    let mut calls = 0;
    let slice = Slice {
        rows: 1,
        bytes: usize::MAX,
    };
    let outcome = Rows::new(SchemaVersion::V2).convert(&all, slice, |_| {
        calls += 1;
        Err("full")
    });
    assert_eq!((outcome.unwrap_err(), calls), ("full", 1));
}

#[test]
fn no_rows_are_a_batch_too() {
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let empty = Rows::new(version).finish();
        assert_eq!(empty.num_rows(), 0);
        assert_eq!(
            empty.schema(),
            crate::schema::TableSchema::Spans(version).arrow()
        );
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
