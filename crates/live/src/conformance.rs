//! `cargo xtask conformance`: the suite on every backend, and the real things with `--live`.

use crate::cargo::{backends, cargo, root, text_of};
use crate::{CaseReport, LiveOptions, server, unity};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use trace_destination_conformance::{
    BACKENDS_VAR, CASES_VAR, MemoryHarness, Outcome as CaseOutcome, REPORT_VAR, Report, Row, Suite,
    table,
};

/// The reference backend, which this program runs by itself.
const MEMORY: &str = "memory";
/// The columns of the live cases: files in MLflow's hands, and servers.
const LIVE: &str = "mlflow";
const SERVER: &str = "server";

#[derive(Args)]
pub(crate) struct Conformance {
    /// Also checks with the real things, provisioned into `.live/`.
    #[arg(long)]
    live: bool,
    /// With --live, also the cases that take ten minutes or need a quiet machine.
    #[arg(long, requires = "live")]
    long: bool,
    /// Only this backend, e.g. memory, experiment or server, or (with --live) mlflow, mlflow-server,
    /// basic-auth, unity-catalog. May be given several times.
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// Only cases whose name matches; `*` stands for any text.
    #[arg(long, value_name = "GLOB")]
    case: Option<String>,
    /// Lists the cases and runs nothing.
    #[arg(long)]
    list: bool,
    /// Runs each case that failed once more by itself, and says so: servers, engines and a busy
    /// machine have bad moments that are no fault of what is tested.
    #[arg(long)]
    again: bool,
    /// Also writes the report to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Conformance {
    pub(crate) fn run(&self) -> Result<(), String> {
        let mut suite = Suite::new();
        if let Some(glob) = &self.case {
            suite = suite.with_filter(glob);
        }
        if self.list {
            return self.print_list(&suite);
        }
        let mut report = Report::default();
        let any = !suite.cases().is_empty();
        // With `--live --case ui`, no case of the table may be meant.
        if any {
            if self.wants(MEMORY) {
                let memory = Arc::new(MemoryHarness::new());
                report.merge(suite.with_harness(memory).run());
            }
            if self.backend.is_empty() || self.backend.iter().any(|b| is_packaged(b)) {
                for package in backends()? {
                    report.merge(self.run_package(&package)?);
                }
            }
        }
        let mut failed = report.counts().1;
        if self.live {
            let wanted = |column: &&'static str| self.wants(column) || self.wants(SERVER);
            let columns = server::COLUMNS.map(|(column, _)| column).into_iter();
            let live = crate::run(&LiveOptions {
                workspace: root(),
                case: self.case.as_ref().map(|glob| glob.replace('*', "")),
                files: self.wants(LIVE),
                servers: self.wants(SERVER),
                long: self.long,
                columns: columns.filter(|c| any && wanted(c)).collect(),
                glob: self.case.clone(),
            });
            failed += live.failed() + live.suites.counts().1;
            report.merge(rows_of(LIVE, &live.cases));
            report.merge(rows_of(SERVER, &live.servers));
            report.merge(live.suites);
        }
        if self.live && self.wants(unity::BACKEND) {
            let case = self.case.as_ref().map(|glob| glob.replace('*', ""));
            let unity = unity::run(&root(), case.as_deref());
            failed += unity.counts().1;
            report.merge(unity);
        }
        println!("{report}");
        if let Some(path) = &self.json {
            let json = report.to_json().map_err(|f| f.to_string())?;
            std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        if let Some(absent) = self
            .backend
            .iter()
            .find(|b| !report.rows.iter().any(|r| r.backend == **b))
        {
            return Err(format!(
                "nothing ran on `{absent}`: there is no such backend, or no such case"
            ));
        }
        match failed {
            0 => report.verdict().map_err(|f| f.to_string()),
            _ if self.again => self.run_again(&report),
            _ => Err(format!("{failed} cases failed")),
        }
    }

    /// Each failed case in a process of its own.
    fn run_again(&self, report: &Report) -> Result<(), String> {
        let failed = |row: &&Row| matches!(row.outcome, CaseOutcome::Fail(_));
        let rows: Vec<&Row> = report.rows.iter().filter(failed).collect();
        if rows.is_empty() {
            return Err("something failed that is no case".into());
        }
        let program = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        let mut failed = Vec::new();
        for row in &rows {
            println!("again: {} on {}", row.case, row.backend);
            let mut command = Command::new(&program);
            command.args([
                "conformance",
                "--backend",
                &row.backend,
                "--case",
                &row.case,
            ]);
            if self.live {
                command.arg("--live");
            }
            if !command.status().is_ok_and(|status| status.success()) {
                failed.push(format!("{} on {}", row.case, row.backend));
            }
        }
        if !failed.is_empty() {
            return Err(format!("failed twice: {}", failed.join(", ")));
        }
        println!(
            "{} cases failed at first and passed by themselves",
            rows.len()
        );
        Ok(())
    }

    /// Runs the conformance test of a package and takes over its reports, one per backend.
    fn run_package(&self, package: &str) -> Result<Report, String> {
        let folder = root().join("target/conformance").join(package);
        let fresh = std::fs::remove_dir_all(&folder).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        });
        fresh
            .and_then(|()| std::fs::create_dir_all(&folder))
            .map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut command = cargo(["test", "--quiet", "--package", package]);
        command
            .args(["--test", "conformance"])
            .env(REPORT_VAR, &folder)
            .env(CASES_VAR, self.case.as_deref().unwrap_or_default())
            .env(BACKENDS_VAR, self.backend.join(","));
        let output = command
            .output()
            .map_err(|e| format!("`{}` could not be started: {e}", text_of(&command)))?;
        if !output.status.success() {
            return Err(format!(
                "`{}` failed: {}\n{}{}",
                text_of(&command),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let report = reports_in(&folder)?;
        if report.rows.is_empty() && self.backend.is_empty() {
            return Err(format!("the conformance test of {} ran nothing", package));
        }
        Ok(report)
    }

    fn wants(&self, backend: &str) -> bool {
        self.backend.is_empty() || self.backend.iter().any(|b| b == backend)
    }

    fn print_list(&self, suite: &Suite) -> Result<(), String> {
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

/// Whether a backend is tested by its package's own test.
fn is_packaged(backend: &str) -> bool {
    let live = server::COLUMNS.iter().any(|(column, _)| *column == backend);
    backend != MEMORY && backend != LIVE && !live
}

fn reports_in(folder: &Path) -> Result<Report, String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    files.sort();
    let mut all = Report::default();
    for file in files {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let report = Report::from_json(&text).map_err(|f| f.during(file.display()).to_string())?;
        all.merge(report);
    }
    Ok(all)
}

/// The live cases as rows of the matrix. They belong to no single promise.
fn rows_of(backend: &str, cases: &[CaseReport]) -> Report {
    let rows = cases
        .iter()
        .map(|case| Row {
            backend: backend.to_owned(),
            case: format!("live::{}", case.name),
            promise: 0,
            says: "what real MLflow makes of it".to_owned(),
            outcome: match &case.outcome {
                crate::Outcome::Passed(text) => CaseOutcome::Pass(vec![text.trim().to_owned()]),
                crate::Outcome::Failed(text) => CaseOutcome::Fail(text.trim().to_owned()),
                crate::Outcome::NotRun(text) => {
                    CaseOutcome::NotApplicable(format!("not run: {}", text.trim()))
                }
            },
            millis: u64::try_from(case.duration.as_millis()).unwrap_or(u64::MAX),
        })
        .collect();
    Report { rows }
}
