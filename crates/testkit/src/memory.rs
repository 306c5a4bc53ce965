//! How much memory a piece of a test holds at its most.

use stats_alloc::{INSTRUMENTED_SYSTEM, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes in use, where the test's binary has `stats_alloc`'s allocator:
///
/// ```
/// use std::alloc::System;
/// use trace_destination_testkit::stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
///
/// #[global_allocator]
/// static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;
/// # assert!(trace_destination_testkit::live_bytes() > 0);
/// ```
pub fn live_bytes() -> usize {
    let Stats {
        bytes_allocated,
        bytes_deallocated,
        ..
    } = INSTRUMENTED_SYSTEM.stats();
    bytes_allocated.saturating_sub(bytes_deallocated)
}

/// Looks at the memory in use until it is asked for the most it saw.
#[derive(Debug)]
pub struct Watch {
    before: usize,
    most: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to look.
    ///
    /// # Panics
    /// Where memory is not counted, so that the test would see nothing.
    pub fn start() -> Self {
        let before = live_bytes();
        assert!(before > 0, "the test has no counting allocator");
        let (most, stop) = (Arc::new(AtomicUsize::new(before)), Arc::default());
        let (seen, until) = (most.clone(), Arc::<AtomicBool>::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                seen.fetch_max(live_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            before,
            most,
            stop,
            thread: Some(thread),
        }
    }

    /// Bytes beyond those at the start, at the most.
    pub fn most(mut self) -> usize {
        self.end();
        self.most
            .load(Ordering::Relaxed)
            .max(live_bytes())
            .saturating_sub(self.before)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}
