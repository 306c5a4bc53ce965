//! The sinks of a file, of which the last closes it.

use super::Store;
use crate::error::Fault;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A sink's share in a store: the last to leave closes the connection.
pub(crate) struct Seat(Arc<Store>);

impl Seat {
    pub(crate) fn take(store: Arc<Store>) -> Self {
        store.seats.fetch_add(1, Ordering::Relaxed);
        Self(store)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0
    }

    /// Gives the share up. Closes the connection if it was the last, else merges the log.
    pub(crate) async fn leave(self) -> Result<(), Fault> {
        let store = self.0.clone();
        drop(self);
        if !store.process.is_current() || !store.is_connected() {
            return Ok(());
        }
        let others = store.seats.load(Ordering::Relaxed) > 0;
        if others && !store.unmerged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (process, class) = (store.process.clone(), store.class());
        let closing = move || match others {
            // Those who stay merge what could not be merged now.
            true => {
                let _ = store.merge();
                Ok(())
            }
            false => store.disconnect(),
        };
        process.pool.run(class, closing).await?
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}
