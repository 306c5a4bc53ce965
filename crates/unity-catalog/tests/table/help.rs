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

/// Adds a commit as another engine would.
pub(crate) fn commit_by_others(folder: &Path, version: u64, lines: &[Value]) {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::create_dir_all(folder.join("_delta_log")).unwrap();
    std::fs::write(
        folder.join(format!("_delta_log/{version:020}.json")),
        text.join("\n"),
    )
    .unwrap();
}

/// The first commit of a table with the documented columns, as Spark makes it.
#[derive(Clone)]
pub(crate) struct First {
    pub(crate) protocol: Value,
    pub(crate) metadata: Value,
    /// Its columns, from `metadata`.
    pub(crate) schema: Value,
    /// More actions.
    pub(crate) more: Vec<Value>,
}

impl First {
    /// That of a table with VARIANT and `features`, of which `read` are those of readers as well.
    pub(crate) async fn new(read: &[&str], write: &[&str]) -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        open(&location(dir.path())).await.close().await.unwrap();
        let first = commits(&shop(dir.path())).remove(&0).unwrap();
        let mut metadata = actions(&first, "metaData")[0].clone();
        let text = metadata["schemaString"].as_str().unwrap().to_owned();
        metadata["id"] = Uuid::new_v4().to_string().into();
        let readers: Vec<&str> = read.iter().copied().chain(["variantType"]).collect();
        let writers: Vec<&str> = readers.iter().chain(write).copied().collect();
        Self {
            protocol: serde_json::json!({"minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": readers, "writerFeatures": writers}),
            metadata,
            schema: serde_json::from_str(&text).unwrap(),
            more: Vec::new(),
        }
    }

    /// With a table property.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata["configuration"][key] = value.into();
        self
    }

    /// With a metadata domain.
    pub(crate) fn with_domain(mut self, domain: &str, configuration: Value) -> Self {
        let configuration = configuration.to_string();
        self.more.push(serde_json::json!({"domainMetadata":
            {"domain": domain, "configuration": configuration, "removed": false}}));
        self
    }

    /// The fields of a struct, found by the names of the columns above it.
    pub(crate) fn fields(&mut self, path: &[&str]) -> &mut Vec<Value> {
        let mut at = &mut self.schema;
        for name in path {
            let fields = at["fields"].as_array_mut().unwrap();
            let field = fields.iter_mut().find(|f| f["name"] == *name).unwrap();
            at = &mut field["type"];
            if at["type"] == "array" {
                at = &mut at["elementType"];
            }
        }
        at["fields"].as_array_mut().unwrap()
    }

    /// Writes it as version 0 of a table.
    pub(crate) fn write(&self, folder: &Path) {
        let mut metadata = self.metadata.clone();
        metadata["schemaString"] = self.schema.to_string().into();
        let mut lines = vec![
            serde_json::json!({"commitInfo": {"timestamp": 1, "operation": "CREATE TABLE",
                "inCommitTimestamp": 1, "txnId": Uuid::new_v4().to_string()}}),
            serde_json::json!({"metaData": metadata}),
            serde_json::json!({"protocol": self.protocol}),
        ];
        lines.extend(self.more.iter().cloned());
        commit_by_others(folder, 0, &lines);
    }
}

/// A nullable column.
pub(crate) fn column(name: &str, data_type: impl Into<Value>) -> Value {
    serde_json::json!({"name": name, "type": data_type.into(), "nullable": true, "metadata": {}})
}
