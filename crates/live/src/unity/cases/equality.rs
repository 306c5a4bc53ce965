//! What was written is what engines read, in every column.

use super::super::super::compare::{Difference, differences};
use super::super::super::{CaseResult, Stop};
use super::super::writer::{self, Writer};
use super::super::{Unity, expected};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use trace_destination_otlp::sample;

/// How many differences an error shows, and how much of each.
const SHOWN: usize = 12;
const EXCERPT: usize = 200;
/// The one table that several cases read: the capture.
const CAPTURED: &str = "captured";

/// The older columns as the documentation of Databricks declares them, made by Spark.
const OLDER: &str = "CREATE TABLE {table} (
  trace_id STRING, span_id STRING, trace_state STRING, parent_span_id STRING, flags INT,
  name STRING, kind STRING, start_time_unix_nano BIGINT, end_time_unix_nano BIGINT,
  attributes MAP<STRING, STRING>, dropped_attributes_count INT,
  events ARRAY<STRUCT<time_unix_nano: BIGINT, name: STRING, attributes: MAP<STRING, STRING>, dropped_attributes_count: INT>>,
  dropped_events_count INT,
  links ARRAY<STRUCT<trace_id: STRING, span_id: STRING, trace_state: STRING, attributes: MAP<STRING, STRING>, dropped_attributes_count: INT, flags: INT>>,
  dropped_links_count INT, status STRUCT<message: STRING, code: STRING>,
  resource STRUCT<attributes: MAP<STRING, STRING>, dropped_attributes_count: INT>,
  resource_schema_url STRING,
  instrumentation_scope STRUCT<name: STRING, version: STRING, attributes: MAP<STRING, STRING>, dropped_attributes_count: INT>,
  span_schema_url STRING
) USING delta TBLPROPERTIES ('otel.schemaVersion' = 'v1')";

/// The documented columns with the types that Spark gives them.
const SPARK_TYPES: &[(&str, &str)] = &[
    ("record_id", "string"),
    ("time", "timestamp"),
    ("date", "date"),
    ("service_name", "string"),
    ("trace_id", "string"),
    ("span_id", "string"),
    ("trace_state", "string"),
    ("parent_span_id", "string"),
    ("flags", "int"),
    ("name", "string"),
    ("kind", "string"),
    ("start_time_unix_nano", "bigint"),
    ("end_time_unix_nano", "bigint"),
    ("attributes", "variant"),
    ("dropped_attributes_count", "int"),
    (
        "events",
        "array<struct<time_unix_nano:bigint,name:string,attributes:variant,dropped_attributes_count:int>>",
    ),
    ("dropped_events_count", "int"),
    (
        "links",
        "array<struct<trace_id:string,span_id:string,trace_state:string,attributes:variant,dropped_attributes_count:int,flags:int>>",
    ),
    ("dropped_links_count", "int"),
    ("status", "struct<message:string,code:string>"),
    (
        "resource",
        "struct<attributes:variant,dropped_attributes_count:int>",
    ),
    ("resource_schema_url", "string"),
    (
        "instrumentation_scope",
        "struct<name:string,version:string,attributes:variant,dropped_attributes_count:int>",
    ),
    ("span_schema_url", "string"),
];

pub(super) fn captured(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let (text, spans) = equal(unity, CAPTURED, &requests)?;
    if spans != 252 {
        return Err(format!("the capture has {spans} spans instead of 252").into());
    }
    Ok(text)
}

pub(super) fn generated(unity: &mut Unity) -> CaseResult {
    equal(unity, "generated", &sample::generated()).map(|(text, _)| text)
}

/// Writes requests to a new table and reads it with Spark and with DuckDB.
fn equal(unity: &mut Unity, name: &str, requests: &[Vec<u8>]) -> Result<(String, usize), Stop> {
    let work = unity.work(name)?;
    let uri = writer::uri(&work.display().to_string(), name);
    Writer::new(unity, &uri).files(name, requests)?;
    let path = writer::table(&work, name);
    let rows = expected::rows(requests)?;
    // What one engine lacks keeps the other from nothing.
    let duck = of_duck(unity, &path, &rows);
    let spark = of_spark(unity, &path, &rows);
    let duck = duck?;
    let spark = spark?;
    Ok((
        format!(
            "{} spans in {} columns equal in {spark} and {duck}",
            rows.len(),
            SPARK_TYPES.len()
        ),
        rows.len(),
    ))
}

