//! Values set on a trace, from the application to each lane of the trace, and from the place where
//! they wait onto the root span. See [`crate::values`] for their whole way.

use super::{Payload, Pipeline, Shared};
use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::lane::{Lane, LaneId, OpenBatch};
use crate::location::TraceValues;
use crate::record::TraceUpdate;
use crate::route_id::RouteId;
use crate::values::{self, NotHeld, OPERATION, Waiting, WaitingValues};
use opentelemetry::trace::TraceId;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a link to a run is counted with in the budgets beside its text, in bytes.
const ATTRIBUTE: usize = 128;

impl Pipeline {
    /// Sets values on a trace from outside of it, most often after its end: what a user says about an
    /// answer, or a job that looks at it later. They go to `destination`, which is where the trace
    /// has to be: whoever calls this names it.
    ///
    /// Returns false, and sets nothing, where the destination is no place or the id is invalid.
    /// Otherwise what becomes of the values is counted at each location. Where only the root of a
    /// trace carries them they are lost, unless the trace still runs in this process. A trace that
    /// this process made for another location of a store, where an id can be used only once, is
    /// refused there.
    ///
    /// ```
    /// use std::time::Duration;
    /// use trace_destination_core::{Destination, MemoryLocation, Pipeline};
    ///
    /// let pipeline = Pipeline::builder().build()?;
    /// let tenant = MemoryLocation::new("update-trace");
    /// let trace = opentelemetry::trace::TraceId::from(7);
    /// pipeline.update_trace(trace, &Destination::new(tenant.clone()), |trace| {
    ///     trace.tags.insert("reviewed".into(), "yes".into());
    /// });
    /// assert!(pipeline.flush(Duration::from_secs(5)).wait().all_stored());
    /// assert_eq!(tenant.store().update(trace).unwrap().tags["reviewed"], "yes");
    /// # Ok::<(), trace_destination_core::Error>(())
    /// ```
    pub fn update_trace(
        &self,
        trace: TraceId,
        destination: &Destination,
        set: impl FnOnce(&mut TraceUpdate),
    ) -> bool {
        let shared = self.shared();
        let route = shared.routes.of(Some(destination));
        if trace == TraceId::INVALID || shared.routes.lanes_of(route).is_empty() {
            return false;
        }
        let mut update = TraceUpdate::new(trace);
        set(&mut update);
        // It is the trace that was named.
        update.trace_id = trace;
        let own = match shared.routes.is_exclusive(route) {
            true => (shared.bindings.own_route(trace)).filter(|own| *own != RouteId::UNDECIDED),
            false => None,
        };
        let route = own.map_or(route, |own| shared.routes.beside(own, route));
        shared.accept_update(route, &update, false);
        true
    }
}

