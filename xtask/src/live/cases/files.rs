//! Files that change hands between our writer and MLflow.

use super::equality::sound;
use crate::live::sample::{self, Writing};
use crate::live::{CaseResult, Live, Stop, mlflow::Mlflow, stored};
use serde_json::Value;
use std::path::Path;

/// The schema of the files we create.
const CREATED_REVISION: &str = "a1b2c3d4e5f6";
const EXPERIMENT: &str = "shop";

/// MLflow opens a file we created, upgrades it by itself, keeps every row, and shows every trace
/// and span by `search_traces` and `get_trace`; also of spans its own server would refuse.
pub(super) fn opens(live: &mut Live) -> CaseResult {
    let db = live.work("opens")?.join("created.db");
    let (before, seen) = create_and_open(live.mlflow()?, &db)?;
    let after = live.mlflow()?.rows(&db)?;
    let revision = |rows: &Value| rows["revision"][0].as_str().unwrap_or("none").to_owned();
    let (old, new) = (revision(&before), revision(&after));
    if old != CREATED_REVISION || new == old {
        return Err(format!(
            "the file was created at {old} and is at {new} after MLflow opened it"
        )
        .into());
    }
    kept(&before, &after)?;
    Ok(format!(
        "{seen}; upgraded from {old} to {new}, every row kept"
    ))
}

/// The oldest MLflow with tables for spans opens a file we created and shows everything in it.
pub(super) fn older_mlflow(live: &mut Live) -> CaseResult {
    let db = live.work("older_mlflow")?.join("created.db");
    let oldest = live
        .oldest_mlflow
        .as_ref()
        .map_err(|m| Stop::Missing(m.clone()))?;
    let (_, seen) = create_and_open(oldest, &db)?;
    let version = oldest.version()?;
    // The newest one takes it over from there.
    let dump = live.mlflow()?.dump(&db)?;
    sound(&dump)?;
    let all = stored::count(&stored::shown(&dump, "get_trace")?);
    Ok(format!(
        "{version}: {seen}; then upgraded by the newest, {all} spans shown"
    ))
}

fn create_and_open(mlflow: &Mlflow, db: &Path) -> Result<(Value, String), String> {
    let requests = [
        sample::captured(),
        trace_destination_otlp::sample::generated(),
    ]
    .concat();
    sample::write(db, EXPERIMENT, &requests)?;
    let written = stored::of_requests(&requests)?;
    let before = mlflow.rows(db)?;
    let dump = mlflow.dump(db)?;
    sound(&dump)?;
    for part in ["search_traces", "get_trace"] {
        if stored::shown(&dump, part)? != written {
            return Err(format!(
                "{part} shows {} of {} spans",
                stored::count(&stored::shown(&dump, part)?),
                stored::count(&written)
            ));
        }
    }
    if stored::spans(db)? != written {
        return Err("the rows are not what was written".to_owned());
    }
    let seen = format!(
        "{} traces, {} spans shown",
        written.len(),
        stored::count(&written)
    );
    Ok((before, seen))
}

/// Everything in `before` is in `after`, as a row or in the column it was moved to.
fn kept(before: &Value, after: &Value) -> Result<(), String> {
    for (id, old) in before["traces"].as_object().into_iter().flatten() {
        let new = &after["traces"][id];
        for (column, value) in old["info"].as_object().into_iter().flatten() {
            if new["info"][column] != *value {
                return Err(format!(
                    "{id}: {column} was {value} and is {}",
                    new["info"][column]
                ));
            }
        }
        for (part, key, value) in ["tags", "metadata"].iter().flat_map(|part| {
            let rows = old[*part].as_object().into_iter().flatten();
            rows.map(move |(key, value)| (*part, key, value))
        }) {
            let info = &new["info"];
            let same = match (part, key.as_str()) {
                ("tags", "mlflow.traceName") => info["trace_name"] == *value,
                ("metadata", "mlflow.trace.session") => info["session_id"] == *value,
                ("metadata", "mlflow.trace.tokenUsage") => promoted(
                    value,
                    info,
                    &[
                        "input_tokens",
                        "output_tokens",
                        "total_tokens",
                        "cache_read_input_tokens",
                        "cache_creation_input_tokens",
                    ],
                ),
                ("metadata", "mlflow.trace.cost") => {
                    promoted(value, info, &["input_cost", "output_cost", "total_cost"])
                }
                _ => new[part][key] == *value,
            };
            if !same {
                return Err(format!("{id}: {key} of {part} was {value} and is not kept"));
            }
        }
        for (span, row) in old["spans"].as_object().into_iter().flatten() {
            let now = &new["spans"][span];
            let columns = [
                "parent_span_id",
                "name",
                "type",
                "status",
                "start_time_unix_nano",
                "end_time_unix_nano",
            ];
            if let Some(c) = columns.iter().find(|c| row[**c] != now[**c]) {
                return Err(format!(
                    "{id}, span {span}: {c} was {} and is {}",
                    row[*c], now[*c]
                ));
            }
            if row["content"] != now["content"] {
                return Err(format!("{id}, span {span}: its content changed"));
            }
        }
    }
    Ok(())
}

