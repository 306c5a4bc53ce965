//! The location: a value that names a table, and opens it.

use crate::access::{Access, Source};
use crate::builder::UnityCatalogLocationBuilder;
use crate::catalog::Catalog;
use crate::catalog::local::LocalCatalog;
use crate::catalog::rest::RestCatalog;
use crate::config::{BATCH, MAX_KEY, MAX_VALUE};
use crate::error::OPEN;
use crate::name::{self, TableName};
use crate::options::MissingTable;
use crate::schema::TableKind;
use crate::sink::UnityCatalogSink;
use crate::table::Table;
use crate::wrapped::{Wrap, Wrapped};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{
    Capabilities, Error, ErrorKind, Guarantee, Hole, LocationUri, ProcessEnv, TraceLocation,
    TraceSink, TraceValueLimits, TraceValues,
};

/// A table of spans, and one of annotations beside it: in a folder or object store that is its own catalog, or registered with a
/// Unity Catalog server.
///
/// ```
/// use trace_destination_unity_catalog::UnityCatalogLocation;
///
/// let folder = std::env::temp_dir().join("lakehouse");
/// let location = UnityCatalogLocation::builder()
///     .with_name("main.traces.shop")
///     .with_root(folder.display().to_string())
///     .build()?;
/// assert_eq!(location.table_name(), "main.traces.shop_otel_spans");
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
///
/// What identifies a location is its URI alone: equal URIs are one place with one lane. So as long
/// as one is in use, another with its URI but another server, other credentials or other options of
/// stores is an error when it is built; spans would go out with somebody else's credentials
/// otherwise.
#[derive(Clone)]
pub struct UnityCatalogLocation {
    pub(crate) uri: LocationUri,
    pub(crate) name: TableName,
    pub(crate) missing: MissingTable,
    /// The table of annotations, unless that is switched off or its name would be too long.
    pub(crate) annotations: Option<TableName>,
    pub(crate) access: Arc<Access>,
    pub(crate) wrap: Option<Wrap>,
}

impl UnityCatalogLocation {
    /// Starts a location from its parts. Nothing is read from the environment unless
    /// [`with_env`](UnityCatalogLocationBuilder::with_env) is called.
    pub fn builder() -> UnityCatalogLocationBuilder {
        UnityCatalogLocationBuilder::default()
    }

    /// The location a URI names, with the catalog, credentials and options of stores from the
    /// environment of this process where the URI does not say.
    ///
    /// # Errors
    /// As for [`UnityCatalogLocationBuilder::build`], and for a variable that cannot be understood.
    pub fn from_uri(uri: &LocationUri) -> Result<Self, Error> {
        Self::builder().with_uri(uri).with_env(&ProcessEnv).build()
    }

    /// Where a template may have holes: in the schema and in the prefix, never in the catalog, a
    /// root or a server. Databricks folds names to lower case, so only lower case fits.
    pub fn holes() -> Vec<Hole> {
        name::holes()
    }

    /// The full name of the table of spans, `catalog.schema.table`.
    pub fn table_name(&self) -> String {
        self.name.to_string()
    }

    /// The full name of the table of annotations, which is made with the first value that is set on a
    /// trace as a whole. There is none if that is switched off
    /// ([`with_annotations`](UnityCatalogLocationBuilder::with_annotations)), and none beside a table
    /// of spans whose prefix is longer than 238 characters.
    pub fn annotations_table_name(&self) -> Option<String> {
        self.annotations.as_ref().map(TableName::to_string)
    }

    pub(crate) fn stores_annotations(&self) -> bool {
        self.annotations.is_some()
    }

    pub(crate) async fn open_table(&self, kind: TableKind) -> Result<Table, Error> {
        let table = self.open_with(kind, self.missing).await?;
        let checked = table.check_store().await;
        checked.map_err(|e| e.at(&self.uri))?;
        Ok(table)
    }

    pub(crate) async fn open_with(
        &self,
        kind: TableKind,
        missing: MissingTable,
    ) -> Result<Table, Error> {
        let open = async {
            let catalog = self.catalog()?;
            let name = match kind {
                TableKind::Spans => &self.name,
                TableKind::Annotations => self.annotations.as_ref().ok_or_else(switched_off)?,
            };
            Table::open(&self.uri, (name, kind), &*catalog, missing).await
        };
        open.await.map_err(|e| e.at(&self.uri))
    }

    /// The catalog, with connections of the runtime this is called on.
    fn catalog(&self) -> Result<Box<dyn Catalog>, Error> {
        let Access { source, storage } = &*self.access;
        let catalog: Box<dyn Catalog> = match source {
            Source::Root(root) => Box::new(LocalCatalog::new(root.clone(), storage.clone())),
            Source::Server(server) => {
                let storage = storage.of_server(server.storage_root.as_ref());
                Box::new(RestCatalog::new(server, &storage)?)
            }
        };
        Ok(match self.wrap.clone() {
            None => catalog,
            Some(wrap) => Box::new(Wrapped { catalog, wrap }),
        })
    }
}

#[async_trait]
impl TraceLocation for UnityCatalogLocation {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        let own = Capabilities::new(Guarantee::Idempotent).with_batch(BATCH);
        match self.stores_annotations() {
            false => own,
            true => {
                let mut limits = TraceValueLimits::default();
                (limits.key, limits.value) = (MAX_KEY, MAX_VALUE);
                own.with_trace_values(TraceValues::Stored)
                    .with_trace_value_limits(limits)
            }
        }
    }

    /// Finds the table of spans; creates and registers it if it is missing and wanted; checks its
    /// columns and features. That of annotations is left for the first value.
    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let spans = self.open_table(TableKind::Spans).await?;
        Ok(Box::new(UnityCatalogSink::new(self.clone(), spans)))
    }
}

impl fmt::Display for UnityCatalogLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for UnityCatalogLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnityCatalogLocation({})", self.uri)
    }
}

/// The error of a location without a table of annotations.
fn switched_off() -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        OPEN,
        "this location has no table of annotations: it is switched off, or its name would be too long",
    )
    .mend("leave out annotations=false, or choose a prefix of at most 238 characters")
}
