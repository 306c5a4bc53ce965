//! The part of a log that a reader of it asks for, fetched ahead. Delta's reader blocks a thread
//! until it has its answers, so it is given a store that has them: a place that hangs is waited for
//! without a thread, and no place for readers is held meanwhile.

use super::checkpoint::{Columns, Part, fetch_checkpoint};
use bytes::Bytes;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Bytes that are fetched ahead of one log. What is beyond is left to the reader.
const AHEAD: usize = 2 << 20;
/// Objects that are fetched at the same time.
const AT_ONCE: usize = 8;
/// Kibibytes that are fetched ahead of all logs of this process.
const BUDGET: usize = 128 << 10;

/// How long a checkpoint waits for room that others have.
const ROOM_TIME: Duration = Duration::from_secs(20);
/// How long a checkpoint may take: some seconds, and as long as its bytes take.
const START: Duration = Duration::from_secs(5);
const PER_SECOND: u64 = 1 << 20;

static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(BUDGET));

/// Objects of a log, as they were a moment ago.
#[derive(Default)]
pub(super) struct Fetched {
    /// What the log was listed from.
    pub(super) from: Option<Path>,
    pub(super) listing: Vec<ObjectMeta>,
    pub(super) whole: HashMap<Path, (ObjectMeta, Bytes)>,
    pub(super) parts: HashMap<Path, (ObjectMeta, Vec<Part>)>,
    pub(super) missing: Vec<Path>,
    /// Whether a reader of the log's newest state will ask for nothing else.
    complete: bool,
    room: Vec<SemaphorePermit<'static>>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("from", &self.from)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

/// The pointer to the last checkpoint, as far as it is of use here.
#[derive(Deserialize)]
struct Pointer {
    version: u64,
}

impl Fetched {
    /// Fetches what is asked for when the newest state of a log is read.
    pub(super) async fn of(store: &dyn ObjectStore) -> Result<Self> {
        let mut fetched = Self::default();
        let log = Path::from("_delta_log");
        let name = log.clone().join("_last_checkpoint");
        let pointer = match store.get(&name).await {
            Ok(found) => {
                let meta = found.meta.clone();
                let bytes = found.bytes().await?;
                let pointer = serde_json::from_slice::<Pointer>(&bytes).ok();
                fetched.whole.insert(name, (meta, bytes));
                pointer
            }
            Err(Error::NotFound { .. }) => {
                fetched.missing.push(name);
                None
            }
            Err(error) => return Err(error),
        };
        let version = pointer.map_or(0, |pointer| pointer.version);
        let from = log.clone().join(format!("{version:020}"));
        let listing = store.list_with_offset(Some(&log), &from);
        let mut listing: Vec<ObjectMeta> = match listing.try_collect().await {
            Ok(listing) => listing,
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        listing.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        (fetched.from, fetched.listing) = (Some(from), listing);
        fetched.contents(store).await?;
        Ok(fetched)
    }

    /// The newest checkpoint and what follows it, as far as there is room.
    async fn contents(&mut self, store: &dyn ObjectStore) -> Result<()> {
        let checkpoint = self
            .listing
            .iter()
            .filter(|meta| name(meta).contains(".checkpoint."))
            .filter_map(version)
            .max();
        let after = |meta: &&ObjectMeta| {
            let (version, name) = (version(meta), name(meta));
            let follows =
                version > checkpoint && (name.ends_with(".json") || name.ends_with(".crc"));
            let is_checkpoint = version == checkpoint
                && checkpoint.is_some()
                && (name.contains(".checkpoint.") || name.ends_with(".crc"));
            version.is_some() && (follows || is_checkpoint)
        };
        let wanted: Vec<ObjectMeta> = self.listing.iter().filter(after).cloned().collect();
        let mut left = AHEAD;
        self.complete = true;
        let (parquet, json): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|meta| name(meta).ends_with(".parquet"));
        for meta in parquet {
            let parts = in_time(&meta, fetch_checkpoint(store, &meta, Columns::State)).await?;
            let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
            let room = ROOM.acquire_many(kibibytes(bytes));
            match timeout(ROOM_TIME, room).await {
                Ok(Ok(room)) => self.room.push(room),
                _ => return Err(late()),
            }
            self.parts.insert(meta.location.clone(), (meta, parts));
        }
        let mut chosen = Vec::new();
        for meta in json {
            let bytes = usize::try_from(meta.size).unwrap_or(usize::MAX);
            match self.make_room(bytes, &mut left) {
                true => chosen.push(meta),
                false => self.complete = false,
            }
        }
        let mut fetching = stream::iter(chosen)
            .map(|meta| async move {
                let found = store.get(&meta.location).await?;
                // Larger than it was listed: there is no room for that.
                if found.meta.size > meta.size {
                    return Ok((meta, None));
                }
                let bytes = found.bytes().await?;
                Ok::<_, Error>((meta, Some(bytes)))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(next) = fetching.next().await {
            match next {
                Ok((meta, Some(bytes))) => {
                    self.whole.insert(meta.location.clone(), (meta, bytes));
                }
                // The reader looks itself: it may have been cleaned up meanwhile.
                Ok((_, None)) | Err(Error::NotFound { .. }) => self.complete = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes room for bytes that are to be kept, if there is enough.
    fn make_room(&mut self, bytes: usize, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(bytes) else {
            return false;
        };
        let Ok(room) = ROOM.try_acquire_many(kibibytes(bytes)) else {
            return false;
        };
        self.room.push(room);
        *left = rest;
        true
    }

    /// Fetches the newest checkpoint as a whole, to make the next one from it.
    pub(super) async fn whole_checkpoint(&mut self, store: &dyn ObjectStore) -> Result<()> {
        for (meta, parts) in self.parts.values_mut() {
            *parts = in_time(meta, fetch_checkpoint(store, meta, Columns::All)).await?;
        }
        Ok(())
    }

    /// The commit with the fewest bytes of those that were fetched.
    pub(super) fn smallest_commit(&self) -> Option<(u64, Bytes)> {
        let commits = self.whole.values().filter_map(|(meta, bytes)| {
            let (number, rest) = name(meta).split_once('.')?;
            (rest == "json").then_some(())?;
            Some((number.parse().ok()?, bytes.clone()))
        });
        commits.min_by_key(|(_, bytes)| bytes.len())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listing.is_empty()
    }
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Waits for a checkpoint as long as its size explains: one that trickles keeps others waiting.
async fn in_time<T>(meta: &ObjectMeta, fetch: impl Future<Output = Result<T>>) -> Result<T> {
    let time = START + Duration::from_secs(meta.size / PER_SECOND);
    timeout(time, fetch).await.unwrap_or(Err(late()))
}

fn name(meta: &ObjectMeta) -> &str {
    meta.location.filename().unwrap_or_default()
}

fn version(meta: &ObjectMeta) -> Option<u64> {
    name(meta).split('.').next()?.parse().ok()
}

pub(super) fn late() -> Error {
    Error::Generic {
        store: "table",
        source: Box::new(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the store did not answer in the time a reader of the log has",
        )),
    }
}
