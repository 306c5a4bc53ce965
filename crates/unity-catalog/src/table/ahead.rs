//! A store that answers from what was fetched of a log, and ends its requests in time.

use super::checkpoint::Part;
use super::fetched::{Fetched, late};
use crate::storage::TooLarge;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A store whose log was fetched, and whose requests end in time.
#[derive(Debug)]
pub(super) struct Ahead {
    store: Arc<dyn ObjectStore>,
    fetched: Arc<Fetched>,
    end: Instant,
    /// Whether no checkpoint is read that was not fetched, and so not checked.
    strict: bool,
}

impl Ahead {
    /// What was not fetched is asked of `store`, for no longer than `time` from now on in all.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        fetched: Arc<Fetched>,
        time: Duration,
        strict: bool,
    ) -> Self {
        Self {
            store,
            fetched,
            end: Instant::now() + time,
            strict,
        }
    }

    fn check(&self, location: &Path) -> Result<()> {
        match self.strict && location.extension() == Some("parquet") {
            true => Err(TooLarge::checkpoint("has parts that are not read here").into()),
            false => Ok(()),
        }
    }

    async fn in_time<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        timeout_at(self.end, request).await.unwrap_or(Err(late()))
    }

    fn listed(
        &self,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let end = self.end;
        stream::try_unfold(listing, move |mut listing| async move {
            let next = timeout_at(end, listing.next()).await.map_err(|_| late())?;
            Ok(next.transpose()?.map(|meta| (meta, listing)))
        })
        .boxed()
    }

    /// A range of an object that was fetched.
    fn slice(&self, location: &Path, range: &Range<u64>) -> Option<Bytes> {
        if let Some((_, bytes)) = self.fetched.whole.get(location) {
            return Part::at(0, bytes.clone()).slice(range);
        }
        let (_, parts) = self.fetched.parts.get(location)?;
        parts.iter().find_map(|part| part.slice(range))
    }

    fn get(&self, location: &Path, options: &GetOptions) -> Option<GetResult> {
        let (meta, whole) = match self.fetched.whole.get(location) {
            Some((meta, bytes)) => (meta, Some(bytes)),
            None => (&self.fetched.parts.get(location)?.0, None),
        };
        let size = whole.map_or(meta.size, |bytes| bytes.len() as u64);
        let (range, bytes) = match (&options.range, whole) {
            _ if options.head => (0..size, Bytes::new()),
            (None, Some(bytes)) => (0..size, bytes.clone()),
            (None, None) => return None,
            (Some(range), _) => {
                let range = match range {
                    GetRange::Bounded(range) => range.start..range.end.min(size),
                    GetRange::Offset(from) => *from..size,
                    GetRange::Suffix(last) => size.saturating_sub(*last)..size,
                };
                let bytes = self.slice(location, &range)?;
                (range, bytes)
            }
        };
        Some(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
            meta: ObjectMeta {
                size,
                ..meta.clone()
            },
            range,
            attributes: Default::default(),
        })
    }
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ahead({})", self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Ahead {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.in_time(self.store.put_opts(location, payload, opts))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self
            .in_time(self.store.put_multipart_opts(location, opts))
            .await?;
        Ok(Box::new(Upload {
            upload,
            end: self.end,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.fetched.missing.contains(location) {
            return Err(Error::NotFound {
                path: location.to_string(),
                source: "it was not there a moment ago".into(),
            });
        }
        if let Some(found) = self.get(location, &options) {
            return Ok(found);
        }
        if !options.head {
            self.check(location)?;
        }
        let mut result = self.in_time(self.store.get_opts(location, options)).await?;
        if let GetResultPayload::Stream(body) = result.payload {
            let end = self.end;
            let body = stream::try_unfold(body, move |mut body| async move {
                let next = timeout_at(end, body.next()).await.map_err(|_| late())?;
                Ok(next.transpose()?.map(|bytes| (bytes, body)))
            });
            result.payload = GetResultPayload::Stream(body.boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found: Option<Vec<_>> = ranges.iter().map(|r| self.slice(location, r)).collect();
        match found {
            Some(found) => Ok(found),
            None => self.in_time(self.store.get_ranges(location, ranges)).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let fetched = &self.fetched;
        let of_log = prefix.is_some_and(|prefix| prefix.as_ref() == "_delta_log");
        if of_log && fetched.from.as_ref().is_some_and(|from| offset >= from) {
            let after = fetched.listing.iter().filter(|m| m.location > *offset);
            let after: Vec<_> = after.cloned().map(Ok).collect();
            return stream::iter(after).boxed();
        }
        self.listed(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.in_time(self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.in_time(self.store.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.in_time(self.store.rename_opts(from, to, options))
            .await
    }
}

/// A large checkpoint that is written in time.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    end: Instant,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        let (part, end) = (self.upload.put_part(data), self.end);
        Box::pin(async move { timeout_at(end, part).await.unwrap_or(Err(late())) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = timeout_at(self.end, self.upload.complete()).await;
        done.unwrap_or(Err(late()))
    }

    async fn abort(&mut self) -> Result<()> {
        let done = timeout_at(self.end, self.upload.abort()).await;
        done.unwrap_or(Err(late()))
    }
}
