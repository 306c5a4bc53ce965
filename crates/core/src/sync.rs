//! The primitives that the model-checked modules use: std's, or loom's under
//! `--cfg trace_destination_loom`.

use crate::process::Process;

#[cfg(not(trace_destination_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(trace_destination_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// Locks a mutex, also if it is poisoned: the guarded data is valid between any two statements that
/// could panic, and a tracing library must not spread the panic of other code.
#[cfg(any(test, trace_destination_loom))]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Locks a mutex that was made in `process`. `None` if it is held and this is a forked child of
/// that process.
#[inline]
pub(crate) fn lock_in<T>(process: Process, mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    #[cfg(not(trace_destination_loom))]
    return process.lock(mutex);
    #[cfg(trace_destination_loom)]
    {
        let _ = process;
        Some(lock(mutex))
    }
}
