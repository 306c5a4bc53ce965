//! Late binding against a model that remembers every span, over random schedules: whatever ends goes
//! to the place of its segment, once, or is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::late::Started;
use super::*;
use crate::record::TraceUpdate;
use crate::totals::Totals;
use proptest::prelude::*;
use std::sync::atomic::Ordering as StdOrdering;

#[derive(Clone, Debug)]
enum Op {
    /// A root without a destination; its trace id is fresh, or one of a few from outside.
    Root {
        foreign: Option<usize>,
    },
    /// A root with a destination; the id may be one that was made here.
    BoundRoot {
        repeats: Option<usize>,
        route: u32,
    },
    /// A child of an open span, in a scope or in none.
    Child {
        parent: usize,
        /// Its route, and whether it was entered inside the trace.
        scope: Option<(u32, bool)>,
    },
    End {
        span: usize,
    },
    /// An open span ends while its trace is decided: between its two steps.
    EndAround {
        span: usize,
        by: usize,
        route: u32,
    },
    Decide {
        span: usize,
        route: u32,
    },
    EndUndecided {
        all: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let route = || 2..5u32;
    prop_oneof![
        3 => proptest::option::of(0..3usize).prop_map(|foreign| Op::Root { foreign }),
        2 => (proptest::option::of(0..8usize), route())
            .prop_map(|(repeats, route)| Op::BoundRoot { repeats, route }),
        8 => (any::<usize>(), proptest::option::of((route(), any::<bool>())))
            .prop_map(|(parent, scope)| Op::Child { parent, scope }),
        8 => any::<usize>().prop_map(|span| Op::End { span }),
        2 => (any::<usize>(), any::<usize>(), route())
            .prop_map(|(span, by, route)| Op::EndAround { span, by, route }),
        2 => (any::<usize>(), route()).prop_map(|(span, route)| Op::Decide { span, route }),
        1 => any::<bool>().prop_map(|all| Op::EndUndecided { all }),
    ]
}

/// Routes mean what they are.
struct Plain;

impl Meaning for Plain {
    fn beside(&self, _: RouteId, route: RouteId) -> RouteId {
        route
    }

    fn whole(&self, route: RouteId) -> RouteId {
        route
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Bound when it started.
    Bound(u32),
    Undecided,
    Decided(u32),
    Expired,
}

struct Segment {
    trace: u128,
    own: bool,
    state: State,
    open: u32,
}

struct Span {
    segment: usize,
    open: bool,
    /// Where it has to be: none while it is open or waits, zero where it is lost.
    goes: Option<u32>,
}

#[derive(Default)]
struct Model {
    segments: Vec<Segment>,
    spans: Vec<Span>,
}

impl Model {
    fn root(&mut self, trace: u128, own: bool, state: State) {
        let joins = |s: &Segment| {
            let goes = matches!((s.state, state),
                (State::Bound(a) | State::Decided(a), State::Bound(b)) if a == b);
            s.own && s.trace == trace && goes
        };
        let segment = self.segments.iter().position(joins).unwrap_or_else(|| {
            let own = own && !self.segments.iter().any(|s| s.own && s.trace == trace);
            self.segments.push(Segment {
                trace,
                own,
                state,
                open: 0,
            });
            self.segments.len() - 1
        });
        self.start(segment);
    }

    fn start(&mut self, segment: usize) {
        self.segments[segment].open += 1;
        self.spans.push(Span {
            segment,
            open: true,
            goes: None,
        });
    }

    fn decide(&mut self, segment: usize, state: State) {
        self.segments[segment].state = state;
        let goes = match state {
            State::Decided(route) => route,
            _ => 0,
        };
        for span in &mut self.spans {
            if span.segment == segment && !span.open {
                span.goes.get_or_insert(goes);
            }
        }
    }

    fn end(&mut self, span: usize) {
        let Span { segment, .. } = self.spans[span];
        let segment = &mut self.segments[segment];
        segment.open -= 1;
        self.spans[span].open = false;
        self.spans[span].goes = match segment.state {
            State::Bound(route) | State::Decided(route) => Some(route),
            State::Expired => Some(0),
            State::Undecided => None,
        };
    }

