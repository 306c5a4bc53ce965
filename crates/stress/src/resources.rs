//! What the process takes: memory and threads, as Linux and the allocator count them.

use stats_alloc::INSTRUMENTED_SYSTEM;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of the process in memory, and its threads.
///
/// # Errors
/// Where there is no `/proc`, or it has no such lines.
pub(crate) fn process() -> Result<(u64, u64), String> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{path} cannot be read, so nothing can be measured here: {e}"))?;
    let line = |name: &str| -> Result<u64, String> {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .ok_or_else(|| format!("{path} has no line {name}"))
    };
    Ok((line("VmRSS:")? * 1024, line("Threads:")?))
}

/// Bytes that are allocated and not freed.
pub(crate) fn live_bytes() -> u64 {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated) as u64
}

/// Looks at the process every 20 ms until it is dropped.
#[derive(Debug)]
pub(crate) struct Peaks {
    seen: Arc<(AtomicU64, AtomicU64)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peaks {
    pub(crate) fn start() -> Self {
        let seen = Arc::<(AtomicU64, AtomicU64)>::default();
        let stop = Arc::<AtomicBool>::default();
        let (out, until) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok((memory, threads)) = process() {
                    out.0.fetch_max(memory, Ordering::Relaxed);
                    out.1.fetch_max(threads, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// The most memory so far, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.seen.0.load(Ordering::Relaxed)
    }

    /// The most threads so far, this one's own left out.
    pub(crate) fn threads(&self) -> u64 {
        self.seen.1.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Drop for Peaks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that only reads a file does not panic.
            let _ = thread.join();
        }
    }
}

/// The median; zero of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
