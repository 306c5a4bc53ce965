//! Credentials that a catalog gives out for a while, renewed before they end.

use super::secret::Secret;
use async_trait::async_trait;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trace_destination_core::Error;

/// Credentials are renewed this long before they end, or when half their life is over if that is
/// later: long enough for a request, its retries, and a catalog that is away for a moment.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long to wait after a renewal that failed while the credentials at hand are still good.
const PAUSE: Duration = Duration::from_secs(10);
/// Credentials that are to last longer are renewed after this time all the same.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Credentials this close to their end are not used any more.
const LAST: Duration = Duration::from_secs(2);

/// What opens a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Nothing is needed: local files.
    None,
    /// Amazon S3 and what speaks its protocol.
    Aws {
        key_id: String,
        secret: Secret,
        token: Option<Secret>,
    },
    /// A shared access signature: the pairs of a query.
    Azure(Vec<(String, Secret)>),
    /// A bearer token.
    Gcp(Secret),
}

impl Keys {
    /// What must not be shown.
    fn secrets(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Aws { secret, token, .. } => std::iter::once(secret)
                .chain(token)
                .map(Secret::expose)
                .collect(),
            Self::Azure(pairs) => pairs
                .iter()
                .filter(|(name, _)| name == "sig")
                .map(|(_, value)| value.expose())
                .collect(),
            Self::Gcp(token) => vec![token.expose()],
        }
    }
}

/// Credentials as a catalog gave them out.
#[derive(Clone, Debug)]
pub(crate) struct Vended {
    pub(crate) keys: Keys,
    /// How long they last from now on; `None` if they never end.
    pub(crate) life: Option<Duration>,
}

/// Who gives credentials out.
#[async_trait]
pub(crate) trait Vendor: fmt::Debug + Send + Sync {
    async fn vend(&self) -> Result<Vended, Error>;
}

/// The credentials of one open store.
pub(crate) struct Renewal {
    vendor: Box<dyn Vendor>,
    current: RwLock<Arc<Current>>,
    /// Held while new ones are fetched: whoever comes then waits for them.
    fetching: Mutex<()>,
    generation: AtomicU64,
}

struct Current {
    keys: Arc<Keys>,
    generation: u64,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl Renewal {
    /// Asks for the first credentials at once, so that what is wrong shows when a table is opened.
    pub(crate) async fn start(vendor: Box<dyn Vendor>) -> Result<Arc<Self>, Error> {
        let first = Current::new(vendor.vend().await?, 0);
        Ok(Arc::new(Self {
            vendor,
            current: RwLock::new(Arc::new(first)),
            fetching: Mutex::new(()),
            generation: AtomicU64::new(0),
        }))
    }

    fn current(&self) -> Arc<Current> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Credentials that are good for a while yet.
    ///
    /// # Errors
    /// Whatever keeps the catalog from giving new ones out, once those at hand have ended.
    pub(crate) async fn keys(&self) -> Result<Arc<Keys>, Error> {
        let current = self.current();
        if !current.is_due() {
            return Ok(current.keys.clone());
        }
        let _alone = self.fetching.lock().await;
        let current = self.current();
        if !current.is_due() {
            return Ok(current.keys.clone());
        }
        match self.fetch().await {
            Ok(keys) => Ok(keys),
            Err(error) if current.is_good() => {
                tracing::debug!(error = %error, "credentials are not renewed yet; those at hand are used on");
                self.put(current.later());
                Ok(current.keys.clone())
            }
            Err(error) => Err(error),
        }
    }

    /// Which credentials are in use: changes whenever they are renewed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Replaces credentials that the store refused. Of several that saw the same refusal, one asks.
    pub(super) async fn replace(&self, refused: u64) -> Result<(), Error> {
        let _alone = self.fetching.lock().await;
        if self.generation() == refused {
            self.fetch().await?;
        }
        Ok(())
    }

    async fn fetch(&self) -> Result<Arc<Keys>, Error> {
        let vended = self.vendor.vend().await?;
        let next = Current::new(vended, self.generation() + 1);
        let keys = next.keys.clone();
        self.put(next);
        Ok(keys)
    }

    fn put(&self, next: Current) {
        let generation = next.generation;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.generation.store(generation, Ordering::Release);
    }

    /// Takes the credentials in use out of a text.
    pub(super) fn scrub(&self, text: String) -> String {
        super::scrub(text, self.current().keys.secrets())
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("vendor", &self.vendor)
            .finish_non_exhaustive()
    }
}

impl Current {
    fn new(vended: Vended, generation: u64) -> Self {
        let now = Instant::now();
        // A server may say any number; a clock cannot count every one.
        let life = vended.life.map(|life| life.min(LONGEST));
        Self {
            keys: Arc::new(vended.keys),
            generation,
            renew_at: life.map(|life| now + life.saturating_sub(MARGIN).max(life / 2)),
            ends_at: life.map(|life| now + life),
        }
    }

    fn is_due(&self) -> bool {
        self.renew_at.is_some_and(|at| Instant::now() >= at)
    }

    fn is_good(&self) -> bool {
        self.ends_at.is_none_or(|at| Instant::now() + LAST < at)
    }

    /// The same, renewed a little later.
    fn later(&self) -> Self {
        let soon = Instant::now() + PAUSE;
        Self {
            keys: self.keys.clone(),
            generation: self.generation,
            renew_at: Some(
                self.ends_at
                    .map_or(soon, |end| soon.min(end.checked_sub(LAST).unwrap_or(soon))),
            ),
            ends_at: self.ends_at,
        }
    }
}

/// What a catalog said when a store asked for new credentials, found beneath what the store says.
pub(crate) fn renewal_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A store's error that carries the catalog's.
pub(super) fn store_error(error: Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "Unity Catalog",
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests;
