//! Sampling by destination: a tenant may keep a tenth of its traces while another keeps all.

use crate::pipeline::Shared;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};
use std::fmt;
use std::sync::Arc;

/// Keeps the share of traces that their destination asks for
/// ([`Destination::with_sampling_ratio`](crate::Destination::with_sampling_ratio)), else the
/// pipeline's. A span with a parent follows its parent's decision. Made by
/// [`Pipeline::sampler`](crate::Pipeline::sampler).
#[derive(Clone)]
pub struct DestinationSampler(Arc<Shared>);

impl DestinationSampler {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl fmt::Debug for DestinationSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DestinationSampler")
    }
}

impl ShouldSample for DestinationSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let empty = Context::new();
        let cx = parent_context.unwrap_or(&empty);
        let parent = cx.span();
        let parent = parent.span_context();
        if parent.is_valid() {
            return SamplingResult {
                decision: if parent.is_sampled() {
                    SamplingDecision::RecordAndSample
                } else {
                    SamplingDecision::Drop
                },
                attributes: Vec::new(),
                trace_state: parent.trace_state().clone(),
            };
        }
        let ratio = self
            .0
            .levels
            .resolve(cx)
            .and_then(|d| d.sampling_ratio())
            .unwrap_or(self.0.sampling_ratio());
        if ratio >= 1.0 {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: TraceState::NONE,
            };
        }
        Sampler::TraceIdRatioBased(ratio).should_sample(
            parent_context,
            trace_id,
            name,
            kind,
            attributes,
            links,
        )
    }
}
