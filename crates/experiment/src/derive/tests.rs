//! The pure rules, against the rows of MLflow's own server in `tests/data/derive`.

use super::json::{Json, loads};
use super::*;
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;

/// What a trace has come to after some requests.
#[derive(Default)]
struct Trace {
    start_ms: Option<i64>,
    end_ms: Option<i64>,
    state: Option<&'static str>,
    request_preview: Option<String>,
    response_preview: Option<String>,
    name: Option<String>,
    session_id: Option<String>,
    user: Option<String>,
    tags: BTreeMap<String, String>,
    rollup: Rollup,
    /// A span had an end that was not given, or a cost that only MLflow computed.
    endless: bool,
    priced: bool,
    /// The root's input is a bare number, which an event can bring about.
    number_as_input: bool,
}

impl Trace {
    fn take(&mut self, facts: &SpanFacts) {
        let ms = facts.start_ns / 1_000_000;
        self.start_ms = Some(self.start_ms.map_or(ms, |v| v.min(ms)));
        match facts.end_ns.map(|ns| ns / 1_000_000) {
            Some(ms) => self.end_ms = Some(self.end_ms.map_or(ms, |v| v.max(ms))),
            None => self.endless = true,
        }
        self.session_id = self.session_id.take().or(facts.session_id.clone());
        self.user = self.user.take().or(facts.user_id.clone());
        let parent = facts.parent_span_id.as_deref();
        self.rollup
            .insert(&facts.span_id, parent, facts.usage, facts.cost);
        if let Some(root) = &facts.root {
            let input = json::member(&facts.content, "attributes")
                .and_then(|attributes| attributes.get(keys::INPUTS).cloned());
            self.number_as_input =
                matches!(input, Some(Json::Int(_) | Json::Float(_) | Json::Bool(_)));
            self.state = self.state.or(Some(root.state));
            self.request_preview = self.request_preview.take().or(root.request_preview.clone());
            self.response_preview = self
                .response_preview
                .take()
                .or(root.response_preview.clone());
            self.name = root.name.clone().or(self.name.take());
            self.tags.extend(root.tags.iter().cloned());
        }
    }
}

struct Golden {
    requests: Vec<Vec<u8>>,
    spans: Vec<Value>,
    traces: Vec<Value>,
}

fn golden(name: &str) -> Golden {
    let path = format!(
        "{}/tests/data/derive/{name}.json.gz",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&path).expect(&path))
        .read_to_string(&mut text)
        .unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let mut take = |key: &str| match file[key].take() {
        Value::Array(list) => list,
        other => panic!("{path}: {key} is {other}"),
    };
    let base64 = &base64::engine::general_purpose::STANDARD;
    Golden {
        requests: take("requests")
            .iter()
            .map(|r| base64.decode(r.as_str().unwrap()).unwrap())
            .collect(),
        spans: take("spans"),
        traces: take("traces"),
    }
}

/// Compares all rows of one file; gives the number of spans.
fn check(name: &str) -> usize {
    let golden = golden(name);
    let mut rows: BTreeMap<(String, String), SpanFacts> = BTreeMap::new();
    let mut traces: BTreeMap<String, Trace> = BTreeMap::new();
    for request in &golden.requests {
        let mut tagged = std::collections::BTreeSet::new();
        for group in trace_destination_otlp::decode_protobuf(request).unwrap() {
            assert!(group.refused.is_empty(), "{name}: {:?}", group.refused);
            for record in group.spans {
                let facts = span_facts(&record.into(), &group.resource)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let trace = traces.entry(facts.trace_id.clone()).or_default();
                if tagged.insert(facts.trace_id.clone()) {
                    trace.tags.extend(resource_tags(&group.resource));
                }
                trace.take(&facts);
                rows.insert((facts.trace_id.clone(), facts.span_id.clone()), facts);
            }
        }
    }
    assert_eq!(rows.len(), golden.spans.len(), "{name}: number of spans");
    assert_eq!(
        traces.len(),
        golden.traces.len(),
        "{name}: number of traces"
    );
    for row in &golden.spans {
        let key = (text(&row["trace_id"]), text(&row["span_id"]));
        let facts = rows.get(&key).unwrap_or_else(|| panic!("{name}: {key:?}"));
        if check_span(name, row, facts) {
            traces.get_mut(&key.0).unwrap().priced = true;
        }
    }
    for row in &golden.traces {
        check_trace(name, row, &traces[&text(&row["request_id"])]);
    }
    golden.spans.len()
}

