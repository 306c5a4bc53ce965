//! Traces whose last span has ended, oldest first, kept for children that start late.
//!
//! They are out of the table of open traces, which so stays small enough to be in the cache at any
//! rate of traces; adding one writes to the end of a queue and looks at nothing else.

use super::own::Ended;
use std::collections::VecDeque;

/// The traces that linger in one shard.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// Says of nearly every trace that is not here that it is not.
    filter: Filter,
    /// A few bits of each trace id, close together, to be looked through.
    tags: VecDeque<u16>,
    traces: VecDeque<(TraceKey, Ended)>,
}

/// One bit per group of tags. Bits of tags that are gone stay until it is made anew.
#[derive(Debug, Default)]
struct Filter {
    bits: [u64; 32],
    /// Tags added since it was made.
    added: usize,
}

impl Filter {
    fn place(tag: u16) -> (usize, u64) {
        (usize::from(tag >> 6) % 32, 1 << (tag % 64))
    }

    fn add(&mut self, tag: u16) {
        let (word, bit) = Self::place(tag);
        self.bits[word] |= bit;
        self.added += 1;
    }

    fn may_hold(&self, tag: u16) -> bool {
        let (word, bit) = Self::place(tag);
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

    fn tag(self) -> u16 {
        // The high bits of an id may be a time stamp, as in those of AWS X-Ray.
        self.1 as u16
    }
}

impl Lingering {
    /// Adds a trace; beyond `limit` the oldest one goes.
    pub(super) fn push(&mut self, trace: u128, segment: Ended, limit: usize) {
        let key = TraceKey::new(trace);
        self.tags.push_back(key.tag());
        self.traces.push_back((key, segment));
        self.filter.add(key.tag());
        if self.filter.added > 2 * limit {
            self.filter = Filter::default();
            self.tags.iter().for_each(|tag| self.filter.add(*tag));
        }
        if self.traces.len() > limit {
            self.pop();
        }
    }

    fn pop(&mut self) {
        self.tags.pop_front();
        self.traces.pop_front();
    }

    fn find(&self, trace: u128) -> Option<usize> {
        let key = TraceKey::new(trace);
        let tag = key.tag();
        if !self.filter.may_hold(tag) {
            return None;
        }
        let (older, newer) = self.tags.as_slices();
        if !older.contains(&tag) && !newer.contains(&tag) {
            return None;
        }
        // The youngest first: it is the likeliest to have a late child.
        self.traces.iter().rposition(|(k, _)| *k == key)
    }

    pub(super) fn get(&self, trace: u128) -> Option<&Ended> {
        self.find(trace).map(|i| &self.traces[i].1)
    }

    /// Takes a trace out, to be used again.
    pub(super) fn take(&mut self, trace: u128) -> Option<Ended> {
        let index = self.find(trace)?;
        self.tags.remove(index);
        self.traces.remove(index).map(|(_, segment)| segment)
    }

    /// Ends those that came before a time: `over` is asked from the oldest on, until it says no.
    pub(super) fn pop_while(&mut self, over: impl Fn(&Ended) -> bool) {
        while self.traces.front().is_some_and(|(_, s)| over(s)) {
            self.pop();
        }
    }

    /// Keeps the segments that `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(&Ended) -> bool) {
        if self.traces.iter().all(|(_, s)| keep(s)) {
            return;
        }
        self.traces.retain(|(_, s)| keep(s));
        self.tags = self.traces.iter().map(|(k, _)| k.tag()).collect();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ended> {
        self.traces.iter().map(|(_, segment)| segment)
    }

    pub(super) fn len(&self) -> usize {
        self.traces.len()
    }
}
