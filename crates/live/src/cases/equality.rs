//! A file we wrote against the file MLflow's own server writes for the same OTLP bytes.

use crate::compare::{self, Difference, Expected, differences};
use crate::mlflow::{Mlflow, Server};
use crate::{CaseResult, Live, Stop, sample};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const CAPTURED: &str = "captured";
pub(crate) const GENERATED: &str = "generated";

/// What MLflow's server stored, asked for once.
pub(crate) struct Reference {
    captured: Value,
    generated: Value,
    /// The file of a second server that got the captured bytes, of the reference alone.
    second: Option<PathBuf>,
}

pub(crate) fn reference(live: &mut Live) -> Result<&Reference, Stop> {
    if live.reference.is_none() {
        let folder = live.work("reference")?;
        let reference = make_reference(live.mlflow()?, &folder, !live.on_newest)?;
        live.reference = Some(reference);
    }
    live.reference
        .as_ref()
        .ok_or_else(|| "the reference is gone".to_owned().into())
}

impl Reference {
    /// What was stored of one sample.
    pub(crate) fn view(&self, name: &str) -> &Value {
        match name {
            CAPTURED => &self.captured,
            _ => &self.generated,
        }
    }
}

fn make_reference(mlflow: &Mlflow, folder: &Path, twice: bool) -> Result<Reference, String> {
    let captured = save(folder, CAPTURED, &sample::captured())?;
    let generated = save(folder, GENERATED, &sample::generated_for_server()?)?;
    let raw = save(folder, "raw", &trace_destination_otlp::sample::generated())?;
    let serve = |name: &str| -> Result<(PathBuf, Server), String> {
        let db = folder.join(name);
        let server = mlflow.serve(&db)?;
        let experiment = mlflow.experiment(&server, CAPTURED)?;
        mlflow.post(&server, &experiment, &captured)?;
        Ok((db, server))
    };
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| -> Result<Option<PathBuf>, String> {
            if !twice {
                return Ok(None);
            }
            let (db, server) = serve("second.db")?;
            server.stop()?;
            Ok(Some(db))
        });
        let first = || -> Result<PathBuf, String> {
            let (db, server) = serve("first.db")?;
            let experiment = mlflow.experiment(&server, GENERATED)?;
            mlflow.post(&server, &experiment, &generated)?;
            // What was taken out of the made traces must still be what the server refuses.
            for (raw, tamed) in raw.iter().zip(&generated) {
                let differ = fs::read(raw).ok() != fs::read(tamed).ok();
                if differ
                    && mlflow
                        .post(&server, &experiment, std::slice::from_ref(raw))
                        .is_ok()
                {
                    return Err(format!(
                        "the server now takes {}; post it as it is",
                        raw.display()
                    ));
                }
            }
            server.stop()?;
            Ok(db)
        };
        (first(), second.join())
    });
    let second = second.map_err(|_| "the second server's thread panicked".to_owned())??;
    let dump = mlflow.dump(&first?)?;
    Ok(Reference {
        captured: compare::experiment_view(&dump, CAPTURED)?,
        generated: compare::experiment_view(&dump, GENERATED)?,
        second,
    })
}

fn save(folder: &Path, name: &str, requests: &[Vec<u8>]) -> Result<Vec<PathBuf>, String> {
    let save = |(i, request): (usize, &Vec<u8>)| {
        let file = folder.join(format!("{name}-{i:02}.binpb"));
        fs::write(&file, request).map_err(|e| format!("write {}: {e}", file.display()))?;
        Ok(file)
    };
    requests.iter().enumerate().map(save).collect()
}

/// Writes both samples into a file, as the server got them.
fn write_both(db: &Path) -> Result<(), String> {
    sample::write(db, CAPTURED, &sample::captured())?;
    sample::write(db, GENERATED, &sample::generated_for_server()?)?;
    Ok(())
}

/// The captured traces, written by us into a file we created, equal what MLflow's server stores.
pub(super) fn captured(live: &mut Live) -> CaseResult {
    equals_server(live, "equals_server_captured", &[CAPTURED], false)
}

/// The same for made traces that hold what the capture lacks.
pub(super) fn generated(live: &mut Live) -> CaseResult {
    equals_server(live, "equals_server_generated", &[GENERATED], false)
}

/// The same for both, written into a file that MLflow made.
pub(super) fn head_shape(live: &mut Live) -> CaseResult {
    equals_server(live, "writes_head_shape", &[CAPTURED, GENERATED], true)
}

