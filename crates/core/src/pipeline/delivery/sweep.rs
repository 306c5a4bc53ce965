//! What the delivery thread does now and then: ends bindings, tells the log, closes idle locations.

use super::{Delivery, SWEEP, Timing};
use crate::binding::SWEEPS_PER_LINGER;
use crate::lane;
use crate::mutant::Mutant;
use crate::pipeline::Shared;
use crate::stats::DropReason;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
        for (id, lane) in self.shared.routes.all_lanes() {
            let overflown = lane.counters.dropped().by(DropReason::Overflow);
            if overflown > 0 {
                let told = self.told_overflow.entry(id).or_default();
                if overflown > *told && self.shared.log.overflow(&lane.uri, overflown - *told) {
                    *told = overflown;
                }
            }
        }
        if self.shared.mutant.is(Mutant::IdleStaysOpen) {
            return;
        }
        let Some(idle_since) = now.checked_sub(self.sweeper.timing.idle_close) else {
            return;
        };
        for (_, lane) in self.shared.routes.all_lanes() {
            if let Some(sink) = lane.take_idle_sink(idle_since) {
                let (lane, shared) = (lane.clone(), self.shared.clone());
                self.spawn(async move {
                    if let Err(error) = lane::close(sink, lane.blocking).await {
                        shared.log.retrying(&lane.uri, &error);
                    }
                    if lane.closed() {
                        lane::run(lane, shared).await;
                    }
                });
            }
        }
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
