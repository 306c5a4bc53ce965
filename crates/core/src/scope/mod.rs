//! Which destination applies: the value in an OpenTelemetry [`Context`], then the global slot, then
//! the environment, then none.
//!
//! | to route | use |
//! |---|---|
//! | everything in this process | [`set_global`] |
//! | what this thread does until a guard is dropped | [`Destination::enter`] |
//! | what a future or stream does | [`DestinationExt::with_destination`] |
//! | one root span | [`Destination::in_context`] as its parent context |
//!
//! The context-local scope is a value in the context and nothing else, so whatever already carries
//! a context across tasks and threads carries the destination too.

mod global;
mod guard;
mod task;

pub(crate) use global::process_slot;
pub use global::{GlobalSlot, clear_global, global, reset, set_global};
pub use guard::ScopeGuard;
pub use task::{DestinationExt, WithDestination};

use crate::destination::Destination;
use crate::route_id::RouteId;
use crate::routes::Routes;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId, TraceState};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The context-local scope, and the trace of the span that was current where it was entered. A private
/// type, so that only this module can set it.
struct Scoped(Destination, TraceId);

/// Whether any context of this process ever got a destination. Until then no context is looked
/// into. It is never taken back: a count of live scopes would be one cache line that every scope on
/// every thread writes. Whoever has a context with a destination in it sees the flag set, because
/// the context reached them after it was.
static EVER_SCOPED: AtomicBool = AtomicBool::new(false);

/// Marks a context whose next root was detached from a running trace.
pub(crate) struct DetachedFrom(pub(crate) SpanContext);

impl Destination {
    /// `cx` with this destination: the parent context for one root span with an explicit
    /// destination, or a context to attach or to carry elsewhere.
    pub fn in_context(&self, cx: &Context) -> Context {
        if !EVER_SCOPED.load(Ordering::Relaxed) {
            EVER_SCOPED.store(true, Ordering::Relaxed);
        }
        cx.with_value(Scoped(self.clone(), trace_in(cx)))
    }
}

/// The destination that a root span started now would go to, as far as the context and the
/// process-wide global decide it. The environment is known to a pipeline only:
/// see [`Pipeline::resolve`](crate::Pipeline::resolve).
pub fn current() -> Option<Destination> {
    let local = with_current(|cx| in_scope(cx).cloned()).flatten();
    match local {
        Some(destination) if !destination.is_unset() => Some(destination),
        _ => global().filter(|d| !d.is_unset()),
    }
}

/// A context in which the next span is the root of a new trace, with a link to the span that is
/// current now. For programs with one long-lived root span, where a scope entered inside it would
/// have no effect. Under a parent-based sampler the new trace shares the sampling decision of the
/// span it leaves.
///
/// ```
/// use trace_destination_core::{Destination, MemoryLocation, new_root};
///
/// let tenant = Destination::new(MemoryLocation::new("tenant-b"));
/// let detached = tenant.in_context(&new_root());
/// let _guard = detached.attach();
/// // spans started here begin a new trace, stored at `memory:tenant-b`
/// ```
pub fn new_root() -> Context {
    with_current(|cx| {
        let parent = cx.span().span_context().clone();
        if !parent.is_valid() {
            return cx.clone();
        }
        // An invalid span context is no parent; there is no other way to take a span out of a
        // context and keep its other values. It keeps the flags, because the SDK's `ParentBased`
        // sampler (0.33.1) asks them of any span in the context, valid or not.
        let nobody = SpanContext::new(
            TraceId::INVALID,
            SpanId::INVALID,
            parent.trace_flags(),
            false,
            TraceState::NONE,
        );
        cx.with_remote_span_context(nobody)
            .with_value(DetachedFrom(parent))
    })
    .unwrap_or_default()
}

/// The context-local value in `cx`, [`Destination::unset`] included.
pub(crate) fn in_scope(cx: &Context) -> Option<&Destination> {
    if !EVER_SCOPED.load(Ordering::Relaxed) {
        return None;
    }
    scoped(cx)
}

fn scoped(cx: &Context) -> Option<&Destination> {
    cx.get::<Scoped>().map(|s| &s.0)
}

/// The trace of the local span of a context; the invalid id where it has none.
fn trace_in(cx: &Context) -> TraceId {
    let span = cx.span();
    let span = span.span_context();
    match span.is_remote() {
        true => TraceId::INVALID,
        false => span.trace_id(),
    }
}

/// Whether `destination` was entered in `cx` already, in the same trace.
fn is_entered(cx: &Context, destination: &Destination) -> bool {
    let entered = cx.get::<Scoped>();
    entered.is_some_and(|scope| scope.0.same(destination) && scope.1 == trace_in(cx))
}

/// Whether a span that starts in `cx` was given the current context, and none of its own.
fn is_current(cx: &Context) -> bool {
    // The API hands on a reference to the current one.
    with_current(|current| std::ptr::eq(current, cx)) == Some(true)
}

/// Applies `f` to the context-local value: that in `cx`, else that in the current context.
fn with_local<T>(cx: &Context, f: impl Fn(&Destination) -> T) -> Option<T> {
    if !EVER_SCOPED.load(Ordering::Relaxed) {
        return None;
    }
    match scoped(cx) {
        Some(local) => Some(f(local)),
        None => with_current(|current| scoped(current).map(f)).flatten(),
    }
}

