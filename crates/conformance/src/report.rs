//! The report of a run: the case × backend matrix, as text and as JSON.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The outcome of one case on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The case passed. The notes have what was measured or left out.
    Pass(Vec<String>),
    /// The case failed.
    Fail(String),
    /// The case does not apply to this backend, or cannot run on this machine, for this reason.
    NotApplicable(String),
}

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The backend's name.
    pub backend: String,
    /// The case's name.
    pub case: String,
    /// The promise of the design it belongs to.
    pub promise: u8,
    /// What the case checks.
    pub says: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// The report of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Cells in the order of the table, backend by backend.
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds the rows of another run.
    pub fn merge(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// Cells that passed, failed, and did not apply.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.rows
            .iter()
            .fold((0, 0, 0), |(p, f, n), row| match row.outcome {
                Outcome::Pass(_) => (p + 1, f, n),
                Outcome::Fail(_) => (p, f + 1, n),
                Outcome::NotApplicable(_) => (p, f, n + 1),
            })
    }

    /// The cells that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Fail(_)))
    }

    /// Whether the run passed: a case ran, and none failed.
    ///
    /// # Errors
    /// Why the run did not pass, in one line.
    pub fn verdict(&self) -> Result<(), Failure> {
        let (passed, failed, not_applicable) = self.counts();
        match (passed, failed) {
            (0, 0) if not_applicable > 0 => Err(Failure::new("no case ran: none applies")),
            (0, 0) => Err(Failure::new("no case ran: none was selected")),
            (_, 0) => Ok(()),
            _ => Err(Failure::new(format!(
                "{failed} of {} cases failed",
                passed + failed
            ))),
        }
    }

    /// The report as JSON text, one object per cell.
    ///
    /// # Errors
    /// Never in practice; serialisation of plain text and numbers.
    pub fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Parses the text of [`Report::to_json`].
    ///
    /// # Errors
    /// If the text is something else.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        Ok(serde_json::from_str(text)?)
    }
}

/// The matrix, then every failure, reason and note in full.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut backends: Vec<&str> = Vec::new();
        let mut cases: Vec<(u8, &str)> = Vec::new();
        for row in &self.rows {
            if !backends.contains(&row.backend.as_str()) {
                backends.push(&row.backend);
            }
            if !cases.contains(&(row.promise, row.case.as_str())) {
                cases.push((row.promise, &row.case));
            }
        }
        cases.sort_by_key(|(promise, _)| *promise);
        let width = cases.iter().map(|(_, c)| c.len()).max().unwrap_or(4).max(4);
        write!(f, "{:>3}  {:<width$}", "P", "case")?;
        for backend in &backends {
            write!(f, "  {backend:>10}")?;
        }
        writeln!(f)?;
        for (promise, case) in &cases {
            write!(f, "{promise:>3}  {case:<width$}")?;
            for backend in &backends {
                let column = backend.len().max(10);
                let cell = self
                    .rows
                    .iter()
                    .find(|r| r.backend == *backend && r.case == *case)
                    .map_or("", |r| match r.outcome {
                        Outcome::Pass(_) => "pass",
                        Outcome::Fail(_) => "FAIL",
                        Outcome::NotApplicable(_) => "n/a",
                    });
                write!(f, "  {cell:>column$}")?;
            }
            writeln!(f)?;
        }
        for row in &self.rows {
            let (word, text) = match &row.outcome {
                Outcome::Pass(notes) if notes.is_empty() => continue,
                Outcome::Pass(notes) => ("note", notes.join("; ")),
                Outcome::Fail(text) => ("FAIL", text.clone()),
                Outcome::NotApplicable(reason) => ("n/a ", reason.clone()),
            };
            writeln!(f, "{word} {} on {}: {text}", row.case, row.backend)?;
        }
        let (passed, failed, not_applicable) = self.counts();
        write!(
            f,
            "{passed} passed, {failed} failed, {not_applicable} not applicable"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome) -> Row {
        Row {
            backend: "b".into(),
            case: "m::c".into(),
            promise: 3,
            says: "holds".into(),
            outcome,
            millis: 7,
        }
    }

    #[test]
    fn json_round_trip() {
        let report = Report {
            rows: vec![
                row(Outcome::Pass(vec!["a note".into()])),
                row(Outcome::Fail("no".into())),
                row(Outcome::NotApplicable("never".into())),
            ],
        };
        let text = report.to_json().unwrap();
        assert_eq!(Report::from_json(&text).unwrap(), report);
    }

    #[test]
    fn verdicts() {
        let verdict = |rows: Vec<Row>| Report { rows }.verdict().is_ok();
        assert!(!verdict(vec![]));
        assert!(!verdict(vec![row(Outcome::NotApplicable("x".into()))]));
        assert!(!verdict(vec![
            row(Outcome::Pass(vec![])),
            row(Outcome::Fail("x".into()))
        ]));
        assert!(verdict(vec![
            row(Outcome::Pass(vec![])),
            row(Outcome::NotApplicable("x".into()))
        ]));
    }
}
