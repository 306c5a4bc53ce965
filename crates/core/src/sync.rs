//! The primitives that the model-checked modules use: std's, or loom's under
//! `--cfg trace_destination_loom`.

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

/// Locks, also after a panic elsewhere: what these locks guard is valid between any two statements
/// that could panic, and a tracing library must not spread somebody else's panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
