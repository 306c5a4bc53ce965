//! The environment as the lowest scope: MLflow's variables, read once.

use crate::registry;
use trace_destination_core::{
    Destination, EnvSource, Error, ErrorKind, LocationUri, MLFLOW_RUN_ID,
    MLFLOW_TRACE_SAMPLING_RATIO, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY, Pipeline,
    PipelineBuilder, ProcessEnv, bool_var, warn_of_misspelt_vars,
};

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

/// The variables that this build reads when a pipeline is made, and those that its locations read.
const READ: [&str; 15] = [
    MLFLOW_TRACING_DESTINATION,
    MLFLOW_TRACKING_URI,
    MLFLOW_EXPERIMENT_NAME,
    MLFLOW_EXPERIMENT_ID,
    MLFLOW_WORKSPACE,
    MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    MLFLOW_TRACE_SAMPLING_RATIO,
    MLFLOW_RUN_ID,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
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
    builder_from_env()?.build()
}

/// A pipeline's settings as the environment describes them, to be changed by code before it is
/// built.
///
/// # Errors
/// `InvalidConfig` naming the variable that is wrong.
pub fn builder_from_env() -> Result<PipelineBuilder, Error> {
    warn_of_misspelt_vars(&ProcessEnv, &READ);
    let builder = Pipeline::builder().with_env(&ProcessEnv)?;
    Ok(match destination_from_env(&ProcessEnv)? {
        Some(destination) => builder.with_environment(destination),
        None => builder,
    })
}

