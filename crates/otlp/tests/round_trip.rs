//! What is encoded comes back as it was, whatever it was.

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use std::sync::Arc;
use trace_destination_core::{
    AnyValue, Attribute, Event, Link, Resource, Scope, Span, SpanGroup, SpanKind, SpanRecord,
    Status, StatusCode,
};
use trace_destination_otlp::{
    ResourceSpans, decode_json, decode_protobuf, encode_protobuf, sample,
};

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z.]{1,12}",
        vec(any::<char>(), 0..8).prop_map(String::from_iter),
    ]
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    any_text().prop_map(|t| (!t.is_empty()).then_some(t))
}

fn any_double() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(AnyValue::Empty),
        any::<bool>().prop_map(AnyValue::Bool),
        any::<i64>().prop_map(AnyValue::Int),
        any_double().prop_map(AnyValue::Double),
        any_text().prop_map(AnyValue::from),
        vec(any::<u8>(), 0..16).prop_map(AnyValue::Bytes),
    ];
    leaf.prop_recursive(6, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(AnyValue::Array),
            vec((any_text(), inner), 0..4).prop_map(|entries| AnyValue::Map(
                entries
                    .into_iter()
                    .map(|(k, v)| Attribute::new(k, v))
                    .collect()
            )),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec((any_text(), any_value()), 0..4).prop_map(|list| {
        list.into_iter()
            .map(|(k, v)| Attribute::new(k, v))
            .collect()
    })
}

fn event() -> impl Strategy<Value = Event> {
    (any_text(), any::<u64>(), attributes(), any::<u32>()).prop_map(
        |(name, time, attributes, n)| Event {
            name: name.into(),
            time_unix_nano: time,
            attributes,
            dropped_attributes_count: n,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    let ids = (any::<u128>(), any::<u64>(), any::<u32>());
    (ids, any_text(), attributes(), any::<u32>()).prop_map(
        |((trace_id, span_id, flags), trace_state, attributes, n)| Link {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
            trace_state,
            flags,
            attributes,
            dropped_attributes_count: n,
        },
    )
}

fn record() -> impl Strategy<Value = SpanRecord> {
    let identity = (1..=u128::MAX, 1..=u64::MAX, any::<u64>(), any::<u32>());
    let text = (any_text(), any_text(), any_text());
    let numbers = (any::<u64>(), any::<u64>(), 0..=5, 0_usize..=2);
    let dropped = (any::<u32>(), any::<u32>(), any::<u32>());
    let lists = (attributes(), vec(event(), 0..3), vec(link(), 0..3));
    (identity, text, numbers, dropped, lists).prop_map(
        |(
            (trace_id, span_id, parent, flags),
            (name, trace_state, message),
            (start, end, kind, code),
            dropped,
            (attributes, events, links),
        )| {
            let mut record = SpanRecord::new(
                TraceId::from(trace_id),
                SpanId::from(span_id),
                name,
                start,
                end,
            );
            record.parent_span_id = (parent % 2 == 1).then_some(SpanId::from(parent));
            record.flags = flags;
            record.trace_state = trace_state;
            record.kind = SpanKind::from_otlp(kind);
            record.attributes = attributes;
            record.dropped_attributes_count = dropped.0;
            record.events = events;
            record.dropped_events_count = dropped.1;
            record.links = links;
            record.dropped_links_count = dropped.2;
            record.status = Status {
                code: [StatusCode::Unset, StatusCode::Ok, StatusCode::Error][code],
                message: message.into(),
            };
            record
        },
    )
}

fn group() -> impl Strategy<Value = (Resource, Scope, Vec<SpanRecord>)> {
    let resource =
        (attributes(), any::<u32>(), some_text()).prop_map(|(attributes, n, url)| Resource {
            attributes,
            dropped_attributes_count: n,
            schema_url: url,
        });
    let scope = (
        any_text(),
        some_text(),
        some_text(),
        attributes(),
        any::<u32>(),
    )
        .prop_map(|(name, version, schema_url, attributes, n)| Scope {
            name,
            version,
            schema_url,
            attributes,
            dropped_attributes_count: n,
        });
    (resource, scope, vec(record(), 0..3))
}

fn groups() -> impl Strategy<Value = Vec<SpanGroup>> {
    // Neighbours share a resource or do not, by the flag.
    vec((group(), any::<bool>()), 0..4).prop_map(|list| {
        let mut groups: Vec<SpanGroup> = Vec::new();
        for ((resource, scope, spans), shares) in list {
            let resource = match groups.last() {
                Some(last) if shares => Arc::clone(&last.resource),
                _ => Arc::new(resource),
            };
            groups.push(SpanGroup {
                resource,
                scope: Arc::new(scope),
                spans: spans.into_iter().map(Span::from).collect(),
            });
        }
        groups
    })
}

fn assert_same(decoded: &[ResourceSpans], groups: &[SpanGroup]) {
    assert_eq!(decoded.len(), groups.len());
    for (d, g) in decoded.iter().zip(groups) {
        assert!(d.refused.is_empty(), "{:?}", d.refused);
        assert_eq!(d.resource, g.resource);
        assert_eq!(d.scope, g.scope);
        let records: Vec<_> = g.spans.iter().map(Span::to_record).collect();
        assert_eq!(d.spans, records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn protobuf(groups in groups()) {
        assert_same(&decode_protobuf(&encode_protobuf(&groups)).unwrap(), &groups);
    }

    #[test]
    fn json(groups in groups()) {
        let request = ExportTraceServiceRequest::decode(&*encode_protobuf(&groups)).unwrap();
        let json = serde_json::to_vec(&request).unwrap();
        assert_same(&decode_json(&json).unwrap(), &groups);
    }

    #[test]
    fn cut_or_changed_bytes_never_panic(cut in 0usize..4096, at in 0usize..4096, to: u8) {
        for mut bytes in [sample::generated().swap_remove(2), br#"{"resourceSpans":[]}"#.to_vec()] {
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            let _ = decode_protobuf(&bytes);
            let _ = decode_json(&bytes);
        }
    }
}

#[test]
fn generated_requests_encode_to_the_same_bytes_again() {
    for bytes in sample::generated() {
        let groups: Vec<_> = decode_protobuf(&bytes)
            .unwrap()
            .into_iter()
            .map(ResourceSpans::into_group)
            .collect();
        assert!(encode_protobuf(&groups) == bytes);
    }
}
