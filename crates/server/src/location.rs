//! The location: a value that names a place on a server, and opens it.

use crate::access::Access;
use crate::builder::ServerLocationBuilder;
use crate::databricks::{self, DatabricksSink};
use crate::error::{Fault, FaultExt as _, OPEN};
use crate::export::Tries;
use crate::holes;
use crate::host::Host;
use crate::mlflow::{MlflowSink, TraceMemory};
use crate::otlp::{OtlpSink, takes_nothing};
use crate::target::{Experiment, Family, Target};
use crate::transport::Transport;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{
    Capabilities, Error, Guarantee, Hole, LocationUri, ProcessEnv, TraceLocation, TraceSink,
    TraceValueLimits, TraceValues,
};

/// A place on a server: an experiment of an MLflow tracking server, a table behind Databricks'
/// OTLP ingest, or an OTLP endpoint.
///
/// ```
/// use trace_destination_core::LocationUri;
/// use trace_destination_server::ServerLocation;
///
/// let uri: LocationUri = "https://mlflow.example:5000?experiment_name=checkout".parse()?;
/// let location = ServerLocation::builder()
///     .with_uri(&uri)
///     .with_basic_auth("writer", "secret")
///     .build()?;
/// assert_eq!(location.to_string(), uri.to_string());
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
///
/// What identifies a location is its URI alone: equal URIs are one place with one lane. So as long
/// as one is in use, another with its URI but other credentials, headers or TLS settings is an error
/// when it is built; spans would go out with somebody else's credentials otherwise.
#[derive(Clone)]
pub struct ServerLocation {
    target: Arc<Target>,
    access: Arc<Access>,
    /// What the application said about traces that are not finished. Kept here, because a sink is
    /// closed while its location is idle.
    memory: Arc<TraceMemory>,
    /// What became of earlier attempts.
    tries: Arc<Tries>,
}

impl ServerLocation {
    /// Starts a location from its parts. Nothing is read from the environment unless
    /// [`with_env`](ServerLocationBuilder::with_env) is called.
    pub fn builder() -> ServerLocationBuilder {
        ServerLocationBuilder::default()
    }

    /// The location a URI names, with credentials and everything else about reaching it from the
    /// environment of this process.
    ///
    /// # Errors
    /// As for [`ServerLocationBuilder::build`], and for a variable that cannot be understood.
    pub fn from_uri(uri: &LocationUri) -> Result<Self, Error> {
        Self::builder().with_uri(uri).with_env(&ProcessEnv).build()
    }

    /// Where a template of one of [`SCHEMES`](crate::SCHEMES) may have holes: the experiment's name
    /// and the workspace of a tracking server, and the last part of the table's name of
    /// `databricks:`, in front of `_otel_spans`. An OTLP endpoint has none: what a path means there
    /// is for its server to say, and a proxy on the way may read it differently.
    pub fn holes(scheme: &str) -> Vec<Hole> {
        holes::holes(scheme)
    }

    pub(crate) fn of(target: Target, transport: Transport) -> Result<Self, Error> {
        Ok(Self {
            access: Access::claim(&target, transport)?,
            target: Arc::new(target),
            memory: Arc::default(),
            tries: Arc::default(),
        })
    }

    async fn open_mlflow(
        &self,
        host: Arc<Host>,
        experiment: &Experiment,
        workspace: &Option<String>,
        memory: Arc<TraceMemory>,
        tries: Arc<Tries>,
    ) -> Result<MlflowSink, Fault> {
        let (uri, experiment) = (self.target.uri.clone(), experiment.clone());
        MlflowSink::open(uri, host, experiment, workspace.clone(), memory, tries).await
    }
}

/// A preview is cut here, so that it ends in dots as MLflow's do. The character that tells that there
/// is more comes along, and no more than that: values are kept until the root of their trace ends.
fn limits() -> TraceValueLimits {
    let mut limits = TraceValueLimits::default();
    limits.preview += 1;
    limits
}

#[async_trait]
impl TraceLocation for ServerLocation {
    fn uri(&self) -> &LocationUri {
        &self.target.uri
    }

    fn capabilities(&self) -> Capabilities {
        match &self.target.family {
            // A trace id is unique on the whole server, whatever the experiment.
            Family::Mlflow { .. } => Capabilities::new(Guarantee::Idempotent)
                .with_exclusive_store(self.target.base.clone())
                .with_trace_values(TraceValues::Stored)
                .with_trace_value_limits(limits()),
            Family::Databricks { .. } => {
                Capabilities::new(Guarantee::AtLeastOnce).with_trace_values(TraceValues::Stored)
            }
            Family::Otlp => Capabilities::new(Guarantee::AtLeastOnce),
        }
    }

    /// Checks a tracking server's version and resolves the experiment; creates it if it is missing
    /// and wanted. Other servers are not asked anything before the first batch.
    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let open = async {
            let host = Host::shared(&self.target, &self.access.transport)?;
            Ok(match &self.target.family {
                Family::Mlflow {
                    experiment,
                    workspace,
                } => Box::new(
                    self.open_mlflow(
                        host,
                        experiment,
                        workspace,
                        self.memory.clone(),
                        self.tries.clone(),
                    )
                    .await?,
                ) as Box<dyn TraceSink>,
                Family::Otlp => Box::new(OtlpSink::new(
                    self.target.uri.clone(),
                    host,
                    self.tries.clone(),
                )),
                Family::Databricks { table } => Box::new(DatabricksSink::new(
                    self.target.uri.clone(),
                    host,
                    table.clone(),
                    self.memory.clone(),
                    self.tries.clone(),
                )),
            })
        };
        open.await
            .map_err(|fault: Fault| fault.during(OPEN).at(&self.target.uri))
    }

    /// A tracking server is asked what [`open`](Self::open) asks. Others get a request without a
    /// span, which goes through the same credentials, proxies and routes as one with spans.
    async fn check(&self) -> Result<(), Error> {
        let check = async {
            let host = Host::shared(&self.target, &self.access.transport)?;
            match &self.target.family {
                // Nothing of what open sinks share: closing one makes a last try for values that
                // wait.
                Family::Mlflow {
                    experiment,
                    workspace,
                } => self
                    .open_mlflow(host, experiment, workspace, Arc::default(), Arc::default())
                    .await
                    .map(drop),
                Family::Otlp => takes_nothing(&host, "", &[]).await,
                Family::Databricks { table } => {
                    takes_nothing(&host, databricks::PATH, &databricks::headers(table)).await
                }
            }
        };
        check
            .await
            .map_err(|fault: Fault| fault.during(OPEN).at(&self.target.uri))
    }
}

impl fmt::Display for ServerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.uri.fmt(f)
    }
}

impl fmt::Debug for ServerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerLocation({})", self.target.uri)
    }
}
