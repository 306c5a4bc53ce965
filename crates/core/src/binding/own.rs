//! The segment of a trace id that was made here.

use super::hot::{Free, Hot, Left, Slot};
use super::lingering::Ended;
use super::segments::Segment;
use super::spans::Spans;
use crate::route_id::RouteId;
use arrayvec::ArrayVec;

/// Span ids beside the segment itself: enough for a trace whose calls are nested a few deep.
pub(super) const NEAR: usize = if cfg!(trace_destination_loom) { 2 } else { 4 };

/// The segment of a trace id that was made here, and its open spans. They are in the cells of its
/// slot, else near, else in the map of the shard.
#[derive(Debug)]
pub(super) struct Own {
    /// `open` counts the spans near and in the map, and the slot as one.
    pub(super) segment: Segment,
    pub(super) slot: Option<Slot>,
    root: u64,
    near: Near,
}

/// A few spans, open or ended.
#[derive(Clone, Copy, Debug, Default)]
struct Near {
    ids: [u64; NEAR],
    /// Which of them are open, one bit each.
    open: u8,
    /// The one written last.
    last: u8,
}

/// An open span that is neither in a cell nor near.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// How often: a generator of ids may repeat itself.
    count: u32,
    /// Its parent was bound here too, or its context names the destination of the trace.
    proven: bool,
}

/// What a segment has outside of itself; behind the shard's lock.
pub(super) struct Beside<'a> {
    pub(super) hot: &'a Hot,
    pub(super) shard: usize,
    pub(super) free: &'a mut Free,
    pub(super) held: &'a mut Spans<Held>,
    /// Counts the segments without an open span.
    pub(super) lingering: &'a mut usize,
}

/// Spans of a segment that lingers, beside its root, the oldest first.
pub(super) type Recent = ArrayVec<u64, NEAR>;

impl Near {
    fn find_open(&self, span: u64) -> Option<usize> {
        (0..NEAR).find(|i| self.open & 1 << i != 0 && self.ids[*i] == span)
    }

    /// Spans that are not open any more. There is room for all of them.
    fn ended(recent: &Recent) -> Self {
        let mut near = Self::default();
        near.ids[NEAR - recent.len()..].copy_from_slice(recent);
        near.last = NEAR as u8 - 1;
        near
    }

    /// Adds an open span; false if all that are here are open.
    fn add(&mut self, span: u64) -> bool {
        let next = (1..=NEAR).map(|n| (usize::from(self.last) + n) % NEAR);
        let Some(free) = next.into_iter().find(|i| self.open & 1 << i == 0) else {
            return false;
        };
        self.ids[free] = span;
        self.open |= 1 << free;
        self.last = free as u8;
        true
    }
}

impl Own {
    /// A segment with its root open.
    pub(super) fn new(route: RouteId, root: u64, epoch: u32) -> Self {
        let mut near = Near::default();
        near.add(root);
        Self {
            segment: Segment::new(route, epoch),
            slot: None,
            root,
            near,
        }
    }

    /// A segment that lingered, without open spans.
    pub(super) fn revived(ended: Ended, recent: &Recent) -> Self {
        Self {
            segment: Segment {
                idle_since: ended.idle_since,
                open: 0,
                ..Segment::new(ended.route, ended.started)
            },
            slot: None,
            root: ended.root,
            near: Near::ended(recent),
        }
    }

    /// What is kept of it while it lingers, beside its spans.
    #[inline]
    pub(super) fn ended(&self) -> Ended {
        let Segment {
            route,
            started,
            idle_since,
            ..
        } = self.segment;
        Ended {
            route,
            started,
            idle_since,
            root: self.root,
        }
    }

    /// Whether no span but its root is remembered.
    #[inline]
    pub(super) fn is_root_alone(&self) -> bool {
        // Without branches: it is asked at the end of every trace. No span has the id zero.
        let is_none = |id: &u64| *id == 0 || *id == self.root;
        (self.near.ids.iter()).fold(true, |none, id| none & is_none(id))
    }

    /// The spans that are remembered beside its root, the oldest first.
    pub(super) fn recent(&self) -> Recent {
        let ids = (1..=NEAR).map(|n| self.near.ids[(usize::from(self.near.last) + n) % NEAR]);
        ids.filter(|id| *id != 0 && *id != self.root).collect()
    }

