//! A store of a cloud, whose errors show no secret, and whose credentials are replaced once when
//! the store refuses them before their time.

use super::renewal::{Renewal, renewal_error, store_error};
use super::secret::{Secret, scrub, without_secrets_of_addresses};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A plain refusal (403) may be meant: credentials are replaced for one no more often than this.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(30);

/// Words of stores for credentials that are over, wherever the status does not say so: AWS answers
/// 400 `ExpiredToken`, and Azure 403 `AuthenticationFailed`.
const OVER: &[&str] = &[
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidToken",
    "AuthenticationFailed",
];

#[derive(Clone)]
pub(super) struct Guarded(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    renewal: Option<Arc<Renewal>>,
    /// Secrets that are not renewed.
    own: Vec<Secret>,
    last_refusal: Mutex<Option<Instant>>,
}

impl Guarded {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        renewal: Option<Arc<Renewal>>,
        own: Vec<Secret>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            renewal,
            own,
            last_refusal: Mutex::new(None),
        }))
    }

    /// Makes a request, and once more if the store refused the credentials and there are others
    /// now. A request that was refused did nothing.
    async fn call<T, F>(
        &self,
        request: impl Fn(Arc<dyn ObjectStore>) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let inner = &self.0;
        let generation = inner.ready().await?;
        match request(inner.store.clone()).await {
            Ok(done) => return Ok(done),
            Err(error) => inner.after(error, generation).await?,
        }
        let again = request(inner.store.clone()).await;
        again.map_err(|e| inner.clean(e))
    }

    /// The same for a listing, as long as nothing of it was seen.
    fn listing(
        &self,
        list: impl Fn(&dyn ObjectStore) -> Listing + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = self.0.clone();
        let opened = async move {
            let generation = inner.ready().await?;
            let mut listing = list(&*inner.store).peekable();
            if let Some(Err(_)) = Pin::new(&mut listing).peek().await
                && let Some(Err(error)) = listing.next().await
            {
                inner.after(error, generation).await?;
                listing = list(&*inner.store).peekable();
            }
            Ok::<_, Error>(listing.map_err(move |e| inner.clean(e)))
        };
        stream::once(opened).try_flatten().boxed()
    }
}

type Listing = BoxStream<'static, Result<ObjectMeta>>;

impl Inner {
    /// Makes sure of good credentials, and says which they are.
    async fn ready(&self) -> Result<u64> {
        let Some(renewal) = &self.renewal else {
            return Ok(0);
        };
        renewal.keys().await.map_err(store_error)?;
        Ok(renewal.generation())
    }

    /// `Ok` if the request that failed is worth another try with the credentials there are now.
    async fn after(&self, error: Error, generation: u64) -> Result<()> {
        match &self.renewal {
            Some(renewal) if self.is_refusal(&error) => {
                tracing::debug!("the store refused its credentials; they are replaced");
                renewal.replace(generation).await.map_err(store_error)
            }
            _ => Err(self.clean(error)),
        }
    }

    /// Whether a store's error is about credentials that others may mend.
    fn is_refusal(&self, error: &Error) -> bool {
        let about_credentials = match verdict(error) {
            Some(Verdict::Over) => return true,
            Some(Verdict::Denied) => true,
            None => is_mute(error),
        };
        if !about_credentials {
            return false;
        }
        let now = Instant::now();
        let mut last = self
            .last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_new = last.is_none_or(|at| now.duration_since(at) >= BETWEEN_REFUSALS);
        if is_new {
            *last = Some(now);
        }
        is_new
    }

    /// The same error, of the right kind, and without the secrets that stores repeat: S3 puts an
    /// expired session token into its answer.
    fn clean(&self, error: Error) -> Error {
        let error = sorted(error);
        let said = everything(&error);
        let own = self.own.iter().map(Secret::expose);
        let mut cleaned = scrub(without_secrets_of_addresses(&said), own);
        if let Some(renewal) = &self.renewal {
            cleaned = renewal.scrub(cleaned);
        }
        if cleaned == said {
            return error;
        }
        let source = Box::new(Said(cleaned));
        match error {
            Error::NotFound { path, .. } => Error::NotFound { path, source },
            Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
            Error::Precondition { path, .. } => Error::Precondition { path, source },
            Error::PermissionDenied { path, .. } => Error::PermissionDenied { path, source },
            Error::Unauthenticated { path, .. } => Error::Unauthenticated { path, source },
            _ => Error::Generic {
                store: "object store",
                source,
            },
        }
    }
}

