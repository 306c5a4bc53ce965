//! Spans that do not come from the SDK: replayed files, and gateways that decode OTLP.

use super::{Payload, Pipeline};
use crate::binding::RouteId;
use crate::destination::Destination;
use crate::lane::LaneId;
use crate::record::{Resource, Scope, Span, SpanGroup, SpanRecord};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Spans of one call that travel together. Small, so that batches keep their limits.
const CHUNK: usize = 64;
/// Spans after which the delivery thread is woken: the ingress counts a chunk as one.
const WAKE_EVERY: u64 = 1024;

/// What became of ingested spans, summed over the locations of their destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Ingested {
    /// Spans queued for delivery.
    pub accepted: u64,
    /// Spans dropped: no room, no destination, or the pipeline was shut down. Counted in `stats`
    /// with the reason.
    pub dropped: u64,
}

impl Pipeline {
    /// Delivers decoded spans to a destination. They keep everything OTLP can say; nothing is
    /// bound, sampled or resolved. Waits only under
    /// [`Overflow::Block`](crate::Overflow::Block).
    ///
    /// A span with the id of a trace that this process made for another location is refused by a
    /// location in the same store, if an id can be used only once there.
    pub fn ingest(
        &self,
        resource: Arc<Resource>,
        scope: Arc<Scope>,
        spans: Vec<SpanRecord>,
        destination: &Destination,
    ) -> Ingested {
        let shared = self.shared();
        let mut result = Ingested::default();
        let route = shared.routes.of(Some(destination));
        let route = match route {
            RouteId::UNROUTED | RouteId::DISCARD => {
                let total = match route {
                    RouteId::DISCARD => &shared.totals.discarded,
                    _ => &shared.totals.unrouted,
                };
                total.fetch_add(spans.len() as u64, Ordering::Relaxed);
                result.dropped = spans.len() as u64;
                return result;
            }
            route => route,
        };
        let (spans, taken) = shared.split_taken(route, spans);
        for (refusing, spans) in taken {
            let count = spans.len() as u64;
            result.dropped += shared.refuse_spans(refusing, count);
            self.ingest_along(&refusing.delivers, &resource, &scope, spans, &mut result);
        }
        let lanes = shared.routes.lanes_of(route);
        self.ingest_along(lanes, &resource, &scope, spans, &mut result);
        result
    }

    fn ingest_along(
        &self,
        lanes: &[LaneId],
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
        spans: Vec<SpanRecord>,
        result: &mut Ingested,
    ) {
        let shared = self.shared();
        let mut sent = 0;
        let mut spans = spans.into_iter().map(Span::from).peekable();
        while spans.peek().is_some() {
            let chunk: Vec<Span> = spans.by_ref().take(CHUNK).collect();
            let bytes = chunk.iter().map(Span::approximate_bytes).sum();
            let count = chunk.len() as u64;
            let mut group = Some(SpanGroup {
                resource: resource.clone(),
                scope: scope.clone(),
                spans: chunk,
            });
            // The last lane, most often the only one, gets the spans themselves.
            for (lane, others) in lanes.iter().zip((0..lanes.len()).rev()) {
                let own = match others {
                    0 => group.take(),
                    _ => group.clone(),
                };
                let Some(own) = own else { continue };
                let payload = || Payload::Group(Box::new(own));
                if shared.offer(*lane, bytes, count, payload) {
                    result.accepted += count;
                } else {
                    result.dropped += count;
                }
            }
            sent += count;
            if sent >= WAKE_EVERY {
                sent = 0;
                shared.wake_delivery();
            }
        }
    }
}