    /// One more span is open. One that is not proven is held in the map alone.
    pub(super) fn open_span(&mut self, trace: u128, span: u64, proven: bool, by: &mut Beside<'_>) {
        if self.segment.open == 0 {
            *by.lingering = by.lingering.saturating_sub(1);
        }
        // Without a decision there is no route that a thread could remember.
        let in_slot = proven
            && !self.segment.route.is_late()
            && match self.slot {
                None => self.warm(span, by),
                Some(slot) => by.hot.add(slot, span),
            };
        if in_slot {
            return;
        }
        self.segment.open += 1;
        if !(proven && self.near.add(span)) {
            match by.held.get_mut((trace, span)) {
                Some(held) => {
                    held.count += 1;
                    held.proven &= proven;
                }
                None => {
                    by.held.insert((trace, span), Held { count: 1, proven });
                }
            }
        }
        if let Some(slot) = self.slot {
            by.hot.set_held(slot, true, by.free);
        }
    }

    /// Moves the spans near into a slot, and a new one with them; false if none is free, or none of
    /// them is open.
    fn warm(&mut self, span: u64, by: &mut Beside<'_>) -> bool {
        // What the map holds may never end; a slot is for traces that come and go.
        if self.near.open == 0 || self.segment.open > self.near.open.count_ones() {
            return false;
        }
        let near = (self.near.ids, self.near.open);
        self.slot = by.hot.give(by.shard, by.free, near, span);
        if self.slot.is_some() {
            self.near.open = 0;
            self.segment.open = 1;
        }
        self.slot.is_some()
    }

    /// Ends a span; `None` if it is not an open one of this segment.
    #[inline]
    pub(super) fn end_span(&mut self, trace: u128, span: u64, by: &mut Beside<'_>) -> Option<Left> {
        if let Some(slot) = self.slot
            && let Some(left) = by.hot.remove(slot, span, by.free)
        {
            if left == Left::Over {
                self.leave_slot(slot, by.hot);
            }
            return Some(left);
        }
        if let Some(i) = self.near.find_open(span) {
            self.near.open &= !(1 << i);
        } else {
            let held = by.held.get_mut((trace, span))?;
            held.count -= 1;
            if held.count == 0 {
                by.held.remove((trace, span));
            }
        }
        self.segment.open -= 1;
        match self.slot {
            None if self.segment.open == 0 => Some(Left::Over),
            Some(slot) if self.segment.open == 1 => {
                let left = by.hot.set_held(slot, false, by.free);
                if left == Left::Over {
                    self.leave_slot(slot, by.hot);
                }
                Some(left)
            }
            _ => Some(Left::Open),
        }
    }

    /// The slot was taken back with the last open span, and nobody has it yet.
    fn leave_slot(&mut self, slot: Slot, hot: &Hot) {
        self.near.ids = hot.latest(slot);
        self.near.last = NEAR as u8 - 1;
        self.slot = None;
        self.segment.open = 0;
    }

    /// Whether a span of this segment is open and gives the right to set values on the trace.
    pub(super) fn is_proven(&self, trace: u128, span: u64, hot: &Hot, held: &Spans<Held>) -> bool {
        self.slot.is_some_and(|slot| hot.is_open(slot, span))
            || self.near.find_open(span).is_some()
            || held.get((trace, span)).is_some_and(|held| held.proven)
    }

    /// Whether its root has not ended yet.
    pub(super) fn is_root_open(&self, trace: u128, hot: &Hot, held: &Spans<Held>) -> bool {
        self.is_proven(trace, self.root, hot, held)
    }

    /// Whether a span is one of this segment, as far as it is remembered: `Some(true)` if its
    /// children are proven.
    pub(super) fn knows(&self, trace: u128, span: u64, by: &Beside<'_>) -> Option<bool> {
        if span == self.root
            || self.near.ids.contains(&span)
            || self.slot.is_some_and(|slot| by.hot.knows(slot, span))
        {
            return Some(true);
        }
        by.held.get((trace, span)).map(|held| held.proven)
    }

    pub(super) fn open_spans(&self, hot: &Hot) -> u32 {
        match self.slot {
            None => self.segment.open,
            Some(slot) => self.segment.open - 1 + hot.open(slot),
        }
    }
}
