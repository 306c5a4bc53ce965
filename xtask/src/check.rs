//! `cargo xtask check`: everything that needs no run of the code.

use crate::cargo::{Outcome, cargo, packages, run};
use crate::{features, structure};
use clap::Args;

type Step = (&'static str, fn() -> Outcome);

/// In this order: the fast ones first.
const STEPS: [Step; 5] = [
    ("fmt", || run(&mut cargo(["fmt", "--all", "--", "--check"]))),
    ("structure", structure::check),
    ("clippy", clippy),
    ("features", features::check),
    ("doc", || {
        run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    }),
];

#[derive(Args)]
pub(crate) struct Check {
    /// Leaves out the slower half: features and docs.
    #[arg(long)]
    quick: bool,
    /// Only this step: fmt, structure, clippy, features or doc.
    #[arg(long, value_name = "STEP")]
    only: Option<String>,
}

impl Check {
    pub(crate) fn run(&self) -> Outcome {
        let wanted = |name: &str| match &self.only {
            Some(only) => only == name,
            None => !(self.quick && ["features", "doc"].contains(&name)),
        };
        let mut ran = 0;
        for (name, step) in STEPS.iter().filter(|(name, _)| wanted(name)) {
            println!("check: {name}");
            step().map_err(|e| format!("{name}: {e}"))?;
            ran += 1;
        }
        match ran {
            0 => Err("there is no such step".into()),
            _ => Ok(()),
        }
    }
}

/// Package by package, so that a dependency of one does not hide what another lacks.
fn clippy() -> Outcome {
    for package in packages()? {
        run(&mut cargo([
            "clippy",
            "--quiet",
            "--package",
            &package.name,
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))?;
    }
    Ok(())
}
