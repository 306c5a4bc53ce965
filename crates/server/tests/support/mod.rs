//! What the tests of this crate share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and helpers fail as tests do"
)]

pub mod decode;
pub mod http;
pub mod mlflow;
pub mod script;

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trace_destination_core::{
    BatchId, Error, LocationUri, Resource, Scope, Span, SpanGroup, SpanRecord, TraceBatch,
    TraceLocation, TraceSink, TraceUpdate, Written,
};
use trace_destination_server::{ServerLocation, ServerLocationBuilder};

/// A location at `uri`, with nothing of the environment.
pub fn location(uri: &str) -> ServerLocation {
    builder(uri).build().unwrap()
}

pub fn builder(uri: &str) -> ServerLocationBuilder {
    let uri: LocationUri = uri.parse().unwrap();
    ServerLocation::builder().with_uri(&uri)
}

/// A root span of a trace of its own.
pub fn root(trace: u128) -> SpanRecord {
    span(trace, 1)
}

pub fn span(trace: u128, id: u64) -> SpanRecord {
    SpanRecord::new(
        TraceId::from(trace),
        SpanId::from(id),
        "span",
        1_700_000_000_000_000_000,
        1_700_000_000_100_000_000,
    )
}

pub fn child(trace: u128, id: u64) -> SpanRecord {
    let mut span = span(trace, id);
    span.parent_span_id = Some(SpanId::from(1));
    span
}

pub fn batch(spans: impl IntoIterator<Item = SpanRecord>) -> TraceBatch {
    updated(spans, Vec::new())
}

pub fn updated(
    spans: impl IntoIterator<Item = SpanRecord>,
    updates: Vec<TraceUpdate>,
) -> TraceBatch {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let spans: Vec<Span> = spans.into_iter().map(Span::from).collect();
    let groups = match spans.is_empty() {
        true => Vec::new(),
        false => vec![SpanGroup {
            resource: Arc::new(Resource::default()),
            scope: Arc::new(Scope::default()),
            spans,
        }],
    };
    let id = BatchId {
        writer: uuid::Uuid::nil(),
        sequence: NEXT.fetch_add(1, Ordering::Relaxed),
    };
    TraceBatch::new(id, groups, updates)
}

pub async fn open(location: &ServerLocation) -> Result<Box<dyn TraceSink>, Error> {
    location.open().await
}

/// Opens a location and writes one batch.
pub async fn write(location: &ServerLocation, batch: &TraceBatch) -> Result<Written, Error> {
    location.open().await?.write(batch).await
}

/// The certificates in a PEM file.
pub fn certificates(
    file: &std::path::Path,
) -> Vec<tokio_rustls::rustls::pki_types::CertificateDer<'static>> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::pem_file_iter(file)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}
