#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod env;
mod template;

#[doc(inline)]
pub use trace_destination_core::*;

pub use env::{
    Environment, MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME,
    MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT, MLFLOW_TRACING_DESTINATION, MLFLOW_TRACKING_URI,
    MLFLOW_WORKSPACE, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    builder_from_env, destination_from_env, from_env,
};

#[cfg(feature = "experiment")]
#[doc(inline)]
pub use trace_destination_experiment as experiment;

#[cfg(feature = "server")]
#[doc(inline)]
pub use trace_destination_server as server;

#[cfg(feature = "tower")]
#[doc(inline)]
pub use trace_destination_tower as tower;

#[cfg(feature = "unity-catalog")]
#[doc(inline)]
pub use trace_destination_unity_catalog as unity_catalog;

pub use template::Template;

use std::sync::Arc;

/// Every scheme this build understands, and for those it does not, the feature that brings them.
/// Locations find their credentials in the environment of this process. A program with its own sink
/// adds its scheme: see [`Environment::with_registry`].
pub fn registry() -> Registry {
    registry_with_env(Arc::new(ProcessEnv))
}

/// As [`registry`], with the variables of locations from elsewhere.
pub fn registry_with_env(env: Arc<dyn EnvSource>) -> Registry {
    let registry = Registry::new()
        .with_scheme("memory", |uri| {
            MemoryLocation::from_uri(uri).map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
        })
        .with_holes("memory", MemoryLocation::holes())
        .with_absent_scheme("http", SERVER)
        .with_absent_scheme("https", SERVER)
        .with_absent_scheme("otlp+http", SERVER)
        .with_absent_scheme("otlp+https", SERVER)
        .with_absent_scheme("databricks", SERVER)
        .with_absent_scheme("uc", UNITY_CATALOG)
        .with_absent_scheme("sqlite", EXPERIMENT);
    #[cfg(feature = "experiment")]
    let registry = registry
        .with_scheme("sqlite", |uri| {
            experiment::ExperimentLocation::from_uri(uri)
                .map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
        })
        .with_holes("sqlite", experiment::ExperimentLocation::holes());
    #[cfg(feature = "server")]
    let registry = server::SCHEMES
        .into_iter()
        .fold(registry, |registry, scheme| {
            let env = env.clone();
            registry
                .with_scheme(scheme, move |uri| {
                    let builder = server::ServerLocation::builder().with_uri(uri);
                    let location = builder.with_env(&*env).build()?;
                    Ok(Arc::new(location) as Arc<dyn TraceLocation>)
                })
                .with_holes(scheme, server::ServerLocation::holes(scheme))
        });
    #[cfg(feature = "unity-catalog")]
    let registry = registry
        .with_scheme(unity_catalog::SCHEME, move |uri| {
            let builder = unity_catalog::UnityCatalogLocation::builder().with_uri(uri);
            let location = builder.with_env(&*env).build()?;
            Ok(Arc::new(location) as Arc<dyn TraceLocation>)
        })
        .with_holes(
            unity_catalog::SCHEME,
            unity_catalog::UnityCatalogLocation::holes(),
        );
    #[cfg(not(any(feature = "server", feature = "unity-catalog")))]
    drop(env);
    registry
}

const EXPERIMENT: &str = "build with the cargo feature `experiment` of trace-destination";
const SERVER: &str = "build with the cargo feature `server` of trace-destination";
const UNITY_CATALOG: &str = "build with the cargo feature `unity-catalog` of trace-destination";

/// The destination a list of URIs names, separated by commas; `discard` and `unset` stand alone.
/// For configuration: an environment variable, a file, a command line. A tenant's name never
/// belongs into its text: see [`Template`].
///
/// ```
/// let destination = trace_destination::destination("memory:checkout,memory:audit")?;
/// assert_eq!(destination.locations().len(), 2);
/// # Ok::<(), trace_destination::Error>(())
/// ```
///
/// # Errors
/// `InvalidConfig` for a malformed URI, a scheme no backend of this build understands, or a set
/// that cannot be combined.
pub fn destination(uris: &str) -> Result<Destination, Error> {
    registry().destination(uris)
}

/// The destination one URI names, with exactly one location. A list, `discard` and `unset` are
/// refused.
///
/// ```
/// let destination = trace_destination::location("memory:checkout")?;
/// assert_eq!(destination.locations().len(), 1);
/// assert!(trace_destination::location("memory:checkout,memory:audit").is_err());
/// # Ok::<(), trace_destination::Error>(())
/// ```
///
/// # Errors
/// `InvalidConfig` for anything but one URI that a backend of this build understands.
pub fn location(uri: &str) -> Result<Destination, Error> {
    registry().single(uri)
}

/// The programs of the pages are compiled.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../docs/multi-tenant.md")]
    struct MultiTenant;
    #[doc = include_str!("../docs/operate.md")]
    struct Operate;
    #[cfg(feature = "server")]
    #[doc = include_str!("../docs/server.md")]
    struct Server;
    #[doc = include_str!("../docs/tracing.md")]
    struct Tracing;
    #[cfg(feature = "unity-catalog")]
    #[doc = include_str!("../docs/unity-catalog.md")]
    struct UnityCatalog;
}
