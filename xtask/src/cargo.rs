//! Calling cargo: through the program that runs us, at the root of the workspace, without a shell.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a task comes to; the text of an error is for whoever called it.
pub(crate) type Outcome = Result<(), String>;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// `cargo` with arguments.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command, showing what it prints.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let text = text_of(command);
    let status = command
        .status()
        .map_err(|e| format!("`{text}` could not be started: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{text}` failed: {status}")),
    }
}

/// Runs a command and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let text = text_of(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("`{text}` could not be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{text}` failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("`{text}` printed no text: {e}"))
}

pub(crate) fn text_of(command: &Command) -> String {
    let mut text = Path::new(command.get_program())
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// A package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The folder of its manifest.
    pub(crate) dir: PathBuf,
    pub(crate) version: String,
    pub(crate) rust_version: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) features: Vec<String>,
    /// Whether it may be published; the others are tools.
    pub(crate) published: bool,
}

/// The packages of the workspace, by name.
pub(crate) fn packages() -> Result<Vec<Package>, String> {
    let text = output(&mut cargo([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata is no JSON: {e}"))?;
    let list = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let mut packages: Vec<Package> = list
        .iter()
        .map(|p| {
            let text = |key: &str| p[key].as_str().map(str::to_owned);
            Ok(Package {
                name: text("name").ok_or("a package has no name")?,
                dir: text("manifest_path")
                    .and_then(|m| Path::new(&m).parent().map(Path::to_owned))
                    .ok_or("a package has no manifest")?,
                version: text("version").ok_or("a package has no version")?,
                rust_version: text("rust_version"),
                description: text("description"),
                features: p["features"]
                    .as_object()
                    .map(|f| f.keys().cloned().collect())
                    .unwrap_or_default(),
                // `publish = false` is an empty list of registries.
                published: !p["publish"].as_array().is_some_and(Vec::is_empty),
            })
        })
        .collect::<Result<_, &str>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}
