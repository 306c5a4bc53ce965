//! How to reach a server: credentials, TLS, headers, times.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use trace_destination_http::{Credentials, Secret, Tls, Wire};

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
    pub(crate) withheld: Withheld,
}

impl Transport {
    /// What requests of any credentials have in common.
    pub(crate) fn wire(&self) -> Wire {
        Wire {
            tls: self.tls.clone(),
            timeout: self.timeout,
            concurrency: self.concurrency,
        }
    }
}

/// The advice that goes with a refusal, where the environment has credentials that are not for this
/// host. It does not make one way to a place another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Withheld(pub(crate) Option<Arc<String>>);

impl PartialEq for Withheld {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Withheld {}

impl Hash for Withheld {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
