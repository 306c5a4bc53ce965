//! Sharing the pipeline's memory: where room is short, lanes that do not drain give it back.

use super::Delivery;
use crate::budget::{Standing, fair_level};
use crate::lane::{Lane, LaneId};
use crate::location::BatchLimits;
use crate::pipeline::Shared;
use crate::stats::DropReason;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often room is shared anew, at most: every lane is looked at.
const EVERY: Duration = Duration::from_millis(5);
/// How often lanes are looked at while room is short.
const LOOK: Duration = Duration::from_millis(100);
/// The part of the budget that the first batch of a lane may hold. What a sink holds while it hangs
/// cannot be taken back from it, and nothing is known of a new lane's place.
const FIRST_BATCH_PART: usize = 64;

/// What is remembered of the last time.
#[derive(Default)]
pub(super) struct Room {
    last: Option<Instant>,
    /// Lanes may hold less than their budget at the moment.
    capped: bool,
    /// Among them lanes that may drain.
    holds_down: bool,
    /// Room is short: lanes are judged now and then, so that what those hold that turn out not to
    /// drain is free before somebody needs it.
    short: bool,
}

impl Room {
    /// Whether lanes stand in each other's way.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// When to look again, whatever else happens.
    pub(super) fn next(&self) -> Option<Instant> {
        self.last.filter(|_| self.short).map(|last| last + LOOK)
    }
}

impl Delivery {
    /// Sets what each lane may hold, and takes the excess back from lanes that do not drain, where
    /// so much is held that they stand in the way of others.
    pub(super) fn share_room(&mut self, now: Instant) {
        let budget = &self.shared.budget;
        let lane_budget = self.shared.routes.lane_budget();
        let recently = self.room.last.is_some_and(|last| now < last + EVERY);
        let short = budget.bound(Standing::Stuck) - budget.margin();
        let used = budget.used();
        self.room.short = used > short;
        // Twice as far away before the caps are lifted, so that they are not set again at once.
        if used + budget.margin() <= short {
            if std::mem::take(&mut self.room.capped) {
                for slot in self.lanes.values() {
                    slot.lane.intake().set_cap(lane_budget);
                }
                budget.wake();
            }
            return;
        }
        if recently {
            return;
        }
        if used <= short {
            // There is room again for whatever drains, though not for what does not.
            if std::mem::take(&mut self.room.holds_down) {
                for slot in self.lanes.values() {
                    if slot.lane.intake().standing() != Standing::Stuck {
                        slot.lane.intake().set_cap(lane_budget);
                    }
                }
                budget.wake();
            }
            return;
        }
        self.room.last = Some(now);
        let mut by_standing: [Vec<(Arc<Lane>, usize)>; 3] = Default::default();
        for slot in self.lanes.values() {
            let bytes = slot.lane.bytes();
            if bytes > 0 {
                let standing = slot.lane.judge(&slot.lane.state(), now);
                by_standing[standing as usize].push((slot.lane.clone(), bytes));
            }
        }
        // Somebody who holds nothing may be refused at this moment.
        let others = self.shared.routes.lane_count().min(2);
        let active = by_standing.iter().map(Vec::len).sum::<usize>().max(others);
        budget.share_among(active);
        if active <= 1 {
            return;
        }
        self.room.capped = true;
        self.room.holds_down = true;
        let mut used: usize = by_standing.iter().flatten().map(|(_, bytes)| bytes).sum();
        for (standing, lanes) in Standing::ALL.into_iter().zip(by_standing) {
            let budget = &self.shared.budget;
            let held: usize = lanes.iter().map(|(_, bytes)| bytes).sum();
            let room = budget.bound(standing) - budget.margin();
            let room = room.saturating_sub(used.saturating_sub(held));
            let mut sizes: Vec<usize> = lanes.iter().map(|(_, bytes)| *bytes).collect();
            let level = fair_level(&mut sizes, room).max(budget.share());
            let cap = level.min(lane_budget);
            for (lane, bytes) in lanes {
                lane.intake().set_cap(cap);
                // What drains makes room by itself, and most new lanes turn out to drain.
                if standing == Standing::Stuck && bytes > cap {
                    used -= self.cut(lane.id, cap).min(used);
                }
            }
        }
    }

    /// Drops the newest spans of a lane until it holds `keep` bytes; returns how many were freed.
    /// What is being written is cut by the lane's task, a little later.
    fn cut(&mut self, id: LaneId, keep: usize) -> usize {
        let Some(slot) = self.lanes.get_mut(id) else {
            return 0;
        };
        let lane = &slot.lane;
        let before = lane.bytes();
        let excess = before.saturating_sub(keep);
        if let Some(batch) = &mut slot.batch {
            let cut = batch.cut(excess);
            self.growing -= cut.bytes;
            lane.counters
                .drop_spans(DropReason::Overflow, cut.spans.len() as u64);
            lane.release(cut.bytes, &self.shared.budget);
            if batch.is_empty() {
                slot.batch = None;
            }
        }
        lane.cut_to(keep, &self.shared.budget);
        before.saturating_sub(lane.bytes())
    }
}

impl Shared {
    /// When the next batch of a lane is ready.
    pub(super) fn limits_of(&self, lane: &Lane, room_is_short: bool) -> BatchLimits {
        let limits = lane.limits;
        if lane.intake().standing() == Standing::Draining {
            return limits;
        }
        let mut first = self.budget.limit() / FIRST_BATCH_PART;
        if room_is_short {
            // The lane has to show soon that it drains: until then it has little more than its share.
            first = first.min(self.budget.share() / 2).max(1);
        }
        BatchLimits {
            bytes: limits.bytes.min(first),
            ..limits
        }
    }
}
