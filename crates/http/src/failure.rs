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
        /// What is known beyond that: about a certificate, or which proxy it was.
        detail: Option<Box<str>>,
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
    /// The connection broke.
    Broken,
    /// What came through the connection is no HTTP.
    NotHttp,
    /// The proxy cannot be reached.
    Proxy,
    /// The proxy asks for credentials.
    ProxyCredentials,
    /// The proxy makes no connection to the server.
    ProxyRefused,
}

impl Transport {
    /// Every variant.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::Connect,
        Self::Broken,
        Self::NotHttp,
        Self::Timeout,
        Self::Proxy,
        Self::ProxyRefused,
        Self::ProxyCredentials,
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
            Self::UntrustedCertificate | Self::Alert | Self::ProxyCredentials => {
                ErrorKind::Unauthenticated
            }
            Self::Tls | Self::Unmakeable => ErrorKind::InvalidConfig,
            Self::Timeout => ErrorKind::Timeout,
            Self::Refused
            | Self::Connect
            | Self::Broken
            | Self::NotHttp
            | Self::Proxy
            | Self::ProxyRefused => ErrorKind::Unavailable,
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
            Self::NotHttp => "what answers there is not HTTP",
            Self::Proxy => "the proxy cannot be reached",
            Self::ProxyCredentials => "the proxy asks for credentials",
            Self::ProxyRefused => "the proxy makes no connection to the server",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Refused
                | Self::Connect
                | Self::Broken
                | Self::NotHttp
                | Self::Proxy
                | Self::ProxyRefused
        )
    }

    /// Whether the failure is about certificates.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::UntrustedCertificate | Self::Alert | Self::Tls)
    }

    fn of(error: &reqwest::Error, beneath: &Beneath) -> Self {
        use rustls::Error as T;
        match &beneath.tls {
            Some(T::InvalidCertificate(_) | T::NoCertificatesPresented) => {
                Self::UntrustedCertificate
            }
            Some(T::AlertReceived(_)) => Self::Alert,
            Some(_) => Self::Tls,
            None if error.is_builder() => Self::Unmakeable,
            None if beneath.says(PROXY_CREDENTIALS) => Self::ProxyCredentials,
            None if beneath.says(TUNNEL) => Self::ProxyRefused,
            None if error.is_timeout() => Self::Timeout,
            None if beneath.refused => Self::Refused,
            None if error.is_connect() => Self::Connect,
            None if beneath.is_not_http => Self::NotHttp,
            None => Self::Broken,
        }
    }
}

impl Failure {
    pub(crate) fn of(error: reqwest::Error) -> Self {
        let mut beneath = Beneath::default();
        beneath.look(&error, 0);
        let detail = match &beneath.tls {
            // Names in a certificate are whatever its maker wrote.
            Some(rustls::Error::InvalidCertificate(why)) => {
                let why: String = why.to_string().chars().take(LONGEST_DETAIL).collect();
                Some(why.escape_debug().to_string().replace("\\\"", "\"").into())
            }
            _ => None,
        };
        Self::Transport {
            class: Transport::of(&error, &beneath),
            detail,
            source: error.without_url(),
        }
    }

    /// The same, saying which proxy is at fault where one may be: no connection was made, or not by
    /// it.
    pub(crate) fn through(self, proxy: impl FnOnce() -> Option<String>) -> Self {
        let Self::Transport {
            class,
            detail,
            source,
        } = self
        else {
            return self;
        };
        let at_proxy = match class {
            Transport::Refused | Transport::Connect => Transport::Proxy,
            Transport::Timeout if source.is_connect() => Transport::Proxy,
            Transport::ProxyCredentials | Transport::ProxyRefused => class,
            _ => {
                return Self::Transport {
                    class,
                    detail,
                    source,
                };
            }
        };
        match proxy() {
            None => Self::Transport {
                class,
                detail,
                source,
            },
            Some(proxy) => Self::Transport {
                class: at_proxy,
                detail: Some(proxy.into()),
                source,
            },
        }
    }
}

/// What hyper-util (0.1) says where a proxy answers CONNECT with 407, and with anything else that is
/// no success. Its error is not public.
const PROXY_CREDENTIALS: &str = "proxy authorization required";
const TUNNEL: &str = "tunnel error";
/// Characters of what is known of a certificate that are shown.
const LONGEST_DETAIL: usize = 300;

/// Searches the sources of an error.
#[derive(Default)]
struct Beneath {
    tls: Option<rustls::Error>,
    refused: bool,
    is_not_http: bool,
    /// What the errors say, of those that are not public.
    text: String,
}

/// Longest chain of sources that is followed.
const DEEPEST: usize = 32;

impl Beneath {
    fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    fn look(&mut self, error: &(dyn StdError + 'static), depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let text = error.to_string();
        // hyper (1.12): `invalid HTTP version parsed` and the like.
        self.is_not_http |= text.starts_with("invalid HTTP") && text.contains("parsed");
        if text.len() < LONGEST_DETAIL {
            self.text.push_str(&text);
            self.text.push('\n');
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
