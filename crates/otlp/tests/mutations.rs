//! Captured requests with one field at a time changed: missing, doubled, of another type, out of
//! range, not Unicode. Whatever happens to one span, those beside it are decoded as before.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use trace_destination_core::SpanRecord;
use trace_destination_otlp::{OtlpFile, ResourceSpans, decode_json, decode_protobuf, sample};

/// Spans of a request that is small enough to be decoded thousands of times.
const SPANS: usize = 3;

static CAPTURED: LazyLock<Value> = LazyLock::new(captured);
static PROTOBUF: LazyLock<Vec<ResourceSpans>> =
    LazyLock::new(|| decode_protobuf(sample::captured()).unwrap());

fn captured() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents.otlp.jsonl");
    let mut request: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let list = &mut request["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let mut spans: Vec<Value> = list
        .as_array()
        .unwrap()
        .iter()
        .take(SPANS)
        .cloned()
        .collect();
    let attribute = json!({"key": "a", "value": {"arrayValue": {"values": [
        {"intValue": "1"}, {"doubleValue": 0.5}, {"boolValue": true}, {"bytesValue": "AQI="},
        {"kvlistValue": {"values": [{"key": "b", "value": {"stringValue": "c"}}]}},
    ]}}});
    // Short, since all of it is decoded for every change.
    for attribute in spans
        .iter_mut()
        .flat_map(|s| s["attributes"].as_array_mut())
        .flatten()
    {
        if let Some(Value::String(text)) = attribute.pointer_mut("/value/stringValue") {
            *text = text.chars().take(20).collect::<String>();
        }
    }
    // With events, links and every field.
    let more = json!({
        "parentSpanId": "00000000000000ff", "traceState": "a=b", "flags": 1, "kind": 2,
        "attributes": [attribute], "droppedAttributesCount": 1,
        "events": [{"name": "e", "timeUnixNano": "5", "attributes": [attribute]}],
        "droppedEventsCount": 2,
        "links": [{"traceId": "0000000000000000000000000000000f", "spanId": "000000000000000f",
            "traceState": "c=d", "flags": 1, "attributes": [attribute]}],
        "droppedLinksCount": 3, "status": {"code": 2, "message": "m"},
    });
    for (key, value) in more.as_object().unwrap() {
        spans[1][key] = value.clone();
    }
    *list = Value::Array(spans);
    request["resourceSpans"][0]["resource"]["droppedAttributesCount"] = json!(1);
    let scope = json!({"name": "s", "version": "1", "attributes": [attribute]});
    request["resourceSpans"][0]["scopeSpans"][0]["scope"] = scope;
    request
}

/// Pointers to every value below one.
fn pointers(value: &Value, at: &str, list: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(i, v)| (format!("{at}/{i}"), v)).collect()
        }
        Value::Object(map) => map.iter().map(|(k, v)| (format!("{at}/{k}"), v)).collect(),
        _ => Vec::new(),
    };
    for (pointer, value) in below {
        list.push(pointer.clone());
        pointers(value, &pointer, list);
    }
}

/// Texts of JSON to put in the place of a value. `#` stands for the value itself.
const OTHERS: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "4294967296",
    "18446744073709551616",
    "1e400",
    "-1e-400",
    "\"\"",
    "\"text\"",
    "\"-7\"",
    "\"99999999999999999999999999\"",
    "\"NaN\"",
    r#""\ud800""#,
    r#""\udc00\ud83d""#,
    "\"\u{fffe}\"",
    "\"@bytes@\"",
    "[]",
    "[null]",
    "[\"text\"]",
    "[[[]]]",
    "{}",
    "{\"a\":1}",
    "{\"\\ud800\":#}",
    "[#]",
    "[#,#]",
    "{\"values\":#}",
    "NaN",
    "-Infinity",
];

/// How one value of the request changes.
#[derive(Debug, Clone)]
enum Change {
    Missing,
    Doubled(usize),
    Other(usize),
}

/// Every other value, in the place of one, and some of them beside it.
fn changes() -> impl Iterator<Item = Change> {
    let all = 0..OTHERS.len();
    let some = all.clone().step_by(5);
    all.map(Change::Other).chain(some.map(Change::Doubled))
}

/// The request with one value changed, as bytes; some changes are no Unicode.
fn mutated(request: &Value, pointer: &str, change: &Change) -> Vec<u8> {
    let marker = "\u{1}marker\u{1}";
    let mut request = request.clone();
    let original = request.pointer(pointer).unwrap().to_string();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let others = |i: usize| OTHERS[i % OTHERS.len()].replace('#', &original);
    let text = match change {
        Change::Missing => {
            match request.pointer_mut(parent).unwrap() {
                Value::Array(items) => drop(items.remove(key.parse().unwrap())),
                Value::Object(map) => drop(map.remove(key)),
                _ => unreachable!(),
            }
            request.to_string()
        }
        Change::Doubled(i) | Change::Other(i) => {
            *request.pointer_mut(pointer).unwrap() = Value::String(marker.into());
            let mut replacement = others(*i);
            if let (Change::Doubled(_), Err(_)) = (change, key.parse::<usize>()) {
                replacement = format!("{original},\"{key}\":{replacement}");
            }
            let marker = serde_json::to_string(marker).unwrap();
            request.to_string().replace(&marker, &replacement)
        }
    };
    let mut bytes = text.into_bytes();
    // No UTF-8, where a text asked for it.
    while let Some(at) = bytes.windows(7).position(|w| w == b"@bytes@") {
        bytes.splice(at..at + 7, *b"a\xff\xc3\xed\xa0\x80b");
    }
    bytes
}

