//! What a table's owner is asked: where a name lives, and with what it may be written.

pub(crate) mod local;
pub(crate) mod rest;

use crate::name::TableName;
use async_trait::async_trait;
use deltalake::kernel::StructType;
use object_store::ObjectStore;
use std::fmt::Debug;
use std::sync::Arc;
use trace_destination_core::Error;
use url::Url;

/// A catalog: names, where they are stored, and how to get in.
#[async_trait]
pub(crate) trait Catalog: Debug + Send + Sync {
    /// The table, if it is registered.
    ///
    /// # Errors
    /// A catalog or schema that does not exist is an error (`NotFound`); a table that does not is
    /// `None`.
    async fn get(&self, name: &TableName) -> Result<Option<TableEntry>, Error>;

    /// Registers an external table whose Delta log was created at its location. Idempotent: a table
    /// that is registered there already is returned.
    ///
    /// # Errors
    /// `Conflict` naming both places if the name is registered elsewhere.
    async fn register(&self, name: &TableName, table: &NewTable<'_>) -> Result<TableEntry, Error>;

    /// Where a table that does not exist is to be put.
    ///
    /// # Errors
    /// `InvalidConfig` where nothing says so.
    async fn place(&self, name: &TableName) -> Result<Url, Error>;

    /// The storage of a table, or of a place that [`Catalog::place`] gave, with write access and
    /// rooted at it. It renews its credentials by itself before they expire.
    ///
    /// # Errors
    /// If credentials are refused or the kind of store is not compiled in.
    async fn storage(
        &self,
        location: &Url,
        table_id: Option<&str>,
    ) -> Result<Arc<dyn ObjectStore>, Error>;
}

/// What a catalog knows of a table.
#[derive(Clone, Debug)]
pub(crate) struct TableEntry {
    /// Where its files are.
    pub(crate) location: Url,
    /// What credentials are asked for by, where the catalog gives ids.
    pub(crate) id: Option<String>,
    /// `EXTERNAL`, `MANAGED`, …, where the catalog says so.
    pub(crate) kind: Option<String>,
    /// Names of its columns, where the catalog lists them.
    pub(crate) columns: Vec<String>,
}

/// A table to be registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewTable<'a> {
    /// Where its files are.
    pub(crate) location: &'a Url,
    /// Its columns.
    pub(crate) schema: &'a StructType,
    /// What it is, for people.
    pub(crate) comment: &'a str,
    /// Its properties.
    pub(crate) properties: &'a [(&'a str, &'a str)],
}
