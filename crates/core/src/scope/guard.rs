//! The synchronous scope.

use crate::destination::Destination;
use opentelemetry::{Context, ContextGuard};
use std::cell::Cell;

thread_local! {
    /// Guards of this thread that were not dropped. In whatever order they are, the count tells
    /// whether one is left.
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// How many scopes are entered on this thread.
pub(super) fn guards() -> usize {
    GUARDS.try_with(Cell::get).unwrap_or(0)
}

#[derive(Debug)]
struct Entered;

impl Entered {
    fn new() -> Self {
        let _ = GUARDS.try_with(|guards| guards.set(guards.get() + 1));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = GUARDS.try_with(|guards| guards.set(guards.get().saturating_sub(1)));
    }
}

impl Destination {
    /// Makes this the context-local destination of this thread until the guard is dropped; then
    /// the one before applies again. Not for use across `.await`: see
    /// [`DestinationExt::with_destination`](crate::DestinationExt::with_destination).
    pub fn enter(&self) -> ScopeGuard {
        ScopeGuard {
            _context: Context::map_current(|cx| self.in_context(cx)).attach(),
            _entered: Entered::new(),
        }
    }
}

/// Restores the previous destination when dropped, also while a panic unwinds. Not `Send`: it
/// belongs to the thread on which it was made.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(trace_destination_core::Destination::discard().enter());
/// ```
#[must_use = "the scope ends when the guard is dropped"]
#[derive(Debug)]
pub struct ScopeGuard {
    _context: ContextGuard,
    _entered: Entered,
}
