//! Conformance with the real things around a table: the open-source Unity Catalog server, Spark with
//! Delta Lake, DuckDB, Polars, and a store that speaks S3, on tables that this project writes.
//!
//! Everything lives in `.live/unity/`, which git ignores. What a machine does not have is a reason
//! for the cases that need it to be reported as not run.

mod cases;
mod engine;
mod expected;
mod provision;
mod proxy;
mod servers;
mod writer;

use super::{Stop, fresh_folder, process, progress};
use engine::Engine;
use provision::Tools;
use servers::{Server, Starter};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use trace_destination_conformance::{Outcome, Report, Row};

/// The column of the cases, which is also that of the suite on tables.
pub(crate) const BACKEND: &str = "unity-catalog";

/// Why something cannot be used here.
type Missing = String;

/// What the cases share.
struct Unity {
    /// `.live/unity/`.
    home: PathBuf,
    /// `crates/live/scripts/`.
    scripts: PathBuf,
    /// The program that writes.
    writer: PathBuf,
    tools: Tools,
    spark: Option<Engine>,
    duck: Option<Engine>,
    store: Option<Server>,
    /// Numbers the logs.
    calls: u32,
}

impl Unity {
    /// A new empty folder for one case.
    fn work(&self, case: &str) -> Result<PathBuf, String> {
        fresh_folder(&self.home.join("work").join(case))
    }

    /// The path of a new log.
    fn log(&mut self, what: &str) -> PathBuf {
        self.calls += 1;
        self.home
            .join("logs")
            .join(format!("{:03}-{what}.log", self.calls))
    }

    fn python(&self) -> Result<PathBuf, Stop> {
        found(&self.tools.python)
    }

    /// DuckDB, Polars, deltalake, and what else Python does for the cases.
    fn duck(&mut self) -> Result<&mut Engine, Stop> {
        if self.duck.as_mut().is_none_or(|e| !e.running()) {
            let mut command = self.script("duck.py")?;
            let log = self.log("duck");
            self.duck = Some(Engine::start("DuckDB", &mut command, &log)?);
        }
        self.duck
            .as_mut()
            .ok_or_else(|| Stop::Failed("DuckDB is gone".into()))
    }

    fn spark(&mut self) -> Result<&mut Engine, Stop> {
        if self.spark.as_mut().is_none_or(|e| !e.running()) {
            let jars = found(&self.tools.spark_jars)?;
            let mut command = self.script("spark.py")?;
            command.arg(jars).arg(self.home.join("work/warehouse"));
            let log = self.log("spark");
            self.spark = Some(Engine::start("Spark", &mut command, &log)?);
        }
        self.spark
            .as_mut()
            .ok_or_else(|| Stop::Failed("Spark is gone".into()))
    }

    fn script(&self, name: &str) -> Result<Command, Stop> {
        let python = self.python()?;
        let mut command = process::clean_command(&python, &self.home.join("home"));
        if let Some(java) = std::env::var_os("JAVA_HOME") {
            command.env("JAVA_HOME", java);
        }
        command
            .env("PYSPARK_PYTHON", &python)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .env("TZ", "UTC")
            .arg(self.scripts.join("unity").join(name));
        Ok(command)
    }

    /// The store, started once for all cases, as an address and as the scripts take it.
    fn store(&mut self) -> Result<&Server, Stop> {
        if self.store.is_none() {
            let program = found(&self.tools.minio)?;
            let python = self.python()?;
            let folder = self.work("minio")?;
            let log = self.log("minio");
            self.store = Some(self.starter(&python, folder, log).minio(&program)?);
        }
        self.store
            .as_ref()
            .ok_or_else(|| Stop::Failed("the store is gone".into()))
    }

    /// A Unity Catalog server with an empty database in a folder.
    fn server(&mut self, folder: PathBuf, properties: &str) -> Result<Server, Stop> {
        let jars = found(&self.tools.server_jars)?;
        let python = self.python()?;
        let log = self.log("server");
        let serve = self.scripts.join("unity/Serve.java");
        let starter = self.starter(&python, folder, log);
        Ok(starter.unity_catalog(&jars, &serve, properties)?)
    }

    fn starter<'a>(&self, python: &'a Path, folder: PathBuf, log: PathBuf) -> Starter<'a> {
        Starter {
            tether: self.scripts.join("tether.py"),
            python,
            folder,
            log,
        }
    }
}

fn found(tool: &Result<PathBuf, Missing>) -> Result<PathBuf, Stop> {
    tool.clone().map_err(Stop::Missing)
}

/// Runs the cases whose name contains a text, one after the other.
pub(crate) fn run(workspace: &Path, only: Option<&str>) -> Report {
    let began = Instant::now();
    let selected: Vec<_> = cases::ALL
        .iter()
        .filter(|(name, _)| only.is_none_or(|text| name.contains(text)))
        .collect();
    let mut report = Report::default();
    if selected.is_empty() {
        return report;
    }
    let (mut unity, _lock) = match prepare(workspace) {
        Ok(setup) => setup,
        Err(text) => {
            report.rows.push(row("prepare", Outcome::Fail(text), began));
            return report;
        }
    };
    progress(&format!(
        "live: what tables are tried with is in {}, {:.1} s",
        unity.home.display(),
        began.elapsed().as_secs_f64()
    ));
    for (name, case) in selected {
        progress(&format!("live: {name} …"));
        let began = Instant::now();
        let (word, text, outcome) = match case(&mut unity) {
            Ok(text) => ("passed", text.clone(), Outcome::Pass(vec![text])),
            Err(Stop::Failed(text)) => ("FAILED", text.clone(), Outcome::Fail(text)),
            Err(Stop::Missing(text)) => {
                let reason = format!("not run: {}", text.trim());
                ("not run", text, Outcome::NotApplicable(reason))
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let text = text.trim().replace('\n', "\n      ");
        progress(&format!("  {name:<26} {word:<8} {seconds:>6.1} s  {text}"));
        report.rows.push(row(name, outcome, began));
    }
    report
}

fn row(name: &str, outcome: Outcome, began: Instant) -> Row {
    Row {
        backend: BACKEND.to_owned(),
        case: format!("live::{name}"),
        // They belong to no single promise.
        promise: 0,
        says: "what real engines, catalogs and stores make of tables".to_owned(),
        outcome,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn prepare(workspace: &Path) -> Result<(Unity, File), String> {
    let home = workspace.join(".live/unity");
    fs::create_dir_all(&home).map_err(|e| format!("create {}: {e}", home.display()))?;
    // Everything inside is absolute: child processes have other working folders.
    let home = home
        .canonicalize()
        .map_err(|e| format!("resolve {}: {e}", home.display()))?;
    // Two runs would clear each other's work files; the lock ends with this process.
    let lock = File::create(home.join("lock")).map_err(|e| format!("create the lock: {e}"))?;
    lock.try_lock()
        .map_err(|e| format!("another live run uses {}: {e}", home.display()))?;
    for folder in ["work", "logs", "home"] {
        fresh_folder(&home.join(folder))?;
    }
    let scripts = workspace.join("crates/live/scripts");
    let scripts = scripts
        .canonicalize()
        .map_err(|e| format!("find {}: {e}", scripts.display()))?;
    let tools = provision::tools(&home, &scripts.join("unity"));
    let unity = Unity {
        writer: provision::writer()?,
        home,
        scripts,
        tools,
        spark: None,
        duck: None,
        store: None,
        calls: 0,
    };
    Ok((unity, lock))
}
