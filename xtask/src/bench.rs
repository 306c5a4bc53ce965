//! `cargo xtask bench`: runs the benches and prints one table of ratios.

use crate::cargo::{Outcome, cargo, root, run};
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Bench {
    /// Runs each bench briefly, to see that it still works; prints no table.
    #[arg(long)]
    smoke: bool,
    /// Exits with an error unless every goal is met.
    #[arg(long)]
    require: bool,
    /// Runs nothing: prints the table of the last run.
    #[arg(long, conflicts_with = "smoke")]
    table: bool,
    /// Runs something else: spans to Parquet side by side with the public `otlp2parquet`, in a
    /// workspace of its own, since it brings another version of arrow.
    #[arg(long, conflicts_with_all = ["smoke", "table", "require"])]
    otlp2parquet: bool,
    /// Passed on to the benches, e.g. a part of a bench's name.
    #[arg(last = true)]
    args: Vec<String>,
}

/// What a bench writes about one row of the design's table of costs.
#[derive(Deserialize)]
struct Row {
    row: String,
    baseline: String,
    goal: String,
    median_ratio: f64,
    upper95: f64,
    met: bool,
    n: usize,
    #[serde(default)]
    note: String,
}

fn results() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| root().join("target"))
        .join("trace-destination-bench.json")
}

impl Bench {
    pub(crate) fn run(&self) -> Outcome {
        if self.otlp2parquet {
            return run(cargo(["run", "--release", "--manifest-path"])
                .arg(root().join("benches/otlp2parquet/Cargo.toml"))
                .arg("--target-dir")
                .arg(root().join("target")));
        }
        if !self.table {
            let mut command = cargo(["bench", "--package", "trace-destination-benches"]);
            if self.smoke {
                // Nothing is measured, and an optimised build of the lakehouse takes ten minutes.
                command.args(["--profile", "dev"]);
            }
            if self.smoke || !self.args.is_empty() {
                command.arg("--").args(&self.args);
            }
            if self.smoke {
                command.arg("--test");
                return run(&mut command);
            }
            if self.args.is_empty() {
                // A full run leaves no row of an earlier one behind.
                match std::fs::remove_file(results()) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(format!("{}: {e}", results().display()));
                    }
                    _ => {}
                }
            }
            run(&mut command)?;
        }
        self.print()
    }

    fn print(&self) -> Outcome {
        let path = results();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| format!("the benches left no results in {}: {e}", path.display()))?;
        let rows: Vec<Row> = serde_json::from_str(&text)
            .map_err(|e| format!("{} is not what the benches write: {e}", path.display()))?;
        if rows.is_empty() {
            return Err("the benches measured nothing".into());
        }
        let width = rows.iter().map(|r| r.row.len()).max().unwrap_or(0);
        let against = rows.iter().map(|r| r.baseline.len()).max().unwrap_or(0);
        println!(
            "{:<width$}  {:<against$}  {:>10}  {:>10}  {:>12}  {:>5}  met",
            "what", "against", "median", "95 % bound", "goal", "pairs"
        );
        for r in &rows {
            println!(
                "{:<width$}  {:<against$}  {:>10.3}  {:>10.3}  {:>12}  {:>5}  {}  {}",
                r.row,
                r.baseline,
                r.median_ratio,
                r.upper95,
                r.goal,
                r.n,
                match (r.n, r.met) {
                    (0, _) => "VOID",
                    (_, true) => "yes",
                    (_, false) => "NO",
                },
                r.note
            );
        }
        let missed = rows.iter().filter(|r| !r.met).count();
        match (self.require, missed) {
            (true, 1..) => Err(format!("{missed} of {} goals are not met", rows.len())),
            _ => Ok(()),
        }
    }
}
