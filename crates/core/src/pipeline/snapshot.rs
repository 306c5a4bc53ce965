//! Reading every counter at one moment.

use super::Shared;
use crate::route_id::RouteId;
use crate::stats::{DropReason, Forgotten, LocationState, LocationStats, PipelineStats, Undecided};
use std::sync::atomic::{AtomicU64, Ordering};

impl Shared {
    pub(super) fn stats(&self) -> PipelineStats {
        if self.is_inherited() {
            return self.inherited_stats();
        }
        self.settle_all();
        let open = self.bindings.open_spans();
        let mut open_by_lane = std::collections::HashMap::new();
        for (route, spans) in open {
            for lane in self.routes.legs_of(RouteId(route)) {
                *open_by_lane.entry(*lane).or_insert(0) += spans;
            }
        }
        let (lanes, forgotten) = self.routes.all_and_forgotten();
        let mut locations: Vec<LocationStats> = lanes
            .iter()
            .map(|lane| {
                // What becomes of a batch is counted under this lock: no span is seen twice.
                let guard = lane.state();
                let state = guard.public();
                let last_error = guard.last_error.clone();
                let stored = lane.counters.stored.load(Ordering::Relaxed);
                let dropped = lane.dropped();
                let in_flight = lane.counters.in_flight.load(Ordering::Relaxed);
                drop(guard);
                // Before those that were lost: what ends meanwhile is then in one of the two.
                let late_updates = lane.late_updates();
                let lost_updates = lane.lost_updates();
                // `accepted` is read last: a span that ends meanwhile is counted as queued.
                let accepted = lane.accepted();
                LocationStats {
                    uri: lane.uri.clone(),
                    state,
                    accepted,
                    stored,
                    queued: accepted.saturating_sub(stored + dropped.total() + in_flight),
                    in_flight,
                    dropped,
                    bytes: lane.bytes(),
                    batches: lane.counters.batches.load(Ordering::Relaxed),
                    retries: lane.counters.retries.load(Ordering::Relaxed),
                    lost_updates,
                    late_updates,
                    last_error,
                    open_spans: open_by_lane.get(&lane.id).copied().unwrap_or(0),
                }
            })
            .collect();
        locations.sort_by(|a, b| a.uri.cmp(&b.uri));
        PipelineStats {
            bound_traces: self.bindings.len() as u64,
            undecided: self.room.stats(),
            ..self.totals(locations, &forgotten)
        }
    }

    /// The counters in a child that was forked. What its copy of the queues held is counted as
    /// dropped: the parent delivers it. Takes no lock that a thread of the parent may hold.
    fn inherited_stats(&self) -> PipelineStats {
        let error = self.process.left_behind();
        let (lanes, forgotten) = self.routes.all_and_forgotten();
        let mut locations: Vec<LocationStats> = lanes
            .iter()
            .map(|lane| {
                let stored = lane.counters.stored.load(Ordering::Relaxed);
                let mut dropped = lane.dropped();
                let accepted = lane.accepted().max(stored + dropped.total());
                let copies = accepted - stored - dropped.total();
                dropped.add(DropReason::Shutdown, copies);
                LocationStats {
                    uri: lane.uri.clone(),
                    state: LocationState::Closed,
                    accepted,
                    stored,
                    queued: 0,
                    in_flight: 0,
                    dropped,
                    bytes: 0,
                    batches: lane.counters.batches.load(Ordering::Relaxed),
                    retries: lane.counters.retries.load(Ordering::Relaxed),
                    lost_updates: lane.lost_updates(),
                    late_updates: 0,
                    last_error: Some(error.clone()),
                    open_spans: 0,
                }
            })
            .collect();
        locations.sort_by(|a, b| a.uri.cmp(&b.uri));
        let mut stats = PipelineStats {
            bytes: 0,
            ..self.totals(locations, &forgotten)
        };
        // What waits here follows nothing any more.
        let waits = self.room.stats();
        stats.unrouted += waits.spans;
        stats.unrouted_updates += waits.updates;
        stats
    }

    fn totals(&self, locations: Vec<LocationStats>, forgotten: &Forgotten) -> PipelineStats {
        let count = |total: &AtomicU64| total.load(Ordering::Relaxed);
        PipelineStats {
            unrouted: count(&self.totals.unrouted),
            discarded: count(&self.totals.discarded),
            sampled_out: count(&self.totals.sampled_out),
            orphaned: count(&self.totals.orphaned),
            expired_bindings: count(&self.totals.expired_bindings),
            ignored_scopes: count(&self.totals.ignored_scopes),
            bound_traces: 0,
            unrouted_updates: count(&self.totals.unrouted_updates),
            unscoped_roots: count(&self.levels.unscoped),
            undecided: Undecided::default(),
            bytes: self.budget.used() + self.room.used(),
            locations,
            forgotten: forgotten.sum(),
        }
    }
}
