//! A Unity Catalog server, over its REST API: the open-source one (0.5 or later) and Databricks.
//!
//! Tables are registered as external Delta tables: the server neither makes nor looks at their
//! files. A new table's place is asked for credentials before anything is written there, so that
//! whoever may not create it leaves nothing behind.

mod answer;
mod client;
mod columns;
mod credentials;
mod options;
mod status;

pub use options::*;

use self::answer::{Ask, Fault, FaultExt as _};
use self::client::{Answer, Client};
use self::credentials::{CatalogVendor, Purpose};
use super::{Catalog, NewTable, TableEntry};
use crate::name::TableName;
use crate::storage::{Renewal, StorageOptions, parse_url, same_place};
use async_trait::async_trait;
use object_store::ObjectStore;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_http::{WeakMap, encoded, shorten};
use url::Url;

/// Longest value of a table's property the open-source server stores (0.6); a longer one is a 500
/// there. It is in the table's own log all the same.
const MAX_PROPERTY: usize = 255;

/// Longest address of a table's place, in bytes.
const MAX_PLACE: usize = 8 << 10;
/// How often a place may be percent-encoded over and over.
const MAX_ENCODINGS: usize = 3;

/// A server, and how its tables' storage is opened.
#[derive(Debug)]
pub(crate) struct RestCatalog {
    server: CatalogServer,
    storage: StorageOptions,
    /// Keeps connections and tokens between two requests; each pipeline has a runtime of its own.
    client: Mutex<Option<(runtime::Id, Arc<Client>)>>,
}

/// Connections live on the runtime that opened them.
type Key = (CatalogServer, runtime::Id);

static CLIENTS: Mutex<WeakMap<Key, Client>> = Mutex::new(WeakMap::new());

impl RestCatalog {
    /// A server. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `InvalidConfig` for certificates that cannot be used.
    pub(crate) fn new(server: &CatalogServer, storage: &StorageOptions) -> Result<Self, Error> {
        server.check()?;
        Ok(Self {
            server: server.clone(),
            storage: storage.clone(),
            client: Mutex::new(None),
        })
    }

