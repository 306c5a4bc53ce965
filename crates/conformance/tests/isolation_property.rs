//! Over random schedules of several threads: every span reaches the place the design names for it,
//! once, and no other.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use trace_destination_core::{
    Destination, GlobalSlot, MemoryLocation, Pipeline, ScopeGuard, new_root,
};

const PLACES: usize = 4;

/// One step of one thread. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Enters a scope; `None` is `unset`.
    Enter(Option<usize>),
    /// Leaves the innermost scope of this thread.
    Leave,
    /// Sets or clears the global; only the first thread does, so that it knows what holds.
    Global(Option<usize>),
    /// A root with nothing but the current context.
    Root,
    /// A root with a destination of its own.
    Explicit(usize),
    /// A local root of a trace from outside, one of a few that all threads use.
    Remote(u8),
    /// A child of any span of this thread, ended or not.
    Child(usize),
    /// A root that leaves the trace of a span of this thread.
    Detached(usize),
    /// Ends a span, here or on a thread of its own.
    End(usize, bool),
    /// Lets others run.
    Yield,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop::option::weighted(0.8, 0..PLACES).prop_map(Step::Enter),
        1 => Just(Step::Leave),
        2 => prop::option::weighted(0.7, 0..PLACES).prop_map(Step::Global),
        3 => Just(Step::Root),
        1 => (0..PLACES).prop_map(Step::Explicit),
        3 => (0..3_u8).prop_map(Step::Remote),
        6 => any::<prop::sample::Index>().prop_map(|i| Step::Child(i.index(1 << 16))),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Detached(i.index(1 << 16))),
        5 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(i, elsewhere)| Step::End(i.index(1 << 16), elsewhere)),
        1 => Just(Step::Yield),
    ]
}

/// What one thread knows.
struct Worker {
    tracer: SdkTracer,
    places: Vec<Destination>,
    global: Arc<GlobalSlot>,
    /// Whether this thread sets the global, and so knows it.
    leads: bool,
    global_now: Option<usize>,
    scopes: Vec<(Option<usize>, ScopeGuard)>,
    /// Spans of this thread with their place, which may be none.
    spans: Vec<(Context, Option<usize>)>,
}

impl Worker {
    /// The place of a root that has no destination of its own: the model.
    fn resolved(&self) -> Option<usize> {
        match self.scopes.last() {
            Some((Some(place), _)) => Some(*place),
            Some((None, _)) | None => self.global_now,
        }
    }

    fn enter(&mut self, place: Option<usize>) {
        let destination = match place {
            Some(place) => self.places[place].clone(),
            None => Destination::unset(),
        };
        self.scopes.push((place, destination.enter()));
    }

    fn keep(&mut self, span: opentelemetry_sdk::trace::Span, place: Option<usize>) {
        self.spans.push((Context::new().with_span(span), place));
    }

