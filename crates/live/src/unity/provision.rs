//! What the cases need, made once in `.live/unity/` and kept while its description is the same.

use super::super::{fresh_folder, process, progress, provision};
use super::Missing;
use crate::cargo::{cargo, root, text_of};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(20 * 60);
const PROBE: Duration = Duration::from_secs(60);

/// MinIO as its source is published: the last of its releases that say how conditional writes work.
const MINIO: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
/// A folder with the jars of an installed Unity Catalog server, taken instead of Maven's.
pub(super) const SERVER_JARS_VAR: &str = "LIVE_UNITY_CATALOG_JARS";
/// The program that writes.
const WRITER: &str = "live_writer";
const PACKAGE: &str = "trace-destination-unity-catalog";

/// Where things are, or what is missing for them.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) python: Result<PathBuf, Missing>,
    pub(super) spark_jars: Result<PathBuf, Missing>,
    pub(super) server_jars: Result<PathBuf, Missing>,
    pub(super) minio: Result<PathBuf, Missing>,
}

/// Gets everything, beside each other: most of it waits for the network.
pub(super) fn tools(home: &Path, scripts: &Path) -> Tools {
    std::thread::scope(|scope| {
        let spark_jars = scope.spawn(|| {
            jars(
                home,
                "spark",
                &scripts.join("spark.pom.xml"),
                "io.delta,io.unitycatalog",
            )
        });
        let server_jars = scope.spawn(|| server_jars(home, scripts));
        let minio = scope.spawn(|| minio(home));
        let python = python(home, scripts);
        let gone = |_| Err("provisioning panicked".to_owned());
        Tools {
            python,
            spark_jars: spark_jars.join().unwrap_or_else(gone),
            server_jars: server_jars.join().unwrap_or_else(gone),
            minio: minio.join().unwrap_or_else(gone),
        }
    })
}

/// A folder that is complete exactly if it holds a stamp with this text.
fn once(
    folder: &Path,
    stamp: &str,
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), Missing> {
    // Written last, so what was interrupted is not taken for finished.
    let file = folder.join("stamp");
    if fs::read_to_string(&file).is_ok_and(|s| s == stamp) {
        return Ok(());
    }
    progress(&format!("live: installing into {}", folder.display()));
    fresh_folder(folder)?;
    make()?;
    fs::write(&file, stamp).map_err(|e| format!("write {}: {e}", file.display()))
}

fn python(home: &Path, scripts: &Path) -> Result<PathBuf, Missing> {
    let folder = home.join("venv");
    let requirements = scripts.join("requirements.txt");
    let stamp = read(&requirements)?;
    let python = folder.join("bin/python");
    once(&folder, &stamp, || {
        let log = home.join("logs/provision-python");
        let base = provision::python(home)?;
        process::run(
            Command::new(&base)
                .args(["-m", "venv"])
                .arg(&folder)
                .stdin(Stdio::null()),
            &log,
            PROBE * 3,
        )?;
        // pip alone sees the user's environment: it may hold the index and the proxy to use.
        process::run(
            Command::new(&python)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--no-input",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                ])
                .arg(&requirements)
                .env_remove("PYTHONPATH")
                .env_remove("PYTHONHOME")
                .stdin(Stdio::null()),
            &log,
            INSTALL,
        )
        .map(drop)
        .map_err(|e| format!("pip cannot install {}: {e}", requirements.display()))
    })?;
    Ok(python)
}

/// The jars of a `pom.xml`, of all groups or of some.
fn jars(home: &Path, name: &str, pom: &Path, groups: &str) -> Result<PathBuf, Missing> {
    let java = Command::new("java")
        .arg("-version")
        .stdin(Stdio::null())
        .output();
    if !java.is_ok_and(|o| o.status.success()) {
        return Err("Java 17 is not on PATH; install it (Debian: openjdk-17-jdk-headless)".into());
    }
    let folder = home.join(format!("{name}-jars"));
    once(&folder, &read(pom)?, || {
        process::run(
            Command::new("mvn")
                .args(["--quiet", "--batch-mode", "--file"])
                .arg(pom)
                .arg("dependency:copy-dependencies")
                .arg("-DincludeScope=runtime")
                .arg(format!("-DincludeGroupIds={groups}"))
                .arg(format!("-DoutputDirectory={}", folder.display()))
                .stdin(Stdio::null()),
            &home.join(format!("logs/provision-{name}")),
            INSTALL,
        )
        .map(drop)
        .map_err(|e| maven_error(home, name, &e))
    })?;
    Ok(folder)
}

/// Maven says what is wrong on its standard output, at length.
fn maven_error(home: &Path, name: &str, error: &str) -> String {
    let out = fs::read_to_string(home.join(format!("logs/provision-{name}.out")));
    let out = out.unwrap_or_default();
    match out.lines().find(|l| l.contains("ERROR")) {
        Some(line) => line.replace("[ERROR]", "").trim().to_owned(),
        None => format!("{error}; install Maven (Debian: maven)"),
    }
}

fn server_jars(home: &Path, scripts: &Path) -> Result<PathBuf, Missing> {
    if let Some(folder) = std::env::var_os(SERVER_JARS_VAR) {
        let folder = PathBuf::from(folder);
        return match folder.is_dir() {
            true => Ok(folder),
            false => Err(format!(
                "{SERVER_JARS_VAR}={} is no folder",
                folder.display()
            )),
        };
    }
    jars(home, "server", &scripts.join("server.pom.xml"), "").map_err(|e| {
        format!("{e}\nor set {SERVER_JARS_VAR} to the folder with the jars of an installed server")
    })
}

fn minio(home: &Path) -> Result<PathBuf, Missing> {
    let folder = home.join("minio");
    once(&folder, MINIO, || {
        // Only a build: it may take what processor time nobody else wants.
        process::run(
            Command::new("nice")
                .args(["go", "install", MINIO])
                .env("GOBIN", &folder)
                .stdin(Stdio::null()),
            &home.join("logs/provision-minio"),
            INSTALL,
        )
        .map(drop)
        .map_err(|e| format!("no MinIO: {e}; it takes Go 1.24 or newer"))
    })?;
    Ok(folder.join("minio"))
}

/// Builds the program that writes, as the tests of the workspace are built, so that nothing is
/// compiled twice.
pub(super) fn writer() -> Result<PathBuf, String> {
    let mut command = cargo(["build", "--quiet", "--workspace", "--example", WRITER]);
    command.args(["--features", &format!("{PACKAGE}/s3")]);
    command.args(["--message-format", "json"]);
    let text = text_of(&command);
    let output = command
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("`{text}` could not be started: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "`{text}` failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter(|m| m["target"]["name"] == WRITER)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("`{text}` does not say where the program is"))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}
