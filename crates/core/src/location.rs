//! The two traits a backend implements, and what it declares about itself.

use crate::error::{Error, ErrorKind};
use crate::record::TraceBatch;
use crate::uri::LocationUri;
use async_trait::async_trait;
use std::any::Any;
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

/// A place where traces are stored: a value, cheap to make and to compare by its URI. It does
/// nothing until the pipeline opens it.
///
/// `Display` prints the URI. Neither `Display` nor `Debug` may show a secret.
#[async_trait]
pub trait TraceLocation: Debug + Display + Send + Sync + 'static {
    /// Canonical identity. Equal URIs are the same place and share one lane. Asked once, when a
    /// [`Destination`](crate::Destination) is made; if it panics, the destination's `open` fails.
    fn uri(&self) -> &LocationUri;

    /// What this place promises and how it likes its batches. Must not change. If it panics, the
    /// defaults apply and the panic is the location's last error.
    fn capabilities(&self) -> Capabilities;

    /// Opens the place for writing. Called lazily, when the first batch is ready, at most once at
    /// a time per URI, and again after [`TraceSink::close`].
    ///
    /// Runs on a tokio runtime that the pipeline owns, with telemetry suppressed.
    ///
    /// # Errors
    /// Whatever keeps the place from being written; [`Error::retry`] decides whether the pipeline
    /// tries again or fails the waiting batches at once.
    ///
    /// # Cancellation
    /// The future may be dropped at a shutdown deadline, or when it made no progress until the
    /// retry deadline; nothing may be left half-created.
    async fn open(&self) -> Result<Box<dyn TraceSink>, Error>;

    /// Finds out whether the place can be written, and writes no span: what
    /// [`Destination::check`](crate::Destination::check) asks. Opens and closes it unless a location
    /// has a better way, as it needs where `open` asks the place nothing.
    ///
    /// # Behavior
    /// - What it opens it closes, and leaves nothing that the first write would not leave.
    /// - It runs apart from any pipeline, perhaps while one writes to the same place, which it does
    ///   not disturb: state that sinks of the location share stays as it is.
    /// - The future may block its thread.
    ///
    /// # Errors
    /// Whatever would keep a span from being stored, as far as that can be told without one.
    ///
    /// # Cancellation
    /// As for [`open`](Self::open): the future is dropped at the check's deadline.
    async fn check(&self) -> Result<(), Error> {
        self.open().await?.close().await
    }
}

/// An opened location.
///
/// Whatever it does, it does to itself alone: a panic in a call, in a destructor (of the sink, of a
/// future that is cancelled, of an encoder and what it made) or of a panic's payload ends there, and
/// a call or destructor that blocks holds up its own location only. Two things are beyond that: a
/// destructor that panics while another panic unwinds aborts the process, as everywhere, and tasks
/// that a sink spawns run on the pipeline's two workers as they are. They must not block; use
/// `spawn_blocking`.
#[async_trait]
pub trait TraceSink: Send + Sync {
    /// Stores the batch.
    ///
    /// # Behavior
    /// - `Ok` means: stored by this backend's documented standard, except for the spans named as
    ///   refused. Nothing is buffered beyond the call.
    /// - The same batch (same id) may come again, after an error or an unknown outcome. A backend
    ///   that declares [`Guarantee::Idempotent`] stores its spans once.
    /// - Batches of one location arrive one after the other, in the order of their sequence.
    /// - A span that cannot be stored is refused alone; the rest of its batch is stored.
    /// - Trace-level values that cannot be stored are told in [`Written::lost_updates`].
    /// - The future may block its thread; other locations go on meanwhile.
    ///
    /// # Errors
    /// `Err` means that nothing or an unknown part was stored. [`Error::retry`] says whether the
    /// pipeline writes the batch again.
    ///
    /// # Cancellation
    /// The future may be dropped at a shutdown deadline, or when it made no progress until the
    /// retry deadline; what was stored stays readable.
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error>;

