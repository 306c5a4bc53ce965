#![no_main]
//! Spans to the values of their trace. Each line is an attribute, `key value`, with the value as JSON or
//! as text; an empty line begins the next span, which is a child of the one before, and a line that
//! begins with `!` an event. Bounds hold, what is stored is JSON and gives back what the span gave, and
//! totals do not depend on the order.
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use trace_destination_core::SpanGroup;
use trace_destination_experiment::fuzzing::{Derived, derive, read_back, totals};
use trace_destination_otlp::decode_json;

mod error_text;

/// A value as OTLP writes it; depth is bounded by the decoder of JSON.
fn otlp(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(v) => json!({ "boolValue": v }),
        Value::Number(n) if n.is_f64() => json!({ "doubleValue": n }),
        Value::Number(n) => json!({ "intValue": n.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(list) => {
            json!({ "arrayValue": { "values": list.iter().map(otlp).collect::<Vec<_>>() } })
        }
        Value::Object(map) => {
            let entry = |(key, value)| json!({ "key": key, "value": otlp(value) });
            json!({ "kvlistValue": { "values": map.iter().map(entry).collect::<Vec<_>>() } })
        }
    }
}

fn attribute(line: &str) -> Option<Value> {
    let (key, text) = line.split_once(' ')?;
    let value = match text.strip_prefix('=') {
        Some(json) => serde_json::from_str(json).unwrap_or_else(|_| json.into()),
        None => Value::from(text),
    };
    Some(json!({ "key": key, "value": otlp(&value) }))
}

fn spans(text: &str) -> Vec<SpanGroup> {
    let mut spans = Vec::new();
    for (i, part) in text.split("\n\n").take(8).enumerate() {
        let lines = || part.lines().filter(|line| !line.starts_with('!'));
        let events: Vec<Value> = part
            .lines()
            .filter_map(|line| line.strip_prefix('!'))
            .map(|line| {
                let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
                let attributes: Vec<Value> = attribute(rest).into_iter().collect();
                json!({ "name": name, "attributes": attributes })
            })
            .collect();
        let mut span = json!({
            "traceId": "0000000000000000000000000000000a",
            "spanId": format!("{:016x}", i + 1),
            "name": "span",
            "startTimeUnixNano": "1000000",
            "endTimeUnixNano": "2000000",
            "attributes": lines().filter_map(attribute).collect::<Vec<_>>(),
            "events": events,
        });
        if i > 0 {
            span["parentSpanId"] = format!("{i:016x}").into();
        }
        spans.push(span);
    }
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": text.lines().take(2).filter_map(attribute).collect::<Vec<_>>() },
        "scopeSpans": [{ "spans": spans }],
    }] });
    let decoded = decode_json(request.to_string().as_bytes()).unwrap_or_default();
    decoded
        .into_iter()
        .map(|group| group.into_group())
        .collect()
}

/// Whether a number may be no whole one, or too large for one.
fn may_hold_doubles(content: &str) -> bool {
    let bytes = content.as_bytes();
    let mut digits = 0;
    for (i, byte) in bytes.iter().enumerate() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        let follows = i > 0 && bytes[i - 1].is_ascii_digit();
        if digits > 30 || (follows && b".eE".contains(byte)) {
            return true;
        }
    }
    content.contains("NaN") || content.contains("Infinity")
}

fn check(span: &Derived) {
    let longer = |text: &Option<String>, limit: usize| {
        text.as_ref()
            .is_some_and(|text| text.chars().count() > limit)
    };
    assert!(!span.previews.iter().any(|preview| longer(preview, 1000)));
    let [session, user, model, provider] = &span.names;
    assert!(!longer(session, 250) && !longer(model, 500) && !longer(provider, 500));
    assert!(session.as_deref() != Some("") && user.as_deref() != Some(""));
    // Python's JSON knows numbers that serde_json's does not.
    let odd = ["NaN", "Infinity"]
        .iter()
        .any(|word| span.content.contains(word));
    let content: Result<Value, _> = serde_json::from_str(&span.content);
    // Whole numbers of any length and deep text are kept as they are.
    if !odd && let Err(error) = &content {
        let text = error.to_string();
        let is_number = text.contains("out of range");
        assert!(
            is_number || text.contains("recursion"),
            "{text}: {}",
            span.content
        );
    }
    let [given, found] = read_back(span);
    assert_eq!(given, found, "{}", span.content);
}

fuzz_target!(|text: &str| {
    let groups = spans(text);
    let derived = derive(&groups);
    assert_eq!(format!("{derived:?}"), format!("{:?}", derive(&groups)));
    for refused in derived.iter().filter_map(|span| span.as_ref().err()) {
        error_text::check(refused, &[]);
    }
    let kept: Vec<&Derived> = derived.iter().flatten().collect();
    for span in &kept {
        check(span);
    }
    let forward = totals(kept.iter().copied());
    let backward = totals(kept.iter().rev().copied());
    let again = totals(kept.iter().chain(&kept).copied());
    assert_eq!(forward.0, again.0);
    // Sums of doubles may differ in their last digit, and depend on what is added first.
    if !kept.iter().any(|span| may_hold_doubles(&span.content)) {
        assert_eq!(forward.0, backward.0, "{text}");
    }
});
