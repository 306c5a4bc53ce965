//! `cargo xtask test`: every test of the workspace, without anything from outside.

use crate::cargo::{Outcome, cargo, text_of};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Variables that would change what is tested.
const FOREIGN: [&str; 8] = [
    "MLFLOW_",
    "OTEL_",
    "DATABRICKS_",
    "UC_",
    "UNITY_CATALOG_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
];

#[derive(Default)]
struct Totals {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        let words: Vec<&str> = rest.split_whitespace().collect();
        for pair in words.windows(2) {
            let (Ok(count), what) = (pair[0].parse::<u64>(), pair[1].trim_end_matches(';')) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

pub(crate) fn run() -> Outcome {
    let mut command = cargo(["test", "--workspace", "--no-fail-fast"]);
    for (name, _) in std::env::vars_os() {
        if let Some(name) = name.to_str()
            && FOREIGN.iter().any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    let text = text_of(&command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("`{text}` could not be started: {e}"))?;
    let output = child.stdout.take().ok_or("no output to read")?;
    let mut totals = Totals::default();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| format!("the output of `{text}` ended: {e}"))?;
        totals.add(&line);
        println!("{line}");
    }
    let status = child.wait().map_err(|e| format!("`{text}`: {e}"))?;
    println!(
        "\n{} tests passed, {} failed, {} ignored, in {} programs",
        totals.passed, totals.failed, totals.ignored, totals.programs
    );
    if !status.success() || totals.failed > 0 {
        return Err(format!("`{text}` failed: {status}"));
    }
    match totals.passed {
        0 => Err("no test ran".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            totals.add(line);
        }
        assert_eq!(
            (
                totals.programs,
                totals.passed,
                totals.failed,
                totals.ignored
            ),
            (2, 7, 3, 1)
        );
    }
}
