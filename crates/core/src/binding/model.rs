//! The table against a model that remembers every span, over random schedules.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Op {
    /// A root with a fresh trace id, made here.
    OwnRoot {
        route: u32,
    },
    /// A root whose trace id came from outside: one of a few, or one that was made here.
    ForeignRoot {
        trace: usize,
        route: u32,
    },
    /// A child of any span so far, open or long ended.
    Child {
        parent: usize,
    },
    End {
        span: usize,
    },
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (2..5u32).prop_map(|route| Op::OwnRoot { route }),
        3 => (0..8usize, 2..5u32).prop_map(|(trace, route)| Op::ForeignRoot { trace, route }),
        6 => any::<usize>().prop_map(|parent| Op::Child { parent }),
        6 => any::<usize>().prop_map(|span| Op::End { span }),
        2 => Just(Op::Sweep),
    ]
}

/// What each span belongs to, and nothing clever.
#[derive(Default)]
struct Model {
    segments: Vec<Segment>,
    /// Trace, segment and whether it is open, of every span that was bound.
    spans: Vec<(u128, usize, bool)>,
    /// Whether each may set values of its trace while it is open.
    proven: Vec<bool>,
    epoch: u32,
}

struct Segment {
    trace: u128,
    route: u32,
    own: bool,
    open: u32,
    started: u32,
    idle_since: u32,
    bound: bool,
    /// Of an own one: spans of another segment of the trace were forgotten.
    doubtful: bool,
}

impl Model {
    fn root(&mut self, trace: u128, route: u32, own: bool) {
        let same = |s: &Segment| s.bound && s.own && s.trace == trace && s.route == route;
        let segment = match self.segments.iter().position(same) {
            Some(there) => there,
            None => {
                self.segments.push(Segment {
                    trace,
                    route,
                    own,
                    open: 0,
                    started: self.epoch,
                    idle_since: 0,
                    bound: true,
                    doubtful: false,
                });
                self.segments.len() - 1
            }
        };
        self.segments[segment].open += 1;
        self.spans.push((trace, segment, true));
        self.proven.push(true);
    }

    /// Whether a child may be left to itself: its parent has ended, and may be anybody's.
    fn may_be_orphan(&self, parent: usize) -> bool {
        let (_, segment, open) = self.spans[parent];
        self.segments[segment].doubtful && !open
    }

    fn child(&mut self, parent: usize) -> Option<RouteId> {
        let (trace, segment, _) = self.spans[parent];
        let found = &mut self.segments[segment];
        found.bound.then(|| {
            found.open += 1;
            self.spans.push((trace, segment, true));
            RouteId(found.route)
        })
    }

    fn end(&mut self, span: usize, linger: bool) -> Ended {
        self.spans[span].2 = false;
        let segment = &mut self.segments[self.spans[span].1];
        if !segment.bound {
            return Ended::Unbound;
        }
        segment.open -= 1;
        if segment.open == 0 {
            segment.idle_since = self.epoch;
            segment.bound = linger;
        }
        Ended::Bound(RouteId(segment.route))
    }

    fn sweep(&mut self, linger: u32, max_age: u32) -> u64 {
        self.epoch += 1;
        let mut expired = 0;
        let mut forgotten = BTreeSet::new();
        for s in self.segments.iter_mut().filter(|s| s.bound) {
            let old = self.epoch - s.started > max_age;
            let idle = s.open == 0 && self.epoch - s.idle_since > linger;
            expired += u64::from(old && s.open > 0);
            s.bound = !old && !idle;
            if old && s.open > 0 && !s.own {
                forgotten.insert(s.trace);
            }
        }
        for s in self.segments.iter_mut().filter(|s| s.own) {
            s.doubtful |= forgotten.contains(&s.trace);
        }
        expired
    }

    fn open_spans(&self) -> BTreeMap<u32, u64> {
        let mut open = BTreeMap::new();
        for s in self.segments.iter().filter(|s| s.bound && s.open > 0) {
            *open.entry(s.route).or_default() += u64::from(s.open);
        }
        open
    }
}

