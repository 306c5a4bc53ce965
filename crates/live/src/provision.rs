//! Virtual environments with a given MLflow, made once and reused.

use super::mlflow::Mlflow;
use super::process;
use super::{MLFLOW_VERSION, OLDEST_MLFLOW_VERSION, OLDEST_SERVER_VERSION, fresh_folder, progress};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Newest first after the plain name, which is what the user chose.
const PYTHONS: [&str; 6] = [
    "python3",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
];
/// What was installed into an environment.
const STAMP: &str = "requirements";
const PROBE_TIMEOUT: Duration = Duration::from_secs(180);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What pip is told. The reference also serves with `basic-auth`; the oldest allow a SQLAlchemy that
/// came later and that they cannot import.
fn requirements(version: &str) -> Vec<String> {
    match version {
        OLDEST_MLFLOW_VERSION | OLDEST_SERVER_VERSION => {
            vec![format!("mlflow=={version}"), "sqlalchemy<2.1".to_owned()]
        }
        _ => vec![format!("mlflow[auth]=={version}")],
    }
}

/// An environment with this MLflow; the error says what is missing on this machine.
pub(super) fn mlflow(root: &Path, scripts: &Path, version: &str) -> Result<Mlflow, String> {
    let folder = if version == MLFLOW_VERSION {
        root.join("venv")
    } else {
        root.join(format!("venv-{version}"))
    };
    let mlflow = Mlflow::new(root, scripts, &folder);
    let requirements = requirements(version);
    install(root, &mlflow, version, &[Step::all(requirements)])?;
    Ok(mlflow)
}

/// What one call of pip installs.
struct Step {
    requirements: Vec<String>,
    with_dependencies: bool,
}

impl Step {
    fn all(requirements: Vec<String>) -> Self {
        Self {
            requirements,
            with_dependencies: true,
        }
    }
}

/// Makes the environment, unless it is there as the steps leave it.
fn install(root: &Path, mlflow: &Mlflow, version: &str, steps: &[Step]) -> Result<(), String> {
    let folder = mlflow.home();
    // Written last, so an interrupted installation is not taken for a finished one.
    let stamp = folder.join(STAMP);
    let stamped: Vec<_> = steps.iter().map(|s| s.requirements.join("\n")).collect();
    let stamped = stamped.join("\n\n");
    if fs::read_to_string(&stamp).is_ok_and(|s| s == stamped)
        && mlflow.version().is_ok_and(|v| v == version)
    {
        return Ok(());
    }
    progress(&format!(
        "live: installing MLflow {version} into {}",
        folder.display()
    ));
    let log = log(root, version);
    environment(root, folder, &log)?;
    for step in steps {
        let no_deps = (!step.with_dependencies).then_some("--no-deps");
        let mut pip = pip(mlflow);
        pip.arg("install").args(no_deps).args(&step.requirements);
        process::run(&mut pip, &log, INSTALL_TIMEOUT)
            .map_err(|e| format!("pip cannot install mlflow=={version} from its index: {e}"))?;
    }
    let found = mlflow.version()?;
    if found != version {
        return Err(format!("pip installed MLflow {found} instead of {version}"));
    }
    fs::write(&stamp, stamped).map_err(|e| format!("write {}: {e}", stamp.display()))
}

fn log(root: &Path, version: &str) -> PathBuf {
    root.join("logs")
        .join(format!("provision-{}", version.replace('.', "_")))
}

/// A new virtual environment with nothing but pip.
fn environment(root: &Path, folder: &Path, log: &Path) -> Result<(), String> {
    let python = python(root)?;
    fresh_folder(folder)?;
    process::run(
        Command::new(&python)
            .arg("-m")
            .arg("venv")
            .arg(folder)
            .stdin(Stdio::null()),
        log,
        PROBE_TIMEOUT,
    )
    .map(|_| ())
    .map_err(|e| format!("`{} -m venv` fails: {e}", python.display()))
}

/// The pip of an environment. It alone sees the user's environment, which may hold the index and
/// the proxy to use.
fn pip(mlflow: &Mlflow) -> Command {
    let mut command = Command::new(mlflow.python());
    command
        .args([
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "--quiet",
        ])
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null());
    command
}

