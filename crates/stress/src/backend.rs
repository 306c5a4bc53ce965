//! Where the tenants of a run are stored.

use crate::Outcome;
use crate::server::{Answer, Server};
use clap::ValueEnum;
use std::fmt;
use std::sync::Arc;
use tempfile::TempDir;
use trace_destination_core::{Registry, TraceLocation};

/// Tenants that share one SQLite file, or one schema of tables.
const PER_FILE: usize = 100;

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Locations of this crate, which keep nothing.
    Memory,
    /// SQLite files, 100 tenants each.
    Sqlite,
    /// A tracking server in this process.
    Server,
    /// Delta tables in a folder.
    Table,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Server => "server",
            Self::Table => "table",
        })
    }
}

/// A backend that runs, with what it needs on disk and on the loopback interface.
#[derive(Debug)]
pub(crate) struct Backend {
    kind: Kind,
    folder: TempDir,
    server: Option<Server>,
    registry: Registry,
}

impl Backend {
    /// Starts a backend.
    ///
    /// # Errors
    /// If it is not built in, or its folder or port cannot be made.
    pub(crate) fn start(kind: Kind) -> Outcome<Self> {
        let folder = tempfile::Builder::new()
            .prefix("trace-destination-stress")
            .tempdir()
            .map_err(|e| format!("no temporary folder can be made: {e}"))?;
        let server = match kind {
            Kind::Server => Some(Server::start()?),
            _ => None,
        };
        let backend = Self {
            kind,
            folder,
            server,
            registry: trace_destination::registry(),
        };
        backend.location(0)?;
        Ok(backend)
    }

    /// The location of a tenant; none where there is nothing behind the run's own.
    ///
    /// # Errors
    /// What is wrong with its URI.
    pub(crate) fn location(&self, tenant: usize) -> Outcome<Option<Arc<dyn TraceLocation>>> {
        let folder = self.folder.path().display();
        let group = tenant / PER_FILE;
        // Numbers of this run alone: nothing from outside is in these texts.
        let text = match (self.kind, &self.server) {
            (Kind::Sqlite, _) => {
                format!("sqlite:///{folder}/f{group}.db?experiment_name=t{tenant}")
            }
            (Kind::Server, Some(server)) => {
                format!("http://{}?experiment_id={tenant}", server.address())
            }
            (Kind::Table, _) => format!("uc://main.s{group}.t{tenant}?root={folder}/lake"),
            (Kind::Memory | Kind::Server, _) => return Ok(None),
        };
        let uri = text.parse().map_err(|e| format!("{text}: {e}"))?;
        let location = self.registry.location(&uri).map_err(|e| e.to_string())?;
        Ok(Some(location))
    }

    /// Has the server answer otherwise, where there is one.
    pub(crate) fn set(&self, answer: Answer) {
        if let Some(server) = &self.server {
            server.set(answer);
        }
    }
}
