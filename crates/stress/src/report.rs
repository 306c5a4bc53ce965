//! Figures and broken bounds of a run.

use crate::Outcome;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What a run measured, printed as it comes.
#[derive(Debug)]
pub(crate) struct Report {
    run: String,
    figures: Map<String, Value>,
    broken: Vec<String>,
}

impl Report {
    pub(crate) fn new(run: String) -> Self {
        println!("{run}");
        Self {
            run,
            figures: Map::new(),
            broken: Vec::new(),
        }
    }

    /// Notes a figure, rounded to two digits.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str) {
        let value = (value * 100.0).round() / 100.0;
        println!("  {name:<44} {value:>12} {unit}");
        self.figures
            .insert(name.to_owned(), json!({ "value": value, "unit": unit }));
    }

    /// Notes a bound: `text` tells what is wrong where it does not hold.
    pub(crate) fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        // A bound that is broken all the time is told a few times.
        if !holds && self.broken.len() < 20 {
            let text = text();
            println!("  BROKEN: {text}");
            self.broken.push(text);
        }
    }

    /// Ends the run.
    ///
    /// # Errors
    /// Every bound that did not hold, or a file that cannot be written.
    pub(crate) fn finish(self, file: Option<&Path>) -> Outcome {
        if let Some(file) = file {
            let all = json!({
                "run": self.run,
                "figures": self.figures,
                "broken": self.broken,
            });
            std::fs::write(file, format!("{all:#}\n"))
                .map_err(|e| format!("{} cannot be written: {e}", file.display()))?;
        }
        match self.broken.is_empty() {
            true => {
                println!("  every bound held");
                Ok(())
            }
            false => Err(format!("{}:\n  {}", self.run, self.broken.join("\n  "))),
        }
    }
}
