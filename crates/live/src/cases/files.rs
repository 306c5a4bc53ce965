//! Files that change hands between our writer and MLflow.

use super::equality::sound;
use crate::compare::object;
use crate::sample::{self, Writing};
use crate::stored::{self, Spans};
use crate::{CaseResult, Live, Stop};
use serde_json::Value;
use std::path::Path;

/// The schema of the files we create.
pub(super) const CREATED_REVISION: &str = "a1b2c3d4e5f6";
const EXPERIMENT: &str = "shop";

/// MLflow opens a file we created, upgrades it by itself, keeps every row, and shows every trace
/// and span by `search_traces` and `get_trace`; also of spans its own server would refuse.
pub(super) fn opens(live: &mut Live) -> CaseResult {
    let db = live.work("opens")?.join("created.db");
    let mlflow = live.mlflow()?;
    let written = create(&db)?;
    let before = mlflow.rows(&db)?;
    let dump = mlflow.dump(&db)?;
    shows_all(&dump, &db, &written)?;
    let revision = |rows: &Value| rows["revision"][0].as_str().unwrap_or("none").to_owned();
    let (old, new) = (revision(&before), revision(&dump["rows"]));
    if old != CREATED_REVISION || new == old {
        return Err(format!(
            "the file was created at {old} and is at {new} after MLflow opened it"
        )
        .into());
    }
    kept(&before, &dump["rows"])?;
    let models = models(&dump["rows"]);
    if models == 0 {
        return Err("no span has its model in a column".to_owned().into());
    }
    Ok(format!(
        "{} traces, {} spans shown, {models} with their model; upgraded from {old} to {new}, every row kept",
        written.len(),
        stored::count(&written)
    ))
}

/// The oldest MLflow with tables for spans opens a file we created and lists every trace in it;
/// the newest takes the file over from there. The oldest itself reads spans from artifact files
/// only, also those its own server stored in the database.
pub(super) fn older_mlflow(live: &mut Live) -> CaseResult {
    let db = live.work("older_mlflow")?.join("created.db");
    let oldest = live
        .oldest_mlflow
        .as_ref()
        .map_err(|m| Stop::Missing(m.clone()))?;
    let newest = live.mlflow()?;
    let written = create(&db)?;
    let before = oldest.rows(&db)?;
    let dump = oldest.dump_infos(&db)?;
    sound(&dump)?;
    let listed = object(&dump["api"]["search_traces"], "search_traces")?;
    if listed.len() != written.len() {
        return Err(format!("it lists {} of {} traces", listed.len(), written.len()).into());
    }
    for (id, old) in object(&before["traces"], "traces")? {
        let shown = listed
            .get(id)
            .ok_or_else(|| format!("{id} is not listed"))?;
        if shown["info"]["state"] != old["info"]["status"]
            || shown["name"] != old["tags"]["mlflow.traceName"]
        {
            return Err(format!("{id} is listed as {}", shown["info"]).into());
        }
    }
    kept(&before, &dump["rows"])?;
    let revision = dump["rows"]["revision"][0].to_string();
    shows_all(&newest.dump(&db)?, &db, &written)?;
    Ok(format!(
        "{}, at revision {revision}, lists {} traces and keeps every row; the newest then shows {} spans",
        oldest.version()?,
        listed.len(),
        stored::count(&written)
    ))
}

/// Writes everything we have into a new file.
fn create(db: &Path) -> Result<Spans, String> {
    let requests = [
        sample::captured(),
        trace_destination_otlp::sample::generated(),
    ]
    .concat();
    sample::write(db, EXPERIMENT, &requests)?;
    stored::of_requests(&requests)
}

/// An error unless MLflow showed exactly these spans, each of them readable, and the file is sound.
fn shows_all(dump: &Value, db: &Path, written: &Spans) -> Result<(), String> {
    sound(dump)?;
    for part in ["search_traces", "get_trace"] {
        let shown = stored::shown(dump, part)?;
        if shown != *written {
            return Err(format!(
                "{part} shows {} of {} spans",
                stored::count(&shown),
                stored::count(written)
            ));
        }
        if let Some((id, _)) = object(&dump["api"][part], part)?
            .iter()
            .find(|(_, trace)| trace.to_string().contains("\"$error\""))
        {
            return Err(format!("{part}: reading a value of {id} raises an error"));
        }
    }
    if stored::spans(db)? != *written {
        return Err("the rows are not what was written".to_owned());
    }
    Ok(())
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
            let moved = match (part, key.as_str()) {
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
                _ => false,
            };
            if !moved && new[part][key] != *value {
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
                // Not of this revision, but there in files that we made, and kept.
                "input_cost",
                "output_cost",
                "total_cost",
                "model_name",
                "model_provider",
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

/// Spans whose model is in a column.
fn models(rows: &Value) -> usize {
    let traces = rows["traces"].as_object().into_iter().flatten();
    let spans = traces.flat_map(|(_, t)| t["spans"].as_object().into_iter().flatten());
    spans.filter(|(_, s)| s["model_name"].is_string()).count()
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
    let written = stored::of_requests(&batches)?;
    shows_all(&dump, &db, &written)?;
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