/// Whether each value of a JSON text is in the column of the same name.
fn promoted(text: &Value, info: &Value, columns: &[&str]) -> bool {
    let Some(values) = text
        .as_str()
        .and_then(|t| serde_json::from_str::<Value>(t).ok())
    else {
        return false;
    };
    columns
        .iter()
        .all(|c| values.get(c).unwrap_or(&Value::Null) == &info[*c])
}

/// MLflow upgrades the file between two batches of an open pipeline: what was there stays, a trace
/// that was begun before goes on, and later traces are written in the new shape.
pub(super) fn upgrade_under_writer(live: &mut Live) -> CaseResult {
    let db = live.work("upgrade_under_writer")?.join("upgraded.db");
    let mlflow = live.mlflow()?;
    let trace = |n: u128| 0x0b5e_0000_0000_0000_0000_0000_0000_0000_u128 + n;
    let named = |n: u128| {
        sample::span(trace(n), 1)
            .with_attribute("mlflow.traceTag.mlflow.traceName", format!("trace {n}"))
            .with_attribute("session.id", format!("session {n}"))
            .with_attribute("gen_ai.usage.input_tokens", 7)
            .with_attribute("gen_ai.usage.output_tokens", 4)
    };
    let writing = Writing::open(&sample::uri(&db, EXPERIMENT)?)?;
    // Trace 1 is whole before the upgrade, trace 2 only begun, trace 3 comes after it.
    let batches = [
        sample::request(
            "before",
            vec![
                named(1),
                sample::span(trace(1), 2),
                sample::span(trace(2), 2),
            ],
        ),
        sample::request(
            "after",
            vec![
                named(2),
                sample::span(trace(2), 3),
                named(3),
                sample::span(trace(3), 2),
            ],
        ),
    ];
    writing.request(&batches[0])?;
    let before = mlflow.rows(&db)?;
    let revision = mlflow.open(&db)?;
    if before["revision"][0] != CREATED_REVISION || revision == CREATED_REVISION {
        return Err(format!(
            "no upgrade took place: {} to {revision}",
            before["revision"]
        )
        .into());
    }
    writing.request(&batches[1])?;
    writing.close()?;

    let dump = mlflow.dump(&db)?;
    sound(&dump)?;
    let written = stored::of_requests(&batches)?;
    for part in ["search_traces", "get_trace"] {
        if stored::shown(&dump, part)? != written {
            return Err(format!("{part} does not show all spans").into());
        }
    }
    for n in 1..=3 {
        let id = format!("tr-{:032x}", trace(n));
        let info = &dump["rows"]["traces"][&id]["info"];
        let expected = [
            ("trace_name", Value::from(format!("trace {n}"))),
            ("session_id", Value::from(format!("session {n}"))),
            ("total_tokens", Value::from(11)),
            ("status", Value::from("OK")),
        ];
        for (column, value) in expected {
            if info[column] != value {
                return Err(
                    format!("{id}: {column} is {} instead of {value}", info[column]).into(),
                );
            }
        }
        for (part, key) in [
            ("tags", "mlflow.traceName"),
            ("metadata", "mlflow.trace.session"),
            ("metadata", "mlflow.trace.tokenUsage"),
        ] {
            if !dump["rows"]["traces"][&id][part][key].is_null() {
                return Err(format!("{id}: {key} is a row in the new shape").into());
            }
        }
    }
    Ok(format!(
        "{} spans of 3 traces before, across and after the upgrade to {revision}",
        stored::count(&written)
    ))
}
