//! What an MLflow server has stored, read from its SQLite file with `rusqlite` and `serde_json`
//! alone; and what of a span it keeps.

use opentelemetry::trace::{SpanId, TraceId};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeMap;
use trace_destination::{
    AnyValue, Attribute, Event, Link, SpanKind, SpanRecord, Status, StatusCode, TraceUpdate,
};
use trace_destination_conformance::{Failure, Stored, StoredSpan};

/// Everything in an experiment.
pub(super) fn experiment(db: &Connection, name: &str) -> Result<Stored, Failure> {
    Ok(Stored {
        spans: spans(db, name)?,
        updates: updates(db, name)?,
    })
}

fn spans(db: &Connection, experiment: &str) -> Result<Vec<StoredSpan>, Failure> {
    let mut query = db.prepare(
        "SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.status, \
         s.start_time_unix_nano, s.end_time_unix_nano, s.content \
         FROM spans s JOIN trace_info t ON t.request_id = s.trace_id \
         JOIN experiments e ON e.experiment_id = t.experiment_id WHERE e.name = ?1",
    )?;
    let mut rows = query.query([experiment])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let trace: String = row.get(0)?;
        let parent: Option<String> = row.get(2)?;
        let (start, end): (i64, Option<i64>) = (row.get(5)?, row.get(6)?);
        let mut span = SpanRecord::new(
            trace_id(&trace)?,
            SpanId::from_hex(&row.get::<_, String>(1)?)?,
            row.get::<_, String>(3)?,
            u64::try_from(start)?,
            end.map_or(Ok(0), u64::try_from)?,
        );
        span.parent_span_id = parent.map(|p| SpanId::from_hex(&p)).transpose()?;
        let content: Value = serde_json::from_str(&row.get::<_, String>(7)?)?;
        span.status = Status {
            code: match row.get::<_, String>(4)?.as_str() {
                "OK" => StatusCode::Ok,
                "ERROR" => StatusCode::Error,
                _ => StatusCode::Unset,
            },
            message: text(&content["status"]["message"]).into(),
        };
        for (key, value) in content["attributes"].as_object().into_iter().flatten() {
            // MLflow's copy of the trace id.
            if key != "mlflow.traceRequestId" {
                let value = value.as_str().map_or_else(|| any(value), decoded);
                span.attributes.push(Attribute::new(key.clone(), value));
            }
        }
        for event in content["events"].as_array().into_iter().flatten() {
            span.events.push(Event {
                name: text(&event["name"]).into(),
                time_unix_nano: event["time_unix_nano"].as_u64().unwrap_or_default(),
                attributes: attributes(&event["attributes"]),
                dropped_attributes_count: 0,
            });
        }
        for link in content["links"].as_array().into_iter().flatten() {
            span.links.push(Link {
                trace_id: trace_id(&text(&link["trace_id"]))?,
                span_id: SpanId::from_hex(&text(&link["span_id"]))?,
                trace_state: String::new(),
                flags: 0,
                attributes: attributes(&link["attributes"]),
                dropped_attributes_count: 0,
            });
        }
        all.push(StoredSpan::from(span));
    }
    Ok(all)
}

fn trace_id(text: &str) -> Result<TraceId, Failure> {
    Ok(TraceId::from_hex(text.strip_prefix("tr-").unwrap_or(text))?)
}

/// Trace-level values. Newer files keep name and session in columns.
fn updates(db: &Connection, experiment: &str) -> Result<Vec<TraceUpdate>, Failure> {
    let mut query = db.prepare(
        "SELECT t.request_id, t.client_request_id, t.request_preview, t.response_preview, \
         t.trace_name, t.session_id FROM trace_info t \
         JOIN experiments e ON e.experiment_id = t.experiment_id WHERE e.name = ?1",
    )?;
    let mut rows = query.query([experiment])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let mut update = TraceUpdate::new(trace_id(&id)?);
        update.client_request_id = row.get(1)?;
        update.request_preview = row.get(2)?;
        update.response_preview = row.get(3)?;
        update.name = row.get(4)?;
        update.session_id = row.get(5)?;
        update.tags = pairs(db, "trace_tags", &id)?;
        update.metadata = pairs(db, "trace_request_metadata", &id)?;
        update.user_id = update.metadata.remove("mlflow.trace.user");
        all.push(update);
    }
    Ok(all)
}

