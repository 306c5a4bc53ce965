//! What can go wrong here, and its one translation into the public error.

use crate::classify::{Blame, Class};
use std::borrow::Cow;
use std::time::Duration;
use trace_destination_core::{Error, ErrorKind, Retry};

/// The operations an error can name.
pub(crate) const BUILD: &str = "build server location";
pub(crate) const OPEN: &str = "open server location";
pub(crate) const WRITE: &str = "send traces";

/// Everything that keeps spans from a server.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server answered, but not with success.
    Answer(Refused),
    /// There was no answer.
    Transport {
        kind: ErrorKind,
        cause: &'static str,
        mend: &'static str,
        retry: bool,
        source: reqwest::Error,
    },
    /// Something else, said in full.
    Said {
        kind: ErrorKind,
        cause: String,
        mend: Cow<'static, str>,
        retry: bool,
    },
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) class: Class,
    /// MLflow's own name for the error, such as `RESOURCE_DOES_NOT_EXIST`.
    pub(crate) code: Option<String>,
    /// What the server says, shortened, without secrets.
    pub(crate) says: String,
    /// What was asked, such as `POST /v1/traces`.
    pub(crate) asked: String,
    /// With what credentials.
    pub(crate) credentials: &'static str,
}

impl Fault {
    pub(crate) fn new(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Said {
            kind,
            cause: cause.into(),
            mend: mend.into(),
            retry: false,
        }
    }

    /// The same, worth trying again.
    pub(crate) fn passing(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Said {
            kind,
            cause: cause.into(),
            mend: mend.into(),
            retry: true,
        }
    }

    /// Whose fault it is, as far as an answer can tell.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Answer(refused) => refused.class.blame,
            Self::Transport { .. } | Self::Said { .. } => Blame::Place,
        }
    }

    /// The status of the answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(refused) => Some(refused.status),
            _ => None,
        }
    }

    /// MLflow's own name for the error.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Answer(refused) => refused.code.as_deref(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Answer(refused) => refused.class.retry != Retry::Never,
            Self::Transport { retry, .. } | Self::Said { retry, .. } => *retry,
        }
    }

    /// The public error, for an operation of this crate.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        Error::from(Failed(operation, self))
    }
}

/// A fault and the operation it ended.
struct Failed(&'static str, Fault);

impl From<Failed> for Error {
    fn from(Failed(operation, fault): Failed) -> Self {
        match fault {
            Fault::Answer(refused) => answer(operation, refused),
            Fault::Transport {
                kind,
                cause,
                mend,
                retry,
                source,
            } => with_retry(
                Error::new(kind, operation, cause)
                    .mend(mend)
                    .caused_by(source),
                if retry { Retry::Backoff } else { Retry::Never },
            ),
            Fault::Said {
                kind,
                cause,
                mend,
                retry,
            } => with_retry(
                Error::new(kind, operation, cause).mend(mend),
                if retry { Retry::Backoff } else { Retry::Never },
            ),
        }
    }
}

fn with_retry(error: Error, retry: Retry) -> Error {
    match retry {
        Retry::Never => error,
        Retry::Backoff => error.retryable(),
        Retry::After(delay) => error.retry_after(delay),
    }
}

fn answer(operation: &'static str, refused: Refused) -> Error {
    let Refused {
        status,
        class,
        code,
        says,
        asked,
        credentials,
    } = refused;
    let mut cause = format!("{asked} was answered with {status}");
    if let Some(code) = &code {
        cause.push(' ');
        cause.push_str(code);
    }
    if !says.is_empty() {
        cause.push_str(": ");
        cause.push_str(&says);
    }
    let mend: Cow<'static, str> = match (class.kind, status) {
        (ErrorKind::Unauthenticated, _) if credentials == "no credentials" => {
            "give credentials in the environment, such as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in code".into()
        }
        (ErrorKind::Unauthenticated, _) => {
            format!("the server did not accept {credentials}; correct or renew it").into()
        }
        (ErrorKind::PermissionDenied, _) if says.contains("Invalid Host header") => {
            "the server takes requests for other host names only: start it with MLFLOW_SERVER_ALLOWED_HOSTS naming this one".into()
        }
        (ErrorKind::PermissionDenied, _) => {
            "give this user the right to write there, or use other credentials".into()
        }
        (_, 300..=399) => "write the address the server redirects to".into(),
        (ErrorKind::NotFound, _) => {
            "check host and path of the address; the experiment, table or endpoint is not there".into()
        }
        (ErrorKind::InvalidSpan, _) => {
            "correct what the server objects to in the span's attributes".into()
        }
        (ErrorKind::Throttled, _) => "it is tried again when the server allows".into(),
        (_, _) if class.retry != Retry::Never => {
            "it is tried again; look into the server's log if it stays".into()
        }
        _ => "look into the server's log, and check its version and the address".into(),
    };
    with_retry(
        Error::new(class.kind, operation, cause).mend(mend),
        class.retry,
    )
}

/// Shortens what a server says, so that a page of HTML does not end up in a log line.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut short = String::new();
    for word in text.split_whitespace() {
        if !short.is_empty() {
            short.push(' ');
        }
        short.extend(word.chars().filter(|c| !c.is_control()));
        if short.len() > LONGEST {
            let end = short.floor_char_boundary(LONGEST);
            short.truncate(end);
            short.push('…');
            break;
        }
    }
    short
}

/// Longest delay taken from a server: beyond it, somebody made a mistake.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(24 * 3600);
