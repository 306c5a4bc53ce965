//! Locations from parts and from the environment.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{
    Capabilities, EnvSource, Error, ErrorKind, Guarantee, LocationUri, Registry, TraceLocation,
};
use trace_destination_experiment::{ExperimentLocation, MissingExperiment, SCHEME, Synchronous};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<String, Error> {
    let env = env(pairs);
    let env: &dyn EnvSource = &env;
    let location = ExperimentLocation::builder().with_env(env).build()?;
    Ok(location.to_string())
}

#[test]
fn the_environment_gives_file_and_experiment() {
    let tracking = ("MLFLOW_TRACKING_URI", "sqlite:////data/m.db");
    assert_eq!(
        from_env(&[tracking, ("MLFLOW_EXPERIMENT_NAME", "a b")]).unwrap(),
        "sqlite:////data/m.db?experiment_name=a%20b"
    );
    assert_eq!(
        from_env(&[tracking, ("MLFLOW_EXPERIMENT_ID", "3")]).unwrap(),
        "sqlite:////data/m.db?experiment_id=3"
    );
    for (pairs, says) in [
        (&[tracking][..], "no experiment is given"),
        (
            &[
                ("MLFLOW_EXPERIMENT_ID", "3"),
                ("MLFLOW_TRACKING_URI", "http://h"),
            ],
            "no database file is given",
        ),
        (
            &[
                ("MLFLOW_EXPERIMENT_ID", "3"),
                ("MLFLOW_TRACKING_URI", "sqlite://h/x.db"),
            ],
            "MLFLOW_TRACKING_URI does not name a database file",
        ),
        (
            &[tracking, ("MLFLOW_EXPERIMENT_ID", "x")],
            "no experiment id",
        ),
    ] {
        let error = from_env(pairs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn code_beats_the_environment() {
    let env = env(&[
        ("MLFLOW_TRACKING_URI", "sqlite:////data/m.db"),
        ("MLFLOW_EXPERIMENT_NAME", "theirs"),
    ]);
    let location = ExperimentLocation::builder()
        .with_experiment_id("7")
        .with_env(&env)
        .build()
        .unwrap();
    assert_eq!(
        location.uri().as_str(),
        "sqlite:////data/m.db?experiment_id=7"
    );
    assert_eq!(
        (location.experiment_id(), location.experiment_name()),
        (Some(7), None)
    );
}

#[test]
fn parts_and_uri_name_the_same_place() {
    let dir = TempDir::new().unwrap();
    let built = ExperimentLocation::builder()
        .with_path(dir.path().join("x.db"))
        .with_experiment_name("a")
        .with_missing(MissingExperiment::Fail)
        .with_synchronous(Synchronous::Full)
        .with_artifact_root("s3://bucket/m/")
        .build()
        .unwrap();
    let registry = Registry::new().with_scheme(SCHEME, |uri: &LocationUri| {
        Ok(std::sync::Arc::new(ExperimentLocation::from_uri(uri)?))
    });
    let parsed = registry.location(built.uri()).unwrap();
    assert_eq!(parsed.uri(), built.uri());
    assert_eq!(parsed.to_string(), built.uri().as_str());
    assert_eq!(format!("{built:?}"), format!("ExperimentLocation({built})"));
}

#[test]
fn two_experiments_of_one_file_are_one_exclusive_store() {
    let dir = TempDir::new().unwrap();
    let store = |l: ExperimentLocation| -> Capabilities { l.capabilities() };
    let (a, b) = (
        store(at(&dir.path().join("x.db"), "a")),
        store(at(&dir.path().join("./x.db"), "b")),
    );
    assert_eq!(a.guarantee, Guarantee::Idempotent);
    assert!(a.exclusive_store.is_some());
    assert_eq!(a.exclusive_store, b.exclusive_store);
}

#[test]
fn the_artifact_root_is_the_given_one_or_the_files_own() {
    for (given, default, expected) in [
        (
            Some("s3://bucket/m/"),
            Some("mlflow-artifacts:/0"),
            "s3://bucket/m/1",
        ),
        (None, Some("mlflow-artifacts:/0"), "mlflow-artifacts:/1"),
        (None, Some("/somewhere/mlruns/0"), "/somewhere/mlruns/1"),
        (None, Some("/moved"), "<dir>/mlruns/1"),
    ] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().canonicalize().unwrap().join("x.db");
        let conn = made_by_mlflow(&path, HEAD);
        conn.execute("UPDATE experiments SET artifact_location = ?1", [default])
            .unwrap();
        drop(conn);
        let mut builder = ExperimentLocation::builder()
            .with_path(&path)
            .with_experiment_name("a");
        if let Some(root) = given {
            builder = builder.with_artifact_root(root);
        }
        run(store(&builder.build().unwrap(), &batch(conversation(1)))).unwrap();
        let folder = path.parent().unwrap().to_str().unwrap();
        assert_eq!(
            texts(
                &path,
                "SELECT artifact_location FROM experiments WHERE name = 'a'"
            ),
            [expected.replace("<dir>", folder)]
        );
    }
}
