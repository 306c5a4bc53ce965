//! What a flush achieved, and how it is put into words.

use super::Shared;
use super::delivery::Waiting;
use crate::error::Error;
use crate::stats::{Dropped, ForgottenLocations, LocationStats, Undecided, Unplaced};
use crate::uri::LocationUri;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Locations that a report shows in full.
const SHOWN: usize = 10;

/// What a flush achieved, per location.
///
/// `Display` and `Debug` show ten locations at most, those in trouble first, and sum up the others.
#[derive(Clone)]
#[non_exhaustive]
pub struct FlushReport {
    /// Every location in use, sorted by URI.
    pub locations: Vec<LocationReport>,
    /// Locations that were in use before, in sum.
    pub forgotten: ForgottenLocations,
    /// What never reached a location.
    pub unplaced: Unplaced,
    /// What waits for the destination of its trace, which has open spans: no flush waits for that.
    pub undecided: Undecided,
    /// The deadline came before everything was written.
    pub timed_out: bool,
    /// Why the pipeline delivers nothing any more, where nobody asked for that: it belongs to the
    /// process that this one was forked from, or its delivery thread has failed.
    pub error: Option<Error>,
    /// Everything lost since the pipeline started.
    pub(super) losses: u64,
    /// What of that an earlier report had told when this flush began.
    pub(super) told: u64,
}

/// What became of the spans of one location.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocationReport {
    /// The location.
    pub uri: LocationUri,
    /// Spans stored since the pipeline started. They survive the end of this process as far as the
    /// backend documents.
    pub stored: u64,
    /// Spans not written yet: the deadline came first, or the location fails in a way that waiting
    /// does not mend.
    pub pending: u64,
    /// Spans not stored since the pipeline started, by reason.
    pub dropped: Dropped,
    /// Trace-level updates not stored since the pipeline started.
    pub lost_updates: u64,
    /// Trace-level updates that are still tried, apart from their batch. No flush waits for them;
    /// shutdown counts as lost what is left of them.
    pub late_updates: u64,
    /// Spans dropped while this flush was under way.
    pub lost: u64,
    /// Spans started and not ended yet; no flush can store them.
    pub open_spans: u64,
    /// Why spans are pending or dropped, where there is a reason.
    pub error: Option<Error>,
}

impl FlushReport {
    /// Everything that had ended was either stored or reported as dropped.
    pub fn is_complete(&self) -> bool {
        !self.timed_out && self.error.is_none() && self.locations.iter().all(|l| l.pending == 0)
    }

    /// The verdict on the pipeline's life: every span that ended since it started is stored, and
    /// every trace-level value; false while such values are still tried, and while spans wait for
    /// the destination of their trace. Spans that never reached a location count as lost, those that were
    /// [discarded](crate::Destination::discard) on purpose do not.
    ///
    /// True also of a pipeline that was given nothing.
    pub fn all_stored(&self) -> bool {
        self.is_complete()
            && self.losses == 0
            && self.undecided.spans == 0
            && self.locations.iter().all(|l| l.late_updates == 0)
    }

    /// The verdict on the time since the last report: nothing was dropped, unrouted, orphaned or
    /// expired, and no trace-level value was lost, that a flush before this one did not report.
    /// What is still pending is not lost, see [`is_complete`](Self::is_complete), nor are
    /// trace-level values that are still tried. False while spans wait for the destination of their
    /// trace ([`undecided`](Self::undecided)), since nobody can tell whether it will come.
    pub fn nothing_lost(&self) -> bool {
        self.error.is_none() && self.losses <= self.told && self.undecided.spans == 0
    }

    /// The report of one location.
    pub fn location(&self, uri: &LocationUri) -> Option<&LocationReport> {
        self.locations.iter().find(|l| l.uri == *uri)
    }
}

impl FlushReport {
    /// The report on these locations alone, if there are any: what was lost elsewhere is not told.
    pub(super) fn only(mut self, uris: Option<&[LocationUri]>) -> Self {
        let Some(uris) = uris else { return self };
        self.locations.retain(|l| uris.contains(&l.uri));
        self.forgotten = ForgottenLocations::default();
        self.unplaced = Unplaced::default();
        self.undecided = Undecided::default();
        self.timed_out &= self.locations.iter().any(|l| l.pending > 0);
        let lost = |l: &LocationReport| l.dropped.total() + l.lost_updates;
        self.losses = self.locations.iter().map(lost).sum();
        let while_it_ran = |l: &LocationReport| l.lost;
        let news: u64 = self.locations.iter().map(while_it_ran).sum();
        self.told = self.losses - news.min(self.losses);
        self
    }

    /// What the flush lost, or left where a location fails for good, in one line however many
    /// locations there are; `None` if there is no such thing.
    pub(crate) fn lost(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(error.to_string());
        }
        let losing = || self.locations.iter().filter(|l| l.lost + l.pending > 0);
        let example = losing().find(|l| l.error.is_some()).or(losing().next())?;
        let spans: u64 = losing().map(|l| l.lost + l.pending).sum();
        let at = match losing().count() {
            1 => String::new(),
            locations => format!(" at {locations} locations, of which one is named"),
        };
        Some(match &example.error {
            Some(error) => format!("{spans} spans were not stored{at}: {error}"),
            None if at.is_empty() => format!("{spans} spans were not stored at {}", example.uri),
            None => format!("{spans} spans were not stored{at}: {}", example.uri),
        })
    }

    /// The locations to show, and the others.
    fn shown(&self) -> (Vec<&LocationReport>, Vec<&LocationReport>) {
        let mut shown: Vec<_> = self.locations.iter().collect();
        if shown.len() <= SHOWN {
            return (shown, Vec::new());
        }
        shown.sort_by_key(|l| !l.is_in_trouble());
        let others = shown.split_off(SHOWN);
        (shown, others)
    }
}

