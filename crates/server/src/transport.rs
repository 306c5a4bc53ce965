//! How to reach a server: credentials, TLS, headers, times. Two locations whose transport is equal
//! share connections.

use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Whether requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Sent as they are.
    None,
    /// With gzip, at its fastest level: three times as fast as the usual one for a tenth more
    /// bytes.
    Gzip,
}

/// What proves who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// HTTP Basic.
    Basic { user: String, password: Secret },
    /// A bearer token.
    Bearer(Secret),
}

impl Credentials {
    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => {
                let pair = format!("{user}:{}", password.expose());
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
            Self::Bearer(token) => Some(format!("Bearer {}", token.expose())),
        }
    }

    /// What an error may say of them.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::None => "no credentials",
            Self::Basic { .. } => "user and password",
            Self::Bearer(_) => "the token",
        }
    }
}

/// TLS beyond the system's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// PEM file with the only certificate authorities that count.
    pub(crate) authorities: Option<PathBuf>,
    /// PEM file with this client's certificate chain, and its key unless that is apart.
    pub(crate) certificate: Option<PathBuf>,
    /// PEM file with the client's key.
    pub(crate) key: Option<PathBuf>,
    /// Take any certificate of the server.
    pub(crate) insecure: bool,
}

/// Everything about reaching a server but its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transport {
    pub(crate) credentials: Credentials,
    pub(crate) tls: Tls,
    /// Names in lower case. Values may be secrets: collectors are given API keys this way.
    pub(crate) headers: BTreeMap<String, Secret>,
    pub(crate) compression: Compression,
    /// For one request from its first byte to the last of its answer.
    pub(crate) timeout: Duration,
    /// Requests under way to one host at a time.
    pub(crate) concurrency: usize,
}
