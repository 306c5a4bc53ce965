//! The two views of traces with their values, taken from the documentation and run on tables that this
//! project wrote, in several steps and by several processes, with rows of others among them.

use super::super::super::{CaseResult, Stop};
use super::super::Unity;
use super::super::writer::{self, Writer};
use super::sql::{PAGE, queries};
use crate::cargo::root;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// The heading of the views in the documentation.
const HEADING: &str = "Traces with their values";
/// What stands for the tables in each dialect.
const TABLES: [[&str; 2]; 2] = [
    [
        "main.traces.shop_otel_annotations",
        "main.traces.shop_otel_spans",
    ],
    [
        "delta_scan('lakehouse/main/traces/shop_otel_annotations')",
        "delta_scan('lakehouse/main/traces/shop_otel_spans')",
    ],
];
/// Traces; the last one has no values.
const TRACES: u64 = 8;

/// The id of a trace that the writer makes.
fn trace_id(trace: u64) -> String {
    format!("{:032x}", 1_u128 << 64 | u128::from(trace))
}

/// The statements of the page in a dialect, for tables in folders.
fn views(page: &str, dialect: usize, folders: [&str; 2]) -> Result<String, String> {
    let found = queries(page);
    let blocks = found
        .get(HEADING)
        .ok_or_else(|| format!("{PAGE} lacks `{HEADING}`"))?;
    let mut text = blocks[dialect].clone();
    for (table, folder) in TABLES[dialect].iter().zip(folders) {
        if !text.contains(table) {
            return Err(format!("the views in {PAGE} do not read {table}"));
        }
        let here = match dialect {
            0 => format!("delta.`{folder}`"),
            _ => format!("delta_scan('{folder}')"),
        };
        text = text.replace(table, &here);
    }
    // Without a catalog there are views of the session alone.
    Ok(text
        .replace("VIEW main.traces.", "TEMPORARY VIEW ")
        .replace("main.traces.", ""))
}

pub(super) fn documented(unity: &mut Unity) -> CaseResult {
    let file = root().join(PAGE);
    let page = fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
    let work = unity.work("documented_views")?;
    let spans = writer::table(&work, "shop");
    let annotations = spans.replace("_otel_spans", "_otel_annotations");
    let writer = Writer::new(unity, &writer::uri(&work.display().to_string(), "shop"));
    writer.run("values-1", &["values", "1", &TRACES.to_string()])?;
    others(unity, &annotations)?;
    writer.run("values-2", &["values", "2", &TRACES.to_string()])?;
    let columns = "trace_id, client_request_id, request_time, state, execution_duration_ms, request, \
                   response, trace_metadata, tags, assessments, request_preview, response_preview, run_ids";
    let ask = |dialect: usize, names: &str| -> Result<Value, String> {
        let views = views(&page, dialect, [&annotations, &spans])?;
        let select =
            format!("SELECT {columns}, {names} AS names FROM shop_trace_unified ORDER BY trace_id");
        Ok(json!({"text": format!("{views};\n{select}"), "path": spans}))
    };
    let spark = ask(0, "transform(spans, s -> s.name)")?;
    let spark = unity.spark()?.ask("sql", spark)?;
    let duck = ask(1, "[s.name for s in spans]")?;
    let duck = unity.duck()?.ask("sql", duck)?;
    if spark != duck {
        return Err(format!("the view gives in Spark {spark} and in DuckDB {duck}").into());
    }
    check(&spark)?;
    Ok(format!(
        "{TRACES} traces with their spans, values of two processes, a feedback and a deletion of others: the same in Spark and DuckDB, and what was set"
    ))
}

