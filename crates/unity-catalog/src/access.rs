//! How the place of a location is reached. A location is one place with one lane, so this is one and
//! the same for all that are in use under one URI.

use crate::catalog::rest::CatalogServer;
use crate::error::BUILD;
use crate::storage::StorageOptions;
use foldhash::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use trace_destination_core::{Error, ErrorKind, LocationUri};
use url::Url;

/// Which catalog has the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder, or a place in an object store.
    Root(Url),
    /// A server.
    Server(CatalogServer),
}

/// The catalog with its credentials, and the options of stores.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) source: Source,
    pub(crate) storage: StorageOptions,
}

/// What is in use, by URI.
static IN_USE: Mutex<Option<InUse>> = Mutex::new(None);

#[derive(Default)]
struct InUse {
    by_uri: HashMap<LocationUri, Weak<Access>>,
    /// Entries after which those that are not in use any more are looked for.
    sweep_at: usize,
}

impl Access {
    /// The one value of all locations with this URI.
    ///
    /// # Errors
    /// `InvalidConfig` if another is in use that differs.
    pub(crate) fn claim(uri: &LocationUri, wanted: Self) -> Result<Arc<Self>, Error> {
        let mut all = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        if let Some(found) = all.by_uri.get(uri).and_then(Weak::upgrade) {
            return match *found == wanted {
                true => Ok(found),
                false => Err(Error::new(
                    ErrorKind::InvalidConfig,
                    BUILD,
                    "a location with this URI is in use with another server configuration, other credentials or other storage options",
                )
                .mend("share one location, let go of the other first, or give the two different URIs")
                .at(uri)),
            };
        }
        if all.by_uri.len() >= all.sweep_at {
            all.by_uri.retain(|_, access| access.strong_count() > 0);
            all.sweep_at = (2 * all.by_uri.len()).max(64);
        }
        let access = Arc::new(wanted);
        all.by_uri.insert(uri.clone(), Arc::downgrade(&access));
        Ok(access)
    }
}
