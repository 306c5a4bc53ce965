//! What the frozen answers of MLflow's server (`tests/equals_server.rs`) cannot show: refusals,
//! deliberate differences, order.

use super::json::loads;
use super::*;
use opentelemetry::trace::{SpanId, TraceId};
use trace_destination_core::{AnyValue, Attribute, SpanRecord};

fn record() -> SpanRecord {
    SpanRecord::new(
        TraceId::from(0xabcd),
        SpanId::from(0x12),
        "step",
        1_000_000,
        2_000_000,
    )
}

fn facts(record: SpanRecord) -> Result<SpanFacts, Error> {
    span_facts(&record.into(), &Resource::default())
}

fn map(entries: &[(&'static str, AnyValue)]) -> AnyValue {
    let attribute = |(key, value): &(&'static str, AnyValue)| Attribute::new(*key, value.clone());
    AnyValue::Map(entries.iter().map(attribute).collect())
}

#[test]
fn what_the_server_refuses_is_refused_naming_span_attribute_and_mend() {
    let cases: Vec<(&'static str, AnyValue, &str)> = vec![
        ("session.id", "s".repeat(251).into(), "session id"),
        (
            "gen_ai.conversation.id",
            "é".repeat(251).into(),
            "session id",
        ),
        ("mlflow.llm.cost", "cheap".into(), "`mlflow.llm.cost`"),
        ("mlflow.llm.cost", AnyValue::Empty, "`mlflow.llm.cost`"),
        ("mlflow.llm.cost", 1.5.into(), "`mlflow.llm.cost`"),
        ("mlflow.llm.cost", "{\"a\":".into(), "`mlflow.llm.cost`"),
        (
            "mlflow.llm.cost",
            map(&[("total_cost", "1".into())]),
            "`total_cost`",
        ),
        (
            "mlflow.chat.tokenUsage",
            map(&[("input_tokens", "5".into())]),
            "`input_tokens`",
        ),
        (
            "mlflow.chat.tokenUsage",
            map(&[("output_tokens", AnyValue::Empty)]),
            "`output_tokens`",
        ),
        (
            "mlflow.chat.tokenUsage",
            "{\"cache_read_input_tokens\":[]}".into(),
            "`cache_read_input_tokens`",
        ),
        (
            "mlflow.spanType",
            AnyValue::Array(vec!["TOOL".into()]),
            "`mlflow.spanType`",
        ),
        (
            "mlflow.traceTag.mlflow.traceName",
            "n".repeat(4097).into(),
            "trace name",
        ),
    ];
    for (key, value, named) in cases {
        let error = facts(record().with_attribute(key, value.clone())).expect_err(key);
        assert_eq!(error.kind(), ErrorKind::InvalidSpan, "{key}");
        let text = error.to_string();
        assert!(text.contains("span `step` (0000000000000012"), "{text}");
        assert!(text.contains(named), "{key}={value:?}: {text}");
        assert!(error.mend_hint().is_some(), "{text}");
    }
    for (start, end) in [(1 << 63, 1 << 63), (0, 1 << 63), (u64::MAX, 0)] {
        let mut late = record();
        (late.start_time_unix_nano, late.end_time_unix_nano) = (start, end);
        assert_eq!(facts(late).unwrap_err().kind(), ErrorKind::InvalidSpan);
    }
}

#[test]
fn the_longest_that_is_allowed_is_stored() {
    let facts = facts(
        record()
            .with_attribute("session.id", "é".repeat(250))
            .with_attribute("mlflow.traceTag.mlflow.traceName", "é".repeat(4096)),
    )
    .unwrap();
    assert_eq!(facts.session_id.unwrap().chars().count(), 250);
    assert_eq!(facts.root.unwrap().name.unwrap().chars().count(), 4096);
}

#[test]
fn a_span_without_an_end_has_none() {
    let mut open = record();
    open.end_time_unix_nano = 0;
    let facts = facts(open).unwrap();
    assert_eq!(facts.end_ns, None);
    assert!(facts.content.contains("\"end_time_unix_nano\": null"));
}

#[test]
fn a_trace_without_a_name_can_fall_back_to_its_roots() {
    let root = facts(record()).unwrap().root.unwrap();
    assert_eq!((root.name, root.fallback_name.as_str()), (None, "step"));
}

#[test]
fn tags_that_would_hide_the_trace_are_left_out() {
    let mut span = record().with_attribute("mlflow.traceTag.env", "prod");
    for key in keys::RESERVED_TAGS {
        span = span.with_attribute(format!("mlflow.traceTag.{key}"), "elsewhere");
    }
    let tags = facts(span).unwrap().root.unwrap().tags;
    assert_eq!(tags, [("env".to_owned(), "prod".to_owned())]);
}

#[test]
fn a_kind_that_is_no_word_is_ignored() {
    let list = AnyValue::Array(vec!["LLM".into()]);
    let facts = facts(record().with_attribute("openinference.span.kind", list)).unwrap();
    assert!(!facts.content.contains("mlflow.spanType"));
}

#[test]
fn a_lone_surrogate_in_json_becomes_a_replacement_character() {
    let facts = facts(record().with_attribute("session.id", "\"a\\ud800b\"")).unwrap();
    assert_eq!(facts.session_id.as_deref(), Some("a\u{fffd}b"));
    assert!(
        facts.content.contains("\\\"a\\\\ud800b\\\""),
        "kept as sent: {}",
        facts.content
    );
}

#[test]
fn text_that_nests_too_deep_stays_text() {
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let facts = facts(record().with_attribute("deep", deep.clone())).unwrap();
    assert!(
        facts
            .content
            .contains(&format!("\"deep\": \"\\\"{deep}\\\"\""))
    );
}

#[test]
fn a_value_that_nests_too_deep_is_refused() {
    let nested =
        |depth: usize| (0..depth).fold(AnyValue::Int(1), |inner, _| AnyValue::Array(vec![inner]));
    let text = |span| {
        facts(span)
            .map(|f| f.content.len())
            .map_err(|e| e.to_string())
    };
    text(record().with_attribute("v", nested(128))).unwrap();
    let error = text(record().with_attribute("v", nested(129))).unwrap_err();
    assert!(error.contains("nests more than 128"), "{error}");
    let mut linked = record();
    linked.links.push(trace_destination_core::Link {
        trace_id: linked.trace_id,
        span_id: linked.span_id,
        trace_state: String::new(),
        flags: 0,
        attributes: vec![Attribute::new("v", nested(129))],
        dropped_attributes_count: 0,
    });
    assert!(text(linked).is_err());
}

#[test]
fn the_deepest_json_text_is_read_without_harm() {
    let list = "[".repeat(940) + &"]".repeat(940);
    let facts = facts(
        record()
            .with_attribute("mlflow.spanInputs", format!("{{\"messages\":{list}}}"))
            .with_attribute("input.value", list.clone())
            .with_attribute("gen_ai.request.model", list),
    )
    .unwrap();
    assert_eq!(facts.model_name, Some("[".repeat(500)));
}

#[test]
fn stored_content_gives_usage_and_cost_back() {
    let usage = map(&[
        ("input_tokens", 7i64.into()),
        ("output_tokens", 2i64.into()),
    ]);
    let cost = map(&[("total_cost", 0.25.into())]);
    let facts = facts(
        record()
            .with_attribute("mlflow.chat.tokenUsage", usage)
            .with_attribute("mlflow.llm.cost", cost),
    )
    .unwrap();
    assert!(facts.usage.is_some() && facts.cost.is_some());
    assert_eq!(stored_values(&facts.content), (facts.usage, facts.cost));
    assert_eq!(stored_values("not JSON"), (None, None));
    assert_eq!(stored_values("{}"), (None, None));
}

#[test]
fn a_span_speaks_for_its_subtree_whatever_the_order() {
    let usage = |n: i64| {
        let text = format!("{{\"input_tokens\": {n}}}");
        Some(Usage::of(&loads(&text).unwrap()).unwrap())
    };
    let spans = [
        ("01", None, None),
        ("02", Some("01"), usage(10)),
        ("03", Some("02"), None),
        ("04", Some("03"), usage(5)),
        ("05", Some("01"), usage(1)),
    ];
    let total = |rollup: &Rollup| rollup.usage().unwrap().columns()[0];
    for start in 0..spans.len() {
        for back in [false, true] {
            let mut rollup = Rollup::default();
            for i in 0..spans.len() {
                let i = if back { spans.len() - 1 - i } else { i };
                let (id, parent, usage) = spans[(start + i) % spans.len()];
                rollup.insert(id, parent, usage, None);
            }
            assert_eq!(total(&rollup), Some(11), "from {start}, backwards: {back}");
            rollup.insert("02", Some("01"), usage(10), None);
            assert_eq!(total(&rollup), Some(11), "the same again");
            rollup.insert("02", Some("01"), None, None);
            assert_eq!(total(&rollup), Some(6), "again, without usage");
        }
    }
}

#[test]
fn usage_and_cost_hide_each_their_own() {
    let value = |text: &str| loads(text).unwrap();
    let usage = Usage::of(&value("{\"input_tokens\": 3}")).ok();
    let cost = Cost::of(&value("{\"total_cost\": 0.5}")).ok();
    let mut rollup = Rollup::default();
    rollup.insert("03", Some("02"), usage, cost);
    rollup.insert("02", Some("01"), usage, None);
    rollup.insert("01", None, None, cost);
    assert_eq!(rollup.usage().unwrap().columns()[0], Some(3));
    assert_eq!(
        rollup.cost().unwrap().columns(),
        [Some(0.0), Some(0.0), Some(0.5)]
    );
    assert_eq!(
        rollup.usage().unwrap().to_json(),
        "{\"input_tokens\": 3, \"output_tokens\": 0, \"total_tokens\": 0}"
    );
    assert_eq!(
        rollup.cost().unwrap().to_json(),
        "{\"input_cost\": 0.0, \"output_cost\": 0.0, \"total_cost\": 0.5}"
    );
}

#[test]
fn a_ring_of_parents_ends() {
    let usage = Usage::of(&loads("{\"input_tokens\": 1}").unwrap()).ok();
    let mut rollup = Rollup::default();
    rollup.insert("01", Some("01"), usage, None);
    rollup.insert("02", Some("03"), None, None);
    rollup.insert("03", Some("02"), usage, None);
    assert_eq!(rollup.usage(), None);
}

#[test]
fn floats_print_as_in_python() {
    let table = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (9999999999999998.0, "9999999999999998.0"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.5e-5, "1.5e-05"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (value, text) in table {
        assert_eq!(json::float_text(value), text);
    }
}
