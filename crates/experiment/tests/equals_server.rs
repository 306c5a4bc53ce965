//! The rows in the database are those of MLflow's own server for the same OTLP, in the newest shape
//! and in the oldest. The server's rows are frozen in `data/derive`; what differs on purpose is
//! named here, and explained in `docs/mlflow-differences.md`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use base64::Engine as _;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{BatchId, SpanGroup, TraceBatch, TraceLocation};

const COST: &str = "mlflow.llm.cost";
const COSTS: [&str; 3] = ["input_cost", "output_cost", "total_cost"];
const TOKENS: [&str; 6] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
];

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
            .map(|r| base64.decode(text_of(r)).unwrap())
            .collect(),
        spans: take("spans"),
        traces: take("traces"),
    }
}

/// Stores each request as one batch, as the server stores it in one go; gives what is special about
/// its traces so far.
async fn store_requests(path: &Path, requests: &[Vec<u8>]) -> BTreeMap<String, Special> {
    let mut traces: BTreeMap<String, Special> = BTreeMap::new();
    let sink = at(path, "equal").open().await.unwrap();
    for (sequence, request) in requests.iter().enumerate() {
        let groups = trace_destination_otlp::decode_protobuf(request).unwrap();
        let groups = groups
            .into_iter()
            .map(|group| {
                assert!(group.refused.is_empty(), "{:?}", group.refused);
                for span in &group.spans {
                    let special = traces.entry(format!("tr-{}", span.trace_id)).or_default();
                    if span.parent_span_id.is_none() {
                        special.roots.push(span.name.to_string());
                    }
                }
                SpanGroup {
                    resource: group.resource,
                    scope: group.scope,
                    spans: group.spans.into_iter().map(Into::into).collect(),
                }
            })
            .collect();
        let id = BatchId {
            writer: uuid::Uuid::from_u128(1),
            sequence: sequence as u64,
        };
        let written = sink.write(&TraceBatch::new(id, groups, Vec::new())).await;
        assert!(written.as_ref().unwrap().refused.is_empty(), "{written:?}");
    }
    sink.close().await.unwrap();
    traces
}

/// Compares both shapes with the server's rows.
fn check(name: &str, spans: usize) {
    let golden = golden(name);
    assert_eq!(golden.spans.len(), spans, "{name}");
    for shape in [HEAD, OLDEST] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("mlflow.db");
        drop(made_by_mlflow(&path, shape));
        let mut traces = run(store_requests(&path, &golden.requests));
        let stored = Stored::read(&path, shape == HEAD);
        assert_eq!(stored.spans.len(), golden.spans.len(), "{name}");
        for row in &golden.spans {
            let key = (text_of(&row["trace_id"]), text_of(&row["span_id"]));
            let special = traces.get_mut(&key.0).unwrap();
            check_span(name, row, &stored.spans[&key], special, shape == HEAD);
        }
        assert_eq!(stored.traces.len(), golden.traces.len(), "{name}");
        for row in &golden.traces {
            let id = text_of(&row["request_id"]);
            check_trace(name, row, &stored.traces[&id], &traces[&id]);
        }
        assert_sound(&path);
    }
}

/// What makes a trace differ on purpose.
#[derive(Default)]
struct Special {
    /// The server computed a cost that no span states.
    priced: bool,
    /// A span has no end.
    endless: bool,
    /// The root's input is a bare number, which an event can bring about.
    number_as_input: bool,
    /// Names that roots had, also one that was sent again under another name.
    roots: Vec<String>,
}

fn check_span(name: &str, server: &Value, ours: &Value, special: &mut Special, columns: bool) {
    let mut server = server.clone();
    let at = format!("{name}: span {} {}", server["span_id"], server["name"]);
    let mut content = text_of(&server["content"]);
    let here = text_of(&ours["content"]);
    if server["parent_span_id"].is_null() {
        special.number_as_input |= has_bare_number_as_input(&content);
    }
    if content.contains(COST) && !here.contains(COST) {
        special.priced = true;
        content = without_cost(&content);
        for key in COSTS {
            server[key] = Value::Null;
        }
    }
    if server["end_time_unix_nano"] == 0 {
        special.endless = true;
        server["end_time_unix_nano"] = Value::Null;
        let (zero, null) = ("_time_unix_nano\": 0,", "_time_unix_nano\": null,");
        content = content.replacen(zero, null, 1);
    }
    assert_eq!(content, here, "{at}");
    for (key, value) in server.as_object().unwrap() {
        // Models and costs have no columns in the oldest shape.
        let promoted = key.contains("_cost") || key.starts_with("model_");
        if key != "content" && (columns || !promoted) {
            assert_eq!(*value, ours[key], "{at}: {key}");
        }
    }
}

