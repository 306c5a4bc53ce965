//! A catalog whose stores have something in front of them, for tests.

use crate::catalog::{Catalog, NewTable, TableEntry};
use crate::name::TableName;
use async_trait::async_trait;
use object_store::ObjectStore;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::Error;
use url::Url;

/// Puts something in front of a store.
pub type Wrap = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

pub(crate) struct Wrapped {
    pub(crate) catalog: Box<dyn Catalog>,
    pub(crate) wrap: Wrap,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrapped({:?})", self.catalog)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Catalog for Wrapped {
    async fn get(&self, name: &TableName) -> Result<Option<TableEntry>, Error> {
        self.catalog.get(name).await
    }

    async fn register(&self, name: &TableName, table: &NewTable<'_>) -> Result<TableEntry, Error> {
        self.catalog.register(name, table).await
    }

    async fn place(&self, name: &TableName) -> Result<Url, Error> {
        self.catalog.place(name).await
    }

    async fn storage(
        &self,
        location: &Url,
        table_id: Option<&str>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        let store = self.catalog.storage(location, table_id).await?;
        Ok((self.wrap)(store))
    }
}
