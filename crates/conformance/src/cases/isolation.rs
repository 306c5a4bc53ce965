//! Promise 5: no span ever reaches a place other than its binding's.

use super::*;
use crate::world::{exclusive, on_thread};
use opentelemetry::trace::{Span as _, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use trace_destination_core::{
    Destination, DestinationExt as _, DropReason, ErrorKind, update_current_trace,
};

/// The place a span belongs to, carried by the span itself.
const BELONGS: &str = "conformance.belongs";

pub(crate) async fn tenants_side_by_side(w: Arc<World>) -> Verdict {
    let rig = Arc::new(w.rig()?);
    let mut places = Vec::new();
    for _ in 0..8 {
        places.push(w.place("tenant").await?);
    }
    let (r, all) = (rig.clone(), places.clone());
    on_thread("four threads", move || {
        std::thread::scope(|scope| {
            for t in 0..4 {
                let (r, all) = (&r, &all);
                scope.spawn(move || {
                    for i in 0..250 {
                        let (a, b) = (&all[(t + i) % 8], &all[(3 * t + i / 2) % 8]);
                        let _scope = a.destination.enter();
                        let of_a = r.start("a", &Context::current());
                        let _inner = b.destination.enter();
                        b.end(r.start("b", &Context::current()));
                        a.end(of_a);
                    }
                });
            }
        });
    })
    .await?;
    w.verify(&rig).await
}

pub(crate) async fn one_foreign_trace_under_many_tenants(w: Arc<World>) -> Verdict {
    let rig = Arc::new(w.rig()?);
    let mut places = Vec::new();
    for _ in 0..w.harness().scale().stores.min(8) {
        places.push(w.place("tenant").await?);
    }
    let (r, all) = (rig.clone(), places.clone());
    on_thread("all tenants at once", move || {
        std::thread::scope(|scope| {
            for place in &all {
                let r = &r;
                scope.spawn(move || {
                    let incoming = place.destination.in_context(&remote(0xf0e1d2, 0x1));
                    for _ in 0..20 {
                        let cx = Context::new().with_span(r.start("segment", &incoming));
                        for _ in 0..5 {
                            place.end(r.start("child", &cx));
                        }
                        place.expect(cx.span().span_context());
                        cx.span().end();
                    }
                });
            }
        });
    })
    .await?;
    w.verify(&rig).await
}

pub(crate) async fn a_trace_id_made_here_keeps_its_place(w: Arc<World>) -> Verdict {
    let owner = w.place("owner").await?;
    let elsewhere = w.place("elsewhere").await?;
    let rig = w.rig()?;
    let root = rig.start("owner's root", &owner.context());
    let id = u128::from_be_bytes(root.span_context().trace_id().to_bytes());
    let own_cx = Context::new().with_span(root);
    let mut others = Vec::new();
    for i in 0..6 {
        if i == 4 {
            // From here on the trace has ended, and lingers.
            owner.expect(own_cx.span().span_context());
            own_cx.span().end();
        }
        let other = w.sibling(&owner).await?;
        let fans_out = i % 2 == 1;
        let destination = match fans_out {
            true => Destination::all([other.destination.clone(), elsewhere.destination.clone()])?,
            false => other.destination.clone(),
        };
        let incoming = destination.in_context(&remote(id, 0x5eed + i));
        let cx = Context::new().with_span(rig.start("repeats an id", &incoming));
        let _running = cx.clone().attach();
        update_current_trace(|trace| trace.user_id = Some("mallory".into()));
        for _ in 0..3 {
            let mut child = rig.start("child", &cx);
            match fans_out {
                true => elsewhere.end(child),
                false => child.end(),
            }
        }
        if fans_out {
            elsewhere.expect(cx.span().span_context());
        }
        cx.span().end();
        others.push(other);
        // Whoever comes first to the store does not win by that.
        rig.flush().await?;
        owner.end(rig.start("owner's child", &own_cx));
    }
    let report = rig.flush().await?;
    w.verify(&rig).await?;
    for other in &others {
        let l = report
            .location(other.uri())
            .ok_or_else(|| Failure::new("a refused place is not in the report"))?;
        ensure_eq!(
            (l.stored, l.dropped.by(DropReason::Refused), l.lost_updates),
            (0, 4, 1),
            "stored, refused and lost updates at {}",
            l.uri
        );
        let error = l
            .error
            .as_ref()
            .ok_or_else(|| Failure::new("a refused place is not told why"))?;
        ensure_eq!(error.kind(), ErrorKind::Conflict, "kind of {error}");
        super::input::complete(error, other.uri())?;
        for somebody in others.iter().chain([&owner]) {
            names_nobody_else(&error.to_string(), other, somebody)?;
        }
    }
    let l = report
        .location(owner.uri())
        .ok_or_else(|| Failure::new("the owner is not in the report"))?;
    ensure_eq!(
        (l.stored, l.dropped.total(), l.lost_updates),
        (7, 0, 0),
        "stored, dropped and lost updates at the owner"
    );
    ensure!(l.error.is_none(), "the owner is told {:?}", l.error);
    Ok(())
}

/// How much the stress does.
#[derive(Clone, Copy)]
struct Load {
    destinations: usize,
    stores: usize,
    tasks: usize,
    threads: usize,
    spans: usize,
}

pub(crate) async fn stress(w: Arc<World>) -> Verdict {
    let scale = w.harness().scale();
    let load = Load {
        destinations: (1_000 / scale.part).max(2 * scale.stores),
        stores: scale.stores,
        tasks: 16,
        threads: 4,
        spans: 200_000 / scale.part,
    };
    // Room for everything that piles up while a slow place is written: nothing may be dropped.
    let rig = Arc::new(w.rig_with(|b| b.with_budget(2 << 30, 1 << 30))?);
    let places = Arc::new(w.places(load.destinations, load.stores).await?);
    let (thread_rig, thread_places) = (rig.clone(), places.clone());
    let started = std::time::Instant::now();
    let done = tokio::task::spawn_blocking(move || storm(&thread_rig, &thread_places, load));
    let ended = done.await??;
    let produced = started.elapsed();
    let report = rig.pipeline.flush(Duration::from_secs(400)).await;
    ensure!(
        report.is_complete(),
        "the flush was not complete:\n{report}"
    );
    let stored: u64 = report.locations.iter().map(|l| l.stored).sum();
    let dropped: u64 = report.locations.iter().map(|l| l.dropped.total()).sum();
    ensure_eq!(dropped, 0, "spans dropped within the budget");
    ensure_eq!(stored, ended as u64, "spans stored");
    ensure!(ended >= load.spans, "only {ended} spans were ended");
    let stats = rig.pipeline.stats();
    ensure_eq!(
        (stats.unrouted, stats.orphaned, stats.discarded),
        (0, 0, 0),
        "unrouted, orphaned, discarded"
    );
    w.verify_stored().await?;
    // The books say so already; the spans say it themselves too.
    for (_, place) in places.iter() {
        let uri = place.uri().as_str();
        for s in w.stored(place).await?.spans {
            let says = s.span.attributes.iter().find(|a| a.key.as_str() == BELONGS);
            let says = says.and_then(|a| a.value.as_ref().as_str().map(str::to_owned));
            ensure_eq!(
                says.as_deref(),
                Some(uri),
                "where a span at {uri} says it belongs"
            );
        }
    }
    w.note(format!(
        "{ended} spans to {} destinations in {:.1} s, stored after {:.1} s",
        load.destinations,
        produced.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// A span on its way to the thread that ends it.
type Handed = (opentelemetry_sdk::trace::Span, Place);

/// Runs the tasks; returns how many spans were ended.
fn storm(rig: &Arc<Rig>, places: &Arc<Vec<(usize, Place)>>, load: Load) -> Result<usize, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(load.threads)
        .enable_time()
        .build()?;
    let ended = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    // Threads that end what others started.
    let (enders, ending): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (send, receive) = mpsc::channel::<Handed>();
            let ended = ended.clone();
            let thread = std::thread::spawn(move || {
                for (span, place) in receive {
                    place.end(span);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
            (send, thread)
        })
        .unzip();
    // A thread that changes the global all the time.
    let changer = {
        let (rig, places, stop) = (rig.clone(), places.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut rng = SmallRng::seed_from_u64(99);
            while !stop.load(Ordering::Relaxed) {
                let (_, place) = &places[rng.random_range(0..places.len())];
                rig.global.set(place.destination.clone());
                if rng.random_bool(0.1) {
                    rig.global.clear();
                }
                std::thread::yield_now();
            }
        })
    };
    let tasks: Vec<_> = (0..load.tasks)
        .map(|t| {
            let task = Task {
                rig: rig.clone(),
                places: places.clone(),
                ended: ended.clone(),
                ender: enders[t % enders.len()].clone(),
                rng: SmallRng::seed_from_u64(t as u64),
                share: load.spans.div_ceil(load.tasks),
            };
            runtime.spawn(task.run())
        })
        .collect();
    drop(enders);
    let mut result = Ok(());
    for task in tasks {
        result = result.and(
            runtime
                .block_on(task)
                .map_err(Failure::from)
                .and_then(|r| r),
        );
    }
    stop.store(true, Ordering::Relaxed);
    for thread in ending.into_iter().chain([changer]) {
        if thread.join().is_err() {
            result = Err(Failure::new("a thread of the storm panicked"));
        }
    }
    result.map(|()| ended.load(Ordering::Relaxed))
}

struct Task {
    rig: Arc<Rig>,
    places: Arc<Vec<(usize, Place)>>,
    ended: Arc<AtomicUsize>,
    ender: mpsc::Sender<Handed>,
    rng: SmallRng,
    share: usize,
}

impl Task {
    async fn run(mut self) -> Verdict {
        let mut detached = Vec::new();
        let mut made = 0;
        while made < self.share {
            let (store, place) = self.pick();
            made += match self.rng.random_range(0..10) {
                0..=4 => self.scoped(&place).await,
                5 => self.guarded(&place),
                6..=7 => self.foreign(store, &place).await,
                8 => self.nested(&place).await,
                _ => {
                    detached.push(self.detached(&place));
                    4
                }
            };
        }
        for late in detached {
            late.await?;
        }
        Ok(())
    }

    fn pick(&mut self) -> (usize, Place) {
        let i = self.rng.random_range(0..self.places.len());
        self.places[i].clone()
    }

    fn start(&self, place: &Place, cx: &Context) -> opentelemetry_sdk::trace::Span {
        let mut span = self.rig.start("storm", cx);
        span.set_attribute(KeyValue::new(BELONGS, place.uri().to_string()));
        span
    }

    /// Ends a span here, or on another thread.
    fn end(&mut self, place: &Place, span: opentelemetry_sdk::trace::Span) {
        if self.rng.random_bool(0.3) {
            let handed = self.ender.send((span, place.clone()));
            assert!(handed.is_ok(), "the ending thread is gone");
        } else {
            place.end(span);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end_in(&self, place: &Place, cx: &Context) {
        place.expect(cx.span().span_context());
        cx.span().end();
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A trace of a few spans inside a scoped future that is polled on any thread.
    async fn scoped(&mut self, place: &Place) -> usize {
        let children = self.rng.random_range(1..8);
        let destination = place.destination.clone();
        async {
            let root = self.start(place, &Context::current());
            let cx = Context::current().with_span(root);
            for _ in 0..children {
                let child = self.start(place, &cx);
                if self.rng.random_bool(0.3) {
                    tokio::task::yield_now().await;
                }
                self.end(place, child);
            }
            self.end_in(place, &cx);
        }
        .with_destination(destination)
        .await;
        children + 1
    }

    /// A trace under a guard, with another scope entered inside it that must not matter.
    fn guarded(&mut self, place: &Place) -> usize {
        let (_, other) = self.pick();
        let _scope = place.destination.enter();
        let cx = Context::current().with_span(self.start(place, &Context::current()));
        let _running = cx.clone().attach();
        let child = {
            let _other = other.destination.enter();
            self.start(place, &Context::current())
        };
        self.end(place, child);
        self.end_in(place, &cx);
        2
    }

    /// One trace id from outside under two tenants at once.
    async fn foreign(&mut self, store: usize, place: &Place) -> usize {
        let trace = self.rng.random::<u128>() | 1;
        let other = loop {
            let (other_store, other) = self.pick();
            // In an exclusive store the second segment would be refused: another case.
            if other.uri() != place.uri() && !(exclusive(place) && other_store == store) {
                break other;
            }
        };
        let incoming = remote(trace, 0x42);
        let open = |place: &Place, task: &Self| {
            let cx = place.destination.in_context(&incoming);
            Context::new().with_span(task.start(place, &cx))
        };
        let (mine, theirs) = (open(place, self), open(&other, self));
        for _ in 0..2 {
            let child = self.start(place, &mine);
            self.end(place, child);
            tokio::task::yield_now().await;
            let child = self.start(&other, &theirs);
            self.end(&other, child);
        }
        self.end_in(place, &mine);
        let late = self.start(&other, &theirs);
        self.end(&other, late);
        self.end_in(&other, &theirs);
        7
    }

    /// Scopes inside scopes, each with a trace of its own.
    async fn nested(&mut self, place: &Place) -> usize {
        let (_, inner) = self.pick();
        let outer = place.destination.clone();
        async {
            let first = self.start(place, &Context::current());
            let inside = inner.destination.clone();
            async {
                let span = self.start(&inner, &Context::current());
                tokio::task::yield_now().await;
                self.end(&inner, span);
            }
            .with_destination(inside)
            .await;
            let second = self.start(place, &Context::current());
            self.end(place, first);
            self.end(place, second);
        }
        .with_destination(outer)
        .await;
        3
    }

    /// A root that ends at once, and children that a detached task starts later, elsewhere.
    fn detached(&mut self, place: &Place) -> tokio::task::JoinHandle<()> {
        let root = self.start(place, &place.context());
        let cx = Context::new().with_span(root);
        let late = Self {
            rig: self.rig.clone(),
            places: self.places.clone(),
            ended: self.ended.clone(),
            ender: self.ender.clone(),
            rng: SmallRng::seed_from_u64(self.rng.random()),
            share: 0,
        };
        self.end_in(place, &cx);
        let place = place.clone();
        let (_, elsewhere) = self.pick();
        tokio::spawn(
            async move {
                let mut late = late;
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    let child = late.start(&place, &cx);
                    late.end(&place, child);
                }
            }
            .with_destination(elsewhere.destination),
        )
    }
}
