//! What the tests of this program share.

use crate::catalog_server::UnityServer;
use crate::lake;
use opentelemetry::trace::{SpanId, TraceId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use trace_destination_core::{
    BatchId, Error, Resource, Scope, SpanGroup, SpanRecord, TraceBatch, TraceLocation as _,
};
use trace_destination_unity_catalog::{CatalogServer, StorageOptions, UnityCatalogLocation};

pub(crate) const TABLE: &str = "main.traces.shop_otel_spans";

/// A server whose catalog has a folder for tables.
#[derive(Debug)]
pub(crate) struct Governed {
    pub(crate) server: UnityServer,
    pub(crate) folder: TempDir,
}

impl Governed {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            server: UnityServer::with_root(folder.path()),
            folder,
        }
    }

    pub(crate) fn client(&self) -> CatalogServer {
        CatalogServer::new(&self.server.url()).unwrap()
    }

    pub(crate) fn location(&self, name: &str) -> UnityCatalogLocation {
        at(name, self.client())
    }

    /// Where the table of `main.traces.shop` goes.
    pub(crate) fn place(&self) -> PathBuf {
        self.folder.path().join("main/traces/shop_otel_spans")
    }

    /// Fails if anything of a table is left: a registration, or a file.
    pub(crate) fn assert_untouched(&self) {
        let tables: Vec<String> = self.server.state().tables.keys().cloned().collect();
        assert!(tables.is_empty(), "registered: {tables:?}");
        let files: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().collect();
        assert!(files.is_empty(), "left behind: {files:?}");
    }
}

pub(crate) fn at(name: &str, server: CatalogServer) -> UnityCatalogLocation {
    UnityCatalogLocation::builder()
        .with_name(name)
        .with_server(server)
        // A server on this machine, whose tables are in its folders.
        .with_storage(StorageOptions::new().with_file_locations(true))
        .build()
        .unwrap()
}

/// A batch of one span, with an id of its own.
pub(crate) fn batch(trace: u128) -> TraceBatch {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let span = SpanRecord::new(
        TraceId::from(trace),
        SpanId::from(1),
        "span",
        1_700_000_000_000_000_000,
        1_700_000_000_100_000_000,
    );
    let group = SpanGroup {
        resource: Arc::new(Resource::default()),
        scope: Arc::new(Scope::default()),
        spans: vec![span.into()],
    };
    let id = BatchId {
        writer: uuid::Uuid::from_u128(trace),
        sequence: NEXT.fetch_add(1, Ordering::Relaxed),
    };
    TraceBatch::new(id, vec![group], Vec::new())
}

/// Opens a location and writes one span.
pub(crate) async fn write(location: &UnityCatalogLocation, trace: u128) -> Result<(), Error> {
    let sink = location.open().await?;
    let written = sink.write(&batch(trace)).await?;
    assert!(written.refused.is_empty(), "{written:?}");
    sink.close().await
}

/// The traces in a table's folder, sorted.
pub(crate) async fn traces(folder: &Path) -> Vec<u128> {
    let ids = lake::ids(folder).await.unwrap();
    let mut all: Vec<u128> = ids
        .iter()
        .map(|(trace, _)| u128::from_str_radix(trace, 16).unwrap())
        .collect();
    all.sort_unstable();
    all
}
