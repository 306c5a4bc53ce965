//! The one public error: what happened, whether it is worth trying again, where, and what to do.

use crate::uri::LocationUri;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What happened, in terms a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URI, option or environment variable is wrong.
    InvalidConfig,
    /// A name does not fit the place that a template has for it.
    InvalidName,
    /// A value in a span cannot be stored by this location.
    InvalidSpan,
    /// The experiment, table, file or server does not exist.
    NotFound,
    /// The same thing exists with other properties, e.g. the trace is already stored elsewhere.
    Conflict,
    /// Credentials are missing, wrong or expired.
    Unauthenticated,
    /// The credentials are valid but not allowed to do this.
    PermissionDenied,
    /// The place does not answer at the moment.
    Unavailable,
    /// The place asks to slow down.
    Throttled,
    /// The place did not answer in time.
    Timeout,
    /// The place is locked by another writer.
    Locked,
    /// No room is left.
    StorageFull,
    /// The place is of a kind, version or schema that this build cannot write.
    Unsupported,
    /// What is stored there is damaged or not what it should be.
    Corrupt,
    /// The pipeline was shut down.
    Shutdown,
    /// A defect in a sink or hook, such as a panic.
    Internal,
}

/// Whether doing the same again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call will fail again until somebody mends something.
    Never,
    /// The same call may succeed later; wait with backoff.
    Backoff,
    /// The place said when to come again.
    After(Duration),
}

/// An error of a location, a sink or the pipeline. Cheap to clone.
///
/// `Display` gives operation, location, cause and mend on one line; the error beneath is
/// `source()` and is not repeated. `Debug` gives that line and those of the errors beneath, so that
/// `main() -> Result<(), Error>` prints something to read; `{:#?}` gives the parts.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    operation: Cow<'static, str>,
    location: Option<LocationUri>,
    cause: Cow<'static, str>,
    mend: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that is not worth retrying; see [`Error::retryable`] and [`Error::retry_after`].
    ///
    /// `operation` says what was being done ("open experiment store"), `cause` what went wrong.
    pub fn new(
        kind: ErrorKind,
        operation: impl Into<Cow<'static, str>>,
        cause: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            retry: Retry::Never,
            operation: operation.into(),
            location: None,
            cause: cause.into(),
            mend: None,
            source: None,
        }))
    }

    fn edit(mut self, f: impl FnOnce(&mut Inner)) -> Self {
        // Builders run before the error is shared, so this clones nothing in practice.
        match Arc::get_mut(&mut self.0) {
            Some(inner) => f(inner),
            None => {
                let shared = self.0;
                let mut inner = Inner {
                    kind: shared.kind,
                    retry: shared.retry,
                    operation: shared.operation.clone(),
                    location: shared.location.clone(),
                    cause: shared.cause.clone(),
                    mend: shared.mend.clone(),
                    source: Some(Box::new(Shared(shared))),
                };
                f(&mut inner);
                self.0 = Arc::new(inner);
            }
        }
        self
    }

    /// Marks the error as worth retrying with backoff.
    #[must_use]
    pub fn retryable(self) -> Self {
        self.edit(|e| e.retry = Retry::Backoff)
    }

    /// Marks the error as worth retrying after a delay the place asked for.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        self.edit(|e| e.retry = Retry::After(delay))
    }

    /// Names the location.
    #[must_use]
    pub fn at(self, location: &LocationUri) -> Self {
        self.edit(|e| e.location = Some(location.clone()))
    }

    /// Says what the reader can do about it.
    #[must_use]
    pub fn mend(self, mend: impl Into<Cow<'static, str>>) -> Self {
        self.edit(|e| e.mend = Some(mend.into()))
    }

    /// Attaches the error beneath.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|e| e.source = Some(source.into()))
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether doing the same again may help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// What was being done.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// Where, if the error belongs to one location.
    pub fn location(&self) -> Option<&LocationUri> {
        self.0.location.as_ref()
    }

    /// What went wrong.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What the reader can do about it.
    pub fn mend_hint(&self) -> Option<&str> {
        self.0.mend.as_deref()
    }
}

/// Errors beneath that `Debug` shows: a chain may be a circle.
const BENEATH: usize = 8;

impl Drop for Inner {
    fn drop(&mut self) {
        // It may be a sink's own type, and go last on any thread.
        if let Some(source) = self.source.take() {
            crate::contain::drop_here(source);
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.operation)?;
        if let Some(location) = &self.0.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.0.cause)?;
        if let Some(mend) = &self.0.mend {
            write!(f, " ({mend})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{self}")?;
            let beneath =
                std::iter::successors(self.source(), |e: &&(dyn StdError + 'static)| (*e).source());
            return beneath
                .take(BENEATH)
                .try_for_each(|e| write!(f, "\n  caused by: {e}"));
        }
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("retry", &self.0.retry)
            .field("operation", &self.0.operation)
            .field("location", &self.0.location)
            .field("cause", &self.0.cause)
            .field("mend", &self.0.mend)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}

/// Keeps the source of a shared error reachable after one copy of it was given more context.
#[derive(Debug)]
struct Shared(Arc<Inner>);

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.cause)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.cause)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}