fn of_duck(unity: &mut Unity, path: &str, rows: &[Value]) -> CaseResult {
    let duck = unity.duck()?;
    let version = duck.ask("version", json!({}))?;
    let found = duck.ask("rows", json!({"path": path}))?;
    check(&found, rows).map_err(|e| format!("DuckDB: {e}"))?;
    Ok(format!("DuckDB {}", version.as_str().unwrap_or_default()))
}

pub(super) fn of_spark(unity: &mut Unity, path: &str, rows: &[Value]) -> CaseResult {
    let spark = unity.spark()?;
    let version = spark.ask("version", json!({}))?;
    let found = spark.ask("rows", json!({"path": path}))?;
    let types: Map<_, _> = SPARK_TYPES
        .iter()
        .map(|(n, t)| ((*n).to_owned(), json!(t)))
        .collect();
    if found["schema"] != Value::Object(types) {
        return Err(format!("Spark sees the columns {}", found["schema"]).into());
    }
    check(&found, rows).map_err(|e| format!("Spark: {e}"))?;
    Ok(format!("Spark {}", version.as_str().unwrap_or_default()))
}

/// That an engine found exactly the rows, each with a record id of its own.
fn check(found: &Value, expected: &[Value]) -> Result<(), String> {
    let mut found = rows(found)?;
    record_ids(&mut found)?;
    differing(&found, expected)
}

/// Takes the record ids off, each of which is one and unique.
pub(super) fn record_ids(found: &mut [Value]) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    for row in found {
        if let Some(id) = row
            .as_object_mut()
            .and_then(|r| r.shift_remove(expected::RECORD_ID))
        {
            // 8-4-4-4-12 hexadecimal digits, ordered by time (RFC 9562, version 7).
            let id = id.as_str().unwrap_or_default().to_owned();
            if id.len() != 36 || id.as_bytes()[14] != b'7' || !ids.insert(id.clone()) {
                return Err(format!("the record id {id} is none, or not unique"));
            }
        }
    }
    Ok(())
}

/// An error that shows some of the differences, if there are any.
pub(super) fn differing(found: &[Value], expected: &[Value]) -> Result<(), String> {
    let found = found_differences(found, expected);
    match found.len() {
        0 => Ok(()),
        n => Err(format!("{n} differences: {}", shown(&found))),
    }
}

pub(super) fn rows(found: &Value) -> Result<Vec<Value>, String> {
    found["rows"]
        .as_array()
        .cloned()
        .ok_or_else(|| "there are no rows".to_owned())
}

/// The places where rows differ, by trace and span, whatever their order.
fn found_differences(found: &[Value], expected: &[Value]) -> Vec<Difference> {
    let by_ids = |rows: &[Value]| -> Value {
        let mut all = Map::new();
        for row in rows {
            let id = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let key = format!("{} {}", id("trace_id"), id("span_id"));
            // A span that is there twice is a difference.
            let list = all.entry(key).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(row.clone());
            }
        }
        Value::Object(all)
    };
    differences(&by_ids(found), &by_ids(expected))
}

fn shown(differences: &[Difference]) -> String {
    let excerpt = |value: &Option<Value>| -> String {
        let text = value
            .as_ref()
            .map_or("(absent)".to_owned(), ToString::to_string);
        text.chars().take(EXCERPT).collect()
    };
    let lines = differences.iter().take(SHOWN).map(|d| {
        format!(
            "\n{}\n  there    {}\n  expected {}",
            d.path,
            excerpt(&d.ours),
            excerpt(&d.server)
        )
    });
    lines.collect()
}

