//! A store that fails as real ones do: before a request reached it, after it was carried out, late,
//! by asking to slow down, and by listings that lag behind.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// What becomes of requests, drawn at random; one for all stores of a test.
#[derive(Debug)]
pub(crate) struct Weather {
    /// Of 100 writes, how many fail in some way. Of the reads it is a tenth: opening a table is many
    /// of them in a row, and is tried again as a whole.
    percent: u64,
    /// How far listings lag behind.
    lag: Duration,
    state: Mutex<u64>,
    tally: Mutex<Tally>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lost: u32,
    pub(crate) landed: u32,
    pub(crate) late: u32,
    pub(crate) throttled: u32,
    pub(crate) refused: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    /// No answer, and nothing was done.
    Lost,
    /// No answer, and it was done.
    Landed,
    /// No answer, and it is done a little later.
    Late,
    /// "Slow down".
    Throttled,
    /// Short-lived credentials that are being replaced.
    Refused,
}

impl Weather {
    pub(crate) fn new(seed: u64, percent: u64, lag: Duration) -> Arc<Self> {
        Arc::new(Self {
            percent,
            lag,
            state: Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            tally: Mutex::default(),
        })
    }

    pub(crate) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap()
    }

    fn random(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state >> 11
    }

    fn fate(&self, part: u64) -> Fate {
        if self.random() % (100 * part) >= self.percent {
            return Fate::Fine;
        }
        let mut tally = self.tally.lock().unwrap();
        match self.random() % 5 {
            0 => {
                tally.lost += 1;
                Fate::Lost
            }
            1 => {
                tally.landed += 1;
                Fate::Landed
            }
            2 => {
                tally.late += 1;
                Fate::Late
            }
            3 => {
                tally.throttled += 1;
                Fate::Throttled
            }
            _ => {
                tally.refused += 1;
                Fate::Refused
            }
        }
    }
}

/// The store in such weather.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    weather: Arc<Weather>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, weather: Arc<Weather>) -> Self {
        Self { inner, weather }
    }

    /// Whether a request that changes nothing goes through.
    fn gate(&self) -> Result<()> {
        match self.weather.fate(10) {
            Fate::Fine | Fate::Landed | Fate::Late => Ok(()),
            fate => Err(error(fate)),
        }
    }

    fn lagging(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.gate() {
            return stream::once(async { Err(error) }).boxed();
        }
        let shown_from = SystemTime::now() - self.weather.lag;
        list.try_filter(move |meta| {
            let shown = SystemTime::from(meta.last_modified) <= shown_from;
            async move { shown }
        })
        .boxed()
    }
}

fn error(fate: Fate) -> Error {
    let said = match fate {
        Fate::Throttled => "503 SlowDown: reduce your request rate",
        Fate::Refused => "the catalog that renews the credentials does not answer",
        _ => "error sending request: operation timed out",
    };
    Error::Generic {
        store: "faulty",
        source: said.into(),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let fate = self.weather.fate(1);
        match fate {
            Fate::Fine => self.inner.put_opts(location, payload, opts).await,
            Fate::Landed => {
                // Also where it was refused: the answer is what is lost.
                let _ = self.inner.put_opts(location, payload, opts).await;
                Err(error(fate))
            }
            Fate::Late => {
                let (inner, location) = (self.inner.clone(), location.clone());
                let delay = Duration::from_millis(self.weather.random() % 20);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = inner.put_opts(&location, payload, opts).await;
                });
                Err(error(fate))
            }
            _ => Err(error(fate)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.gate()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.gate()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.gate()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lagging(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lagging(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.gate()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.gate()?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.gate()?;
        self.inner.rename_opts(from, to, options).await
    }
}
