//! A location that notes for each span how long it took from its end until it was stored.

use async_trait::async_trait;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trace_destination::{
    BatchEncoder, Capabilities, Error, LocationUri, TraceBatch, TraceLocation, TraceSink, Written,
};

/// Passes everything on.
#[derive(Debug)]
pub(super) struct Timed<L> {
    inner: L,
    times: Times,
}

/// What was noted: when each span ended, since the beginning, and how long it took then.
#[derive(Clone, Debug)]
pub(super) struct Times {
    began: SystemTime,
    noted: Arc<Mutex<Vec<(Duration, Duration)>>>,
}

impl Times {
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed().unwrap_or_default()
    }

    /// Of the spans that ended in this time and are stored.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Vec<Duration> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let within = noted.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, took)| *took).collect()
    }
}

impl<L: TraceLocation> Timed<L> {
    pub(super) fn new(inner: L) -> Self {
        let times = Times {
            began: SystemTime::now(),
            noted: Arc::default(),
        };
        Self { inner, times }
    }

    pub(super) fn times(&self) -> Times {
        self.times.clone()
    }
}

impl<L: TraceLocation> fmt::Display for Timed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl<L: TraceLocation> TraceLocation for Timed<L> {
    fn uri(&self) -> &LocationUri {
        self.inner.uri()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(TimedSink {
            inner: self.inner.open().await?,
            times: self.times.clone(),
        }))
    }
}

struct TimedSink {
    inner: Box<dyn TraceSink>,
    times: Times,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TraceSink for TimedSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let written = self.inner.write(batch).await?;
        let now = SystemTime::now();
        let mut noted = self
            .times
            .noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for span in batch.spans() {
            let ended = UNIX_EPOCH + Duration::from_nanos(span.end_time_unix_nano());
            noted.push((
                ended.duration_since(self.times.began).unwrap_or_default(),
                now.duration_since(ended).unwrap_or_default(),
            ));
        }
        Ok(written)
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        self.inner.encoder()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.inner.close().await
    }
}
