//! Runs with many tenants: churn, bad neighbours, memory and threads for each tenant.
#![expect(clippy::print_stdout, reason = "printing is what a run is for")]

mod backend;
mod churn;
mod neighbours;
mod place;
mod report;
mod resources;
mod server;
mod tenants;
mod traffic;

use backend::Kind;
use clap::{Args, Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a run comes to; the text of an error is for whoever started it.
type Outcome<T = ()> = Result<T, String>;

#[derive(Parser)]
#[command(about = "Runs with many tenants, bounded in count and time")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tenants that come and go beside healthy and failing ones: memory stays flat.
    Churn(Options),
    /// Healthy tenants beside many that are throttled, blocked, failing or hung.
    Neighbours(Options),
    /// Threads and memory of many tenants in one process.
    Tenants(Options),
}

/// What every run takes; each has defaults of its own.
#[derive(Args, Clone, Debug)]
struct Options {
    /// How long it runs: `churn` 3600, `neighbours` 60; the most `tenants` may take, 600.
    #[arg(long, value_parser = clap::value_parser!(u64).range(12..=86_400))]
    seconds: Option<u64>,
    /// How many tenants: those that come and go (50,000, 15 a second where they are on disk or
    /// behind a server), the bad neighbours (64), those in one process (10,000).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tenants: Option<u32>,
    /// Where the tenants are stored.
    #[arg(long, value_enum, default_value_t = Kind::Memory)]
    backend: Kind,
    /// Seals batches at this age in milliseconds, instead of what each backend prefers: latencies
    /// then show less of the waiting for company.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    batch_age: Option<u64>,
    /// Also writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Churn(options) => churn::run(&options),
        Task::Neighbours(options) => neighbours::run(&options),
        Task::Tenants(options) => tenants::run(&options),
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
