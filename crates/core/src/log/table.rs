//! Pending log lines: events are grouped by kind, host and error kind, so that many locations with
//! the same problem become one line.

use super::{Hurry, What};
use crate::clock::later;
use crate::error::{Error, ErrorKind};
use crate::stats::DropReason;
use crate::uri::LocationUri;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Shortest time between two equal lines about one location or one group of locations.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long an event waits for others that become one line with it.
const GATHER: Duration = Duration::from_millis(250);
/// Number of locations of one group that get lines of their own within an interval.
const FEW: usize = 3;
/// Number of hosts or stores of one scheme and problem that are separate groups; all others are one
/// group.
const HOSTS: usize = 4;
/// Largest number of groups. Beyond it, all events of one kind are one group.
const GROUPS: usize = 256;
/// Largest number of locations in one line that are counted exactly. Beyond it, the number is a
/// lower bound.
const COUNTED: usize = 100_000;

/// Lines to emit.
pub(super) type Lines = Vec<Event>;

/// An event at one location, or a sum over several.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) what: What,
    /// The location, or one of them; `None` for the pipeline as a whole.
    pub(super) uri: Option<LocationUri>,
    pub(super) locations: u64,
    pub(super) spans: u64,
    /// The location seems wrong for good from now on.
    pub(super) failing: bool,
    pub(super) reason: Option<DropReason>,
    pub(super) error: Option<Error>,
    /// The name of a span that it is about.
    pub(super) span: Option<String>,
}

impl Event {
    pub(super) fn new(what: What, uri: &LocationUri) -> Self {
        Self {
            what,
            uri: Some(uri.clone()),
            locations: 1,
            spans: 0,
            failing: false,
            reason: None,
            error: None,
            span: None,
        }
    }

    /// An event of the whole pipeline, which is emitted at once.
    pub(super) fn of_pipeline(what: What, spans: u64) -> Self {
        Self {
            what,
            uri: None,
            locations: 0,
            spans,
            failing: false,
            reason: None,
            error: None,
            span: None,
        }
    }

    pub(super) fn because(mut self, error: &Error) -> Self {
        self.error = Some(error.clone());
        self
    }

    pub(super) fn of(mut self, spans: u64) -> Self {
        self.spans = spans;
        self
    }

    /// Adds a later event of the same kind. The first one's location and error stay.
    fn add(&mut self, later: &Self) {
        self.spans += later.spans;
        self.failing |= later.failing;
        self.reason = self.reason.or(later.reason);
    }
}

/// The key of a group: events with equal keys may become one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    what: What,
    scheme: String,
    kind: Option<ErrorKind>,
    /// `None` if there are too many hosts to separate them.
    host: Option<String>,
}

#[derive(Debug, Default)]
struct Group {
    named: Vec<Named>,
    crowd: Option<Crowd>,
    /// When the line about the crowd was last emitted.
    told: Option<Instant>,
}

/// A location that has lines of its own.
#[derive(Debug)]
struct Named {
    uri: LocationUri,
    since: Instant,
    /// When a line about it was last emitted.
    told: Option<Instant>,
    held: Option<Event>,
}

/// Locations that share one line.
#[derive(Debug)]
struct Crowd {
    since: Instant,
    /// Hashes of their URIs.
    locations: HashSet<u64>,
    event: Event,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    groups: HashMap<Key, Group>,
    /// Events of the whole pipeline.
    plain: Lines,
    hasher: RandomState,
}

impl Table {
    pub(super) fn push(&mut self, event: Event, now: Instant) {
        let Some(uri) = event.uri.clone() else {
            if self.plain.len() < GROUPS {
                self.plain.push(event);
            }
            return;
        };
        let hash = self.hasher.hash_one(&uri);
        let key = self.key(&event, &uri, now);
        self.groups
            .entry(key)
            .or_default()
            .push(event, uri, hash, now);
    }

