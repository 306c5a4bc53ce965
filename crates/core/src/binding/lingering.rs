//! Traces whose last span has ended, oldest first, kept for children that start late.
//!
//! They are out of the table of open traces, which so stays small enough to be in the cache at any
//! rate of traces; adding one writes to the end of a queue and looks at nothing else.

use super::own::{NEAR, Own, Recent};
use crate::route_id::RouteId;
use std::collections::VecDeque;

/// The traces that linger in one shard.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// Says of nearly every trace that is not here that it is not.
    filter: Filter,
    /// What is looked through, and what is looked at when a trace goes: close together, and so in the
    /// cache, where the rest of it is not.
    tags: VecDeque<Tag>,
    traces: VecDeque<(TraceKey, Ended)>,
    /// The spans of all of them but the roots, in the same order. Beside them, because most traces of
    /// a busy program may have only a root: what all shards keep of those should fit into a cache.
    spans: VecDeque<u64>,
}

/// An own segment that has no open span: what is kept of it while it lingers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) route: RouteId,
    pub(super) started: u32,
    pub(super) idle_since: u32,
    pub(super) root: u64,
}

/// A few bits of a trace id, and how many of `Lingering::spans` are the trace's.
#[derive(Clone, Copy, Debug)]
struct Tag(u16);

impl Tag {
    /// Enough for the number of spans.
    const COUNT: u32 = (NEAR as u32).ilog2() + 1;

    fn new(bits: u16, spans: usize) -> Self {
        Self(bits << Self::COUNT | spans as u16)
    }

    fn spans(self) -> usize {
        usize::from(self.0 & ((1 << Self::COUNT) - 1))
    }

    /// Whether it has these bits of a trace id.
    fn is(self, bits: u16) -> bool {
        self.0 >> Self::COUNT == bits
    }

    /// Whether one of them is.
    fn any(tags: &[Self], bits: u16) -> bool {
        // All of a few at a time, which needs no branches.
        let mut chunks = tags.chunks(32);
        chunks.any(|chunk| chunk.iter().fold(false, |found, tag| found | tag.is(bits)))
    }
}

/// One bit per group of tags. Bits of tags that are gone stay until it is made anew.
#[derive(Debug, Default)]
struct Filter {
    bits: [u64; 32],
    /// Tags added since it was made.
    added: usize,
}

impl Filter {
    fn place(bits: u16) -> (usize, u64) {
        (usize::from(bits >> 6) % 32, 1 << (bits % 64))
    }

    fn add(&mut self, bits: u16) {
        let (word, bit) = Self::place(bits);
        self.bits[word] |= bit;
        self.added += 1;
    }

    fn may_hold(&self, bits: u16) -> bool {
        let (word, bit) = Self::place(bits);
        self.bits[word] & bit != 0
    }
}

/// A trace id in a form that needs no padding beside a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TraceKey(u64, u64);

impl TraceKey {
    fn new(trace: u128) -> Self {
        Self((trace >> 64) as u64, trace as u64)
    }

    fn bits(self) -> u16 {
        // The high bits of an id may be a time stamp, as in those of AWS X-Ray.
        self.1 as u16 & (u16::MAX >> Tag::COUNT)
    }
}

impl Lingering {
    /// Adds a trace that has ended; beyond `limit` the oldest one goes.
    #[inline]
    pub(super) fn push(&mut self, trace: u128, own: &Own, limit: usize) {
        // First, so that the memory for `limit` of them is enough.
        if self.traces.len() >= limit {
            self.pop();
        }
        let key = TraceKey::new(trace);
        let spans = match own.is_root_alone() {
            true => 0,
            false => self.push_spans(own),
        };
        self.tags.push_back(Tag::new(key.bits(), spans));
        self.traces.push_back((key, own.ended()));
        self.filter.add(key.bits());
        if self.filter.added > 2 * limit {
            self.renew_filter();
        }
    }

    fn push_spans(&mut self, own: &Own) -> usize {
        let spans = own.recent();
        self.spans.extend(&spans);
        spans.len()
    }

    #[cold]
    fn renew_filter(&mut self) {
        self.filter = Filter::default();
        let bits = self.tags.iter().map(|tag| tag.0 >> Tag::COUNT);
        bits.for_each(|bits| self.filter.add(bits));
    }

    #[inline]
    fn pop(&mut self) {
        // The trace itself is not looked at: it came long ago.
        let spans = self.tags.pop_front().map_or(0, Tag::spans);
        self.traces.pop_front();
        for _ in 0..spans {
            self.spans.pop_front();
        }
    }

