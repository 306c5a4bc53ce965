//! What the delivery thread is asked.

use crate::pipeline::flush::Asked;
use crate::uri::LocationUri;
use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

/// A request to the delivery thread.
pub(in crate::pipeline) enum Control {
    /// Of these locations, or of all.
    Flush(Asked, Option<Arc<[LocationUri]>>),
    Shutdown(Asked),
    /// Shows what becomes of everybody else when the thread panics.
    #[cfg(test)]
    Panic(Asked),
    /// Shows what becomes of everybody else when the thread does not go on.
    #[cfg(test)]
    Stall(Asked, Duration),
}

impl Control {
    pub(in crate::pipeline) fn state(&self) -> &Asked {
        match self {
            Self::Flush(state, _) | Self::Shutdown(state) => state,
            #[cfg(test)]
            Self::Panic(state) | Self::Stall(state, _) => state,
        }
    }

    /// The locations it is about, where it is not about all.
    pub(in crate::pipeline) fn only(&self) -> Option<&[LocationUri]> {
        match self {
            Self::Flush(_, only) => only.as_deref(),
            _ => None,
        }
    }
}
