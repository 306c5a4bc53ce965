//! Connections, and how many requests may use them. The HTTP client is shared by all hosts with
//! equal settings; the permits belong to one host.

use crate::credentials::{Authorizer, Credentials};
use crate::failure::Failure;
use crate::file::{LOOK_EVERY, Looked, Stamp};
use crate::tls::Tls;
use crate::weak::WeakMap;
use reqwest::redirect;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime;
use tokio::sync::Semaphore;
use trace_destination_core::{Error, ErrorKind};

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. MLflow's server (uvicorn) closes one after 5 s; closing it
/// earlier here avoids sending into a connection that is being closed.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// Largest number of redirects that are followed, all on one origin.
const MAX_REDIRECTS: usize = 3;

/// Settings of the HTTP client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    /// TLS settings.
    pub tls: Tls,
    /// Longest time for one request, from its first byte to the last byte of the answer.
    pub timeout: Duration,
    /// Largest number of concurrent requests to one host.
    pub concurrency: usize,
}

/// The client and permits of one host with one set of settings.
pub struct Pool {
    shared: Arc<Shared>,
    pub(crate) permits: Semaphore,
    /// Credentials in use for this host: a token is fetched once, however many paths it is used
    /// for.
    authorizers: Mutex<WeakMap<Credentials, Authorizer>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Connections live on the runtime that opened them; each pipeline has its own.
type WireKey = (Wire, bool, runtime::Id);

static CLIENTS: Mutex<WeakMap<WireKey, Shared>> = Mutex::new(WeakMap::new());
static POOLS: Mutex<WeakMap<(String, WireKey), Pool>> = Mutex::new(WeakMap::new());

impl Pool {
    /// The pool of the host at `origin` on this runtime, shared by all users with equal settings.
    ///
    /// # Errors
    /// `InvalidConfig` for TLS settings that cannot be used.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn shared(origin: &str, wire: &Wire) -> Result<Arc<Self>, Error> {
        let https = origin.starts_with("https://");
        let way = (wire.clone(), https, runtime::Handle::current().id());
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get_or_insert((origin.to_owned(), way.clone()), || {
            let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(Self {
                shared: clients.get_or_insert(way, || Shared::new(wire, https))?,
                permits: Semaphore::new(wire.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
                authorizers: Mutex::default(),
            })
        })
    }

    pub(crate) fn authorizer(&self, credentials: &Credentials) -> Result<Arc<Authorizer>, Error> {
        let mut known = self
            .authorizers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(credentials.clone(), || Authorizer::new(credentials))
    }

    /// The client, with certificates as they are in their files.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.shared.current(LOOK_EVERY)
    }

    /// Reads the certificate files again if they have changed, and returns whether they had.
    pub(crate) fn reload(&self) -> bool {
        self.shared.reload()
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.shared.wire
    }
}

/// A client, and the certificate files it was made with.
struct Shared {
    wire: Wire,
    https: bool,
    live: Mutex<Live>,
}

struct Live {
    http: reqwest::Client,
    stamps: Vec<Stamp>,
    looked: Looked,
}

impl Shared {
    fn new(wire: &Wire, https: bool) -> Result<Self, Error> {
        // Taken before the files are read, so that a change in between is noticed later.
        let stamps = wire.tls.stamps();
        Ok(Self {
            live: Mutex::new(Live {
                http: client(wire, https)?,
                stamps,
                looked: Looked::now(),
            }),
            wire: wire.clone(),
            https,
        })
    }

    fn current(&self, every: Duration) -> reqwest::Client {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if self.https && !live.stamps.is_empty() && live.looked.is_due(every) {
            self.look(&mut live);
        }
        live.http.clone()
    }

    fn reload(&self) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.https && self.look(&mut live)
    }

    fn look(&self, live: &mut Live) -> bool {
        let stamps = self.wire.tls.stamps();
        if stamps == live.stamps {
            return false;
        }
        match client(&self.wire, self.https) {
            Ok(http) => {
                (live.http, live.stamps) = (http, stamps);
                tracing::debug!("certificates changed and were read again");
                true
            }
            // The files may be being written: the stamps are not kept, so they are read again.
            Err(error) => {
                tracing::debug!(error = %error, "certificates changed and cannot be read yet");
                false
            }
        }
    }
}

fn client(wire: &Wire, https: bool) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(wire.tls.config(https)?)
        .user_agent(concat!("trace-destination/", env!("CARGO_PKG_VERSION")))
        .redirect(same_origin())
        .referer(false)
        // One call is one request: only the pipeline decides what is sent again.
        .retry(reqwest::retry::never())
        // Decompression may be switched on by another crate of the program. Here the bytes that are
        // counted have to be the bytes that are read.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .connect_timeout(CONNECT_TIMEOUT.min(wire.timeout))
        .timeout(wire.timeout)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(wire.concurrency)
        .tcp_nodelay(true)
        .build()
        .map_err(|e| {
            let failure = Failure::of(e);
            let error = Error::new(
                ErrorKind::InvalidConfig,
                "set up HTTP",
                "the connection to the server cannot be set up",
            )
            .mend("check the certificate files, the system's certificates and the proxy variables");
            match failure {
                Failure::Transport { source, .. } => error.caused_by(source),
                _ => error,
            }
        })
}

/// Follows a redirect only to the same scheme, host and port, so that no other server gets the
/// credentials. And only with 307 and 308: after a 301, 302 or 303 a POST would become a GET, whose
/// success would mean nothing.
fn same_origin() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let stays = matches!(attempt.status().as_u16(), 307 | 308);
        let same = attempt
            .previous()
            .first()
            .is_some_and(|first| first.origin() == attempt.url().origin());
        match stays && same && attempt.previous().len() <= MAX_REDIRECTS {
            true => attempt.follow(),
            // The redirect itself is then the answer.
            false => attempt.stop(),
        }
    })
}
