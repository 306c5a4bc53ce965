//! `cargo xtask fuzz`: every fuzz target for a few seconds, guided by coverage, on any toolchain.

use crate::cargo::{Outcome, cargo, output, root, run};
use clap::Args;
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What `cargo fuzz` passes for coverage. Unlike its sanitizers, these need no nightly compiler,
/// and without unsafe code there is little for a sanitizer to find.
const COVERAGE: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Copt-level=3",
];

/// Packages of others whose branches guide the search too: small, and parsers of what comes in.
/// Instrumenting all of them would take several times as long to build, and to search.
const GUIDING: [&str; 5] = ["jiff", "percent-encoding", "prost", "serde_json", "url"];

/// Set where this program stands in for the compiler.
const COMPILING: &str = "XTASK_FUZZ_COMPILES";

#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long each target runs.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Only targets whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Where the random choices begin; another number each time if absent.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
}

impl Fuzz {
    pub(crate) fn run(&self) -> Outcome {
        let manifest = root().join("fuzz/Cargo.toml");
        let names: Vec<String> = targets(&manifest)?
            .into_iter()
            .filter(|name| self.target.as_ref().is_none_or(|t| name.contains(t)))
            .collect();
        if names.is_empty() {
            return Err("no fuzz target has such a name".into());
        }
        let host = host()?;
        let built = root().join("target/fuzz");
        let itself = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        // With a target given, the flags do not reach build scripts and procedural macros.
        run(cargo(["build", "--release", "--locked", "--target"])
            .arg(&host)
            .arg("--manifest-path")
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&built)
            .env("RUSTC_WRAPPER", itself)
            .env(COMPILING, "1"))?;
        for name in &names {
            println!("fuzz: {name}");
            let found = built.join("corpus").join(name);
            let artifacts = built.join("artifacts");
            for dir in [&found, &artifacts] {
                std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            }
            let mut command = Command::new(built.join(&host).join("release").join(name));
            let words = root().join("fuzz/dictionaries").join(name);
            if words.is_file() {
                command.arg(format!("-dict={}", words.display()));
            }
            // The first folder takes what the run finds, the second is only read.
            run(command
                .arg(format!("-max_total_time={}", self.seconds))
                // 0 lets libFuzzer choose.
                .arg(format!("-seed={}", self.seed.unwrap_or(0)))
                .args([
                    "-rss_limit_mb=4096",
                    "-timeout=10",
                    "-verbosity=0",
                    "-print_final_stats=1",
                ])
                .arg(format!("-artifact_prefix={}/{name}-", artifacts.display()))
                .arg(&found)
                .arg(root().join("fuzz/corpus").join(name)))?;
        }
        println!(
            "{} fuzz targets found nothing in {} s each",
            names.len(),
            self.seconds
        );
        Ok(())
    }
}

/// Stands in for the compiler where `cargo` was told to, with what the search needs added for the
/// packages that guide it; `None` where this is a task like any other.
pub(crate) fn compile() -> Option<ExitCode> {
    std::env::var_os(COMPILING)?;
    let mut args = std::env::args_os().skip(1);
    let mut rustc = Command::new(args.next()?);
    let args: Vec<OsString> = args.collect();
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let guides = package.starts_with("trace-destination") || GUIDING.contains(&package.as_str());
    // What runs while building is for this machine, without a target.
    let runs_later = args.iter().any(|arg| arg == "--target");
    rustc.args(&args);
    if guides && runs_later {
        rustc.args(COVERAGE);
    }
    let succeeded = rustc.status().is_ok_and(|status| status.success());
    Some(match succeeded {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn targets(manifest: &Path) -> Result<Vec<String>, String> {
    let mut command = cargo([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--manifest-path",
    ]);
    let text = output(command.arg(manifest))?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata is no JSON: {e}"))?;
    let targets = metadata["packages"][0]["targets"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(targets
        .iter()
        .filter(|t| t["kind"][0] == "bin")
        .filter_map(|t| t["name"].as_str().map(str::to_owned))
        .collect())
}

fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = output(Command::new(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc names no host".into())
}
