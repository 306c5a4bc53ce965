//! Marks the pipeline's own threads: what they do is not traced, and they never wait for room.

use opentelemetry::Context;
use std::cell::Cell;

thread_local! {
    /// No destructor, so it works during thread teardown.
    static DELIVERY_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread for the rest of its life.
pub(crate) fn enter() {
    DELIVERY_THREAD.set(true);
    // A guard kept in a thread-local would be dropped while OpenTelemetry's own thread-local may be
    // gone already.
    std::mem::forget(Context::enter_telemetry_suppressed_scope());
}

/// Whether this is a thread of a pipeline's own.
pub(crate) fn is_current() -> bool {
    DELIVERY_THREAD.get()
}

/// Runs `f` as on such a thread, as far as waiting for room goes.
pub(crate) fn without_waiting<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            DELIVERY_THREAD.set(self.0);
        }
    }
    let _restore = Restore(DELIVERY_THREAD.replace(true));
    f()
}