fn spans(groups: &[ResourceSpans]) -> Vec<&SpanRecord> {
    groups.iter().flat_map(|g| &g.spans).collect()
}

/// Every field of one span with everything: the others are there, and so is it or a refusal.
#[test]
fn whatever_a_field_of_a_span_holds_costs_no_other_span() {
    let request = &*CAPTURED;
    let whole = decode_json(request.to_string().as_bytes()).unwrap();
    let expected = spans(&whole);
    let at = "/resourceSpans/0/scopeSpans/0/spans/1";
    let mut list = vec![at.to_owned()];
    pointers(request.pointer(at).unwrap(), at, &mut list);
    let mut stored = 0;
    let mut all = 0;
    for pointer in &list {
        let others = changes();
        for change in others.chain([Change::Missing]) {
            let bytes = mutated(request, pointer, &change);
            let groups = decode_json(&bytes).unwrap();
            let got = spans(&groups);
            let kept: Vec<_> = got
                .iter()
                .filter(|s| s.span_id != expected[1].span_id)
                .collect();
            let others = expected.iter().enumerate().filter(|(i, _)| *i != 1);
            for (_, span) in others {
                assert!(
                    kept.contains(&span),
                    "{pointer} {change:?} cost {}",
                    span.name
                );
            }
            let refused: usize = groups.iter().map(|g| g.refused.len()).sum();
            if *pointer != at {
                assert_eq!(got.len() + refused, SPANS, "{pointer} {change:?}");
            }
            all += 1;
            stored += usize::from(refused == 0);
        }
    }
    // Most changes are no reason to lose the span either.
    assert!(stored * 2 > all, "{stored} of {all}");
}

/// Whatever is wrong with a resource or scope, but for the lists below it, costs no span at all.
#[test]
fn whatever_a_field_of_a_resource_or_scope_holds_costs_no_span() {
    let request = &*CAPTURED;
    let mut list = Vec::new();
    for at in [
        "/resourceSpans/0/resource",
        "/resourceSpans/0/scopeSpans/0/scope",
    ] {
        list.push(at.to_owned());
        pointers(request.pointer(at).unwrap(), at, &mut list);
    }
    for pointer in &list {
        let others = changes();
        for change in others.chain([Change::Missing]) {
            let groups = decode_json(&mutated(request, pointer, &change)).unwrap();
            assert_eq!(spans(&groups).len(), SPANS, "{pointer} {change:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any two values of a request, in a file between two good lines.
    #[test]
    fn whatever_a_line_holds_costs_no_other_line(
        places in prop::collection::vec((any::<Index>(), 0..3usize, any::<Index>()), 1..3),
    ) {
        let request = &*CAPTURED;
        let line = request.to_string();
        let mut list = Vec::new();
        pointers(request, "", &mut list);
        let mut text = format!("{line}\n").into_bytes();
        for (place, how, other) in &places {
            let pointer = place.get(&list);
            let other = other.index(OTHERS.len());
            let change = [Change::Missing, Change::Doubled(other), Change::Other(other)][*how].clone();
            text.extend(mutated(request, pointer, &change));
            text.push(b'\n');
        }
        text.extend(line.as_bytes());
        let file = OtlpFile::from_reader(std::io::Cursor::new(text), "mutated.jsonl").unwrap();
        let items: Vec<_> = file.collect();
        for item in [items.first(), items.last()] {
            let groups = item.unwrap().as_ref().unwrap();
            prop_assert_eq!(spans(groups).len(), SPANS);
            prop_assert_eq!(groups[0].faults.len(), 0);
        }
        prop_assert_eq!(items.len(), places.len() + 2);
    }

    /// Any byte of any span changed, cut out or put in: the spans of the other parts are there.
    #[test]
    fn whatever_a_protobuf_span_holds_costs_no_other_span(
        span in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3usize), 1..8),
    ) {
        let captured = &*PROTOBUF;
        let all: Vec<_> = captured.iter().flat_map(|g| &g.spans).take(12).cloned().collect();
        let encode = |spans: Vec<SpanRecord>| {
            let group = trace_destination_core::SpanGroup {
                resource: captured[0].resource.clone(),
                scope: captured[0].scope.clone(),
                spans: spans.into_iter().map(Into::into).collect(),
            };
            trace_destination_otlp::encode_protobuf(&[group])
        };
        let nth = span.index(all.len());
        // The span's own bytes, at the end of a request that holds it alone.
        let alone = encode(vec![all[nth].clone()]);
        let bare = encode(Vec::new());
        prop_assert!(alone.len() > bare.len());
        let mut request = alone;
        let own = request.len() - 100.min(request.len() - bare.len() - 20);
        for (place, byte, how) in changes {
            let at = own + place.index(request.len() - own);
            match how {
                0 => request[at] = byte,
                1 => request[at] ^= 1 << (byte % 8),
                _ => request.swap(at, own),
            }
        }
        let rest: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != nth).map(|(_, s)| s.clone()).collect();
        let bytes = [encode(rest.clone()), request, encode(rest.clone())].concat();
        let groups = decode_protobuf(&bytes).unwrap();
        let ids: HashSet<_> = spans(&groups).iter().map(|s| s.span_id).collect();
        for span in &rest {
            prop_assert!(ids.contains(&span.span_id), "{}", span.name);
        }
    }
}
