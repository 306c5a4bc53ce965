//! `cargo xtask stress`: runs with many tenants, bounded in count and time.

use crate::cargo::{Outcome, cargo, run};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Stress {
    /// Which run.
    #[arg(value_enum)]
    what: What,
    /// How long it runs; each run has a default of its own.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many tenants there are, the bad ones among `neighbours`.
    #[arg(long)]
    tenants: Option<u32>,
    /// Where they are stored. An optimised build of tables takes ten minutes or more.
    #[arg(long, value_enum, default_value_t = Backend::Memory)]
    backend: Backend,
    /// Seals batches at this age in milliseconds.
    #[arg(long)]
    batch_age: Option<u64>,
    /// Also writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Tenants that come and go; memory stays flat.
    Churn,
    /// Healthy tenants beside bad ones.
    Neighbours,
    /// Threads and memory of many tenants in one process.
    Tenants,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Memory,
    Sqlite,
    Server,
    Table,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::Neighbours => "neighbours",
            Self::Tenants => "tenants",
        }
    }
}

impl Backend {
    /// Its name, which is also the cargo feature that builds it, if it takes one.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Server => "server",
            Self::Table => "table",
        }
    }
}

impl Stress {
    pub(crate) fn run(&self) -> Outcome {
        let mut command = cargo(["run", "--release", "--package", "trace-destination-stress"]);
        if !matches!(self.backend, Backend::Memory) {
            command.args(["--features", self.backend.name()]);
        }
        command.args(["--", self.what.name(), "--backend", self.backend.name()]);
        for (option, value) in [
            ("--seconds", self.seconds),
            ("--tenants", self.tenants.map(u64::from)),
            ("--batch-age", self.batch_age),
        ] {
            if let Some(value) = value {
                command.arg(option).arg(value.to_string());
            }
        }
        if let Some(file) = &self.json {
            // Cargo runs at the root of the workspace, and the file is named from here.
            let file = std::path::absolute(file)
                .map_err(|e| format!("{} is no path: {e}", file.display()))?;
            command.arg("--json").arg(file);
        }
        run(&mut command)
    }
}
