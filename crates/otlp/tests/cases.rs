//! Files on which the decoder was seen to lose spans. `tests/data/cases` holds them as they were
//! found.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::path::Path;
use trace_destination_core::{AnyValue, Error, SpanKind, StatusCode};
use trace_destination_otlp::{OtlpFile, ResourceSpans};

/// What can be read, and what was damaged; no span may be refused.
fn read(name: &str) -> (Vec<ResourceSpans>, Vec<Error>, u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    let mut file = OtlpFile::open(folder.join(name)).unwrap();
    let (mut groups, mut errors) = (Vec::new(), Vec::new());
    for item in &mut file {
        match item {
            Ok(item) => groups.extend(item),
            Err(error) => errors.push(error),
        }
    }
    (groups, errors, file.other_signals())
}

/// The groups of a file with nothing wrong in it.
fn groups(name: &str) -> Vec<ResourceSpans> {
    let (groups, errors, other) = read(name);
    assert!(errors.is_empty(), "{name}: {errors:?}");
    assert_eq!(other, 0);
    for group in &groups {
        assert!(
            group.refused.is_empty() && group.faults.is_empty(),
            "{name}: {group:?}"
        );
    }
    groups
}

fn names(groups: &[ResourceSpans]) -> Vec<String> {
    let spans = groups.iter().flat_map(|g| &g.spans);
    spans.map(|s| s.name.to_string()).collect()
}

fn text(value: &AnyValue) -> &str {
    match value {
        AnyValue::String(text) => text.as_str(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_that_is_not_unicode_in_a_resource_costs_nothing() {
    let json = groups("bad_resource.jsonl");
    assert_eq!(names(&json), ["span 1", "span 2", "span 3"]);
    assert_eq!(text(&json[1].resource.attributes[0].value), "run \u{fffd}");
    let protobuf = groups("bad_resource.binpb");
    assert_eq!(names(&protobuf), ["a", "b"]);
    assert_eq!(
        text(&protobuf[0].resource.attributes[0].value),
        "run \u{fffd}"
    );
}

#[test]
fn text_that_is_not_unicode_in_a_span_costs_nothing() {
    for (name, spans) in [
        ("bad_text_in_span.jsonl", ["span 1", "span 2"]),
        ("bad_text_in_span.binpb", ["a", "kid"]),
    ] {
        let groups = groups(name);
        assert_eq!(names(&groups), spans);
        assert_eq!(
            text(&groups[0].spans[0].attributes[0].value),
            "cut \u{fffd}"
        );
    }
}

#[test]
fn short_names_of_status_and_kind_are_read() {
    let groups = groups("short_status_names.jsonl");
    let spans = &groups[0].spans;
    let codes: Vec<_> = spans.iter().map(|s| s.status.code).collect();
    let unset = StatusCode::Unset;
    assert_eq!(
        codes,
        [StatusCode::Error, StatusCode::Ok, unset, unset, unset]
    );
    assert_eq!(spans[0].status.message, "boom");
    assert_eq!(spans[3].kind, SpanKind::Server);
}

#[test]
fn of_a_doubled_key_the_last_counts() {
    assert_eq!(
        names(&groups("duplicate_json_key.jsonl")),
        ["again", "span 2"]
    );
}

#[test]
fn ids_of_64_bits_are_filled_up() {
    for name in ["short_trace_id.jsonl", "short_trace_id.binpb"] {
        let groups = groups(name);
        let id = groups[0].spans[0].trace_id.to_string();
        assert_eq!(id, "00000000000000005b8efff798038103", "{name}");
    }
}

#[test]
fn other_signals_are_passed_over() {
    let (groups, errors, other) = read("mixed_signals.jsonl");
    assert_eq!(names(&groups), ["span 1", "span 2", "span 3"]);
    assert_eq!((errors.len(), other), (0, 2));
}

#[test]
fn damaged_lines_are_named_and_the_others_read() {
    let (groups, errors, other) = read("damaged_line.jsonl");
    assert_eq!(names(&groups), ["span 1", "span 3", "span 4", "span 5"]);
    assert_eq!((errors.len(), other), (3, 0));
    for (error, place) in errors
        .iter()
        .zip(["line 2: ", "line 4: 32 zero bytes", "line 5: "])
    {
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[test]
fn snake_case_gets_an_advice_that_fits() {
    let (groups, errors, _) = read("snake_case.jsonl");
    assert!(groups.is_empty());
    let error = errors[0].to_string();
    assert!(error.contains("`resource_spans`"), "{error}");
    let mend = errors[0].mend_hint().unwrap();
    assert!(mend.contains("camelCase") && mend.contains("hex"), "{mend}");
    assert!(!mend.contains("metrics"), "{mend}");
}