    #[inline]
    fn find(&self, trace: u128) -> Option<usize> {
        let key = TraceKey::new(trace);
        match self.filter.may_hold(key.bits()) {
            true => self.look_for(key),
            false => None,
        }
    }

    fn look_for(&self, key: TraceKey) -> Option<usize> {
        let bits = key.bits();
        let (older, newer) = self.tags.as_slices();
        if !Tag::any(older, bits) && !Tag::any(newer, bits) {
            return None;
        }
        // The youngest first: it is the likeliest to have a late child.
        self.traces.iter().rposition(|(k, _)| *k == key)
    }

    pub(super) fn get(&self, trace: u128) -> Option<&Ended> {
        self.find(trace).map(|i| &self.traces[i].1)
    }

    /// Takes a trace out, to be used again.
    #[inline]
    pub(super) fn take(&mut self, trace: u128) -> Option<(Ended, Recent)> {
        let index = self.find(trace)?;
        self.take_at(index)
    }

    #[cold]
    fn take_at(&mut self, index: usize) -> Option<(Ended, Recent)> {
        let before = self.tags.iter().take(index);
        let first = before.map(|tag| tag.spans()).sum::<usize>();
        let tag = self.tags.remove(index)?;
        let (_, ended) = self.traces.remove(index)?;
        let spans = self.spans.drain(first..first + tag.spans());
        Some((ended, spans.collect()))
    }

    /// Ends those that came before a time: `over` is asked from the oldest on, until it says no.
    pub(super) fn pop_while(&mut self, over: impl Fn(&Ended) -> bool) {
        while self.traces.front().is_some_and(|(_, s)| over(s)) {
            self.pop();
        }
    }

    /// Keeps the segments for which `keep` is true.
    pub(super) fn retain(&mut self, keep: impl Fn(&Ended) -> bool) {
        if self.traces.iter().all(|(_, s)| keep(s)) {
            return;
        }
        let tags = std::mem::take(&mut self.tags).into_iter();
        let traces = std::mem::take(&mut self.traces).into_iter();
        let mut spans = std::mem::take(&mut self.spans).into_iter();
        for (tag, trace) in tags.zip(traces) {
            let own = spans.by_ref().take(tag.spans());
            if keep(&trace.1) {
                self.spans.extend(own);
                self.tags.push_back(tag);
                self.traces.push_back(trace);
            } else {
                own.for_each(drop);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ended> {
        self.traces.iter().map(|(_, segment)| segment)
    }

    pub(super) fn len(&self) -> usize {
        self.traces.len()
    }
}

#[cfg(all(test, not(trace_destination_loom)))]
mod tests {
    use super::*;

    /// A trace whose spans are its number and what follows from it.
    fn ended(trace: u64) -> Own {
        let recent: Recent = (0..trace % (NEAR as u64 + 1))
            .map(|n| 100 * trace + n + 1)
            .collect();
        let ended = Ended {
            route: RouteId(trace as u32),
            started: 0,
            idle_since: trace as u32,
            root: trace,
        };
        Own::revived(ended, &recent)
    }

    fn is_whole(taken: Option<(Ended, Recent)>, trace: u64) -> bool {
        taken.is_some_and(|(ended, recent)| {
            ended.root == trace && recent == self::ended(trace).recent()
        })
    }

    #[test]
    fn each_trace_keeps_its_own_spans_in_whatever_order_others_go() {
        let mut all = Lingering::default();
        let id = |trace: u64| u128::from(trace) << 64 | u128::from(trace % 3);
        for trace in 1..=40 {
            all.push(id(trace), &ended(trace), 16);
        }
        assert_eq!(all.len(), 16);
        assert!(all.get(id(24)).is_none(), "the oldest went");
        assert!(is_whole(all.take(id(33)), 33));
        assert!(all.take(id(33)).is_none());
        all.retain(|ended| ended.root % 5 != 0);
        all.pop_while(|ended| ended.idle_since < 28);
        let left: Vec<u64> = all.iter().map(|ended| ended.root).collect();
        assert_eq!(left, [28, 29, 31, 32, 34, 36, 37, 38, 39]);
        for trace in [34, 28, 39, 31, 29, 38, 32, 37, 36] {
            assert!(is_whole(all.take(id(trace)), trace), "{trace}");
        }
        assert!(all.spans.is_empty() && all.tags.is_empty());
    }
}
