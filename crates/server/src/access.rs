//! How the places in use are reached: one way for each URI, since each URI is one lane.

use crate::builder::invalid;
use crate::databricks::Grant;
use crate::target::{Family, Target};
use crate::transport::Transport;
use foldhash::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use trace_destination_core::{Error, LocationUri};

/// The way to a place, shared by all locations with its URI.
pub(crate) struct Access {
    pub(crate) transport: Arc<Transport>,
    base: String,
    grant: Option<Grant>,
}

static IN_USE: Mutex<Table> = Mutex::new(Table::new());

impl Access {
    /// The way to `target`, which must be the one it has already if it is in use.
    pub(crate) fn claim(target: &Target, transport: Transport) -> Result<Arc<Self>, Error> {
        let grant = match &target.family {
            Family::Databricks { grant, .. } => grant.clone(),
            Family::Mlflow { .. } | Family::Otlp => None,
        };
        let access = Self {
            transport: Arc::new(transport),
            base: target.base.clone(),
            grant,
        };
        let mut table = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        table.claim(&target.uri, access)
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.transport, &self.base, &self.grant) == (&other.transport, &other.base, &other.grant)
    }
}

struct Table {
    places: Option<HashMap<LocationUri, Weak<Access>>>,
    /// How many places there may be before those no longer in use are looked for.
    limit: usize,
}

impl Table {
    const fn new() -> Self {
        Self {
            places: None,
            limit: 64,
        }
    }

    fn claim(&mut self, uri: &LocationUri, access: Access) -> Result<Arc<Access>, Error> {
        let places = self.places.get_or_insert_default();
        if let Some(there) = places.get(uri).and_then(Weak::upgrade) {
            return match there.is_same(&access) {
                true => Ok(there),
                false => Err(invalid(
                    "this place is in use already, with other credentials, headers or settings",
                )
                .mend("use one location for all that goes there; to change its credentials, shut down the pipeline that uses it and drop its destinations first")),
            };
        }
        if places.len() >= self.limit {
            places.retain(|_, access| access.strong_count() > 0);
            self.limit = (2 * places.len()).max(64);
        }
        let access = Arc::new(access);
        places.insert(uri.clone(), Arc::downgrade(&access));
        Ok(access)
    }
}
