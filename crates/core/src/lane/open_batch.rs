//! The batch of a lane that is still growing. Only the delivery thread touches it.

use super::sealed::Cut;
use crate::location::BatchLimits;
use crate::record::{BatchId, Resource, Scope, Span, SpanGroup, TraceBatch, TraceUpdate};
use std::sync::Arc;
use std::time::Instant;

/// Spans and trace-level values collected since the last batch was sealed.
pub(crate) struct OpenBatch {
    pub(crate) since: Instant,
    /// Those of its lane, which is not touched for each span.
    limits: BatchLimits,
    bytes: usize,
    spans: usize,
    groups: Vec<SpanGroup>,
    updates: Vec<TraceUpdate>,
}

impl OpenBatch {
    pub(crate) fn new(now: Instant, limits: BatchLimits) -> Self {
        Self {
            since: now,
            limits,
            bytes: 0,
            spans: 0,
            groups: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Adds a span of the SDK; `buffer` makes the list that a new group needs.
    pub(crate) fn push_sdk(
        &mut self,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
        span: Span,
        bytes: usize,
        buffer: impl FnOnce() -> Vec<Span>,
    ) {
        self.bytes += bytes;
        self.spans += 1;
        match self.group(resource, scope) {
            Some(group) => group.spans.push(span),
            None => {
                let mut spans = buffer();
                spans.push(span);
                self.groups.push(SpanGroup {
                    resource: resource.clone(),
                    scope: scope.clone(),
                    spans,
                });
            }
        }
    }

    /// Adds decoded spans.
    pub(crate) fn push_group(&mut self, group: SpanGroup, bytes: usize) {
        self.bytes += bytes;
        self.spans += group.spans.len();
        match self.group(&group.resource, &group.scope) {
            Some(there) => there.spans.extend(group.spans),
            None => self.groups.push(group),
        }
    }

    /// The group of a resource and a scope, compared by identity: equal ones that are two values
    /// make two groups, which is correct and rare.
    fn group(&mut self, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Option<&mut SpanGroup> {
        self.groups
            .iter_mut()
            .rev()
            .find(|g| Arc::ptr_eq(&g.scope, scope) && Arc::ptr_eq(&g.resource, resource))
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

    /// The spans, group by group.
    pub(crate) fn spans_mut(&mut self) -> impl Iterator<Item = &mut Span> {
        self.groups.iter_mut().flat_map(|group| &mut group.spans)
    }

    /// Counts bytes that were put on its spans.
    pub(crate) fn holds_more(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Takes the newest spans out until `excess` bytes are free, or none is left.
    pub(crate) fn cut(&mut self, excess: usize) -> Cut {
        let cut = Cut::of(&mut self.groups, excess);
        self.bytes = self.bytes.saturating_sub(cut.bytes);
        self.spans -= cut.spans.len();
        cut
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans == 0 && self.updates.is_empty()
    }

    /// Whether the batch has reached a size limit.
    pub(crate) fn is_full(&self) -> bool {
        self.spans >= self.limits.spans || self.bytes >= self.limits.bytes
    }

    /// Number of spans.
    pub(crate) fn len(&self) -> usize {
        self.spans
    }

    /// Spans, trace-level values and bytes.
    pub(crate) fn held(&self) -> (u64, usize, usize) {
        (self.spans as u64, self.updates.len(), self.bytes)
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
        let batch = TraceBatch::new(id, self.groups, self.updates);
        super::Sealed::new(batch, self.bytes)
    }
}
