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
                s.links.push(Link {
                    trace_id: vec![1; 15],
                    ..Link::default()
                });
            }),
            "the trace id of a link has 15 bytes instead of 16",
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
fn text_that_is_not_utf8_costs_its_span_only() {
    let mut bytes = request(vec![good(), good()]);
    let at = bytes.windows(4).position(|w| w == b"good").unwrap();
    bytes[at] = 0xff;
    let groups = decode_protobuf(&bytes).unwrap();
    assert_eq!((groups[0].spans.len(), groups[0].refused.len()), (1, 1));
    let source = groups[0].refused[0].error.source().unwrap().to_string();
    assert!(source.contains("UTF-8"), "{source}");
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
