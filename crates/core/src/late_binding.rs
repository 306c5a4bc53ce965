//! Naming the destination of a trace after its root has started.

use crate::binding::Decision;
use crate::destination::Destination;
use crate::pipeline;
use crate::trace::current_local_span;

/// What came of [`bind_current_trace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the trace may go elsewhere, or nowhere"]
#[non_exhaustive]
pub enum TraceBinding {
    /// The trace had no destination and has this one now. What waited follows.
    Bound,
    /// The trace goes there anyway.
    AlreadyBound,
    /// The trace goes elsewhere, and goes on doing so.
    BoundElsewhere,
    /// The trace goes nowhere, and that is final: the time for a decision was over, there was no
    /// room to wait for one, the pipeline is shut down, or it has no late binding.
    Expired,
    /// The current span is not an open, sampled span of this process that a pipeline bound; or the
    /// destination is [`Destination::unset`], which decides nothing.
    NotOurs,
}

impl TraceBinding {
    /// Whether the trace goes to the destination that was named.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::Bound | Self::AlreadyBound)
    }
}

/// Names the destination of the trace of the current span, where it had none when it started; see
/// [`PipelineBuilder::with_late_binding`](crate::PipelineBuilder::with_late_binding). Its spans that
/// ended before and its trace-level values follow, in order.
///
/// A trace is bound once. It is no key to somebody else's trace: the current span has to be open,
/// and one that a pipeline of this process bound itself. A remote span, or the id of a trace, opens
/// nothing.
///
/// Where several pipelines have the trace, each decides for itself. Then the first of these that
/// applies to any of them is returned: `Bound`, `BoundElsewhere`, `Expired`, `AlreadyBound`.
///
/// Never waits and does no I/O. With `tracing`, the current span is that of OpenTelemetry's current
/// context, which `tracing-opentelemetry` sets while a span is entered.
///
/// ```
/// use trace_destination_core::{Destination, MemoryLocation, TraceBinding, bind_current_trace};
///
/// # fn handle() {
/// // After authentication, in the code that runs inside the request's span:
/// let tenant = Destination::new(MemoryLocation::new("tenant-a"));
/// if !bind_current_trace(&tenant).is_bound() {
///     // The trace of this request does not go to the tenant.
/// }
/// # }
/// ```
pub fn bind_current_trace(destination: &Destination) -> TraceBinding {
    let Some(span) = current_local_span().filter(|_| !destination.is_unset()) else {
        return TraceBinding::NotOurs;
    };
    let mut all = TraceBinding::NotOurs;
    for pipeline in pipeline::all() {
        let routes = &pipeline.routes;
        let (trace, span) = (span.trace_id(), span.span_id());
        let route = pipeline.route_to(destination, trace);
        // One that was sampled by its caller goes there, whatever its id gives.
        let named = routes.of(Some(destination));
        let one = match pipeline.bindings.decide(trace, span, route, named, routes) {
            Decision::Made(follows) => {
                pipeline.follow(follows);
                TraceBinding::Bound
            }
            Decision::Same => TraceBinding::AlreadyBound,
            Decision::Elsewhere => TraceBinding::BoundElsewhere,
            Decision::Expired => TraceBinding::Expired,
            Decision::NotOurs => continue,
        };
        if rank(one) < rank(all) {
            all = one;
        }
    }
    all
}

/// Which of several answers is told.
fn rank(binding: TraceBinding) -> u8 {
    match binding {
        TraceBinding::Bound => 0,
        TraceBinding::BoundElsewhere => 1,
        TraceBinding::Expired => 2,
        TraceBinding::AlreadyBound => 3,
        TraceBinding::NotOurs => 4,
    }
}