    fn run(mut self, steps: Vec<Step>) -> Vec<(SpanContext, Option<usize>)> {
        if !self.leads {
            // Somebody else's changes of the global cannot be predicted here.
            self.enter(Some(0));
        }
        for step in steps {
            match step {
                Step::Enter(None) if !self.leads => {}
                Step::Enter(place) => self.enter(place),
                Step::Leave if self.leads || self.scopes.len() > 1 => drop(self.scopes.pop()),
                Step::Leave => {}
                Step::Global(place) if self.leads => {
                    match place {
                        Some(place) => self.global.set(self.places[place].clone()),
                        None => self.global.clear(),
                    };
                    self.global_now = place;
                }
                Step::Global(_) => {}
                Step::Root => {
                    let span = self.tracer.start("root");
                    let place = self.resolved();
                    self.keep(span, place);
                }
                Step::Explicit(place) => {
                    let cx = self.places[place].in_context(&Context::current());
                    let span = self.tracer.start_with_context("explicit", &cx);
                    self.keep(span, Some(place));
                }
                Step::Remote(trace) => {
                    // The context knows nothing of the scope; the current one does.
                    let incoming = Context::new().with_remote_span_context(SpanContext::new(
                        TraceId::from(0x1000 + u128::from(trace)),
                        SpanId::from(0x42),
                        TraceFlags::SAMPLED,
                        true,
                        TraceState::NONE,
                    ));
                    let span = self.tracer.start_with_context("segment", &incoming);
                    let place = self.resolved();
                    self.keep(span, place);
                }
                Step::Child(of) if !self.spans.is_empty() => {
                    let (parent, place) = self.spans[of % self.spans.len()].clone();
                    let span = self.tracer.start_with_context("child", &parent);
                    self.keep(span, place);
                }
                Step::Detached(from) if !self.spans.is_empty() => {
                    let (parent, _) = self.spans[from % self.spans.len()].clone();
                    let cx = {
                        let span = parent.span().span_context().clone();
                        let _running = Context::current().with_remote_span_context(span).attach();
                        new_root()
                    };
                    let span = self.tracer.start_with_context("detached", &cx);
                    let place = self.resolved();
                    self.keep(span, place);
                }
                Step::End(which, elsewhere) if !self.spans.is_empty() => {
                    let cx = self.spans[which % self.spans.len()].0.clone();
                    if elsewhere {
                        let ended = std::thread::spawn(move || cx.span().end());
                        ended.join().expect("ending a span does not panic");
                    } else {
                        cx.span().end();
                    }
                }
                Step::Child(_) | Step::Detached(_) | Step::End(..) => {}
                Step::Yield => std::thread::yield_now(),
            }
        }
        while self.scopes.pop().is_some() {}
        for (cx, _) in &self.spans {
            cx.span().end();
        }
        let spans = self.spans.iter();
        spans
            .map(|(cx, place)| (cx.span().span_context().clone(), *place))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_span_reaches_its_own_place(
        schedules in prop::collection::vec(prop::collection::vec(step(), 1..120), 1..5),
    ) {
        static RUN: AtomicU64 = AtomicU64::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let locations: Vec<MemoryLocation> = (0..PLACES)
            .map(|i| MemoryLocation::new(&format!("property-{run}-{i}")))
            .collect();
        let places: Vec<Destination> =
            locations.iter().cloned().map(Destination::new).collect();
        let global = Arc::new(GlobalSlot::new());
        let pipeline = Pipeline::builder().with_global(global.clone()).build().unwrap();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        let together = Arc::new(Barrier::new(schedules.len()));
        let threads: Vec<_> = schedules
            .into_iter()
            .enumerate()
            .map(|(i, steps)| {
                let worker = (provider.tracer("property"), places.clone(), global.clone());
                let together = together.clone();
                std::thread::spawn(move || {
                    let (tracer, places, global) = worker;
                    together.wait();
                    Worker {
                        tracer,
                        places,
                        global,
                        leads: i == 0,
                        global_now: None,
                        scopes: Vec::new(),
                        spans: Vec::new(),
                    }
                    .run(steps)
                })
            })
            .collect();
        let mut expected: HashMap<(TraceId, SpanId), Option<usize>> = HashMap::new();
        for thread in threads {
            for (span, place) in thread.join().expect("no step panics") {
                expected.insert((span.trace_id(), span.span_id()), place);
            }
        }
        let report = pipeline.flush(Duration::from_secs(30)).wait();
        // Some have no destination, on purpose.
        prop_assert!(report.is_complete(), "{report}");
        let lossless = report.locations.iter().all(|l| l.dropped.total() == 0);
        prop_assert!(lossless && report.unplaced.orphaned == 0, "{report}");

        let mut found = 0;
        for (i, location) in locations.iter().enumerate() {
            let store = location.store();
            prop_assert_eq!(store.writes(), store.len() as u64, "a span was written twice");
            for stored in store.spans() {
                let key = (stored.span.trace_id(), stored.span.span_id());
                prop_assert_eq!(
                    expected.get(&key),
                    Some(&Some(i)),
                    "place of `{}`", stored.span.name()
                );
                found += 1;
            }
        }
        let nowhere = expected.values().filter(|place| place.is_none()).count();
        prop_assert_eq!(found, expected.len() - nowhere, "stored spans");
        let stats = pipeline.stats();
        prop_assert_eq!((stats.unrouted, stats.orphaned), (nowhere as u64, 0));
        for location in locations {
            location.store().forget();
        }
    }
}
