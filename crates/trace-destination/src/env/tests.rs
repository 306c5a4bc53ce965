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

#[test]
fn a_scheme_of_ones_own_is_understood_where_a_registry_is_passed_in() {
    let registry = crate::registry().with_scheme("mine", |uri| {
        let location = trace_destination_core::MemoryLocation::new(uri.path());
        Ok(Arc::new(location) as Arc<dyn trace_destination_core::TraceLocation>)
    });
    let source = env(&[(MLFLOW_TRACING_DESTINATION, "mine:a,memory:b")]);
    let plain = Environment::from_source(source.clone());
    let error = plain.destination().unwrap_err().to_string();
    assert!(error.contains("no backend understands `mine:`"), "{error}");
    let with = Environment::from_source(source).with_registry(registry);
    let pipeline = with.pipeline().unwrap();
    let to = pipeline.resolve(&opentelemetry::Context::new()).unwrap();
    assert_eq!(to, with.destination().unwrap().unwrap());
    assert_eq!(to.to_string(), "memory:a,memory:b");
}

#[test]
fn what_has_no_effect_is_told_once_without_its_value() {
    for (vars, told) in [
        (
            vec![("MLFLOW_EXPERIMENT_NAM", "hunter2")],
            "did you mean MLFLOW_EXPERIMENT_NAME?",
        ),
        (
            vec![("MLFLOW_TRACKING_URL", "hunter2")],
            "did you mean MLFLOW_TRACKING_URI?",
        ),
        (
            vec![("mlflow_run_id", "hunter2")],
            "did you mean MLFLOW_RUN_ID?",
        ),
        (
            vec![("MLFLOW_TRACE_SAMPLE_RATE", "hunter2")],
            "did you mean MLFLOW_TRACE_SAMPLING_RATIO?",
        ),
        (vec![("UNITY_CATALOG_PASSWORD", "hunter2")], "is not read"),
        (
            vec![("MLFLOW_TRACE_TIMEOUT_SECONDS", "hunter2")],
            "with_max_trace_age",
        ),
        (
            vec![("MLFLOW_TRACKING_USERNAME", "hunter2")],
            "MLFLOW_TRACKING_PASSWORD is not",
        ),
        (
            vec![("MLFLOW_EXPERIMENT_NAME", "\"hunter2\"")],
            "quotation marks",
        ),
        (vec![("MLFLOW_TRACKING_TOKEN", "hunter2\n")], "line breaks"),
        (
            vec![(OTEL_EXPORTER_OTLP_ENDPOINT, "http://hunter2")],
            "chooses no destination",
        ),
        (
            vec![
                (MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, "true"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
            "http/protobuf",
        ),
    ] {
        let notices = Environment::from_source(env(&vars)).notices();
        assert_eq!(notices.len(), 1, "{vars:?}: {notices:?}");
        assert!(notices[0].contains(told), "{notices:?}");
        assert!(!notices[0].contains("hunter2"), "{notices:?}");
    }
    for none in [
        vec![
            ("MLFLOW_TRACKING_URI", "sqlite:///x.db"),
            ("MLFLOW_REGISTRY_URI", "x"),
        ],
        vec![
            ("OTEL_SERVICE_NAME", "x"),
            ("http_proxy", "http://p:1"),
            ("PATH", "'x'"),
        ],
        vec![
            ("MLFLOW_TRACING_SQL_WAREHOUSE_ID", "x"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "1"),
        ],
        vec![
            (OTEL_EXPORTER_OTLP_ENDPOINT, "http://h:4318"),
            (MLFLOW_EXPERIMENT_NAME, "x"),
        ],
        vec![
            ("MLFLOW_TRACKING_USERNAME", "a"),
            ("MLFLOW_TRACKING_PASSWORD", "b"),
        ],
    ] {
        let notices = Environment::from_source(env(&none)).notices();
        assert!(notices.is_empty(), "{none:?}: {notices:?}");
    }
}

#[cfg(all(feature = "experiment", feature = "server", feature = "unity-catalog"))]
mod matrix;
