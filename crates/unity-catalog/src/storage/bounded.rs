//! A table's store, of which no answer is read beyond a bound: a tenant may own the place, and say
//! what it likes. Sizes are checked before anything is read or made room for, and again while it is
//! read, since a store may claim one length and send another.

use super::scan::{MAX_DEPTH, Scan};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a commit, a checkpoint in JSON, or any object that is read whole.
    pub(crate) object: u64,
    /// Bytes of the pointer to the last checkpoint.
    pub(crate) pointer: u64,
    /// Bytes of all ranges of an object that are read in one go.
    pub(crate) ranges: u64,
    /// Objects in a listing.
    pub(crate) listed: usize,
    /// Bytes of their names.
    pub(crate) names: usize,
    /// Time that reading one object, or one listing, may take in all.
    pub(crate) time: Duration,
}

impl Limits {
    /// While a table is found, opened and written. A log is listed from its last checkpoint on: a
    /// hundred versions as a rule.
    pub(crate) const WRITING: Self = Self {
        object: 64 << 20,
        pointer: 1 << 20,
        ranges: 64 << 20,
        listed: 100_000,
        names: 16 << 20,
        time: Duration::from_secs(20),
    };
    /// While a checkpoint is written: the one before it is read as a whole.
    pub(crate) const CHECKPOINT: Self = Self {
        object: 128 << 20,
        ranges: 256 << 20,
        time: Duration::from_secs(120),
        ..Self::WRITING
    };
    /// While somebody cares for a table by hand: its whole folder is listed.
    pub(crate) const MAINTENANCE: Self = Self {
        object: 256 << 20,
        ranges: 512 << 20,
        listed: 10_000_000,
        names: 1 << 30,
        time: Duration::from_secs(3600),
        ..Self::WRITING
    };

    fn of(&self, location: &Path) -> u64 {
        match location.filename() {
            Some("_last_checkpoint") => self.pointer,
            _ => self.object,
        }
    }
}

/// A store within limits.
#[derive(Debug)]
pub(crate) struct Bounded {
    store: Arc<dyn ObjectStore>,
    limits: Limits,
}

impl Bounded {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self { store, limits }
    }

    fn end(&self) -> Instant {
        Instant::now() + self.limits.time
    }

    /// Counts what a listing says, and ends it with an error where it is too much or nonsense.
    fn counted(
        &self,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let limits = self.limits;
        let state = (listing, limits.listed, limits.names, self.end(), false);
        stream::unfold(
            state,
            move |(mut listing, objects, names, end, over)| async move {
                if over {
                    return None;
                }
                let next = match timeout_at(end, listing.next()).await {
                    Ok(next) => next?,
                    Err(_) => Err(TooLarge::slow(limits.time).into()),
                };
                let next = next.and_then(|meta| {
                    check_version(&meta.location)?;
                    let length = meta.location.as_ref().len();
                    match (objects.checked_sub(1), names.checked_sub(length)) {
                        (Some(objects), Some(names)) => Ok((meta, objects, names)),
                        _ => Err(TooLarge::listing(limits.listed, limits.names).into()),
                    }
                });
                Some(match next {
                    Ok((meta, objects, names)) => (Ok(meta), (listing, objects, names, end, false)),
                    Err(error) => (Err(error), (listing, 0, 0, end, true)),
                })
            },
        )
        .try_filter(|meta| std::future::ready(!is_folder(meta)))
        .boxed()
    }
}

/// Whether an object stands for a folder: consoles and Hadoop make empty ones named `folder/` or
/// `folder_$folder$`. No file of a table is empty and without an extension.
fn is_folder(meta: &ObjectMeta) -> bool {
    let name = meta.location.filename().unwrap_or_default();
    meta.size == 0 && (name.ends_with("$folder$") || !name.contains('.'))
}

/// The number a file of the log begins with. Versions are signed in the protocol, and the next one
/// must have a number too.
fn check_version(location: &Path) -> Result<()> {
    let mut parts = location.parts();
    let in_log = parts.any(|part| part.as_ref() == "_delta_log");
    let name = location.filename().unwrap_or_default();
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    if !in_log || digits.len() < 18 {
        return Ok(());
    }
    // Longer than any name of the protocol is as wrong as a larger number.
    match digits.parse::<i64>() {
        Ok(version) if version < i64::MAX - 1 => Ok(()),
        _ => Err(TooLarge::version().into()),
    }
}

/// Bytes of a range that are known before the size of the object is.
fn requested(range: &GetRange) -> Option<u64> {
    match range {
        GetRange::Bounded(range) => Some(range.end.saturating_sub(range.start)),
        GetRange::Suffix(last) => Some(*last),
        GetRange::Offset(_) => None,
    }
}

