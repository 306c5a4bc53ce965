//! What is refused, and values at the ends of what can be stored.

use super::*;
use parquet::file::reader::FileReader;
use trace_destination_core::{SpanKind, Status, StatusCode};

fn refusals(batch: &TraceBatch, version: SchemaVersion) -> Vec<Refusal> {
    let (rows, refused) = rows_of(&mut Rows::new(version), batch);
    // What was refused left nothing behind.
    assert_eq!(rows.num_rows() + refused.len(), batch.span_count());
    refused
}

/// What remains when the refused spans are taken out, compared with what was stored.
fn assert_rest_is_stored(all: &TraceBatch, refused: &[Refusal], version: SchemaVersion) {
    let (rows, _) = rows_of(&mut Rows::new(version), all);
    let found = decode::round_trip(&rows, version);
    let mut groups = all.groups().to_vec();
    let mut first = 0;
    for group in &mut groups {
        let mut index = first;
        first += group.spans.len();
        group.spans.retain(|_| {
            index += 1;
            !refused.iter().any(|r| r.index == index - 1)
        });
    }
    groups.retain(|g| !g.spans.is_empty());
    assert_eq!(found, stored(&batch(groups), version));
}

#[test]
fn times_beyond_the_columns_cost_their_span_alone() {
    let beyond = i64::MAX as u64 + 1;
    let mut late_end = record();
    late_end.end_time_unix_nano = beyond;
    let mut late_event = with_attributes(vec![Attribute::new("a", 1)]);
    late_event.events = vec![
        Event::default(),
        Event {
            time_unix_nano: u64::MAX,
            ..Event::default()
        },
    ];
    let mut latest = record();
    latest.start_time_unix_nano = i64::MAX as u64;
    latest.end_time_unix_nano = i64::MAX as u64;
    let mut late_start = record();
    late_start.start_time_unix_nano = beyond;
    let spans = vec![record(), late_start, late_end, latest, late_event, record()];
    let all = batch(vec![group(vec![record()]), group(spans)]);
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let refused = refusals(&all, version);
        let indexes: Vec<usize> = refused.iter().map(|r| r.index).collect();
        assert_eq!(indexes, [2, 3, 5]);
        assert!(
            refused
                .iter()
                .all(|r| r.error.kind() == ErrorKind::InvalidSpan)
        );
        assert!(
            refused[0]
                .error
                .to_string()
                .contains("start time, 9223372036854775808 ns")
        );
        assert!(refused[1].error.to_string().contains("end time"));
        assert!(refused[2].error.to_string().contains("event time"));
        assert_rest_is_stored(&all, &refused, version);
    }
}

fn nested(depth: usize) -> AnyValue {
    (0..depth).fold("bottom".into(), |value, i| {
        if i % 2 == 0 {
            AnyValue::Array(vec![value])
        } else {
            AnyValue::Map(vec![Attribute::new("down", value)])
        }
    })
}

#[test]
fn values_nested_too_deep_cost_their_span_alone_wherever_they_are() {
    let deep = || {
        vec![
            Attribute::new("first", 1),
            Attribute::new("deep", nested(101)),
        ]
    };
    let mut in_event = with_attributes(vec![Attribute::new("a", 1)]);
    in_event.events = vec![
        Event {
            attributes: vec![Attribute::new("b", 2)],
            ..Event::default()
        },
        Event {
            attributes: deep(),
            ..Event::default()
        },
    ];
    let mut in_link = record();
    in_link.links = vec![Link {
        trace_id: TraceId::from(1),
        span_id: SpanId::from(1),
        trace_state: String::new(),
        flags: 0,
        attributes: deep(),
        dropped_attributes_count: 0,
    }];
    let deepest = with_attributes(vec![Attribute::new("deep", nested(100))]);
    let spans = vec![
        deepest,
        with_attributes(deep()),
        in_event,
        record(),
        in_link,
    ];
    let all = batch(vec![group(spans)]);
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let refused = refusals(&all, version);
        assert_eq!(
            refused.iter().map(|r| r.index).collect::<Vec<_>>(),
            [1, 2, 4]
        );
        assert!(
            refused[0]
                .error
                .to_string()
                .contains("nested more than 100 deep")
        );
        assert_rest_is_stored(&all, &refused, version);
    }
}

