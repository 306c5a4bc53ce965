//! Locks of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks without minding a panic elsewhere: what is locked in this crate is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