/// Gives whether MLflow computed a cost that was not given.
fn check_span(name: &str, row: &Value, facts: &SpanFacts) -> bool {
    let at = |field: &str| {
        format!(
            "{name}: `{field}` of span {} `{}`",
            facts.span_id, facts.name
        )
    };
    let mut content = text(&row["content"]);
    let priced = content.contains(keys::COST) && !facts.content.contains(keys::COST);
    if priced {
        content = without_cost(&content);
    }
    match facts.end_ns {
        Some(end) => assert_eq!(row["end_time_unix_nano"], end, "{}", at("end")),
        // The server says 0, and shows a trace that ended in 1970.
        None => {
            assert_eq!(row["end_time_unix_nano"], 0, "{}", at("end"));
            let (zero, null) = ("_time_unix_nano\": 0,", "_time_unix_nano\": null,");
            content = content.replacen(zero, null, 1);
        }
    }
    assert_eq!(content, facts.content, "{}", at("content"));
    assert_eq!(
        row["parent_span_id"],
        option(&facts.parent_span_id),
        "{}",
        at("parent")
    );
    assert_eq!(row["name"], *facts.name, "{}", at("name"));
    assert_eq!(row["type"], option(&facts.span_type), "{}", at("type"));
    assert_eq!(row["status"], facts.status, "{}", at("status"));
    assert_eq!(
        row["start_time_unix_nano"],
        facts.start_ns,
        "{}",
        at("start")
    );
    assert_eq!(
        row["model_name"],
        option(&facts.model_name),
        "{}",
        at("model")
    );
    assert_eq!(
        row["model_provider"],
        option(&facts.model_provider),
        "{}",
        at("provider")
    );
    if !priced {
        let cost = facts.cost.unwrap_or_default().columns();
        for (key, value) in COST_KEYS.iter().zip(cost) {
            assert_eq!(row[*key].as_f64(), value, "{}", at(key));
        }
    }
    priced
}

fn check_trace(name: &str, row: &Value, trace: &Trace) {
    let at = |field: &str| format!("{name}: `{field}` of trace {}", row["request_id"]);
    assert_eq!(
        row["status"],
        trace.state.unwrap_or("IN_PROGRESS"),
        "{}",
        at("status")
    );
    assert_eq!(
        row["timestamp_ms"].as_i64(),
        trace.start_ms,
        "{}",
        at("time")
    );
    if !trace.endless {
        let duration = trace.end_ms.unwrap() - trace.start_ms.unwrap();
        assert_eq!(row["execution_time_ms"], duration, "{}", at("duration"));
    }
    for (field, value) in [
        ("request_preview", &trace.request_preview),
        ("response_preview", &trace.response_preview),
        ("trace_name", &trace.name),
        ("session_id", &trace.session_id),
        ("user", &trace.user),
    ] {
        // The server cannot measure a number and then leaves out the other preview as well.
        if trace.number_as_input && field == "response_preview" {
            assert!(row[field].is_null(), "{}", at(field));
            continue;
        }
        assert_eq!(row[field], option(value), "{}", at(field));
    }
    let tags: BTreeMap<String, String> = serde_json::from_value(row["tags"].clone()).unwrap();
    assert_eq!(tags, trace.tags, "{}", at("tags"));
    let usage = trace.rollup.usage().unwrap_or_default().columns();
    for (key, value) in USAGE_KEYS.iter().zip(usage) {
        assert_eq!(row[*key].as_i64(), value, "{}", at(key));
    }
    if !trace.priced {
        let cost = trace.rollup.cost().unwrap_or_default().columns();
        for (key, value) in COST_KEYS.iter().zip(cost) {
            // Sums of doubles depend on the order in the last digits.
            match (row[*key].as_f64(), value) {
                (Some(a), Some(b)) => assert!((a - b).abs() <= a.abs() * 1e-12, "{}", at(key)),
                (a, b) => assert_eq!(a, b, "{}", at(key)),
            }
        }
    }
}

fn without_cost(content: &str) -> String {
    let Some(Json::Dict(mut span)) = loads(content) else {
        panic!("not an object: {content}");
    };
    for (key, value) in &mut span {
        if let ("attributes", Json::Dict(attributes)) = (key.as_str(), value) {
            attributes.retain(|(key, _)| key != keys::COST);
        }
    }
    Json::Dict(span).dumps(false)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn option(value: &Option<String>) -> Value {
    value.clone().map_or(Value::Null, Value::String)
}

#[test]
fn rows_equal_those_of_mlflows_server_for_captured_agents() {
    assert_eq!(check("agents"), 252);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_the_made_sample() {
    assert_eq!(check("generated"), 49);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_every_kind_of_value() {
    assert_eq!(check("kinds"), 161);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_span_types_of_all_conventions() {
    assert_eq!(check("types"), 516);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_inputs_and_outputs_of_all_conventions() {
    assert_eq!(check("io"), 1025);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_usage_and_cost() {
    assert_eq!(check("usage"), 133);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_trace_level_values() {
    assert_eq!(check("trace"), 147);
}

#[test]
fn rows_equal_those_of_mlflows_server_for_random_attributes() {
    assert_eq!(check("random"), 544);
}

mod rules;
