//! Why a request got no answer.

use crate::status::Outcome;
use std::error::Error as StdError;
use trace_destination_core::{Error, ErrorKind};

/// Why a request got no answer.
#[derive(Debug)]
pub enum Failure {
    /// The request or its answer did not get through.
    Transport {
        /// What happened.
        class: Transport,
        /// The underlying error, without its address: that of a token server may hold a secret.
        source: reqwest::Error,
    },
    /// There is no token to send.
    Token(Box<TokenFault>),
    /// The application's provider returned an error, or a credential that cannot be sent.
    Credentials(Error),
}

/// Why there is no token.
#[derive(Debug)]
pub struct TokenFault {
    /// What an error calls it.
    pub kind: ErrorKind,
    /// What happened, with the address that was asked, without a secret.
    pub cause: String,
    /// Whether the same may succeed later.
    pub is_passing: bool,
    /// The error beneath.
    pub source: Option<reqwest::Error>,
}

impl TokenFault {
    /// The same for somebody else; the error beneath is the first one's.
    pub(crate) fn again(&self) -> Self {
        Self {
            kind: self.kind,
            cause: self.cause.clone(),
            is_passing: self.is_passing,
            source: None,
        }
    }
}

/// What happened on the way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The server's certificate is not trusted.
    UntrustedCertificate,
    /// The server ended the TLS handshake; it may require a client certificate.
    Alert,
    /// The TLS handshake failed.
    Tls,
    /// The request cannot be made: a header, the address, a proxy variable.
    Unmakeable,
    /// No answer in time.
    Timeout,
    /// Nothing listens at the address.
    Refused,
    /// No connection could be made: the name was not found, or the network is down.
    Connect,
    /// The connection broke, or the answer is not HTTP.
    Broken,
}

impl Transport {
    /// Every variant.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Connect,
        Self::Broken,
        Self::Timeout,
        Self::UntrustedCertificate,
        Self::Alert,
        Self::Tls,
        Self::Unmakeable,
    ];

    /// What is done with the request.
    pub fn outcome(self) -> Outcome {
        match self.is_passing() {
            true => Outcome::Resend,
            false => Outcome::Keep,
        }
    }

    /// The kind of the public error.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::UntrustedCertificate | Self::Alert => ErrorKind::Unauthenticated,
            Self::Tls | Self::Unmakeable => ErrorKind::InvalidConfig,
            Self::Timeout => ErrorKind::Timeout,
            Self::Refused | Self::Connect | Self::Broken => ErrorKind::Unavailable,
        }
    }

    /// What happened, in words.
    pub fn cause(self) -> &'static str {
        match self {
            Self::UntrustedCertificate => "the server's certificate is not trusted",
            Self::Alert => "the server ended the TLS handshake",
            Self::Tls => "the TLS handshake failed",
            Self::Unmakeable => "the request cannot be made",
            Self::Timeout => "the server did not answer in time",
            Self::Refused => "nothing listens at this address",
            Self::Connect => "no connection could be made",
            Self::Broken => "the connection broke",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Refused | Self::Connect | Self::Broken
        )
    }

    /// Whether the failure is about certificates.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::UntrustedCertificate | Self::Alert | Self::Tls)
    }

    fn of(error: &reqwest::Error) -> Self {
        let mut beneath = Beneath::default();
        beneath.look(error, 0);
        use rustls::Error as T;
        match beneath.tls {
            Some(T::InvalidCertificate(_) | T::NoCertificatesPresented) => {
                Self::UntrustedCertificate
            }
            Some(T::AlertReceived(_)) => Self::Alert,
            Some(_) => Self::Tls,
            None if error.is_builder() => Self::Unmakeable,
            None if error.is_timeout() => Self::Timeout,
            None if beneath.refused => Self::Refused,
            None if error.is_connect() => Self::Connect,
            None => Self::Broken,
        }
    }
}

impl Failure {
    pub(crate) fn of(error: reqwest::Error) -> Self {
        Self::Transport {
            class: Transport::of(&error),
            source: error.without_url(),
        }
    }
}

/// Searches the sources of an error.
#[derive(Default)]
struct Beneath {
    tls: Option<rustls::Error>,
    refused: bool,
}

/// Longest chain of sources that is followed.
const DEEPEST: usize = 32;

impl Beneath {
    fn look(&mut self, error: &(dyn StdError + 'static), depth: usize) {
        if depth > DEEPEST {
            return;
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            self.tls = Some(tls.clone());
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            self.refused |= io.kind() == std::io::ErrorKind::ConnectionRefused;
            // An `io::Error` does not return the error it wraps as its source.
            if let Some(inner) = io.get_ref() {
                return self.look(inner, depth + 1);
            }
        }
        if let Some(source) = error.source() {
            self.look(source, depth + 1);
        }
    }
}
