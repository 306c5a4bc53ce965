//! Any span that OTLP can say.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use trace_destination_core::{SpanKind, Status, StatusCode};

fn key() -> impl Strategy<Value = String> {
    // Few keys, so that they repeat; and any.
    prop_oneof![
        4 => "[a-c]{0,2}",
        1 => "\\PC{0,20}",
        1 => "\\$[a-z]{0,5}",
    ]
}

fn scalar() -> impl Strategy<Value = AnyValue> {
    prop_oneof![
        Just(AnyValue::Empty),
        any::<bool>().prop_map(AnyValue::Bool),
        any::<i64>().prop_map(AnyValue::Int),
        any::<i16>().prop_map(|v| AnyValue::Int(v.into())),
        any::<f64>().prop_map(AnyValue::Double),
        Just(AnyValue::Double(f64::NAN)),
        Just(AnyValue::Double(f64::NEG_INFINITY)),
        "\\PC{0,80}".prop_map(AnyValue::from),
        vec(any::<u8>(), 0..80).prop_map(AnyValue::Bytes),
    ]
}

fn value() -> impl Strategy<Value = AnyValue> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(AnyValue::Array),
            vec((key(), inner), 0..6).prop_map(|entries| AnyValue::Map(attributes(entries))),
        ]
    })
}

fn attributes(entries: Vec<(String, AnyValue)>) -> Vec<Attribute> {
    entries
        .into_iter()
        .map(|(k, v)| Attribute::new(k, v))
        .collect()
}

fn bag() -> impl Strategy<Value = Vec<Attribute>> {
    vec((key(), value()), 0..8).prop_map(attributes)
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..=i64::MAX as u64, Just(0), Just(i64::MAX as u64)]
}

fn event() -> impl Strategy<Value = Event> {
    ("\\PC{0,10}", time(), bag(), any::<u32>()).prop_map(|(name, time, attributes, dropped)| {
        Event {
            name: name.into(),
            time_unix_nano: time,
            attributes,
            dropped_attributes_count: dropped,
        }
    })
}

fn link() -> impl Strategy<Value = Link> {
    (
        any::<u128>(),
        any::<u64>(),
        "[a-z=]{0,9}",
        any::<u32>(),
        bag(),
        any::<u32>(),
    )
        .prop_map(
            |(trace, span, trace_state, flags, attributes, dropped)| Link {
                trace_id: TraceId::from(trace),
                span_id: SpanId::from(span),
                trace_state,
                flags,
                attributes,
                dropped_attributes_count: dropped,
            },
        )
}

fn span() -> impl Strategy<Value = SpanRecord> {
    let identity = (
        any::<u128>(),
        any::<u64>(),
        proptest::option::of(any::<u64>()),
    );
    let times = (time(), time());
    let words = (
        "\\PC{0,20}",
        "[a-z=,]{0,9}",
        "\\PC{0,9}",
        0..6_i32,
        0..3_usize,
    );
    let counts = any::<[u32; 4]>();
    let parts = (bag(), vec(event(), 0..3), vec(link(), 0..3));
    (identity, times, words, counts, parts).prop_map(
        |((trace, span, parent), (start, end), words, counts, (attributes, events, links))| {
            let (name, trace_state, message, kind, code) = words;
            let mut record =
                SpanRecord::new(TraceId::from(trace), SpanId::from(span), name, start, end);
            record.parent_span_id = parent.map(SpanId::from);
            record.trace_state = trace_state;
            record.kind = SpanKind::from_otlp(kind);
            record.status = Status {
                code: [StatusCode::Unset, StatusCode::Ok, StatusCode::Error][code],
                message: message.into(),
            };
            [
                record.flags,
                record.dropped_attributes_count,
                record.dropped_events_count,
                record.dropped_links_count,
            ] = counts;
            record.attributes = attributes;
            record.events = events;
            record.links = links;
            record
        },
    )
}

fn any_group() -> impl Strategy<Value = SpanGroup> {
    let url = || proptest::option::of("[a-z:/]{0,9}");
    let resource = (
        bag(),
        any::<u32>(),
        url(),
        proptest::option::of("[a-z]{0,5}"),
    );
    let scope = ("[a-z]{0,5}", url(), url(), bag(), any::<u32>());
    (resource, scope, vec(span(), 1..4)).prop_map(|(resource, scope, spans)| {
        let (mut attributes, dropped, schema_url, service) = resource;
        attributes.extend(service.map(|name| Attribute::new("service.name", name)));
        SpanGroup {
            resource: Arc::new(Resource {
                attributes,
                dropped_attributes_count: dropped,
                schema_url,
            }),
            scope: Arc::new(Scope {
                name: scope.0,
                version: scope.1,
                schema_url: scope.2,
                attributes: scope.3,
                dropped_attributes_count: scope.4,
            }),
            spans: spans.into_iter().map(Span::from).collect(),
        }
    })
}

proptest! {
    // A file is written for each case, which takes a while without optimization.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_batch_is_stored_as_it_is(groups in vec(any_group(), 1..8)) {
        let batch = batch(groups);
        for version in [SchemaVersion::V1, SchemaVersion::V2] {
            assert_stored(&batch, version);
        }
    }

    #[test]
    fn any_bags_in_a_row_do_not_disturb_each_other(bags in vec(bag(), 1..60)) {
        let spans = bags.into_iter().map(with_attributes).collect();
        assert_stored(&batch(vec![group(spans)]), SchemaVersion::V2);
    }
}
