//! Everything that can go wrong with a request, and its translation into the public error. Each
//! backend adds its own suggested fixes.

use crate::failure::{Failure, TokenFault, Transport};
use crate::status::{Outcome, Row};
use std::borrow::Cow;
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, Retry};

/// How an error describes a client without credentials.
pub(crate) const NO_CREDENTIALS: &str = "no credentials";

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Fault {
    /// The server answered, but not with success.
    Answer(Refused),
    /// There was no answer.
    Transport {
        /// What happened.
        class: Transport,
        /// What is known beyond that.
        detail: Option<Box<str>>,
        /// The address, if the error is to name it.
        server: Option<String>,
        /// The underlying error, without an address.
        source: reqwest::Error,
    },
    /// There is no token to send.
    Token(Box<TokenFault>),
    /// An error that does not name an operation of the backend yet.
    Given(Error),
    /// Any other fault, with its own text.
    Said {
        /// The kind of the public error.
        kind: ErrorKind,
        /// What happened.
        cause: String,
        /// The suggested fix.
        mend: Cow<'static, str>,
        /// What is done with the request.
        outcome: Outcome,
    },
}

/// An answer that is not a success.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// What it means.
    pub row: &'static Row,
    /// Whether and when the request is tried again.
    pub retry: Retry,
    /// The server's own name for the error, such as `RESOURCE_DOES_NOT_EXIST`.
    pub code: Option<String>,
    /// The server's message, shortened, without secrets.
    pub says: Box<str>,
    /// The request, such as `POST /v1/traces`.
    pub asked: Box<str>,
    /// A description of the credentials.
    pub credentials: &'static str,
    /// The variable to set, if credentials exist that were not sent.
    pub withheld: Option<Arc<String>>,
}

impl Refused {
    /// Whether there were no credentials to send.
    pub fn has_no_credentials(&self) -> bool {
        self.credentials == NO_CREDENTIALS
    }
}

/// The suggested fixes of one backend.
pub trait Mends {
    /// For an answer.
    fn answer(&self, refused: &Refused) -> Cow<'static, str>;
    /// For a request without an answer.
    fn transport(&self, class: Transport) -> &'static str;
    /// For a token server that refused to issue a token.
    fn token(&self) -> &'static str;
}

impl Fault {
    /// A fault that stays until somebody fixes it.
    pub fn new(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::with_outcome(kind, cause, mend, Outcome::Keep)
    }

    /// The same fault, worth trying again.
    pub fn passing(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::with_outcome(kind, cause, mend, Outcome::Resend)
    }

    /// The same fault, with what is done with the request.
    pub fn with_outcome(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
        outcome: Outcome,
    ) -> Self {
        Self::Said {
            kind,
            cause: cause.into(),
            mend: mend.into(),
            outcome,
        }
    }

    /// A request without an answer.
    pub fn unanswered(failure: Failure, server: Option<&str>) -> Self {
        match failure {
            Failure::Transport {
                class,
                detail,
                source,
            } => Self::Transport {
                class,
                detail,
                server: server.map(str::to_owned),
                source,
            },
            Failure::Token(fault) => Self::Token(fault),
            Failure::Credentials(error) => Self::Given(error),
        }
    }

    /// What an error calls it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Answer(refused) => refused.row.kind,
            Self::Transport { class, .. } => class.kind(),
            Self::Token(fault) => fault.kind,
            Self::Given(error) => error.kind(),
            Self::Said { kind, .. } => *kind,
        }
    }

    /// What becomes of the request.
    pub fn outcome(&self) -> Outcome {
        let passing = |is_passing| match is_passing {
            true => Outcome::Resend,
            false => Outcome::Keep,
        };
        match self {
            Self::Answer(refused) => refused.row.outcome,
            Self::Transport { class, .. } => class.outcome(),
            Self::Token(fault) => passing(fault.is_passing),
            Self::Given(error) => passing(error.retry() != Retry::Never),
            Self::Said { outcome, .. } => *outcome,
        }
    }

    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(refused) => Some(refused.status),
            _ => None,
        }
    }

    /// The server's own name for the error.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Answer(refused) => refused.code.as_deref(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self.outcome(), Outcome::Resend | Outcome::ResendThenApart)
    }

    /// Whether the server may have carried out the request all the same.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Self::Answer(refused) => refused.status >= 500 || refused.status == 408,
            Self::Transport { class, .. } => class.is_passing(),
            Self::Token(_) | Self::Given(_) | Self::Said { .. } => false,
        }
    }

    /// The public error, for an operation of a backend.
    pub fn error(self, operation: &'static str, mends: &impl Mends) -> Error {
        match self {
            Self::Answer(refused) => answer(operation, refused, mends),
            Self::Transport {
                class,
                detail,
                server,
                source,
            } => {
                let mut cause: Cow<'static, str> = match server {
                    Some(server) => format!("{server}: {}", class.cause()).into(),
                    None => class.cause().into(),
                };
                if let Some(detail) = detail {
                    cause = format!("{cause}: {detail}").into();
                }
                with_retry(
                    Error::new(class.kind(), operation, cause)
                        .mend(mends.transport(class))
                        .caused_by(source),
                    class.outcome().retry(None),
                )
            }
            Self::Token(fault) => {
                let retry = match fault.is_passing {
                    true => Retry::Backoff,
                    false => Retry::Never,
                };
                let mend = match fault.is_passing {
                    true => "it is tried again; no token was given out",
                    false => mends.token(),
                };
                let error = Error::new(fault.kind, operation, fault.cause).mend(mend);
                let error = match fault.source {
                    Some(source) => error.caused_by(source),
                    None => error,
                };
                with_retry(error, retry)
            }
            Self::Given(given) => {
                let mut error = Error::new(given.kind(), operation, given.cause().to_owned());
                if let Some(mend) = given.mend_hint() {
                    error = error.mend(mend.to_owned());
                }
                let retry = given.retry();
                with_retry(error.caused_by(given), retry)
            }
            Self::Said {
                kind,
                cause,
                mend,
                outcome,
            } => with_retry(
                Error::new(kind, operation, cause).mend(mend),
                outcome.retry(None),
            ),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Given(error)
    }
}

fn with_retry(error: Error, retry: Retry) -> Error {
    match retry {
        Retry::Never => error,
        Retry::Backoff => error.retryable(),
        Retry::After(delay) => error.retry_after(delay),
    }
}

fn answer(operation: &'static str, refused: Refused, mends: &impl Mends) -> Error {
    let mut cause = format!("{} was answered with {}", refused.asked, refused.status);
    if let Some(code) = &refused.code {
        cause.push(' ');
        cause.push_str(code);
    }
    if !refused.says.is_empty() {
        cause.push_str(": ");
        cause.push_str(&refused.says);
    }
    let kind = refused.row.kind;
    let is_refusal = matches!(
        kind,
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied
    );
    let mend: Cow<'static, str> = match &refused.withheld {
        // A 407 is about the proxy's credentials, not the server's.
        Some(withheld) if is_refusal && refused.status != 407 && refused.has_no_credentials() => {
            withheld.to_string().into()
        }
        _ => mends.answer(&refused),
    };
    with_retry(Error::new(kind, operation, cause).mend(mend), refused.retry)
}
