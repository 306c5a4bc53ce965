//! The queries in the documentation, taken from there and run on real traces.

use super::super::super::{CaseResult, Stop};
use super::super::{Unity, expected};
use super::equality::captured_table;
use crate::cargo::root;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use trace_destination_otlp::sample;

pub(super) const PAGE: &str = "docs/unity-catalog.md";
/// What stands for the table in each dialect, and for the trace.
const SPARK_TABLE: &str = "main.traces.shop_otel_spans";
const DUCK_TABLE: &str = "delta_scan('lakehouse/main/traces/shop_otel_spans')";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// The queries that have to be there, each in both dialects.
const QUERIES: [&str; 4] = [
    "Latest traces",
    "One trace as a tree",
    "Slowest operations",
    "Token usage by tenant",
];

/// Queries under their headings: for Databricks SQL and Spark, and for DuckDB.
pub(super) fn queries(page: &str) -> BTreeMap<String, [String; 2]> {
    let mut found: BTreeMap<String, [String; 2]> = BTreeMap::new();
    let (mut heading, mut block) = (String::new(), None::<String>);
    for line in page.lines() {
        match &mut block {
            None if line.starts_with('#') => {
                heading = line.trim_start_matches(['#', ' ']).to_owned()
            }
            None if line == "```sql" => block = Some(String::new()),
            None => {}
            Some(sql) if line == "```" => {
                let dialect = usize::from(sql.starts_with("-- DuckDB"));
                if sql.starts_with("-- Databricks SQL and Spark") || dialect == 1 {
                    found.entry(heading.clone()).or_default()[dialect].clone_from(sql);
                }
                block = None;
            }
            Some(sql) => {
                sql.push_str(line);
                sql.push('\n');
            }
        }
    }
    found
}

pub(super) fn documented(unity: &mut Unity) -> CaseResult {
    let file = root().join(PAGE);
    let page = fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
    let queries = queries(&page);
    let requests = vec![sample::captured().to_vec()];
    let rows = expected::rows(&requests)?;
    let path = captured_table(unity, "documented_sql", &requests)?;
    // The trace with the most spans makes the widest tree.
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *sizes
            .entry(row["trace_id"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    let (trace, spans) = sizes
        .iter()
        .max_by_key(|(_, n)| **n)
        .ok_or_else(|| "no traces".to_owned())?;
    for name in QUERIES {
        let [spark, duck] = queries
            .get(name)
            .filter(|q| q.iter().all(|q| !q.is_empty()))
            .ok_or_else(|| format!("{PAGE} lacks the query `{name}` in a dialect"))?;
        let fill = |sql: &str, table: &str| -> Result<String, Stop> {
            if !sql.contains(table) {
                return Err(format!("the query `{name}` does not read {table}").into());
            }
            Ok(sql.replace(table, "{table}").replace(TRACE, trace))
        };
        let spark = json!({"text": fill(spark, SPARK_TABLE)?, "path": path});
        let duck = json!({"text": fill(duck, DUCK_TABLE)?, "path": path});
        let spark = unity
            .spark()?
            .ask("sql", spark)
            .map_err(|e| format!("`{name}`: {e}"))?;
        let duck = unity
            .duck()?
            .ask("sql", duck)
            .map_err(|e| format!("`{name}`: {e}"))?;
        if spark != duck {
            return Err(format!("`{name}` gives in Spark {spark} and in DuckDB {duck}").into());
        }
        check(name, &spark, &rows, *spans)?;
    }
    Ok(format!(
        "{} queries, each the same in Spark and DuckDB and what the spans say; the syntax of Databricks SQL is Spark's here and was run on Spark",
        QUERIES.len()
    ))
}

/// An answer against the spans themselves.
fn check(name: &str, answer: &Value, rows: &[Value], spans: usize) -> Result<(), Stop> {
    let list = answer["rows"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let problem = match name {
        "Latest traces" => {
            let mut roots: Vec<_> = rows
                .iter()
                .filter(|r| r["parent_span_id"].is_null())
                .collect();
            roots.sort_by_key(|r| {
                (
                    std::cmp::Reverse(r["time"].as_u64()),
                    r["trace_id"].as_str(),
                )
            });
            let expected: Vec<_> = roots.iter().take(20).map(|r| &r["trace_id"]).collect();
            let found: Vec<_> = list.iter().map(|r| &r[0]).collect();
            (found != expected).then(|| format!("{found:?} instead of {expected:?}"))
        }
        "One trace as a tree" => {
            (list.len() != spans).then(|| format!("{} of {spans} spans", list.len()))
        }
        "Slowest operations" => {
            let names: BTreeSet<_> = rows.iter().map(|r| r["name"].as_str()).collect();
            let calls: u64 = list.iter().filter_map(|r| r[1].as_u64()).sum();
            (names.len() <= 20 && calls != rows.len() as u64)
                .then(|| format!("{calls} calls of {} spans", rows.len()))
        }
        _ => {
            let (input, output) = tokens(rows);
            (list.len() != 1 || list[0][1] != input || list[0][2] != output)
                .then(|| format!("{list:?} instead of {input} and {output}"))
        }
    };
    problem.map_or(Ok(()), |p| Err(format!("`{name}`: {p}").into()))
}

/// Tokens of the calls whose parent does not tell any, from MLflow's attribute in the capture.
fn tokens(rows: &[Value]) -> (u64, u64) {
    let usage = |row: &Value| -> Option<Value> {
        let text = row["attributes"]["object"]["mlflow.chat.tokenUsage"]["string"].as_str()?;
        serde_json::from_str(text).ok()
    };
    let telling: BTreeSet<_> = rows
        .iter()
        .filter(|r| usage(r).is_some())
        .map(|r| (r["trace_id"].as_str(), r["span_id"].as_str()))
        .collect();
    let counted = rows
        .iter()
        .filter(|r| !telling.contains(&(r["trace_id"].as_str(), r["parent_span_id"].as_str())));
    counted
        .filter_map(usage)
        .fold((0, 0), |(input, output), usage| {
            let number = |name: &str| usage[name].as_u64().unwrap_or_default();
            (
                input + number("input_tokens"),
                output + number("output_tokens"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_query_in_both_dialects() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let found = queries(&page);
        for name in QUERIES {
            let [spark, duck] = &found[name];
            assert!(spark.contains(SPARK_TABLE), "{name}: {spark}");
            assert!(duck.contains(DUCK_TABLE), "{name}: {duck}");
        }
        assert!(
            found["One trace as a tree"]
                .iter()
                .all(|q| q.contains(TRACE))
        );
    }
}
