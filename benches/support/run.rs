//! How a bench was called.

use criterion::Criterion;
use std::time::Duration;

/// Set, it leaves out criterion's absolute figures.
const PAIRS_ONLY: &str = "BENCH_PAIRS_ONLY";

/// What the command line asks for: a measurement, or a quick run that only shows that every bench
/// still works.
#[derive(Clone, Debug)]
pub struct Run {
    smoke: bool,
    pairs_only: bool,
    profile: bool,
    filter: Option<String>,
}

impl Run {
    /// Reads the arguments of this process as criterion does: `--test`, or no `--bench`, is a smoke
    /// run; with `--profile-time` only criterion's part runs; the first argument, if it is no flag,
    /// selects rows by substring, up to a slash.
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|a| a == flag);
        Self {
            smoke: has("--test") || !has("--bench"),
            pairs_only: std::env::var_os(PAIRS_ONLY).is_some(),
            profile: has("--profile-time"),
            filter: args
                .first()
                .filter(|a| !a.starts_with('-'))
                .map(|a| a.split('/').next().unwrap_or_default().to_owned()),
        }
    }

    /// Whether nothing is to be measured.
    pub fn is_smoke(&self) -> bool {
        self.smoke
    }

    /// Whether criterion's absolute figures are to be left out: for quick repetitions.
    pub fn is_pairs_only(&self) -> bool {
        self.pairs_only
    }

    /// Whether the pairs are to be left out, so that a profiler sees one side only.
    pub fn is_profile(&self) -> bool {
        self.profile
    }

    /// `full` for a measurement, `smoke` for a smoke run.
    pub fn choose<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }

    /// Whether the row was asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|f| row.contains(f.as_str()))
    }
}

/// Criterion with the settings of every bench here: short, because its figures are for the record
/// and decide nothing.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args()
}
