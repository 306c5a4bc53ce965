//! Spans that do not come from the SDK: replayed files, and gateways that decode OTLP.

use super::{Payload, Pipeline};
use crate::destination::Destination;
use crate::lane::{Lane, LaneId};
use crate::record::{Resource, Scope, Span, SpanGroup, SpanRecord};
use crate::uri::LocationUri;
use std::iter::Peekable;
use std::sync::Arc;

/// Spans of one call that travel together, at most. Few, so that batches keep their limits.
const CHUNK_SPANS: usize = 64;
/// Their bytes, at most, where they are more than one span.
const CHUNK_BYTES: usize = 256 << 10;
/// And the part of what a lane may hold that they may be.
const CHUNK_PART: usize = 8;
/// Spans after which the delivery thread is woken: the ingress counts a chunk as one.
const WAKE_EVERY: u64 = 1024;

/// What became of ingested spans, summed over the locations of their destination.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Ingested {
    /// Spans queued for delivery.
    pub accepted: u64,
    /// Spans dropped: no room, no destination, or the pipeline was shut down. Counted in `stats`
    /// with the reason.
    pub dropped: u64,
    /// Those of the dropped spans that a location had no room for, or that came after the shutdown,
    /// by location: in case they can be offered again later, or an answer has to name them.
    pub refused: Vec<RefusedSpans>,
}

/// Ingested spans that a location had no room for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RefusedSpans {
    /// The location.
    pub location: LocationUri,
    /// The spans, in order.
    pub spans: Vec<SpanRecord>,
}

impl Ingested {
    fn refuse(&mut self, lane: Option<Arc<Lane>>, spans: Vec<Span>) {
        self.dropped += spans.len() as u64;
        // There is none any more only where this is a forked child.
        let Some(lane) = lane else { return };
        let location = &lane.uri;
        let spans = spans.into_iter().map(Span::into_record);
        match self.refused.iter_mut().find(|r| r.location == *location) {
            Some(there) => there.spans.extend(spans),
            None => self.refused.push(RefusedSpans {
                location: location.clone(),
                spans: spans.collect(),
            }),
        }
    }
}

impl Pipeline {
    /// Delivers decoded spans to a destination. They keep everything OTLP can say; nothing is
    /// bound, sampled or resolved. Waits only under
    /// [`Overflow::Block`](crate::Overflow::Block). Spans for which a location has no room are
    /// returned.
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
        if shared.routes.lanes_of(route).is_empty() {
            if let Some(first) = spans.first() {
                shared.count_without_lane(route, spans.len() as u64, &first.name);
            }
            result.dropped = spans.len() as u64;
            return result;
        }
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
        let caps = lanes
            .iter()
            .map(|lane| shared.routes.intake(*lane).cap() / CHUNK_PART);
        let most = match shared.budget.is_short() {
            true => CHUNK_BYTES.min(shared.budget.share() / 2),
            false => CHUNK_BYTES,
        };
        let limit = caps.fold(most, usize::min);
        while let Some((chunk, bytes)) = next_chunk(&mut spans, limit) {
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
                match shared.offer(*lane, bytes, count, || Payload::Group(Box::new(own))) {
                    Ok(()) => result.accepted += count,
                    Err(Payload::Group(group)) => {
                        result.refuse(shared.routes.lane(*lane), group.spans);
                    }
                    Err(_) => unreachable!("what was refused is what was offered"),
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

/// The next spans that travel together, of `limit` bytes or just one, and their bytes.
fn next_chunk(
    spans: &mut Peekable<impl ExactSizeIterator<Item = Span>>,
    limit: usize,
) -> Option<(Vec<Span>, usize)> {
    let first = spans.next()?;
    let mut bytes = first.approximate_bytes();
    let mut chunk = Vec::with_capacity(CHUNK_SPANS.min(1 + spans.len()));
    chunk.push(first);
    while chunk.len() < CHUNK_SPANS
        && let Some(next) = spans.peek().map(Span::approximate_bytes)
        && bytes + next <= limit
    {
        bytes += next;
        chunk.extend(spans.next());
    }
    Some((chunk, bytes))
}
