//! Traces whose destination is not known when their root starts: what waits for it, and what follows
//! it.

use super::{Payload, Shared};
use crate::binding::{Beside, Fate, Follows, Held, Meaning, Undecided, Which};
use crate::delivery_thread::without_waiting;
use crate::record::TraceUpdate;
use crate::route_id::RouteId;
use crate::routes::Routes;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

impl Meaning for Routes {
    fn beside(&self, own: RouteId, route: RouteId) -> RouteId {
        self.beside(own, route)
    }

    fn whole(&self, route: RouteId) -> RouteId {
        self.whole(route)
    }
}

impl Shared {
    /// Binds a local root that no level names a destination for, where that may still come.
    #[cold]
    pub(crate) fn start_undecided(&self, trace: TraceId, span: SpanId, made_here: bool) {
        match self.room.open() {
            Some(place) => self.bindings.start_undecided(trace, span, made_here, place),
            // A scope inside it is followed all the same, by what starts there.
            None => self.start_root(trace, span, made_here, RouteId::EXPIRED),
        }
    }

    /// What a root with the id of another trace does, which was made here and follows `own`.
    pub(crate) fn beside(&self, own: RouteId, route: RouteId) -> Beside {
        // In a store where an id lives once it belongs to the other trace, which may yet go there.
        if own == RouteId::UNDECIDED
            && self.routes.is_exclusive(route)
            && let Some(place) = self.room.open()
        {
            return Beside::Waits(place);
        }
        Beside::Goes(self.routes.beside(own, route))
    }

    /// A span of an undecided trace ended.
    #[cold]
    pub(crate) fn hold_span(&self, place: &Undecided, source: u32, span: SpanData) {
        if let Fate::Follows(route, held) = place.hold(Held::Span(source, Box::new(span))) {
            self.follow(vec![(route, vec![held])]);
        }
    }

    /// Sets trace-level values of a trace: an undecided one keeps them.
    pub(crate) fn set_values(&self, route: RouteId, span: SpanId, values: &TraceUpdate) {
        if route != RouteId::UNDECIDED {
            return self.accept_update(route, values, false);
        }
        match self.bindings.undecided(values.trace_id, span) {
            Some(place) => {
                let held = Held::Values(Box::new(values.clone()));
                if let Fate::Follows(route, held) = place.hold(held) {
                    self.follow(vec![(route, vec![held])]);
                }
            }
            // Decided since its route was looked up, or ended.
            None => match self.bindings.route_of(values.trace_id, span) {
                Some(route) => self.accept_update(route, values, false),
                None => self.accept_update(RouteId::UNROUTED, values, false),
            },
        }
    }

    /// Sends what waited along the route that was decided. Never waits for room: that may be a
    /// thread on which a span starts.
    pub(crate) fn follow(&self, follows: Follows) {
        let is_root = |held: &Held| match held {
            Held::Span(_, span) => {
                span.parent_span_id == SpanId::INVALID || span.parent_span_is_remote
            }
            Held::Values(_) => false,
        };
        without_waiting(|| {
            for (route, waited) in follows {
                let mut roots = waited.iter().filter(|held| is_root(held)).count();
                for held in waited {
                    roots -= usize::from(is_root(&held));
                    match held {
                        Held::Span(source, span) => self.send_span(route, source, *span),
                        Held::Values(values) => self.accept_update(route, &values, roots > 0),
                    }
                }
            }
        });
    }

    /// Ends undecided traces: what waits in them is lost. With all of them it is the end of late
    /// binding.
    pub(super) fn end_undecided(&self, which: Which) {
        if matches!(which, Which::All) {
            self.room.close();
        }
        let follows = self.bindings.end_undecided(which, &self.routes);
        self.follow(follows);
    }

    /// Sends a span along a route.
    #[inline]
    pub(crate) fn send_span(&self, route: RouteId, source: u32, span: SpanData) {
        if let Some((place, lane, bytes)) = self.admit_span(route, source, &span) {
            self.put(place, lane, bytes, Payload::Sdk(source, span.into()));
        }
    }
}
