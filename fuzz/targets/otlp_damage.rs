#![no_main]
//! Anything at all on the lines between two requests: both requests are read.
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use trace_destination_otlp::OtlpFile;

fn request(id: char) -> String {
    let ids = format!(
        r#""traceId":"{id}00000000000000000000000000000aa","spanId":"{id}0000000000000aa""#
    );
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},"name":"{{\"[\\"}}]}}]}}]}}"#)
}

fuzz_target!(|between: &[u8]| {
    let (first, last) = (request('b'), request('c'));
    let text = [first.as_bytes(), b"\n", between, b"\n", last.as_bytes()].concat();
    let file = OtlpFile::from_reader(Cursor::new(text), "fuzz.jsonl").expect("it is JSON");
    let mut ids = Vec::new();
    for group in file.flatten().flatten() {
        ids.extend(group.spans.iter().map(|s| s.span_id.to_string()));
    }
    for id in ["b0000000000000aa", "c0000000000000aa"] {
        assert!(ids.iter().any(|i| i == id), "{id} is not among {ids:?}");
    }
});