/// What others do: a feedback on a span, and a tag that is no more.
fn others(unity: &mut Unity, annotations: &str) -> Result<(), Stop> {
    let (first, second) = (trace_id(1), trace_id(2));
    let text = format!(
        "INSERT INTO {{table}} SELECT 'a-1', 'SPAN', '{first}:0000000000010001', 'FEEDBACK', 'quality',
           parse_json('true'), 'as it should be', NULL, TIMESTAMP '2026-01-01 00:00:00', 'somebody',
           TIMESTAMP '2026-01-01 00:00:00', NULL, NULL, NULL;
         INSERT INTO {{table}} SELECT annotation_id, target_type, target_id, annotation_type, name, value,
           comment, metadata, created_at, created_by, updated_at + INTERVAL 1 DAY, updated_by,
           updated_at + INTERVAL 1 DAY, 'somebody'
         FROM {{table}} WHERE target_id = '{second}' AND annotation_type = 'TAG' AND name = 'env'"
    );
    let question = json!({"text": text, "path": annotations});
    unity.spark()?.ask("sql", question)?;
    Ok(())
}

/// Compares an answer with what the writer set.
fn check(answer: &Value) -> Result<(), String> {
    let names = answer["columns"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let rows = answer["rows"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if rows.len() as u64 != TRACES {
        return Err(format!("{} rows instead of {TRACES}", rows.len()));
    }
    for (row, trace) in rows.iter().zip(1..) {
        for (name, expected) in expected(trace) {
            let at = names.iter().position(|n| n == name);
            let found = at
                .map(|at| &row[at])
                .ok_or_else(|| format!("no column {name}"))?;
            if *found != expected {
                return Err(format!(
                    "{name} of trace {trace} is {found} instead of {expected}"
                ));
            }
        }
    }
    Ok(())
}

fn expected(trace: u64) -> BTreeMap<&'static str, Value> {
    let (valued, later) = (trace < TRACES, trace % 2 == 1);
    let when = |set: bool, value: String| if set { json!(value) } else { Value::Null };
    let mut tags = json!({"mlflow.traceName": format!("trace {trace}"), "odd \"key'$.[]": "\u{fc}\n\t\\",
        "stage": if later { "done" } else { "begun" }});
    // That of the second trace was deleted.
    if trace != 2 {
        tags["env"] = json!("dev");
    }
    let mut metadata = json!({"build.number": if later { "2" } else { "1" },
        "mlflow.trace.session": format!("session {}", trace % 3)});
    if later {
        metadata["mlflow.trace.user"] = json!(format!("user {trace}"));
    }
    let run = (valued && !later).then(|| format!("run-{trace}"));
    let name = format!("writer 1 trace {trace}");
    // Of the last one nothing is said.
    let said = |value: Value| if valued { value } else { Value::Null };
    let feedback = (trace == 1).then(|| {
        json!({"assessment_id": "a-1", "assessment_name": "quality",
            "create_time": "2026-01-01 00:00:00+00:00", "last_update_time": "2026-01-01 00:00:00+00:00",
            "expectation": null, "feedback": "true", "rationale": "as it should be", "metadata": null,
            "span_id": "0000000000010001"})
    });
    BTreeMap::from([
        ("trace_id", json!(trace_id(trace))),
        (
            "client_request_id",
            when(valued, format!("request {trace}")),
        ),
        ("state", json!("OK")),
        ("execution_duration_ms", json!("1.000000000")),
        ("request", Value::Null),
        ("trace_metadata", said(metadata)),
        ("tags", said(tags)),
        ("assessments", said(json!(Vec::from_iter(feedback)))),
        ("request_preview", when(valued, format!("hello {trace}"))),
        ("response_preview", when(later, format!("bye {trace}"))),
        ("run_ids", said(json!(Vec::from_iter(run)))),
        ("names", json!([name, name])),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_both_views_in_both_dialects() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        for dialect in [0, 1] {
            let text = views(&page, dialect, ["/annotations", "/spans"]).unwrap();
            assert_eq!(text.matches("CREATE OR REPLACE").count(), 2, "{text}");
            assert!(!text.contains("main.traces"), "{text}");
            assert!(text.contains("TEMPORARY VIEW") == (dialect == 0), "{text}");
        }
    }
}
