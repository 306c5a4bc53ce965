//! The captured files, and what both formats say about the same spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use trace_destination_core::{AnyValue, StatusCode};
use trace_destination_otlp::{
    Format, OtlpFile, ResourceSpans, decode_json, decode_protobuf, sample,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Everything but the identity of what is shared; NaN equals itself here.
fn text(groups: &[ResourceSpans]) -> String {
    assert!(groups.iter().all(|g| g.refused.is_empty()));
    format!("{groups:#?}")
}

#[test]
fn both_files_hold_the_same_252_spans_in_44_traces() {
    let mut both = Vec::new();
    for (name, format) in [
        ("agents.otlp.binpb", Format::Protobuf),
        ("agents.otlp.jsonl", Format::JsonLines),
    ] {
        let mut file = OtlpFile::open(data(name)).unwrap();
        assert_eq!(file.format(), format);
        let groups: Vec<_> = file.by_ref().flat_map(Result::unwrap).collect();
        assert_eq!(Some(file.position()), file.size(), "{name}");
        both.push(groups);
    }
    assert_eq!(text(&both[0]), text(&both[1]));
    assert_eq!(
        text(&both[0]),
        text(&decode_protobuf(sample::captured()).unwrap())
    );

    let spans: Vec<_> = both[0].iter().flat_map(|g| &g.spans).collect();
    let traces: HashSet<_> = spans.iter().map(|s| s.trace_id).collect();
    let roots = spans.iter().filter(|s| s.parent_span_id.is_none());
    let failed = spans.iter().filter(|s| s.status.code == StatusCode::Error);
    assert_eq!((spans.len(), traces.len()), (252, 44));
    assert_eq!(roots.count(), 44);
    assert_eq!(failed.count(), 8);
}

/// `opentelemetry-proto` writes JSON well enough to compare with, but writes `null` for a double
/// that is no number; `json.rs` tests those.
#[test]
fn generated_requests_say_the_same_as_json() {
    for (i, bytes) in sample::generated().into_iter().enumerate() {
        let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
        let json = serde_json::to_string(&request)
            .unwrap()
            .replace(r#"{"doubleValue":null}"#, r#"{"stringValue":"no number"}"#);
        let from_json = text(&decode_json(json.as_bytes()).unwrap());
        let mut from_protobuf = decode_protobuf(&bytes).unwrap();
        for group in &mut from_protobuf {
            for span in &mut group.spans {
                for attribute in &mut span.attributes {
                    replace_non_numbers(&mut attribute.value);
                }
            }
        }
        assert_eq!(from_json, text(&from_protobuf), "request {i}");
    }
}

fn replace_non_numbers(value: &mut AnyValue) {
    match value {
        AnyValue::Double(v) if !v.is_finite() => *value = "no number".to_owned().into(),
        AnyValue::Array(values) => values.iter_mut().for_each(replace_non_numbers),
        _ => {}
    }
}
