//! A location that a run directs: it stores, throttles, fails, hangs or blocks its thread, and
//! checks that each span it is given is its tenant's.

use async_trait::async_trait;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trace_destination_core::{
    AnyValueRef, BatchEncoder, Capabilities, Error, ErrorKind, Guarantee, LocationUri, TraceBatch,
    TraceLocation, TraceSink, Written,
};

/// The attribute that names a span's tenant.
pub(crate) const TENANT: &str = "tenant";
/// Time between two batches of a place that throttles.
const THROTTLE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// What a place does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Stores it.
    Store,
    /// Stores one in [`THROTTLE`], and asks to come again with the others.
    Throttle,
    /// Fails; opening fails too.
    Fail,
    /// Neither answers nor blocks.
    Hang,
    /// Blocks the thread.
    Block,
}

impl Mode {
    pub(crate) const BAD: [Self; 4] = [Self::Throttle, Self::Block, Self::Fail, Self::Hang];
}

/// Sets the mode of a place, also while a call of it hangs or blocks: it then goes on.
#[derive(Debug, Default)]
pub(crate) struct Dial(AtomicU8);

impl Dial {
    pub(crate) fn set(&self, mode: Mode) {
        self.0.store(mode as u8, Ordering::Relaxed);
    }

    fn is(&self, mode: Mode) -> bool {
        self.0.load(Ordering::Relaxed) == mode as u8
    }
}

/// What was stored, of one tenant or of several.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    stored: AtomicU64,
    refused: AtomicU64,
    misplaced: AtomicU64,
    /// When each span ended, in nanoseconds since 1970, and how long until it was stored; where
    /// that is asked for.
    waits: Option<Mutex<Vec<(u64, Duration)>>>,
}

impl Ledger {
    /// A ledger that keeps times.
    pub(crate) fn timed() -> Self {
        Self {
            waits: Some(Mutex::default()),
            ..Self::default()
        }
    }

    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn misplaced(&self) -> u64 {
        self.misplaced.load(Ordering::Relaxed)
    }

    /// Hands the times out.
    pub(crate) fn take_waits(&self) -> Vec<(u64, Duration)> {
        let waits = self.waits.as_ref();
        waits.map_or_else(Vec::new, |waits| {
            std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn note(&self, batch: &TraceBatch, written: &Written) {
        let refused = written.refused.len() as u64;
        self.refused.fetch_add(refused, Ordering::Relaxed);
        let stored = batch.span_count() as u64 - refused;
        self.stored.fetch_add(stored, Ordering::Relaxed);
        if let Some(waits) = &self.waits {
            let now = unix_nanos();
            let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.extend(batch.spans().map(|span| {
                let ended = span.end_time_unix_nano();
                (ended, Duration::from_nanos(now.saturating_sub(ended)))
            }));
        }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// One tenant's location, of its own or around another.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    uri: LocationUri,
    tenant: Arc<str>,
    inner: Option<Arc<dyn TraceLocation>>,
    dial: Arc<Dial>,
    ledger: Arc<Ledger>,
    blocks: bool,
}

impl Place {
    /// A place that stores nothing but in the ledger, or passes everything on to `inner`. Where it
    /// `blocks`, it may be told to block its thread.
    ///
    /// # Errors
    /// If the tenant's name cannot be part of a URI.
    pub(crate) fn new(
        tenant: &str,
        inner: Option<Arc<dyn TraceLocation>>,
        dial: Arc<Dial>,
        ledger: Arc<Ledger>,
        blocks: bool,
    ) -> Result<Self, String> {
        let uri = match &inner {
            Some(inner) => inner.uri().clone(),
            None => {
                LocationUri::from_parts("stress", None, tenant, []).map_err(|e| e.to_string())?
            }
        };
        Ok(Self {
            uri,
            tenant: tenant.into(),
            inner,
            dial,
            ledger,
            blocks,
        })
    }

    fn failure(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            operation,
            "the place fails, as the run asked",
        )
        .at(&self.uri)
        .mend("wait")
        .retryable()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Place {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = match &self.inner {
            Some(inner) => inner.capabilities(),
            None => Capabilities::new(Guarantee::Idempotent).non_blocking(),
        };
        capabilities.blocking |= self.blocks;
        capabilities
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        if self.dial.is(Mode::Fail) {
            return Err(self.failure("open"));
        }
        let inner = match &self.inner {
            Some(inner) => Some(inner.open().await?),
            None => None,
        };
        Ok(Box::new(PlaceSink {
            place: self.clone(),
            inner,
            last: Mutex::new(None),
        }))
    }
}

struct PlaceSink {
    place: Place,
    inner: Option<Box<dyn TraceSink>>,
    /// When it last stored a batch, where it throttles.
    last: Mutex<Option<Instant>>,
}

impl PlaceSink {
    fn throttled(&self) -> Option<Duration> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let left = last.and_then(|last| THROTTLE.checked_sub(last.elapsed()));
        if left.is_none() {
            *last = Some(Instant::now());
        }
        left
    }
}

#[async_trait]
impl TraceSink for PlaceSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let place = &self.place;
        if place.dial.is(Mode::Fail) {
            return Err(place.failure("write batch"));
        }
        if place.dial.is(Mode::Throttle)
            && let Some(left) = self.throttled()
        {
            let error = Error::new(
                ErrorKind::Throttled,
                "write batch",
                "the place asks to slow down, as the run asked",
            );
            return Err(error.at(&place.uri).mend("wait").retry_after(left));
        }
        while place.dial.is(Mode::Hang) {
            tokio::time::sleep(POLL).await;
        }
        while place.dial.is(Mode::Block) {
            std::thread::sleep(POLL);
        }
        let strangers = batch.spans().filter(|span| {
            let tenant = span.attributes().get(TENANT);
            !matches!(tenant, Some(AnyValueRef::String(name)) if *name == *place.tenant)
        });
        let strangers = strangers.count() as u64;
        place
            .ledger
            .misplaced
            .fetch_add(strangers, Ordering::Relaxed);
        let written = match &self.inner {
            Some(inner) => inner.write(batch).await?,
            None => Written::default(),
        };
        place.ledger.note(batch, &written);
        Ok(written)
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        self.inner.as_ref()?.encoder()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        match self.inner {
            Some(inner) => inner.close().await,
            None => Ok(()),
        }
    }
}
