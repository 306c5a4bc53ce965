//! The span processor: binds in `on_start`, hands over in `on_end`. Neither waits, does I/O, logs
//! or touches anything of the application's but the span.

use crate::binding::{Ended, InScope, Started};
use crate::pipeline::{Payload, Pipeline, Shared};
use crate::record::Resource;
use crate::route_id::RouteId;
use crate::scope::{DetachedFrom, in_scope, with_current};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, SpanContext, SpanId, TraceContextExt, TraceId};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Routes the spans of one tracer provider through a [`Pipeline`]. Made by
/// [`Pipeline::processor`]; other span processors may run beside it.
#[derive(Debug)]
pub struct DestinationProcessor {
    pipeline: Pipeline,
    /// Index of the provider's resource in the pipeline.
    source: u32,
}

impl DestinationProcessor {
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            source: 0,
        }
    }

    fn flush(&self, deadline: Duration) -> OTelSdkResult {
        let report = self.pipeline.flush(deadline).wait();
        if report.timed_out {
            return Err(OTelSdkError::Timeout(deadline));
        }
        match report.lost() {
            Some(lost) => Err(OTelSdkError::InternalFailure(lost)),
            None => Ok(()),
        }
    }
}

impl SpanProcessor for DestinationProcessor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        let shared = self.pipeline.shared();
        let started = span.span_context();
        if !started.is_sampled() {
            return;
        }
        let (trace, id) = (started.trace_id(), started.span_id());
        let suppressed = cx.is_telemetry_suppressed()
            || with_current(Context::is_telemetry_suppressed) == Some(true);
        if suppressed {
            return shared.bindings.ignore(trace, id);
        }
        let parent = cx.span();
        let parent = parent.span_context();
        if parent.is_valid() && !parent.is_remote() && parent.is_sampled() {
            match shared.bindings.start_child(trace, id, parent.span_id()) {
                Some(route) if !route.is_late() => shared.note_ignored_scope(cx, route),
                Some(_) => shared.bind_in_late(trace, id, parent.span_id(), cx),
                None => shared.bind_without_parent(trace, id, parent.span_id(), cx),
            }
            return;
        }
        let made_here = !parent.is_valid();
        let mut route = shared.levels.route(cx, &shared.routes);
        if shared.sampling.is_on() {
            route = shared.sampled(route, trace, cx, made_here);
        }
        if route == RouteId::UNROUTED && shared.room.is_on() {
            shared.start_undecided(trace, id, made_here);
        } else {
            shared.start_root(trace, id, made_here, route);
        }
        if made_here {
            link_to_origin(span, cx);
        }
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let shared = self.pipeline.shared();
        let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
        match shared.bindings.end(trace, id) {
            Ended::Bound(route) => {
                if let Some((place, lane, bytes)) = shared.admit_span(route, self.source, &span) {
                    shared.put(place, lane, bytes, Payload::Sdk(self.source, span.into()));
                }
            }
            Ended::Undecided(place) => shared.hold_span(&place, self.source, span),
            Ended::Ignored => {}
            Ended::Unbound => {
                shared.totals.orphaned.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.flush(self.pipeline.shared().flush_deadline())
    }

    /// Flushes. The pipeline stays open for its other providers; end it with
    /// [`Pipeline::shutdown`].
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.flush(timeout)
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        let index = self
            .pipeline
            .shared()
            .resources
            .push(Arc::new(Resource::from(resource)));
        self.source = u32::try_from(index).unwrap_or(0);
    }
}

/// Adds the link that [`new_root`](crate::new_root) promised.
fn link_to_origin(span: &mut Span, cx: &Context) {
    if let Some(DetachedFrom(origin)) = cx.get::<DetachedFrom>() {
        let origin: SpanContext = origin.clone();
        span.add_link(origin, Vec::new());
    }
}

impl Shared {
    pub(crate) fn start_root(&self, trace: TraceId, span: SpanId, made_here: bool, route: RouteId) {
        let beside = |own| self.beside(own, route);
        (self.bindings).start_root(trace, span, made_here, route, beside);
    }

    /// Binds a child in a trace that had no destination when it started: its scope decides, or is
    /// followed by it alone.
    #[cold]
    fn bind_in_late(&self, trace: TraceId, span: SpanId, parent: SpanId, cx: &Context) {
        let scope = self.levels.in_trace(cx, trace);
        let scope = scope.map(|(destination, inside)| InScope {
            route: self.route_to(&destination, trace),
            inside,
        });
        let started = self
            .bindings
            .start_in_late(trace, span, parent, scope, &self.routes);
        match (started, scope) {
            (Started::Follows, _) => {}
            (Started::Decides(follows), _) => self.follow(follows),
            (Started::Apart, Some(scope)) => self.start_root(trace, span, false, scope.route),
            (Started::Apart | Started::Unknown, _) => {
                self.bind_without_parent(trace, span, parent, cx);
            }
        }
    }

    /// Binds a span whose parent ran in this process and is in no binding that is remembered.
    #[cold]
    fn bind_without_parent(&self, trace: TraceId, span: SpanId, parent: SpanId, cx: &Context) {
        let beside_parent = in_scope(cx).filter(|scope| !scope.is_unset());
        let sampled = |route| match self.sampling.is_on() {
            true => self.sampled(route, trace, cx, false),
            false => route,
        };
        let beside_parent = beside_parent.map(|scope| sampled(self.routes.of(Some(scope))));
        let local = self.levels.own_route(cx, &self.routes).map(sampled);
        let bindings = &self.bindings;
        if let Some(route) = bindings.start_late(trace, span, parent, beside_parent, local) {
            return self.note_ignored_scope(cx, route);
        }
        match local {
            Some(route) => self.start_root(trace, span, false, route),
            None => {
                self.totals.orphaned.fetch_add(1, Ordering::Relaxed);
                self.bindings.ignore(trace, span);
            }
        }
    }

    /// Counts a scope that names another destination than the one its trace is bound to.
    fn note_ignored_scope(&self, cx: &Context, bound: RouteId) {
        if bound != RouteId::SAMPLED_OUT
            && let Some(scope) = in_scope(cx)
            && !scope.is_unset()
            && let route = self.routes.of(Some(scope))
            && route != bound
            && self.routes.refusing(bound).is_none_or(|r| r.route != route)
        {
            self.totals.ignored_scopes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
