//! What the locations on one host share: connections, the limit of requests, and what is known of
//! the server.

use crate::classify::Dialect;
use crate::client::Client;
use crate::databricks::Tokens;
use crate::error::Fault;
use crate::mlflow::Server;
use crate::target::{Family, Target};
use crate::transport::Transport;
use foldhash::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime;

/// One host, reached in one way.
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

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    base: String,
    transport: Arc<Transport>,
    grant: Option<crate::databricks::Grant>,
    /// Connections live on the runtime that opened them; each pipeline has its own.
    runtime: runtime::Id,
}

static HOSTS: Mutex<Option<HashMap<Key, Weak<Host>>>> = Mutex::new(None);

impl Host {
    /// The host a location is on, made if no open location has it.
    pub(crate) fn shared(target: &Target, transport: &Arc<Transport>) -> Result<Arc<Self>, Fault> {
        let (dialect, grant) = match &target.family {
            Family::Mlflow { .. } => (Dialect::Mlflow, None),
            Family::Otlp => (Dialect::Otlp, None),
            Family::Databricks { grant, .. } => (Dialect::Databricks, grant.clone()),
        };
        let key = Key {
            base: target.base.clone(),
            transport: transport.clone(),
            grant: grant.clone(),
            runtime: runtime::Handle::current().id(),
        };
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = hosts.get_or_insert_default();
        if let Some(host) = hosts.get(&key).and_then(Weak::upgrade) {
            return Ok(host);
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let tokens = grant.map(Tokens::new);
        let host = Arc::new(Self {
            client: Client::new(&target.base, transport, tokens, dialect)?,
            gzip: AtomicU8::new(UNTRIED),
            mlflow: Server::default(),
        });
        hosts.insert(key, Arc::downgrade(&host));
        Ok(host)
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
