//! What is set in the environment and has no effect, or another one than was meant.

use super::variables::{OF_OTHERS, UNREAD, VARIABLES, Value};
use super::{
    MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, MLFLOW_TRACING_DESTINATION, MLFLOW_TRACKING_URI,
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
};
use trace_destination_core::{EnvSource, bool_var, misspelt_vars};

/// Both are needed: one alone is not sent.
const HALVES: [[&str; 2]; 2] = [
    ["MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"],
    ["DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"],
];

/// How the OpenTelemetry specification names the way spans are sent here.
const PROTOCOL: &str = "http/protobuf";

/// A sentence for each, without values.
pub(super) fn of(env: &dyn EnvSource) -> Vec<String> {
    let mut found = Vec::new();
    let is_set = |name: &str| matches!(env.var(name), Ok(Some(_)));
    let known = |name: &str| OF_OTHERS.contains(&name) || UNREAD.iter().any(|(n, _)| *n == name);
    let read: Vec<&str> = VARIABLES.iter().map(|v| v.name).collect();
    for (name, near) in misspelt_vars(env, &read) {
        if !known(&name) {
            found.push(format!(
                "{name} is set and is not read; did you mean {near}?"
            ));
        }
    }
    let names = env.names();
    for (name, advice) in UNREAD {
        if names.iter().any(|n| n == name) && is_set(name) {
            found.push(format!("{name} is set and has no effect here: {advice}"));
        }
    }
    for [one, other] in HALVES {
        for (set, unset) in [(one, other), (other, one)] {
            if is_set(set) && !is_set(unset) {
                found.push(format!("{set} is set and {unset} is not: both are needed"));
            }
        }
    }
    for variable in VARIABLES {
        if let Ok(Some(value)) = env.var(variable.name)
            && let Some(what) = surrounded(variable.value, &value)
        {
            let name = variable.name;
            found.push(format!(
                "{name} has {what} around its value, which are part of it: leave them out"
            ));
        }
    }
    let endpoints = [
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        OTEL_EXPORTER_OTLP_ENDPOINT,
    ];
    let dual = bool_var(env, MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT);
    let has_destination = super::CHOOSING.into_iter().any(is_set);
    if let (Some(endpoint), Ok(None | Some(false))) =
        (endpoints.into_iter().find(|e| is_set(e)), &dual)
        && !has_destination
    {
        found.push(format!(
            "{endpoint} alone chooses no destination, and neither {MLFLOW_TRACING_DESTINATION} nor \
             {MLFLOW_TRACKING_URI} is set: write {MLFLOW_TRACING_DESTINATION}=otlp+http://host:4318"
        ));
    }
    for protocol in [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ] {
        if let (Ok(Some(value)), Ok(Some(true))) = (env.var(protocol), &dual)
            && value.trim() != PROTOCOL
        {
            found.push(format!(
                "{protocol} has no effect here: spans are sent as {PROTOCOL}, whose port is usually \
                 4318"
            ));
        }
    }
    found
}

/// What is around a value that is taken as it is.
fn surrounded(kind: Value, value: &str) -> Option<&'static str> {
    let is_taken_as_it_is = matches!(
        kind,
        Value::Text | Value::Secret | Value::Pem | Value::File | Value::Folder | Value::Headers
    );
    if !is_taken_as_it_is {
        return None;
    }
    let quoted = |mark| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
    match value {
        _ if quoted('"') || quoted('\'') => Some("quotation marks"),
        _ if value.trim() != value => Some("blanks or line breaks"),
        _ => None,
    }
}