fn run(ops: &[Op], linger: bool) -> Result<(), TestCaseError> {
    const LINGER: u32 = 3;
    const MAX_AGE: u32 = 12;
    let table = Bindings::new(2, linger);
    let mut model = Model::default();
    let mut own_traces = Vec::new();
    let trace_id = |t: u128| TraceId::from_bytes(t.to_be_bytes());
    let span_id = |s: usize| SpanId::from_bytes((s as u64 + 1).to_be_bytes());
    for op in ops {
        let next = model.spans.len();
        match *op {
            Op::OwnRoot { route } => {
                let trace = 1_000 + own_traces.len() as u128;
                own_traces.push(trace);
                table.start_root(
                    trace_id(trace),
                    span_id(next),
                    true,
                    RouteId(route),
                    |_| -> RouteId { unreachable!() },
                );
                model.root(trace, route, true);
            }
            Op::ForeignRoot { trace, route } => {
                let trace = match own_traces.len().checked_sub(trace) {
                    Some(recent) if trace > 0 => own_traces[recent],
                    _ => trace as u128,
                };
                table.start_root(
                    trace_id(trace),
                    span_id(next),
                    false,
                    RouteId(route),
                    |own| {
                        assert_ne!(own, RouteId(route));
                        RouteId(route)
                    },
                );
                model.root(trace, route, false);
            }
            Op::Child { parent } => {
                if next == 0 {
                    continue;
                }
                let parent = parent % next;
                let (trace, _, open) = model.spans[parent];
                let ids = (trace_id(trace), span_id(next), span_id(parent));
                let known = table.start_child(ids.0, ids.1, ids.2);
                let route = known.or_else(|| table.start_late(ids.0, ids.1, ids.2, None, None));
                if route.is_none() && model.may_be_orphan(parent) {
                    continue;
                }
                prop_assert_eq!(route, model.child(parent), "child of {}", parent);
                if route.is_some() {
                    prop_assert!(known.is_some() || !open, "{} is open", parent);
                    model.proven.push(known.is_some() && model.proven[parent]);
                }
            }
            Op::End { span } => {
                let open: Vec<usize> = (0..next).filter(|s| model.spans[*s].2).collect();
                if open.is_empty() {
                    continue;
                }
                let span = open[span % open.len()];
                let trace = model.spans[span].0;
                let ended = table.end(trace_id(trace), span_id(span));
                prop_assert_eq!(ended, model.end(span, linger), "end of {}", span);
            }
            Op::Sweep => {
                let expired = table.sweep(LINGER, MAX_AGE, true).expired;
                prop_assert_eq!(expired, model.sweep(LINGER, MAX_AGE));
            }
        }
        let open: BTreeMap<u32, u64> = table.open_spans().into_iter().collect();
        prop_assert_eq!(open, model.open_spans());
        for (span, (trace, segment, open)) in model.spans.iter().enumerate() {
            let segment = &model.segments[*segment];
            let may_set = *open && segment.bound && model.proven[span];
            prop_assert_eq!(
                table.route_of(trace_id(*trace), span_id(span)),
                may_set.then_some(RouteId(segment.route)),
                "route of {}",
                span
            );
        }
    }
    // Nothing is left once everything has had its time.
    for _ in 0..=MAX_AGE {
        table.sweep(LINGER, MAX_AGE, true);
    }
    prop_assert_eq!(table.len(), 0);
    let routes: BTreeSet<u32> = table.open_spans().into_keys().collect();
    prop_assert!(routes.is_empty());
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn random_schedules_with_linger() {
    let ops = proptest::collection::vec(op(), 0..if cfg!(miri) { 30 } else { 120 });
    proptest!(config(), |(ops in ops)| run(&ops, true)?);
}

#[test]
fn random_schedules_without_linger() {
    let ops = proptest::collection::vec(op(), 0..if cfg!(miri) { 30 } else { 120 });
    proptest!(config(), |(ops in ops)| run(&ops, false)?);
}