    /// The way to the server from this runtime, with the connections and tokens of whoever has the
    /// same settings.
    fn client(&self) -> Result<Arc<Client>, Fault> {
        let runtime = runtime::Handle::current().id();
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((id, client)) if *id == runtime => Ok(client.clone()),
            _ => {
                let client = shared(&self.server, runtime).map_err(Fault::from)?;
                *held = Some((runtime, client.clone()));
                Ok(client)
            }
        }
    }

    async fn schema_root(&self, name: &TableName) -> Result<Option<String>, Fault> {
        let schema = format!("{}.{}", name.catalog, name.schema);
        let client = self.client()?;
        let answer = client
            .get(&format!("/schemas/{}", encoded(&schema)))
            .await?;
        if let Some(root) = root(&answer) {
            return Ok(Some(root));
        }
        let catalog = format!("/catalogs/{}", encoded(&name.catalog));
        Ok(root(&client.get(&catalog).await?))
    }

    async fn look_up(&self, name: &TableName) -> Result<Option<TableEntry>, Fault> {
        let table = encoded(&name.to_string());
        let client = self.client()?;
        let fault = match client.get(&format!("/tables/{table}")).await {
            Ok(answer) => return self.entry(name, &answer).map(Some),
            Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
            Err(fault) => fault,
        };
        match fault.code() {
            Some(code) if code.starts_with("TABLE_") => Ok(None),
            Some(code) if code.starts_with("SCHEMA_") || code.starts_with("CATALOG_") => Err(fault),
            // Not said what is missing, or there is no such API: the schema tells.
            _ => {
                let schema = format!("{}.{}", name.catalog, name.schema);
                client
                    .get(&format!("/schemas/{}", encoded(&schema)))
                    .await
                    .map(|_| None)
            }
        }
    }

    fn entry(&self, name: &TableName, answer: &Answer) -> Result<TableEntry, Fault> {
        let at = || format!("`{name}` at {}", self.server.address());
        let info: TableInfo = answer.json().ok_or_else(|| {
            Fault::new(
                ErrorKind::Unsupported,
                format!("{} is described in a way not understood", at()),
                "check the server's version and the address",
            )
        })?;
        let kind = shorten(info.table_type.as_deref().unwrap_or("a table of no type"));
        let format = info.data_source_format.as_deref();
        let Some(location) = info.storage_location.as_deref().filter(|l| !l.is_empty()) else {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!("{} is {kind} and has no files of its own", at()),
                "use a name that is free, or that of an external Delta table",
            ));
        };
        if format.is_some_and(|f| !f.eq_ignore_ascii_case("DELTA")) {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!(
                    "{} is of the format {} and not DELTA",
                    at(),
                    shorten(format.unwrap_or_default())
                ),
                "use a name that is free, or that of an external Delta table",
            ));
        }
        let location = self.taken(location, || format!("the place of {}", at()))?;
        let columns = info.columns.unwrap_or_default();
        Ok(TableEntry {
            location,
            id: info.table_id.filter(|id| !id.is_empty()),
            kind: info.table_type.as_deref().map(shorten),
            columns: columns.into_iter().map(|c| c.name).collect(),
        })
    }

    /// A place that the catalog names, if it may: a catalog is somebody else's word.
    fn taken(&self, place: &str, what: impl Fn() -> String) -> Result<Url, Fault> {
        let refused = |why: &str, mend: &'static str| {
            Err(Fault::new(
                ErrorKind::Unsupported,
                format!("{} {why}", what()),
                mend,
            ))
        };
        if place.len() > MAX_PLACE || place.chars().any(char::is_control) {
            return refused(
                "is longer than any address, or holds control characters",
                "correct it in the catalog",
            );
        }
        if has_dots(place) {
            return refused(
                "leads upwards, by `..` or an encoded form of it",
                "correct it in the catalog",
            );
        }
        let url = parse_url(place).or_else(|e| {
            refused(
                &format!("is not understood: {}", e.cause()),
                "use one of the stores this build knows",
            )
        })?;
        // A URL's parser makes an absolute path of `file:x` too.
        let is_whole = |p: &str| p.starts_with('/') || p.starts_with("file:///");
        if url.scheme() == "file" && !is_whole(&place.trim().to_ascii_lowercase()) {
            return refused(
                "is no whole address of a file",
                "write file:///… in the catalog",
            );
        }
        Ok(url)
    }

    async fn create(&self, name: &TableName, table: &NewTable<'_>) -> Result<TableEntry, Fault> {
        let columns = columns::columns(table.schema).map_err(|e| {
            Fault::new(
                ErrorKind::Internal,
                format!("the columns cannot be described: {e}"),
                "report this",
            )
        })?;
        let properties: Map<String, Value> = table
            .properties
            .iter()
            .filter(|(_, value)| value.chars().count() <= MAX_PROPERTY)
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        let body = json!({
            "name": name.table,
            "catalog_name": name.catalog,
            "schema_name": name.schema,
            "table_type": "EXTERNAL",
            "data_source_format": "DELTA",
            "storage_location": table.location.as_str(),
            "columns": columns,
            "comment": table.comment,
            "properties": properties,
        });
        let fault = match self.client()?.post("/tables", &body).await {
            Ok(answer) => return self.entry(name, &answer),
            Err(fault) => fault,
        };
        // Somebody else was faster, or an answer got lost: what is there decides.
        if fault.kind() == ErrorKind::Conflict || fault.leaves_doubt() {
            match self.look_up(name).await {
                Ok(Some(entry)) => return Ok(entry),
                Ok(None) => {}
                Err(second) => {
                    tracing::debug!(fault = ?second, "what became of a table is not known yet")
                }
            }
        }
        Err(fault)
    }
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn get(&self, name: &TableName) -> Result<Option<TableEntry>, Error> {
        self.look_up(name).await.map_err(|f| f.during(Ask::LookUp))
    }

    async fn register(&self, name: &TableName, table: &NewTable<'_>) -> Result<TableEntry, Error> {
        let created = self.create(name, table).await;
        created
            .and_then(|entry| match same_place(&entry.location, table.location) {
                true => Ok(entry),
                false => Err(Fault::new(
                    ErrorKind::Conflict,
                    format!(
                        "`{name}` at {} is registered at `{}` and not at `{}`",
                        self.server.address(),
                        entry.location,
                        table.location
                    ),
                    "let all writers have the same storage root; the files at the second place are of no table and can be removed",
                )),
            })
            .map_err(|f| f.during(Ask::Register))
    }

    async fn place(&self, name: &TableName) -> Result<Url, Error> {
        let root = match &self.server.storage_root {
            Some(root) => root.clone(),
            None => {
                let found = self.schema_root(name).await;
                let found = found.map_err(|f| f.during(Ask::Place))?;
                let said = found.ok_or_else(|| {
                    Fault::new(
                        ErrorKind::InvalidConfig,
                        format!(
                            "neither the schema nor the catalog of `{name}` at {} has a storage root, and none is configured",
                            self.server.address()
                        ),
                        "set UNITY_CATALOG_STORAGE_ROOT or with_storage_root, or give the schema or the catalog a storage root",
                    )
                    .during(Ask::Place)
                })?;
                self.taken(&said, || format!("the storage root of `{name}`"))
                    .map_err(|f| f.during(Ask::Place))?
            }
        };
        Ok(below(root, name))
    }

    /// For a table its id is what credentials are asked by; without one the place of a table that
    /// does not exist yet is meant, whose credentials the catalog gives out until it exists.
    async fn storage(
        &self,
        location: &Url,
        table_id: Option<&str>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        if self.server.storage_credentials == StorageCredentials::Own {
            return self.storage.open(location);
        }
        // Asked for local files too, which need none: it is how the catalog says no.
        let renewal = Renewal::start(Box::new(CatalogVendor {
            client: self.client().map_err(|f| f.during(Ask::PathKeys))?,
            purpose: table_id.map_or(Purpose::Place, |id| Purpose::Table(id.to_owned())),
            location: location.clone(),
            options: self.storage.clone(),
        }))
        .await?;
        self.storage.open_with(location, Some(renewal))
    }
}

