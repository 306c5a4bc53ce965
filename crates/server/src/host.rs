//! What locations share: those on one host its connections and the limit of requests, those on one
//! server what is known of it.

use crate::classify::Dialect;
use crate::client::{Client, Pool};
use crate::databricks::Tokens;
use crate::error::Fault;
use crate::mlflow::Server;
use crate::target::{Family, Target};
use crate::transport::Transport;
use foldhash::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime;

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

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    base: String,
    transport: Arc<Transport>,
    grant: Option<crate::databricks::Grant>,
    /// Connections live on the runtime that opened them; each pipeline has its own.
    runtime: runtime::Id,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Servers, and the hosts they are on. Behind one host there may be many of them, by their paths.
#[derive(Default)]
struct Known {
    servers: HashMap<Key, Weak<Host>>,
    pools: HashMap<Key, Weak<Pool>>,
}

/// Scheme and authority of an address.
fn origin(base: &str) -> &str {
    let host = base.find("://").map_or(0, |i| i + 3);
    let end = base[host..].find('/').map_or(base.len(), |i| host + i);
    &base[..end]
}

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
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(host) = known.servers.get(&key).and_then(Weak::upgrade) {
            return Ok(host);
        }
        known.servers.retain(|_, host| host.strong_count() > 0);
        let host = Key {
            base: origin(&target.base).to_owned(),
            grant: None,
            ..key.clone()
        };
        let pool = match known.pools.get(&host).and_then(Weak::upgrade) {
            Some(pool) => pool,
            None => {
                known.pools.retain(|_, pool| pool.strong_count() > 0);
                let pool = Arc::new(Pool::new(transport, host.base.starts_with("https://"))?);
                known.pools.insert(host, Arc::downgrade(&pool));
                pool
            }
        };
        let host = Arc::new(Self {
            client: Client::new(pool, &target.base, grant.map(Tokens::new), dialect),
            gzip: AtomicU8::new(UNTRIED),
            mlflow: Server::default(),
        });
        known.servers.insert(key, Arc::downgrade(&host));
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

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins() {
        for (base, expected) in [
            ("http://h:1", "http://h:1"),
            ("https://h/a/b", "https://h"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318"),
        ] {
            assert_eq!(origin(base), expected);
        }
    }
}
