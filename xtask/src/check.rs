//! `cargo xtask check`: everything that needs no run of the code.

use crate::cargo::{Outcome, cargo, packages, run};
use crate::{features, links, package, structure};
use clap::Args;

type Step = (&'static str, fn() -> Outcome);

/// In this order: the fast ones first.
const STEPS: [Step; 7] = [
    ("fmt", || run(&mut cargo(["fmt", "--all", "--", "--check"]))),
    ("structure", structure::check),
    ("links", links::check),
    ("clippy", clippy),
    ("features", features::check),
    ("package", package::check),
    ("doc", || {
        run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    }),
];

#[derive(Args)]
pub(crate) struct Check {
    /// Leaves out the slower half: features, packages and docs.
    #[arg(long)]
    quick: bool,
    /// Only this step: fmt, structure, links, clippy, features, package or doc.
    #[arg(long, value_name = "STEP")]
    only: Option<String>,
}

impl Check {
    pub(crate) fn run(&self) -> Outcome {
        let wanted = |name: &str| match &self.only {
            Some(only) => only == name,
            None => !(self.quick && ["features", "package", "doc"].contains(&name)),
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

/// Package by package, so that a dependency of one does not hide what another lacks; all of them,
/// so that one run shows everything.
fn clippy() -> Outcome {
    let mut dirty = Vec::new();
    for package in packages()? {
        let name = package.name;
        let fixed = ["clippy", "--quiet", "--all-targets", "--package"];
        let args = fixed
            .iter()
            .copied()
            .chain([name.as_str(), "--", "-D", "warnings"]);
        if run(&mut cargo(args)).is_err() {
            dirty.push(name);
        }
    }
    match dirty.is_empty() {
        true => Ok(()),
        false => Err(format!("warnings in {}", dirty.join(", "))),
    }
}
