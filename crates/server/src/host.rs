//! What locations share: those on one host its connections and the limit of requests, those on one
//! server what is known of it.

use crate::client::Client;
use crate::config::GZIP_REFUSED_FOR;
use crate::error::Fault;
use crate::generations::Generations;
use crate::mlflow::Server;
use crate::status::Dialect;
use crate::target::{Family, Target};
use crate::transport::Transport;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;
use tokio::runtime;
use trace_destination_http::WeakMap;

/// One server, reached in one way.
pub(crate) struct Host {
    pub(crate) client: Client,
    base: String,
    /// Whether the server took gzip.
    gzip: AtomicBool,
    /// What is known of an MLflow tracking server.
    pub(crate) mlflow: Server,
}

/// Servers whose refusal of gzip is remembered, per generation.
const REMEMBERED: usize = 256;

/// When servers refused gzip, by address. Kept beyond a host, which goes with its last open sink.
static NO_GZIP: LazyLock<Mutex<Generations<String, Instant>>> =
    LazyLock::new(|| Mutex::new(Generations::new(REMEMBERED)));

#[derive(PartialEq, Eq, Hash)]
struct Key {
    base: String,
    transport: Arc<Transport>,
    /// Connections live on the runtime that opened them; each pipeline has its own.
    runtime: runtime::Id,
}

static KNOWN: Mutex<WeakMap<Key, Host>> = Mutex::new(WeakMap::new());

impl Host {
    /// The host a location is on, made if no open location has it.
    pub(crate) fn shared(target: &Target, transport: &Arc<Transport>) -> Result<Arc<Self>, Fault> {
        let dialect = match &target.family {
            Family::Mlflow { .. } => Dialect::Mlflow,
            Family::Otlp => Dialect::Otlp,
            Family::Databricks { .. } => Dialect::Databricks,
        };
        let key = Key {
            base: target.base.clone(),
            transport: transport.clone(),
            runtime: runtime::Handle::current().id(),
        };
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(key, || {
            Ok(Self {
                client: Client::new(transport, &target.base, dialect)?,
                base: target.base.clone(),
                gzip: AtomicBool::new(false),
                mlflow: Server::default(),
            })
        })
    }

    /// Whether the server refused gzip a while ago, and took the same without.
    pub(crate) fn refuses_gzip(&self) -> bool {
        let mut known = NO_GZIP.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(&self.base) {
            Some(since) if since.elapsed() < GZIP_REFUSED_FOR => true,
            Some(_) => {
                known.remove(&self.base);
                false
            }
            None => false,
        }
    }

    /// Whether the server has taken gzip since it was last refused.
    pub(crate) fn took_gzip(&self) -> bool {
        self.gzip.load(Ordering::Relaxed)
    }

    pub(crate) fn note_gzip(&self, taken: bool) {
        self.gzip.store(taken, Ordering::Relaxed);
        if !taken {
            let mut known = NO_GZIP.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(self.base.clone(), Instant::now());
        }
    }
}
