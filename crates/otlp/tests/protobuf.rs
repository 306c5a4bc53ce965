//! Protobuf as nobody should write it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Link};
use prost::Message;
use std::error::Error as _;
use trace_destination_core::{AnyValue as Decoded, ErrorKind, SpanKind, StatusCode};
use trace_destination_otlp::decode_protobuf;

fn good() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "good".into(),
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> Vec<u8> {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

fn attribute(value: AnyValue) -> Span {
    Span {
        attributes: vec![KeyValue {
            key: "k".into(),
            value: Some(value),
            key_strindex: 0,
        }],
        ..good()
    }
}

#[test]
fn a_bad_span_is_refused_alone_and_says_why() {
    let with = |f: fn(&mut Span)| {
        let mut span = good();
        span.name = "bad".into();
        f(&mut span);
        span
    };
    for (span, says) in [
        (
            with(|s| s.trace_id.clear()),
            "the trace id is missing or all zero",
        ),
        (
            with(|s| s.span_id.clear()),
            "the span id is missing or all zero",
        ),
        (
            with(|s| s.trace_id = vec![0; 16]),
            "the trace id is missing or all zero",
        ),
        (
            with(|s| s.span_id = vec![0; 8]),
            "the span id is missing or all zero",
        ),
        (
            with(|s| s.trace_id = vec![1; 8]),
            "the trace id has 8 bytes instead of 16",
        ),
        (
            with(|s| s.span_id = vec![1; 9]),
            "the span id has 9 bytes instead of 8",
        ),
        (
            with(|s| s.parent_span_id = vec![1]),
            "the parent span id has 1 bytes instead of 8",
        ),
        (
            with(|s| {
                s.start_time_unix_nano = 1;
                s.trace_id = vec![1; 17];
            }),
            "the trace id has 17 bytes instead of 16",
        ),
    ] {
        let groups = decode_protobuf(&request(vec![good(), span, good()])).unwrap();
        assert_eq!(groups[0].spans.len(), 2);
        assert_eq!(groups[0].refused[0].index, 1);
        let error = &groups[0].refused[0].error;
        assert_eq!(error.kind(), ErrorKind::InvalidSpan);
        assert_eq!(error.to_string(), format!("decode OTLP span `bad`: {says}"));
    }
}

#[test]
fn text_that_is_not_utf8_costs_nothing_else() {
    let mut span = good();
    span.name = "#name".into();
    span.trace_state = "#state".into();
    span.status = Some(Status {
        code: 2,
        message: "#status".into(),
    });
    span.attributes = attribute(AnyValue {
        value: Some(Value::StringValue("#value".into())),
    })
    .attributes;
    let mut request = ExportTraceServiceRequest::decode(&*request(vec![span, good()])).unwrap();
    let part = &mut request.resource_spans[0];
    part.schema_url = "#url".into();
    let key_value = KeyValue {
        key: "#key".into(),
        ..KeyValue::default()
    };
    part.resource.get_or_insert_default().attributes = vec![key_value];
    part.scope_spans[0].schema_url = "#url".into();
    part.scope_spans[0].scope.get_or_insert_default().name = "#scope".into();
    let bytes: Vec<u8> = request.encode_to_vec();
    let bytes: Vec<u8> = bytes
        .into_iter()
        .map(|b| if b == b'#' { 0xff } else { b })
        .collect();
    let groups = decode_protobuf(&bytes).unwrap();
    let group = &groups[0];
    assert!(
        group.refused.is_empty() && group.faults.is_empty(),
        "{group:?}"
    );
    assert_eq!(group.resource.attributes[0].key.as_str(), "\u{fffd}key");
    assert_eq!(group.resource.schema_url.as_deref(), Some("\u{fffd}url"));
    assert_eq!(group.scope.name, "\u{fffd}scope");
    assert_eq!(group.scope.schema_url.as_deref(), Some("\u{fffd}url"));
    let span = &group.spans[0];
    assert_eq!(span.name, "\u{fffd}name");
    assert_eq!(span.trace_state, "\u{fffd}state");
    assert_eq!(span.status.message, "\u{fffd}status");
    assert_eq!(span.status.code, StatusCode::Error);
    assert_eq!(
        span.attributes[0].value,
        Decoded::from("\u{fffd}value".to_owned())
    );
    assert_eq!(group.spans[1].name, "good");
}

/// Python's decoder takes such a field for an unknown one.
#[test]
fn a_field_of_another_wire_type_is_passed_over() {
    let mut span = good().encode_to_vec();
    // The kind as a text, the start as a number, the attributes as one.
    prost::encoding::string::encode(6, &"SERVER".to_owned(), &mut span);
    prost::encoding::uint64::encode(7, &5, &mut span);
    prost::encoding::uint64::encode(9, &5, &mut span);
    prost::encoding::fixed64::encode(8, &6, &mut span);
    let scope = wrap(2, &span);
    let mut part = wrap(2, &scope);
    prost::encoding::uint64::encode(1, &5, &mut part);
    let groups = decode_protobuf(&wrap(1, &part)).unwrap();
    let span = &groups[0].spans[0];
    assert_eq!(
        (span.kind, span.end_time_unix_nano),
        (SpanKind::Unspecified, 6)
    );
    assert!(span.attributes.is_empty() && groups[0].faults.is_empty());
}

fn wrap(field: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(field, &content.to_vec(), &mut bytes);
    bytes
}

#[test]
fn a_bad_part_costs_no_other() {
    let span = good().encode_to_vec();
    let scope = |before: &[u8], after: &[u8]| [before, &wrap(2, &span), after].concat();
    let part = |before: &[u8], after: &[u8]| [before, &wrap(2, &scope(b"", b"")), after].concat();
    let fine = wrap(1, &part(b"", b""));
    for (bad, at, spans) in [
        (b"hello".to_vec(), "resourceSpans[1]", 2),
        (
            part(&wrap(1, b"hello"), b""),
            "resourceSpans[1].resource",
            3,
        ),
        (part(b"", b"\xff"), "resourceSpans[1]", 3),
        (
            wrap(2, &scope(&wrap(1, b"hello"), b"")),
            "resourceSpans[1].scopeSpans[0].scope",
            3,
        ),
        (
            wrap(2, &scope(b"", b"\xff")),
            "resourceSpans[1].scopeSpans[0]",
            3,
        ),
        (
            [wrap(2, b"hello"), part(b"", b"")].concat(),
            "resourceSpans[1].scopeSpans[0]",
            3,
        ),
    ] {
        let bytes = [&fine[..], &wrap(1, &bad), &fine].concat();
        let groups = decode_protobuf(&bytes).unwrap();
        let faults: Vec<_> = groups.iter().flat_map(|g| &g.faults).collect();
        assert_eq!(faults.len(), 1, "{bad:x?}: {faults:?}");
        assert_eq!(
            (&*faults[0].position, faults[0].error.kind()),
            (at, ErrorKind::Corrupt)
        );
        assert_eq!(
            groups.iter().map(|g| g.spans.len()).sum::<usize>(),
            spans,
            "{at}"
        );
    }
    let groups = decode_protobuf(&wrap(
        1,
        &wrap(2, &[wrap(2, b"x"), scope(b"", b"")].concat()),
    ));
    let group = &groups.unwrap()[0];
    assert_eq!((group.spans.len(), group.refused.len()), (1, 1));
    assert_eq!(
        group.refused[0].position,
        "resourceSpans[0].scopeSpans[0].spans[0]"
    );
}

#[test]
fn short_ids_are_filled_up_in_spans_with_a_time() {
    let mut span = good();
    span.trace_id = vec![0x5b, 0x8e, 0xff, 0xf7, 0x98, 3, 0x81, 3];
    span.span_id = [&[0; 4][..], &[7; 8]].concat();
    span.parent_span_id = vec![9];
    span.end_time_unix_nano = 1;
    span.dropped_links_count = 1;
    span.links = [&[1; 16][..], &[2; 8], &[3; 17]]
        .map(|id| Link {
            trace_id: id.to_vec(),
            ..Link::default()
        })
        .to_vec();
    let groups = decode_protobuf(&request(vec![span])).unwrap();
    let span = &groups[0].spans[0];
    assert_eq!(
        span.trace_id.to_string(),
        "00000000000000005b8efff798038103"
    );
    assert_eq!(span.span_id.to_string(), "07".repeat(8));
    assert_eq!(
        span.parent_span_id.unwrap().to_string(),
        format!("{:016x}", 9)
    );
    assert_eq!(span.links.len(), 2);
    assert_eq!(
        span.links[1].trace_id.to_string(),
        format!("{}{}", "00".repeat(8), "02".repeat(8))
    );
    assert_eq!(span.dropped_links_count, 2);
}

#[test]
fn depth_costs_the_span_and_not_the_stack() {
    // Written from the inside out: prost's own encoder would recurse.
    let nested = |depth: usize| {
        let mut value = AnyValue {
            value: Some(Value::IntValue(1)),
        }
        .encode_to_vec();
        for _ in 0..depth {
            // ArrayValue.values = 1, then AnyValue.array_value = 5.
            for tag in [0x0a, 0x2a] {
                let mut outer = vec![tag];
                prost::encode_length_delimiter(value.len(), &mut outer).unwrap();
                outer.extend(value);
                value = outer;
            }
        }
        let mut key_value = b"\x0a\x01k\x12".to_vec();
        prost::encode_length_delimiter(value.len(), &mut key_value).unwrap();
        key_value.extend(value);
        let mut span = good().encode_to_vec();
        span.push(0x4a);
        prost::encode_length_delimiter(key_value.len(), &mut span).unwrap();
        span.extend(key_value);
        span
    };
    let mut scope_spans = Vec::new();
    for span in [nested(5_000), nested(40)] {
        scope_spans.push(0x12);
        prost::encode_length_delimiter(span.len(), &mut scope_spans).unwrap();
        scope_spans.extend(span);
    }
    let mut bytes = scope_spans;
    for tag in [0x12, 0x0a] {
        let mut outer = vec![tag];
        prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
        outer.extend(bytes);
        bytes = outer;
    }
    let groups = decode_protobuf(&bytes).unwrap();
    assert_eq!((groups[0].spans.len(), groups[0].refused.len()), (1, 1));
    let source = groups[0].refused[0].error.source().unwrap().to_string();
    assert!(source.contains("recursion limit"), "{source}");
}

#[test]
fn what_a_later_or_odd_sender_says_is_taken_as_far_as_it_has_a_meaning() {
    let mut odd = good();
    odd.kind = 17;
    odd.parent_span_id = vec![0; 8];
    odd.status = Some(Status {
        code: 9,
        message: "odd".into(),
    });
    odd.links.push(Link::default());
    let mut bytes = odd.encode_to_vec();
    // Field 1000, varint 5: unknown to this version.
    prost::encoding::uint64::encode(1000, &5, &mut bytes);
    let odd = Span::decode(&*bytes).unwrap();
    let absent = attribute(AnyValue {
        value: Some(Value::StringValueStrindex(3)),
    });
    let empty = attribute(AnyValue {
        value: Some(Value::KvlistValue(KeyValueList {
            values: vec![KeyValue {
                key: "list".into(),
                value: Some(AnyValue {
                    value: Some(Value::ArrayValue(ArrayValue { values: Vec::new() })),
                }),
                key_strindex: 0,
            }],
        })),
    });
    let groups = decode_protobuf(&request(vec![odd, absent, empty])).unwrap();
    let [odd, absent, empty] = &groups[0].spans[..] else {
        panic!("{:?}", groups[0].refused);
    };
    assert_eq!(odd.kind, SpanKind::Unspecified);
    assert_eq!(odd.parent_span_id, None);
    assert_eq!(odd.status.code, StatusCode::Unset);
    assert_eq!(odd.status.message, "odd");
    assert_eq!(odd.links.len(), 1);
    assert_eq!(absent.attributes[0].value, Decoded::Empty);
    let Decoded::Map(entries) = &empty.attributes[0].value else {
        panic!("{empty:?}");
    };
    assert_eq!(entries[0].value, Decoded::Array(Vec::new()));
}

#[test]
fn what_is_no_request_is_an_error() {
    assert!(decode_protobuf(b"").unwrap().is_empty());
    let whole = request(vec![good()]);
    for bytes in [
        &whole[..whole.len() - 1],
        b"hello",
        b"\x0a\xff\xff\xff\xff\x7f",
    ] {
        let error = decode_protobuf(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.mend_hint().is_some() && error.source().is_some());
    }
}
