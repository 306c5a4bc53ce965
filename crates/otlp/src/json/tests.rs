//! The two decoders agree on whatever the quick one reads.

use super::*;
use crate::{decode_protobuf, sample};

fn check(text: &str) {
    let (quick, end) = quick::request(text.as_bytes()).expect("the quick decoder reads it");
    agree(text.as_bytes(), &quick, end);
}

#[test]
fn on_captured_and_made_spans() {
    check(include_str!("../../tests/data/agents.otlp.jsonl"));
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;
    for bytes in sample::generated() {
        assert!(!decode_protobuf(&bytes).unwrap().is_empty());
        let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
        check(&serde_json::to_string(&request).unwrap());
    }
}

#[test]
fn on_every_spelling_of_a_field() {
    let ids = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#;
    for fields in [
        "",
        r#","parentSpanId":"","kind":"3","kind_":1,"status":null,"links":[{}],"events":[{}]"#,
        r#","kind":"SPAN_KIND_CLIENT","status":{"code":"STATUS_CODE_OK"}"#,
        r#","kind":"server","status":{"code":"error"},"kind ":5"#,
        r#","startTimeUnixNano":1e3,"endTimeUnixNano":"2.0","flags":"7""#,
        r#","start_time_unix_nano":5,"trace_state":"a","dropped_links_count":-3"#,
        r#","attributes":[{"key":"a"},{"value":{}},{"value":null},{}]"#,
        r#","attributes":[{"value":{"stringValue":"a","intValue":"5"}},{"value":{"x":[1,{}]}}]"#,
        r#","attributes":[{"value":{"intValue":1,"int_value":2,"string_value":null}}]"#,
        r#","attributes":[{"value":{"arrayValue":{"values":[{},null,{"doubleValue":"NaN"}]}}}]"#,
        r#","attributes":[{"value":{"kvlistValue":{"values":[{"key":"\u00e9\n\ud83d\ude9a"}]}}}]"#,
        r#","attributes":[{"value":{"bytesValue":"-_8"}},{"value":{"doubleValue":5e-324}}]"#,
        r#","links":[{"traceId":"1","spanId":"a","trace_state":"b","droppedAttributesCount":1e99}]"#,
        r#","unknown":{"resourceSpans":[]},"":0"#,
    ] {
        let span = format!("{{{ids}{fields}}}");
        check(&format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#
        ));
    }
    for request in [
        "{}",
        r#" {"resourceSpans":null} "#,
        r#"{"resourceSpans":[{},{"resource":null,"schema_url":"a","scopeSpans":null}]} {}"#,
        r#"{"resourceMetrics":[5],"x":1}"#,
        r#"{"resource_spans":[]}"#,
        r#"{"resourceSpans":[{"resource":{"droppedAttributesCount":-1},
            "scopeSpans":[{},{"scope":{"version":"1","dropped_attributes_count":"9e9"},"spans":null}]}]}"#,
    ] {
        check(request);
    }
}
