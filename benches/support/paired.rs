//! Interleaved pairs, the median of their ratios, and how sure it is.

use crate::results::{self, Result as Row};
use crate::run::Run;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Pairs of a measurement, unless a bench asks for more.
const PAIRS: usize = 40;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// What the ratio, ours divided by the baseline's, has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Less is better: times, bytes.
    AtMost(f64),
    /// More is better: rates.
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, bound: f64) -> bool {
        match self {
            Self::AtMost(goal) => bound <= goal,
            Self::AtLeast(goal) => bound >= goal,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(goal) => format!("<= {goal:.2}x"),
            Self::AtLeast(goal) => format!(">= {goal:.2}x"),
        }
    }
}

/// One side of one pair: the figure that decides, and others for the record, in an order of the
/// bench's own.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Seconds, or a rate: whatever the goal is about.
    pub value: f64,
    /// Figures whose ratios are noted.
    pub also: Vec<f64>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self {
            value,
            also: Vec::new(),
        }
    }
}

/// A side dropped a span, or did something else that makes its figure worthless.
#[derive(Clone, Debug)]
pub struct Void(pub String);

/// One side of a comparison.
pub type Pair<'a> = &'a mut dyn FnMut() -> Result<Sample, Void>;

/// A row to measure.
#[derive(Clone, Debug)]
pub struct Comparison {
    row: String,
    baseline: String,
    goal: Goal,
    pairs: usize,
    unit: (f64, &'static str),
    also: Vec<&'static str>,
    note: String,
}

impl Comparison {
    /// A row named `row`, measured against `baseline`.
    pub fn new(row: impl Into<String>, baseline: impl Into<String>, goal: Goal) -> Self {
        Self {
            row: row.into(),
            baseline: baseline.into(),
            goal,
            pairs: PAIRS,
            unit: (1.0, ""),
            also: Vec::new(),
            note: String::new(),
        }
    }

    /// Measures `pairs` pairs, where more than usual are needed to tell the sides apart.
    #[must_use]
    pub fn with_pairs(mut self, pairs: usize) -> Self {
        self.pairs = pairs;
        self
    }

    /// How the absolute figures are printed: `value * factor` and a unit.
    #[must_use]
    pub fn with_unit(mut self, factor: f64, unit: &'static str) -> Self {
        self.unit = (factor, unit);
        self
    }

    /// Names the further figures of each sample.
    #[must_use]
    pub fn with_also(mut self, names: &[&'static str]) -> Self {
        self.also = names.to_vec();
        self
    }

    /// Adds words to the row's note.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Runs the pairs, prints the row and, unless this is a smoke run, records it. Returns whether
    /// the goal is met; a smoke run and a row not asked for return true.
    #[expect(clippy::print_stdout, reason = "printing is what a bench is for")]
    pub fn run(&self, run: &Run, ours: Pair<'_>, baseline: Pair<'_>) -> bool {
        if !run.wants(&self.row) || run.is_profile() {
            return true;
        }
        let result = match self.measure(run.choose(self.pairs, 2), ours, baseline) {
            Ok(pairs) => self.evaluate(&pairs),
            Err(Void(reason)) => {
                assert!(!run.is_smoke(), "{}: void: {reason}", self.row);
                self.void(&reason)
            }
        };
        if run.is_smoke() {
            println!("{}: ran, nothing measured", self.row);
            return true;
        }
        println!(
            "{}: {:.3}x of {}, 95 % bound {:.3}x, goal {}: {} ({} pairs; {})",
            result.row,
            result.median_ratio,
            result.baseline,
            result.upper95,
            result.goal,
            if result.met { "met" } else { "NOT MET" },
            result.n,
            result.note,
        );
        let met = result.met;
        if let Err(error) = results::record(result) {
            println!("cannot write {}: {error}", results::path().display());
        }
        met
    }

    fn measure(
        &self,
        pairs: usize,
        ours: Pair<'_>,
        baseline: Pair<'_>,
    ) -> Result<Vec<(Sample, Sample)>, Void> {
        let mut rng = StdRng::seed_from_u64(0x7ace);
        // Not counted: caches, allocators and lazily made things settle.
        ours()?;
        baseline()?;
        (0..pairs)
            .map(|_| {
                if rng.random() {
                    let a = ours()?;
                    Ok((a, baseline()?))
                } else {
                    let b = baseline()?;
                    Ok((ours()?, b))
                }
            })
            .collect()
    }

    fn evaluate(&self, pairs: &[(Sample, Sample)]) -> Row {
        let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a.value / b.value).collect();
        let bound = bootstrap_bound(&ratios, self.goal);
        let (factor, unit) = self.unit;
        let middle = |f: &dyn Fn(&(Sample, Sample)) -> f64| median(pairs.iter().map(f).collect());
        let mut notes = vec![format!(
            "{:.1} against {:.1} {unit}",
            middle(&|p| p.0.value) * factor,
            middle(&|p| p.1.value) * factor
        )];
        for (i, name) in self.also.iter().enumerate() {
            notes.push(format!(
                "{name} {:.3}x ({:.1} against {:.1})",
                middle(&|p| p.0.also[i] / p.1.also[i]),
                middle(&|p| p.0.also[i]) * factor,
                middle(&|p| p.1.also[i]) * factor,
            ));
        }
        if !self.note.is_empty() {
            notes.push(self.note.clone());
        }
        Row {
            row: self.row.clone(),
            baseline: self.baseline.clone(),
            goal: self.goal.text(),
            median_ratio: median(ratios),
            upper95: bound,
            met: self.goal.is_met_by(bound),
            n: pairs.len(),
            note: notes.join("; "),
        }
    }