/// Whether an object is lines of JSON.
fn is_json(location: &Path) -> bool {
    location.extension() == Some("json")
        || matches!(location.filename(), Some("_last_checkpoint"))
        || location.extension() == Some("crc")
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounded({})", self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Bounded {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (end, head) = (self.end(), options.head);
        let limit = match options.range.as_ref().map(requested) {
            None => self.limits.of(location),
            Some(None) => self.limits.ranges,
            Some(Some(length)) if length > self.limits.ranges => {
                return Err(TooLarge::object(self.limits.ranges).into());
            }
            Some(Some(length)) => length,
        };
        let ranged = options.range.is_some();
        let slow = || Error::from(TooLarge::slow(self.limits.time));
        let result = timeout_at(end, self.store.get_opts(location, options)).await;
        let mut result = result.map_err(|_| slow())??;
        if head {
            return Ok(result);
        }
        let length = result.range.end.checked_sub(result.range.start);
        let Some(length) = length.filter(|length| *length <= limit) else {
            return Err(TooLarge::object(limit).into());
        };
        // A file is read here, where it counts toward the time, and not by whoever gets it.
        let body = match result.payload {
            GetResultPayload::Stream(body) => body,
            file @ GetResultPayload::File(..) => {
                let whole = GetResult {
                    payload: file,
                    meta: result.meta.clone(),
                    range: result.range.clone(),
                    attributes: result.attributes.clone(),
                };
                stream::once(whole.bytes()).boxed()
            }
        };
        let scan = (!ranged && is_json(location)).then(Scan::default);
        let body = Body {
            body,
            left: length,
            scan,
            end,
            time: self.limits.time,
        };
        result.payload = GetResultPayload::Stream(body.stream());
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let lengths = ranges
            .iter()
            .map(|range| range.end.checked_sub(range.start));
        let total = lengths
            .map(|length| length.unwrap_or(u64::MAX))
            .fold(0_u64, u64::saturating_add);
        if total > self.limits.ranges {
            return Err(TooLarge::object(self.limits.ranges).into());
        }
        let read = timeout_at(self.end(), self.store.get_ranges(location, ranges)).await;
        let read = read.map_err(|_| Error::from(TooLarge::slow(self.limits.time)))??;
        let fits = |(bytes, range): (&Bytes, &Range<u64>)| {
            Some(bytes.len() as u64) == range.end.checked_sub(range.start)
        };
        match read.len() == ranges.len() && read.iter().zip(ranges).all(fits) {
            true => Ok(read),
            false => Err(TooLarge::length().into()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counted(self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counted(self.store.list_with_offset(prefix, offset))
    }

    /// Not asked of the store, which would collect all of it first.
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
        };
        let mut listing = self.list(prefix);
        let root = prefix.cloned().unwrap_or_default();
        while let Some(meta) = listing.try_next().await? {
            let (first, more) = {
                let Some(mut below) = meta.location.prefix_match(&root) else {
                    continue;
                };
                (
                    below.next().map(|p| p.as_ref().to_owned()),
                    below.next().is_some(),
                )
            };
            match (first, more) {
                (Some(folder), true) => {
                    let folder = root.clone().join(folder);
                    if result.common_prefixes.last() != Some(&folder) {
                        result.common_prefixes.push(folder);
                    }
                }
                _ => result.objects.push(meta),
            }
        }
        result.common_prefixes.sort();
        result.common_prefixes.dedup();
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}

/// An object while it is read.
struct Body {
    body: BoxStream<'static, Result<Bytes>>,
    /// Bytes that are still to come.
    left: u64,
    scan: Option<Scan>,
    end: Instant,
    time: Duration,
}

impl Body {
    fn stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut body| async move {
            let next = timeout_at(body.end, body.body.next()).await;
            let Some(bytes) = next.map_err(|_| Error::from(TooLarge::slow(body.time)))? else {
                return match body.left {
                    0 => Ok(None),
                    _ => Err(TooLarge::length().into()),
                };
            };
            let bytes = bytes?;
            let Some(left) = body.left.checked_sub(bytes.len() as u64) else {
                return Err(TooLarge::length().into());
            };
            body.left = left;
            if let Some(scan) = &mut body.scan {
                scan.read(&bytes)?;
            }
            Ok(Some((bytes, body)))
        })
        .boxed()
    }
}

/// An answer that is not read to its end, and why.
#[derive(Debug)]
pub(crate) struct TooLarge(String, Why);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Wrong,
    Slow,
}

impl TooLarge {
    pub(crate) fn wrong(text: String) -> Self {
        Self(text, Why::Wrong)
    }

    /// Whether another try may find the store quicker.
    pub(crate) fn is_slow(&self) -> bool {
        self.1 == Why::Slow
    }

    fn object(limit: u64) -> Self {
        Self::wrong(format!(
            "an object of the table has more than {limit} bytes"
        ))
    }

    fn listing(objects: usize, names: usize) -> Self {
        Self::wrong(format!(
            "the listing has more than {objects} objects, or names of more than {names} bytes"
        ))
    }

    fn length() -> Self {
        Self::wrong("the store sent another number of bytes than it announced".into())
    }

    fn version() -> Self {
        Self::wrong("a file of the log has a version that no table can have".into())
    }

    fn slow(time: Duration) -> Self {
        Self(
            format!("the store did not finish its answer in {time:?}"),
            Why::Slow,
        )
    }

    pub(crate) fn checkpoint(what: &str) -> Self {
        Self::wrong(format!("a checkpoint of the table {what}"))
    }

    pub(super) fn line(limit: usize) -> Self {
        Self::wrong(format!("a line of the log has more than {limit} bytes"))
    }

    pub(super) fn values(limit: usize) -> Self {
        Self::wrong(format!("a file of the log has more than {limit} values"))
    }

    pub(super) fn depth() -> Self {
        Self::wrong(format!(
            "a line of the log is nested more than {MAX_DEPTH} deep"
        ))
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for TooLarge {}

impl From<TooLarge> for Error {
    fn from(error: TooLarge) -> Self {
        Self::Generic {
            store: "table",
            source: Box::new(error),
        }
    }
}

#[cfg(test)]
mod tests;
