//! Checks and tasks of this workspace: `cargo xtask <task>`.
#![expect(clippy::print_stdout, reason = "printing is what a task is for")]

mod bench;
mod cargo;
mod check;
mod conformance;
mod features;
mod fuzz;
mod live;
mod mutants;
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
    Conformance(conformance::Conformance),
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
    /// Used by the live cases: writes traces until done or killed.
    #[command(hide = true)]
    LiveWriter(live::writer::LiveWriter),
    /// Used by the suite on real servers: writes traces until killed.
    #[command(hide = true)]
    LiveServerWriter(live::server::writer::LiveServerWriter),
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::compile() {
        return code;
    }
    let outcome = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Conformance(task) => task.run(),
        Task::Mutants(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Check(task) => task.run(),
        Task::Features => features::check(),
        Task::Fuzz(task) => task.run(),
        Task::Stress(task) => task.run(),
        Task::LiveWriter(options) => live::writer::run(&options),
        Task::LiveServerWriter(options) => live::server::writer::run(&options),
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
