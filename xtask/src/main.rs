//! Checks and tasks of this workspace: `cargo xtask <task>`.

mod live;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and tasks of this workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the conformance suite.
    Conformance {
        /// Check with the real things, provisioned into `.live/`.
        #[arg(long)]
        live: bool,
        /// Only cases whose name contains this text.
        #[arg(long)]
        case: Option<String>,
    },
    /// Used by the live cases: writes traces until done or killed.
    #[command(hide = true)]
    LiveWriter(live::writer::LiveWriter),
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Conformance { live: _, case } => {
            let report = live::run(&live::LiveOptions {
                workspace: Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
                case,
            });
            let _ = write!(std::io::stdout(), "{report}");
            if report.failed() > 0 || report.passed() == 0 {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Task::LiveWriter(options) => match live::writer::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                let _ = writeln!(std::io::stderr(), "{text}");
                ExitCode::FAILURE
            }
        },
    }
}