    fn void(&self, reason: &str) -> Row {
        Row {
            row: self.row.clone(),
            baseline: self.baseline.clone(),
            goal: self.goal.text(),
            median_ratio: 0.0,
            upper95: 0.0,
            met: false,
            n: 0,
            note: format!("void: {reason}"),
        }
    }
}

/// The bound that the median of the population keeps with 95 % confidence, on the goal's side.
fn bootstrap_bound(ratios: &[f64], goal: Goal) -> f64 {
    let mut rng = StdRng::seed_from_u64(0xb007);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let resample = (0..ratios.len())
                .map(|_| ratios[rng.random_range(0..ratios.len())])
                .collect();
            median(resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    match goal {
        Goal::AtMost(_) => medians[RESAMPLES * 95 / 100],
        Goal::AtLeast(_) => medians[RESAMPLES * 5 / 100],
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ratios: &[f64]) -> Vec<(Sample, Sample)> {
        ratios.iter().map(|r| ((*r).into(), 1.0.into())).collect()
    }

    #[test]
    fn the_bound_decides_and_not_the_median() {
        let noisy: Vec<f64> = (0..40).map(|i| if i < 22 { 0.99 } else { 1.2 }).collect();
        let row = Comparison::new("row", "base", Goal::AtMost(1.0)).evaluate(&samples(&noisy));
        assert!(row.median_ratio < 1.0, "{row:?}");
        assert!(row.upper95 > 1.0 && !row.met, "{row:?}");
    }

    #[test]
    fn more_is_better_takes_the_lower_bound() {
        let noisy: Vec<f64> = (0..40).map(|i| if i < 22 { 0.61 } else { 0.5 }).collect();
        let row = Comparison::new("row", "base", Goal::AtLeast(0.6)).evaluate(&samples(&noisy));
        assert!(row.median_ratio > 0.6, "{row:?}");
        assert!(row.upper95 < 0.6 && !row.met, "{row:?}");
    }

    #[test]
    fn sides_that_are_equal_meet_one() {
        let row = Comparison::new("row", "base", Goal::AtMost(1.0)).evaluate(&samples(&[1.0; 30]));
        assert!(row.met && row.upper95 == 1.0, "{row:?}");
    }

    #[test]
    fn a_void_side_voids_the_row() {
        let comparison = Comparison::new("row", "base", Goal::AtMost(1.0));
        let result = comparison.measure(3, &mut || Err(Void("dropped 1 span".into())), &mut || {
            Ok(1.0.into())
        });
        assert!(matches!(result, Err(Void(reason)) if reason.contains("dropped")));
    }
}
