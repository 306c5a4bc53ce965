//! What the delivery thread does now and then: ends bindings, tells the log, closes idle locations.

use super::{Delivery, SWEEP, Timing};
use crate::binding::{SWEEPS_PER_LINGER, Which};
use crate::contain::drop_apart;
use crate::lane::{self, Lane};
use crate::pipeline::Shared;
use crate::route_id::RouteId;
use crate::stats::DropReason;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a location that is closed and empty is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// With more lanes than this, those that were not used for longest are closed and forgotten, unless
/// they were used a moment ago.
pub(super) const MANY: usize = 16 << 10;
const BRIEF: Duration = Duration::from_millis(500);

/// Threads that drop what one sweep forgets.
const PARTS: usize = 4;

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
        self.warn();
        self.shared.log_refusals();
        self.lose_unawaited_values(now);
        self.shared.log_lost_values(&self.shared.routes.all_lanes());
        for slot in self.lanes.values_mut() {
            let overflown = slot.lane.dropped().by(DropReason::Overflow);
            let news = overflown - slot.told_overflow;
            if news > 0 && self.shared.log.overflow(&slot.lane.uri, news) {
                slot.told_overflow = overflown;
            }
        }
        let excess = self.excess(now);
        let idle_close = self.sweeper.timing.idle_close;
        let since = |time: Duration| now.checked_sub(time).max(excess);
        if let Some(idle_since) = since(idle_close) {
            self.close_idle(idle_since);
        }
        if let Some(unused_since) = since(FORGET_AFTER.max(idle_close)) {
            self.forget_unused(unused_since);
        }
        if excess.is_some() {
            self.sweeper.soon(now);
        }
    }

    /// Tells once of spans without a destination, and of scopes that had no effect.
    pub(super) fn warn(&mut self) {
        let Shared {
            totals,
            log,
            levels,
            ..
        } = &*self.shared;
        let unrouted = totals.unrouted.load(Ordering::Relaxed);
        if unrouted > 0 && !std::mem::replace(&mut self.warned.0, true) {
            let example = totals.unrouted_span.get().map(String::as_str);
            log.unrouted(unrouted, example, levels.strict);
        }
        let scopes = totals.ignored_scopes.load(Ordering::Relaxed);
        if scopes > 0 && !std::mem::replace(&mut self.warned.1, true) {
            log.ignored_scopes(scopes);
        }
        let unscoped = levels.unscoped.load(Ordering::Relaxed);
        if unscoped > 0 && !std::mem::replace(&mut self.warned.2, true) {
            log.unscoped_roots(unscoped);
        }
    }

    /// Where there are more lanes than [`MANY`], the time since when those have not been used that
    /// are too many.
    fn excess(&self, now: Instant) -> Option<Instant> {
        let lanes = self.shared.routes.all_lanes();
        let excess = lanes.len().checked_sub(MANY)?;
        let mut used: Vec<Instant> = lanes.iter().filter_map(|lane| lane.last_used()).collect();
        let last = excess.min(used.len().checked_sub(1)?);
        let (_, last_to_go, _) = used.select_nth_unstable(last);
        Some((*last_to_go).min(now.checked_sub(BRIEF)?))
    }

    /// Closes the sinks of lanes that nothing was written to since.
    fn close_idle(&mut self, idle_since: Instant) {
        for lane in self.shared.routes.all_lanes() {
            if let Some(sink) = lane.take_idle_sink(idle_since) {
                let shared = self.shared.clone();
                self.spawn(async move {
                    if let Err(error) = lane::close(sink, lane.turns(&shared)).await {
                        shared.log.closing(&lane.uri, &error);
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
            let bound = shared.bindings.routes().into_iter();
            let bound: HashSet<RouteId> = bound.map(|r| shared.routes.whole(r)).collect();
            let below = shared.levels.remembered();
            let held = |route: RouteId| route == below || bound.contains(&route);
            let mut gone = Vec::new();
            for lane in shared.routes.forget(&retired, held, rests) {
                let slot = self.lanes.remove(lane.id);
                // One that was only looked up was never counted.
                if slot.is_some() {
                    shared.budget.lane_gone();
                }
                gone.push((slot, lane));
            }
            drop_in_parts(gone);
        }
        self.retired = shared.routes.retire(rests);
    }
}

/// Drops lanes that are forgotten. Their locations are foreign code, whose destructors may block: on
/// a few threads, however many there are, and not all of them behind one that blocks for ever.
fn drop_in_parts<T: Send + 'static>(mut gone: Vec<T>) {
    let part = gone.len().div_ceil(PARTS).max(1);
    while !gone.is_empty() {
        drop_apart(gone.split_off(gone.len().saturating_sub(part)));
    }
}

/// Ends bindings that lingered long enough or are too old.
pub(super) struct Sweeper {
    timing: Timing,
    period: Duration,
    pub(super) next: Instant,
    /// When bindings are swept next: once per period, which their linger and age are counted in,
    /// however often lanes are looked at in between.
    bindings: Instant,
    sweeps: u32,
}

impl Sweeper {
    pub(super) fn new(timing: Timing) -> Self {
        let shortest = if timing.linger.is_zero() {
            timing.max_trace_age
        } else {
            timing.linger.min(timing.max_trace_age)
        };
        let shortest = timing.late_wait.map_or(shortest, |wait| shortest.min(wait));
        let period = (shortest / SWEEPS_PER_LINGER)
            .min(timing.idle_close / 4)
            .clamp(SWEEP.0, SWEEP.1);
        let next = Instant::now() + period;
        Self {
            timing,
            period,
            next,
            bindings: next,
            sweeps: 0,
        }
    }

    /// Has the next sweep come soon.
    pub(super) fn soon(&mut self, now: Instant) {
        self.next = self.next.min(now + BRIEF / 2);
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    fn sweep(&mut self, shared: &Shared) -> u64 {
        let now = Instant::now();
        if now < self.bindings {
            self.next = self.bindings;
            return 0;
        }
        self.next = now + self.period;
        self.bindings = self.next;
        self.sweeps = self.sweeps.wrapping_add(1);
        let in_sweeps = |time: Duration| {
            u32::try_from(time.as_nanos().div_ceil(self.period.as_nanos())).unwrap_or(u32::MAX)
        };
        let check_age = self.sweeps.is_multiple_of(AGE_EVERY);
        let max_age = in_sweeps(self.timing.max_trace_age);
        let linger = in_sweeps(self.timing.linger);
        if let Some(wait) = self.timing.late_wait {
            shared.end_undecided(Which::Older(in_sweeps(wait)));
        }
        shared.bindings.sweep(linger, max_age, check_age).expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;

    #[test]
    fn whatever_is_forgotten_is_dropped_on_a_few_threads_and_each_panic_ends_there() {
        struct Place(u32, Sender<(u32, ThreadId)>);
        impl Drop for Place {
            fn drop(&mut self) {
                let _ = self.1.send((self.0, std::thread::current().id()));
                if self.0.is_multiple_of(7) {
                    panic!("as told");
                }
            }
        }
        for count in [0, 1, 3, 4, 5, 1_000] {
            let (send, receive) = channel();
            // As a lane does it.
            struct Contained(Option<Place>);
            impl Drop for Contained {
                fn drop(&mut self) {
                    drop_apart(self.0.take());
                }
            }
            let places = (1..=count).map(|i| Contained(Some(Place(i, send.clone()))));
            drop_in_parts(places.collect());
            drop(send);
            let dropped: Vec<_> = receive.iter().collect();
            let which: HashSet<u32> = dropped.iter().map(|(i, _)| *i).collect();
            let threads: HashSet<ThreadId> = dropped.iter().map(|(_, t)| *t).collect();
            assert_eq!(which.len(), count as usize);
            assert!(threads.len() <= PARTS, "{} threads", threads.len());
        }
    }
}
