//! What is read of a checkpoint in Parquet: its footer, and the columns that say what the table is
//! and who wrote it. Looked at before Delta's reader decodes it, which makes room for whatever a
//! file claims.

use bytes::Bytes;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, Result};
use std::ops::Range;

/// A part of an object.
#[derive(Debug)]
pub(super) struct Part {
    start: u64,
    pub(super) bytes: Bytes,
}

impl Part {
    pub(super) fn at(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes }
    }

    /// A range of the object, if it is within the part.
    pub(super) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// The parts of a checkpoint that are asked for; none if they have more than `most` bytes.
pub(super) async fn fetch_checkpoint(
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
    most: usize,
) -> Result<Vec<Part>> {
    if meta.size > most as u64 {
        return Ok(Vec::new());
    }
    let bytes = store.get_range(&meta.location, 0..meta.size).await?;
    Ok(vec![Part::at(0, bytes)])
}