#[test]
fn a_resource_that_cannot_be_stored_costs_the_spans_of_its_groups() {
    let bad = Arc::new(Resource {
        attributes: vec![Attribute::new("deep", nested(200))],
        ..Resource::default()
    });
    let mut poor = group(vec![record(), record()]);
    poor.resource = bad;
    let all = batch(vec![poor.clone(), group(vec![record()]), poor]);
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        let refused = refusals(&all, version);
        assert_eq!(
            refused.iter().map(|r| r.index).collect::<Vec<_>>(),
            [0, 1, 3, 4]
        );
        assert_rest_is_stored(&all, &refused, version);
    }
}

#[test]
fn attributes_larger_than_readers_take_cost_their_span_alone() {
    let large = |bytes: usize| with_attributes(vec![Attribute::new("large", "x".repeat(bytes))]);
    let all = batch(vec![group(vec![
        large(16 << 20),
        record(),
        large((16 << 20) - 64),
    ])]);
    let refused = refusals(&all, SchemaVersion::V2);
    assert_eq!(refused.iter().map(|r| r.index).collect::<Vec<_>>(), [0]);
    assert!(
        refused[0].error.to_string().contains("16777216"),
        "{}",
        refused[0].error
    );
    assert_rest_is_stored(&all, &refused, SchemaVersion::V2);
    assert!(
        refusals(&all, SchemaVersion::V1).is_empty(),
        "MAP has no such limit"
    );
}

#[test]
fn counts_saturate_and_flags_keep_their_bits() {
    let mut span = record();
    span.flags = 0xffff_fffe;
    span.dropped_attributes_count = u32::MAX;
    span.dropped_events_count = i32::MAX as u32;
    span.dropped_links_count = i32::MAX as u32 + 1;
    let row = &stored(&batch(vec![group(vec![span])]), SchemaVersion::V2)[0];
    assert_eq!(row["flags"], -2);
    assert_eq!(row["dropped_attributes_count"], i32::MAX);
    assert_eq!(row["dropped_events_count"], i32::MAX);
    assert_eq!(row["dropped_links_count"], i32::MAX);
}

#[test]
fn what_a_span_does_not_say_is_null_or_empty_as_documented() {
    let row = &stored(&batch(vec![group(vec![record()])]), SchemaVersion::V2)[0];
    for null in [
        "service_name",
        "trace_state",
        "parent_span_id",
        "resource_schema_url",
        "span_schema_url",
    ] {
        assert_eq!(row[null], Value::Null, "{null}");
    }
    assert_eq!(row["status"]["message"], Value::Null);
    assert_eq!(row["status"]["code"], "STATUS_CODE_UNSET");
    assert_eq!(row["instrumentation_scope"]["name"], Value::Null);
    assert_eq!(row["instrumentation_scope"]["version"], Value::Null);
    for empty in ["events", "links"] {
        assert_eq!(row[empty], serde_json::json!([]), "{empty}");
    }
    assert_eq!(row["attributes"], serde_json::json!({}));
    assert_eq!(row["resource"]["attributes"], serde_json::json!({}));
    assert_eq!(row["date"], "1970-01-01");
    assert_eq!(row["time"], 1_000);
}

#[test]
fn every_kind_and_outcome_has_protobufs_name() {
    let mut spans = Vec::new();
    for number in 0..6 {
        let mut span = record();
        span.kind = SpanKind::from_otlp(number);
        span.status = Status {
            code: [StatusCode::Unset, StatusCode::Ok, StatusCode::Error][number as usize % 3],
            message: "why".into(),
        };
        spans.push(span);
    }
    assert_stored(&batch(vec![group(spans)]), SchemaVersion::V2);
}

/// Large and wide values, whose headers have other widths: more than 255 entries, offsets of one to
/// three bytes, ids of two.
#[test]
fn containers_of_every_size_are_stored() {
    for count in [0, 1, 2, 127, 128, 255, 256, 257, 70_000] {
        let list: Vec<AnyValue> = (0..count).map(|i| AnyValue::Int(i * 1_000)).collect();
        let flat: Vec<Attribute> = (0..count.min(3_000))
            .map(|i| Attribute::new(format!("key-{}", i * 7_919 % 3_000), i))
            .collect();
        let nested = vec![
            Attribute::new("map", AnyValue::Map(flat.clone())),
            Attribute::new(
                "maps",
                AnyValue::Array(vec![AnyValue::Map(flat.clone()); 2]),
            ),
            Attribute::new("list", AnyValue::Array(list)),
        ];
        assert_stored(
            &batch(vec![group(vec![
                with_attributes(flat),
                with_attributes(nested),
            ])]),
            SchemaVersion::V2,
        );
    }
    for length in [
        0,
        1,
        63,
        64,
        252,
        253,
        254,
        255,
        256,
        65_530,
        65_540,
        17_000_000 / 2,
    ] {
        let text = || AnyValue::from("\u{e9}".repeat(length / 2) + &"x".repeat(length % 2));
        let span = with_attributes(vec![
            Attribute::new("text", text()),
            Attribute::new("bytes", AnyValue::Bytes(vec![0xff; length.min(70_000)])),
            Attribute::new(
                "list",
                AnyValue::Array(vec![AnyValue::Empty, text(), 1.into()]),
            ),
        ]);
        let all = batch(vec![group(vec![span])]);
        if length < 1_000_000 {
            assert_stored(&all, SchemaVersion::V2);
        } else {
            assert_eq!(refusals(&all, SchemaVersion::V2).len(), 1, "twice 8.5 MB");
        }
    }
}