/// The destination that the variables name: [`MLFLOW_TRACING_DESTINATION`], else the tracking URI
/// and experiment; `None` if none of them is set. The OTLP variables add a leg only where
/// [`MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT`] says so.
///
/// # Errors
/// `InvalidConfig` naming the variable that is wrong.
pub fn destination_from_env(env: &dyn EnvSource) -> Result<Option<Destination>, Error> {
    let main = match env.var(MLFLOW_TRACING_DESTINATION)? {
        Some(text) => {
            Some(named(env, text.trim()).map_err(|e| wrong(MLFLOW_TRACING_DESTINATION, e))?)
        }
        None => experiment_of(env, None)?,
    };
    match dual_export(env)? {
        None => Ok(main),
        Some(otlp) => Destination::all(main.into_iter().chain([otlp])).map(Some),
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

fn named(env: &dyn EnvSource, text: &str) -> Result<Destination, Error> {
    if text.contains(':') || matches!(text, "discard" | "unset") {
        return registry().destination(text);
    }
    // What is left is MLflow's own spelling, told apart by its dots as MLflow does.
    match text.split('.').collect::<Vec<_>>().as_slice() {
        [id] => experiment_of(env, Some(id))?.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                "read environment",
                "it names no experiment",
            )
        }),
        parts @ ([_, _] | [_, _, _]) if parts.iter().all(|p| !p.is_empty()) => {
            registry().single(&format!("uc://{text}"))
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
fn experiment_of(env: &dyn EnvSource, id: Option<&str>) -> Result<Option<Destination>, Error> {
    let tracking = env.var(MLFLOW_TRACKING_URI)?;
    let (name, id) = match id {
        Some(id) => (None, Some(id.to_owned())),
        None => (
            env.var(MLFLOW_EXPERIMENT_NAME)?,
            env.var(MLFLOW_EXPERIMENT_ID)?,
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
    let scheme = text
        .split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match scheme.as_str() {
        "sqlite" | "http" | "https" => {}
        "databricks" => {
            return Err(unsupported(
                "name the table in MLFLOW_TRACING_DESTINATION: databricks://profile?table=catalog.schema.prefix_otel_spans",
            ));
        }
        _ => {
            return Err(unsupported(
                "use sqlite:///… or the http(s):// URL of a tracking server",
            ));
        }
    }
    let uri: LocationUri = text.parse().map_err(in_variable)?;
    let workspace = match scheme.as_str() {
        "sqlite" => None,
        _ => env.var(MLFLOW_WORKSPACE)?,
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
    let location = registry().location(&uri).map_err(in_variable)?;
    Ok(Some(Destination::from_location(location)))
}

fn dual_export(env: &dyn EnvSource) -> Result<Option<Destination>, Error> {
    if bool_var(env, MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT)? != Some(true) {
        return Ok(None);
    }
    // The specific variable is the whole address, the general one a base
    // (OpenTelemetry specification 1.50, "OpenTelemetry Protocol Exporter").
    let (variable, endpoint) = match env.var(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)? {
        Some(endpoint) => (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, endpoint),
        None => match env.var(OTEL_EXPORTER_OTLP_ENDPOINT)? {
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
        },
    };
    registry()
        .single(&format!("otlp+{}", endpoint.trim()))
        .map(Some)
        .map_err(|e| wrong(variable, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn env(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        vars.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn resolved(vars: &[(&str, &str)]) -> Option<String> {
        destination_from_env(&env(vars))
            .unwrap()
            .map(|d| d.to_string())
    }

    #[test]
    fn nothing_set_is_no_destination() {
        assert_eq!(resolved(&[]), None);
        assert_eq!(resolved(&[(MLFLOW_TRACING_DESTINATION, "")]), None);
        // The OTLP variables never choose a destination by themselves.
        assert_eq!(
            resolved(&[(OTEL_EXPORTER_OTLP_ENDPOINT, "http://127.0.0.1:4318")]),
            None
        );
    }

    #[test]
    fn a_list_of_uris() {
        assert_eq!(
            resolved(&[(MLFLOW_TRACING_DESTINATION, "memory:b, memory:a")]).unwrap(),
            "memory:a,memory:b"
        );
        assert_eq!(
            resolved(&[(MLFLOW_TRACING_DESTINATION, "discard")]).unwrap(),
            "discard"
        );
    }

    #[cfg(feature = "experiment")]
    #[test]
    fn mlflow_spellings() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("mlflow.db");
        let store = format!("sqlite:///{}", file.display());
        let with = |vars: &[(&str, &str)]| {
            let mut all = vec![(MLFLOW_TRACKING_URI, store.as_str())];
            all.extend_from_slice(vars);
            resolved(&all).unwrap()
        };
        assert_eq!(
            with(&[(MLFLOW_TRACING_DESTINATION, "7")]),
            format!("{store}?experiment_id=7")
        );
        assert_eq!(
            with(&[(MLFLOW_EXPERIMENT_NAME, "a b")]),
            format!("{store}?experiment_name=a%20b")
        );
        assert_eq!(with(&[]), format!("{store}?experiment_name=Default"));
        assert_eq!(
            with(&[(MLFLOW_EXPERIMENT_NAME, "x"), (MLFLOW_EXPERIMENT_ID, "3")]),
            format!("{store}?experiment_id=3&experiment_name=x")
        );
    }

    #[cfg(feature = "server")]
    #[test]
    fn servers() {
        let server = (MLFLOW_TRACKING_URI, "http://127.0.0.1:5000/base/");
        let name = (MLFLOW_EXPERIMENT_NAME, "a b");
        assert_eq!(
            resolved(&[server, name, (MLFLOW_WORKSPACE, "team")]).unwrap(),
            "http://127.0.0.1:5000/base?experiment_name=a%20b&workspace=team"
        );
        assert_eq!(
            resolved(&[server, (MLFLOW_TRACING_DESTINATION, "7")]).unwrap(),
            "http://127.0.0.1:5000/base?experiment_id=7"
        );
        // Both at once: the experiment, and the endpoint as an extra leg.
        assert_eq!(
            resolved(&[
                server,
                name,
                (MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "true"),
                (OTEL_EXPORTER_OTLP_ENDPOINT, "http://127.0.0.1:4318/"),
            ])
            .unwrap(),
            "http://127.0.0.1:5000/base?experiment_name=a%20b,otlp+http://127.0.0.1:4318"
        );
        let destination = "otlp+https://h:4318/own/path";
        assert_eq!(
            resolved(&[(MLFLOW_TRACING_DESTINATION, destination)]).unwrap(),
            destination
        );
    }

    #[cfg(feature = "unity-catalog")]
    #[test]
    fn tables_by_their_bare_names() {
        for (bare, table) in [
            ("main.traces.shop", "main.traces.shop"),
            ("main.traces", "main.traces"),
            (" uc://main.traces.shop?root=/srv/lake ", "main.traces.shop"),
        ] {
            let text = resolved(&[(MLFLOW_TRACING_DESTINATION, bare)]).unwrap();
            assert!(text.starts_with(&format!("uc://{table}?root=/")), "{text}");
        }
    }

    /// Only [`MLFLOW_TRACING_DESTINATION`] is a list: no other variable adds a place.
    #[test]
    fn a_comma_adds_no_destination_elsewhere() {
        for vars in [
            vec![
                (MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "true"),
                (
                    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
                    "http://127.0.0.1:4318/v1/traces,memory:other",
                ),
            ],
            vec![
                (MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "true"),
                (
                    OTEL_EXPORTER_OTLP_ENDPOINT,
                    "http://127.0.0.1:4318/x?y=,memory:other",
                ),
            ],
            vec![(MLFLOW_TRACING_DESTINATION, "main.traces,discard")],
        ] {
            let error = destination_from_env(&env(&vars)).unwrap_err().to_string();
            let (variable, _) = vars[vars.len() - 1];
            assert!(error.contains(variable), "{error}");
            assert!(error.contains("a comma"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_variable_and_the_mend() {
        for (vars, variable, mend) in [
            (
                vec![(MLFLOW_TRACING_DESTINATION, "a.b.c.d")],
                MLFLOW_TRACING_DESTINATION,
                "sqlite:///",
            ),
            #[cfg(not(feature = "unity-catalog"))]
            (
                vec![(MLFLOW_TRACING_DESTINATION, "a.b")],
                MLFLOW_TRACING_DESTINATION,
                "unity-catalog",
            ),
            #[cfg(feature = "unity-catalog")]
            (
                vec![(MLFLOW_TRACING_DESTINATION, "a.b$")],
                MLFLOW_TRACING_DESTINATION,
                "uc://catalog.schema.prefix",
            ),
            (
                vec![(MLFLOW_TRACING_DESTINATION, "nope:x")],
                MLFLOW_TRACING_DESTINATION,
                "memory:",
            ),
            (
                vec![(MLFLOW_TRACKING_URI, "./mlruns")],
                MLFLOW_TRACKING_URI,
                "sqlite:///",
            ),
            (
                vec![(MLFLOW_TRACKING_URI, "databricks")],
                MLFLOW_TRACKING_URI,
                "table=",
            ),
            #[cfg(not(feature = "server"))]
            (
                vec![(MLFLOW_TRACKING_URI, "http://127.0.0.1:5000")],
                MLFLOW_TRACKING_URI,
                "server",
            ),
            (
                vec![(MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "true")],
                MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT,
                "ENDPOINT",
            ),
            (
                vec![(MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "maybe")],
                MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT,
                "unset",
            ),
        ] {
            let error = destination_from_env(&env(&vars)).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
            assert!(error.contains(mend), "{error}");
        }
    }
}