/// What a store says of credentials.
enum Verdict {
    /// They are over, or no credentials at all.
    Over,
    /// They are not enough.
    Denied,
}

fn verdict(error: &Error) -> Option<Verdict> {
    if renewal_error(error).is_some() {
        return None;
    }
    let said = everything(error);
    // The clients give listings no kind, and keep the status in text only.
    let says = |status: &str| matches!(error, Error::Generic { .. }) && said.contains(status);
    if matches!(error, Error::Unauthenticated { .. })
        || says("401 Unauthorized")
        || OVER.iter().any(|word| said.contains(word))
    {
        Some(Verdict::Over)
    } else if matches!(error, Error::PermissionDenied { .. }) || says("403 Forbidden") {
        Some(Verdict::Denied)
    } else {
        None
    }
}

/// Whether a store says nothing but that a request was wrong: answers to HEAD have no body, and S3
/// answers 400 where credentials are over.
fn is_mute(error: &Error) -> bool {
    let said = everything(error);
    matches!(error, Error::Generic { .. })
        && said.contains("performing HEAD")
        && said.contains("400 Bad Request")
}

/// The same error as the kind it is.
fn sorted(error: Error) -> Error {
    // Azure answers "denied" where the credentials are over.
    if !matches!(
        error,
        Error::Generic { .. } | Error::PermissionDenied { .. }
    ) {
        return error;
    }
    let path = "of the table".to_owned();
    match verdict(&error) {
        Some(Verdict::Over) => Error::Unauthenticated {
            path,
            source: Box::new(error),
        },
        Some(Verdict::Denied) if !matches!(error, Error::PermissionDenied { .. }) => {
            Error::PermissionDenied {
                path,
                source: Box::new(error),
            }
        }
        _ => error,
    }
}

/// An error and what is beneath it, as one text.
fn everything(error: &Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = error.source();
    }
    said
}

/// What a store said, without secrets.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Said {}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({})", self.0.store)
    }
}

// Not the store's own, which may show its credentials.
impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Guarded {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.call(|store| {
            let (location, payload, opts) = (location.clone(), payload.clone(), opts.clone());
            async move { store.put_opts(&location, payload, opts).await }
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self
            .call(|store| {
                let (location, opts) = (location.clone(), opts.clone());
                async move { store.put_multipart_opts(&location, opts).await }
            })
            .await?;
        Ok(Box::new(Upload {
            upload,
            inner: self.0.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(|store| {
            let (location, options) = (location.clone(), options.clone());
            async move { store.get_opts(&location, options).await }
        })
        .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(|store| {
            let (location, ranges) = (location.clone(), ranges.to_vec());
            async move { store.get_ranges(&location, &ranges).await }
        })
        .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let inner = self.0.clone();
        let opened = async move {
            // What was deleted and what not is known one by one: nothing is tried twice here.
            inner.ready().await?;
            let deleted = inner.store.delete_stream(locations);
            Ok::<_, Error>(deleted.map_err(move |e| inner.clean(e)))
        };
        stream::once(opened).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.listing(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.listing(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(|store| {
            let prefix = prefix.cloned();
            async move { store.list_with_delimiter(prefix.as_ref()).await }
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(|store| {
            let (from, to, options) = (from.clone(), to.clone(), options.clone());
            async move { store.copy_opts(&from, &to, options).await }
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.call(|store| {
            let (from, to, options) = (from.clone(), to.clone(), options.clone());
            async move { store.rename_opts(&from, &to, options).await }
        })
        .await
    }
}

/// An upload in parts. Each part takes the credentials of its moment.
struct Upload {
    upload: Box<dyn MultipartUpload>,
    inner: Arc<Inner>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload")
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, inner) = (self.upload.put_part(data), self.inner.clone());
        Box::pin(async move { part.await.map_err(|e| inner.clean(e)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let completed = self.upload.complete().await;
        completed.map_err(|e| self.inner.clean(e))
    }

    async fn abort(&mut self) -> Result<()> {
        let aborted = self.upload.abort().await;
        aborted.map_err(|e| self.inner.clean(e))
    }
}

#[cfg(test)]
mod tests;
