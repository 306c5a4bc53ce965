//! Places that take everything and keep nothing, for both sides.

use async_trait::async_trait;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trace_destination_core::{
    Capabilities, Error, Guarantee, LocationUri, TraceBatch, TraceLocation, TraceSink, Written,
};

/// A location that counts spans and drops them.
#[derive(Clone, Debug)]
pub struct NullLocation {
    uri: LocationUri,
    spans: Arc<AtomicU64>,
}

impl NullLocation {
    /// The location `null:name`, which counts in `spans`.
    ///
    /// # Panics
    /// If the name cannot be part of a URI.
    pub fn new(name: &str, spans: Arc<AtomicU64>) -> Self {
        match LocationUri::from_parts("null", None, name, []) {
            Ok(uri) => Self { uri, spans },
            Err(error) => panic!("{error}"),
        }
    }
}

impl fmt::Display for NullLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for NullLocation {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(NullSink(self.spans.clone())))
    }
}

struct NullSink(Arc<AtomicU64>);

#[async_trait]
impl TraceSink for NullSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        self.0
            .fetch_add(batch.span_count() as u64, Ordering::Relaxed);
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// An exporter that counts spans and drops them.
#[derive(Clone, Debug, Default)]
pub struct NullExporter(Arc<AtomicU64>);

impl NullExporter {
    /// Spans exported so far.
    pub fn spans(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl SpanExporter for NullExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
