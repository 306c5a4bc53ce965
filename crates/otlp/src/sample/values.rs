//! Attribute values of every kind, and values at the ends of their ranges.

use super::parts::{
    MS, event, group, instrumented, link, list, map, named, ok, shop, span, warehouse,
};
use std::sync::Arc;
use trace_destination_core::{AnyValue, Attribute, Resource, Scope, SpanGroup};

/// Every kind of value, alone and in each other.
fn all_kinds() -> Vec<(&'static str, AnyValue)> {
    let scalars = || {
        [
            AnyValue::Empty,
            true.into(),
            false.into(),
            (-7).into(),
            2.5.into(),
            "text".into(),
            "".into(),
            AnyValue::Bytes(vec![0, 1, 0x7f, 0x80, 0xff]),
            AnyValue::Bytes(Vec::new()),
            list([]),
            map([]),
        ]
    };
    vec![
        ("unset", AnyValue::Empty),
        ("bool", true.into()),
        ("int", 42.into()),
        ("double", 2.5.into()),
        ("double.integral", 3.0.into()),
        ("string", "text".into()),
        ("string.empty", "".into()),
        ("string.json_object", "{\"a\": [1, 2]}".into()),
        ("string.json_number", "5".into()),
        ("bytes", AnyValue::Bytes(b"\x00raw\xff".to_vec())),
        ("bytes.empty", AnyValue::Bytes(Vec::new())),
        ("list.empty", list([])),
        ("list.strings", list(["a".into(), "b".into()])),
        ("list.ints", list([1.into(), (-2).into()])),
        ("list.mixed", list(scalars())),
        (
            "list.of_lists",
            list([list([1.into()]), list([]), list(scalars())]),
        ),
        ("map.empty", map([])),
        (
            "map.nested",
            map([
                ("scalars", list(scalars())),
                (
                    "map",
                    map([("", "empty key".into()), ("x", map([("y", 1.into())]))]),
                ),
                (
                    "maps",
                    list([map([("n", 1.into())]), map([("n", 2.into())])]),
                ),
            ]),
        ),
        ("map.repeated_key", map([("k", 1.into()), ("k", 2.into())])),
        (
            "deep",
            (0..12).fold("bottom".into(), |v, i| {
                if i % 2 == 0 {
                    list([v])
                } else {
                    map([("down", v)])
                }
            }),
        ),
    ]
}

fn all_attributes() -> Vec<Attribute> {
    let kinds = all_kinds().into_iter();
    kinds.map(|(k, v)| Attribute::new(k, v)).collect()
}

/// Every kind of value in every place that has attributes.
pub(super) fn nested() -> Vec<SpanGroup> {
    let mut root = ok(span(1, 1, None, "values"));
    root.attributes = all_attributes();
    let mut child = span(1, 2, Some(1), "values in events and links");
    child.events.push(event("values", &child, all_attributes()));
    child.links.push(link(1, 1, all_attributes()));
    let mut resource = Resource::clone(&warehouse());
    resource.attributes.extend(all_attributes());
    let mut scope = Scope::clone(&instrumented());
    scope.attributes.extend(all_attributes());
    vec![group(
        &Arc::new(resource),
        &Arc::new(scope),
        vec![root, child],
    )]
}

/// Text that is empty, long, or from all over Unicode.
pub(super) fn texts() -> Vec<SpanGroup> {
    let mut unicode = ok(span(
        40,
        1,
        None,
        "gr\u{fc}\u{df}e \u{1f44b}\u{1f3fd} \u{5c0f}\u{888b}",
    ));
    for (key, value) in [
        ("combining", "e\u{301} n\u{303}"),
        ("right to left", "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{202e}abc"),
        ("joined", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}"),
        ("control", "tab\tline\r\nescape\u{1b}[0m bell\u{7}"),
        ("last", "\u{10ffff}\u{fffd}\u{feff}"),
        ("quotes", "\"double\" 'single' `back` \\ % _ ; --"),
        ("schl\u{fc}ssel \u{1f511}", "a key of Unicode"),
        ("", "a key of nothing"),
    ] {
        unicode.attributes.push(Attribute::new(key, value));
    }
    let long = span(40, 2, Some(1), "long").with_attribute("long", "l\u{e4}nge ".repeat(4_000));
    let mut empty = span(40, 3, Some(1), "");
    empty.attributes.push(Attribute::new("empty", ""));
    empty.events.push(event("", &empty, Vec::new()));
    let bare = span(41, 1, None, "no attributes at all");
    vec![
        group(&shop(), &named(), vec![unicode, long, empty]),
        // No resource and no scope to speak of.
        group(&Arc::default(), &Arc::default(), vec![bare]),
    ]
}

/// Numbers and times at the ends of their ranges.
pub(super) fn extremes() -> Vec<SpanGroup> {
    let numbers = span(50, 1, None, "numbers")
        .with_attribute("i64.min", i64::MIN)
        .with_attribute("i64.max", i64::MAX)
        .with_attribute("beyond 2^53", (1_i64 << 53) + 1)
        .with_attribute("f64.max", f64::MAX)
        .with_attribute("f64.smallest", f64::from_bits(1))
        .with_attribute("f64.tenth", 0.1)
        .with_attribute("-0.0", -0.0)
        .with_attribute("nan", f64::NAN)
        .with_attribute("inf", f64::INFINITY)
        .with_attribute("-inf", f64::NEG_INFINITY)
        .with_attribute(
            "nested",
            list([f64::NAN.into(), i64::MIN.into(), f64::INFINITY.into()]),
        );
    let mut unended = span(51, 1, None, "no end time");
    unended.end_time_unix_nano = 0;
    let mut backwards = span(52, 1, None, "ends before it starts");
    backwards.end_time_unix_nano = backwards.start_time_unix_nano - 5 * MS;
    let mut instant = span(53, 1, None, "takes no time");
    instant.end_time_unix_nano = instant.start_time_unix_nano;
    let mut epoch = span(54, 1, None, "starts with the epoch");
    epoch.start_time_unix_nano = 0;
    epoch.end_time_unix_nano = 1;
    let mut last = span(55, 1, None, "the last nanosecond of i64");
    last.start_time_unix_nano = i64::MAX as u64 - 1;
    last.end_time_unix_nano = i64::MAX as u64;
    vec![group(
        &shop(),
        &named(),
        vec![numbers, unended, backwards, instant, epoch, last],
    )]
}
