//! What is known of an open table.

use super::commit::{Tip, row_id_high_water_mark, timestamp_of};
use super::log::Loaded;
use super::protocol::{Shape, shape_of};
use crate::error::OPEN;
use crate::schema::TableKind;
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind};
use uuid::Uuid;

#[derive(Debug)]
pub(super) struct State {
    /// The newest version that is known of.
    pub(super) tip: Tip,
    pub(super) shape: Arc<Shape>,
    /// Where the writer's last transaction is looked up.
    pub(super) history: History,
    /// The last writer and the last of its batches in the log.
    pub(super) writer: Option<(Uuid, Option<i64>)>,
    /// A commit of ours that may have fallen into another table.
    pub(super) doubtful: Option<Tip>,
}

/// What is known of the transactions up to the version.
#[derive(Debug)]
pub(super) enum History {
    /// There are none: the table was just created here.
    Empty,
    /// The table as it was loaded, which is let go of once it was asked.
    Loaded(Loaded),
    /// It has to be loaded again.
    Unknown,
}

impl State {
    /// That of a table that was loaded, and whose rows are to be of this kind.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn of(loaded: Loaded, kind: TableKind) -> Result<Self, Error> {
        let shape = shape_of(&loaded.snapshot, &loaded.domains, kind)?;
        let row_ids = match (&loaded.domains.row_tracking, shape.row_tracking) {
            (Some(configuration), true) => {
                row_id_high_water_mark(configuration).ok_or_else(unnumbered)?
            }
            _ => -1,
        };
        let tip = Tip {
            version: loaded.snapshot.version(),
            mark: loaded.mark.clone(),
            row_ids,
            timestamp: loaded.commit.as_deref().and_then(timestamp_of),
        };
        Ok(Self {
            tip,
            shape: Arc::new(shape),
            history: History::Loaded(loaded),
            writer: None,
            doubtful: None,
        })
    }
}

/// The error of a table whose rows have numbers, and that does not say which are given out.
fn unnumbered() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        OPEN,
        "the table numbers its rows, and its domain delta.rowTracking has no rowIdHighWaterMark",
    )
    .mend("see who wrote it, and restore the table's log or name another table")
}
