//! Which fault is on. `cargo xtask mutants` adds this module to its copy of the core crate; nothing
//! else has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Whether the variable `TRACE_DESTINATION_FAULT` names this fault.
pub(crate) fn is_on(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("TRACE_DESTINATION_FAULT").ok());
    chosen.as_deref() == Some(name)
}

/// For one span in 251 the route of the pipeline's span before it; for the others their own.
pub(crate) fn neighbour(pipeline: u128, route: u32) -> u32 {
    static PREVIOUS: Mutex<Option<HashMap<u128, (u32, u32)>>> = Mutex::new(None);
    let mut all = PREVIOUS.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = all.get_or_insert_default().entry(pipeline).or_insert((route, 0));
    let previous = std::mem::replace(&mut entry.0, route);
    entry.1 += 1;
    if entry.1 % 251 == 0 { previous } else { route }
}

/// A lock that all lanes of a pipeline share.
pub(crate) async fn one_writer(pipeline: usize) -> OwnedMutexGuard<()> {
    type Locks = HashMap<usize, Arc<AsyncMutex<()>>>;
    static LOCKS: Mutex<Option<Locks>> = Mutex::new(None);
    let lock = {
        let mut all = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default().entry(pipeline).or_default().clone()
    };
    lock.lock_owned().await
}
