//! `cargo xtask mutants`: shows that the tests can fail. The product has no switch for it: the faults
//! are built into a copy of the workspace.

mod faults;

use crate::cargo::{Outcome, root, run};
use crate::files;
use clap::Args;
use faults::{FAULTS, Fault};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Faults tried at the same time; most of their cases wait for something that never comes.
const JOBS: usize = 5;

/// Added to the copy of core: which fault is on.
const MODULE: &str = include_str!("mutants/fault.rs");
/// The variable that the module reads.
const FAULT_VAR: &str = "TRACE_DESTINATION_FAULT";

/// The files of core that carry the promises, for `cargo mutants`.
const PROMISES: [&str; 12] = [
    "crates/core/src/binding.rs",
    "crates/core/src/binding/*.rs",
    "crates/core/src/scope/*.rs",
    "crates/core/src/budget.rs",
    "crates/core/src/processor.rs",
    "crates/core/src/routes.rs",
    "crates/core/src/lane/*.rs",
    "crates/core/src/pipeline/admission.rs",
    "crates/core/src/pipeline/flush.rs",
    "crates/core/src/pipeline/ingest.rs",
    "crates/core/src/pipeline/report.rs",
    "crates/core/src/pipeline/snapshot.rs",
];

#[derive(Args)]
pub(crate) struct Mutants {
    /// Runs every case against each fault, to see which others notice it too; takes longer.
    #[arg(long)]
    all: bool,
    /// Only faults whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    mutant: Option<String>,
    /// Instead of the named faults, those that `cargo mutants` makes in the files of core that carry
    /// the promises. Everything takes hours.
    #[arg(long, conflicts_with_all = ["all", "mutant"])]
    generated: bool,
    /// With --generated, only in lines that this diff changes (`git diff main… > FILE`).
    #[arg(long, value_name = "FILE", requires = "generated")]
    in_diff: Option<PathBuf>,
    /// With --generated, only in these files instead of all that carry promises.
    #[arg(long, value_name = "GLOB", requires = "generated")]
    file: Vec<String>,
    /// With --generated, only the K-th of N parts.
    #[arg(long, value_name = "K/N", requires = "generated")]
    shard: Option<String>,
}