#[test]
fn integers_take_as_few_bytes_as_they_need_and_come_back() {
    let mut values = vec![0];
    for bits in 0..63 {
        values.extend([
            1_i64 << bits,
            (1 << bits) - 1,
            -(1 << bits),
            -(1 << bits) - 1,
        ]);
    }
    values.extend([i64::MIN, i64::MAX]);
    let attributes = values
        .iter()
        .map(|v| Attribute::new(format!("{v}"), *v))
        .collect();
    assert_stored(
        &batch(vec![group(vec![with_attributes(attributes)])]),
        SchemaVersion::V2,
    );
}

#[test]
fn of_repeated_keys_the_last_value_is_stored_alone() {
    let large = "x".repeat(300);
    let span = with_attributes(vec![
        Attribute::new("b", large.clone()),
        Attribute::new("a", 1),
        Attribute::new("b", 2),
        Attribute::new(
            "map",
            AnyValue::Map(vec![
                Attribute::new("k", large),
                Attribute::new("b", true),
                Attribute::new("k", "last"),
            ]),
        ),
        Attribute::new("a", "last"),
    ]);
    let all = batch(vec![group(vec![span])]);
    for version in [SchemaVersion::V1, SchemaVersion::V2] {
        assert_stored(&all, version);
    }
    let (rows, _) = rows_of(&mut Rows::new(SchemaVersion::V2), &all);
    let size = decode::file(&rows, SchemaVersion::V2);
    assert!(
        !size.windows(300).any(|w| w.iter().all(|b| *b == b'x')),
        "no trace of the first"
    );
}

#[test]
fn the_file_holds_plain_groups_and_no_schema_of_arrow() {
    let one = batch(vec![group(vec![record()])]);
    let (rows, _) = rows_of(&mut Rows::new(SchemaVersion::V2), &one);
    let file = decode::file(&rows, SchemaVersion::V2);
    let reader = parquet::file::reader::SerializedFileReader::new(file).unwrap();
    let metadata = reader.metadata().file_metadata();
    assert!(
        metadata
            .key_value_metadata()
            .is_none_or(|kv| { kv.iter().all(|kv| kv.key != "ARROW:schema") })
    );
    let mut schema = Vec::new();
    parquet::schema::printer::print_schema(&mut schema, metadata.schema());
    let schema = String::from_utf8(schema).unwrap();
    let expected = "  OPTIONAL group attributes {\n    REQUIRED BYTE_ARRAY metadata;\n    REQUIRED \
                    BYTE_ARRAY value;\n  }\n";
    assert!(schema.contains(expected), "{schema}");
    assert!(
        schema.contains("OPTIONAL INT64 time (TIMESTAMP(MICROS,true));"),
        "{schema}"
    );
    assert!(schema.contains("OPTIONAL INT32 date (DATE);"), "{schema}");
    assert!(
        schema.contains("OPTIONAL BYTE_ARRAY kind (STRING);"),
        "{schema}"
    );
    assert!(
        schema.contains("REPEATED group list {\n      OPTIONAL group element {"),
        "{schema}"
    );
}

#[test]
fn what_is_kept_between_batches_is_bounded() {
    let mut rows = Rows::new(SchemaVersion::V2);
    assert!(
        rows.bytes() < 4 << 10,
        "{} bytes for a table without spans",
        rows.bytes()
    );
    for i in 0..50 {
        let spans = (0..200)
            .map(|j| {
                with_attributes(vec![Attribute::new(
                    format!("key-{i}-{j}"),
                    "x".repeat(500),
                )])
            })
            .collect();
        let (made, _) = rows_of(&mut rows, &batch(vec![group(spans)]));
        assert!(made.get_array_memory_size() > 200 * 500);
        assert!(
            rows.bytes() < 200 << 10,
            "{} bytes after batch {i}",
            rows.bytes()
        );
    }
}
