//! The environment as the lowest scope: MLflow's variables, read once.

mod notices;
mod variables;

use crate::registry_with_env;
use std::collections::BTreeMap;
use std::sync::Arc;
use trace_destination_core::{
    Destination, EnvSource, Error, ErrorKind, LocationUri, Pipeline, PipelineBuilder, ProcessEnv,
    Registry, bool_var,
};
use variables::VARIABLES;

/// The destination of this process: a list of location URIs, or one of MLflow's own spellings (an
/// experiment id, `catalog.schema`, and as an extension `catalog.schema.prefix`).
pub const MLFLOW_TRACING_DESTINATION: &str = "MLFLOW_TRACING_DESTINATION";
/// The store that experiments are in: `sqlite:///…` or `http(s)://…`; `sqlite:///mlflow.db`, as in
/// MLflow, where only an experiment is given.
pub const MLFLOW_TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
/// The experiment by name; created if absent.
pub const MLFLOW_EXPERIMENT_NAME: &str = "MLFLOW_EXPERIMENT_NAME";
/// The experiment by id; has to exist.
pub const MLFLOW_EXPERIMENT_ID: &str = "MLFLOW_EXPERIMENT_ID";
/// The workspace on a tracking server.
pub const MLFLOW_WORKSPACE: &str = "MLFLOW_WORKSPACE";
/// Sends every trace to the OTLP endpoint too; `false` unless set.
pub const MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT: &str = "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT";
/// The base of the OTLP endpoints, for [`MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT`] only.
pub const OTEL_EXPORTER_OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The OTLP endpoint for traces, for [`MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT`] only.
pub const OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Any of these makes a destination.
const CHOOSING: [&str; 4] = [
    MLFLOW_TRACING_DESTINATION,
    MLFLOW_TRACKING_URI,
    MLFLOW_EXPERIMENT_NAME,
    MLFLOW_EXPERIMENT_ID,
];

/// Where MLflow 3.17.2 keeps experiments when nothing is said (facts: `mlflow/tracking`).
const DEFAULT_TRACKING_URI: &str = "sqlite:///mlflow.db";
/// The experiment MLflow uses when none is named.
const DEFAULT_EXPERIMENT: &str = "Default";

/// Starts a pipeline as the environment describes it.
///
/// # Errors
/// `InvalidConfig` naming the variable that is wrong.
pub fn from_env() -> Result<Pipeline, Error> {
    Environment::new().pipeline()
}

/// A pipeline's settings as the environment describes them, to be changed by code before it is
/// built.
///
/// # Errors
/// `InvalidConfig` naming the variable that is wrong.
pub fn builder_from_env() -> Result<PipelineBuilder, Error> {
    Environment::new().builder()
}

/// The destination that the variables name: [`MLFLOW_TRACING_DESTINATION`], else the tracking URI
/// and experiment; `None` if none of them is set. The OTLP variables add a leg only where
/// [`MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT`] says so. Locations find their credentials in `env` too.
///
/// # Errors
/// `InvalidConfig` naming the variable that is wrong.
pub fn destination_from_env(env: &dyn EnvSource) -> Result<Option<Destination>, Error> {
    Environment::from_source(Snapshot::of(env)).destination()
}

/// The environment, and the schemes that its variables may name. [`from_env`] is the short form for
/// the variables of this process and the backends of this build.
///
/// ```
/// use std::sync::Arc;
/// use trace_destination::{Environment, MemoryLocation, TraceLocation, registry};
///
/// // A scheme of one's own: here another name for memory.
/// let registry = registry().with_scheme("mine", |uri| {
///     Ok(Arc::new(MemoryLocation::new(uri.path())) as Arc<dyn TraceLocation>)
/// });
/// // MLFLOW_TRACING_DESTINATION=mine:checkout
/// let pipeline = Environment::new().with_registry(registry).pipeline()?;
/// # drop(pipeline);
/// # Ok::<(), trace_destination::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Environment {
    source: Arc<dyn EnvSource>,
    registry: Registry,
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}

impl Environment {
    /// The variables of this process, with the backends of this build.
    pub fn new() -> Self {
        Self::from_source(ProcessEnv)
    }

    /// Variables from elsewhere, with the backends of this build, which find their credentials there
    /// too.
    pub fn from_source(source: impl EnvSource + 'static) -> Self {
        let source: Arc<dyn EnvSource> = Arc::new(source);
        let registry = registry_with_env(source.clone());
        Self { source, registry }
    }

