//! The segments of one trace: who belongs to which.

use super::IdHash;
use super::own::Own;
use super::spans::Spans;
use crate::route_id::RouteId;
use std::collections::{HashMap, VecDeque};

/// Ended spans that a segment of a foreign id remembers, for children that start late.
pub(super) const ENDED: usize = 256;
/// The same, where a trace has more than [`MANY`] such segments.
pub(super) const ENDED_OF_MANY: usize = 16;
pub(super) const MANY: usize = 16;
/// Ended spans that a trace remembers of segments that are gone.
pub(super) const GONE: usize = 256;

/// The number of segments that are gone.
const GONE_KEY: u32 = u32::MAX;

/// A span of a foreign segment, open or ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignSpan {
    pub(super) key: u32,
    /// How often it is open: a generator of ids may repeat itself.
    pub(super) open: u32,
}

/// Spans of all foreign segments of a shard, by trace and span.
pub(super) type ForeignSpans = Spans<ForeignSpan>;

#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The segment of a trace id made here.
    pub(super) own: Option<Own>,
    /// Segments of local roots whose trace id came from outside.
    pub(super) foreign: Option<Box<Foreign>>,
}

#[derive(Debug, Default)]
pub(super) struct Foreign {
    pub(super) segments: HashMap<u32, ForeignSegment, IdHash>,
    next_key: u32,
    /// Ended spans of segments that are gone, oldest first. They stay while there is an own
    /// segment, which must not pass for theirs.
    gone: VecDeque<u64>,
    /// A span of a foreign segment was forgotten. From now on a parent that nobody remembers may be
    /// one of them, and is not taken for a span of the own segment.
    pub(super) forgot: bool,
}

#[derive(Debug)]
pub(super) struct ForeignSegment {
    pub(super) segment: Segment,
    /// Its last spans that ended, oldest first.
    ended: VecDeque<u64>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) route: RouteId,
    /// Open spans.
    pub(super) open: u32,
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
            started: epoch,
            idle_since: epoch,
            lingered: 0,
        }
    }

    pub(super) fn is_older(&self, now: u32, max_age: u32) -> bool {
        now.wrapping_sub(self.started) > max_age
    }
}

impl Foreign {
    pub(super) fn segment(&mut self, key: u32) -> Option<&mut Segment> {
        self.segments.get_mut(&key).map(|s| &mut s.segment)
    }

    /// Adds a root, and returns the number of its segment.
    pub(super) fn add(
        &mut self,
        trace: u128,
        span: u64,
        route: RouteId,
        epoch: u32,
        spans: &mut ForeignSpans,
    ) -> u32 {
        let key = self.next_key;
        self.next_key = match self.next_key + 1 {
            GONE_KEY => 0,
            next => next,
        };
        let segment = ForeignSegment {
            segment: Segment::new(route, epoch),
            ended: VecDeque::new(),
        };
        self.segments.insert(key, segment);
        // A span id that came before belongs to the later segment.
        spans.insert((trace, span), ForeignSpan { key, open: 1 });
        key
    }

    /// Adds a child of a remembered span; `None` if that one's segment is gone.
    pub(super) fn start_child(
        &mut self,
        trace: u128,
        span: u64,
        key: u32,
        spans: &mut ForeignSpans,
        lingering: &mut usize,
    ) -> Option<RouteId> {
        let segment = self.segment(key)?;
        if segment.open == 0 {
            *lingering = lingering.saturating_sub(1);
        }
        segment.open += 1;
        let route = segment.route;
        match spans.get_mut((trace, span)) {
            Some(there) if there.key == key => there.open += 1,
            _ => {
                spans.insert((trace, span), ForeignSpan { key, open: 1 });
            }
        }
        Some(route)
    }

    /// Remembers a span that has ended, instead of the oldest one.
    pub(super) fn note_ended(
        &mut self,
        trace: u128,
        span: u64,
        key: u32,
        spans: &mut ForeignSpans,
    ) {
        let limit = match self.segments.len() > MANY {
            true => ENDED_OF_MANY,
            false => ENDED,
        };
        if let Some(segment) = self.segments.get_mut(&key) {
            segment.ended.push_back(span);
            self.forgot |= forget(&mut segment.ended, limit, trace, key, spans);
        }
    }

