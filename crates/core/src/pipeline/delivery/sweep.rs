//! What the delivery thread does now and then: ends bindings, tells the log, closes idle locations.

use super::{Delivery, SWEEP, Timing};
use crate::binding::{RouteId, SWEEPS_PER_LINGER};
use crate::lane::{self, Lane};
use crate::mutant::Mutant;
use crate::pipeline::Shared;
use crate::stats::DropReason;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a location that is closed and empty is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// With more lanes than this, those that are not used are closed and forgotten after `BRIEF`.
const MANY: usize = 16 << 10;
const BRIEF: Duration = Duration::from_secs(1);

/// Age is checked every so many sweeps: it looks at every binding.
const AGE_EVERY: u32 = 4;

impl Delivery {
    pub(super) fn sweep(&mut self, now: Instant) {
        if !self.sweeper.is_due(now) {
            return;
        }
        self.shared.spent.clear();
        let expired = self.sweeper.sweep(&self.shared);
        let totals = &self.shared.totals;
        totals
            .expired_bindings
            .fetch_add(expired, Ordering::Relaxed);
        let unrouted = totals.unrouted.load(Ordering::Relaxed);
        if unrouted > 0 && !std::mem::replace(&mut self.warned.0, unrouted > 0) {
            self.shared.log.unrouted(unrouted);
        }
        let scopes = totals.ignored_scopes.load(Ordering::Relaxed);
        if scopes > 0 && !std::mem::replace(&mut self.warned.1, scopes > 0) {
            self.shared.log.ignored_scopes(scopes);
        }
        for slot in self.lanes.values_mut() {
            let overflown = slot.lane.counters.dropped().by(DropReason::Overflow);
            let news = overflown - slot.told_overflow;
            if news > 0 && self.shared.log.overflow(&slot.lane.uri, news) {
                slot.told_overflow = overflown;
            }
        }
        if self.shared.mutant.is(Mutant::IdleStaysOpen) {
            return;
        }
        let crowded = self.shared.routes.lane_count() > MANY;
        let ago = |time: Duration| now.checked_sub(if crowded { time.min(BRIEF) } else { time });
        if let Some(idle_since) = ago(self.sweeper.timing.idle_close) {
            self.close_idle(idle_since);
        }
        if let Some(unused_since) = ago(FORGET_AFTER.max(self.sweeper.timing.idle_close)) {
            self.forget_unused(unused_since);
        }
        if crowded {
            self.sweeper.soon(now);
        }
    }

    /// Closes the sinks of lanes that nothing was written to since.
    fn close_idle(&mut self, idle_since: Instant) {
        for lane in self.shared.routes.all_lanes() {
            if let Some(sink) = lane.take_idle_sink(idle_since) {
                let shared = self.shared.clone();
                self.spawn(async move {
                    if let Err(error) = lane::close(sink).await {
                        shared.log.retrying(&lane.uri, &error);
                    }
                    if lane.closed() {
                        lane::run(lane, shared).await;
                    }
                });
            }
        }
    }

    /// Forgets the routes that looked unused at the last sweep and still do, and marks those that
    /// look unused now. Between the two, whoever looks a route up keeps it.
    fn forget_unused(&mut self, unused_since: Instant) {
        let shared = &self.shared;
        let rests = |lane: &Lane| lane.rests(unused_since);
        let retired = std::mem::take(&mut self.retired);
        if !retired.is_empty() {
            let bound = shared.bindings.routes();
            let below = shared.levels.remembered();
            let held = |route: RouteId| route == below || bound.contains(&route);
            for lane in shared.routes.forget(&retired, held, rests) {
                self.lanes.remove(&lane.id);
            }
        }
        self.retired = shared.routes.retire(rests);
    }
}

/// Ends bindings that lingered long enough or are too old.
pub(super) struct Sweeper {
    timing: Timing,
    period: Duration,
    pub(super) next: Instant,
    sweeps: u32,
}

impl Sweeper {
    pub(super) fn new(timing: Timing) -> Self {
        let shortest = if timing.linger.is_zero() {
            timing.max_trace_age
        } else {
            timing.linger.min(timing.max_trace_age)
        };
        let period = (shortest / SWEEPS_PER_LINGER)
            .min(timing.idle_close / 4)
            .clamp(SWEEP.0, SWEEP.1);
        Self {
            timing,
            period,
            next: Instant::now() + period,
            sweeps: 0,
        }
    }

    /// Has the next sweep come soon.
    fn soon(&mut self, now: Instant) {
        self.next = self.next.min(now + BRIEF);
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    fn sweep(&mut self, shared: &Shared) -> u64 {
        self.next = Instant::now() + self.period;
        self.sweeps = self.sweeps.wrapping_add(1);
        let in_sweeps = |time: Duration| {
            u32::try_from(time.as_nanos().div_ceil(self.period.as_nanos())).unwrap_or(u32::MAX)
        };
        let check_age = self.sweeps.is_multiple_of(AGE_EVERY);
        let max_age = in_sweeps(self.timing.max_trace_age);
        let linger = in_sweeps(self.timing.linger);
        shared.bindings.sweep(linger, max_age, check_age).expired
    }
}
