//! The batch of a lane that is still growing. Only the delivery thread touches it.

use crate::location::BatchLimits;
use crate::record::{BatchId, Resource, Scope, Span, SpanGroup, TraceBatch, TraceUpdate};
use opentelemetry::InstrumentationScope;
use std::sync::Arc;
use std::time::Instant;

/// Spans and trace-level values collected since the last batch was sealed.
pub(crate) struct OpenBatch {
    pub(crate) since: Instant,
    bytes: usize,
    spans: usize,
    groups: Vec<Group>,
    updates: Vec<TraceUpdate>,
}

struct Group {
    resource: Arc<Resource>,
    scope: GroupScope,
    spans: Vec<Span>,
}

/// The scope of a group as its spans carry it; converted once, when the batch is sealed.
enum GroupScope {
    /// Each span of the SDK carries it; the first one's is used.
    OfFirstSpan,
    Record(Arc<Scope>),
}

impl OpenBatch {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            spans: 0,
            groups: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Adds a span of the SDK.
    pub(crate) fn push_sdk(&mut self, resource: &Arc<Resource>, span: Span, bytes: usize) {
        self.bytes += bytes;
        self.spans += 1;
        let scope = span.sdk_scope();
        let found = self.groups.iter_mut().rev().find(|g| {
            matches!(g.scope, GroupScope::OfFirstSpan)
                && Arc::ptr_eq(&g.resource, resource)
                && g.spans
                    .first()
                    .is_some_and(|s| same_scope(s.sdk_scope(), scope))
        });
        match found {
            Some(group) => group.spans.push(span),
            None => self.groups.push(Group {
                resource: resource.clone(),
                scope: GroupScope::OfFirstSpan,
                spans: vec![span],
            }),
        }
    }

    /// Adds decoded spans.
    pub(crate) fn push_group(&mut self, group: SpanGroup, bytes: usize) {
        self.bytes += bytes;
        self.spans += group.spans.len();
        let found = self.groups.iter_mut().rev().find(|g| match &g.scope {
            GroupScope::Record(scope) => {
                Arc::ptr_eq(&g.resource, &group.resource) && Arc::ptr_eq(scope, &group.scope)
            }
            GroupScope::OfFirstSpan => false,
        });
        match found {
            Some(found) => found.spans.extend(group.spans),
            None => self.groups.push(Group {
                resource: group.resource,
                scope: GroupScope::Record(group.scope),
                spans: group.spans,
            }),
        }
    }

    /// Adds trace-level values, merging those of one trace.
    pub(crate) fn push_update(&mut self, update: TraceUpdate, bytes: usize) {
        self.bytes += bytes;
        match self
            .updates
            .iter_mut()
            .rev()
            .find(|u| u.trace_id == update.trace_id)
        {
            Some(there) => there.merge(update),
            None => self.updates.push(update),
        }
    }

    /// Whether the batch has reached a size limit.
    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.spans >= limits.spans || self.bytes >= limits.bytes
    }

    /// The finished batch. `run_id` links each trace whose root is in it to an MLflow run.
    pub(crate) fn seal(mut self, id: BatchId, run_id: Option<&str>) -> super::Sealed {
        if let Some(run_id) = run_id {
            let roots: Vec<_> = self
                .groups
                .iter()
                .flat_map(|g| &g.spans)
                .filter(|s| s.parent_span_id().is_none())
                .map(Span::trace_id)
                .collect();
            for trace_id in roots {
                let mut linked = TraceUpdate::new(trace_id);
                linked.run_id = Some(run_id.to_owned());
                // What the application said itself wins.
                match self.updates.iter_mut().find(|u| u.trace_id == trace_id) {
                    Some(update) if update.run_id.is_some() => {}
                    Some(update) => update.merge(linked),
                    None => self.updates.push(linked),
                }
            }
        }
        let groups = self
            .groups
            .into_iter()
            .map(|g| SpanGroup {
                scope: match g.scope {
                    GroupScope::Record(scope) => scope,
                    GroupScope::OfFirstSpan => Arc::new(
                        g.spans
                            .first()
                            .and_then(Span::sdk_scope)
                            .map(Scope::from)
                            .unwrap_or_default(),
                    ),
                },
                resource: g.resource,
                spans: g.spans,
            })
            .collect();
        super::Sealed {
            batch: TraceBatch {
                id,
                groups,
                updates: self.updates,
            },
            bytes: self.bytes,
        }
    }
}

/// Equality of scopes without allocating: their own `==` sorts copies of the attributes, per span.
fn same_scope(a: Option<&InstrumentationScope>, b: Option<&InstrumentationScope>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            a.name() == b.name()
                && a.version() == b.version()
                && a.schema_url() == b.schema_url()
                && a.attributes().eq(b.attributes())
        }
        _ => false,
    }
}
