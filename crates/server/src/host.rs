//! What locations share: those on one host its connections and the limit of requests, those on one
//! server what is known of it.

use crate::classify::Dialect;
use crate::client::Client;
use crate::error::Fault;
use crate::mlflow::Server;
use crate::target::{Family, Target};
use crate::transport::Transport;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime;
use trace_destination_http::WeakMap;

/// One server, reached in one way.
pub(crate) struct Host {
    pub(crate) client: Client,
    /// Whether the server takes gzip, as far as it was tried.
    gzip: AtomicU8,
    /// What is known of an MLflow tracking server.
    pub(crate) mlflow: Server,
}

const UNTRIED: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

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
                gzip: AtomicU8::new(UNTRIED),
                mlflow: Server::default(),
            })
        })
    }

    /// Whether to compress: `None` where it was not tried yet.
    pub(crate) fn takes_gzip(&self) -> Option<bool> {
        match self.gzip.load(Ordering::Relaxed) {
            TAKEN => Some(true),
            REFUSED => Some(false),
            _ => None,
        }
    }

    pub(crate) fn note_gzip(&self, taken: bool) {
        let value = if taken { TAKEN } else { REFUSED };
        self.gzip.store(value, Ordering::Relaxed);
    }
}