    /// What encodes batches ahead of their turn, for a sink whose writes begin with work that needs
    /// neither the place nor an order; none unless a sink says otherwise. Asked once, when the sink
    /// was opened.
    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        None
    }

    /// Gives up connections and files. Nothing is pending when it is called.
    ///
    /// # Errors
    /// Only for the log: a sink that returns an error here is closed all the same.
    async fn close(self: Box<Self>) -> Result<(), Error>;
}

/// Encodes a batch while the one before it is still being written, on another thread: where batches
/// queue up, the processor's work on one overlaps with the wait for the place of another.
pub trait BatchEncoder: Send + Sync + 'static {
    /// Whatever the sink makes of the batch before it is stored, which [`TraceSink::write`] finds as
    /// [`TraceBatch::encoded`]; `None` leaves everything to the write, errors included.
    ///
    /// # Behavior
    /// - It is asked for a batch at most once, and not for every batch: a write finds nothing encoded
    ///   where it did not have to wait, or too many others are being encoded.
    /// - A sink that was opened anew may be given what the encoder of the one before made.
    /// - What it returns is kept until the batch is done, or until spans are cut off the batch for
    ///   want of memory.
    fn encode(&self, batch: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>>;

    /// The memory that something [`encode`](Self::encode) returned takes, in bytes, beside the batch
    /// itself. Counted in the budgets for as long as it is kept.
    fn encoded_bytes(&self, encoded: &(dyn Any + Send + Sync)) -> usize {
        let _ = encoded;
        0
    }
}

/// What a successful [`TraceSink::write`] has to say.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Spans that were not stored, each with its reason.
    pub refused: Vec<Refusal>,
    /// Why values set on traces were given up: one error for each trace, of this batch or of an
    /// earlier one, whose values the place did not take although it has the spans. They show as
    /// `lost_updates` in stats and flush reports, with the last error.
    pub lost_updates: Vec<Error>,
}

impl Written {
    /// Reports every trace-level value of `batch` as lost: for a place that declares
    /// [`TraceValues::Stored`] and cannot take them, or for a batch that was made by hand.
    /// `why` says what the place is, as in "a table of spans has no column for …".
    #[must_use]
    pub fn without_updates(mut self, batch: &TraceBatch, why: &str) -> Self {
        let lost = batch.updates().iter().map(|update| {
            let cause = format!(
                "values set on trace {} are not stored: {why}",
                update.trace_id
            );
            Error::new(ErrorKind::Unsupported, "write trace-level values", cause).mend(
                "set them as attributes of a span, or send the trace to an MLflow experiment too",
            )
        });
        self.lost_updates.extend(lost);
        self
    }
}

/// A span that its location did not take.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Position in [`TraceBatch::spans`].
    pub index: usize,
    /// Why.
    pub error: Error,
}

/// How often a span is stored when its batch is written more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Once: repetitions leave no trace.
    Idempotent,
    /// At least once: a repetition may store a span again.
    AtLeastOnce,
}

/// What a location promises and prefers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// How often a repeated span is stored.
    pub guarantee: Guarantee,
    /// When a batch is ready to be written.
    pub batch: BatchLimits,
    /// The store in which a trace id can live at one place only, where there is such a limit: two
    /// locations that name the same store cannot be legs of one destination.
    pub exclusive_store: Option<String>,
    /// Futures of the location and its sinks may block their thread, as most may that were not
    /// written with the opposite in mind. Where they may not, thousands of locations share the
    /// pipeline's few threads; where they may, each that is polled has one to itself.
    pub blocking: bool,
    /// What the place does with values that are set on a trace as a whole.
    pub trace_values: TraceValues,
    /// What it keeps of each of them.
    pub trace_value_limits: TraceValueLimits,
}

/// What a location does with the values that an application sets on a trace as a whole
/// ([`TraceUpdate`](crate::TraceUpdate)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceValues {
    /// The place has spans and nothing else. The pipeline writes the values on the root span, as
    /// attributes under the names that MLflow's server and the semantic conventions read, and
    /// counts those as lost that come too late for it. [`TraceBatch::updates`] is empty.
    #[default]
    OnRootSpan,
    /// The place has a home of its own for them. They come in [`TraceBatch::updates`], with the
    /// spans of their trace or without any, and each is stored, or told in
    /// [`Written::lost_updates`]. The spans are left as they are.
    Stored,
}

