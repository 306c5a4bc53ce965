//! The made traces hold what their documentation says.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use trace_destination_core::{AnyValue, Attribute, SpanRecord};
use trace_destination_otlp::{ResourceSpans, decode_protobuf, sample};

fn requests() -> Vec<Vec<ResourceSpans>> {
    let requests = sample::generated();
    assert_eq!(requests, sample::generated(), "differs from call to call");
    requests
        .iter()
        .map(|r| decode_protobuf(r).unwrap())
        .collect()
}

fn kinds_of(value: &AnyValue, inside: &str, found: &mut BTreeSet<String>) {
    let kind = match value {
        AnyValue::Empty => "unset",
        AnyValue::Bool(_) => "bool",
        AnyValue::Int(_) => "int",
        AnyValue::Double(_) => "double",
        AnyValue::String(_) => "string",
        AnyValue::Bytes(_) => "bytes",
        AnyValue::Array(values) => {
            values.iter().for_each(|v| kinds_of(v, "list/", found));
            if values.is_empty() {
                "empty list"
            } else {
                "list"
            }
        }
        AnyValue::Map(entries) => {
            entries
                .iter()
                .for_each(|e| kinds_of(&e.value, "map/", found));
            if entries.is_empty() {
                "empty map"
            } else {
                "map"
            }
        }
    };
    found.insert(format!("{inside}{kind}"));
}

#[test]
fn every_kind_of_value_is_in_every_place() {
    let mut places: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut see = |place, attributes: &[Attribute]| {
        for attribute in attributes {
            kinds_of(&attribute.value, "", places.entry(place).or_default());
        }
    };
    for group in requests().into_iter().flatten() {
        see("resource", &group.resource.attributes);
        see("scope", &group.scope.attributes);
        for span in &group.spans {
            see("span", &span.attributes);
            span.events.iter().for_each(|e| see("event", &e.attributes));
            span.links.iter().for_each(|l| see("link", &l.attributes));
        }
    }
    assert_eq!(places.len(), 5);
    for (place, kinds) in places {
        for kind in [
            "unset",
            "bool",
            "int",
            "double",
            "string",
            "bytes",
            "empty list",
            "list",
            "empty map",
            "map",
        ] {
            for inside in ["", "list/"] {
                let kind = format!("{inside}{kind}");
                let odd = ["list/map", "list/list"].contains(&kind.as_str());
                assert!(odd || kinds.contains(&kind), "{place} has no {kind}");
            }
        }
        for kind in ["list/list", "list/map", "map/list", "map/map", "map/string"] {
            assert!(kinds.contains(kind), "{place} has no {kind}");
        }
    }
}

#[test]
fn spans_of_every_shape_are_there() {
    let requests = requests();
    let groups: Vec<_> = requests.iter().flatten().collect();
    assert!(groups.iter().all(|g| g.refused.is_empty()));
    let spans: Vec<&SpanRecord> = groups.iter().flat_map(|g| &g.spans).collect();
    let distinct = |f: &dyn Fn(&ResourceSpans) -> String| {
        groups.iter().map(|g| f(g)).collect::<BTreeSet<_>>().len()
    };
    assert!(distinct(&|g| format!("{:?}", g.resource)) >= 3);
    assert!(distinct(&|g| format!("{:?}", g.scope)) >= 3);
    let ids: BTreeSet<_> = spans
        .iter()
        .map(|s| (s.trace_id.to_string(), s.span_id.to_string()))
        .collect();
    assert_eq!(ids.len(), spans.len(), "a span is there twice");

    let seen = |f: &dyn Fn(&SpanRecord) -> String| {
        spans.iter().map(|s| f(s)).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(seen(&|s| format!("{:?}", s.kind)), 6);
    assert_eq!(
        seen(&|s| format!("{:?} {}", s.status.code, s.status.message.is_empty())),
        6
    );
    let any = |what: &str, f: &dyn Fn(&SpanRecord) -> bool| {
        assert!(spans.iter().any(|s| f(s)), "no span has {what}");
    };
    any("a trace state", &|s| !s.trace_state.is_empty());
    any("remote flags", &|s| s.flags & 0x300 == 0x300);
    any("no attributes", &|s| s.attributes.is_empty());
    any("an empty name", &|s| s.name.is_empty());
    any("lost attributes", &|s| s.dropped_attributes_count > 0);
    any("lost events", &|s| s.dropped_events_count > 0);
    any("lost links", &|s| s.dropped_links_count > 0);
    any("a full link", &|s| {
        s.links.iter().any(|l| {
            !l.trace_state.is_empty()
                && l.flags != 0
                && !l.attributes.is_empty()
                && l.dropped_attributes_count > 0
        })
    });
    any("an exception", &|s| {
        s.events.iter().any(|e| e.name == "exception")
    });
    any("no end", &|s| s.end_time_unix_nano == 0);
    any("an end before its start", &|s| {
        s.end_time_unix_nano < s.start_time_unix_nano && s.end_time_unix_nano > 0
    });
    let text = format!("{spans:?}");
    for word in [
        "chat",
        "embeddings",
        "execute_tool",
        "invoke_agent",
        "gen_ai.usage.input_tokens",
        "gen_ai.input.messages",
        "session.id",
        "user.id",
        "NaN",
        "inf",
        "-inf",
        "-9223372036854775808",
        "9223372036854775807",
        "\u{5c0f}",
    ] {
        assert!(text.contains(word), "no span says {word}");
    }
}

#[test]
fn a_trace_comes_in_several_requests_with_its_root_last() {
    let mut seen: HashMap<_, Vec<(usize, bool)>> = HashMap::new();
    for (i, request) in requests().iter().enumerate() {
        for span in request.iter().flat_map(|g| &g.spans) {
            seen.entry(span.trace_id)
                .or_default()
                .push((i, span.parent_span_id.is_none()));
        }
    }
    let root_last = |spans: &&Vec<(usize, bool)>| {
        let last = spans.last().unwrap();
        last.1
            && spans[..spans.len() - 1]
                .iter()
                .all(|s| !s.1 && s.0 < last.0)
    };
    assert!(seen.values().filter(|s| s.len() > 1).any(|s| root_last(&s)));
    assert!(
        seen.values().any(|s| s.iter().all(|s| !s.1)),
        "every trace has a root"
    );
}
