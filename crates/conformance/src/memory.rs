//! The harness of the in-memory backend.

use crate::failure::{Failure, ensure};
use crate::harness::{Declares, Harness, Misconfigured, Stored, StoredSpan, Untouched};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trace_destination_core::{
    ErrorKind, LocationUri, MemoryLocation, MemoryStore, Registry, Template, TraceLocation,
};

/// Brings [`MemoryLocation`] to the suite, and shows how small a harness can be.
#[derive(Debug, Default)]
pub struct MemoryHarness {
    _private: (),
}

/// The number of the next location of this process, so that no two harnesses share one.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl MemoryHarness {
    /// A harness whose locations nobody else uses.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn name(&self) -> &str {
        "memory"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(MemoryLocation::new(&format!(
            "conformance-{n}-{hint}"
        ))))
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let store = MemoryStore::named(location.uri().path());
        let spans: Vec<StoredSpan> = store
            .spans()
            .into_iter()
            .map(|s| StoredSpan {
                resource: (*s.resource).clone(),
                scope: (*s.scope).clone(),
                span: s.span.into_record(),
            })
            .collect();
        let mut traces: Vec<_> = spans.iter().map(|s| s.span.trace_id).collect();
        traces.sort_by_key(|t| t.to_bytes());
        traces.dedup();
        Ok(Stored {
            updates: traces.into_iter().filter_map(|t| store.update(t)).collect(),
            spans,
        })
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_trace_values()
            .with_groups()
            .with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let registry = Registry::new()
            .with_scheme("memory", |uri| {
                Ok(Arc::new(MemoryLocation::from_uri(uri)?) as Arc<dyn TraceLocation>)
            })
            .with_holes("memory", MemoryLocation::holes());
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(registry.template(&format!("memory:conformance-{n}-{{tenant}}"))?)
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let wrong = |what: &str, text: &str| -> Result<Misconfigured, Failure> {
            let uri: LocationUri = text.parse()?;
            ensure!(uri.scheme() == "memory", "{text} is no memory location");
            Ok(Misconfigured {
                what: what.to_owned(),
                location: MemoryLocation::from_uri(&uri).map(|l| Arc::new(l) as _),
                expected: ErrorKind::InvalidConfig,
                retried: false,
                untouched: Untouched::nowhere(),
            })
        };
        Ok(vec![
            wrong("a memory location without a name", "memory:")?,
            wrong(
                "a memory location with a parameter",
                "memory:name?experiment_id=1",
            )?,
            wrong("a memory location with a host", "memory://host/name")?,
        ])
    }
}
