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
        "traceState":"a=b","unknown":[{"x":null}],
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

/// Each with the spelling of a field that MLflow's server takes, and what it means.
#[test]
fn whatever_mlflow_stores_is_read() {
    let texts = span(
        r#","name":"cut \ud83e","traceState":"\udc00","status":{"message":"a\ud800b"},
        "attributes":[{"key":"k\ud800","value":{"stringValue":"\ud83d\ud83d\ude9a"}}]"#,
    );
    assert_eq!(texts.name, "cut \u{fffd}");
    assert_eq!(texts.trace_state, "\u{fffd}");
    assert_eq!(texts.status.message, "a\u{fffd}b");
    let attribute = Attribute::new("k\u{fffd}", "\u{fffd}\u{1f69a}");
    assert_eq!(texts.attributes, [attribute]);

    // Of a doubled key the last counts; `null` is as good as absent.
    let doubled = span(
        r#","name":"once","name":"again","kind":1,"kind":null,"flags":1,"flags":2,
        "status":{"code":1,"code":2},"events":[{"name":"a","name":"b"}]"#,
    );
    assert_eq!((doubled.name.as_ref(), doubled.flags), ("again", 2));
    assert_eq!(doubled.kind, SpanKind::Unspecified);
    assert_eq!(doubled.status.code, StatusCode::Error);
    assert_eq!(doubled.events[0].name, "b");

    let both = span(r#","traceState":"a=b","trace_state":"c=d","flags":1,"FLAGS":2"#);
    assert_eq!((both.trace_state.as_str(), both.flags), ("c=d", 1));

    for (kind, expected) in [
        (r#""SERVER""#, SpanKind::Server),
        (r#""Client""#, SpanKind::Client),
        (r#""span_kind_producer""#, SpanKind::Producer),
        (r#"" 5 ""#, SpanKind::Consumer),
        (r#""SPAN_KIND_NONE""#, SpanKind::Unspecified),
        (r#""banana""#, SpanKind::Unspecified),
        (r#""""#, SpanKind::Unspecified),
        ("2.7", SpanKind::Server),
        ("true", SpanKind::Internal),
        ("1e1", SpanKind::Unspecified),
    ] {
        assert_eq!(span(&format!(r#","kind":{kind}"#)).kind, expected, "{kind}");
    }
    for (status, expected) in [
        (r#"{"code":"ERROR"}"#, StatusCode::Error),
        (r#"{"code":"Ok"}"#, StatusCode::Ok),
        (r#"{"code":"UNSET"}"#, StatusCode::Unset),
        (r#"{"code":"STATUS_CODE_FATAL"}"#, StatusCode::Unset),
        // A message that is a text, or a list of texts, is an empty one.
        (r#""ERROR""#, StatusCode::Unset),
        (r#"["ERROR"]"#, StatusCode::Unset),
    ] {
        let status_of = span(&format!(r#","status":{status}"#)).status;
        assert_eq!(status_of.code, expected, "{status}");
    }

    let snake = span(
        r#","start_time_unix_nano":"5","end_time_unix_nano":6,"trace_state":"a=b",
        "dropped_attributes_count":1,"dropped_events_count":2,"dropped_links_count":3,
        "attributes":[{"key":"k","value":{"string_value":"v"}}],
        "events":[{"time_unix_nano":7,"dropped_attributes_count":8}]"#,
    );
    assert_eq!(
        (snake.start_time_unix_nano, snake.end_time_unix_nano),
        (5, 6)
    );
    assert_eq!(snake.trace_state, "a=b");
    let dropped = (snake.dropped_attributes_count, snake.dropped_events_count);
    assert_eq!((dropped, snake.dropped_links_count), ((1, 2), 3));
    assert_eq!(snake.attributes, [Attribute::new("k", "v")]);
    let event = &snake.events[0];
    assert_eq!(
        (event.time_unix_nano, event.dropped_attributes_count),
        (7, 8)
    );

    for (time, expected) in [
        (r#""+5""#, 5),
        (r#""1_000""#, 1000),
        (r#""\t7\n""#, 7),
        (r#""1.5e3""#, 1500),
        ("18446744073709551615", u64::MAX),
    ] {
        let span = span(&format!(r#","startTimeUnixNano":{time}"#));
        assert_eq!(span.start_time_unix_nano, expected, "{time}");
    }
}

#[test]
fn counts_are_clamped() {
    for (count, expected) in [
        ("-1", 0),
        (r#""-5""#, 0),
        ("4294967296", u32::MAX),
        ("18446744073709551615", u32::MAX),
        (r#""99999999999999999999999999""#, u32::MAX),
        ("1e300", u32::MAX),
    ] {
        let span = span(&format!(
            r#","droppedAttributesCount":{count},"droppedEventsCount":{count},"droppedLinksCount":{count},
            "events":[{{"droppedAttributesCount":{count}}}],"links":[{{"droppedAttributesCount":{count}}}]"#
        ));
        assert_eq!(span.dropped_attributes_count, expected, "{count}");
        assert_eq!(span.dropped_events_count, expected, "{count}");
        assert_eq!(span.dropped_links_count, expected, "{count}");
        assert_eq!(span.events[0].dropped_attributes_count, expected, "{count}");
        assert_eq!(span.links[0].dropped_attributes_count, expected, "{count}");
    }
}

/// A value that does not fit its field, or stands without one, is taken for what it is.
#[test]
fn odd_values_are_kept() {
    let map = |key: &'static str, value: AnyValue| AnyValue::Map(vec![Attribute::new(key, value)]);
    for (json, expected) in [
        (r#""bare""#, AnyValue::from("bare")),
        ("5", 5.into()),
        ("0.5", 0.5.into()),
        ("true", true.into()),
        (
            r#"[1,"a",null]"#,
            AnyValue::Array(vec![1.into(), "a".into(), AnyValue::Empty]),
        ),
        (
            r#"{"intValue":18446744073709551615}"#,
            "18446744073709551615".into(),
        ),
        (
            r#"{"intValue":-9223372036854775809}"#,
            "-9223372036854775809".into(),
        ),
        (
            r#"{"intValue":"9223372036854775808"}"#,
            "9223372036854775808".into(),
        ),
        (r#"{"intValue":1.5}"#, 1.5.into()),
        (r#"{"intValue":"five"}"#, "five".into()),
        (r#"{"intValue":{"a":1}}"#, map("a", 1.into())),
        (r#"{"stringValue":5}"#, 5.into()),
        (r#"{"boolValue":"true"}"#, true.into()),
        (r#"{"boolValue":"yes"}"#, "yes".into()),
        (r#"{"doubleValue":true}"#, 1.0.into()),
        (r#"{"doubleValue":"1_0.5"}"#, 10.5.into()),
        (r#"{"doubleValue":"much"}"#, "much".into()),
        (r#"{"doubleValue":1e999}"#, f64::INFINITY.into()),
        (r#"{"doubleValue":-Infinity}"#, f64::NEG_INFINITY.into()),
        // As Python decodes base64.
        (r#"{"bytesValue":"!"}"#, AnyValue::Bytes(Vec::new())),
        (r#"{"bytesValue":"Q Q = ="}"#, AnyValue::Bytes(vec![b'A'])),
        (r#"{"bytesValue":"QR"}"#, AnyValue::Bytes(vec![b'A'])),
        (r#"{"bytesValue":"A"}"#, "A".into()),
        (r#"{"arrayValue":"none"}"#, AnyValue::Array(Vec::new())),
        (r#"{"arrayValue":[1]}"#, AnyValue::Array(vec![1.into()])),
        (
            r#"{"kvlistValue":{"values":{"a":1}}}"#,
            map("values", map("a", 1.into())),
        ),
        (
            r#"{"intValue":1,"stringValue":"last","intValue":null}"#,
            "last".into(),
        ),
        (
            r#"{"kvlist_value":{"values":[{"key":"a","value":{"int_value":1}}]}}"#,
            map("a", 1.into()),
        ),
    ] {
        // Beside a doubled key, so that the tolerant decoder reads what the quick one could.
        for more in ["", r#","name":"a","name":"b""#] {
            let mut span = span(&format!(
                r#"{more},"attributes":[{{"key":"k","value":{json}}}]"#
            ));
            assert_eq!(span.attributes.remove(0).value, expected, "{json}");
        }
    }
    let nan = value(r#"{"doubleValue":NaN}"#);
    assert!(matches!(nan, AnyValue::Double(v) if v.is_nan()));
}

#[test]
fn ids_are_filled_up_on_the_left() {
    let ids = |trace: &str, span: &str, parent: &str| {
        let fields = format!(r#""traceId":"{trace}","spanId":"{span}","parentSpanId":"{parent}""#);
        let (spans, refused) = decode(&format!("{{{fields}}}"));
        assert!(refused.is_empty(), "{fields}: {refused:?}");
        let span = &spans[0];
        let parent = span.parent_span_id.map(|id| id.to_string());
        (span.trace_id.to_string(), span.span_id.to_string(), parent)
    };
    let expected = (
        "00000000000000005b8efff798038103".to_owned(),
        "00000000c3c1b174".to_owned(),
        Some("000000000000000a".to_owned()),
    );
    assert_eq!(ids("5b8efff798038103", "C3C1B174", "a"), expected);
    let long = format!("{}5b8efff798038103", "0".repeat(24));
    let spaced = ids(&long, "c3 c1 b1 74", "0000000000000000000a");
    assert_eq!(spaced, expected);
}

/// MLflow's server reads ids of links as base64; hex is what OTLP asks for.
#[test]
fn links_are_read_in_hex_and_base64_and_else_counted_as_dropped() {
    let trace = "5b8efff798038103d269b633813fc60c";
    let span = span(&format!(
        r#","droppedLinksCount":1,"links":[{{"traceId":"{trace}","spanId":"eee19b7ec3c1b174"}},
        {{"traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"7uGbfsPBsXQ="}},
        {{"trace_id":"{trace}","span_id":"eee19b7ec3c1b174"}},
        {{"traceId":"no id","spanId":"1"}},{{"traceId":"{trace}ff"}},"text"]"#
    ));
    assert_eq!(span.links.len(), 4);
    for link in &span.links[..3] {
        assert_eq!(link.trace_id.to_string(), trace);
        assert_eq!(link.span_id.to_string(), "eee19b7ec3c1b174");
    }
    assert_eq!(span.dropped_links_count, 3);
}

#[test]
fn a_bad_span_is_refused_alone_and_says_why() {
    let trace = r#""traceId":"5B8EFFF798038103D269B633813FC60C""#;
    for (fields, says) in [
        (
            r#""spanId":"eee19b7ec3c1b174""#.to_owned(),
            "the trace id is missing or all zero",
        ),
        (
            r#""traceId":"","spanId":"eee19b7ec3c1b174""#.to_owned(),
            "the trace id is missing",
        ),
        (
            r#""traceId":"00000000000000000000000000000000","spanId":"eee19b7ec3c1b174""#
                .to_owned(),
            "the trace id is missing or all zero",
        ),
        (
            format!(r#"{trace},"spanId":"0000000000000000","name":"x""#),
            "decode OTLP span `x`: the span id is missing or all zero",
        ),
        // Base64, as the plain protobuf mapping would have it.
        (
            r#""traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"7uGbfsPBsXQ=""#.to_owned(),
            "the trace id is not 32 hex digits: it looks like base64 (write ids in hex",
        ),
        (
            format!(r#"{trace},"spanId":"7uGbfsPBsXQ=""#),
            "the span id is not 16 hex digits: it looks like base64",
        ),
        (
            r#""trace_id":"AAECAwQFBgcICQoLDA0ODw==","span_id":"AQIDBAUGBwg=""#.to_owned(),
            "`trace_id` is no key of OTLP/JSON (write it as OTLP/JSON: keys in camelCase",
        ),
        (
            format!(r#"{trace},"span_id":"eee19b7ec3c1b174""#),
            "`span_id` is no key of OTLP/JSON",
        ),
        (
            format!(r#"{IDS},"parent_span_id":"eee19b7ec3c1b174""#),
            "`parent_span_id` is no key",
        ),
        (
            r#""traceId":"0x5b8efff798038103d269b633813fc60c","spanId":"1""#.to_owned(),
            "the trace id is not 32 hex digits (write ids in hex, without prefix and hyphens)",
        ),
        (
            r#""traceId":"5b8efff7-9803-8103-d269-b633813fc60c","spanId":"1""#.to_owned(),
            "the trace id is not 32 hex digits (write ids in hex, without prefix and hyphens)",
        ),
        (
            r#""traceId":"15B8EFFF798038103D269B633813FC60C","spanId":"1""#.to_owned(),
            "the trace id has 33 hex digits, which are more than 32",
        ),
        (
            format!(r#"{trace},"spanId":7"#),
            "`spanId` is `7`, expected a text",
        ),
        (
            format!(r#"{IDS},"parentSpanId":"no""#),
            "the parent span id is not 16 hex digits",
        ),
        (
            format!(r#"{IDS},"name":5"#),
            "`name` is `5`, expected a text",
        ),
        (
            format!(r#"{IDS},"kind":[]"#),
            "`kind` is a list, expected the number or name of an enum",
        ),
        (
            format!(r#"{IDS},"startTimeUnixNano":-1"#),
            "`startTimeUnixNano` is -1, out of range",
        ),
        (
            format!(r#"{IDS},"startTimeUnixNano":1.5"#),
            "`startTimeUnixNano` is `1.5`, expected an integer",
        ),
        (
            format!(r#"{IDS},"endTimeUnixNano":"tomorrow""#),
            "`endTimeUnixNano` is `tomorrow`, expected",
        ),
        (
            format!(r#"{IDS},"flags":4294967296"#),
            "`flags` is 4294967296, out of range",
        ),
        (
            format!(r#"{IDS},"droppedLinksCount":"few""#),
            "`droppedLinksCount` is `few`, expected a count",
        ),
        (
            format!(r#"{IDS},"attributes":{{"k":"v"}}"#),
            "`attributes` is an object, expected a list",
        ),
        (
            format!(r#"{IDS},"attributes":[{{"key":5}}]"#),
            "`key` is `5`, expected a text",
        ),
        (
            format!(r#"{IDS},"events":[{{}},{{"name":5}}]"#),
            "events[1]: `name` is `5`",
        ),
        (
            format!(r#"{IDS},"links":[{{"flags":-1}}]"#),
            "links[0]: `flags` is -1, out of range",
        ),
        (
            format!(r#"{IDS},"status":7"#),
            "`status` is `7`, expected an object",
        ),
    ] {
        let reason = reason(&fields);
        assert!(reason.contains(says), "{fields}\n{reason}");
    }

    let good = format!("{{{IDS}}}");
    let (spans, refused) = decode(&format!(r#"{good},{{"name":"\ud800"}},null,"x",{good}"#));
    assert_eq!(spans.len(), 2);
    assert_eq!(
        refused.iter().map(|r| r.index).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        refused[2].position,
        "resourceSpans[0].scopeSpans[0].spans[3]"
    );
}

/// Whatever is bad about a resource or scope costs neither the spans below it nor its neighbours.
#[test]
fn a_bad_resource_or_scope_costs_no_span() {
    let good = format!(r#"{{"scopeSpans":[{{"spans":[{{{IDS}}}]}}]}}"#);
    let attributes =
        r#""attributes":[{"key":"good","value":{"intValue":1}},{"key":5},{"key":"too"}]"#;
    for (bad, at, spans) in [
        ("5", "resourceSpans[1]", 2),
        ("null", "resourceSpans[1]", 2),
        (r#""text""#, "resourceSpans[1]", 2),
        (r#"{"scopeSpans":5}"#, "resourceSpans[1]", 2),
        (r#"{"scopeSpans":[7]}"#, "resourceSpans[1].scopeSpans[0]", 2),
        (
            r#"{"scopeSpans":[{"spans":{}}]}"#,
            "resourceSpans[1].scopeSpans[0]",
            2,
        ),
        (r#"{"scope_spans":[{"spans":[]}]}"#, "resourceSpans[1]", 2),
        (
            r#"{"instrumentationLibrarySpans":[]}"#,
            "resourceSpans[1]",
            2,
        ),
        (
            &format!(r#"{{"resource":7,{}"#, &good[1..]),
            "resourceSpans[1].resource",
            3,
        ),
        (
            &format!(r#"{{"schemaUrl":7,{}"#, &good[1..]),
            "resourceSpans[1]",
            3,
        ),
        (
            &format!(r#"{{"resource":{{{attributes}}},{}"#, &good[1..]),
            "resourceSpans[1].resource.attributes[1]",
            3,
        ),
        (
            &good.replace(
                r#"{"spans""#,
                &format!(r#"{{"scope":{{{attributes}}},"spans""#),
            ),
            "resourceSpans[1].scopeSpans[0].scope.attributes[1]",
            3,
        ),
        (
            &good.replace(r#"{"spans""#, r#"{"scope":{"name":[]},"spans""#),
            "resourceSpans[1].scopeSpans[0].scope",
            3,
        ),
    ] {
        let text = format!(r#"{{"resourceSpans":[{good},{bad},{good}]}}"#);
        let groups = decode_json(text.as_bytes()).unwrap();
        let faults: Vec<_> = groups.iter().flat_map(|g| &g.faults).collect();
        let positions: Vec<_> = faults.iter().map(|f| &f.position).collect();
        assert_eq!(positions, [at], "{bad}");
        assert_eq!(faults[0].error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            groups.iter().map(|g| g.spans.len()).sum::<usize>(),
            spans,
            "{bad}"
        );
        if bad.contains(attributes) {
            let lists = [&groups[1].resource.attributes, &groups[1].scope.attributes];
            let kept = [
                Attribute::new("good", 1),
                Attribute::new("too", AnyValue::Empty),
            ];
            assert!(lists.contains(&&kept.to_vec()), "{bad}");
        }
    }
}

#[test]
fn depth_costs_the_span_and_not_the_stack() {
    let nested = |depth: usize, open: &str, close: &str| {
        let value = format!(
            r#"{}{{"intValue":1}}{}"#,
            open.repeat(depth),
            close.repeat(depth)
        );
        format!(r#"{{{IDS},"attributes":[{{"key":"k","value":{value}}}]}}"#)
    };
    // MLflow's server takes 47 lists and 31 maps.
    for (open, close, most) in [
        (r#"{"arrayValue":{"values":["#, "]}}", 49),
        (
            r#"{"kvlistValue":{"values":[{"key":"k","value":"#,
            "}]}}",
            32,
        ),
        ("[", "]", 47),
    ] {
        let nested = |depth| nested(depth, open, close);
        let text = format!("{},{},{}", nested(100_000), nested(most), nested(most + 1));
        let (spans, refused) = decode(&text);
        assert_eq!((spans.len(), refused.len()), (1, 2), "{open}");
        for refused in &refused {
            let error = refused.error.to_string();
            assert!(
                error.contains("the value of `k` is nested deeper"),
                "{error}"
            );
        }

        // What one format takes, so does the other.
        let mut groups = decode_json(request(&nested(most)).as_bytes()).unwrap();
        let group = groups.remove(0);
        let encoded = encode_protobuf(&[group.clone().into_group()]);
        assert_eq!(
            decode_protobuf(&encoded).unwrap()[0].spans,
            group.spans,
            "{open}"
        );
    }

    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let unknown = span(&format!(r#","new":{deep},"name":"a","name":"b""#));
    assert_eq!(unknown.name, "b");
    let resource = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{deep}}}]}},
        "scopeSpans":[{{"spans":[{{{IDS}}}]}}]}}]}}"#
    );
    let groups = decode_json(resource.as_bytes()).unwrap();
    assert_eq!((groups[0].spans.len(), groups[0].faults.len()), (1, 1));
}

#[test]
fn every_encoding_of_unicode_is_read() {
    let text = request(&format!(r#"{{{IDS},"name":"café 🚚"}}"#));
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut latin1 = request(&format!(r#"{{{IDS},"name":"caf# 🚚"}}"#)).into_bytes();
    let at = latin1.iter().position(|b| *b == b'#').unwrap();
    latin1[at] = 0xe9;
    for (bytes, name) in [
        (text.clone().into_bytes(), "caf\u{e9} \u{1f69a}"),
        (
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            "caf\u{e9} \u{1f69a}",
        ),
        ([b"\xff\xfe", &utf16[..]].concat(), "caf\u{e9} \u{1f69a}"),
        (utf16, "caf\u{e9} \u{1f69a}"),
        (latin1, "caf\u{fffd} \u{1f69a}"),
    ] {
        let groups = decode_json(&bytes).unwrap();
        assert_eq!(groups[0].spans[0].name, name);
    }
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
            "no `resourceSpans` but `resource_spans`: it is not an OTLP trace request (write it as \
             OTLP/JSON: keys in camelCase (`resourceSpans`, `traceId`) and ids in hex",
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
}
