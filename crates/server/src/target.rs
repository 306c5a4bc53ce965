//! What a location names, checked.

use crate::databricks::Table;
use crate::options::MissingExperiment;
use trace_destination_core::LocationUri;

/// What a location names, checked.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) uri: LocationUri,
    /// Where requests go: scheme, host and path of the server, or of the OTLP endpoint itself.
    pub(crate) base: String,
    pub(crate) family: Family,
}

/// What kind of server it is.
#[derive(Debug)]
pub(crate) enum Family {
    Mlflow {
        experiment: Experiment,
        workspace: Option<String>,
    },
    Otlp,
    Databricks {
        table: Table,
    },
}

/// The experiment as it was named; at least one of name and id is given.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) missing: MissingExperiment,
}
