//! Which table of Unity Catalog spans go to.

use reqwest::header::HeaderValue;
use serde_json::{Value, json};

/// The table of a location that is a whole schema.
pub(crate) const SCHEMA_TABLE: &str = "mlflow_experiment_trace_otel_spans";
pub(crate) const PREFIXED_TABLE: &str = "_otel_spans";

/// The table spans go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// `catalog.schema.table`.
    pub(super) name: String,
    /// The location in MLflow's trace ids: `catalog.schema` or `catalog.schema.prefix`.
    pub(super) location: String,
}

impl Table {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let &[catalog, schema, table] = &*parts else {
            return None;
        };
        let proper = |part: &&str| !part.is_empty() && HeaderValue::try_from(*part).is_ok();
        if !parts.iter().all(proper) {
            return None;
        }
        let location = match table.strip_suffix(PREFIXED_TABLE) {
            Some(prefix) if table != SCHEMA_TABLE && !prefix.is_empty() => {
                format!("{catalog}.{schema}.{prefix}")
            }
            _ => format!("{catalog}.{schema}"),
        };
        Some(Self {
            name: text.to_owned(),
            location,
        })
    }

    /// The location as MLflow writes it in JSON.
    pub(super) fn trace_location(&self) -> Value {
        let mut parts = self.location.split('.');
        let (catalog, schema) = (parts.next(), parts.next());
        match parts.next() {
            Some(prefix) => json!({
                "type": "UC_TABLE_PREFIX",
                "uc_table_prefix": {
                    "catalog_name": catalog,
                    "schema_name": schema,
                    "table_prefix": prefix,
                    "spans_table_name": self.name,
                },
            }),
            None => json!({
                "type": "UC_SCHEMA",
                "uc_schema": {"catalog_name": catalog, "schema_name": schema},
            }),
        }
    }
}
