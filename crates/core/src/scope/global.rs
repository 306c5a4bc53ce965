//! The global destination: one slot per process, replaceable at any time.

use crate::destination::Destination;
use arc_swap::ArcSwapOption;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// A slot that holds a destination for everything that has no context-local one. Reading it is
/// wait-free; setting, replacing and clearing it is O(1) and waits for nobody.
///
/// The process has one, used by [`set_global`]; a pipeline may be given another, which is how
/// tests keep out of each other's way.
#[derive(Debug)]
pub struct GlobalSlot {
    destination: ArcSwapOption<Destination>,
    /// Rises with every change, after it; never zero, so that zero can mean "not looked yet".
    version: AtomicU32,
}

impl Default for GlobalSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl GlobalSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self {
            destination: ArcSwapOption::const_empty(),
            version: AtomicU32::new(1),
        }
    }

    /// Puts a destination in and returns the one that was there. Traces that are open keep theirs.
    pub fn set(&self, destination: Destination) -> Option<Destination> {
        self.change(Some(Arc::new(destination)))
    }

    /// Empties the slot and returns what was there. Traces that are open keep their destination.
    pub fn clear(&self) -> Option<Destination> {
        self.change(None)
    }

    fn change(&self, to: Option<Arc<Destination>>) -> Option<Destination> {
        let old = self.destination.swap(to);
        // Skips zero when it wraps.
        let _ = self
            .version
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |v| {
                Some(v.checked_add(1).unwrap_or(1))
            });
        old.map(|old| (*old).clone())
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// What is in the slot.
    pub fn get(&self) -> Option<Destination> {
        self.destination.load().as_ref().map(|d| (**d).clone())
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(Option<&Destination>) -> T) -> T {
        f(self.destination.load().as_deref())
    }
}

static PROCESS: LazyLock<Arc<GlobalSlot>> = LazyLock::new(Arc::default);

/// The slot of this process.
pub(crate) fn process_slot() -> &'static Arc<GlobalSlot> {
    &PROCESS
}

/// Sets the destination of this process for traces without a context-local one, and returns the
/// one it replaces. Takes effect for traces that start from now on.
///
/// Libraries do not call this: it belongs to the application.
pub fn set_global(destination: Destination) -> Option<Destination> {
    PROCESS.set(destination)
}

/// Clears the destination of this process and returns it.
pub fn clear_global() -> Option<Destination> {
    PROCESS.clear()
}

/// The destination of this process.
pub fn global() -> Option<Destination> {
    PROCESS.get()
}

/// Puts the process back into the state it started in, for tests that share a process: clears the
/// global destination. Context-local scopes end with their guards, pipelines with their shutdown.
pub fn reset() {
    PROCESS.clear();
}
