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

/// What forks is tested in a build without `parking_lot`, whose locks a child may inherit locked.
const RUNS: [&[&str]; 2] = [
    &["test", "--workspace", "--no-fail-fast"],
    &[
        "test",
        "--no-fail-fast",
        "--package=trace-destination-core",
        "--package=trace-destination-experiment",
        "--test=fork",
        "--test=forked",
    ],
];

pub(crate) fn run() -> Outcome {
    let mut totals = Totals::default();
    let mut failures = Vec::new();
    for args in RUNS {
        let before = totals.passed;
        if let Err(failure) = run_one(args, &mut totals) {
            failures.push(failure);
        }
        if totals.passed == before {
            failures.push(format!("no test ran in `cargo {}`", args.join(" ")));
        }
    }
    println!(
        "\n{} tests passed, {} failed, {} ignored, in {} programs",
        totals.passed, totals.failed, totals.ignored, totals.programs
    );
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n")),
    }
}

fn run_one(args: &[&str], totals: &mut Totals) -> Outcome {
    let mut command = cargo(args.iter().copied());
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
    let failed = totals.failed;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| format!("the output of `{text}` ended: {e}"))?;
        totals.add(&line);
        println!("{line}");
    }
    let status = child.wait().map_err(|e| format!("`{text}`: {e}"))?;
    match status.success() && totals.failed == failed {
        true => Ok(()),
        false => Err(format!("`{text}` failed: {status}")),
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
