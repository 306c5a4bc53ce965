//! Spans to protobuf and back.
use trace_destination_otlp::{ResourceSpans, decode_protobuf, encode_protobuf};

/// As text, so that a double that is no number equals itself.
pub fn check(mut groups: Vec<ResourceSpans>) {
    for group in &mut groups {
        group.refused.clear();
        group.faults.clear();
    }
    let sent: Vec<_> = groups
        .iter()
        .cloned()
        .map(ResourceSpans::into_group)
        .collect();
    let got = decode_protobuf(&encode_protobuf(&sent)).expect("what was encoded decodes");
    assert_eq!(format!("{got:?}"), format!("{groups:?}"));
}
