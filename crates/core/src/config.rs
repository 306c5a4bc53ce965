//! Reading the environment: one source, typed values, errors that name the variable.

use crate::error::{Error, ErrorKind};
use crate::suggest;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

/// Where configuration variables come from: the process environment, or a map in tests.
pub trait EnvSource: Debug + Send + Sync {
    /// The value of a variable; `None` if it is absent. An empty value counts as absent, as the
    /// OpenTelemetry specification asks.
    ///
    /// # Errors
    /// `InvalidConfig` if the value is not UTF-8.
    fn var(&self, name: &str) -> Result<Option<String>, Error>;

    /// The names of the variables that are set, where the source can list them: only to notice
    /// typing errors.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl EnvSource for ProcessEnv {
    fn var(&self, name: &str) -> Result<Option<String>, Error> {
        match std::env::var(name) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(e @ std::env::VarError::NotUnicode(_)) => Err(Error::new(
                ErrorKind::InvalidConfig,
                "read environment",
                format!("{name} is not UTF-8"),
            )
            .caused_by(e)),
        }
    }

    fn names(&self) -> Vec<String> {
        let names = std::env::vars_os().map(|(name, _)| name.into_string());
        names.filter_map(Result::ok).collect()
    }
}

/// A fixed set of variables.
impl EnvSource for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.get(name).filter(|v| !v.is_empty()).cloned())
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Variables of OpenTelemetry that look like a typing error of one that is read here, and are none
/// (specification 1.50, "Environment Variable Specification").
const OTHERS: [&str; 2] = [
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_SCHEDULE_DELAY",
];

/// Beginnings of variables in which typing errors are looked for.
const FAMILIES: [&str; 4] = ["MLFLOW_", "OTEL_", "DATABRICKS_", "UNITY_CATALOG_"];

/// Beginnings of variables that are about tracing only: one that is not read was meant to be another.
const OF_TRACING: [&str; 4] = [
    "MLFLOW_TRACE_",
    "MLFLOW_TRACING_",
    "MLFLOW_TRACKING_",
    "UNITY_CATALOG_",
];

/// The variables that are set and look like a typing error of one that is read, each with the name
/// that was probably meant, and those that begin as variables of tracing do, each with the nearest
/// one that is read. Only names that begin with `MLFLOW_`, `OTEL_`, `DATABRICKS_` or
/// `UNITY_CATALOG_` are looked at, in upper or lower case.
pub fn misspelt_vars<'a>(env: &dyn EnvSource, read: &[&'a str]) -> Vec<(String, &'a str)> {
    let meant = |name: &str| {
        let upper = name.to_ascii_uppercase();
        if read.contains(&name) || OTHERS.contains(&name) {
            return None;
        }
        let begins = |with: &[&str]| with.iter().any(|begin| upper.starts_with(begin));
        if !begins(&FAMILIES) {
            return None;
        }
        let same = read.iter().copied().find(|read| *read == upper);
        let near = same.or_else(|| suggest::nearest(&upper, read.iter().copied()));
        match near {
            None if begins(&OF_TRACING) => suggest::likest(&upper, read.iter().copied()),
            near => near,
        }
    };
    let names = env.names().into_iter();
    names
        .filter_map(|name| Some((meant(&name)?, name)))
        .map(|(near, name)| (name, near))
        .collect()
}

/// What to write instead of a parameter that is unknown: the one it is a typing error of, and all that
/// are known.
pub fn mend_of_parameter(unknown: &str, known: &[&str]) -> String {
    let all = format!("use one of {}", known.join(", "));
    let part = |k: &&&str| unknown.len() > 3 && k.contains(unknown);
    let near = suggest::nearest(unknown, known.iter().copied());
    match near.or_else(|| known.iter().find(part).copied()) {
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

/// Warns once of each of the [`misspelt_vars`]; values are not repeated.
pub fn warn_of_misspelt_vars(env: &dyn EnvSource, read: &[&str]) {
    for (name, near) in misspelt_vars(env, read) {
        tracing::warn!(
            variable = name,
            "the variable is not read; did you mean {near}?"
        );
    }
}

/// Reads a variable of any type that parses from text.
///
/// # Errors
/// `InvalidConfig` naming the variable, its value and what was expected.
pub fn parse_var<T>(env: &dyn EnvSource, name: &str, expected: &str) -> Result<Option<T>, Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Some(value) = env.var(name)? else {
        return Ok(None);
    };
    value.trim().parse().map(Some).map_err(|e: T::Err| {
        Error::new(
            ErrorKind::InvalidConfig,
            "read environment",
            format!("{name}={value:?} is not {expected}"),
        )
        .mend("correct the variable or unset it")
        .caused_by(e)
    })
}

/// Reads a boolean as MLflow does (`mlflow/environment_variables.py`, 3.17.2): `true`/`1` and
/// `false`/`0` in any case.
///
/// # Errors
/// `InvalidConfig` for any other value.
pub fn bool_var(env: &dyn EnvSource, name: &str) -> Result<Option<bool>, Error> {
    match env.var(name)? {
        None => Ok(None),
        Some(v) => match v.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "read environment",
                format!("{name}={v:?} is not true, false, 1 or 0"),
            )
            .mend("correct the variable or unset it")),
        },
    }
}

