//! Calling a sink so that it can neither hold up the pipeline nor unwind into it, destructors
//! included.

use super::poll_turns::{PollTurns, Turn};
use super::turn::{Clock, waiting_for_turn};
use crate::contain::{caught, drop_apart, in_place, release};
use crate::error::{Error, ErrorKind};
use crate::location::{BatchEncoder, Capabilities, TraceLocation, TraceSink, Written};
use crate::record::{Encoded, TraceBatch};
use crate::uri::LocationUri;
use async_trait::async_trait;
use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a sink may take to close before it is dropped as it is.
const CLOSING: Duration = Duration::from_secs(10);
/// What an error names that ended a check.
const CHECK: &str = "check location";

/// Opens a location; gives the sink and what encodes for it ahead.
pub(super) async fn open(
    location: &dyn TraceLocation,
    turns: Option<Arc<PollTurns>>,
) -> Result<(Box<dyn TraceSink>, Option<Arc<dyn BatchEncoder>>), Error> {
    // The calls are made inside the future: a location may panic before it returns one.
    let open = async {
        let sink = Sink(Some(location.open().await?));
        let encoder = sink.encoder();
        Ok((Box::new(sink) as Box<dyn TraceSink>, encoder))
    };
    isolated(open, "open location", turns).await
}

/// Checks a location on a thread of its own, which it may block.
pub(crate) async fn check(location: &dyn TraceLocation) -> Result<(), Error> {
    isolated(async { location.check().await }, CHECK, None).await
}

/// Writes a batch once.
pub(super) async fn write(
    sink: &dyn TraceSink,
    batch: &TraceBatch,
    turns: Option<Arc<PollTurns>>,
) -> Result<Written, Error> {
    isolated(async { sink.write(batch).await }, "write batch", turns).await
}

/// Closes a sink; its error is for the log only.
pub(crate) async fn close(
    sink: Box<dyn TraceSink>,
    turns: Option<Arc<PollTurns>>,
) -> Result<(), Error> {
    let close = isolated(async { sink.close().await }, "close location", turns);
    match tokio::time::timeout(CLOSING, close).await {
        Ok(closed) => closed,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "close location",
            format!("no answer in {CLOSING:?}, dropped as it is"),
        )),
    }
}

/// Polls and drops a future of a sink so that it can neither hold up a worker by blocking nor
/// unwind into the pipeline. One that does not block is polled as it is, without a turn.
fn isolated<'a, T>(
    future: impl Future<Output = Result<T, Error>> + Send + 'a,
    operation: &'static str,
    turns: Option<Arc<PollTurns>>,
) -> Isolated<'a, T> {
    Isolated {
        future: Some(Box::pin(future)),
        operation,
        turns,
        waiting: None,
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Isolated<'a, T> {
    future: Option<Boxed<'a, Result<T, Error>>>,
    operation: &'static str,
    /// `None` where polls do not block.
    turns: Option<Arc<PollTurns>>,
    /// Waits for a turn.
    waiting: Option<Boxed<'static, Turn>>,
}

impl<T> Future for Isolated<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(turn) = self.poll_turn(cx) else {
            return Poll::Pending;
        };
        let Some(mut future) = self.future.take() else {
            unreachable!("it is not polled after it was ready");
        };
        let poll = || {
            let ended = match caught(|| future.as_mut().poll(cx)) {
                Ok(Poll::Pending) => return (Some(future), Poll::Pending),
                Ok(Poll::Ready(output)) => Ok(output),
                Err(panic) => Err(panic),
            };
            let _ = caught(|| drop(future));
            (None, Poll::Ready(ended))
        };
        let (left, polled) = match turn {
            // Hands the worker's other tasks to another thread for as long as this poll takes.
            Some(_turn) => {
                Clock::note_turn();
                in_place(poll)
            }
            None => poll(),
        };
        self.future = left;
        polled.map(|ended| ended.unwrap_or_else(|panic| Err(panicked(self.operation, &panic))))
    }
}

