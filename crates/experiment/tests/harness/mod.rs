//! The experiment backend as the conformance suite sees it: fresh SQLite files, read back with
//! plain `rusqlite` and `serde_json`, sharing no code with the sink.

use async_trait::async_trait;
use opentelemetry::trace::{SpanId, TraceId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, RealFault, Stored, StoredSpan, Untouched,
};
use trace_destination_core::{
    AnyValue, Attribute, ErrorKind, Event, Link, LocationUri, Registry, SpanRecord, Status,
    StatusCode, Template, TraceLocation, TraceUpdate,
};
use trace_destination_experiment::ExperimentLocation;

/// Makes the command that runs `trace_destination_conformance::writer::run` on a location.
type Writer = fn(&LocationUri) -> Command;

/// Brings [`ExperimentLocation`] to the suite. Its files vanish with it.
#[derive(Debug)]
pub(crate) struct ExperimentHarness {
    dir: TempDir,
    next: AtomicU64,
    writer: Writer,
    /// Connections that hold a file's write lock.
    locks: Mutex<HashMap<PathBuf, Connection>>,
}

impl ExperimentHarness {
    /// A harness with a folder of its own.
    pub(crate) fn new(writer: Writer) -> std::io::Result<Self> {
        Ok(Self {
            dir: TempDir::with_prefix("conformance-")?,
            next: AtomicU64::new(0),
            writer,
            locks: Mutex::default(),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn fresh_path(&self) -> PathBuf {
        self.dir.path().join(format!("{}.db", self.number()))
    }

    fn location(&self, path: &Path, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let location = ExperimentLocation::builder()
            .with_path(path)
            .with_experiment_name(format!("{hint}-{}", self.number()))
            .build()?;
        Ok(Arc::new(location))
    }
}

fn path_of(location: &dyn TraceLocation) -> Result<PathBuf, Failure> {
    // `sqlite:////absolute`: the URI's path has one slash more than the file's.
    let path = location.uri().path().strip_prefix('/');
    path.map(PathBuf::from)
        .ok_or_else(|| Failure::new(format!("{location} has no path")))
}

fn name_of(location: &dyn TraceLocation) -> Result<&str, Failure> {
    location
        .uri()
        .query("experiment_name")
        .ok_or_else(|| Failure::new(format!("{location} names no experiment")))
}

#[async_trait]
impl Harness for ExperimentHarness {
    fn name(&self) -> &str {
        "experiment"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        self.location(&self.fresh_path(), hint)
    }

    async fn sibling(
        &self,
        location: &dyn TraceLocation,
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        self.location(&path_of(location)?, "sibling")
    }

    /// The experiment by its id.
    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        let path = path_of(location)?;
        let id: i64 = Connection::open(&path)?.query_row(
            "SELECT experiment_id FROM experiments WHERE name = ?1",
            [name_of(location)?],
            |row| row.get(0),
        )?;
        let by_id = ExperimentLocation::builder()
            .with_path(path)
            .with_experiment_id(id.to_string())
            .build()?;
        Ok(Arc::new(by_id))
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let path = path_of(location)?;
        if !path.exists() {
            return Ok(Stored::default());
        }
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        // An empty file is what is left when the first transaction never came to pass.
        let made: i64 = db.query_row(
            "SELECT count(*) FROM sqlite_master WHERE name = 'spans'",
            [],
            |row| row.get(0),
        )?;
        if made == 0 {
            return Ok(Stored::default());
        }
        let experiment: Option<i64> = db
            .query_row(
                "SELECT experiment_id FROM experiments WHERE name = ?1",
                [name_of(location)?],
                |row| row.get(0),
            )
            .optional()?;
        match experiment {
            Some(experiment) => Ok(Stored {
                spans: spans(&db, experiment)?,
                updates: updates(&db, experiment)?,
            }),
            None => Ok(Stored::default()),
        }
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_unavailable()
            .with_broken()
            .with_alias()
            .with_trace_values()
            .with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let registry = Registry::new()
            .with_scheme("sqlite", |uri| {
                ExperimentLocation::from_uri(uri).map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
            })
            .with_holes("sqlite", ExperimentLocation::holes());
        let path = self.fresh_path();
        Ok(registry.template(&format!(
            "sqlite:///{}?experiment_name={{tenant}}",
            path.display()
        ))?)
    }

    /// MLflow's own form of a span: attribute values are JSON, and there is no place for the rest.
    fn keeps(&self, mut stored: StoredSpan) -> StoredSpan {
        let span = &mut stored.span;
        span.trace_state.clear();
        span.flags = 0;
        span.kind = trace_destination_core::SpanKind::default();
        span.dropped_attributes_count = 0;
        span.dropped_events_count = 0;
        span.dropped_links_count = 0;
        if span.status.code != StatusCode::Error {
            span.status.message = "".into();
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

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        let path = path_of(location)?;
        let name = name_of(location)?;
        let db = Connection::open(&path)?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        let stage = |stage: &str| {
            db.execute(
                "UPDATE experiments SET lifecycle_stage = ?1 WHERE name = ?2",
                [stage, name],
            )
        };
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            RealFault::Unavailable => {
                db.execute_batch("BEGIN IMMEDIATE")?;
                locks.insert(path, db);
            }
            RealFault::Broken => {
                stage("deleted")?;
            }
            RealFault::Heal => {
                // Closing the connection ends its transaction.
                drop(locks.remove(&path));
                stage("active")?;
            }
        }
        Ok(())
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let mut all = Vec::new();
        let mut add =
            |what: &str, uri: String, expected, retried, untouched| -> Result<(), Failure> {
                let uri: LocationUri = uri.parse()?;
                all.push(Misconfigured {
                    what: what.to_owned(),
                    location: ExperimentLocation::from_uri(&uri).map(|l| Arc::new(l) as _),
                    expected,
                    retried,
                    untouched,
                });
                Ok(())
            };
        let uri = |path: &Path, query: &str| format!("sqlite:///{}?{query}", path.display());

        add(
            "no experiment named",
            uri(&self.fresh_path(), ""),
            ErrorKind::InvalidConfig,
            false,
            Untouched::nowhere(),
        )?;
        let text = self.fresh_path();
        std::fs::write(
            &text,
            "a shopping list, and quite a long one at that: ".repeat(100),
        )?;
        add(
            "a file that is not SQLite",
            uri(&text, "experiment_name=a"),
            ErrorKind::Unsupported,
            false,
            unchanged(&text)?,
        )?;
        let absent = self.fresh_path();
        let gone = absent.clone();
        add(
            "a missing file that must not be made",
            uri(&absent, "experiment_name=a&create=false"),
            ErrorKind::NotFound,
            false,
            Untouched::new(move || match gone.exists() {
                true => Err(Failure::new("the file was made")),
                false => Ok(()),
            }),
        )?;
        add(
            "a folder that is a file",
            uri(&text.join("x.db"), "experiment_name=a"),
            ErrorKind::InvalidConfig,
            false,
            unchanged(&text)?,
        )?;

        // Files of MLflow's that are whole, each with something wrong in it.
        let unknown = self.made("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'kept', 'active'); \
             UPDATE alembic_version SET version_num = 'ffffffffffff'; \
             CREATE TRIGGER no_spans BEFORE INSERT ON spans BEGIN SELECT RAISE(IGNORE); END").await?;
        add(
            "a newer schema that drops what is written",
            uri(&unknown, "experiment_name=kept"),
            ErrorKind::Unsupported,
            false,
            unchanged(&unknown)?,
        )?;
        let deleted = self.made("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'gone', 'deleted')").await?;
        add(
            "a deleted experiment",
            uri(&deleted, "experiment_name=gone"),
            ErrorKind::NotFound,
            false,
            unchanged(&deleted)?,
        )?;
        let two = self.made("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'seven', 'active'), (8, 'eight', 'active')").await?;
        add(
            "an experiment id that does not exist",
            uri(&two, "experiment_id=99"),
            ErrorKind::NotFound,
            false,
            unchanged(&two)?,
        )?;
        add(
            "a name and an id of two experiments",
            uri(&two, "experiment_id=7&experiment_name=eight"),
            ErrorKind::Conflict,
            false,
            unchanged(&two)?,
        )?;
        let locked = self.made("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'seven', 'active')").await?;
        let untouched = unchanged(&locked)?;
        let lock = Connection::open(&locked)?;
        lock.execute_batch("BEGIN IMMEDIATE")?;
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(locked.clone(), lock);
        add(
            "a file that another writer has locked",
            uri(&locked, "experiment_name=seven"),
            ErrorKind::Locked,
            true,
            untouched,
        )?;
        Ok(all)
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        Some((self.writer)(location.uri()))
    }
}

impl ExperimentHarness {
    /// A file in MLflow's shape, edited, and old enough not to look half-made.
    async fn made(&self, edit: &str) -> Result<PathBuf, Failure> {
        let path = self.fresh_path();
        let location = self.location(&path, "first")?;
        location.open().await?.close().await?;
        let db = Connection::open(&path)?;
        db.execute_batch(edit)?;
        // No log beside the file, so that it can be compared as a whole.
        db.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        drop(db);
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        std::fs::File::options()
            .write(true)
            .open(&path)?
            .set_modified(hour_ago)?;
        Ok(path)
    }
}

/// A check that a file still holds the same.
fn unchanged(path: &Path) -> Result<Untouched, Failure> {
    let (path, before) = (path.to_owned(), std::fs::read(path)?);
    Ok(Untouched::new(move || {
        // The two numbers in the header that say which journal is used are no content.
        let mut after = std::fs::read(&path)?;
        let mut before = before.clone();
        for bytes in [&mut before, &mut after] {
            if bytes.len() > 100 && bytes.starts_with(b"SQLite format 3") {
                for counter in [18..20, 24..28, 92..100] {
                    bytes[counter].fill(0);
                }
            }
        }
        match before == after {
            true => Ok(()),
            false => Err(Failure::new(format!("{} was changed", path.display()))),
        }
    }))
}

fn spans(db: &Connection, experiment: i64) -> Result<Vec<StoredSpan>, Failure> {
    let mut query = db.prepare(
        "SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.status, \
         s.start_time_unix_nano, s.end_time_unix_nano, s.content \
         FROM spans s JOIN trace_info t ON t.request_id = s.trace_id \
         WHERE t.experiment_id = ?1 AND s.experiment_id = ?1",
    )?;
    let mut rows = query.query([experiment])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let hex: String = row.get(0)?;
        let trace = hex.strip_prefix("tr-").unwrap_or(&hex);
        let parent: Option<String> = row.get(2)?;
        let start: i64 = row.get(5)?;
        let end: Option<i64> = row.get(6)?;
        let name: String = row.get(3)?;
        let mut span = SpanRecord::new(
            TraceId::from_hex(trace)?,
            SpanId::from_hex(&row.get::<_, String>(1)?)?,
            name,
            u64::try_from(start)?,
            end.map_or(Ok(0), u64::try_from)?,
        );
        span.parent_span_id = parent.map(|p| SpanId::from_hex(&p)).transpose()?;
        let content: String = row.get(7)?;
        let content: Value = serde_json::from_str(&content)?;
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
            let trace = text(&link["trace_id"]);
            span.links.push(Link {
                trace_id: TraceId::from_hex(trace.strip_prefix("tr-").unwrap_or(&trace))?,
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

fn updates(db: &Connection, experiment: i64) -> Result<Vec<TraceUpdate>, Failure> {
    let mut query = db.prepare(
        "SELECT request_id, client_request_id, request_preview, response_preview \
         FROM trace_info WHERE experiment_id = ?1",
    )?;
    let mut rows = query.query([experiment])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let trace = TraceId::from_hex(id.strip_prefix("tr-").unwrap_or(&id))?;
        let mut update = TraceUpdate::new(trace);
        update.client_request_id = row.get(1)?;
        update.request_preview = row.get(2)?;
        update.response_preview = row.get(3)?;
        update.tags = pairs(db, "trace_tags", &id)?;
        update.metadata = pairs(db, "trace_request_metadata", &id)?;
        update.session_id = update.metadata.remove("mlflow.trace.session");
        update.user_id = update.metadata.remove("mlflow.trace.user");
        update.name = update.tags.remove("mlflow.traceName");
        update.run_id = update.metadata.remove("mlflow.sourceRun");
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

/// What JSON, as Python writes it, makes of attributes.
fn as_json(attributes: &mut [Attribute]) {
    for attribute in attributes {
        json_value(&mut attribute.value);
    }
}

fn json_value(value: &mut AnyValue) {
    match value {
        // Python's text of bytes; the suite uses bytes that are not printable, and a few that are.
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