    fn key(&mut self, event: &Event, uri: &LocationUri, now: Instant) -> Key {
        let host = match uri.authority() {
            Some(host) if !host.is_empty() => host,
            _ => uri.path(),
        };
        let mut key = Key {
            what: event.what,
            scheme: uri.scheme().to_owned(),
            kind: event.error.as_ref().map(Error::kind),
            host: Some(host.to_owned()),
        };
        if self.groups.contains_key(&key) {
            return key;
        }
        self.groups.retain(|_, group| group.is_remembered(now));
        let like = |k: &&Key| (k.what, &k.scheme, k.kind) == (key.what, &key.scheme, key.kind);
        if self.groups.keys().filter(like).count() >= HOSTS {
            key.host = None;
        }
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            key.scheme.clear();
            (key.kind, key.host) = (None, None);
        }
        key
    }

    /// Takes the lines that are due.
    pub(super) fn take_due(&mut self, now: Instant, hurry: Hurry) -> Lines {
        let mut lines = std::mem::take(&mut self.plain);
        for group in self.groups.values_mut() {
            group.take_due(now, hurry, &mut lines);
        }
        lines
    }

    /// When the next line is due.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let plain = (!self.plain.is_empty()).then_some(now);
        let groups = self.groups.values().filter_map(Group::next_due);
        groups.chain(plain).min()
    }
}

impl Group {
    fn push(&mut self, event: Event, uri: LocationUri, hash: u64, now: Instant) {
        self.named.retain(|n| n.is_remembered(now));
        if let Some(named) = self.named.iter_mut().find(|n| n.uri == uri) {
            // A change of state that was emitted within the interval is not repeated; spans are
            // summed up.
            let counts = named.told.is_none() || event.spans > 0;
            match &mut named.held {
                Some(held) => held.add(&event),
                None if counts => named.held = Some(event),
                None => {}
            }
        } else if let Some(crowd) = &mut self.crowd {
            crowd.add(&event, hash);
        } else if self.named.len() < FEW && !is_recent(self.told, now) {
            self.named.push(Named {
                uri,
                since: now,
                told: None,
                held: Some(event),
            });
        } else {
            self.crowd = Some(Crowd {
                since: now,
                locations: HashSet::from([hash]),
                event,
            });
        }
    }

    fn take_due(&mut self, now: Instant, hurry: Hurry, lines: &mut Lines) {
        let is_due = |at: Instant, held: bool| {
            at <= now || hurry == Hurry::All || hurry == Hurry::Due && !held
        };
        if self
            .crowd
            .as_ref()
            .is_some_and(|c| is_due(c.due(self.told), is_recent(self.told, now)))
            && let Some(crowd) = self.crowd.take()
        {
            let mut line = crowd.event;
            line.locations = crowd.locations.len() as u64;
            // Locations that were to get lines of their own, before there were too many.
            self.named.retain_mut(|named| match named.held.take() {
                Some(held) if named.told.is_none() => {
                    line.add(&held);
                    line.locations += 1;
                    false
                }
                held => {
                    named.held = held;
                    true
                }
            });
            lines.push(line);
            self.told = Some(now);
        }
        let crowded = self.crowd.is_some();
        for named in &mut self.named {
            if crowded && named.told.is_none() {
                continue;
            }
            if is_due(named.due(), named.told.is_some())
                && let Some(line) = named.held.take()
            {
                lines.push(line);
                named.told = Some(now);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let crowd = self.crowd.as_ref().map(|c| c.due(self.told));
        let held = self.named.iter().filter(|n| n.held.is_some());
        held.map(Named::due).chain(crowd).min()
    }

    fn is_remembered(&self, now: Instant) -> bool {
        self.crowd.is_some()
            || is_recent(self.told, now)
            || self.named.iter().any(|n| n.is_remembered(now))
    }
}

impl Named {
    fn due(&self) -> Instant {
        match self.told {
            Some(told) => later(told, INTERVAL),
            None => later(self.since, GATHER),
        }
    }

    fn is_remembered(&self, now: Instant) -> bool {
        self.held.is_some() || is_recent(self.told, now)
    }
}

impl Crowd {
    fn add(&mut self, event: &Event, hash: u64) {
        self.event.add(event);
        if self.locations.len() < COUNTED {
            self.locations.insert(hash);
        }
    }

    fn due(&self, told: Option<Instant>) -> Instant {
        let gathered = later(self.since, GATHER);
        told.map_or(gathered, |told| later(told, INTERVAL).max(gathered))
    }
}

fn is_recent(told: Option<Instant>, now: Instant) -> bool {
    told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL)
}

#[cfg(test)]
mod tests;
