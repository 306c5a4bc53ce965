//! `cargo xtask conformance`: the suite on every backend, and the real things with `--live`.

#[path = "../../crates/experiment/tests/harness/mod.rs"]
mod experiment;

use crate::cargo::{Outcome, root};
use crate::live::{self, LiveOptions, LiveReport};
use clap::Args;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use trace_destination::LocationUri;
use trace_destination_conformance::{
    Failure, Harness, MemoryHarness, Outcome as CaseOutcome, Report, Row, Suite, table, writer,
};

/// The column of the live cases.
const LIVE: &str = "mlflow";

#[derive(Args)]
pub(crate) struct Conformance {
    /// Also checks with the real things, provisioned into `.live/`.
    #[arg(long)]
    live: bool,
    /// Only this backend: memory, experiment, or (with --live) mlflow. May be given several times.
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// Only cases whose name matches; `*` stands for any text.
    #[arg(long, value_name = "GLOB")]
    case: Option<String>,
    /// Lists the cases and runs nothing.
    #[arg(long)]
    list: bool,
    /// Also writes the report to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The other process of the case that kills a writer.
#[derive(Args)]
pub(crate) struct Writer {
    /// The location it writes.
    uri: LocationUri,
}

type MakeHarness = fn() -> Result<Arc<dyn Harness>, Failure>;

/// Every backend that has an embedded stand-in for its place, or needs none.
const BACKENDS: [(&str, MakeHarness); 2] = [
    ("memory", || Ok(Arc::new(MemoryHarness::new()))),
    ("experiment", || {
        Ok(Arc::new(experiment::ExperimentHarness::new(this_program)?))
    }),
];

/// This program as the writer of a location.
fn this_program(uri: &LocationUri) -> Command {
    // The name that stays right when cargo builds this program anew while it runs.
    let unchanging = PathBuf::from("/proc/self/exe");
    let program = match unchanging.exists() {
        true => Ok(unchanging),
        false => std::env::current_exe(),
    };
    let mut command = Command::new(program.unwrap_or_else(|_| "xtask".into()));
    command.arg("conformance-writer").arg(uri.as_str());
    command
}

impl Writer {
    pub(crate) fn run(&self) -> Outcome {
        let location = trace_destination::registry()
            .location(&self.uri)
            .map_err(|e| e.to_string())?;
        writer::run(location).map_err(|f| f.to_string())
    }
}

impl Conformance {
    pub(crate) fn run(&self) -> Outcome {
        let known: Vec<&str> = BACKENDS
            .iter()
            .map(|(name, _)| *name)
            .chain([LIVE])
            .collect();
        if let Some(unknown) = self.backend.iter().find(|b| !known.contains(&b.as_str())) {
            return Err(format!(
                "there is no backend `{unknown}`: use one of {}",
                known.join(", ")
            ));
        }
        let mut suite = Suite::new();
        if let Some(glob) = &self.case {
            suite = suite.with_filter(glob);
        }
        if self.list {
            return self.print_list(&suite);
        }
        let mut report = Report::default();
        // With `--live --case ui`, no case of the table may be meant.
        if !suite.cases().is_empty() {
            for (name, make) in BACKENDS.iter().filter(|(name, _)| self.wants(name)) {
                let harness = make().map_err(|f| f.during(name).to_string())?;
                suite = suite.with_harness(harness);
            }
            report = suite.run();
        }
        let mut verdict = match report.rows.is_empty() {
            true => Ok(()),
            false => report.verdict().map_err(|f| f.to_string()),
        };
        if self.live && self.wants(LIVE) {
            let live = live::run(&LiveOptions {
                workspace: root(),
                case: self.case.as_ref().map(|glob| glob.replace('*', "")),
            });
            if live.failed() > 0 {
                verdict = verdict.and(Err(format!("{} live cases failed", live.failed())));
            }
            report.merge(rows_of(&live));
        }
        println!("{report}");
        if let Some(path) = &self.json {
            let json = report.to_json().map_err(|f| f.to_string())?;
            std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let (passed, failed, _) = report.counts();
        if passed + failed == 0 {
            return Err("no case ran: nothing matches, or nothing could be run".into());
        }
        verdict
    }

    fn wants(&self, backend: &str) -> bool {
        self.backend.is_empty() || self.backend.iter().any(|b| b == backend)
    }

    fn print_list(&self, suite: &Suite) -> Outcome {
        let chosen = suite.cases();
        if chosen.is_empty() {
            return Err(format!("none of the {} cases matches", table().len()));
        }
        for case in chosen {
            println!("{:>3}  {:<55} {}", case.promise, case.name, case.says);
        }
        Ok(())
    }
}

/// The live cases as rows of the matrix. They belong to no single promise.
fn rows_of(live: &LiveReport) -> Report {
    let rows = live
        .cases
        .iter()
        .map(|case| Row {
            backend: LIVE.to_owned(),
            case: format!("live::{}", case.name),
            promise: 0,
            says: "what real MLflow makes of it".to_owned(),
            outcome: match &case.outcome {
                live::Outcome::Passed(text) => CaseOutcome::Pass(vec![text.trim().to_owned()]),
                live::Outcome::Failed(text) => CaseOutcome::Fail(text.trim().to_owned()),
                live::Outcome::NotRun(text) => {
                    CaseOutcome::NotApplicable(format!("not run: {}", text.trim()))
                }
            },
            millis: u64::try_from(case.duration.as_millis()).unwrap_or(u64::MAX),
        })
        .collect();
    Report { rows }
}
