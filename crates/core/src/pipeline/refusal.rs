//! Spans that some lanes of their route refuse: the trace id belongs to somebody else there.

use super::Shared;
use crate::lane::Lane;
use crate::record::{SpanRecord, TraceUpdate};
use crate::route_id::RouteId;
use crate::routes::{Refuses, Refusing};
use crate::stats::DropReason;
use opentelemetry::trace::TraceId;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

impl Shared {
    /// Takes out the spans whose trace was made here for somebody else who is in one store with a
    /// location of `route`: in groups, each with what becomes of it.
    pub(super) fn split_taken(
        &self,
        route: RouteId,
        spans: Vec<SpanRecord>,
    ) -> (Vec<SpanRecord>, Vec<(&Refusing, Vec<SpanRecord>)>) {
        let mut taken: HashMap<RouteId, Vec<SpanRecord>> = HashMap::new();
        if !self.routes.is_exclusive(route) {
            return (spans, Vec::new());
        }
        let mut left = Vec::with_capacity(spans.len());
        let mut last = (TraceId::INVALID, route);
        for span in spans {
            if span.trace_id != last.0 {
                let own = self.bindings.own_route(span.trace_id);
                let beside = own.map_or(route, |own| self.routes.beside(own, route));
                last = (span.trace_id, beside);
            }
            match last.1 == route {
                true => left.push(span),
                false => taken.entry(last.1).or_default().push(span),
            }
        }
        let taken = taken.into_iter();
        let taken = taken.filter_map(|(route, s)| Some((self.routes.refusing(route)?, s)));
        (left, taken.collect())
    }

    /// Counts spans at the lanes that refuse them, and tells them why. Returns how many were dropped,
    /// summed over these lanes.
    #[cold]
    pub(super) fn refuse_spans(&self, refusing: &Refusing, spans: u64) -> u64 {
        for refuses in &refusing.refuses {
            let Some(lane) = self.routes.lane(refuses.lane) else {
                continue;
            };
            lane.intake().accept(spans);
            lane.counters.drop_spans(DropReason::Refused, spans);
            self.tell(&lane, refuses);
            refuses.untold.fetch_add(spans, Ordering::Relaxed);
        }
        spans * refusing.refuses.len() as u64
    }

    /// Counts trace-level values at the lanes that refuse them, and sends them to the others.
    #[cold]
    pub(super) fn refuse_update(
        &self,
        refusing: &Refusing,
        update: &TraceUpdate,
        root_comes: bool,
    ) {
        for refuses in &refusing.refuses {
            if let Some(lane) = self.routes.lane(refuses.lane) {
                lane.counters.lose_updates(1);
                self.tell(&lane, refuses);
            }
        }
        self.send_update(&refusing.delivers, update, root_comes);
    }

    /// Logs what was refused since the last call.
    pub(super) fn log_refusals(&self) {
        for refuses in self.routes.all_refuses() {
            let spans = refuses.untold.swap(0, Ordering::Relaxed);
            if spans > 0
                && let Some(lane) = self.routes.lane(refuses.lane)
            {
                self.log.refused(&lane.uri, spans, &refuses.error);
            }
        }
    }
}

impl Shared {
    fn tell(&self, lane: &Lane, refuses: &Refuses) {
        // In a forked child a thread of the parent may hold the lane's lock.
        if !self.is_inherited() {
            lane.state().last_error = Some(refuses.error.clone());
        }
    }
}