/// Whether a segment of a path is `.` or `..`, as it is, encoded once or several times over, or with
/// a backslash: what reads it may decode it once more.
fn has_dots(place: &str) -> bool {
    let mut text = place.replace('\\', "/");
    for _ in 0..=MAX_ENCODINGS {
        let path = text.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        let decoded = decoded.replace('\\', "/");
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    // Nobody encodes a name that often who means well.
    true
}

/// What is read of a table; the rest is left alone.
#[derive(Deserialize)]
struct TableInfo {
    table_type: Option<String>,
    data_source_format: Option<String>,
    storage_location: Option<String>,
    table_id: Option<String>,
    columns: Option<Vec<ColumnInfo>>,
}

#[derive(Deserialize)]
struct ColumnInfo {
    name: String,
}

fn shared(server: &CatalogServer, runtime: runtime::Id) -> Result<Arc<Client>, Error> {
    let mut way = server.clone();
    // What is done with an answer is no matter of the connection.
    (way.storage_root, way.storage_credentials) = (None, StorageCredentials::Vended);
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.get_or_insert((way, runtime), || Client::new(server))
}

/// The storage root a catalog or schema has.
fn root(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Rooted {
        storage_root: Option<String>,
    }
    let found: Rooted = answer.json()?;
    found.storage_root.filter(|root| !root.is_empty())
}

fn below(mut root: Url, name: &TableName) -> Url {
    let path = format!(
        "{}/{}/{}/{}",
        root.path().trim_end_matches('/'),
        name.catalog,
        name.schema,
        name.table
    );
    root.set_path(&path);
    root
}
