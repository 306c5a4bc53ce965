//! Making a location: from parts, from a URI, from the environment; checked once, in `build()`.

use crate::config::{
    ACCESS_PARAM, ARTIFACT_ROOT_PARAM, CREATE_PARAM, EXPERIMENT_ID_PARAM, EXPERIMENT_ID_VAR,
    EXPERIMENT_NAME_PARAM, EXPERIMENT_NAME_VAR, JOURNAL_MODE_PARAM, MAX_EXPERIMENT_NAME, PARAMS,
    SCHEME, SYNCHRONOUS_PARAM, TRACKING_URI_VAR,
};
use crate::error::BUILD;
use crate::location::ExperimentLocation;
use crate::options::{Access, JournalMode, MissingExperiment, Synchronous};
use crate::target::Target;
use std::path::{Component, Path, PathBuf};
use trace_destination_core::{EnvSource, Error, ErrorKind, LocationUri, mend_of_parameter};

/// Builds an [`ExperimentLocation`]; see [`ExperimentLocation::builder`].
#[derive(Clone, Debug, Default)]
pub struct ExperimentLocationBuilder {
    path: Option<PathBuf>,
    name: Option<String>,
    id: Option<String>,
    missing: MissingExperiment,
    synchronous: Synchronous,
    artifact_root: Option<String>,
    access: Access,
    journal_mode: JournalMode,
    deferred: Vec<Error>,
}

impl ExperimentLocationBuilder {
    /// The database file. A relative path is relative to the current directory when `build` is
    /// called.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The experiment's name. Resolved to an id when the location is opened.
    #[must_use]
    pub fn with_experiment_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The experiment's id, a decimal number as MLflow prints it. Given with a name, both must be
    /// of one experiment.
    #[must_use]
    pub fn with_experiment_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// What to do when the experiment or the file is missing.
    #[must_use]
    pub fn with_missing(mut self, missing: MissingExperiment) -> Self {
        self.missing = missing;
        self
    }

    /// How sure a stored batch is to survive a power failure.
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Where MLflow keeps the files of an experiment that is created here: a folder or URI to
    /// which `/<experiment id>` is added. By default the one the database's `Default` experiment
    /// has, else the folder `mlruns` beside the database.
    #[must_use]
    pub fn with_artifact_root(mut self, root: impl Into<String>) -> Self {
        self.artifact_root = Some(root.into());
        self
    }

    /// Who may read and write the files and folders that are created here.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The kind of log SQLite keeps for the file.
    #[must_use]
    pub fn with_journal_mode(mut self, journal_mode: JournalMode) -> Self {
        self.journal_mode = journal_mode;
        self
    }

    /// Everything a URI such as `sqlite:///traces.db?experiment_name=checkout` says. Values it
    /// does not give stay as they are.
    #[must_use]
    pub fn with_uri(mut self, uri: &LocationUri) -> Self {
        match file_path(uri) {
            Ok(path) => self.path = Some(path),
            Err(error) => self.deferred.push(error),
        }
        for (key, value) in uri.query_pairs() {
            let result = match key {
                EXPERIMENT_NAME_PARAM => {
                    self.name = Some(value.into());
                    Ok(())
                }
                EXPERIMENT_ID_PARAM => {
                    self.id = Some(value.into());
                    Ok(())
                }
                ARTIFACT_ROOT_PARAM => {
                    self.artifact_root = Some(value.into());
                    Ok(())
                }
                CREATE_PARAM => match value {
                    "true" => Ok(MissingExperiment::Create),
                    "false" => Ok(MissingExperiment::Fail),
                    _ => Err(unexpected(key, value, "true or false")),
                }
                .map(|v| self.missing = v),
                SYNCHRONOUS_PARAM => match value {
                    "normal" => Ok(Synchronous::Normal),
                    "full" => Ok(Synchronous::Full),
                    _ => Err(unexpected(key, value, "normal or full")),
                }
                .map(|v| self.synchronous = v),
                ACCESS_PARAM => match value {
                    "owner" => Ok(Access::Owner),
                    "umask" => Ok(Access::Umask),
                    _ => Err(unexpected(key, value, "owner or umask")),
                }
                .map(|v| self.access = v),
                JOURNAL_MODE_PARAM => match value {
                    "keep" => Ok(JournalMode::Keep),
                    "delete" => Ok(JournalMode::Delete),
                    "wal" => Ok(JournalMode::Wal),
                    _ => Err(unexpected(key, value, "keep, wal or delete")),
                }
                .map(|v| self.journal_mode = v),
                _ => Err(
                    invalid(format!("parameter `{}` is unknown", key.escape_debug()))
                        .mend(mend_of_parameter(key, &PARAMS)),
                ),
            };
            self.deferred.extend(result.err().map(|e| e.at(uri)));
        }
        self
    }

