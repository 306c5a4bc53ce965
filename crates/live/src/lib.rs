//! Conformance with the real thing: MLflow from PyPI, its server, its Python API and its web UI,
//! on files that this project writes.
//!
//! Everything lives in `.live/` at the workspace root, which git ignores: virtual environments
//! (made once, reused while their version is right), work files, logs and screenshots. A case
//! whose tools cannot be had is reported as not run, with what is missing; it never counts as
//! passed.

#![expect(clippy::print_stdout, reason = "printing is what the program is for")]

mod cargo;
mod cases;
mod cli;
mod compare;
mod conformance;
mod mlflow;
mod process;
mod provision;
mod proxy;
mod sample;
mod server;
mod stored;
mod unity;
mod writer;

pub use cli::main;

use serde_json::Value;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use trace_destination_conformance::Report;

/// The MLflow whose behaviour is the reference.
const MLFLOW_VERSION: &str = "3.17.2";
/// The oldest MLflow that has the tables in which spans live.
const OLDEST_MLFLOW_VERSION: &str = "3.3.2";
/// The oldest MLflow whose server takes spans over OTLP.
const OLDEST_SERVER_VERSION: &str = "3.4.0";
/// What the names of cases begin with that run on the newest MLflow of the package index.
const NEWEST: &str = "newest_";

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct LiveOptions {
    /// Root of the workspace; `.live/` is made there.
    pub(crate) workspace: PathBuf,
    /// Only cases whose name contains this text.
    pub(crate) case: Option<String>,
    /// The cases of files in MLflow's hands, and those of servers.
    pub(crate) files: bool,
    pub(crate) servers: bool,
    /// Also the cases that take long.
    pub(crate) long: bool,
    /// The suite on these columns of [`server::COLUMNS`], and the glob that chooses its cases.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) glob: Option<String>,
}

/// What one case came to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It holds; the text says what was seen.
    Passed(String),
    /// It does not hold.
    Failed(String),
    /// It could not be tried; the text says what is missing.
    NotRun(String),
}

/// One row of the report.
#[derive(Clone, Debug)]
pub(crate) struct CaseReport {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
}

/// All rows, in the order in which they ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveReport {
    pub(crate) cases: Vec<CaseReport>,
    /// Those about servers.
    pub(crate) servers: Vec<CaseReport>,
    /// The suite on real servers.
    pub(crate) suites: Report,
}

impl LiveReport {
    /// Cases that failed.
    pub(crate) fn failed(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Failed(_)))
    }

    /// Cases that passed.
    pub(crate) fn passed(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Passed(_)))
    }

    /// Cases that could not be tried.
    pub(crate) fn not_run(&self) -> usize {
        self.count(|o| matches!(o, Outcome::NotRun(_)))
    }

    fn count(&self, f: impl Fn(&Outcome) -> bool) -> usize {
        let all = self.cases.iter().chain(&self.servers);
        all.filter(|c| f(&c.outcome)).count()
    }
}

impl fmt::Display for LiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "live: MLflow {MLFLOW_VERSION}")?;
        for case in self.cases.iter().chain(&self.servers) {
            writeln!(f, "{case}")?;
        }
        writeln!(
            f,
            "live: {} passed, {} failed, {} not run",
            self.passed(),
            self.failed(),
            self.not_run()
        )
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.outcome {
            Outcome::Passed(text) => ("passed", text),
            Outcome::Failed(text) => ("FAILED", text),
            Outcome::NotRun(text) => ("not run", text),
        };
        let seconds = self.duration.as_secs_f64();
        write!(f, "  {:<26} {word:<8} {seconds:>6.1} s  ", self.name)?;
        // Further lines of a reason stand under its first.
        write!(f, "{}", text.trim().replace('\n', "\n      "))
    }
}

