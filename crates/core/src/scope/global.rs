//! The global destination: one slot per process, replaceable at any time.

use crate::destination::Destination;
use arc_swap::ArcSwapOption;
use std::sync::{Arc, LazyLock};

/// A slot that holds a destination for everything that has no context-local one. Reading it is
/// wait-free; setting, replacing and clearing it is O(1) and waits for nobody.
///
/// The process has one, used by [`set_global`]; a pipeline may be given another, which is how
/// tests keep out of each other's way.
#[derive(Debug, Default)]
pub struct GlobalSlot(ArcSwapOption<Destination>);

impl GlobalSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self(ArcSwapOption::const_empty())
    }

    /// Puts a destination in and returns the one that was there. Traces that are open keep theirs.
    pub fn set(&self, destination: Destination) -> Option<Destination> {
        self.0
            .swap(Some(Arc::new(destination)))
            .map(|old| (*old).clone())
    }

    /// Empties the slot and returns what was there. Traces that are open keep their destination.
    pub fn clear(&self) -> Option<Destination> {
        self.0.swap(None).map(|old| (*old).clone())
    }

    /// What is in the slot.
    pub fn get(&self) -> Option<Destination> {
        self.0.load().as_ref().map(|d| (**d).clone())
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(Option<&Destination>) -> T) -> T {
        f(self.0.load().as_deref())
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
