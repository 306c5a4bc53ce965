//! Batches to write, and looks into the log.

use crate::lake;
use opentelemetry::trace::{SpanId, TraceId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Attribute, BatchId, Error, Resource, Retry, Scope, SpanGroup, SpanRecord, TraceBatch,
    TraceLocation as _, TraceSink, Written,
};
use trace_destination_unity_catalog::UnityCatalogLocation;
use uuid::Uuid;

/// 2026-11-22T00:00:00Z in nanoseconds.
pub(crate) const MIDNIGHT: u64 = 1_795_305_600_000_000_000;

/// Where `main.traces.shop` is below a root.
pub(crate) fn shop(root: &Path) -> PathBuf {
    root.join("main/traces/shop_otel_spans")
}

pub(crate) fn location(root: &Path) -> UnityCatalogLocation {
    UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_root(root.display().to_string())
        .build()
        .unwrap()
}

pub(crate) fn span(trace: u128, id: u64) -> SpanRecord {
    let start = MIDNIGHT + id * 1_000_001;
    SpanRecord::new(
        TraceId::from(trace),
        SpanId::from(id),
        "work",
        start,
        start + 5_000_000,
    )
    .with_attribute("tenant", "a")
}

/// A batch of one resource and scope.
pub(crate) fn batch(writer: u128, sequence: u64, spans: Vec<SpanRecord>) -> TraceBatch {
    let resource = Arc::new(Resource {
        attributes: vec![Attribute::new("service.name", "svc")],
        ..Resource::default()
    });
    let groups = match spans.is_empty() {
        true => Vec::new(),
        false => vec![SpanGroup {
            resource,
            scope: Arc::new(Scope::default()),
            spans: spans.into_iter().map(Into::into).collect(),
        }],
    };
    let id = BatchId {
        writer: Uuid::from_u128(writer),
        sequence,
    };
    TraceBatch::new(id, groups, Vec::new())
}

/// A batch of three spans that no other has.
pub(crate) fn numbered(writer: u128, sequence: u64) -> TraceBatch {
    let trace = (writer << 64) | (u128::from(sequence) + 1);
    batch(writer, sequence, (1..=3).map(|i| span(trace, i)).collect())
}

/// The ids of the spans [`numbered`] makes.
pub(crate) fn expected(writers: &[u128], batches: u64) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for writer in writers {
        for sequence in 0..batches {
            let trace = TraceId::from((writer << 64) | (u128::from(sequence) + 1));
            all.extend((1..=3).map(|i| (trace.to_string(), SpanId::from(i).to_string())));
        }
    }
    all.sort();
    all
}

/// The ids in a table, sorted.
pub(crate) async fn stored(folder: &Path) -> Vec<(String, String)> {
    let mut all = lake::ids(folder).await.unwrap();
    all.sort();
    all
}

pub(crate) async fn open(location: &UnityCatalogLocation) -> Box<dyn TraceSink> {
    location.open().await.unwrap()
}

/// Writes as a lane does: again, as long as the error says that it may help.
pub(crate) async fn persist(sink: &dyn TraceSink, batch: &TraceBatch) -> Result<Written, Error> {
    let mut last = None;
    for _ in 0..200 {
        match sink.write(batch).await {
            Ok(written) => return Ok(written),
            Err(e) if e.retry() == Retry::Never => return Err(e),
            Err(e) => last = Some(e),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(last.unwrap())
}

/// The commits of a table, by version, as lines of JSON.
pub(crate) fn commits(folder: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(version) = name.strip_suffix(".json").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        all.insert(version, lines.collect());
    }
    all
}

/// The actions of one kind in a commit.
pub(crate) fn actions<'a>(commit: &'a [Value], kind: &str) -> Vec<&'a Value> {
    commit.iter().filter_map(|line| line.get(kind)).collect()
}

/// The Parquet files in a table's folder.
pub(crate) fn parquet_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".parquet"))
        .collect();
    names.sort();
    names
}
