//! What a process remembers of schemas it has looked at.

use super::{Shape, shape, text};
use crate::error::Fault;
use crate::lock::lock;
use rusqlite::Connection;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Schemas whose shape is remembered. Most files of a process are alike.
const REMEMBERED: usize = 16;
/// Files whose revision was reported, at most; beyond that all are forgotten.
const REPORTED: usize = 1024;

/// Shapes by the text of their schema, and what was reported of which file.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// Revision, text and shape, the latest first.
    seen: Mutex<VecDeque<(String, String, Shape)>>,
    /// The unknown revision that was reported, by file.
    reported: Mutex<HashMap<PathBuf, String>>,
}

impl Shapes {
    /// The shape of a database at `revision`, looked up anew only for a schema that was not seen.
    pub(crate) fn of(&self, conn: &Connection, revision: &str) -> Result<Shape, Fault> {
        let schema = text(conn)?;
        {
            let seen = lock(&self.seen);
            let same = |(r, t, _): &&(String, String, Shape)| r == revision && *t == schema;
            if let Some((_, _, shape)) = seen.iter().find(same) {
                return Ok(shape.clone());
            }
        }
        let shape = shape(conn, revision)?;
        // Outside of a transaction the schema may have changed between two looks, and the shape
        // would be remembered for the wrong one.
        if text(conn)? == schema {
            let mut seen = lock(&self.seen);
            seen.push_front((revision.to_owned(), schema, shape.clone()));
            seen.truncate(REMEMBERED);
        }
        Ok(shape)
    }

    /// Whether this revision of a file is to be reported: once, however often the file is opened.
    pub(crate) fn is_news(&self, path: &Path, revision: &str) -> bool {
        let mut reported = lock(&self.reported);
        if reported.get(path).is_some_and(|r| r == revision) {
            return false;
        }
        if reported.len() >= REPORTED {
            reported.clear();
        }
        reported.insert(path.into(), revision.into());
        true
    }
}