fn equals_server(
    live: &mut Live,
    case: &str,
    samples: &[&str],
    made_by_mlflow: bool,
) -> CaseResult {
    reference(live)?;
    let db = live.work(case)?.join("mlflow.db");
    let mlflow = live.mlflow()?;
    let expected = Expected::load(&live.scripts.join("expected_differences.json"))?;
    if made_by_mlflow {
        mlflow.open(&db)?;
    }
    write_both(&db)?;
    let dump = mlflow.dump(&db)?;
    sound(&dump)?;
    let reference = reference(live)?;
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for name in samples {
        let ours = compare::experiment_view(&dump, name)?;
        let server = reference.view(name);
        let (traces, spans) = compare::counts(server)?;
        seen.push(format!("{name}: {traces} traces, {spans} spans"));
        found.extend(differences(&ours, server));
    }
    let summary = expected.check(&live.name(case), &found)?;
    Ok(format!("{}; {summary}", seen.join("; ")))
}

/// An error where a dumped file is damaged or holds rows that belong to nothing.
pub(crate) fn sound(dump: &Value) -> Result<(), String> {
    let rows = &dump["rows"];
    let none = |part: &str| rows[part].as_array().is_some_and(Vec::is_empty);
    if rows["integrity"] == serde_json::json!(["ok"]) && none("stray") && none("foreign_key_errors")
    {
        return Ok(());
    }
    Err(format!(
        "the file is not sound: integrity {}, stray rows {}, foreign keys {}",
        rows["integrity"], rows["stray"], rows["foreign_key_errors"]
    ))
}

/// A change to one stored trace that the comparison must report.
struct Damage {
    what: &'static str,
    /// Chooses a span: trace id and span id.
    choose: &'static str,
    /// Changes it: `?1` is the trace id, `?2` the span id.
    change: &'static str,
    /// The end of a pointer that must be reported, below the trace; `@` is the span id.
    reported: &'static str,
}

const DAMAGES: &[Damage] = &[
    Damage {
        what: "a span's name in its column",
        choose: "SELECT trace_id, span_id FROM spans",
        change: "UPDATE spans SET name = name || '!' WHERE trace_id = ?1 AND span_id = ?2",
        reported: "rows/*/spans/@/name",
    },
    Damage {
        what: "a span's name in its content",
        choose: "SELECT trace_id, span_id FROM spans",
        change: "UPDATE spans SET content = json_set(content, '$.name', 'other') WHERE trace_id = ?1 AND span_id = ?2",
        reported: "get_trace/*/spans/@/name",
    },
    Damage {
        what: "a missing span",
        choose: "SELECT trace_id, span_id FROM spans WHERE parent_span_id IS NOT NULL",
        change: "DELETE FROM spans WHERE trace_id = ?1 AND span_id = ?2",
        reported: "search_traces/*/spans/@",
    },
    Damage {
        what: "a span moved to another parent",
        choose: "SELECT trace_id, span_id FROM spans WHERE parent_span_id IS NOT NULL",
        change: "UPDATE spans SET parent_span_id = NULL WHERE trace_id = ?1 AND span_id = ?2",
        reported: "rows/*/spans/@/parent_span_id",
    },
    Damage {
        what: "lost events",
        choose: "SELECT trace_id, span_id FROM spans WHERE json_array_length(content, '$.events') > 0",
        change: "UPDATE spans SET content = json_set(content, '$.events', json('[]')) WHERE trace_id = ?1 AND span_id = ?2",
        reported: "get_trace/*/spans/@/events/0",
    },
    Damage {
        what: "a start one nanosecond later",
        choose: "SELECT trace_id, span_id FROM spans",
        change: "UPDATE spans SET start_time_unix_nano = start_time_unix_nano + 1 WHERE trace_id = ?1 AND span_id = ?2",
        reported: "rows/*/spans/@/start_time_unix_nano",
    },
    Damage {
        what: "a type column without its value",
        choose: "SELECT trace_id, span_id FROM spans WHERE type IS NOT NULL",
        change: "UPDATE spans SET type = NULL WHERE trace_id = ?1 AND span_id = ?2",
        reported: "rows/*/spans/@/type",
    },
    Damage {
        what: "an attribute of another kind",
        choose: "SELECT trace_id, span_id FROM spans",
        change: "UPDATE spans SET content = json_set(content, '$.attributes.\"mlflow.spanType\"', '5') WHERE trace_id = ?1 AND span_id = ?2",
        reported: "get_trace/*/spans/@/attributes/mlflow.spanType",
    },
    Damage {
        what: "a status",
        choose: "SELECT trace_id, span_id FROM spans WHERE status = 'ERROR'",
        change: "UPDATE spans SET status = 'OK', content = json_set(content, '$.status.code', 'STATUS_CODE_OK') WHERE trace_id = ?1 AND span_id = ?2",
        reported: "search_traces/*/spans/@/status/code",
    },
    Damage {
        what: "token usage off by one",
        choose: "SELECT trace_id, span_id FROM spans JOIN trace_info ON request_id = trace_id WHERE input_tokens > 0",
        change: "UPDATE trace_info SET input_tokens = input_tokens + 1 WHERE request_id = ?1 AND ?2 <> ''",
        reported: "get_trace/*/token_usage/input_tokens",
    },
    Damage {
        what: "a lost session",
        choose: "SELECT trace_id, span_id FROM spans JOIN trace_info ON request_id = trace_id WHERE session_id IS NOT NULL",
        change: "UPDATE trace_info SET session_id = NULL WHERE request_id = ?1 AND ?2 <> ''",
        reported: "search_traces/*/session",
    },
    Damage {
        what: "a tag's value",
        choose: "SELECT trace_id, span_id FROM spans",
        change: "UPDATE trace_tags SET value = value || '.' WHERE key = 'service.name' AND request_id = ?1 AND ?2 <> ''",
        reported: "get_trace/*/info/tags/service.name",
    },
    Damage {
        what: "a preview",
        choose: "SELECT trace_id, span_id FROM spans JOIN trace_info ON request_id = trace_id WHERE response_preview IS NOT NULL",
        change: "UPDATE trace_info SET response_preview = response_preview || '.' WHERE request_id = ?1 AND ?2 <> ''",
        reported: "rows/*/info/response_preview",
    },
];