    /// The file from `MLFLOW_TRACKING_URI` and the experiment from `MLFLOW_EXPERIMENT_NAME` or
    /// `MLFLOW_EXPERIMENT_ID`, each only where it is set and not given already. A tracking URI of
    /// another scheme is not for this crate and is passed over.
    #[must_use]
    pub fn with_env(mut self, env: &dyn EnvSource) -> Self {
        let mut read = |name: &str| match env.var(name) {
            Ok(value) => value,
            Err(error) => {
                self.deferred.push(error);
                None
            }
        };
        let tracking = read(TRACKING_URI_VAR);
        let (name, id) = (read(EXPERIMENT_NAME_VAR), read(EXPERIMENT_ID_VAR));
        if self.name.is_none() && self.id.is_none() {
            (self.name, self.id) = (name, id);
        }
        let scheme = tracking
            .as_deref()
            .and_then(|t| t.split_once(':'))
            .map(|t| t.0);
        if self.path.is_none() && scheme.is_some_and(|s| s.eq_ignore_ascii_case(SCHEME)) {
            match tracking
                .unwrap_or_default()
                .parse::<LocationUri>()
                .and_then(|u| file_path(&u))
            {
                Ok(path) => self.path = Some(path),
                Err(error) => self.deferred.push(
                    invalid(format!("{TRACKING_URI_VAR} does not name a database file"))
                        .caused_by(error),
                ),
            }
        }
        self
    }

    /// Checks everything that can be known without opening the file, and makes its path absolute
    /// and free of symbolic links.
    ///
    /// # Errors
    /// `InvalidConfig` for a missing or unusable path, experiment or parameter.
    pub fn build(self) -> Result<ExperimentLocation, Error> {
        if let Some(error) = self.deferred.into_iter().next() {
            return Err(error);
        }
        let Some(path) = self.path else {
            return Err(invalid("no database file is given")
                .mend("write sqlite:///file.db?experiment_name=…, or set MLFLOW_TRACKING_URI"));
        };
        let path = canonical(&path)?;
        let id = self.id.map(|text| experiment_id(&text)).transpose()?;
        if let Some(name) = &self.name {
            let length = name.chars().count();
            if length == 0 || length > MAX_EXPERIMENT_NAME || name.contains('\0') {
                return Err(invalid(format!(
                    "an experiment name of {length} characters cannot be stored"
                ))
                .mend(format!(
                    "use 1 to {MAX_EXPERIMENT_NAME} characters, none of them NUL"
                )));
            }
        }
        if self.name.is_none() && id.is_none() {
            return Err(invalid("no experiment is given").mend(format!(
                "add ?{EXPERIMENT_NAME_PARAM}=… or ?{EXPERIMENT_ID_PARAM}=…"
            )));
        }
        if self.artifact_root.as_deref() == Some("") {
            return Err(
                invalid("the artifact root is empty").mend("leave it out, or name a folder")
            );
        }
        ExperimentLocation::of(Target {
            path,
            name: self.name,
            id,
            missing: self.missing,
            synchronous: self.synchronous,
            artifact_root: self.artifact_root,
            access: self.access,
            journal_mode: self.journal_mode,
        })
    }
}

