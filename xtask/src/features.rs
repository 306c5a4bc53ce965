//! `cargo xtask features`: the facade with no feature, with each alone, and with all.

use crate::cargo::{Outcome, cargo, packages, run};

const FACADE: &str = "trace-destination";

pub(crate) fn check() -> Outcome {
    let facade = packages()?
        .into_iter()
        .find(|p| p.name == FACADE)
        .ok_or("the workspace has no facade")?;
    let mut sets: Vec<Vec<String>> = vec![vec!["--no-default-features".into()]];
    for feature in facade.features.iter().filter(|f| *f != "default") {
        sets.push(vec![
            "--no-default-features".into(),
            "--features".into(),
            feature.clone(),
        ]);
    }
    sets.push(vec!["--all-features".into()]);
    let warnings = ["--", "-D", "warnings"].map(String::from);
    for set in &sets {
        println!("facade with {}", set.join(" "));
        let fixed = ["clippy", "--package", FACADE, "--all-targets"].map(String::from);
        run(&mut cargo(fixed.iter().chain(set).chain(&warnings)))?;
    }
    println!("{} sets of features build", sets.len());
    Ok(())
}