/// Two servers that got the same bytes compare equal, and every kind of damage is reported: the
/// comparison that the other cases rely on is able to fail.
pub(super) fn comparison_can_fail(live: &mut Live) -> CaseResult {
    let (captured, second) = {
        let reference = reference(live)?;
        let second = reference.second.clone();
        let second = second.ok_or_else(|| "there is no second server".to_owned())?;
        (reference.captured.clone(), second)
    };
    let mlflow = live.mlflow()?;
    let (traces, spans) = compare::counts(&captured)?;
    if (traces, spans) != (44, 252) {
        return Err(
            format!("the server shows {traces} traces with {spans} spans of 44 with 252").into(),
        );
    }
    let twin = compare::experiment_view(&mlflow.dump(&second)?, CAPTURED)?;
    let unequal = differences(&twin, &captured);
    if let Some(first) = unequal.first() {
        return Err(format!(
            "two servers differ for the same bytes in {} places, e.g. {first:?}",
            unequal.len()
        )
        .into());
    }
    let damaged = second.with_file_name("damaged.db");
    fs::copy(&second, &damaged).map_err(|e| format!("copy {}: {e}", second.display()))?;
    let chosen = damage(&damaged).map_err(|e| format!("damage {}: {e}", damaged.display()))?;
    let found = differences(
        &compare::experiment_view(&mlflow.dump(&damaged)?, CAPTURED)?,
        &captured,
    );
    for (damage, (trace, span)) in DAMAGES.iter().zip(&chosen) {
        let path = format!(
            "/{}",
            damage.reported.replace('*', trace).replace('@', span)
        );
        if !found.iter().any(|d: &Difference| d.path == path) {
            return Err(format!("the comparison misses {} at {path}", damage.what).into());
        }
    }
    Ok(format!(
        "two servers equal in {traces} traces, {spans} spans; {} kinds of damage all reported",
        DAMAGES.len()
    ))
}

/// Does every damage, each to another trace; gives the trace and span of each.
fn damage(db: &Path) -> rusqlite::Result<Vec<(String, String)>> {
    let db = Connection::open(db)?;
    let mut chosen: Vec<(String, String)> = Vec::new();
    for damage in DAMAGES {
        let mut statement = db.prepare(damage.choose)?;
        let spans = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let spans: Vec<(String, String)> = spans.collect::<Result<_, _>>()?;
        let (trace, span) = spans
            .into_iter()
            .find(|(trace, _)| chosen.iter().all(|(t, _)| t != trace))
            .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        if db.execute(damage.change, [&trace, &span])? != 1 {
            return Err(rusqlite::Error::StatementChangedRows(0));
        }
        chosen.push((trace, span));
    }
    Ok(chosen)
}