/// Why a case did not pass.
#[derive(Debug)]
enum Stop {
    Failed(String),
    Missing(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

type CaseResult = Result<String, Stop>;

/// A case: tries one thing and says what it saw.
type Case = fn(&mut Live) -> CaseResult;

/// What the cases share.
struct Live {
    /// `.live/`.
    root: PathBuf,
    /// The folder of the scripts.
    scripts: PathBuf,
    /// This program, which is also the writer that gets killed.
    program: PathBuf,
    mlflow: Result<mlflow::Mlflow, String>,
    oldest_mlflow: Result<mlflow::Mlflow, String>,
    oldest_server: Result<mlflow::Mlflow, String>,
    reference: Option<cases::equality::Reference>,
    /// A dump of a server that we sent the samples to.
    sent: Option<Value>,
    /// The server that cases share.
    real: Option<server::Real>,
    /// The newest MLflow that the package index has, while the reference is in use, and the other
    /// way round.
    other: Edition,
    on_newest: bool,
}

/// An MLflow and what was asked of it.
struct Edition {
    mlflow: Result<mlflow::Mlflow, String>,
    reference: Option<cases::equality::Reference>,
    sent: Option<Value>,
}

impl Live {
    /// Runs a case on the newest MLflow instead of the reference.
    fn newest(&mut self, case: Case) -> CaseResult {
        self.swap();
        let result = case(self);
        self.swap();
        result
    }

    fn swap(&mut self) {
        self.on_newest = !self.on_newest;
        std::mem::swap(&mut self.mlflow, &mut self.other.mlflow);
        std::mem::swap(&mut self.reference, &mut self.other.reference);
        std::mem::swap(&mut self.sent, &mut self.other.sent);
    }

    /// The name of a case on the MLflow that is in use.
    fn name(&self, case: &str) -> String {
        match self.on_newest {
            true => format!("{NEWEST}{case}"),
            false => case.to_owned(),
        }
    }

    fn mlflow(&self) -> Result<&mlflow::Mlflow, Stop> {
        self.mlflow.as_ref().map_err(|m| Stop::Missing(m.clone()))
    }

    /// A new empty folder for one case.
    fn work(&self, case: &str) -> Result<PathBuf, String> {
        fresh_folder(&self.root.join("work").join(self.name(case)))
    }
}

/// Runs the cases one after the other.
pub(crate) fn run(options: &LiveOptions) -> LiveReport {
    let began = Instant::now();
    let chosen = |name: &str| {
        options
            .case
            .as_ref()
            .is_none_or(|c| name.contains(c.as_str()))
    };
    let files = cases::ALL.iter().filter(|_| options.files);
    let servers = server::ALL.iter().filter(|_| options.servers);
    // A long case runs where it is asked for, also by its name.
    let named = |name: &str| options.case.as_deref() == Some(name);
    let selected: Vec<(&'static str, Case, bool)> = files
        .map(|(name, case)| (*name, *case, false))
        .chain(
            servers
                .filter(|(name, _, long)| !long || options.long || named(name))
                .map(|(name, case, _)| (*name, *case, true)),
        )
        .filter(|(name, ..)| chosen(name))
        .collect();
    let mut report = LiveReport::default();
    if selected.is_empty() && options.columns.is_empty() {
        return report;
    }
    // Two runs would clear each other's work files; the lock ends with this process.
    let wanted = |part: &str| selected.iter().any(|(name, ..)| name.starts_with(part));
    let setup = prepare(options, wanted);
    let (mut live, _lock) = match setup {
        Ok(setup) => setup,
        Err(text) => {
            report.cases.push(CaseReport {
                name: "prepare",
                outcome: Outcome::Failed(text),
                duration: began.elapsed(),
            });
            return report;
        }
    };
    match &live.mlflow {
        Ok(mlflow) => progress(&format!(
            "live: MLflow {MLFLOW_VERSION} in {}, {:.1} s",
            mlflow.home().display(),
            began.elapsed().as_secs_f64()
        )),
        Err(missing) => progress(&format!("live: no MLflow: {missing}")),
    }
    for (name, case, server) in selected {
        progress(&format!("live: {name} …"));
        let began = Instant::now();
        let outcome = match case(&mut live) {
            Ok(text) => Outcome::Passed(text),
            Err(Stop::Failed(text)) => Outcome::Failed(text),
            Err(Stop::Missing(text)) => Outcome::NotRun(text),
        };
        let row = CaseReport {
            name,
            outcome,
            duration: began.elapsed(),
        };
        progress(&row.to_string());
        match server {
            true => report.servers.push(row),
            false => report.cases.push(row),
        }
    }
    live.real = None;
    for (column, basic_auth) in server::COLUMNS {
        if !options.columns.contains(&column) {
            continue;
        }
        progress(&format!("live: the suite on {column} …"));
        let began = Instant::now();
        let outcome = match server::conform(&live, basic_auth, options.glob.as_deref()) {
            Ok(rows) => {
                let (passed, failed, not_applicable) = rows.counts();
                progress(&format!(
                    "live: {column}: {passed} passed, {failed} failed, {not_applicable} not applicable, {:.1} s",
                    began.elapsed().as_secs_f64()
                ));
                report.suites.merge(rows);
                continue;
            }
            Err(Stop::Failed(text)) => Outcome::Failed(text),
            Err(Stop::Missing(text)) => Outcome::NotRun(text),
        };
        report.servers.push(CaseReport {
            name: column,
            outcome,
            duration: began.elapsed(),
        });
    }
    report
}

fn prepare(options: &LiveOptions, wanted: impl Fn(&str) -> bool) -> Result<(Live, File), String> {
    let root = options.workspace.join(".live");
    fs::create_dir_all(&root).map_err(|e| format!("create {}: {e}", root.display()))?;
    // Everything inside is absolute: child processes have other working folders.
    let root = root
        .canonicalize()
        .map_err(|e| format!("resolve {}: {e}", root.display()))?;
    let lock = File::create(root.join("lock")).map_err(|e| format!("create the lock: {e}"))?;
    lock.try_lock()
        .map_err(|e| format!("another live run uses {}: {e}", root.display()))?;
    for folder in ["work", "logs", "home"] {
        fresh_folder(&root.join(folder))?;
    }
    let artifacts = root.join("artifacts");
    fs::create_dir_all(&artifacts).map_err(|e| format!("create {}: {e}", artifacts.display()))?;
    let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let scripts = options.workspace.join("crates/live/scripts");
    let scripts = scripts
        .canonicalize()
        .map_err(|e| format!("find {}: {e}", scripts.display()))?;
    let (mlflow, oldest_mlflow, oldest_server, newest_mlflow) = std::thread::scope(|scope| {
        // The other environments are made beside the first: all mostly wait for the network.
        let (root, scripts) = (&root, &scripts);
        let start = |case: &str, version| {
            wanted(case).then(|| scope.spawn(move || provision::mlflow(root, scripts, version)))
        };
        let oldest = start("older_mlflow", OLDEST_MLFLOW_VERSION);
        let oldest_server = start("older_server", OLDEST_SERVER_VERSION);
        let newest = wanted(NEWEST).then(|| scope.spawn(|| provision::newest(root, scripts)));
        let mlflow = provision::mlflow(root, scripts, MLFLOW_VERSION);
        (mlflow, ended(oldest), ended(oldest_server), ended(newest))
    });
    let reference = || mlflow::Mlflow::new(&root, &scripts, mlflow.as_ref().ok()?.home()).into();
    let newest_mlflow = newest_mlflow.and_then(|found| {
        found
            .or_else(reference)
            .ok_or_else(|| "the newest MLflow is the reference, which is not there".to_owned())
    });
    if let Ok(newest) = &newest_mlflow {
        progress(&format!("live: the newest MLflow is {}", newest.version()?));
    }
    let live = Live {
        root,
        scripts,
        program,
        mlflow,
        oldest_mlflow,
        oldest_server,
        reference: None,
        sent: None,
        real: None,
        other: Edition {
            mlflow: newest_mlflow,
            reference: None,
            sent: None,
        },
        on_newest: false,
    };
    Ok((live, lock))
}

/// What became of an environment that was made beside others, if it was asked for.
fn ended<T>(other: Option<ScopedJoinHandle<'_, Result<T, String>>>) -> Result<T, String> {
    match other.map(|thread| thread.join()) {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err("provisioning panicked".to_owned()),
        None => Err("not asked for".to_owned()),
    }
}

fn fresh_folder(path: &Path) -> Result<PathBuf, String> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("empty {}: {e}", path.display()));
        }
        _ => {}
    }
    fs::create_dir_all(path).map_err(|e| format!("create {}: {e}", path.display()))?;
    Ok(path.to_owned())
}

/// Says on stderr what is going on: a live run takes minutes.
fn progress(text: &str) {
    // Nobody listening is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}
