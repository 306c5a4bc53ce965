//! Making a table that does not exist: the first commit of its log.

use super::log::{Log, Mark};
use crate::config::PROPERTIES;
use crate::error::{OPEN, fault};
use crate::name::TableName;
use crate::schema::{TableKind, TableSchema, VERSION_PROPERTY};
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, MetadataExt as _, Protocol, new_metadata};
use deltalake::protocol::{DeltaOperation, SaveMode};
use std::collections::HashMap;
use trace_destination_core::Error;
use url::Url;

/// The properties of a new table.
pub(super) fn properties(rows: TableSchema) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![(VERSION_PROPERTY, rows.version().property())];
    all.extend(PROPERTIES);
    all
}

/// Version 0 of a table, written here.
pub(super) struct Created {
    /// The table's id.
    pub(super) id: String,
    pub(super) mark: Mark,
}

/// Writes version 0 of the table; `None` if whoever else makes it at the same moment was faster.
pub(super) async fn create(
    log: &Log,
    name: &TableName,
    location: &Url,
    kind: TableKind,
) -> Result<Option<Created>, Error> {
    let rows = kind.newest();
    let doing = "describing the new table";
    // Not Delta's `CreateBuilder`: it goes on with version 1 where it loses the race for version 0,
    // which would replace the other's metadata.
    let protocol: Protocol = serde_json::from_value(serde_json::json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["variantType"],
        "writerFeatures": ["variantType"],
    }))
    .map_err(|e| fault(OPEN, doing, e))?;
    let metadata = new_metadata(&rows.delta(), [] as [&str; 0], properties(rows))
        .and_then(|m| m.with_name(name.table.clone()))
        .and_then(|m| m.with_description(kind.comment().to_owned()))
        .map_err(|e| fault(OPEN, doing, e))?;
    let id = metadata.id().to_owned();
    let operation = DeltaOperation::Create {
        mode: SaveMode::ErrorIfExists,
        location: location.clone(),
        protocol: protocol.clone(),
        metadata: metadata.clone(),
    };
    let actions = vec![Action::Protocol(protocol), Action::Metadata(metadata)];
    let commit = CommitData::new(actions, operation, HashMap::new(), Vec::new())
        .get_bytes()
        .map_err(|e| fault(OPEN, doing, e))?;
    // An error may hide a commit that landed: the caller reads the log in either case.
    let put = log.put(0, commit).await;
    let mark = put.map_err(|e| fault(OPEN, "creating the table", e))?;
    Ok(mark.map(|mark| Created { id, mark }))
}