    fn open(&self) -> Vec<usize> {
        (0..self.spans.len())
            .filter(|s| self.spans[*s].open)
            .collect()
    }
}

/// The table, and where everything went.
struct World {
    table: Bindings,
    room: Arc<Room>,
    totals: Arc<Totals>,
    /// Route and span of what was sent.
    sent: Vec<(u32, usize)>,
}

fn trace_id(trace: u128) -> TraceId {
    TraceId::from_bytes(trace.to_be_bytes())
}

fn span_id(span: usize) -> SpanId {
    SpanId::from_bytes((span as u64 + 1).to_be_bytes())
}

impl World {
    fn follow(&mut self, follows: Follows) {
        for (route, waited) in follows {
            for held in waited {
                self.send(route, &held);
            }
        }
    }

    fn send(&mut self, route: RouteId, held: &Held) {
        let Held::Values(values) = held else {
            unreachable!("spans are marked by values here");
        };
        let span = values.name.as_ref().unwrap().parse().unwrap();
        self.sent.push((route.0, span));
    }

    /// What ends, as a value with its number: the table does not look at it.
    fn end(&mut self, trace: u128, span: usize, between: impl FnOnce(&mut Self)) {
        let ended = self.table.end(trace_id(trace), span_id(span));
        between(self);
        let mut values = TraceUpdate::new(trace_id(trace));
        values.name = Some(span.to_string());
        let held = Held::Values(Box::new(values));
        match ended {
            Ended::Bound(RouteId::UNROUTED) => {
                self.totals
                    .unrouted_updates
                    .fetch_add(1, StdOrdering::Relaxed);
            }
            Ended::Bound(route) => self.send(route, &held),
            Ended::Undecided(place) => {
                if let Fate::Follows(route, held) = place.hold(held) {
                    self.send(route, &held);
                }
            }
            odd => panic!("{odd:?}"),
        }
    }
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let totals = Arc::<Totals>::default();
    let mut world = World {
        table: Bindings::new(2, true),
        room: Room::new(64 << 20, totals.clone()),
        totals,
        sent: Vec::new(),
    };
    let mut model = Model::default();
    let mut own_traces = Vec::new();
    for op in ops {
        let next = model.spans.len();
        let open = model.open();
        let pick = |n: usize| open.get(n.checked_rem(open.len())?).copied();
        match *op {
            Op::Root { foreign } => {
                let trace = match foreign {
                    Some(few) => few as u128 + 1,
                    None => {
                        own_traces.push(1_000 + own_traces.len() as u128);
                        own_traces[own_traces.len() - 1]
                    }
                };
                let (own, place) = (foreign.is_none(), world.room.open().unwrap());
                let ids = (trace_id(trace), span_id(next));
                world.table.start_undecided(ids.0, ids.1, own, place);
                model.root(trace, own, State::Undecided);
            }
            Op::BoundRoot { repeats, route } => {
                let trace = match repeats.and_then(|n| own_traces.get(n)) {
                    Some(trace) => *trace,
                    None => 1,
                };
                let ids = (trace_id(trace), span_id(next));
                let route_id = RouteId(route);
                (world.table).start_root(ids.0, ids.1, false, route_id, |_| route_id);
                model.root(trace, false, State::Bound(route));
            }
            Op::Child { parent, scope } => {
                let Some(parent) = pick(parent) else { continue };
                let segment = model.spans[parent].segment;
                let trace = model.segments[segment].trace;
                let ids = (trace_id(trace), span_id(next), span_id(parent));
                let started = world.table.start_child(ids.0, ids.1, ids.2).unwrap();
                let is_late = !matches!(model.segments[segment].state, State::Bound(_));
                prop_assert_eq!(started.is_late(), is_late);
                let mut apart = None;
                if is_late {
                    let scope = scope.map(|(route, inside)| InScope {
                        route: RouteId(route),
                        inside,
                    });
                    match world
                        .table
                        .start_in_late(ids.0, ids.1, ids.2, scope, &Plain)
                    {
                        Started::Follows => {}
                        Started::Decides(follows) => world.follow(follows),
                        Started::Apart => apart = scope.map(|scope| scope.route),
                        Started::Unknown => prop_assert!(false, "an open parent is known"),
                    }
                }
                match (model.segments[segment].state, scope) {
                    (State::Undecided, Some((scope, true))) => {
                        model.decide(segment, State::Decided(scope));
                        model.start(segment);
                    }
                    (State::Decided(goes), Some((scope, _))) if goes != scope => {
                        prop_assert_eq!(apart, Some(RouteId(scope)));
                    }
                    (State::Expired, Some((scope, _))) | (State::Undecided, Some((scope, _))) => {
                        prop_assert_eq!(apart, Some(RouteId(scope)));
                    }
                    _ => model.start(segment),
                }
                if let Some(route) = apart {
                    (world.table).start_root(ids.0, ids.1, false, route, |_| route);
                    model.root(trace, false, State::Bound(route.0));
                }
            }
            Op::End { span } => {
                let Some(span) = pick(span) else { continue };
                let trace = model.segments[model.spans[span].segment].trace;
                model.end(span);
                world.end(trace, span, |_| {});
            }
            Op::EndAround { span, by, route } => {
                let (Some(span), Some(by)) = (pick(span), pick(by)) else {
                    continue;
                };
                let [of, other] = [span, by].map(|s| model.spans[s].segment);
                let [trace, others] = [of, other].map(|s| model.segments[s].trace);
                if span == by {
                    continue;
                }
                model.end(span);
                if model.segments[other].state == State::Undecided {
                    model.decide(other, State::Decided(route));
                }
                world.end(trace, span, |world| {
                    let ids = (trace_id(others), span_id(by));
                    let made =
                        world
                            .table
                            .decide(ids.0, ids.1, RouteId(route), RouteId(route), &Plain);
                    if let Decision::Made(follows) = made {
                        world.follow(follows);
                    }
                });
            }
            Op::Decide { span, route } => {
                let Some(span) = pick(span) else { continue };
                let segment = model.spans[span].segment;
                let ids = (trace_id(model.segments[segment].trace), span_id(span));
                let decision =
                    world
                        .table
                        .decide(ids.0, ids.1, RouteId(route), RouteId(route), &Plain);
                match (model.segments[segment].state, decision) {
                    (State::Undecided, Decision::Made(follows)) => {
                        world.follow(follows);
                        model.decide(segment, State::Decided(route));
                    }
                    (State::Expired, Decision::Expired) => {}
                    (State::Bound(r) | State::Decided(r), Decision::Same) if r == route => {}
                    (State::Bound(r) | State::Decided(r), Decision::Elsewhere) if r != route => {}
                    odd => prop_assert!(false, "{odd:?}"),
                }
            }
            Op::EndUndecided { all } => {
                let which = match all {
                    true => Which::All,
                    false => Which::WithoutOpenSpan,
                };
                let follows = world.table.end_undecided(which, &Plain);
                world.follow(follows);
                for segment in 0..model.segments.len() {
                    let Segment { state, open, .. } = model.segments[segment];
                    if state == State::Undecided && (all || open == 0) {
                        model.decide(segment, State::Expired);
                    }
                }
            }
        }
        let undecided = model.segments.iter();
        let undecided = undecided.filter(|s| s.state == State::Undecided).count();
        let waiting = world.room.stats();
        prop_assert_eq!(waiting.traces, undecided as u64);
        let waits = model.spans.iter().filter(|s| !s.open && s.goes.is_none());
        prop_assert_eq!(waiting.updates, waits.count() as u64);
        prop_assert_eq!(waiting.bytes > 0, undecided > 0);
    }
    let _ = world.table.end_undecided(Which::All, &Plain);
    prop_assert_eq!(world.room.stats(), crate::stats::Undecided::default());
    let mut expected = Vec::new();
    let mut lost = 0;
    for (number, span) in model.spans.iter().enumerate().filter(|(_, s)| !s.open) {
        match span.goes.unwrap_or(0) {
            0 => lost += 1,
            route => expected.push((route, number)),
        }
    }
    world.sent.sort_unstable();
    expected.sort_unstable();
    prop_assert_eq!(&world.sent, &expected);
    let counted = world.totals.unrouted_updates.load(StdOrdering::Relaxed);
    prop_assert_eq!(counted, lost);
    Ok(())
}

#[test]
fn random_schedules_with_decisions() {
    let config = ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ops = proptest::collection::vec(op(), 0..if cfg!(miri) { 30 } else { 100 });
    proptest!(config, |(ops in ops)| run(&ops)?);
}