/// Whether a thread has a current context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    /// Nobody has looked.
    Unknown,
    There,
    /// The thread is being torn down.
    Gone,
}

thread_local! {
    /// Without a destructor, so that it can be read at any time and at the cost of a load.
    static CURRENT: Cell<Current> = const { Cell::new(Current::Unknown) };
    /// Goes before OpenTelemetry's own thread-local: it is initialised after that one, and
    /// destructors of thread-locals run in reverse order.
    static SENTINEL: Sentinel = const { Sentinel };
}

struct Sentinel;

impl Drop for Sentinel {
    fn drop(&mut self) {
        CURRENT.set(Current::Gone);
    }
}

/// Runs `f` on the current context, or returns `None` where the thread is being torn down and has
/// none: touching it then would abort the process.
pub(crate) fn with_current<T>(f: impl FnOnce(&Context) -> T) -> Option<T> {
    if CURRENT.get() != Current::There && !look_for_current() {
        return None;
    }
    Some(Context::map_current(f))
}

/// There is none if the first span of a thread starts in a destructor that runs after the context's
/// own.
#[cold]
fn look_for_current() -> bool {
    if CURRENT.get() == Current::Gone {
        return false;
    }
    let touch = || Context::map_current(|_| ());
    let there = std::panic::catch_unwind(touch).is_ok() && SENTINEL.try_with(|_| ()).is_ok();
    CURRENT.set(match there {
        true => Current::There,
        false => Current::Gone,
    });
    there
}

/// The levels below the context, as one pipeline sees them.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(crate) global: Arc<GlobalSlot>,
    pub(crate) environment: Option<Destination>,
    pub(crate) strict: bool,
    /// The route below the context: `version of the global slot << 32 | route`.
    pub(crate) memo: AtomicU64,
    /// Roots started with a context of their own that took a route below the context, in a process
    /// that has context-local ones.
    pub(crate) unscoped: AtomicU64,
}

impl Levels {
    /// The destination for a local root started in `cx`; `None` where no level has one.
    pub(crate) fn resolve(&self, cx: &Context) -> Option<Destination> {
        match with_local(cx, Clone::clone) {
            Some(local) if !local.is_unset() => Some(local),
            _ => self.below(|found| found.cloned()),
        }
    }

    /// The route of a local root started in `cx`: what `on_start` asks.
    pub(crate) fn route(&self, cx: &Context, routes: &Routes) -> RouteId {
        match self.own_route(cx, routes) {
            Some(route) => route,
            None => {
                let route = self.route_below(routes);
                if EVER_SCOPED.load(Ordering::Relaxed) && route.leads_somewhere() && !is_current(cx)
                {
                    self.unscoped.fetch_add(1, Ordering::Relaxed);
                }
                route
            }
        }
    }

    /// The route of the context-local destination alone.
    pub(crate) fn own_route(&self, cx: &Context, routes: &Routes) -> Option<RouteId> {
        let route = |local: &Destination| (!local.is_unset()).then(|| routes.of(Some(local)));
        with_local(cx, route).flatten()
    }

    /// The context-local destination for a child of `trace` whose parent context is `cx`, and whether
    /// its scope was entered inside that trace.
    pub(crate) fn in_trace(&self, cx: &Context, trace: TraceId) -> Option<(Destination, bool)> {
        if !EVER_SCOPED.load(Ordering::Relaxed) {
            return None;
        }
        // A scope around code that takes up somebody else's span is none of that one's trace.
        let scope = |cx: &Context| cx.get::<Scoped>().map(|s| (s.0.clone(), s.1 == trace));
        let found = scope(cx).or_else(|| with_current(scope).flatten());
        found.filter(|(destination, _)| !destination.is_unset())
    }

    /// The route of the levels below the context, remembered for as long as the global slot does
    /// not change: two atomic loads.
    fn route_below(&self, routes: &Routes) -> RouteId {
        let version = self.global.version();
        let memo = self.memo.load(Ordering::Acquire);
        if (memo >> 32) as u32 == version {
            return RouteId(memo as u32);
        }
        let route = self.below(|found| routes.of(found));
        // The slot is changed before its version: what was found is at least as new as `version`,
        // and a later change has another version.
        self.memo.store(
            u64::from(version) << 32 | u64::from(route.0),
            Ordering::Release,
        );
        route
    }

    /// The route that is remembered for the levels below the context.
    pub(crate) fn remembered(&self) -> RouteId {
        RouteId(self.memo.load(Ordering::Acquire) as u32)
    }

    /// Looks below the context anew the next time.
    pub(crate) fn look_again(&self) {
        self.memo.store(0, Ordering::Release);
    }

    fn below<T>(&self, f: impl FnOnce(Option<&Destination>) -> T) -> T {
        if self.strict {
            return f(None);
        }
        self.global.with(|global| match global {
            Some(global) if !global.is_unset() => f(Some(global)),
            _ => f(self.environment.as_ref().filter(|e| !e.is_unset())),
        })
    }
}
