#![no_main]
//! Variables, one `NAME=value` a line: each is understood or refused with its name, twice alike; no
//! secret is shown; a destination is parsed as it prints.
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use trace_destination::{Pipeline, destination_from_env, registry};
use trace_destination_core::{EnvSource, Error, LocationUri, misspelt_vars};
use trace_destination_experiment::ExperimentLocation;
use trace_destination_server::ServerLocation;
use trace_destination_unity_catalog::{CatalogServer, StorageOptions, UnityCatalogLocation};

mod error_text;
use error_text::SECRET;

/// Variables whose values no error repeats.
const SECRETS: [&str; 5] = ["PASSWORD", "TOKEN", "SECRET", "HEADERS", "KEY"];

/// Files without an end or with side effects.
const DEVICES: [&str; 3] = ["/dev", "/proc", "/sys"];

fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !DEVICES.iter().any(|device| value.contains(device)))
        // Paths are shown as they are.
        .filter(|(_, value)| !value.contains(char::is_control))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn answers(env: &dyn EnvSource) -> Vec<Result<String, Error>> {
    let server = |uri: &str| {
        let uri: LocationUri = uri.parse()?;
        let built = ServerLocation::builder()
            .with_uri(&uri)
            .with_env(env)
            .build();
        built.map(|location| format!("{location:?}"))
    };
    let catalog = CatalogServer::from_env(env);
    vec![
        destination_from_env(env).map(|found| found.map(|d| d.to_string()).unwrap_or_default()),
        Pipeline::builder().with_env(env).map(|_| String::new()),
        server("http://h:5000?experiment_name=n"),
        server("otlp+https://h:4318"),
        server("databricks://?table=a.b.c"),
        server("databricks://p?table=a.b.c"),
        catalog.map(|server| format!("{server:?}")),
        StorageOptions::from_env(env).map(|options| format!("{options:?}")),
        UnityCatalogLocation::builder()
            .with_name("a.b.c")
            .with_env(env)
            .build()
            .map(|location| format!("{location:?}")),
        ExperimentLocation::builder()
            .with_env(env)
            .build()
            .map(|location| format!("{location:?}")),
    ]
}

fuzz_target!(|text: &str| {
    let env = variables(text);
    let hidden = env
        .iter()
        .filter(|(_, value)| value.contains(SECRET))
        .all(|(name, _)| SECRETS.iter().any(|part| name.contains(part)));
    let found = answers(&env);
    for answer in &found {
        match answer {
            Ok(shown) => assert!(!hidden || !shown.contains(SECRET), "{shown}"),
            Err(error) if hidden => error_text::check_own(error, &[SECRET]),
            Err(error) => error_text::check_own(error, &[]),
        }
    }
    if let Some(Ok(shown)) = found
        .first()
        .filter(|f| f.as_ref().is_ok_and(|s| !s.is_empty()))
    {
        let again = registry()
            .destination(shown)
            .expect("a destination is parsed as it prints");
        assert_eq!(again.to_string(), *shown);
    }
    let _ = misspelt_vars(&env, &["MLFLOW_TRACKING_URI", "OTEL_BSP_SCHEDULE_DELAY"]);
    // A variable of somebody else changes nothing.
    let mut more = env;
    more.insert("UNRELATED".into(), "x".into());
    let text = |answers: Vec<Result<String, Error>>| -> Vec<String> {
        let shown = answers
            .into_iter()
            .map(|a| a.unwrap_or_else(|e| e.to_string()));
        shown.collect()
    };
    assert_eq!(text(found), text(answers(&more)));
});
