//! Making a table that does not exist: the first commit of its log.

use super::log::{Log, Mark};
use crate::config::{COMMENT, PROPERTIES};
use crate::error::{OPEN, fault};
use crate::name::TableName;
use crate::schema::{SchemaVersion, VERSION_PROPERTY};
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, MetadataExt as _, Protocol, new_metadata};
use deltalake::protocol::{DeltaOperation, SaveMode};
use std::collections::HashMap;
use trace_destination_core::Error;
use url::Url;

/// The columns new tables get.
pub(super) const COLUMNS: SchemaVersion = SchemaVersion::V2;

/// The properties of a new table.
pub(super) fn properties(columns: SchemaVersion) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![(VERSION_PROPERTY, columns.property())];
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
) -> Result<Option<Created>, Error> {
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
    let metadata = new_metadata(&COLUMNS.delta(), [] as [&str; 0], properties(COLUMNS))
        .and_then(|m| m.with_name(name.table.clone()))
        .and_then(|m| m.with_description(COMMENT.to_owned()))
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
