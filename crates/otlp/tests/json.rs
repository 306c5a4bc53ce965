//! OTLP/JSON as others write it, and as nobody should.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::error::Error as _;
use trace_destination_core::{AnyValue, Attribute, ErrorKind, SpanKind, SpanRecord, StatusCode};
use trace_destination_otlp::{Refused, decode_json, decode_protobuf, encode_protobuf};

const IDS: &str = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#;

fn request(spans: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#)
}

fn decode(spans: &str) -> (Vec<SpanRecord>, Vec<Refused>) {
    let mut groups = decode_json(request(spans).as_bytes()).unwrap();
    assert_eq!(groups.len(), 1);
    let group = groups.remove(0);
    (group.spans, group.refused)
}

fn span(fields: &str) -> SpanRecord {
    let (mut spans, refused) = decode(&format!("{{{IDS}{fields}}}"));
    assert!(refused.is_empty(), "{fields}: {refused:?}");
    spans.remove(0)
}

fn value(json: &str) -> AnyValue {
    let mut span = span(&format!(r#","attributes":[{{"key":"k","value":{json}}}]"#));
    span.attributes.remove(0).value
}

/// The reason for which the only span is refused, with what is beneath it.
fn reason(fields: &str) -> String {
    let (spans, refused) = decode(&format!("{{{fields}}}"));
    assert!(spans.is_empty(), "taken: {fields}");
    let error = &refused[0].error;
    assert_eq!(error.kind(), ErrorKind::InvalidSpan);
    let source = error.source().map(|s| format!(": {s}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// `examples/trace.json` of opentelemetry-proto 1.x, spread over lines as it is there.
#[test]
fn the_example_of_the_protocol() {
    let text = r#"{
      "resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
        "scopeSpans": [{
          "scope": {
            "name": "my.library", "version": "1.0.0",
            "attributes": [{"key": "my.scope.attribute", "value": {"stringValue": "some scope attribute"}}]
          },
          "spans": [{
            "traceId": "5B8EFFF798038103D269B633813FC60C",
            "spanId": "EEE19B7EC3C1B174",
            "parentSpanId": "EEE19B7EC3C1B173",
            "name": "I'm a server span",
            "startTimeUnixNano": "1544712660000000000",
            "endTimeUnixNano": "1544712661000000000",
            "kind": 2,
            "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}]
          }]
        }]
      }]
    }"#;
    let groups = decode_json(text.as_bytes()).unwrap();
    assert_eq!(
        groups[0].resource.attributes,
        [Attribute::new("service.name", "my.service")]
    );
    assert_eq!(groups[0].scope.version.as_deref(), Some("1.0.0"));
    let span = &groups[0].spans[0];
    assert_eq!(
        span.trace_id.to_string(),
        "5b8efff798038103d269b633813fc60c"
    );
    assert_eq!(span.parent_span_id.unwrap().to_string(), "eee19b7ec3c1b173");
    assert_eq!(span.kind, SpanKind::Server);
    assert_eq!(span.end_time_unix_nano, 1_544_712_661_000_000_000);
}

#[test]
fn every_kind_of_value_in_every_spelling() {
    for (json, expected) in [
        (r#"{"stringValue":""}"#, AnyValue::from("")),
        (r#"{"stringValue":"\ud83d\ude9a"}"#, "\u{1f69a}".into()),
        (r#"{"boolValue":false}"#, false.into()),
        (r#"{"intValue":"-9223372036854775808"}"#, i64::MIN.into()),
        (r#"{"intValue":9223372036854775807}"#, i64::MAX.into()),
        (r#"{"intValue":1e3}"#, 1000.into()),
        (r#"{"intValue":"1.0"}"#, 1.into()),
        (r#"{"doubleValue":0.1}"#, 0.1.into()),
        (r#"{"doubleValue":5e-324}"#, f64::from_bits(1).into()),
        (r#"{"doubleValue":7}"#, 7.0.into()),
        (r#"{"doubleValue":-7}"#, (-7.0).into()),
        (r#"{"doubleValue":"2.5"}"#, 2.5.into()),
        (r#"{"doubleValue":"Infinity"}"#, f64::INFINITY.into()),
        (r#"{"doubleValue":"-Infinity"}"#, f64::NEG_INFINITY.into()),
        (
            r#"{"bytesValue":"+/8="}"#,
            AnyValue::Bytes(vec![0xfb, 0xff]),
        ),
        (r#"{"bytesValue":"-_8"}"#, AnyValue::Bytes(vec![0xfb, 0xff])),
        (r#"{"bytesValue":""}"#, AnyValue::Bytes(Vec::new())),
        (r#"{"arrayValue":{}}"#, AnyValue::Array(Vec::new())),
        (
            r#"{"arrayValue":{"values":null}}"#,
            AnyValue::Array(Vec::new()),
        ),
        (
            r#"{"arrayValue":{"values":[{"intValue":1},{},null,{"boolValue":true}]}}"#,
            AnyValue::Array(vec![
                1.into(),
                AnyValue::Empty,
                AnyValue::Empty,
                true.into(),
            ]),
        ),
        (r#"{"kvlistValue":{}}"#, AnyValue::Map(Vec::new())),
        (
            r#"{"kvlistValue":{"values":[{"key":"a","value":{"intValue":"1"}},{"key":"a"},{}]}}"#,
            AnyValue::Map(vec![
                Attribute::new("a", 1),
                Attribute::new("a", AnyValue::Empty),
                Attribute::new("", AnyValue::Empty),
            ]),
        ),
        ("{}", AnyValue::Empty),
        ("null", AnyValue::Empty),
        (r#"{"stringValue":null}"#, AnyValue::Empty),
        (r#"{"stringValueStrindex":3}"#, AnyValue::Empty),
        (r#"{"newValue":{"deep":[1]},"intValue":1}"#, 1.into()),
    ] {
        assert_eq!(value(json), expected, "{json}");
    }
    assert!(matches!(value(r#"{"doubleValue":"NaN"}"#), AnyValue::Double(v) if v.is_nan()));
}

#[test]
fn numbers_names_and_absent_fields() {
    let full = span(
        r#","startTimeUnixNano":18446744073709551615,"endTimeUnixNano":"18446744073709551615",
        "kind":"SPAN_KIND_CONSUMER","status":{"code":"STATUS_CODE_OK","message":"fine"},
        "flags":769,"droppedAttributesCount":"1","droppedEventsCount":2,"droppedLinksCount":4294967295,
        "traceState":"a=b","trace_state":"not a name","unknown":[{"x":null}],
        "events":[{"timeUnixNano":"5","name":"e","attributes":[{"key":"k"}],"droppedAttributesCount":6},{}],
        "links":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002",
                  "traceState":"c=d","flags":256,"droppedAttributesCount":7,
                  "attributes":[{"key":"l","value":{"boolValue":true}}]},{}]"#,
    );
    assert_eq!(full.start_time_unix_nano, u64::MAX);
    assert_eq!(full.end_time_unix_nano, u64::MAX);
    assert_eq!(full.kind, SpanKind::Consumer);
    assert_eq!(full.status.code, StatusCode::Ok);
    assert_eq!(full.status.message, "fine");
    assert_eq!((full.flags, full.trace_state.as_str()), (769, "a=b"));
    assert_eq!(full.dropped_attributes_count, 1);
    assert_eq!(full.dropped_events_count, 2);
    assert_eq!(full.dropped_links_count, u32::MAX);
    assert_eq!(full.events[0].time_unix_nano, 5);
    assert_eq!(full.events[0].dropped_attributes_count, 6);
    assert_eq!(full.links[0].trace_id.to_string(), format!("{:032x}", 1));
    assert_eq!(full.links[0].span_id.to_string(), format!("{:016x}", 2));
    assert_eq!(full.links[0].trace_state, "c=d");
    assert_eq!(
        (full.links[0].flags, full.links[0].dropped_attributes_count),
        (256, 7)
    );
    assert_eq!(full.links[0].attributes, [Attribute::new("l", true)]);

    let bare = span("");
    let nulls = span(
        r#","parentSpanId":null,"traceState":null,"name":null,"kind":null,"startTimeUnixNano":null,
        "endTimeUnixNano":null,"attributes":null,"events":null,"links":null,"status":null,"flags":null"#,
    );
    assert_eq!(bare, nulls);
    assert_eq!(bare.kind, SpanKind::Unspecified);
    assert_eq!(bare.parent_span_id, None);
    for parent in ["", "0000000000000000"] {
        let root = span(&format!(r#","parentSpanId":"{parent}""#));
        assert_eq!(root.parent_span_id, None);
    }
    for (kind, expected) in [
        ("0", SpanKind::Unspecified),
        ("1", SpanKind::Internal),
        (r#""3""#, SpanKind::Client),
        (r#""SPAN_KIND_PRODUCER""#, SpanKind::Producer),
        ("99", SpanKind::Unspecified),
        ("99999999999", SpanKind::Unspecified),
        ("-1", SpanKind::Unspecified),
    ] {
        assert_eq!(span(&format!(r#","kind":{kind}"#)).kind, expected, "{kind}");
    }
    for (code, expected) in [
        ("0", StatusCode::Unset),
        ("1", StatusCode::Ok),
        ("2", StatusCode::Error),
        (r#""STATUS_CODE_ERROR""#, StatusCode::Error),
        ("3", StatusCode::Unset),
    ] {
        let status = span(&format!(r#","status":{{"code":{code}}}"#)).status;
        assert_eq!(status.code, expected, "{code}");
    }
}

#[test]
fn resource_and_scope_are_kept() {
    let text = format!(
        r#"{{"resourceSpans":[{{
            "resource":{{"attributes":[{{"key":"r","value":{{"intValue":1}}}}],"droppedAttributesCount":2,"entityRefs":[{{"type":"host"}}]}},
            "schemaUrl":"https://resource",
            "scopeSpans":[
              {{"scope":{{"name":"n","version":"v","droppedAttributesCount":"3"}},"schemaUrl":"https://scope","spans":[{{{IDS}}}]}},
              {{"scope":null,"spans":null}}
            ]}},{{}}]}}"#
    );
    let groups = decode_json(text.as_bytes()).unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].resource.attributes, [Attribute::new("r", 1)]);
    assert_eq!(groups[0].resource.dropped_attributes_count, 2);
    assert_eq!(
        groups[0].resource.schema_url.as_deref(),
        Some("https://resource")
    );
    assert_eq!(groups[0].scope.schema_url.as_deref(), Some("https://scope"));
    assert_eq!(groups[0].scope.dropped_attributes_count, 3);
    assert!(groups[1].spans.is_empty() && groups[1].refused.is_empty());
}

#[test]
fn a_bad_span_is_refused_alone_and_says_why() {
    let huge = "9".repeat(400);
    for (fields, says) in [
        (r#""spanId":"eee19b7ec3c1b174""#.to_owned(), "the trace id is missing or all zero"),
        (r#""traceId":"","spanId":"eee19b7ec3c1b174""#.to_owned(), "the trace id is missing"),
        (
            r#""traceId":"00000000000000000000000000000000","spanId":"eee19b7ec3c1b174""#.to_owned(),
            "the trace id is missing or all zero",
        ),
        (
            r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"0000000000000000","name":"x""#
                .to_owned(),
            "decode OTLP span `x`: the span id is missing or all zero",
        ),
        (r#""traceId":"5B8EFFF7","spanId":"eee19b7ec3c1b174""#.to_owned(), "the trace id is not 32 hex digits"),
        // Base64, as the plain protobuf mapping would have it.
        (
            r#""traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"7uGbfsPBsXQ=""#.to_owned(),
            "the trace id is not 32 hex digits",
        ),
        (
            r#""traceId":"+B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#.to_owned(),
            "the trace id is not 32 hex digits",
        ),
        (format!(r#"{IDS},"parentSpanId":"12""#), "the parent span id is not 16 hex digits"),
        (format!(r#"{IDS},"links":[{{"traceId":"1"}}]"#), "the trace id of a link is not 32 hex digits"),
        (format!(r#"{IDS},"name":"\ud800""#), "hex escape"),
        (format!(r#"{IDS},"attributes":[{{"key":"\udc00x"}}]"#), "surrogate"),
        (format!(r#"{IDS},"name":5"#), "expected a string"),
        (format!(r#"{IDS},"kind":"SPAN_KIND_NONE""#), "SPAN_KIND_NONE` is none of"),
        (format!(r#"{IDS},"startTimeUnixNano":-1"#), "-1 is out of range"),
        (format!(r#"{IDS},"startTimeUnixNano":1.5"#), "expected an integer"),
        (format!(r#"{IDS},"flags":4294967296"#), "out of range"),
        (format!(r#"{IDS},"attributes":[{{"key":"k","value":{{"intValue":"9223372036854775808"}}}}]"#), "out of range"),
        (format!(r#"{IDS},"attributes":[{{"key":"k","value":{{"intValue":{huge}}}}}]"#), "out of range"),
        (format!(r#"{IDS},"attributes":[{{"key":"k","value":{{"bytesValue":"!"}}}}]"#), "Invalid symbol"),
        (format!(r#"{IDS},"attributes":[{{"key":"k","value":"bare"}}]"#), "expected an OTLP AnyValue"),
    ] {
        let reason = reason(&fields);
        assert!(reason.contains(says), "{fields}\n{reason}");
    }

    let good = format!("{{{IDS}}}");
    let (spans, refused) = decode(&format!(r#"{good},{{"name":"\ud800"}},null,{good}"#));
    assert_eq!(spans.len(), 2);
    assert_eq!(refused.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn depth_costs_the_span_and_not_the_stack() {
    let nested = |depth: usize| {
        let value = format!(
            r#"{}{{"intValue":1}}{}"#,
            r#"{"arrayValue":{"values":["#.repeat(depth),
            "]}}".repeat(depth)
        );
        format!(r#"{{{IDS},"attributes":[{{"key":"k","value":{value}}}]}}"#)
    };
    let (spans, refused) = decode(&format!("{},{}", nested(200_000), nested(30)));
    assert_eq!((spans.len(), refused.len()), (1, 1));
    let source = refused[0].error.source().unwrap().to_string();
    assert!(source.contains("recursion limit"), "{source}");

    // What one format takes, so does the other.
    let mut groups = decode_json(request(&nested(30)).as_bytes()).unwrap();
    let group = groups.remove(0);
    let encoded = encode_protobuf(&[group.clone().into_group()]);
    assert_eq!(decode_protobuf(&encoded).unwrap()[0].spans, group.spans);
}

#[test]
fn what_is_no_request_is_an_error() {
    for (text, says) in [
        ("", "ends in the middle of a value"),
        ("{\"resourceSpans\":[", "ends in the middle of a value"),
        ("hello", "the text is not JSON"),
        ("{\"resourceSpans\":[]} x", "the text is not JSON"),
        ("[]", "not an OTLP trace request"),
        ("7", "not an OTLP trace request"),
        ("null", "not an OTLP trace request"),
        (r#"{"resourceSpans":{}}"#, "not an OTLP trace request"),
        (
            r#"{"resourceMetrics":[]}"#,
            "no `resourceSpans` but `resourceMetrics`",
        ),
        (
            r#"{"resource_spans":[]}"#,
            "no `resourceSpans` but `resource_spans`",
        ),
    ] {
        let error = decode_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.mend_hint().is_some());
    }
    for text in ["{}", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null}"#] {
        assert!(decode_json(text.as_bytes()).unwrap().is_empty(), "{text}");
    }
    assert!(decode_json(b"{\"resourceSpans\":[{\"schemaUrl\":\"\xff\"}]}").is_err());
}
