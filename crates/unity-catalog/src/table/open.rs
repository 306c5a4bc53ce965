//! Finding a table, or making it and registering it with its catalog.

use super::Table;
use super::commit::Tip;
use super::create::{Created, create, properties};
use super::file::{Encoder, fingerprint};
use super::log::Log;
use super::protocol::Shape;
use super::recent::Memory;
use super::state::{History, State};
use crate::catalog::{Catalog, NewTable, TableEntry};
use crate::error::OPEN;
use crate::name::TableName;
use crate::options::MissingTable;
use crate::schema::TableKind;
use object_store::ObjectStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use trace_destination_core::{Error, ErrorKind, LocationUri};
use url::Url;

/// How long the maker of a table is given to register it: looked for after each of these.
const REGISTERED_BY_ITS_MAKER: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
];

impl Table {
    /// Finds the table; makes and registers it if it is missing and wanted; checks that rows of this
    /// kind can be written to it.
    pub(crate) async fn open(
        uri: &LocationUri,
        (name, kind): (&TableName, TableKind),
        catalog: &dyn Catalog,
        missing: MissingTable,
    ) -> Result<Self, Error> {
        let mut entry = catalog.get(name).await?;
        let (location, store) = match find(catalog, name, entry.as_ref(), missing).await {
            // Catalogs refuse the place of a new table once somebody else has made one there.
            Err(error) if entry.is_none() && error.kind() == ErrorKind::PermissionDenied => {
                entry = catalog.get(name).await?;
                if entry.is_none() {
                    return Err(error);
                }
                find(catalog, name, entry.as_ref(), missing).await?
            }
            found => found?,
        };
        let log = Log::new(store, &location);
        let (state, made_here) = match log.load().await? {
            Some(snapshot) => (State::of(snapshot, kind)?, false),
            None => make(&log, (name, kind), &location, entry.as_ref(), missing).await?,
        };
        let log = match entry {
            Some(_) => log,
            // Only now: what is registered is there and can be written.
            None => register(catalog, name, &location, &state, made_here, log).await?,
        };
        let lane = fingerprint(uri.as_str().as_bytes());
        Ok(Self {
            encoder: Arc::new(Encoder::new(kind, lane, Arc::clone(&state.shape.layout))),
            log,
            state: Mutex::new(state),
            checkpoint: std::sync::Mutex::default(),
            memory: Memory::default(),
        })
    }
}

/// A table in the catalog whose files are written through the catalog only.
fn check_kind(name: &TableName, entry: &TableEntry) -> Result<(), Error> {
    match entry.kind.as_deref() {
        None | Some("EXTERNAL") => Ok(()),
        Some(kind) => Err(Error::new(
            ErrorKind::Unsupported,
            OPEN,
            format!("{name} is a {kind} table; only EXTERNAL ones are written directly"),
        )
        .mend("name another table and let it be created here, or use Databricks' own ingest (databricks:)")),
    }
}

fn absent(name: &TableName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        OPEN,
        format!("there is no table {name}"),
    )
    .mend("create it, or leave out create=false")
}

/// Creates the log of a table that has none; true if it was written here, and not by somebody else
/// at the same moment.
async fn make(
    log: &Log,
    (name, kind): (&TableName, TableKind),
    location: &Url,
    entry: Option<&TableEntry>,
    missing: MissingTable,
) -> Result<(State, bool), Error> {
    if missing == MissingTable::Fail {
        return Err(absent(name));
    }
    // Registered ahead of its log: what the catalog promises is what it has to become.
    if let Some(entry) = entry.filter(|e| !e.columns.is_empty()) {
        let ours = kind.newest().delta();
        let ours: Vec<_> = ours.fields().map(|f| f.name().clone()).collect();
        if ours != entry.columns {
            return Err(Error::new(
                ErrorKind::Unsupported,
                OPEN,
                format!("the catalog has {name} with other columns, and its location {location} holds no table"),
            )
            .mend("drop it from the catalog to have it created here, or write its first version"));
        }
    }
    let created = create(log, name, location, kind).await;
    let created = match created {
        Ok(Some(Created { id, mark })) => {
            let tip = Tip {
                version: 0,
                mark,
                row_ids: -1,
                timestamp: None,
            };
            let state = State {
                tip,
                shape: Arc::new(Shape::new(id, kind.newest())),
                history: History::Empty,
                writer: None,
                doubtful: None,
            };
            return Ok((state, true));
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // Made by somebody else, or, after an error, perhaps by us all the same.
    match (log.load().await, created) {
        (Ok(Some(snapshot)), _) => Ok((State::of(snapshot, kind)?, false)),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(None), Ok(_)) => Err(Error::new(
            ErrorKind::Unavailable,
            OPEN,
            format!("{location} says that it holds a table and does not show it"),
        )
        .retryable()
        .mend("use a store that shows what was written at once")),
    }
}

/// Makes the table known to the catalog, and takes the store its entry gives access to.
///
/// Whoever wrote version 0 does so; others give them time first. The open-source server (main of
/// August 2026) registers a name twice when two ask at the same moment, and answers every question
/// about it with status 500 from then on.
async fn register(
    catalog: &dyn Catalog,
    name: &TableName,
    location: &Url,
    state: &State,
    made_here: bool,
    log: Log,
) -> Result<Log, Error> {
    if !made_here {
        for wait in REGISTERED_BY_ITS_MAKER {
            tokio::time::sleep(wait).await;
            if catalog.get(name).await?.is_some() {
                // Registering again finds it, and whether it is the same place.
                break;
            }
        }
    }
    let rows = state.shape.layout.rows();
    let new = NewTable {
        location,
        schema: &rows.delta(),
        comment: rows.kind().comment(),
        properties: &properties(rows),
    };
    let entry = catalog.register(name, &new).await?;
    match entry.id.as_deref() {
        None => Ok(log),
        id => {
            let store = catalog.storage(&entry.location, id).await?;
            Ok(Log::new(store, &entry.location))
        }
    }
}

/// Where a table is, or is to be, and its store.
async fn find(
    catalog: &dyn Catalog,
    name: &TableName,
    entry: Option<&TableEntry>,
    missing: MissingTable,
) -> Result<(Url, Arc<dyn ObjectStore>), Error> {
    let (location, id) = match entry {
        Some(entry) => {
            check_kind(name, entry)?;
            (entry.location.clone(), entry.id.as_deref())
        }
        None if missing == MissingTable::Fail => return Err(absent(name)),
        None => (catalog.place(name).await?, None),
    };
    let store = catalog.storage(&location, id).await?;
    Ok((location, store))
}
