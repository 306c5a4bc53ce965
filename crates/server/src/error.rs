//! What can go wrong here, and its one translation into the public error.

use crate::classify::{Blame, Class};
use std::borrow::Cow;
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, Retry};
use trace_destination_http::{TokenFault, Transport};

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
        class: Transport,
        source: reqwest::Error,
    },
    /// There is no token to send.
    Token(Box<TokenFault>),
    /// An error that names no operation of this crate yet.
    Given(Error),
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
    pub(crate) says: Box<str>,
    /// What was asked, such as `POST /v1/traces`.
    pub(crate) asked: Box<str>,
    /// With what credentials.
    pub(crate) credentials: &'static str,
    /// What to set, where there are credentials that were not sent.
    pub(crate) withheld: Option<Arc<String>>,
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
            Self::Transport { .. } | Self::Token(_) | Self::Given(_) | Self::Said { .. } => {
                Blame::Place
            }
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
            Self::Transport { class, .. } => class.is_passing(),
            Self::Token(fault) => fault.is_passing,
            Self::Given(error) => error.retry() != Retry::Never,
            Self::Said { retry, .. } => *retry,
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
            Fault::Transport { class, source } => with_retry(
                Error::new(class.kind(), operation, class.cause())
                    .mend(transport_mend(class))
                    .caused_by(source),
                passing(class.is_passing()),
            ),
            Fault::Token(fault) => {
                let error = Error::new(fault.kind, operation, fault.cause);
                let error = match fault.is_passing {
                    true => error.mend("it is tried again; no token was given out"),
                    false => error.mend(
                        "check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, and the host",
                    ),
                };
                let error = match fault.source {
                    Some(source) => error.caused_by(source),
                    None => error,
                };
                with_retry(error, passing(fault.is_passing))
            }
            Fault::Given(given) => {
                let mut error = Error::new(given.kind(), operation, given.cause().to_owned());
                if let Some(mend) = given.mend_hint() {
                    error = error.mend(mend.to_owned());
                }
                let retry = given.retry();
                with_retry(error.caused_by(given), retry)
            }
            Fault::Said {
                kind,
                cause,
                mend,
                retry,
            } => with_retry(
                Error::new(kind, operation, cause).mend(mend),
                passing(retry),
            ),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Given(error)
    }
}

fn passing(retry: bool) -> Retry {
    match retry {
        true => Retry::Backoff,
        false => Retry::Never,
    }
}

/// What the reader can do where there is no answer.
fn transport_mend(class: Transport) -> &'static str {
    match class {
        Transport::UntrustedCertificate => {
            "name its authority with MLFLOW_TRACKING_SERVER_CERT_PATH or OTEL_EXPORTER_OTLP_CERTIFICATE, or in code, and use the host name it was issued for"
        }
        Transport::Alert => {
            "it may ask for a client certificate: name one with MLFLOW_TRACKING_CLIENT_CERT_PATH, or in code"
        }
        Transport::Tls => "check that the port speaks TLS, or write http:// for one that does not",
        Transport::Unmakeable => "check the address, the headers and the proxy variables",
        Transport::Timeout => "it is tried again; check the network, or give it more time",
        Transport::Refused => "it is tried again; start the server, or correct host and port",
        Transport::Connect => "it is tried again; check host, port and network",
        Transport::Broken => "it is tried again; check the server and what is between",
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
        withheld,
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
        (ErrorKind::Unauthenticated | ErrorKind::PermissionDenied, 401 | 403)
            if credentials == "no credentials" && withheld.is_some() =>
        {
            withheld.unwrap_or_default().to_string().into()
        }
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