impl Mutants {
    pub(crate) fn run(&self) -> Outcome {
        if self.generated {
            return self.run_generated();
        }
        let chosen: Vec<&Fault> = FAULTS
            .iter()
            .filter(|f| self.mutant.as_ref().is_none_or(|t| f.name.contains(t)))
            .collect();
        if chosen.is_empty() {
            return Err("no fault has such a name".into());
        }
        let program = build()?;
        let sound = try_out(&program, None, self.all.then_some("light"))?;
        if sound.cases == 0 || !sound.failed.is_empty() {
            return Err(format!(
                "without a fault, {} of {} cases fail: {:?}",
                sound.failed.len(),
                sound.cases,
                sound.failed
            ));
        }
        println!("without a fault: {} cases pass", sound.cases);

        let next = AtomicUsize::new(0);
        let mut survivors = Vec::new();
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            for _ in 0..JOBS {
                let (send, next, chosen, program) = (send.clone(), &next, &chosen, &program);
                scope.spawn(move || {
                    while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let promise = fault.promise.to_string();
                        let cases = if self.all { "light" } else { &promise };
                        let tried = try_out(program, Some(fault), Some(cases));
                        if send.send((*fault, tried)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            for (fault, tried) in receive {
                let survives = match tried {
                    Ok(tried) => !tried.print(fault),
                    Err(text) => {
                        println!("{:>3}  {:<24} {text}", fault.promise, fault.name);
                        true
                    }
                };
                if survives {
                    survivors.push(fault.name);
                }
            }
        });
        match survivors.is_empty() {
            true => {
                println!(
                    "all {} faults are noticed by their own promise's cases",
                    chosen.len()
                );
                Ok(())
            }
            false => Err(format!(
                "not noticed by the cases of their own promise: {}",
                survivors.join(", ")
            )),
        }
    }

    fn run_generated(&self) -> Outcome {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let installed = Command::new(&cargo)
            .args(["mutants", "--version"])
            .current_dir(root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !installed.is_ok_and(|status| status.success()) {
            return Err("not run: cargo install cargo-mutants".into());
        }
        let mut command = Command::new(cargo);
        command
            .args(["mutants", "--package=trace-destination-core"])
            .args(["--test-package=trace-destination-core"])
            .args(["--test-package=trace-destination-conformance"])
            .args(["--exclude=**/tests.rs", "--exclude=**/loom_tests.rs"])
            .args(["--exclude=**/model.rs", "--timeout=120", "--output=target"]);
        let files: Vec<&str> = match self.file.is_empty() {
            true => PROMISES.to_vec(),
            false => self.file.iter().map(String::as_str).collect(),
        };
        for file in files {
            command.arg("--file").arg(file);
        }
        if let Some(diff) = &self.in_diff {
            let diff = std::path::absolute(diff)
                .map_err(|e| format!("{} is no path: {e}", diff.display()))?;
            command.arg("--in-diff").arg(diff);
        }
        if let Some(shard) = &self.shard {
            command.arg("--shard").arg(shard);
        }
        // It exits with an error where one survives, and lists those.
        run(command.current_dir(root()))
    }
}

/// What a run of cases came to.
struct Tried {
    /// Those that passed or failed.
    cases: usize,
    /// Promise and name.
    failed: Vec<(u64, String)>,
}

impl Tried {
    /// Prints which cases noticed; whether one of the fault's own promise is among them.
    fn print(&self, fault: &Fault) -> bool {
        let is_own = |(promise, _): &&(u64, String)| *promise == u64::from(fault.promise);
        let own: Vec<&String> = self
            .failed
            .iter()
            .filter(is_own)
            .map(|(_, name)| name)
            .collect();
        println!(
            "{:>3}  {:<24} {:<8} {}",
            fault.promise,
            fault.name,
            if own.is_empty() { "SURVIVES" } else { "killed" },
            fault.breaks,
        );
        for case in &own {
            println!("       by {case}");
        }
        let others = self.failed.len() - own.len();
        if others > 0 {
            println!("       and {others} cases of other promises");
        }
        !own.is_empty()
    }
}

/// Runs cases in the copy, with one fault on or none.
fn try_out(program: &Path, fault: Option<&Fault>, cases: Option<&str>) -> Result<Tried, String> {
    let mut command = Command::new(program);
    command.args(cases).env_remove(FAULT_VAR);
    if let Some(fault) = fault {
        command.env(FAULT_VAR, fault.name);
    }
    let ended = command
        .stderr(Stdio::null())
        .output()
        .map_err(|e| format!("{} could not be started: {e}", program.display()))?;
    // A report comes with success and with failure, and not where the program itself broke.
    let report: Value = serde_json::from_slice(&ended.stdout)
        .map_err(|e| format!("no report ({e}), {}", ended.status))?;
    let rows = report["rows"].as_array().ok_or("the report has no rows")?;
    let mut tried = Tried {
        cases: 0,
        failed: Vec::new(),
    };
    for row in rows {
        let failed = row["outcome"] == "fail";
        tried.cases += usize::from(failed || row["outcome"] == "pass");
        if failed {
            let name = row["case"].as_str().unwrap_or_default().to_owned();
            tried
                .failed
                .push((row["promise"].as_u64().unwrap_or(0), name));
        }
    }
    Ok(tried)
}

/// Copies the workspace, edits the copy and builds the program that runs the suite there.
fn build() -> Result<PathBuf, String> {
    let copy = root().join("target/mutants/workspace");
    let mut files = needed()?;
    edit(&mut files)?;
    let kept: BTreeSet<&Path> = files.iter().map(|(file, _)| file.as_path()).collect();
    remove_others(&copy, &copy, &kept)?;
    for (file, bytes) in &files {
        let file = copy.join(file);
        // What has not changed is not built again.
        if fs::read(&file).is_ok_and(|there| there == *bytes) {
            continue;
        }
        file.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&file, bytes))
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let target = root().join("target/mutants/target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--quiet", "--example", "promises"])
        .args(["--package", "trace-destination-conformance"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&copy))?;
    Ok(target.join("debug/examples/promises"))
}

/// The files that cargo needs for core and the suite.
fn needed() -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let mut names = vec![PathBuf::from("Cargo.lock")];
    for folder in ["crates/core", "crates/conformance", "crates/testkit"] {
        names.extend(files::below(folder)?);
    }
    let mut files = Vec::new();
    for name in names {
        let bytes = fs::read(root().join(&name));
        files.push((
            name.clone(),
            bytes.map_err(|e| format!("{}: {e}", name.display()))?,
        ));
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml"))
        .map_err(|e| format!("the workspace's manifest: {e}"))?;
    let (members, whole) = (
        "members = [\"crates/core\", \"crates/conformance\"]",
        "default-members = [\"crates/core\"]",
    );
    let lines: Vec<&str> = manifest
        .lines()
        .map(|line| match line {
            _ if line.starts_with("members = [") => members,
            _ if line.starts_with("default-members = [") => whole,
            _ => line,
        })
        .collect();
    files.push(("Cargo.toml".into(), lines.join("\n").into_bytes()));
    Ok(files)
}

/// Makes every edit of every fault.
fn edit(files: &mut Vec<(PathBuf, Vec<u8>)>) -> Outcome {
    let core = Path::new("crates/core/src");
    for fault in &FAULTS {
        for edit in fault.edits {
            let path = core.join(edit.file);
            let (_, bytes) = files
                .iter_mut()
                .find(|(file, _)| *file == path)
                .ok_or_else(|| format!("{}: {} is not there", fault.name, path.display()))?;
            let text = String::from_utf8_lossy(bytes);
            let count = text.matches(edit.find).count();
            if count != 1 {
                return Err(format!(
                    "{}: the text that it changes is {count} times in {}; correct xtask/src/mutants/faults.rs:\n{}",
                    fault.name,
                    path.display(),
                    edit.find
                ));
            }
            *bytes = text.replace(edit.find, edit.replace).into_bytes();
        }
    }
    let lib = core.join("lib.rs");
    let (_, lib) = files
        .iter_mut()
        .find(|(file, _)| *file == lib)
        .ok_or("core has no lib.rs")?;
    lib.extend_from_slice(b"\nmod fault;\n");
    files.push((core.join("fault.rs"), MODULE.as_bytes().to_vec()));
    Ok(())
}

/// Removes what earlier runs copied and the workspace no longer has. The copy's own lock file stays.
fn remove_others(copy: &Path, dir: &Path, kept: &BTreeSet<&Path>) -> Outcome {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(copy, &path, kept)?;
        } else if path
            .strip_prefix(copy)
            .is_ok_and(|file| !kept.contains(file))
        {
            fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_built_into_core() {
        let mut files = needed().unwrap();
        edit(&mut files).unwrap();
        for fault in &FAULTS {
            let asked = format!("crate::fault::is_on(\"{}\")", fault.name);
            let core = files
                .iter()
                .filter(|(file, _)| file.starts_with("crates/core/src"));
            let there = core.filter(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&asked));
            assert!(there.count() > 0, "{}", fault.name);
        }
        // Cargo reads the manifest of each crate that one of them names.
        for (file, bytes) in files
            .iter()
            .filter(|(file, _)| file.starts_with("crates") && file.ends_with("Cargo.toml"))
        {
            let text = String::from_utf8_lossy(bytes);
            let named = text
                .lines()
                .filter_map(|line| line.strip_prefix("trace-destination-"));
            for name in named.map(|rest| rest.split(['.', ' ']).next().unwrap_or_default()) {
                let manifest = Path::new("crates").join(name).join("Cargo.toml");
                let is_there = files.iter().any(|(other, _)| *other == manifest);
                assert!(is_there, "{} names {name}", file.display());
            }
        }
        let promises: Vec<u8> = FAULTS.iter().map(|f| f.promise).collect();
        assert_eq!(promises, (1..=15).collect::<Vec<u8>>());
    }

    #[test]
    fn a_text_that_is_gone_is_an_error() {
        let mut files = needed().unwrap();
        let retry = Path::new("crates/core/src/lane/retry.rs");
        for (file, bytes) in &mut files {
            if file == retry {
                bytes.clear();
            }
        }
        let error = edit(&mut files).unwrap_err();
        assert!(
            error.contains("OneWriterForAll") && error.contains("0 times"),
            "{error}"
        );
    }
}
