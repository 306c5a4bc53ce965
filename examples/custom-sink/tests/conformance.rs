//! The whole suite against the custom sink: a harness, and no list of cases.

use async_trait::async_trait;
use custom_sink::JsonLines;
use opentelemetry::trace::{SpanId, TraceId};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, Stored, StoredSpan, Untouched, assert_conforms,
};
use trace_destination_core::{
    AnyValue, Attribute, ErrorKind, Registry, SpanKind, SpanRecord, Status, StatusCode, Template,
    TraceLocation,
};

#[derive(Debug)]
struct Files {
    folder: TempDir,
    next: AtomicU32,
}

#[async_trait]
impl Harness for Files {
    fn name(&self) -> &str {
        "custom-sink"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{hint}-{number}.jsonl"));
        let uri = format!("jsonl:///{}", path.display());
        let registry = JsonLines::register(Registry::new());
        uri.parse()
            .and_then(|uri| registry.location(&uri))
            .map_err(|e| Failure::new(e.to_string()))
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let path = location.uri().path().trim_start_matches('/').to_owned();
        let text = match std::fs::read_to_string(format!("/{path}")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Stored::default()),
            other => other.map_err(|e| Failure::new(e.to_string()))?,
        };
        let mut stored = Stored::default();
        for line in text.lines() {
            let line = serde_json::from_str(line).map_err(|e| Failure::new(e.to_string()))?;
            stored.spans.push(span(&line).into());
        }
        Ok(stored)
    }

    fn declares(&self) -> Declares {
        Declares::default().with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let folder = self.folder.path().display();
        let text = format!("jsonl:///{folder}/names-{{tenant}}.jsonl");
        Ok(JsonLines::register(Registry::new()).template(&text)?)
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let missing = self.folder.path().join("missing");
        let wrong = |what: &str, text: String, expected, untouched| Misconfigured {
            what: what.to_owned(),
            location: text
                .parse()
                .and_then(|uri| JsonLines::register(Registry::new()).location(&uri)),
            expected,
            retried: false,
            untouched,
        };
        Ok(vec![
            wrong(
                "a file on another host",
                "jsonl://host/spans.jsonl".into(),
                ErrorKind::InvalidConfig,
                Untouched::nowhere(),
            ),
            wrong(
                "a folder that does not exist",
                format!("jsonl:///{}/spans.jsonl", missing.display()),
                ErrorKind::NotFound,
                Untouched::new(move || match missing.exists() {
                    true => Err(Failure::new("the folder was made")),
                    false => Ok(()),
                }),
            ),
        ])
    }

    /// What the file does not hold: flags, trace state, events, links, dropped counts, and values
    /// that JSON cannot tell apart.
    fn keeps(&self, stored: StoredSpan) -> StoredSpan {
        let given = stored.span;
        let kept = SpanRecord {
            parent_span_id: given.parent_span_id,
            kind: given.kind,
            status: given.status,
            attributes: given
                .attributes
                .into_iter()
                .filter(|a| is_plain(&a.value))
                .collect(),
            ..SpanRecord::new(
                given.trace_id,
                given.span_id,
                given.name,
                given.start_time_unix_nano,
                given.end_time_unix_nano,
            )
        };
        kept.into()
    }
}

fn is_plain(value: &AnyValue) -> bool {
    matches!(
        value,
        AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::String(_)
    )
}

fn span(line: &Value) -> SpanRecord {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    let id = |text: &str| SpanId::from_hex(text).expect("a span id");
    SpanRecord {
        parent_span_id: line["parent_span_id"].as_str().map(id),
        kind: SpanKind::from_otlp(line["kind"].as_i64().unwrap_or_default() as i32),
        status: Status {
            code: match line["status"][0].as_i64() {
                Some(1) => StatusCode::Ok,
                Some(2) => StatusCode::Error,
                _ => StatusCode::Unset,
            },
            message: line["status"][1]
                .as_str()
                .unwrap_or_default()
                .to_owned()
                .into(),
        },
        attributes: line["attributes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pair| Attribute {
                key: pair[0].as_str().unwrap_or_default().to_owned().into(),
                value: value(&pair[1]),
            })
            .filter(|a| is_plain(&a.value))
            .collect(),
        ..SpanRecord::new(
            TraceId::from_hex(&text("trace_id")).expect("a trace id"),
            id(&text("span_id")),
            text("name"),
            number("start_time_unix_nano"),
            number("end_time_unix_nano"),
        )
    }
}

fn value(json: &Value) -> AnyValue {
    match json {
        Value::Bool(v) => AnyValue::Bool(*v),
        Value::Number(v) if v.is_i64() => AnyValue::Int(v.as_i64().unwrap_or_default()),
        Value::String(v) => AnyValue::from(v.clone()),
        _ => AnyValue::Empty,
    }
}

#[test]
fn conforms() {
    assert_conforms(Files {
        folder: tempfile::tempdir().expect("a folder"),
        next: AtomicU32::new(0),
    });
}
