//! The segments of one trace: who belongs to which.

use super::hot::{Free, Hot, Slot};
use super::{IdHash, RouteId};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The segment of a trace id made here; takes every local span that no other segment knows.
    pub(super) own: Option<Segment>,
    /// Segments of local roots whose trace id came from outside.
    pub(super) foreign: Option<Box<Foreign>>,
}

#[derive(Debug, Default)]
pub(super) struct Foreign {
    pub(super) segments: HashMap<u32, ForeignSegment, IdHash>,
    pub(super) next_key: u32,
    /// Which segment each span belongs to, ended ones included. Spans of a segment that is gone
    /// stay while there is an own segment, which must not pass for theirs.
    pub(super) spans: HashMap<u64, u32, IdHash>,
}

#[derive(Debug)]
pub(super) struct ForeignSegment {
    pub(super) segment: Segment,
    pub(super) spans: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) route: RouteId,
    /// Open spans; one while a slot counts them.
    pub(super) open: u32,
    /// Where they are counted instead.
    pub(super) slot: Option<Slot>,
    pub(super) started: u32,
    /// When its last open span ended.
    pub(super) idle_since: u32,
    /// The number of that event in its shard.
    pub(super) lingered: u32,
}

impl Segment {
    pub(super) fn new(route: RouteId, epoch: u32) -> Self {
        Self {
            route,
            open: 1,
            slot: None,
            started: epoch,
            idle_since: epoch,
            lingered: 0,
        }
    }

    /// One more span is open; `lingering` counts the segments that have none.
    pub(super) fn open_span(&mut self, lingering: &mut usize) {
        if self.open == 0 {
            *lingering = lingering.saturating_sub(1);
        }
        self.open += 1;
    }

    /// Lets threads count its spans without the table's lock, if a slot is free.
    pub(super) fn warm(&mut self, hot: &Hot, shard: usize, free: &mut Free) {
        self.slot = hot.give(shard, free, self.open);
        if self.slot.is_some() {
            self.open = 1;
        }
    }

    /// Takes the slot back.
    pub(super) fn cool(&mut self, hot: &Hot, free: &mut Free) {
        if let Some(slot) = self.slot.take() {
            self.open = hot.take_back(slot, free);
        }
    }

    pub(super) fn open_spans(&self, hot: &Hot) -> u32 {
        self.slot.map_or(self.open, |slot| hot.open(slot))
    }

    /// Its last open span has ended.
    pub(super) fn end(&mut self, epoch: u32) {
        self.open = 0;
        self.idle_since = epoch;
    }

    pub(super) fn is_older(&self, now: u32, max_age: u32) -> bool {
        now.wrapping_sub(self.started) > max_age
    }
}

impl Foreign {
    pub(super) fn segment(&mut self, key: u32) -> Option<&mut Segment> {
        self.segments.get_mut(&key).map(|s| &mut s.segment)
    }

    /// Adds a root.
    pub(super) fn add(&mut self, span: u64, route: RouteId, epoch: u32) {
        let key = self.next_key;
        self.next_key = self.next_key.wrapping_add(1);
        let segment = Segment::new(route, epoch);
        let spans = vec![span];
        self.segments.insert(key, ForeignSegment { segment, spans });
        self.spans.insert(span, key);
    }

    pub(super) fn remove(&mut self, key: u32, beside_own: bool) {
        if let Some(removed) = self.segments.remove(&key)
            && !beside_own
        {
            for span in removed.spans {
                // A span id may have come twice; then it belongs to the later segment.
                if self.spans.get(&span) == Some(&key) {
                    self.spans.remove(&span);
                }
            }
        }
    }
}

impl Trace {
    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let foreign = self.foreign.iter();
        let foreign = foreign.flat_map(|f| f.segments.values().map(|s| &s.segment));
        self.own.iter().chain(foreign)
    }

    pub(super) fn segment(&mut self, key: Option<u32>) -> Option<&mut Segment> {
        match key {
            None => self.own.as_mut(),
            Some(key) => self.foreign.as_mut()?.segment(key),
        }
    }

    /// Keeps the segments that `keep` says; false if nothing is left of the trace.
    pub(super) fn retain(&mut self, keep: impl Fn(&Segment) -> bool) -> bool {
        if let Some(foreign) = &self.foreign {
            let over: Vec<u32> = foreign
                .segments
                .iter()
                .filter(|(_, s)| !keep(&s.segment))
                .map(|(key, _)| *key)
                .collect();
            for key in over {
                self.remove(Some(key));
            }
        }
        if self.own.as_ref().is_some_and(|own| !keep(own)) {
            self.remove(None);
        }
        self.own.is_some() || self.foreign.is_some()
    }

    /// Removes a segment; true if nothing is left of the trace.
    pub(super) fn remove(&mut self, key: Option<u32>) -> bool {
        match (key, &mut self.foreign) {
            (None, foreign) => {
                self.own = None;
                if let Some(foreign) = foreign {
                    let segments = &foreign.segments;
                    foreign.spans.retain(|_, key| segments.contains_key(key));
                }
            }
            (Some(key), Some(foreign)) => foreign.remove(key, self.own.is_some()),
            (Some(_), None) => {}
        }
        if self.foreign.as_ref().is_some_and(|f| f.spans.is_empty()) {
            self.foreign = None;
        }
        self.own.is_none() && self.foreign.is_none()
    }
}
