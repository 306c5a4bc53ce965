//! How the places in use are reached: one way for each URI, since each URI is one lane.

use crate::error::invalid;
use crate::target::Target;
use crate::transport::Transport;
use std::sync::Arc;
use trace_destination_core::{Error, LocationUri};
use trace_destination_http::Claims;

/// The way to a place, shared by all locations with its URI.
#[derive(PartialEq)]
pub(crate) struct Access {
    pub(crate) transport: Arc<Transport>,
    base: String,
}

static IN_USE: Claims<LocationUri, Access> = Claims::new();

impl Access {
    /// The way to `target`, which must be the one it has already if it is in use.
    pub(crate) fn claim(target: &Target, transport: Transport) -> Result<Arc<Self>, Error> {
        let way = Self {
            transport: Arc::new(transport),
            base: target.base.clone(),
        };
        IN_USE.claim(target.uri.clone(), way).map_err(|_| {
            invalid("this place is in use already, with other credentials, headers or settings")
                .mend("use one location for all that goes there; for credentials that change, give it a provider with with_credentials")
        })
    }
}