impl<T> Isolated<'_, T> {
    /// Takes a turn for one poll, where one is needed.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Turn>> {
        let Some(turns) = &self.turns else {
            return Poll::Ready(None);
        };
        if self.waiting.is_none()
            && let Some(turn) = turns.try_take()
        {
            return Poll::Ready(Some(turn));
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(waiting_for_turn(turns.clone().take())));
        let polled = waiting.as_mut().poll(cx);
        if polled.is_ready() {
            self.waiting = None;
        }
        polled.map(Some)
    }
}

impl<T> Drop for Isolated<'_, T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            let end = || caught(|| drop(future));
            let _ = match self.turns {
                Some(_) => in_place(end),
                None => end(),
            };
        }
    }
}

/// Runs a future of the pipeline's own; a panic in it, which only a defect of this crate can cause,
/// ends the future and not the task.
pub(super) async fn supervised(future: impl Future<Output = ()>) -> Result<(), String> {
    let mut future = pin!(future);
    poll_fn(|cx| match caught(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn panicked(operation: &'static str, panic: &str) -> Error {
    if operation == CHECK {
        let cause = format!("the location panicked: {panic}");
        let error = Error::new(ErrorKind::Internal, operation, cause);
        return error.mend("this is a defect of the location");
    }
    Error::new(
        ErrorKind::Internal,
        operation,
        format!("the sink panicked: {panic}"),
    )
    .retryable()
    .mend("this is a defect of the sink; the batch is tried again")
}

/// A location of a lane, whose destructor is contained.
pub(crate) fn location(
    location: Arc<dyn TraceLocation>,
    uri: &LocationUri,
) -> Arc<dyn TraceLocation> {
    Arc::new(Location {
        inner: Some(location),
        uri: uri.clone(),
    })
}

struct Location {
    inner: Option<Arc<dyn TraceLocation>>,
    /// Asked once.
    uri: LocationUri,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.uri).finish()
    }
}

#[async_trait]
impl TraceLocation for Location {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        crate::destination::capabilities(self.inner()).0
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.inner().open().await
    }

    async fn check(&self) -> Result<(), Error> {
        self.inner().check().await
    }
}

impl Location {
    fn inner(&self) -> &dyn TraceLocation {
        match &self.inner {
            Some(location) => &**location,
            None => unreachable!("it is taken when this is dropped"),
        }
    }
}

impl Drop for Location {
    fn drop(&mut self) {
        if let Some(location) = self.inner.take() {
            release(location);
        }
    }
}

/// An opened sink whose destructor is contained, and that of its encoder.
struct Sink(Option<Box<dyn TraceSink>>);

impl Sink {
    fn inner(&self) -> &dyn TraceSink {
        match &self.0 {
            Some(sink) => &**sink,
            None => unreachable!("it is taken when this is closed or dropped"),
        }
    }
}

#[async_trait]
impl TraceSink for Sink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        self.inner().write(batch).await
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        let encoder = self.inner().encoder()?;
        Some(Arc::new(Encoder(Some(encoder))))
    }

    async fn close(mut self: Box<Self>) -> Result<(), Error> {
        match self.0.take() {
            Some(sink) => sink.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(sink) = self.0.take() {
            drop_apart(sink);
        }
    }
}

/// An encoder whose destructor is contained, and those of what it makes.
struct Encoder(Option<Arc<dyn BatchEncoder>>);

impl BatchEncoder for Encoder {
    fn encode(&self, batch: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>> {
        let encoder = self.0.as_ref()?;
        // A panic is the sink's to repeat when its turn comes, where it is reported.
        let encoded = caught(|| encoder.encode(batch)).ok()??;
        Some(Arc::new(Encoded::new(encoded)))
    }

    fn encoded_bytes(&self, encoded: &(dyn Any + Send + Sync)) -> usize {
        let inner = encoded.downcast_ref().and_then(Encoded::inner);
        let (Some(encoder), Some(inner)) = (&self.0, inner) else {
            return 0;
        };
        caught(|| encoder.encoded_bytes(inner)).unwrap_or_default()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(encoder) = self.0.take() {
            release(encoder);
        }
    }
}
