//! The command line: what `cargo xtask` passes on, and the writers that live cases start.

use crate::{conformance, server, writer};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Conformance of the backends, and of the real things"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the conformance suite against the backends and prints the matrix.
    Conformance(conformance::Conformance),
    /// Used by the live cases: writes traces until done or killed.
    #[command(hide = true)]
    LiveWriter(writer::LiveWriter),
    /// Used by the suite on real servers: writes traces until killed.
    #[command(hide = true)]
    LiveServerWriter(server::writer::LiveServerWriter),
}

/// Runs what the command line asks for and prints why it failed.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Conformance(task) => task.run(),
        Task::LiveWriter(options) => writer::run(&options),
        Task::LiveServerWriter(options) => server::writer::run(&options),
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
