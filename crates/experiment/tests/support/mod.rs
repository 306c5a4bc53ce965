//! Batches to write and eyes to read with, shared by the tests of this crate.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and fails by panicking"
)]

use opentelemetry::trace::{SpanId, TraceId};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trace_destination_core::{
    Attribute, BatchId, Error, Resource, Scope, SpanGroup, SpanRecord, TraceBatch, TraceLocation,
    TraceSink, TraceUpdate, Written,
};
use trace_destination_experiment::ExperimentLocation;

/// MLflow's schema revisions as it leaves them: the one new files are named after, the last with
/// rows for names and usage, and that of MLflow 3.17.2.
pub const OLDEST: &str = trace_destination_experiment::test_support::OLDEST;
pub const BEFORE_COLUMNS: &str = include_str!("../data/b7e2c1a4d9f3.sql");
pub const HEAD: &str = include_str!("../data/dc11669786a5.sql");

/// 2026-11-22T00:00:00Z in nanoseconds.
pub const NOON: u64 = 1_795_305_600_000_000_000;

pub fn span(trace: u128, id: u64, parent: Option<u64>, name: &'static str) -> SpanRecord {
    let start = NOON + id * 1_000_000;
    let mut record = SpanRecord::new(
        TraceId::from(trace),
        SpanId::from(id),
        name,
        start,
        start + 5_000_000,
    );
    record.parent_span_id = parent.map(SpanId::from);
    record
}

pub fn batch(spans: Vec<SpanRecord>) -> TraceBatch {
    batch_with(spans, Vec::new())
}

pub fn batch_with(spans: Vec<SpanRecord>, updates: Vec<TraceUpdate>) -> TraceBatch {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let id = BatchId {
        writer: uuid::Uuid::from_u128(1),
        sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
    };
    let resource = Arc::new(Resource {
        attributes: vec![Attribute::new("service.name", "svc")],
        ..Resource::default()
    });
    let mut groups = Vec::new();
    if !spans.is_empty() {
        groups.push(SpanGroup {
            resource,
            scope: Arc::new(Scope::default()),
            spans: spans.into_iter().map(Into::into).collect(),
        });
    }
    TraceBatch::new(id, groups, updates)
}

/// A whole small trace: a root with previews, session and user, and an LLM call below it.
pub fn conversation(trace: u128) -> Vec<SpanRecord> {
    let root = span(trace, 1, None, "answer")
        .with_attribute("mlflow.spanInputs", r#"{"q": "hi"}"#)
        .with_attribute("mlflow.spanOutputs", r#"{"a": "yo"}"#)
        .with_attribute("session.id", "s-1")
        .with_attribute("user.id", "u-1")
        .with_attribute("mlflow.traceTag.mlflow.traceName", "chat")
        .with_attribute("mlflow.traceTag.env", "dev");
    let call = span(trace, 2, Some(1), "call")
        .with_attribute("mlflow.spanType", "CHAT_MODEL")
        .with_attribute("mlflow.llm.model", "m-1")
        .with_attribute("mlflow.llm.provider", "p-1")
        .with_attribute(
            "mlflow.chat.tokenUsage",
            r#"{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}"#,
        )
        .with_attribute(
            "mlflow.llm.cost",
            r#"{"input_cost": 0.5, "output_cost": 0.25, "total_cost": 0.75}"#,
        );
    vec![root, call]
}

pub fn at(path: &Path, experiment: &str) -> ExperimentLocation {
    ExperimentLocation::builder()
        .with_path(path)
        .with_experiment_name(experiment)
        .build()
        .unwrap()
}

pub fn uri(text: &str) -> Result<ExperimentLocation, Error> {
    ExperimentLocation::from_uri(&text.parse()?)
}

/// Runs on a small runtime, as the pipeline has one.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Opens, writes, closes.
pub async fn store(location: &ExperimentLocation, batch: &TraceBatch) -> Result<Written, Error> {
    let sink = location.open().await?;
    let written = sink.write(batch).await;
    sink.close().await?;
    written
}

/// Writes until it is not locked out any more, as a lane would.
pub async fn persist(sink: &dyn TraceSink, batch: &TraceBatch) -> Written {
    for _ in 0..600 {
        match sink.write(batch).await {
            Ok(written) => return written,
            Err(e) if e.retry() == trace_destination_core::Retry::Backoff => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
    panic!("never got through");
}

/// A file made by someone else, in a given shape.
pub fn made_by_mlflow(path: &Path, ddl: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!("BEGIN;{ddl};COMMIT;")).unwrap();
    conn.execute_batch(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, \
         creation_time, last_update_time) VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active', 1, 1)",
    )
    .unwrap();
    conn
}

pub fn rows(path: &Path, sql: &str) -> Vec<Vec<Value>> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement
        .query_map([], |row| (0..width).map(|i| row.get(i)).collect())
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

pub fn texts(path: &Path, sql: &str) -> Vec<String> {
    rows(path, sql)
        .into_iter()
        .map(|row| {
            row.into_iter()
                .map(|v| match v {
                    Value::Null => "-".to_owned(),
                    Value::Integer(i) => i.to_string(),
                    Value::Real(f) => f.to_string(),
                    Value::Text(t) => t,
                    Value::Blob(b) => format!("{b:?}"),
                })
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect()
}

pub fn count(path: &Path, table: &str) -> i64 {
    match rows(path, &format!("SELECT count(*) FROM {table}"))[0][0] {
        Value::Integer(n) => n,
        _ => unreachable!("count is an integer"),
    }
}

pub fn assert_sound(path: &Path) {
    assert_eq!(texts(path, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(texts(path, "PRAGMA foreign_key_check"), [""; 0]);
}