fn check_trace(name: &str, server: &Value, ours: &Value, special: &Special) {
    let at = format!("{name}: trace {}", server["request_id"]);
    for (key, value) in server.as_object().unwrap() {
        let ours = &ours[key];
        let at = format!("{at}: {key}");
        match key.as_str() {
            "trace_name" if value.is_null() => match special.roots.as_slice() {
                [] => assert!(ours.is_null(), "{at}"),
                roots => assert!(
                    roots.contains(&text_of(ours)),
                    "{at}: {ours}, not {roots:?}"
                ),
            },
            "execution_time_ms" if special.endless => {}
            // The server cannot measure a number and then leaves out the other preview as well.
            "response_preview" if special.number_as_input => assert!(value.is_null(), "{at}"),
            key if COSTS.contains(&key) => match (value.as_f64(), ours.as_f64()) {
                _ if special.priced => {}
                // Sums of doubles depend on the order in the last digits.
                (Some(a), Some(b)) => assert!((a - b).abs() <= a.abs() * 1e-12, "{at}: {a} {b}"),
                (a, b) => assert_eq!(a, b, "{at}"),
            },
            _ => assert_eq!(value, ours, "{at}"),
        }
    }
}

/// What the database holds, in the form of the frozen rows.
struct Stored {
    spans: BTreeMap<(String, String), Value>,
    traces: BTreeMap<String, Value>,
}

impl Stored {
    fn read(path: &Path, columns: bool) -> Self {
        let conn = Connection::open(path).unwrap();
        let table = |sql: &str| -> Vec<Value> {
            let mut statement = conn.prepare(sql).unwrap();
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let rows = statement.query_map([], |row| Ok(object(&names, row)));
            rows.unwrap().collect::<Result<_, _>>().unwrap()
        };
        let pairs = |sql: &str| {
            let mut all: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
            for row in table(sql) {
                all.entry(text_of(&row["request_id"]))
                    .or_default()
                    .insert(text_of(&row["key"]), row["value"].clone());
            }
            all
        };
        let mut tags = pairs("SELECT request_id, \"key\", value FROM trace_tags");
        let mut metadata = pairs("SELECT request_id, \"key\", value FROM trace_request_metadata");
        let traces = table("SELECT * FROM trace_info")
            .into_iter()
            .map(|mut trace| {
                let id = text_of(&trace["request_id"]);
                let mut tags = tags.remove(&id).unwrap_or_default();
                let mut metadata = metadata.remove(&id).unwrap_or_default();
                assert!(tags.remove("mlflow.artifactLocation").is_some(), "{id}");
                let place = tags.remove("mlflow.trace.spansLocation");
                assert_eq!(place, Some(json!("TRACKING_STORE")), "{id}");
                if !columns {
                    trace["trace_name"] = tags.remove("mlflow.traceName").into();
                    trace["session_id"] = metadata.remove("mlflow.trace.session").into();
                    for (row, keys) in [
                        ("mlflow.trace.tokenUsage", &TOKENS[..]),
                        ("mlflow.trace.cost", &COSTS[..]),
                    ] {
                        let text = metadata.remove(row).map_or("{}".into(), |v| text_of(&v));
                        let values: Value = serde_json::from_str(&text).unwrap();
                        for key in keys {
                            trace[*key] = values[*key].clone();
                        }
                    }
                }
                trace["user"] = metadata.remove("mlflow.trace.user").into();
                assert!(metadata.is_empty(), "{id}: {metadata:?}");
                trace["tags"] = tags.into();
                (id, trace)
            })
            .collect();
        let spans = table("SELECT * FROM spans")
            .into_iter()
            .map(|span| {
                (
                    (text_of(&span["trace_id"]), text_of(&span["span_id"])),
                    span,
                )
            })
            .collect();
        Self { spans, traces }
    }
}

fn object(names: &[String], row: &Row<'_>) -> Value {
    let value = |i: usize| match row.get_ref(i).unwrap() {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => json!(v),
        ValueRef::Real(v) => json!(v),
        ValueRef::Text(v) => json!(std::str::from_utf8(v).unwrap()),
        ValueRef::Blob(v) => panic!("{} is a blob: {v:?}", names[i]),
    };
    let entries = names.iter().enumerate();
    Value::Object(entries.map(|(i, n)| (n.clone(), value(i))).collect())
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Cuts the cost out of a span's JSON, with the separator before it.
fn without_cost(content: &str) -> String {
    let from = content.find(&format!(", \"{COST}\": ")).expect(content);
    // A JSON text of a flat object: the first brace closes it, and a quotation mark ends it.
    let length = content[from..].find("}\"").expect(content) + 2;
    format!("{}{}", &content[..from], &content[from + length..])
}

fn has_bare_number_as_input(content: &str) -> bool {
    let key = "\"mlflow.spanInputs\": ";
    content.find(key).is_some_and(|at| {
        let value = &content[at + key.len()..];
        !value.starts_with(['"', '{', '['])
    })
}

#[test]
fn captured_agents() {
    check("agents", 252);
}

#[test]
fn the_made_sample() {
    check("generated", 49);
}

#[test]
fn every_kind_of_value() {
    check("kinds", 161);
}

#[test]
fn span_types_of_all_conventions() {
    check("types", 516);
}

#[test]
fn inputs_and_outputs_of_all_conventions() {
    check("io", 1025);
}

#[test]
fn usage_and_cost() {
    check("usage", 133);
}

#[test]
fn trace_level_values() {
    check("trace", 147);
}

#[test]
fn random_attributes() {
    check("random", 544);
}