impl LocationReport {
    fn is_in_trouble(&self) -> bool {
        self.pending > 0 || self.dropped.total() > 0 || self.lost_updates > 0
    }
}

impl fmt::Display for LocationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} stored, {} pending, {} dropped",
            self.uri,
            self.stored,
            self.pending,
            self.dropped.total()
        )?;
        if self.lost_updates > 0 {
            write!(f, ", {} trace-level updates lost", self.lost_updates)?;
        }
        if self.late_updates > 0 {
            write!(f, ", {} trace-level updates still tried", self.late_updates)?;
        }
        match &self.error {
            Some(error) if self.is_in_trouble() => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "without a location: {} unrouted, {} orphaned, {} traces expired",
            self.unrouted, self.orphaned, self.expired_bindings
        )?;
        match self.unrouted_updates {
            0 => Ok(()),
            updates => write!(f, ", {updates} trace-level updates unrouted"),
        }
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "waiting for a destination: {} spans in {} open traces",
            self.spans, self.traces
        )
    }
}

impl fmt::Display for FlushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, others) = self.shown();
        let unplaced = (self.unplaced.total() > 0).then_some(&self.unplaced);
        let undecided = (self.undecided.spans > 0).then_some(&self.undecided);
        let mut lines = self
            .error
            .iter()
            .map(|e| e as &dyn fmt::Display)
            .chain(unplaced.map(|u| u as &dyn fmt::Display))
            .chain(undecided.map(|u| u as &dyn fmt::Display))
            .chain(shown.iter().map(|l| l as &dyn fmt::Display));
        if let Some(first) = lines.next() {
            write!(f, "{first}")?;
        }
        lines.try_for_each(|line| write!(f, "\n{line}"))?;
        if others.is_empty() {
            return Ok(());
        }
        let sum = |of: fn(&LocationReport) -> u64| others.iter().map(|l| of(l)).sum::<u64>();
        write!(
            f,
            "\nand {} more locations: {} stored, {} pending, {} dropped",
            others.len(),
            sum(|l| l.stored),
            sum(|l| l.pending),
            sum(|l| l.dropped.total())
        )?;
        match (
            sum(|l| l.lost_updates),
            others.iter().filter(|l| l.is_in_trouble()).count(),
        ) {
            (0, 0) => Ok(()),
            (0, troubled) => write!(f, "; {troubled} of them in trouble"),
            (updates, troubled) => write!(
                f,
                ", {updates} trace-level updates lost; {troubled} of them in trouble"
            ),
        }
    }
}

impl fmt::Debug for FlushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, others) = self.shown();
        let mut debug = f.debug_struct("FlushReport");
        debug
            .field("timed_out", &self.timed_out)
            .field("error", &self.error)
            .field("unplaced", &self.unplaced)
            .field("undecided", &self.undecided)
            .field("locations", &shown);
        if !others.is_empty() {
            debug.field("more_locations", &others.len());
        }
        debug.finish()
    }
}

/// Which lanes a flush has not seen the end of.
pub(super) enum Unfinished<'a> {
    /// Delivery has ended; what is in flight still is in the hands of a sink that blocks.
    InFlight,
    /// Nobody knows: whatever waits counts as pending.
    Unknown,
    /// These; what waits in other lanes ended after the flush began. Whether the deadline came.
    Lanes(&'a [Waiting], bool),
}

/// Builds a report; `before` holds what lanes had dropped when the flush began, where that is known.
pub(super) fn report(
    shared: &Shared,
    before: Option<&HashMap<LocationUri, Dropped>>,
    unfinished: Unfinished<'_>,
) -> FlushReport {
    let stats = shared.stats();
    let timed_out = match unfinished {
        Unfinished::InFlight => stats.locations.iter().any(|l| l.in_flight > 0),
        Unfinished::Unknown => true,
        Unfinished::Lanes(_, timed_out) => timed_out,
    };
    let unfinished: Option<HashSet<&LocationUri>> = match unfinished {
        Unfinished::Unknown | Unfinished::InFlight => None,
        Unfinished::Lanes(lanes, _) => Some(lanes.iter().map(|w| &w.lane.uri).collect()),
    };
    let pending = |l: &LocationStats| match &unfinished {
        Some(unfinished) if !unfinished.contains(&l.uri) => 0,
        _ => l.queued + l.in_flight,
    };
    let none = Dropped::default();
    FlushReport {
        unplaced: stats.unplaced(),
        undecided: stats.undecided,
        losses: stats.losses(),
        told: 0,
        locations: stats
            .locations
            .into_iter()
            .map(|l| LocationReport {
                lost: before.map_or(0, |before| {
                    l.dropped.since(before.get(&l.uri).unwrap_or(&none)).total()
                }),
                pending: pending(&l),
                stored: l.stored,
                dropped: l.dropped,
                lost_updates: l.lost_updates,
                late_updates: l.late_updates,
                open_spans: l.open_spans,
                error: l.last_error,
                uri: l.uri,
            })
            .collect(),
        forgotten: stats.forgotten,
        timed_out,
        error: shared.defect(),
    }
}

#[cfg(test)]
mod tests;
