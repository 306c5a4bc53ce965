//! Checks and tasks of this workspace: `cargo xtask <task>`.
#![expect(clippy::print_stdout, reason = "printing is what a task is for")]

mod bench;
mod cargo;
mod check;
mod circles;
mod features;
mod files;
mod fuzz;
mod links;
mod live;
mod mutants;
mod package;
mod stress;
mod structure;
mod test;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and tasks of this workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every test of the workspace.
    Test,
    /// Runs the conformance suite against the backends and prints the matrix.
    #[command(disable_help_flag = true)]
    Conformance(live::Arguments),
    /// Shows that the suite can fail: one deliberate fault per promise must be noticed.
    Mutants(mutants::Mutants),
    /// Runs the benches and prints one table of ratios.
    Bench(bench::Bench),
    /// Checks formatting, lints, docs and the structure of the workspace.
    Check(check::Check),
    /// Builds the facade with no feature, each alone, and all.
    Features,
    /// Runs every fuzz target for a few seconds.
    Fuzz(fuzz::Fuzz),
    /// Runs with many tenants: churn, bad neighbours, threads and memory for each.
    Stress(stress::Stress),
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::compile() {
        return code;
    }
    let outcome = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Conformance(arguments) => live::run_task("conformance", &arguments),
        Task::Mutants(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Check(task) => task.run(),
        Task::Features => features::check(),
        Task::Fuzz(task) => task.run(),
        Task::Stress(task) => task.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            // Nothing can be done about a closed standard error.
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::FAILURE
        }
    }
}
