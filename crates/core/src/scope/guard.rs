//! The synchronous scope.

use crate::destination::Destination;
use opentelemetry::{Context, ContextGuard};

impl Destination {
    /// Makes this the context-local destination of this thread until the guard is dropped; then
    /// the one before applies again. Not for use across `.await`: see
    /// [`DestinationExt::with_destination`](crate::DestinationExt::with_destination).
    pub fn enter(&self) -> ScopeGuard {
        ScopeGuard {
            _context: Context::map_current(|cx| self.in_context(cx)).attach(),
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
}