fn pairs(db: &Connection, table: &str, id: &str) -> Result<BTreeMap<String, String>, Failure> {
    let sql = format!("SELECT \"key\", value FROM {table} WHERE request_id = ?1");
    let mut query = db.prepare(&sql)?;
    let rows = query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An attribute's value: a text that is JSON.
fn decoded(text: &str) -> AnyValue {
    match serde_json::from_str(text) {
        Ok(value) => any(&value),
        // JSON has no such numbers, and Python writes them all the same.
        Err(_) => AnyValue::String(text.to_owned().into()),
    }
}

fn any(value: &Value) -> AnyValue {
    match value {
        Value::Null => AnyValue::Empty,
        Value::Bool(v) => AnyValue::Bool(*v),
        Value::Number(n) => n
            .as_i64()
            .map(AnyValue::Int)
            .or_else(|| n.as_f64().map(AnyValue::Double))
            .unwrap_or_default(),
        Value::String(s) => AnyValue::String(s.clone().into()),
        Value::Array(items) => AnyValue::Array(items.iter().map(any).collect()),
        Value::Object(_) => AnyValue::Map(attributes(value)),
    }
}

fn attributes(value: &Value) -> Vec<Attribute> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| Attribute::new(key.clone(), any(value)))
        .collect()
}

/// What the server keeps of a span: attribute values are JSON there, and there is no place for the
/// kind, flags, trace state and counts. The root carries the name of its trace, and a span without
/// an end ends where it began.
pub(super) fn kept(mut stored: StoredSpan) -> StoredSpan {
    let span = &mut stored.span;
    span.trace_state.clear();
    span.flags = 0;
    span.kind = SpanKind::default();
    span.dropped_attributes_count = 0;
    span.dropped_events_count = 0;
    span.dropped_links_count = 0;
    if span.status.code != StatusCode::Error {
        span.status.message = "".into();
    }
    if span.parent_span_id.is_none() {
        let name = span.name.to_string();
        span.attributes
            .push(Attribute::new("mlflow.traceTag.mlflow.traceName", name));
    }
    if span.end_time_unix_nano == 0 {
        span.end_time_unix_nano = span.start_time_unix_nano;
    }
    as_json(&mut span.attributes);
    for event in &mut span.events {
        event.dropped_attributes_count = 0;
        as_json(&mut event.attributes);
    }
    for link in &mut span.links {
        link.trace_state.clear();
        link.flags = 0;
        link.dropped_attributes_count = 0;
        as_json(&mut link.attributes);
    }
    stored
}

fn as_json(attributes: &mut [Attribute]) {
    for attribute in attributes {
        json_value(&mut attribute.value);
    }
}

/// JSON as Python writes it: bytes are the text of a Python literal. The suite's are not printable.
fn json_value(value: &mut AnyValue) {
    match value {
        AnyValue::Bytes(bytes) => {
            let mut text = String::from("b'");
            for b in &*bytes {
                match b {
                    b'\n' => text.push_str("\\n"),
                    b'\t' => text.push_str("\\t"),
                    b'\r' => text.push_str("\\r"),
                    b'\\' | b'\'' => text.extend(['\\', char::from(*b)]),
                    0x20..0x7f => text.push(char::from(*b)),
                    _ => text.push_str(&format!("\\x{b:02x}")),
                }
            }
            text.push('\'');
            *value = AnyValue::String(text.into());
        }
        AnyValue::Array(items) => items.iter_mut().for_each(json_value),
        AnyValue::Map(entries) => as_json(entries),
        _ => {}
    }
}
