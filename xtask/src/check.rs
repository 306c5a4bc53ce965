//! `cargo xtask check`: everything that needs no run of the code.

use crate::cargo::{Outcome, cargo, packages, run};
use crate::{features, structure};

pub(crate) fn run_all(quick: bool) -> Outcome {
    step("fmt", || run(&mut cargo(["fmt", "--all", "--", "--check"])))?;
    step("structure", structure::check)?;
    step("clippy", clippy)?;
    if quick {
        return Ok(());
    }
    step("features", features::check)?;
    step("doc", || {
        run(cargo([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--lib",
        ])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private-intra-doc-links",
        ))
    })
}

fn step(name: &str, run: impl FnOnce() -> Outcome) -> Outcome {
    println!("check: {name}");
    run().map_err(|e| format!("{name}: {e}"))
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
