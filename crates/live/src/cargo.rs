//! Calling cargo at the root of the workspace, without a shell.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.ancestors().nth(2).unwrap_or(dir).to_owned()
}

/// `cargo` with arguments.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Program and arguments, for errors.
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

/// The packages that test a backend, by name. The suite's own tests are no backend.
pub(crate) fn backends() -> Result<Vec<String>, String> {
    let mut command = cargo(["metadata", "--no-deps", "--format-version", "1"]);
    let text = text_of(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("`{text}` could not be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{text}` failed: {}", output.status));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata is no JSON: {e}"))?;
    let list = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let mut names: Vec<String> = list
        .iter()
        .filter(|package| {
            let manifest = package["manifest_path"].as_str().map(Path::new);
            let dir = manifest.and_then(Path::parent);
            dir.is_some_and(|dir| dir.join("tests/conformance.rs").exists())
        })
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