fn invalid(cause: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, BUILD, cause.into())
}

fn unexpected(key: &str, value: &str, expected: &str) -> Error {
    invalid(format!(
        "parameter {key}=`{}` is not understood",
        value.escape_debug()
    ))
    .mend(format!("write {expected}"))
}

/// The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names.
fn file_path(uri: &LocationUri) -> Result<PathBuf, Error> {
    let mend = "write sqlite:///relative.db or sqlite:////absolute/path.db";
    let fail = |cause: &'static str| Err(invalid(cause).mend(mend).at(uri));
    if uri.scheme() != SCHEME {
        return fail("the scheme is not `sqlite`");
    }
    if uri.authority() != Some("") {
        return fail("a database file has no host; a `/` is missing");
    }
    match uri.path().strip_prefix('/') {
        None | Some("") => fail("no database file is named"),
        Some(":memory:") => Err(invalid("a database in memory would be lost")
            .mend("name a file, or use memory:<name>")
            .at(uri)),
        Some(path) => match of_shell(path) {
            Some((cause, mend)) => Err(invalid(cause).mend(mend).at(uri)),
            None => Ok(path.into()),
        },
    }
}

/// What a shell or another system would make of a path, and nobody does here.
fn of_shell(path: &str) -> Option<(&'static str, &'static str)> {
    let first = path.split('/').next().unwrap_or_default();
    let mut letters = path.chars();
    let has_drive = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.next() == Some(':')
        && matches!(letters.next(), Some('/' | '\\'));
    if first.starts_with('~') {
        return Some((
            "the path begins with `~`, which only a shell turns into a home folder",
            "write the folder itself, as in sqlite:////home/me/mlflow.db; for one that has this name, write ./~",
        ));
    }
    if first.starts_with('$') || first.starts_with('%') && first.len() > 2 && first.ends_with('%') {
        return Some((
            "the path begins with a variable, which only a shell puts in",
            "write the folder itself, as in sqlite:////srv/traces/mlflow.db",
        ));
    }
    (has_drive && cfg!(not(windows))).then_some((
        "the path is one of Windows, and this is another system",
        "write sqlite:////absolute/path.db; for a file that has this name, write ./ before it",
    ))
}

fn experiment_id(text: &str) -> Result<i64, Error> {
    // As MLflow prints ids; `+1`, ` 1` and `1.0` are nobody's spelling.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        invalid(format!("`{}` is no experiment id", text.escape_debug()))
            .mend("give a whole number, as MLflow shows it, or the name as experiment_name")
    })
}

/// Links that are followed before a path counts as one that leads nowhere, as on Linux.
const MAX_LINKS: usize = 40;

/// The absolute path, with the links of its existing part resolved. What does not exist yet is
/// made when the location is opened.
fn canonical(path: &Path) -> Result<PathBuf, Error> {
    let fail = |e| {
        invalid(format!("`{}` cannot be resolved", path.display()))
            .mend("name a file in a folder that can be reached")
            .caused_by(e)
    };
    let mut absolute = std::path::absolute(path).map_err(fail)?;
    for _ in 0..MAX_LINKS {
        let resolved = resolve(&absolute).map_err(fail)?;
        // A link whose target is not there yet: the file will be made where it points.
        let Ok(target) = std::fs::read_link(&resolved) else {
            return Ok(resolved);
        };
        absolute = resolved.parent().unwrap_or(&resolved).join(target);
    }
    Err(fail(std::io::Error::other("too many symbolic links")))
}

fn resolve(absolute: &Path) -> std::io::Result<PathBuf> {
    let mut existing = absolute;
    let mut path = loop {
        match existing.canonicalize() {
            Ok(resolved) => break resolved,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => match existing.parent() {
                Some(parent) => existing = parent,
                None => return Err(e),
            },
            Err(e) => return Err(e),
        }
    };
    let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
    for part in rest.components() {
        match part {
            // Below the existing part there is no link that could lead elsewhere.
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}
