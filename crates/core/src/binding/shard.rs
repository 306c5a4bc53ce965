//! A part of the table, behind one lock.

use super::hot::{Free, Hot};
use super::late::Open;
use super::lingering::{Ended, Lingering};
use super::own::{Beside, Held, Own};
use super::segments::{ForeignSpans, Segment, Trace};
use super::spans::Spans;
use super::undecided::Undecided;
use super::{IdHash, LINGERING_PER_SHARD};
use crate::route_id::RouteId;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Traces with open spans, and those with segments of foreign ids until these are over.
    pub(super) traces: HashMap<u128, Trace, IdHash>,
    /// Traces that have an own segment only and no open span. No trace is in both.
    pub(super) ended: Lingering,
    /// Spans of the foreign segments in `traces`.
    pub(super) foreign: ForeignSpans,
    /// Foreign segments in `traces`.
    pub(super) foreign_segments: usize,
    /// Spans that started but are not ours (suppressed, orphaned), with the time of their start.
    pub(super) ignored: Spans<u32>,
    /// Segments in `traces` that are not decided, by trace and segment.
    pub(super) undecided: HashMap<(u128, Option<u32>), Open, IdHash>,
    /// Places of undecided segments that are gone, to be dropped outside of the lock.
    pub(super) gone: Vec<Arc<Undecided>>,
    /// What waited in segments that are gone and had a route of their own: trace, route, place.
    pub(super) freed: Vec<(u128, RouteId, Arc<Undecided>)>,
    pub(super) around: Around,
    /// Counts the times a segment began to linger: which of two did so first.
    lingered: u32,
    /// Memory for finding the oldest.
    scratch: Vec<u32>,
}

/// What own segments share.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Slots of `Bindings::hot`.
    free: Free,
    /// Open spans of own segments that are in none of their places.
    pub(super) held: Spans<Held>,
    /// Segments in `Shard::traces` without open spans.
    pub(super) lingering: usize,
}

impl Around {
    pub(super) fn held(&self) -> &Spans<Held> {
        &self.held
    }

    pub(super) fn beside<'a>(&'a mut self, hot: &'a Hot, shard: usize) -> Beside<'a> {
        Beside {
            hot,
            shard,
            free: &mut self.free,
            held: &mut self.held,
            lingering: &mut self.lingering,
        }
    }
}

impl Shard {
    /// Puts a trace that has ended back among the open ones, if it is there.
    #[inline]
    pub(super) fn revive(&mut self, trace: u128) {
        if let Some((ended, recent)) = self.ended.take(trace) {
            self.around.lingering += 1;
            self.traces.entry(trace).or_default().own = Some(Own::revived(ended, &recent));
        }
    }

    /// A segment of a trace with foreign ones has no open span any more.
    pub(super) fn linger(&mut self, trace: u128, key: Option<u32>, linger: bool) {
        self.around.lingering += 1;
        if !linger {
            return self.remove(trace, key);
        }
        self.lingered = self.lingered.wrapping_add(1);
        let lingered = self.lingered;
        if let Some(segment) = self.traces.get_mut(&trace).and_then(|t| t.segment(key)) {
            segment.lingered = lingered;
        }
        if self.around.lingering > self.room() {
            self.make_room();
        }
    }

    /// Removes a segment without open spans.
    fn remove(&mut self, trace: u128, key: Option<u32>) {
        self.around.lingering = self.around.lingering.saturating_sub(1);
        if key.is_some() {
            self.foreign_segments = self.foreign_segments.saturating_sub(1);
        }
        if let Some(open) = self.undecided.remove(&(trace, key)) {
            match open.intended {
                Some(route) => self.freed.push((trace, route, open.place)),
                None => self.gone.push(open.place),
            }
        }
        let Some(found) = self.traces.get_mut(&trace) else {
            return;
        };
        if found.remove(trace, key, &mut self.foreign) {
            self.traces.remove(&trace);
        }
    }

    /// How many segments may linger before the oldest go. More where many are open, so that
    /// looking through those is worth it.
    fn room(&self) -> usize {
        let segments = self.traces.len() + self.foreign_segments;
        LINGERING_PER_SHARD + LINGERING_PER_SHARD.max(segments / 4)
    }

    /// Removes the segments that have lingered longest, so that the usual number stays.
    #[cold]
    fn make_room(&mut self) {
        let now = self.lingered;
        let mut ages = std::mem::take(&mut self.scratch);
        ages.clear();
        ages.extend(
            self.traces
                .values()
                .flat_map(Trace::segments)
                .filter(|s| s.open == 0)
                .map(|s| now.wrapping_sub(s.lingered)),
        );
        if ages.len() > LINGERING_PER_SHARD {
            let (_, first_to_go, _) = ages.select_nth_unstable(LINGERING_PER_SHARD);
            let first_to_go = *first_to_go;
            // None of these has a slot: it has no open span.
            self.retain_segments(
                |s| s.open > 0 || now.wrapping_sub(s.lingered) < first_to_go,
                |_| {},
            );
        }
        ages.shrink_to(4 * LINGERING_PER_SHARD);
        self.scratch = ages;
    }

    /// Keeps the segments for which `keep` is true, and counts anew those that linger.
    pub(super) fn retain(&mut self, hot: &Hot, keep: impl Fn(&Segment) -> bool) {
        let mut slots = Vec::new();
        self.retain_segments(keep, |own| slots.extend(own.slot));
        for slot in slots {
            hot.take_back(slot, &mut self.around.free);
        }
    }

    fn retain_segments(&mut self, keep: impl Fn(&Segment) -> bool, mut drop_own: impl FnMut(Own)) {
        let (mut lingering, mut foreign_segments) = (0, 0);
        let spans = &mut self.foreign;
        self.traces.retain(|id, trace| {
            let stays = trace.retain(*id, &keep, spans, &mut drop_own);
            lingering += trace.segments().filter(|s| s.open == 0).count();
            foreign_segments += trace.foreign.as_ref().map_or(0, |f| f.segments.len());
            stays
        });
        self.around.lingering = lingering;
        self.foreign_segments = foreign_segments;
        if !self.undecided.is_empty() {
            self.let_go();
        }
        // What a burst left behind would be looked through each time.
        let needed = self.traces.len().max(2 * LINGERING_PER_SHARD);
        if self.traces.capacity() > 8 * needed {
            self.traces.shrink_to(2 * needed);
        }
    }

    pub(super) fn expire(&mut self, hot: &Hot, now: u32, max_age: u32) -> u64 {
        self.around.free.rest();
        let expired = self
            .traces
            .values()
            .flat_map(Trace::segments)
            .filter(|s| s.open > 0 && s.is_older(now, max_age))
            .count();
        let is_older = |own: &Ended| now.wrapping_sub(own.started) > max_age;
        self.ended.retain(|own| !is_older(own));
        self.retain(hot, |s| !s.is_older(now, max_age));
        self.ignored
            .retain(|_, since| now.wrapping_sub(*since) <= max_age);
        let traces = &self.traces;
        if expired > 0 {
            let held = &mut self.around.held;
            held.retain(|(trace, _), _| traces.get(&trace).is_some_and(|t| t.own.is_some()));
            let foreign = |trace| traces.get(&trace).and_then(|t| t.foreign.as_ref());
            self.foreign
                .retain(|(trace, _), span| foreign(trace).is_some_and(|f| f.has(span.key)));
        } else {
            self.around.held.shrink();
            self.foreign.shrink();
        }
        expired as u64
    }
}