/// Reads a number of milliseconds.
///
/// # Errors
/// `InvalidConfig` for anything that is not a whole number.
pub fn millis_var(env: &dyn EnvSource, name: &str) -> Result<Option<Duration>, Error> {
    Ok(parse_var(env, name, "a whole number of milliseconds")?.map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("NAME".to_owned(), value.to_owned())])
    }

    #[test]
    fn typing_errors_of_names_are_noticed_and_other_names_are_not() {
        let read = [
            "MLFLOW_TRACKING_URI",
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_EXPERIMENT_ID",
            "OTEL_BSP_SCHEDULE_DELAY",
        ];
        for (name, near) in [
            ("MLFLOW_EXPERIMENT_NAM", Some("MLFLOW_EXPERIMENT_NAME")),
            ("MLFLOW_TRACKING_URL", Some("MLFLOW_TRACKING_URI")),
            ("MLFLOW_TRAKCING_URI", Some("MLFLOW_TRACKING_URI")),
            ("MLFLOW_TRACKING_URI", None),
            ("MLFLOW_REGISTRY_URI", None),
            ("OTEL_BLRP_SCHEDULE_DELAY", None),
            ("OTEL_BSP_SCHEDULE_DELY", Some("OTEL_BSP_SCHEDULE_DELAY")),
            ("MY_TRACKING_URI", None),
            ("mlflow_tracking_uri", Some("MLFLOW_TRACKING_URI")),
            ("MLFLOW_TRACKING_ADDRESS", Some("MLFLOW_TRACKING_URI")),
            ("MLFLOW_TRACKING_HTTP_TIMEOUT", Some("MLFLOW_TRACKING_URI")),
            ("otel_bsp_schedule_delay", Some("OTEL_BSP_SCHEDULE_DELAY")),
            ("OTEL_SERVICE_NAME", None),
            ("http_proxy", None),
        ] {
            let env = BTreeMap::from([(name.to_owned(), "secret".to_owned())]);
            let found = misspelt_vars(&env, &read);
            assert_eq!(found.first().map(|(_, near)| *near), near, "{name}");
        }
    }

    #[test]
    fn absent_and_empty_are_the_same() {
        for env in [BTreeMap::new(), env("")] {
            assert_eq!(env.var("NAME").unwrap(), None);
            assert_eq!(bool_var(&env, "NAME").unwrap(), None);
            assert_eq!(millis_var(&env, "NAME").unwrap(), None);
        }
    }

    #[test]
    fn values_parse_and_errors_name_variable_value_and_expectation() {
        assert_eq!(
            millis_var(&env(" 250 "), "NAME").unwrap(),
            Some(Duration::from_millis(250))
        );
        for (text, value) in [
            ("true", true),
            ("TRUE", true),
            ("1", true),
            ("0", false),
            ("False", false),
        ] {
            assert_eq!(bool_var(&env(text), "NAME").unwrap(), Some(value));
        }
        for bad in ["-1", "1.5", "1s"] {
            let error = millis_var(&env(bad), "NAME").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let text = error.to_string();
            assert!(
                text.contains("NAME") && text.contains(bad) && text.contains("milliseconds"),
                "{text}"
            );
        }
        assert!(
            bool_var(&env("yes"), "NAME")
                .unwrap_err()
                .to_string()
                .contains("NAME")
        );
    }
}
