//! Sampling by destination: a tenant may keep a tenth of its traces while another keeps all.
//!
//! The pipeline drops what is not kept by itself, so that a ratio is obeyed by any provider. The
//! [`DestinationSampler`] decides the same before a span is recorded.

use crate::destination::Destination;
use crate::pipeline::Shared;
use crate::route_id::RouteId;
use crate::sampling::keeps;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Shared {
    /// The share of traces kept of those that start in `cx`.
    fn ratio_in(&self, cx: &Context) -> f64 {
        let destination = self.levels.resolve(cx);
        let own = destination.and_then(|d| d.sampling_ratio());
        own.unwrap_or(self.sampling.ratio)
    }

    /// `route`, or that of traces that are not kept.
    ///
    /// A trace that comes from another process is decided by its id too: where the pipeline over
    /// there dropped it, its spans still carry the flag of a sampled one. Where a sampler decides,
    /// the flag is right, and the parent's decision is followed.
    #[cold]
    pub(crate) fn sampled(
        &self,
        route: RouteId,
        trace: TraceId,
        cx: &Context,
        made_here: bool,
    ) -> RouteId {
        let by_parent = !made_here && self.sampling.by_sampler.load(Ordering::Relaxed);
        match !route.leads_somewhere() || by_parent || keeps(trace, self.ratio_in(cx)) {
            true => route,
            false => RouteId::SAMPLED_OUT,
        }
    }
}

impl Shared {
    /// The route of a trace whose destination became known after its start.
    pub(crate) fn route_to(&self, destination: &Destination, trace: TraceId) -> RouteId {
        let route = self.routes.of(Some(destination));
        let ratio = destination.sampling_ratio();
        let ratio = ratio.unwrap_or(self.sampling.ratio);
        match !route.leads_somewhere() || !self.sampling.is_on() || keeps(trace, ratio) {
            true => route,
            false => RouteId::SAMPLED_OUT,
        }
    }
}

/// Keeps the share of traces that their destination asks for
/// ([`Destination::with_sampling_ratio`](crate::Destination::with_sampling_ratio)), else the
/// pipeline's. A span with a parent follows its parent's decision. Made by
/// [`Pipeline::sampler`](crate::Pipeline::sampler).
#[derive(Clone)]
pub struct DestinationSampler(Arc<Shared>);

impl DestinationSampler {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.sampling.by_sampler.store(true, Ordering::Relaxed);
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
        let ratio = self.0.ratio_in(cx);
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