    /// The schemes that [`MLFLOW_TRACING_DESTINATION`] may name, instead of those of this build:
    /// usually [`registry()`](crate::registry()) with more of them.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// The destination that the variables name, as [`destination_from_env`].
    ///
    /// # Errors
    /// `InvalidConfig` naming the variable that is wrong.
    pub fn destination(&self) -> Result<Option<Destination>, Error> {
        let main = match self.source.var(MLFLOW_TRACING_DESTINATION)? {
            Some(text) => Some(
                self.named(text.trim())
                    .map_err(|e| wrong(MLFLOW_TRACING_DESTINATION, e))?,
            ),
            None => self.experiment(None)?,
        };
        match self.dual_export()? {
            None => Ok(main),
            Some(otlp) => Destination::all(main.into_iter().chain([otlp])).map(Some),
        }
    }

    /// A pipeline's settings, to be changed by code before it is built. What
    /// [`notices`](Self::notices) has is logged, one warning each.
    ///
    /// # Errors
    /// `InvalidConfig` naming the variable that is wrong.
    pub fn builder(&self) -> Result<PipelineBuilder, Error> {
        for notice in self.notices() {
            tracing::warn!("{notice}");
        }
        let builder = Pipeline::builder().with_env(&*self.source)?;
        Ok(match self.destination()? {
            Some(destination) => builder.with_environment(destination),
            None => builder,
        })
    }

    /// Starts a pipeline.
    ///
    /// # Errors
    /// As for [`builder`](Self::builder) and [`PipelineBuilder::build`].
    pub fn pipeline(&self) -> Result<Pipeline, Error> {
        self.builder()?.build()
    }

    /// What is set and has no effect, or probably another one than was meant: variables that look
    /// like a typing error of one that is read, variables of MLflow that have no meaning here, halves
    /// of credentials, quotation marks that are part of a value. A sentence each, without values.
    pub fn notices(&self) -> Vec<String> {
        notices::of(&*self.source)
    }
}

/// The variables that are read, as they were at one moment.
#[derive(Debug)]
struct Snapshot {
    values: BTreeMap<&'static str, Result<Option<String>, Error>>,
    names: Vec<String>,
}

impl Snapshot {
    fn of(env: &dyn EnvSource) -> Self {
        let names = VARIABLES.iter().map(|v| v.name);
        Self {
            values: names.map(|name| (name, env.var(name))).collect(),
            names: env.names(),
        }
    }
}