impl Shared {
    /// Sends trace-level values along a route. `root_comes` where the root of the trace has ended and
    /// is sent along the same route behind them.
    pub(crate) fn accept_update(&self, route: RouteId, update: &TraceUpdate, root_comes: bool) {
        match self.routes.refusing(route) {
            Some(refusing) => self.refuse_update(refusing, update, root_comes),
            None => {
                let lanes = self.routes.lanes_of(route);
                if lanes.is_empty() && !matches!(route, RouteId::DISCARD | RouteId::SAMPLED_OUT) {
                    let lost = &self.totals.unrouted_updates;
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                self.send_update(lanes, update, root_comes);
            }
        }
    }

    pub(super) fn send_update(&self, lanes: &[LaneId], update: &TraceUpdate, root_comes: bool) {
        let inherited = self.is_inherited();
        for id in lanes {
            let lane = if inherited {
                None
            } else {
                self.routes.lane(*id)
            };
            let Some(lane) = lane else {
                // This is a forked child: a thread of the parent may hold the lane's lock.
                self.routes.intake(*id).lose_update();
                continue;
            };
            let mut update = update.clone();
            if let Some(left_out) = update.fit(&lane.trace_value_limits) {
                lane.lose_value(left_out);
                if update.is_empty() {
                    continue;
                }
            }
            let sent = match lane.trace_values {
                TraceValues::Stored => self.send_to_home(&lane, update),
                TraceValues::OnRootSpan => self.wait_for_root(&lane, update, root_comes),
            };
            if let Err(lost) = sent {
                lane.lose_value(lost);
            }
        }
    }

    fn send_to_home(&self, lane: &Lane, update: TraceUpdate) -> Result<(), Error> {
        let (trace, bytes) = (update.trace_id, update.approximate_bytes());
        let payload = || Payload::Update(Box::new(update));
        let offered = self.offer(lane.id, bytes, 0, payload);
        offered.map_err(|_| self.no_room(trace))
    }

    fn wait_for_root(
        &self,
        lane: &Lane,
        update: TraceUpdate,
        root_comes: bool,
    ) -> Result<(), Error> {
        let trace = update.trace_id;
        if update.is_empty() {
            return Ok(());
        }
        if self.is_inherited() {
            return Err(shut_down(trace));
        }
        if !root_comes && !self.awaits_root(lane.id, trace) {
            return Err(too_late(trace));
        }
        let bytes = WaitingValues::bytes_of(&update);
        let intake = lane.intake();
        if !intake.reserve(bytes, &self.budget) && !self.wait_for_room(intake, bytes, 0) {
            return Err(self.no_room(trace));
        }
        let put = self.values.put(lane.id, update, bytes);
        let unused = *put.as_ref().unwrap_or(&bytes);
        if unused > 0 {
            intake.release(unused, &self.budget);
        }
        put.map(drop).map_err(|why| match why {
            NotHeld::Full => self.no_room(trace),
            NotHeld::Closed => shut_down(trace),
        })
    }

    fn no_room(&self, trace: TraceId) -> Error {
        if self.ingress.is_closed() {
            return shut_down(trace);
        }
        lost(trace, "there is no room for them").mend(
            "raise the budget of the pipeline, or set fewer or shorter values on traces that run \
             for long",
        )
    }

    /// Whether a root of the trace may still come to a lane.
    pub(super) fn awaits_root(&self, lane: LaneId, trace: TraceId) -> bool {
        let leads = |route| self.routes.legs_of(route).contains(&lane);
        self.bindings.awaits_root(trace, leads)
    }

    /// Whether a span with a remote parent is the root of its trace as far as a lane gets it: the
    /// trace did not begin here, or went somewhere else.
    fn is_root_at(&self, lane: LaneId, trace: TraceId) -> bool {
        let own = self.bindings.own_route(trace);
        own.is_none_or(|route| !self.routes.legs_of(route).contains(&lane))
    }

    /// Writes what was set on traces, and the run they are linked to, on the roots in a batch that is
    /// going to be sealed.
    pub(super) fn write_on_roots(&self, lane: &Lane, batch: &mut OpenBatch) {
        if lane.trace_values != TraceValues::OnRootSpan {
            return;
        }
        let run_id = self.run_id.as_ref();
        if run_id.is_none() && self.values.is_empty() {
            return;
        }
        let mut roots: Vec<_> = (batch.spans_mut())
            .filter(|span| span.parent_span_id().is_none() || span.has_remote_parent())
            .filter(|span| {
                span.parent_span_id().is_none() || self.is_root_at(lane.id, span.trace_id())
            })
            .collect();
        let taken = self
            .values
            .take(lane.id, roots.iter().map(|root| root.trace_id()));
        let mut more = 0;
        for (root, waiting) in roots.iter_mut().zip(taken) {
            // Where the trace began elsewhere, its run is told there.
            let run_id = run_id.filter(|_| root.parent_span_id().is_none());
            let (mut update, bytes) = match waiting {
                Some(waiting) => (waiting.update, waiting.bytes),
                None if run_id.is_some() => (TraceUpdate::new(root.trace_id()), 0),
                None => continue,
            };
            more += bytes;
            if let (None, Some(run)) = (&update.run_id, run_id) {
                update.run_id = Some(run.clone());
                let run = ATTRIBUTE + run.len();
                lane.intake().add(run, &self.budget);
                more += run;
            }
            values::write(update, root);
        }
        batch.holds_more(more);
    }

    /// Counts what still waits as lost, and lets nothing in any more: delivery ends.
    pub(super) fn give_up_values(&self) {
        for (id, waiting) in self.values.close() {
            self.lose_waiting(id, &waiting, unfinished(waiting.update.trace_id));
        }
    }

    pub(super) fn lose_waiting(&self, id: LaneId, waiting: &Waiting, error: Error) {
        self.routes.intake(id).release(waiting.bytes, &self.budget);
        if let Some(lane) = self.routes.lane(id) {
            lane.lose_value(error);
        }
    }

    /// Logs what became of values on threads that do not log.
    pub(super) fn log_lost_values(&self, lanes: &[Arc<Lane>]) {
        for lane in lanes {
            if let Some(error) = lane.untold_value() {
                self.log.untold(&lane.uri, &error);
            }
        }
    }
}

pub(super) fn lost(trace: TraceId, why: &str) -> Error {
    let cause = format!("values set on trace {trace} are lost: {why}");
    Error::new(ErrorKind::Unsupported, OPERATION, cause)
}

fn too_late(trace: TraceId) -> Error {
    lost(
        trace,
        "its root span had ended, and this place has no other home for them",
    )
    .mend("set them before the root span ends, or send the trace to an MLflow experiment too")
}

fn unfinished(trace: TraceId) -> Error {
    lost(trace, "its root span had not ended at the shutdown").mend("end every span before it")
}

fn shut_down(trace: TraceId) -> Error {
    lost(trace, "the pipeline was shut down").mend("shut it down after the last trace")
}