/// Spark changes one span of a copy in many columns, and both engines notice every one.
pub(super) fn comparison_can_fail(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let rows = expected::rows(&requests)?;
    let path = captured_table(unity, "comparison_can_fail", &requests)?;
    let victim = rows
        .iter()
        .find(|r| r["parent_span_id"].is_string())
        .ok_or_else(|| "every span is a root".to_owned())?;
    let id = victim["span_id"].as_str().unwrap_or_default();
    let columns = [
        ("start_time_unix_nano", "start_time_unix_nano + 1"),
        ("parent_span_id", "upper(parent_span_id) || '0'"),
        ("kind", "'SPAN_KIND_CONSUMER'"),
        ("attributes", "parse_json('{\"a\": 1}')"),
        (
            "status",
            "named_struct('message', 'no', 'code', status.code)",
        ),
        ("flags", "flags + 1"),
        ("service_name", "''"),
        (
            "events",
            "array(named_struct('time_unix_nano', 1L, 'name', 'e', 'attributes', parse_json('{}'), 'dropped_attributes_count', 0))",
        ),
        ("time", "timestamp_micros(unix_micros(time) + 1)"),
    ];
    let set: Vec<_> = columns.iter().map(|(c, v)| format!("{c} = {v}")).collect();
    let update = format!(
        "UPDATE {{table}} SET {} WHERE span_id = '{id}'",
        set.join(", ")
    );
    unity
        .spark()?
        .ask("sql", json!({"text": update, "path": path}))?;
    for engine in ["Spark", "DuckDB"] {
        let found = match engine {
            "Spark" => unity.spark()?.ask("rows", json!({"path": path}))?,
            _ => unity.duck()?.ask("rows", json!({"path": path}))?,
        };
        let found = found_differences(&super::equality::rows(&found)?, &rows);
        for (column, _) in columns {
            if !found
                .iter()
                .any(|d| d.path.contains(id) && d.path.contains(&format!("/{column}")))
            {
                return Err(
                    format!("with {engine} the comparison misses a change of {column}").into(),
                );
            }
        }
    }
    Ok(format!(
        "a span that Spark changed in {} columns is noticed in each",
        columns.len()
    ))
}

/// A table with the capture.
pub(super) fn captured_table(
    unity: &mut Unity,
    case: &str,
    requests: &[Vec<u8>],
) -> Result<String, Stop> {
    let work = unity.work(case)?;
    let uri = writer::uri(&work.display().to_string(), CAPTURED);
    Writer::new(unity, &uri).files(case, requests)?;
    Ok(writer::table(&work, CAPTURED))
}

/// A table with the older columns that Spark made is written as it is.
pub(super) fn older_columns(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let rows: Vec<Value> = expected::rows(&requests)?
        .iter()
        .map(expected::older)
        .collect();
    let work = unity.work("older_columns")?;
    let path = older_path(&work);
    unity
        .spark()?
        .ask("sql", json!({"text": OLDER, "path": path}))?;
    let uri = format!("uc://main.traces?root={}", work.display());
    Writer::new(unity, &uri).files("older_columns", &requests)?;
    let found = unity.spark()?.ask("rows", json!({"path": path}))?;
    check(&found, &rows).map_err(|e| format!("Spark: {e}"))?;
    Ok(format!(
        "{} spans equal in a table that Spark made",
        rows.len()
    ))
}

/// Where the table of a schema is, as MLflow names it.
fn older_path(root: &Path) -> String {
    root.join("main/traces/mlflow_experiment_trace_otel_spans")
        .display()
        .to_string()
}

/// Polars and deltalake, which are no independent readers (they share code with the writer), open
/// the table and see the same spans.
pub(super) fn opens_elsewhere(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let path = captured_table(unity, "opens_elsewhere", &requests)?;
    let found = unity.duck()?.ask("others", json!({"path": path}))?;
    let seen: BTreeSet<String> = found["polars"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    let rows: BTreeSet<String> = expected::rows(&requests)?
        .iter()
        .map(|r| {
            json!([
                r["trace_id"],
                r["span_id"],
                r["name"],
                r["start_time_unix_nano"]
            ])
            .to_string()
        })
        .collect();
    if seen != rows {
        return Err(format!(
            "Polars sees {} of {} spans, or others",
            seen.len(),
            rows.len()
        )
        .into());
    }
    Ok(format!(
        "Polars sees {} spans; deltalake {}",
        seen.len(),
        found["deltalake"]
    ))
}
