//! Memory and locations over the time of a run.

use super::{MANY, MIB, Plan, SLACK};
use crate::Outcome;
use crate::report::Report;
use crate::resources::{live_bytes, median, process};
use std::time::Duration;
use trace_destination_core::{LocationState, PipelineStats};

/// What memory may grow by between the first and the last quarter after the warm-up: this part of
/// it, and this much beside.
const GROWTH: f64 = 0.15;
const GROWTH_BYTES: f64 = 8.0 * MIB;
/// What each location more may cost, where a run is too short for any to be forgotten.
const PER_LOCATION: f64 = 24.0 * 1024.0;

struct Sample {
    at: Duration,
    resident: f64,
    allocated: f64,
    locations: f64,
    bound: f64,
}

/// The samples of a run.
#[derive(Default)]
pub(super) struct Watch {
    samples: Vec<Sample>,
    most_held: usize,
    most_open: usize,
    most_threads: u64,
    forgotten: u64,
}

impl Watch {
    pub(super) fn sample(&mut self, at: Duration, stats: &PipelineStats) -> Outcome {
        let (resident, threads) = process()?;
        let open = stats.locations.iter();
        let open = open.filter(|l| l.state == LocationState::Open).count();
        self.most_held = self.most_held.max(stats.bytes);
        self.most_open = self.most_open.max(open);
        self.most_threads = self.most_threads.max(threads);
        self.forgotten = stats.forgotten.locations;
        self.samples.push(Sample {
            at,
            resident: resident as f64,
            allocated: live_bytes() as f64,
            locations: stats.locations.len() as f64,
            bound: stats.bound_traces as f64,
        });
        Ok(())
    }

    pub(super) fn report(&self, plan: &Plan, report: &mut Report) {
        let warm: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|s| s.at >= plan.warm_up)
            .collect();
        let quarter = warm.len() / 4;
        report.require(quarter > 0, || "there are too few samples".to_owned());
        let (first, last) = (&warm[..quarter], &warm[warm.len() - quarter..]);
        let of = |samples: &[&Sample], value: fn(&Sample) -> f64| {
            median(samples.iter().map(|s| value(s)).collect())
        };
        let both = |value| (of(first, value), of(last, value));
        let resident = both(|s| s.resident);
        let allocated = both(|s| s.allocated);
        let locations = both(|s| s.locations);
        let bound = both(|s| s.bound);
        for (name, (first, last), unit) in [
            (
                "resident memory",
                (resident.0 / MIB, resident.1 / MIB),
                "MiB",
            ),
            (
                "allocated memory",
                (allocated.0 / MIB, allocated.1 / MIB),
                "MiB",
            ),
            ("locations remembered", locations, ""),
            ("traces bound", bound, ""),
        ] {
            report.figure(&format!("{name}, first quarter"), first, unit);
            report.figure(&format!("{name}, last quarter"), last, unit);
        }
        report.figure("locations forgotten", self.forgotten as f64, "");
        report.figure("locations open, most", self.most_open as f64, "");
        report.figure("held, most", self.most_held as f64 / MIB, "MiB");
        report.figure("threads, most", self.most_threads as f64, "");
        for (name, (first, last)) in [("resident", resident), ("allocated", allocated)] {
            let more = (locations.1 - locations.0).max(0.0) * PER_LOCATION;
            let most = first * (1.0 + GROWTH) + GROWTH_BYTES + more;
            report.require(last <= most, || {
                format!(
                    "{name} memory grew from {:.1} to {:.1} MiB, and {:.1} is the most",
                    first / MIB,
                    last / MIB,
                    most / MIB
                )
            });
        }
        let most = warm.iter().map(|s| s.locations).fold(0.0, f64::max);
        report.require(most <= (MANY + SLACK) as f64, || {
            format!(
                "{most} locations were remembered, and {} are the most",
                MANY + SLACK
            )
        });
    }
}