/// An environment with the newest MLflow that the index has now.
///
/// A release of MLflow may be there before those of its companion packages, on which it depends:
/// then it is installed without them, and with what their own newest releases depend on. All their
/// modules are in MLflow's package.
///
/// Nothing where the newest is the reference.
pub(super) fn newest(root: &Path, scripts: &Path) -> Result<Option<Mlflow>, String> {
    let folder = root.join("venv-newest");
    let mlflow = Mlflow::new(root, scripts, &folder);
    let log = log(root, "newest");
    if !mlflow.python().exists() {
        environment(root, &folder, &log)?;
    }
    let release = release(&mlflow, "mlflow", &log)?;
    let version = release.version.clone();
    if version == MLFLOW_VERSION {
        return Ok(None);
    }
    // However it came to be there, it is the newest.
    if folder.join(STAMP).exists() && mlflow.version().is_ok_and(|v| v == version) {
        return Ok(Some(mlflow));
    }
    let mut lagging = false;
    let mut further = Vec::new();
    for companion in release.requirements.iter().filter(|r| is_companion(r)) {
        if self::release(&mlflow, companion, &log).is_ok() {
            continue;
        }
        lagging = true;
        let name = companion.split(['=', '<', '>', '!', '~', ' ', ';']).next();
        let behind = self::release(&mlflow, name.unwrap_or(companion), &log)?;
        progress(&format!(
            "live: the index has no {companion}; its dependencies are those of {}",
            behind.version
        ));
        further.extend(behind.requirements);
    }
    let steps = match lagging {
        false => vec![Step::all(vec![format!("mlflow[auth]=={version}")])],
        true => {
            further.extend(release.requirements);
            further.retain(|r| !is_companion(r));
            vec![
                Step::all(further),
                Step {
                    requirements: vec![format!("mlflow=={version}")],
                    with_dependencies: false,
                },
            ]
        }
    };
    install(root, &mlflow, &version, &steps)?;
    Ok(Some(mlflow))
}

fn is_companion(requirement: &str) -> bool {
    requirement.starts_with("mlflow-")
}

/// What the index has for a requirement.
struct Release {
    version: String,
    /// What it depends on, with the extra for `basic-auth` and no other.
    requirements: Vec<String>,
}

/// Asks the index, and installs nothing.
fn release(mlflow: &Mlflow, requirement: &str, log: &Path) -> Result<Release, String> {
    let report = log.with_extension("json");
    let mut pip = pip(mlflow);
    pip.args([
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--report",
    ])
    .arg(&report)
    .arg(requirement);
    process::run(&mut pip, log, PROBE_TIMEOUT)
        .map_err(|e| format!("pip finds no {requirement} in its index: {e}"))?;
    let text =
        fs::read_to_string(&report).map_err(|e| format!("read {}: {e}", report.display()))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| format!("pip's report: {e}"))?;
    let metadata = &report["install"][0]["metadata"];
    let version = metadata["version"].as_str();
    let version = version.ok_or_else(|| format!("pip's report has no version of {requirement}"))?;
    let requirements = metadata["requires_dist"].as_array();
    let requirements = requirements.into_iter().flatten().filter_map(Value::as_str);
    Ok(Release {
        version: version.to_owned(),
        requirements: requirements.filter_map(wanted).collect(),
    })
}

/// A requirement without the extra it belongs to; nothing where that is not the one for
/// `basic-auth`.
fn wanted(requirement: &str) -> Option<String> {
    match requirement.split_once(';') {
        Some((plain, marker)) if marker.contains("extra") => {
            let auth = marker.replace('\'', "\"").contains("extra == \"auth\"");
            auth.then(|| plain.trim().to_owned())
        }
        _ => Some(requirement.to_owned()),
    }
}

/// A Python on PATH that MLflow supports and that can make virtual environments.
pub(super) fn python(root: &Path) -> Result<PathBuf, String> {
    let mut seen = Vec::new();
    for name in PYTHONS {
        let Some(path) = on_path(&[name]) else {
            continue;
        };
        let probe = "import sys, venv, ensurepip\nassert sys.version_info >= (3, 10), sys.version";
        let log = root
            .join("logs")
            .join(format!("probe-{}", name.replace('.', "_")));
        match process::run(
            Command::new(&path).args(["-c", probe]).stdin(Stdio::null()),
            &log,
            PROBE_TIMEOUT,
        ) {
            Ok(_) => return Ok(path),
            Err(e) => seen.push(format!(
                "{}: {}",
                path.display(),
                e.lines().last().unwrap_or_default()
            )),
        }
    }
    Err(if seen.is_empty() {
        "Python 3.10 or newer is not on PATH; install python3 and python3-venv".to_owned()
    } else {
        format!(
            "no Python 3.10 or newer with venv and ensurepip on PATH ({}); install python3 and python3-venv",
            seen.join("; ")
        )
    })
}

/// A Chromium on PATH.
pub(super) fn chromium() -> Result<PathBuf, String> {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    on_path(&names).ok_or_else(|| {
        format!(
            "none of {} is on PATH; install Chromium (Debian: apt-get install chromium)",
            names.join(", ")
        )
    })
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names.iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_of_other_extras_are_left_out() {
        for (text, expected) in [
            ("Flask<4", Some("Flask<4")),
            (
                "gunicorn<27; platform_system != \"Windows\"",
                Some("gunicorn<27; platform_system != \"Windows\""),
            ),
            ("Flask-WTF<2; extra == \"auth\"", Some("Flask-WTF<2")),
            ("Flask-WTF<2; extra == 'auth'", Some("Flask-WTF<2")),
            ("boto3>1; extra == \"databricks\"", None),
        ] {
            assert_eq!(wanted(text).as_deref(), expected, "{text}");
        }
        assert!(is_companion("mlflow-skinny==3.18.0"));
        assert!(!is_companion("mlflow==3.18.0"));
    }
}
