//! The rules of the house that no compiler checks.

use crate::cargo::{Outcome, Package, cargo, output, packages, root, run};
use crate::circles;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::{DirEntry, WalkDir};

/// Lines a source file may have before its tests.
const MAX_LINES: usize = 500;

/// What a custom sink must not have to build: HTTP, TLS, databases, arrow.
const HEAVY: [&str; 24] = [
    "actix-web",
    "arrow",
    "aws-lc-rs",
    "axum",
    "curl",
    "deltalake",
    "diesel",
    "h2",
    "hyper",
    "isahc",
    "libsqlite3-sys",
    "native-tls",
    "object_store",
    "openssl",
    "parquet",
    "postgres",
    "reqwest",
    "ring",
    "rusqlite",
    "rustls",
    "sqlx",
    "tonic",
    "tower-http",
    "ureq",
];

/// What nobody may have to build who does not store tables.
const LAKE: [&str; 6] = [
    "arrow",
    "buoyant_kernel",
    "deltalake",
    "object_store",
    "parquet",
    "parquet-variant",
];

/// What nobody may have to build without the facade's feature `tower` or a client of HTTP.
const TOWER: [&str; 5] = [
    "http",
    "http-body",
    "tower-layer",
    "tower-service",
    "trace-destination-tower",
];

/// What rustls gets its cryptography from; one of them at a time.
const PROVIDERS: [&str; 2] = ["aws-lc-rs", "ring"];

/// The one file beside the facade that may ask for features: which stores' clients are built.
const STORES: &str = "crates/unity-catalog/src/storage/cloud.rs";

/// Checks every rule; lists everything that breaks one.
pub(crate) fn check() -> Outcome {
    let mut faults = Vec::new();
    let packages = packages()?;
    for package in &packages {
        check_package(package, &mut faults)?;
        let src = package.dir.join("src");
        if src.exists() {
            faults.extend(circles::faults(&package.name, &src)?);
        }
    }
    check_msrv(&packages, &mut faults)?;
    check_trees(&mut faults)?;
    match faults.is_empty() {
        true => {
            println!("structure: {} packages keep the rules", packages.len());
            Ok(())
        }
        false => Err(format!("structure:\n  {}", faults.join("\n  "))),
    }
}

fn check_package(package: &Package, faults: &mut Vec<String>) -> Outcome {
    let name = &package.name;
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));
    let manifest = read(&package.dir.join("Cargo.toml"))?;
    let compact: String = manifest.chars().filter(|c| !c.is_whitespace()).collect();
    if !compact.contains("[lints]workspace=true") {
        fault("does not inherit the workspace's lints".into());
    }
    if package.published {
        if !package.dir.join("README.md").exists() {
            fault("has no README.md".into());
        }
        if package.description.as_ref().is_none_or(String::is_empty) {
            fault("has no description".into());
        }
        if !name.starts_with("trace-destination") {
            fault("is not called trace-destination-…".into());
        }
    }
    let facade = name == "trace-destination";
    for file in sources(&package.dir)? {
        let text = read(&file)?;
        let shown = file
            .strip_prefix(root())
            .unwrap_or(&file)
            .display()
            .to_string();
        if !facade
            && shown != STORES
            && let Some(line) = text.lines().position(names_a_feature)
        {
            fault(format!(
                "{shown}:{}: cfg(feature) belongs into the facade",
                line + 1
            ));
        }
        let lines = lines_before_tests(&text);
        if lines >= MAX_LINES && !is_test(&file) {
            fault(format!(
                "{shown}: {lines} lines before its tests, {MAX_LINES} are too many"
            ));
        }
    }
    Ok(())
}

fn names_a_feature(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.contains("cfg") && (code.contains("feature = \"") || code.contains("feature=\""))
}

fn lines_before_tests(text: &str) -> usize {
    text.lines()
        .position(|line| line.starts_with("#[cfg(test)]"))
        .unwrap_or_else(|| text.lines().count())
}

fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs")
        || file
            .ancestors()
            .any(|dir| dir.ends_with("tests") || dir.ends_with("data"))
}

