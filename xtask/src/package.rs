//! `cargo xtask check --only package`: what a stranger gets from the registry. Every crate that may be
//! published is packed, unpacked, and checked against the others' packages with every feature.

use crate::cargo::{Outcome, Package, cargo, packages, root, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FACADE: &str = "trace-destination";
/// What stands in every package beside its code.
const FILES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];
/// Tables take minutes to build without what the tests of the facade share with them; they are
/// checked through the facade.
const TABLES: &str = "trace-destination-unity-catalog";

pub(crate) fn check() -> Outcome {
    let published: Vec<Package> = packages()?.into_iter().filter(|p| p.published).collect();
    let facade = published.iter().find(|p| p.name == FACADE);
    let facade = facade.ok_or("the workspace has no facade")?;
    let version = facade.version.clone();
    // Together, since they need each other and no registry has them.
    let mut pack = cargo(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    for package in &published {
        pack.args(["--package", &package.name]);
    }
    run(&mut pack)?;
    let folder = root().join("target/packages");
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {e}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut faults = Vec::new();
    for package in &published {
        let name = format!("{}-{version}", package.name);
        run(Command::new("tar")
            .arg("-xzf")
            .arg(root().join(format!("target/package/{name}.crate")))
            .arg("-C")
            .arg(&folder))?;
        faults.extend(lacks(&package.name, &folder.join(name))?);
    }
    if !faults.is_empty() {
        return Err(faults.join("\n  "));
    }
    make_workspace(&folder, &published, &version)?;

    let mut runs = 0;
    let mut check = |arguments: &[&str]| {
        runs += 1;
        println!("packages: {}", arguments.join(" "));
        let mut command = cargo(["check", "--quiet"]);
        // What others brought is built already.
        command.arg("--target-dir").arg(root().join("target"));
        run(command.args(arguments).current_dir(&folder))
    };
    for package in published.iter().filter(|p| p.name != TABLES) {
        check(&["--lib", "--package", &package.name])?;
    }
    let with_examples = [
        "--lib",
        "--examples",
        "--no-default-features",
        "--package",
        FACADE,
    ];
    for feature in facade.features.iter().filter(|f| *f != "default") {
        let feature = ["--features", feature];
        check(&[&with_examples[..], &feature[..]].concat())?;
    }
    check(&[&with_examples[..], &["--all-features"][..]].concat())?;
    println!(
        "{} packages build from what would be published, in {runs} ways",
        published.len()
    );
    Ok(())
}

/// What a package should have and does not.
fn lacks(name: &str, package: &Path) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    for file in FILES {
        let file = package.join(file);
        if !fs::metadata(&file).is_ok_and(|there| there.is_file() && there.len() > 0) {
            faults.push(format!("the package {name} has no {}", shown(&file)));
        }
    }
    let manifest = package.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    for (key, what) in [
        ("\nreadme = \"README.md\"", "a readme"),
        ("\nrust-version = ", "a rust-version"),
        ("\nlicense = ", "a licence"),
        (
            "[package.metadata.docs.rs]\nall-features = true",
            "documentation of all its features",
        ),
    ] {
        if !text.contains(key) {
            faults.push(format!("the manifest of {name} does not ask for {what}"));
        }
    }
    Ok(faults)
}

fn shown(file: &Path) -> String {
    let name: PathBuf = file.file_name().into_iter().collect();
    name.display().to_string()
}

/// A workspace of the unpacked packages, in which they find each other instead of the registry.
fn make_workspace(folder: &Path, published: &[Package], version: &str) -> Outcome {
    let path = root().join("Cargo.toml");
    let manifest = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    // The same profiles, so that the same builds of other people's crates serve.
    let profiles = manifest
        .find("\n[profile.")
        .map_or("", |at| &manifest[at..]);
    let members: Vec<String> = published
        .iter()
        .map(|p| format!("\"{}-{version}\"", p.name))
        .collect();
    let mut text = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n",
        members.join(", ")
    );
    for package in published {
        let name = &package.name;
        text += &format!("{name} = {{ path = \"{name}-{version}\" }}\n");
    }
    text += profiles;
    let lock = fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).map(drop);
    lock.and_then(|()| fs::write(folder.join("Cargo.toml"), text))
        .map_err(|e| format!("{}: {e}", folder.display()))
}
