//! `cargo xtask conformance`: calls the program of `crates/live`, which needs the whole product, so
//! that this one needs none of it.

use crate::cargo::{Outcome, root, run};
use clap::Args;
use std::ffi::OsString;
use std::process::Command;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Passed on as they are; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs a task of that program, in the current folder: files are named from there.
pub(crate) fn run_task(task: &str, arguments: &Arguments) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["run", "--quiet", "--package", "trace-destination-live"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .args(["--", task])
        .args(&arguments.arguments))
}