/// The Rust files of a package, its tests, examples and benches included.
fn sources(dir: &Path) -> Result<Vec<PathBuf>, String> {
    // A package inside a package's folder is its own.
    let of_package = |entry: &DirEntry| {
        entry.depth() == 0
            || entry.file_name() != "target" && !entry.path().join("Cargo.toml").exists()
    };
    let mut found = Vec::new();
    for entry in WalkDir::new(dir).into_iter().filter_entry(of_package) {
        let path = entry
            .map_err(|e| format!("{}: {e}", dir.display()))?
            .into_path();
        if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The version every package declares must be the one that is checked.
fn check_msrv(packages: &[Package], faults: &mut Vec<String>) -> Outcome {
    let declared: BTreeSet<Option<&str>> =
        packages.iter().map(|p| p.rust_version.as_deref()).collect();
    let [Some(version)] = declared.iter().copied().collect::<Vec<_>>()[..] else {
        faults.push(format!(
            "packages declare several rust-versions: {declared:?}"
        ));
        return Ok(());
    };
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let running = output(Command::new(rustc).arg("--version").current_dir(root()))?;
    let running = running.split_whitespace().nth(1).unwrap_or_default();
    if running == version || running.starts_with(&format!("{version}.")) {
        println!("structure: rust-version {version} is what checks everything");
        return Ok(());
    }
    // A folder of its own: two compilers in one would build everything anew each time.
    println!("structure: rustc {running} is not rust-version {version}, which is tried apart");
    let mut msrv = Command::new("rustup");
    msrv.args([
        "run",
        version,
        "cargo",
        "check",
        "--workspace",
        "--target-dir",
        "target/msrv",
    ]);
    if let Err(error) = run(msrv.current_dir(root())) {
        faults.push(format!(
            "rust-version {version} cannot be shown to work ({error}): `rustup toolchain install {version}`, or raise rust-version"
        ));
    }
    Ok(())
}

fn check_trees(faults: &mut Vec<String>) -> Outcome {
    for (package, args) in [
        ("trace-destination-core", &[][..]),
        ("custom-sink", &[][..]),
        ("trace-destination", &["--no-default-features"][..]),
        ("trace-destination-tower", &[][..]),
    ] {
        for (name, _) in tree(package, "normal", args)? {
            if name.starts_with("arrow-") || HEAVY.contains(&name.as_str()) {
                faults.push(format!("{package} {} pulls {name}", args.join(" ")));
            }
        }
    }
    for package in ["trace-destination-core", "trace-destination"] {
        for (name, _) in tree(package, "normal", &[])? {
            if TOWER.contains(&name.as_str()) {
                faults.push(format!("{package} pulls {name} without being asked to"));
            }
        }
    }
    // Also not for examples and tests.
    for (package, args) in [
        ("trace-destination", &[][..]),
        (
            "trace-destination",
            &["--features", "experiment,server"][..],
        ),
        ("trace-destination-experiment", &[][..]),
        ("trace-destination-server", &[][..]),
        ("trace-destination-conformance", &[][..]),
    ] {
        for (name, _) in tree(package, "normal,dev", args)? {
            if name.starts_with("arrow-") || LAKE.contains(&name.as_str()) {
                faults.push(format!("{package} {} pulls {name}", args.join(" ")));
            }
        }
    }
    // With two providers of cryptography switched on, rustls panics in code of the application that
    // relies on the default one. Tables bring a second along: object_store asks for ring and the
    // kernel's engine for aws-lc, and neither can be turned off from here.
    for (package, args) in [
        ("trace-destination-http", &[][..]),
        ("trace-destination-server", &[][..]),
        (
            "trace-destination",
            &["--features", "experiment,server"][..],
        ),
    ] {
        let all = tree(package, "normal", args)?;
        let on: Vec<&str> = PROVIDERS
            .into_iter()
            .filter(|provider| all.iter().any(|(name, _)| name == provider))
            .collect();
        if on.len() != 1 {
            faults.push(format!(
                "{package} {} switches on the providers {on:?} of rustls, and not one",
                args.join(" ")
            ));
        }
    }
    // What takes minutes to build is built once.
    let all = tree(
        "trace-destination-unity-catalog",
        "normal",
        &["--all-features"],
    )?;
    for name in LAKE {
        let versions: Vec<&str> = all
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, version)| version.as_str())
            .collect();
        if versions.len() != 1 {
            faults.push(format!(
                "unity-catalog needs {name} in versions {versions:?}"
            ));
        }
    }
    Ok(())
}

/// The names and versions of everything a package is built with.
fn tree(package: &str, edges: &str, args: &[&str]) -> Result<BTreeSet<(String, String)>, String> {
    let fixed = [
        "tree",
        "--package",
        package,
        "--edges",
        edges,
        "--prefix",
        "none",
    ];
    let text = output(&mut cargo(fixed.iter().chain(args)))?;
    let all: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect();
    match all.iter().any(|(name, _)| name == package) {
        true => Ok(all),
        false => Err(format!("cargo tree says nothing about {package}")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_found_where_they_count() {
        // Split, so that this file keeps the rule it tests.
        let attribute = format!("#[cfg({} = \"x\")]", "feature");
        assert!(names_a_feature(&attribute));
        assert!(!names_a_feature(&format!("// {attribute}")));
        assert!(!names_a_feature("let feature = \"x\";"));
    }

    #[test]
    fn tests_are_not_counted() {
        assert_eq!(
            lines_before_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
            2
        );
        assert_eq!(lines_before_tests("a\nb\n"), 2);
    }
}