/// The longest texts that a location keeps of the values of a trace, in characters. What is longer
/// is cut before the location gets it; a tag or a piece of metadata with a longer key is left out
/// and counted as lost.
///
/// The default is what MLflow's tracking server and its database keep (3.17.2): beyond it the server
/// rejects a request as a whole, the spans of other traces included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceValueLimits {
    /// The name of the trace.
    pub name: usize,
    /// The session.
    pub session_id: usize,
    /// The previews of request and response.
    pub preview: usize,
    /// Keys of tags and metadata.
    pub key: usize,
    /// Values of tags and metadata, and the user.
    pub value: usize,
}

impl Default for TraceValueLimits {
    fn default() -> Self {
        Self {
            name: 4096,
            session_id: 250,
            preview: 1000,
            key: 250,
            value: 8000,
        }
    }
}

impl Capabilities {
    /// Capabilities with the pipeline's usual batch limits and no exclusive store.
    pub fn new(guarantee: Guarantee) -> Self {
        Self {
            guarantee,
            batch: BatchLimits::default(),
            exclusive_store: None,
            blocking: true,
            trace_values: TraceValues::default(),
            trace_value_limits: TraceValueLimits::default(),
        }
    }

    /// Declares what the place does with values that are set on a trace as a whole.
    #[must_use]
    pub fn with_trace_values(mut self, values: TraceValues) -> Self {
        self.trace_values = values;
        self
    }

    /// Sets what the place keeps of each such value.
    #[must_use]
    pub fn with_trace_value_limits(mut self, limits: TraceValueLimits) -> Self {
        self.trace_value_limits = limits;
        self
    }

    /// Promises that no future of the location or its sinks blocks its thread: that each poll ends
    /// after some microseconds of work, and waits for nothing. A location that wraps another keeps
    /// the promise only if it does nothing else itself.
    #[must_use]
    pub fn non_blocking(mut self) -> Self {
        self.blocking = false;
        self
    }

    /// Sets the preferred batch limits.
    #[must_use]
    pub fn with_batch(mut self, batch: BatchLimits) -> Self {
        self.batch = batch;
        self
    }

    /// Names the store in which a trace id is unique.
    #[must_use]
    pub fn with_exclusive_store(mut self, store: impl Into<String>) -> Self {
        self.exclusive_store = Some(store.into());
        self
    }
}

/// A batch is sealed when the first of these is reached, and earlier where all growing batches together
/// hold half of the pipeline's budget. A batch never holds more bytes than half of its location's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Number of spans; 512 unless the backend prefers otherwise.
    pub spans: usize,
    /// Bytes of span data in memory; 1 MiB unless the backend prefers otherwise.
    pub bytes: usize,
    /// Age of the oldest span; 1 s unless the backend prefers otherwise.
    pub age: Duration,
}

/// What a pipeline sets of the batch limits; a location's own preference holds for the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BatchSettings {
    pub(crate) spans: Option<usize>,
    pub(crate) bytes: Option<usize>,
    pub(crate) age: Option<Duration>,
}

impl BatchSettings {
    /// The limits of a location that prefers `own`.
    pub(crate) fn over(self, own: BatchLimits) -> BatchLimits {
        BatchLimits {
            spans: self.spans.unwrap_or(own.spans),
            bytes: self.bytes.unwrap_or(own.bytes),
            age: self.age.unwrap_or(own.age),
        }
    }
}

impl From<BatchLimits> for BatchSettings {
    fn from(all: BatchLimits) -> Self {
        Self {
            spans: Some(all.spans),
            bytes: Some(all.bytes),
            age: Some(all.age),
        }
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            spans: 512,
            bytes: 1 << 20,
            age: Duration::from_secs(1),
        }
    }
}
