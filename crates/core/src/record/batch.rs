//! A batch: what one call of a sink stores.

use super::span::Span;
use super::trace_update::TraceUpdate;
use super::value::{Attribute, Attributes};
use std::any::Any;
use std::sync::Arc;
use uuid::Uuid;

/// Identity of a batch. It stays the same when the batch is written again after a failure, so a
/// sink that remembers it can tell a repetition from new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The pipeline that made the batch; new with each pipeline.
    pub writer: Uuid,
    /// Rises strictly within one location and writer, also after the sink was closed and reopened.
    pub sequence: u64,
}

/// The entity that produced spans (`opentelemetry/proto/resource/v1/resource.proto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Attributes in order.
    pub attributes: Vec<Attribute>,
    /// Attributes lost to a limit before they got here.
    pub dropped_attributes_count: u32,
    /// Schema of the resource's attributes.
    pub schema_url: Option<String>,
}

impl Resource {
    /// Borrows the attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes::record(&self.attributes)
    }
}

impl From<&opentelemetry_sdk::Resource> for Resource {
    fn from(resource: &opentelemetry_sdk::Resource) -> Self {
        let mut attributes: Vec<Attribute> = resource
            .iter()
            .map(|(k, v)| Attribute {
                key: k.clone(),
                value: v.clone().into(),
            })
            .collect();
        // The SDK keeps them in a hash map; sorting makes what is stored reproducible.
        attributes.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            attributes,
            dropped_attributes_count: 0,
            schema_url: resource.schema_url().map(str::to_owned),
        }
    }
}

/// The instrumentation that produced spans (`InstrumentationScope` in `common.proto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// The instrumentation's name; may be empty.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Schema of the spans' attributes.
    pub schema_url: Option<String>,
    /// Attributes in order.
    pub attributes: Vec<Attribute>,
    /// Attributes lost to a limit before they got here.
    pub dropped_attributes_count: u32,
}

impl From<&opentelemetry::InstrumentationScope> for Scope {
    fn from(scope: &opentelemetry::InstrumentationScope) -> Self {
        Self {
            name: scope.name().to_owned(),
            version: scope.version().map(str::to_owned),
            schema_url: scope.schema_url().map(str::to_owned),
            attributes: scope.attributes().cloned().map(Attribute::from).collect(),
            dropped_attributes_count: 0,
        }
    }
}

/// Spans that share a resource and an instrumentation scope, in order of arrival.
#[derive(Clone, Debug)]
pub struct SpanGroup {
    /// What produced the spans.
    pub resource: Arc<Resource>,
    /// The instrumentation that produced them.
    pub scope: Arc<Scope>,
    /// The spans; never empty.
    pub spans: Vec<Span>,
}

/// What one call of [`TraceSink::write`](crate::TraceSink::write) stores.
#[derive(Clone, Debug)]
pub struct TraceBatch {
    pub(crate) id: BatchId,
    pub(crate) groups: Vec<SpanGroup>,
    pub(crate) updates: Vec<TraceUpdate>,
    pub(crate) encoded: Option<Arc<dyn Any + Send + Sync>>,
}

impl TraceBatch {
    /// A batch made by hand, for tests of sinks.
    pub fn new(id: BatchId, groups: Vec<SpanGroup>, updates: Vec<TraceUpdate>) -> Self {
        Self {
            id,
            groups,
            updates,
            encoded: None,
        }
    }

    /// What the sink's [`BatchEncoder`](crate::BatchEncoder) made of the batch, if it was asked.
    pub fn encoded<T: Any>(&self) -> Option<&T> {
        let encoded = self.encoded.as_ref()?;
        match encoded.downcast_ref::<Encoded>() {
            Some(Encoded(inner)) => inner.as_ref()?.downcast_ref(),
            None => encoded.downcast_ref(),
        }
    }

    /// Identity of the batch, the same on every attempt.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// The spans by resource and scope.
    pub fn groups(&self) -> &[SpanGroup] {
        &self.groups
    }

    /// Trace-level values, one entry per trace at most.
    pub fn updates(&self) -> &[TraceUpdate] {
        &self.updates
    }

    /// All spans, group by group. A refusal names a span by its position here.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.groups.iter().flat_map(|g| &g.spans)
    }

    /// Number of spans.
    pub fn span_count(&self) -> usize {
        self.groups.iter().map(|g| g.spans.len()).sum()
    }
}

/// What an encoder made, dropped where its destructor can do no harm.
pub(crate) struct Encoded(Option<Arc<dyn Any + Send + Sync>>);

impl Encoded {
    pub(crate) fn new(encoded: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Some(encoded))
    }

    pub(crate) fn inner(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.0.as_deref()
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if let Some(encoded) = self.0.take() {
            crate::contain::release(encoded);
        }
    }
}
