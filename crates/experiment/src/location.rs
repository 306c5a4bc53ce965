//! The location and its sink: thin, over the store that all locations of one file share.

use crate::builder::ExperimentLocationBuilder;
use crate::config::{
    ACCESS_PARAM, ARTIFACT_ROOT_PARAM, CREATE_PARAM, EXPERIMENT_ID_PARAM, EXPERIMENT_NAME_PARAM,
    JOURNAL_MODE_PARAM, PREFERRED_BATCH, SCHEME, SYNCHRONOUS_PARAM,
};
use crate::error::{BUILD, CLOSE};
use crate::holes;
use crate::options::{Access, JournalMode, MissingExperiment, Synchronous};
use crate::process::Process;
use crate::store::{Experiment, Seat};
use crate::target::Target;
use async_trait::async_trait;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use trace_destination_core::{
    Capabilities, Error, ErrorKind, Guarantee, Hole, LocationUri, TraceBatch, TraceLocation,
    TraceSink, TraceValues, Written,
};

/// One experiment in one SQLite tracking database of MLflow.
///
/// ```
/// use trace_destination_experiment::ExperimentLocation;
///
/// let location = ExperimentLocation::builder()
///     .with_path("/var/lib/traces/mlflow.db")
///     .with_experiment_name("checkout")
///     .build()?;
/// assert_eq!(
///     location.to_string(),
///     "sqlite:////var/lib/traces/mlflow.db?experiment_name=checkout"
/// );
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ExperimentLocation {
    uri: LocationUri,
    target: Arc<Target>,
}

impl ExperimentLocation {
    /// Starts a location from its parts.
    pub fn builder() -> ExperimentLocationBuilder {
        ExperimentLocationBuilder::default()
    }

    /// The location that a URI such as `sqlite:///traces.db?experiment_name=checkout` names.
    ///
    /// # Errors
    /// As for [`ExperimentLocationBuilder::build`].
    pub fn from_uri(uri: &LocationUri) -> Result<Self, Error> {
        Self::builder().with_uri(uri).build()
    }

    /// Where a template may have holes: in the experiment's name, and in one folder or the file
    /// name of the path.
    pub fn holes() -> Vec<Hole> {
        holes::holes()
    }

    pub(crate) fn of(target: Target) -> Result<Self, Error> {
        let Some(path) = target.path.to_str() else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                BUILD,
                format!("the path `{}` is not UTF-8", target.path.display()),
            )
            .mend("use a path that can be written in a URI"));
        };
        let id = target.id.map(|id| id.to_string());
        let query = [
            (EXPERIMENT_NAME_PARAM, target.name.as_deref()),
            (EXPERIMENT_ID_PARAM, id.as_deref()),
            (ARTIFACT_ROOT_PARAM, target.artifact_root.as_deref()),
            // Defaults are left out, so that a URI that spells them is the same place.
            (
                CREATE_PARAM,
                (target.missing == MissingExperiment::Fail).then_some("false"),
            ),
            (
                SYNCHRONOUS_PARAM,
                (target.synchronous == Synchronous::Full).then_some("full"),
            ),
            (
                ACCESS_PARAM,
                (target.access == Access::Umask).then_some("umask"),
            ),
            (
                JOURNAL_MODE_PARAM,
                match target.journal_mode {
                    JournalMode::Keep => None,
                    JournalMode::Delete => Some("delete"),
                    JournalMode::Wal => Some("wal"),
                },
            ),
        ];
        let uri = LocationUri::from_parts(
            SCHEME,
            Some(""),
            &format!("/{path}"),
            query.into_iter().filter_map(|(k, v)| Some((k, v?))),
        )?;
        Ok(Self {
            uri,
            target: Arc::new(target),
        })
    }

    /// The database file: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    /// The experiment's name, where one was given.
    pub fn experiment_name(&self) -> Option<&str> {
        self.target.name.as_deref()
    }

    /// The experiment's id, where one was given.
    pub fn experiment_id(&self) -> Option<i64> {
        self.target.id
    }
}

#[async_trait]
impl TraceLocation for ExperimentLocation {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        // A trace id is the primary key of the whole file, whatever the experiment.
        Capabilities::new(Guarantee::Idempotent)
            .with_batch(PREFERRED_BATCH)
            .non_blocking()
            .with_exclusive_store(self.target.path.to_string_lossy())
            .with_trace_values(TraceValues::Stored)
    }

    /// Opens the file and resolves the experiment; creates what is missing, if that is wanted.
    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let store = Process::current().store(&self.target.path);
        let experiment = store
            .open(self.target.clone())
            .await
            .map_err(|error| error.at(&self.uri))?;
        Ok(Box::new(ExperimentSink {
            uri: self.uri.clone(),
            seat: Seat::take(store),
            experiment,
        }))
    }
}

impl fmt::Display for ExperimentLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for ExperimentLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExperimentLocation({})", self.uri)
    }
}

/// An opened experiment.
struct ExperimentSink {
    uri: LocationUri,
    seat: Seat,
    experiment: Arc<Experiment>,
}

#[async_trait]
impl TraceSink for ExperimentSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let stored = self.seat.store().write(&self.experiment, batch).await;
        let stored = stored.map_err(|error| error.at(&self.uri))?;
        let mut written = Written {
            refused: stored.refused,
            lost_updates: stored.lost_updates,
        };
        for refusal in &mut written.refused {
            refusal.error = refusal.error.clone().at(&self.uri);
        }
        for error in &mut written.lost_updates {
            *error = error.clone().at(&self.uri);
        }
        Ok(written)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        // The log is merged into the file; the last sink closes its connection.
        self.seat
            .leave()
            .await
            .map_err(|fault| fault.during(CLOSE).at(&self.uri))
    }
}
