//! Virtual environments with a given MLflow, made once and reused.

use super::mlflow::Mlflow;
use super::process;
use super::{MLFLOW_VERSION, OLDEST_MLFLOW_VERSION, fresh_folder, progress};
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
const PROBE_TIMEOUT: Duration = Duration::from_secs(180);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What pip is told. The newest also serves with `basic-auth`; 3.3.2 allows a SQLAlchemy that came
/// later and that it cannot import.
fn requirements(version: &str) -> Vec<String> {
    match version {
        OLDEST_MLFLOW_VERSION => vec![format!("mlflow=={version}"), "sqlalchemy<2.1".to_owned()],
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
    // Written last, so an interrupted installation is not taken for a finished one.
    let stamp = folder.join("requirements");
    let requirements = requirements(version);
    let stamped = requirements.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|s| s == stamped)
        && mlflow.version().is_ok_and(|v| v == version)
    {
        return Ok(mlflow);
    }
    let python = python(root)?;
    progress(&format!(
        "live: installing MLflow {version} into {}",
        folder.display()
    ));
    fresh_folder(&folder)?;
    let log = root
        .join("logs")
        .join(format!("provision-{}", version.replace('.', "_")));
    process::run(
        Command::new(&python)
            .arg("-m")
            .arg("venv")
            .arg(&folder)
            .stdin(Stdio::null()),
        &log,
        PROBE_TIMEOUT,
    )
    .map_err(|e| format!("`{} -m venv` fails: {e}", python.display()))?;
    // pip alone sees the user's environment: it may hold the index and the proxy to use.
    process::run(
        Command::new(mlflow.python())
            .args([
                "-m",
                "pip",
                "install",
                "--no-input",
                "--disable-pip-version-check",
                "--quiet",
            ])
            .args(&requirements)
            .env_remove("PYTHONPATH")
            .env_remove("PYTHONHOME")
            .stdin(Stdio::null()),
        &log,
        INSTALL_TIMEOUT,
    )
    .map_err(|e| format!("pip cannot install mlflow=={version} from its index: {e}"))?;
    let found = mlflow.version()?;
    if found != version {
        return Err(format!("pip installed MLflow {found} instead of {version}"));
    }
    fs::write(&stamp, stamped).map_err(|e| format!("write {}: {e}", stamp.display()))?;
    Ok(mlflow)
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