    fn remove(&mut self, trace: u128, key: u32, beside_own: bool, spans: &mut ForeignSpans) {
        let Some(removed) = self.segments.remove(&key) else {
            return;
        };
        // The table forgets its open spans in one go, for all segments that expire.
        self.forgot |= removed.segment.open > 0;
        for span in removed.ended {
            let there = spans.get_mut((trace, span));
            let Some(there) = there.filter(|there| there.key == key && there.open == 0) else {
                continue;
            };
            if beside_own {
                there.key = GONE_KEY;
                self.gone.push_back(span);
            } else {
                spans.remove((trace, span));
            }
        }
        self.forgot |= forget(&mut self.gone, GONE, trace, GONE_KEY, spans);
    }

    /// The own segment beside it is gone.
    fn left_alone(&mut self, trace: u128, spans: &mut ForeignSpans) {
        forget(&mut self.gone, 0, trace, GONE_KEY, spans);
        self.gone = VecDeque::new();
        self.forgot = false;
    }

    /// Whether a remembered span may be of one of the segments here.
    pub(super) fn has(&self, key: u32) -> bool {
        key == GONE_KEY || self.segments.contains_key(&key)
    }

    fn is_over(&self, beside_own: bool) -> bool {
        self.segments.is_empty() && !(beside_own && (self.forgot || !self.gone.is_empty()))
    }
}

/// Forgets the oldest ended spans of a segment; true if there were any.
fn forget(
    ended: &mut VecDeque<u64>,
    limit: usize,
    trace: u128,
    key: u32,
    spans: &mut ForeignSpans,
) -> bool {
    let mut forgot = false;
    while ended.len() > limit
        && let Some(span) = ended.pop_front()
    {
        forgot = true;
        let there = spans.get((trace, span));
        if there.is_some_and(|there| there.key == key && there.open == 0) {
            spans.remove((trace, span));
        }
    }
    forgot
}

impl Trace {
    /// A trace that was made here.
    #[inline]
    pub(super) fn own(own: Own) -> Self {
        Self {
            own: Some(own),
            foreign: None,
        }
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let foreign = self.foreign.iter();
        let foreign = foreign.flat_map(|f| f.segments.values().map(|s| &s.segment));
        self.own.iter().map(|own| &own.segment).chain(foreign)
    }

    pub(super) fn segment(&mut self, key: Option<u32>) -> Option<&mut Segment> {
        match key {
            None => self.own.as_mut().map(|own| &mut own.segment),
            Some(key) => self.foreign.as_mut()?.segment(key),
        }
    }

    /// Keeps the segments for which `keep` is true, and hands a dropped own one to `drop_own`; false
    /// if nothing is left of the trace.
    pub(super) fn retain(
        &mut self,
        trace: u128,
        keep: impl Fn(&Segment) -> bool,
        spans: &mut ForeignSpans,
        drop_own: impl FnOnce(Own),
    ) -> bool {
        if let Some(foreign) = &self.foreign {
            let over: Vec<u32> = foreign
                .segments
                .iter()
                .filter(|(_, s)| !keep(&s.segment))
                .map(|(key, _)| *key)
                .collect();
            for key in over {
                self.remove(trace, Some(key), spans);
            }
        }
        if let Some(own) = self.own.take_if(|own| !keep(&own.segment)) {
            drop_own(own);
            self.remove(trace, None, spans);
        }
        self.own.is_some() || self.foreign.is_some()
    }

    /// Removes a segment; true if nothing is left of the trace.
    pub(super) fn remove(
        &mut self,
        trace: u128,
        key: Option<u32>,
        spans: &mut ForeignSpans,
    ) -> bool {
        match (key, &mut self.foreign) {
            (None, foreign) => {
                self.own = None;
                if let Some(foreign) = foreign {
                    foreign.left_alone(trace, spans);
                }
            }
            (Some(key), Some(foreign)) => foreign.remove(trace, key, self.own.is_some(), spans),
            (Some(_), None) => {}
        }
        let beside_own = self.own.is_some();
        self.foreign.take_if(|foreign| foreign.is_over(beside_own));
        self.own.is_none() && self.foreign.is_none()
    }
}