impl EnvSource for Snapshot {
    fn var(&self, name: &str) -> Result<Option<String>, Error> {
        self.values.get(name).cloned().unwrap_or(Ok(None))
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}

/// Says which variable led to an error, and keeps its kind and its advice.
fn wrong(variable: &str, error: Error) -> Error {
    let named = Error::new(
        error.kind(),
        "read environment",
        format!("{variable}: {}", error.cause().to_owned()),
    );
    let named = match error.location() {
        Some(location) => named.at(location),
        None => named,
    };
    match error.mend_hint() {
        Some(mend) => named.mend(mend.to_owned()),
        None => named,
    }
    .caused_by(error)
}

impl Environment {
    fn named(&self, text: &str) -> Result<Destination, Error> {
        if text.contains(':') || matches!(text, "discard" | "unset") {
            return self.registry.destination(text);
        }
        // What is left is MLflow's own spelling, told apart by its dots as MLflow does.
        match text.split('.').collect::<Vec<_>>().as_slice() {
            [name] if !name.is_empty() && !name.bytes().all(|b| b.is_ascii_digit()) => {
                Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "read environment",
                    format!(
                        "`{}` is neither a URI nor an experiment id",
                        name.escape_debug()
                    ),
                )
                .mend(format!(
                    "set {MLFLOW_EXPERIMENT_NAME} for an experiment by its name, or write a URI"
                )))
            }
            [id] => self.experiment(Some(id))?.ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "read environment",
                    "it names no experiment",
                )
            }),
            // A path is no name of a schema: the parser has the advice.
            _ if text.contains('/') => self.registry.destination(text),
            [.., "db" | "sqlite" | "sqlite3"] => Err(Error::new(
                ErrorKind::InvalidConfig,
                "read environment",
                format!("`{text}` has no scheme, and is as good a file as a schema"),
            )
            .mend(format!(
                "write sqlite:///{text} for a file, or uc://{text} for a schema"
            ))),
            parts @ ([_, _] | [_, _, _]) if parts.iter().all(|p| !p.is_empty()) => {
                self.registry.single(&format!("uc://{text}"))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "read environment",
                format!(
                    "`{}` is neither a URI nor an experiment id nor catalog.schema[.prefix]",
                    text.escape_debug()
                ),
            )
            .mend("write a URI such as sqlite:///mlflow.db?experiment_name=checkout")),
        }
    }

    /// The experiment in the tracking store; `id` is the one named elsewhere.
    fn experiment(&self, id: Option<&str>) -> Result<Option<Destination>, Error> {
        let tracking = self.source.var(MLFLOW_TRACKING_URI)?;
        let (name, id) = match id {
            Some(id) => (None, Some(id.to_owned())),
            None => (
                self.source.var(MLFLOW_EXPERIMENT_NAME)?,
                self.source.var(MLFLOW_EXPERIMENT_ID)?,
            ),
        };
        if tracking.is_none() && name.is_none() && id.is_none() {
            return Ok(None);
        }
        let text = tracking.as_deref().unwrap_or(DEFAULT_TRACKING_URI).trim();
        let in_variable = |e| wrong(MLFLOW_TRACKING_URI, e);
        let unsupported = |mend: &'static str| {
            in_variable(
                Error::new(
                    ErrorKind::Unsupported,
                    "read environment",
                    "this kind of tracking store cannot be written",
                )
                .mend(mend),
            )
        };
        let uri: Result<LocationUri, Error> = text.parse();
        let scheme = uri.as_ref().map_or("", LocationUri::scheme);
        match (scheme, text) {
            ("sqlite" | "http" | "https", _) => {}
            ("databricks", _) | (_, "databricks") => {
                return Err(unsupported(
                    "name the table in MLFLOW_TRACING_DESTINATION: databricks://profile?table=catalog.schema.prefix_otel_spans",
                ));
            }
            ("", _) => {}
            // What no backend understands has an advice of its own.
            _ => {
                return Err(match self.registry.destination(text) {
                    Err(error) => in_variable(error),
                    Ok(_) => unsupported(
                        "put this URI into MLFLOW_TRACING_DESTINATION; here belongs sqlite:///… or the http(s):// URL of a tracking server",
                    ),
                });
            }
        }
        let uri = uri.map_err(in_variable)?;
        let workspace = match uri.scheme() {
            "sqlite" => None,
            _ => self.source.var(MLFLOW_WORKSPACE)?,
        };
        let mut query: Vec<(&str, &str)> = uri.query_pairs().collect();
        for (key, value) in [
            ("experiment_name", name.as_deref()),
            ("experiment_id", id.as_deref()),
            ("workspace", workspace.as_deref()),
        ] {
            if let Some(value) = value {
                query.retain(|(k, _)| *k != key);
                query.push((key, value));
            }
        }
        if !query
            .iter()
            .any(|(k, _)| matches!(*k, "experiment_name" | "experiment_id"))
        {
            query.push(("experiment_name", DEFAULT_EXPERIMENT));
        }
        let uri = LocationUri::from_parts(uri.scheme(), uri.authority(), uri.path(), query)
            .map_err(in_variable)?;
        let location = self.registry.location(&uri).map_err(in_variable)?;
        Ok(Some(Destination::from_location(location)))
    }

    fn dual_export(&self) -> Result<Option<Destination>, Error> {
        if bool_var(&*self.source, MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT)? != Some(true) {
            return Ok(None);
        }
        // The specific variable is the whole address, the general one a base
        // (OpenTelemetry specification 1.50, "OpenTelemetry Protocol Exporter").
        let (variable, endpoint) = match self.source.var(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)? {
            Some(endpoint) => (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, endpoint),
            None => {
                match self.source.var(OTEL_EXPORTER_OTLP_ENDPOINT)? {
                    Some(base) => (
                        OTEL_EXPORTER_OTLP_ENDPOINT,
                        format!("{}/v1/traces", base.trim().trim_end_matches('/')),
                    ),
                    None => {
                        return Err(wrong(
                        MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT,
                        Error::new(
                            ErrorKind::InvalidConfig,
                            "read environment",
                            "there is no OTLP endpoint",
                        )
                        .mend("set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT"),
                    ));
                    }
                }
            }
        };
        let endpoint = endpoint.trim();
        let is_web = endpoint.split_once("://").is_some_and(|(scheme, _)| {
            ["http", "https"]
                .iter()
                .any(|web| scheme.eq_ignore_ascii_case(web))
        });
        // What may hold a secret is not repeated.
        if !is_web && !endpoint.contains(['@', '?', '"', '\'']) && !endpoint.contains("://") {
            // As it was written, where the path was added here.
            let given = match variable {
                OTEL_EXPORTER_OTLP_ENDPOINT => endpoint.trim_end_matches("/v1/traces"),
                _ => endpoint,
            };
            let cause = format!("`{}` has no scheme", given.escape_debug());
            let error = Error::new(ErrorKind::InvalidConfig, "read environment", cause);
            return Err(wrong(variable, error.mend(format!("write http://{given}"))));
        }
        self.registry
            .single(&format!("otlp+{endpoint}"))
            .map(Some)
            .map_err(|e| wrong(variable, e))
    }
}

#[cfg(test)]
mod tests;
