//! Promises 6 to 9: spans reach their places, whatever the places do.

use super::*;
use crate::faulty::{Act, Faulty, REFUSE, passing, permanent, throttled};
use crate::harness::RealFault;
use crate::world::{SOON, lazy, on_thread, retry, until};
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use trace_destination_core::{BatchLimits, Destination, DropReason, ErrorKind, RetryPolicy};

pub(crate) async fn what_a_sink_does_is_not_traced(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    rig.global.set(a.destination.clone());
    let (tracer, scope) = (rig.tracer.clone(), a.destination.clone());
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    a.control.set_hook(move |_| {
        // A loop of its own making would never end; a few turns are enough to see it.
        if count.fetch_add(1, Ordering::Relaxed) > 20 {
            return;
        }
        let work = {
            let (tracer, scope) = (tracer.clone(), scope.clone());
            move || {
                tracer
                    .start_with_context("by a sink", &Context::current())
                    .end();
                tracer
                    .start_with_context("by a sink, bare", &Context::new())
                    .end();
                tracer
                    .start_with_context("by a sink, scoped", &scope.in_context(&Context::new()))
                    .end();
                let _scope = scope.enter();
                tracer.start("by a sink, in a scope").end();
            }
        };
        work();
        // What it hands to the blocking pool is its own doing too.
        let (done, wait) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || {
            work();
            // The sink waits for this; it listens.
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(SOON);
    });
    for _ in 0..3 {
        rig.spans_at(&a, 2);
        rig.flush().await?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    w.verify(&rig).await?;
    ensure!(ran.load(Ordering::Relaxed) > 0, "the hook never ran");
    let stats = rig.pipeline.stats();
    ensure_eq!(
        stats.location(a.uri()).map(|l| l.accepted),
        Some(a.expected() as u64),
        "accepted spans"
    );
    ensure_eq!(
        (stats.unrouted, stats.orphaned),
        (0, 0),
        "unrouted and orphaned spans"
    );
    Ok(())
}

pub(crate) async fn suppressed_contexts_are_ignored(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    rig.global.set(a.destination.clone());
    {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        rig.start("current is suppressed", &Context::new()).end();
        rig.start("current is suppressed, scoped", &a.context())
            .end();
    }
    rig.start(
        "own is suppressed",
        &a.context().with_telemetry_suppressed(),
    )
    .end();
    // Started suppressed, ended when nothing is: still ignored.
    let started = {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        rig.start("ends later", &a.context())
    };
    drop(started);
    a.end(rig.start("not suppressed", &Context::new()));
    w.verify(&rig).await?;
    ensure_eq!(rig.stats(&a).map(|s| s.accepted), Some(1), "accepted spans");
    Ok(())
}

pub(crate) async fn application_threads_never_wait(w: Arc<World>) -> Verdict {
    for act in [Act::Wait, Act::Block] {
        let stuck = w.place("stuck").await?;
        let rig = Arc::new(w.rig()?);
        stuck.control.set(act.clone());
        stuck.end(rig.start("first", &stuck.context()));
        until("the sink is stuck", || stuck.control.waiting() > 0).await?;
        let (r, s) = (rig.clone(), stuck.clone());
        on_thread(&format!("2,000 spans under {act:?}"), move || {
            r.spans_at(&s, 2_000)
        })
        .await?;
        ensure_eq!(stuck.control.waiting(), 1, "writes that are stuck");
        stuck.control.open_gate();
        rig.flush().await?;
    }
    let panicking = w.place("panics").await?;
    let rig = Arc::new(w.rig()?);
    panicking.control.script([Act::Panic, Act::Panic]);
    let (r, p) = (rig.clone(), panicking.clone());
    on_thread("200 spans to a panicking sink", move || r.spans_at(&p, 200)).await?;
    w.verify(&rig).await
}

thread_local! {
    static UNFINISHED: RefCell<Option<opentelemetry_sdk::trace::Span>> = const { RefCell::new(None) };
}

pub(crate) async fn span_ends_in_thread_teardown(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig()?);
    let (r, place) = (rig.clone(), a.clone());
    let thread = std::thread::spawn(move || {
        // Before OpenTelemetry's own thread-local exists, so that it is destroyed after it.
        UNFINISHED.with(|slot| drop(slot.borrow_mut().take()));
        let _scope = place.destination.enter();
        let span = r.start("ends with its thread", &Context::current());
        place.expect(span.span_context());
        UNFINISHED.with(|slot| *slot.borrow_mut() = Some(span));
    });
    on_thread("a thread that ends", move || thread.join().is_ok())
        .await
        .and_then(|joined| {
            ensure!(joined, "the thread panicked");
            Ok(())
        })?;
    w.verify(&rig).await
}

pub(crate) async fn visible_while_the_trace_runs(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let cx = Context::new().with_span(rig.start("agent", &a.context()));
    a.end(rig.start("step 1", &cx));
    until("the first step is stored", || rig.stored(&a) == 1).await?;
    w.verify_stored().await?;
    a.end(rig.start("step 2", &cx));
    until("the second step is stored", || rig.stored(&a) == 2).await?;
    w.verify_stored().await?;
    a.expect(cx.span().span_context());
    cx.span().end();
    a.end(rig.start("afterthought", &cx));
    w.verify(&rig).await
}

pub(crate) async fn one_stuck_place_delays_no_other(w: Arc<World>) -> Verdict {
    for (what, act) in [
        ("dead", Act::Fail(passing())),
        ("slow", Act::Wait),
        ("throttled", Act::Fail(throttled(Duration::from_secs(1)))),
        ("blocking", Act::Block),
    ] {
        let (bad, good) = (w.place(what).await?, w.place("good").await?);
        let rig = w.rig()?;
        bad.control.set(act);
        rig.spans_at(&bad, 20);
        until("the bad place was tried", || {
            bad.control.waiting() > 0 || !bad.control.calls().is_empty()
        })
        .await?;
        for _ in 0..5 {
            rig.spans_at(&good, 20);
            let stored = good.expected() as u64;
            until(
                &format!("the good place is stored beside a {what} one"),
                || rig.stored(&good) == stored,
            )
            .await?;
        }
        ensure_eq!(rig.stored(&bad), 0, "spans stored at the {what} place");
        bad.control.set(Act::Pass);
        bad.control.open_gate();
        rig.flush().await?;
        ensure_eq!(
            rig.stored(&bad),
            20,
            "spans stored at the {what} place in the end"
        );
    }
    w.verify_stored().await
}

pub(crate) async fn many_blocking_places_delay_no_other(w: Arc<World>) -> Verdict {
    let rig = w.rig()?;
    let good = w.place("good").await?;
    let mut bad = Vec::new();
    for _ in 0..32 {
        let place = w.place("blocking").await?;
        place.control.set(Act::Block);
        rig.spans_at(&place, 1);
        bad.push(place);
    }
    until("all of them block", || {
        bad.iter().all(|p| p.control.waiting() == 1)
    })
    .await?;
    rig.spans_at(&good, 100);
    until("the good place is stored", || rig.stored(&good) == 100).await?;
    for place in &bad {
        place.control.open_gate();
    }
    w.verify(&rig).await
}

pub(crate) async fn fan_out_legs_have_their_own_fate(w: Arc<World>) -> Verdict {
    let (good, dead, stuck) = (
        w.place("good").await?,
        w.place("dead").await?,
        w.place("stuck").await?,
    );
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: Duration::from_millis(100),
            ..retry()
        })
    })?;
    dead.control.set(Act::Fail(passing()));
    stuck.control.set(Act::Wait);
    let all = Destination::all([&good, &dead, &stuck].map(|p| p.destination.clone()))?;
    let cx = Context::new().with_span(rig.start("root", &all.in_context(&Context::new())));
    let child = rig.start("child", &cx);
    for place in [&good, &stuck] {
        place.expect(child.span_context());
        place.expect(cx.span().span_context());
    }
    drop(child);
    cx.span().end();
    until("the good leg is stored", || rig.stored(&good) == 2).await?;
    until("the dead leg is given up", || {
        rig.dropped(&dead, DropReason::RetryDeadline) == 2
    })
    .await?;
    ensure_eq!(rig.stored(&stuck), 0, "spans stored at the stuck leg");
    stuck.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn equal_uris_share_a_lane(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let twin = Faulty::new(a.inner.clone());
    let twin_control = twin.control().clone();
    let twin = Destination::new(twin);
    ensure_eq!(twin, a.destination, "two destinations with one URI");
    rig.spans_at(&a, 5);
    a.end(rig.start("to the twin", &twin.in_context(&Context::new())));
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().locations.len(), 1, "lanes");
    ensure_eq!(a.control.opens() + twin_control.opens(), 1, "opened sinks");
    Ok(())
}

pub(crate) async fn sets_flatten_and_merge(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let (to_a, to_b) = (a.destination.clone(), b.destination.clone());
    let ab = Destination::all([to_a.clone(), to_b.clone()])?;
    let nested = Destination::all([to_b.clone(), ab.clone(), to_a.clone(), to_b.clone()])?;
    ensure_eq!(nested, ab, "a nested list with duplicates");
    ensure_eq!(nested.locations().len(), 2, "its legs");
    ensure_eq!(
        Destination::all([to_a.clone(), to_a.clone()])?,
        to_a,
        "one place twice"
    );
    let span = rig.start("to both", &nested.in_context(&Context::new()));
    a.expect(span.span_context());
    b.end(span);
    for nowhere in [Destination::discard(), Destination::unset()] {
        let mixed = Destination::all([to_a.clone(), nowhere]);
        ensure!(
            mixed.is_err(),
            "a set with a word that is no place was accepted"
        );
    }
    ensure!(Destination::all([]).is_err(), "an empty set was accepted");
    w.verify(&rig).await
}

pub(crate) async fn beside_other_processors(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
        .with_span_processor(rig.pipeline.processor())
        .build();
    let tracer = provider.tracer("beside");
    for _ in 0..5 {
        a.end(tracer.start_with_context("span", &a.context()));
    }
    ensure_eq!(
        exporter.get_finished_spans()?.len(),
        5,
        "spans at the other processor"
    );
    w.verify(&rig).await
}

pub(crate) async fn providers_share_a_pipeline(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let other = SdkTracerProvider::builder()
        .with_span_processor(rig.pipeline.processor())
        .build();
    let tracer = other.tracer("other");
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    // A trace that crosses from one provider to the other stays one.
    a.end(tracer.start_with_context("child by the other", &cx));
    b.end(tracer.start_with_context("root by the other", &b.context()));
    drop(tracer);
    drop(other);
    a.end(rig.start("child", &cx));
    a.expect(cx.span().span_context());
    cx.span().end();
    w.verify(&rig).await
}

pub(crate) async fn passing_failures_are_retried(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    a.control.script(vec![Act::Fail(passing()); 3]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await?;
    let calls = a.control.calls();
    ensure!(calls.len() >= 4, "only {} attempts", calls.len());
    for call in &calls[1..4] {
        ensure_eq!(call.id, calls[0].id, "id of a later attempt");
        ensure_eq!(call.spans, calls[0].spans, "size of a later attempt");
    }
    ensure_eq!(rig.stats(&a).map(|s| s.retries), Some(3), "retries");
    Ok(())
}

pub(crate) async fn panicking_sink_is_survived(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    a.control
        .script([Act::Panic, Act::Fail(passing()), Act::Panic]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await
}

pub(crate) async fn server_delays_are_honoured(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let delay = Duration::from_millis(700);
    a.control.script([Act::Fail(throttled(delay))]);
    rig.spans_at(&a, 3);
    until("the place was tried", || !a.control.calls().is_empty()).await?;
    w.verify(&rig).await?;
    let calls = a.control.calls();
    let waited = calls[1].began.duration_since(calls[0].ended);
    ensure!(waited >= delay, "the second attempt came after {waited:?}");
    Ok(())
}

pub(crate) async fn flush_skips_the_own_backoff(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let long = Duration::from_secs(300);
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: 4 * long,
            initial: long,
            max: long,
            ..retry()
        })
    })?;
    a.control.script([Act::Fail(passing())]);
    rig.spans_at(&a, 3);
    until("the lane waits", || {
        rig.stats(&a).is_some_and(|s| s.retries == 1)
    })
    .await?;
    // Without the skip this would run into its deadline.
    w.verify(&rig).await
}

pub(crate) async fn retry_deadline(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: Duration::from_millis(150),
            ..retry()
        })
    })?;
    a.control.set(Act::Fail(passing()));
    let began = Instant::now();
    rig.start("given up", &a.context()).end();
    until("it is given up", || {
        rig.dropped(&a, DropReason::RetryDeadline) == 1
    })
    .await?;
    ensure!(
        began.elapsed() >= Duration::from_millis(100),
        "it was given up too early"
    );
    ensure!(a.control.calls().len() >= 2, "it was tried only once");
    let error = rig.stats(&a).and_then(|s| s.last_error);
    ensure_eq!(
        error.map(|e| e.kind()),
        Some(ErrorKind::Unavailable),
        "the last error"
    );
    // It recovers: what comes now is stored.
    a.control.set(Act::Pass);
    rig.spans_at(&a, 3);
    w.verify(&rig).await
}

pub(crate) async fn permanent_failures_are_not_retried(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    a.control.set(Act::Fail(permanent()));
    for _ in 0..4 {
        rig.start("lost", &a.context()).end();
    }
    rig.flush().await?;
    ensure_eq!(a.control.calls().len(), 1, "attempts");
    ensure_eq!(
        rig.dropped(&a, DropReason::Failed),
        4,
        "spans dropped as failed"
    );
    w.verify(&rig).await
}

pub(crate) async fn one_bad_span_is_refused_alone(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    a.control.set(Act::RefuseMarked);
    for i in 0..30 {
        let mut span = rig.start("span", &a.context());
        if i % 10 == 3 {
            span.set_attribute(KeyValue::new(REFUSE, true));
            span.end();
        } else {
            a.end(span);
        }
    }
    w.verify(&rig).await?;
    ensure_eq!(a.control.calls().len(), 1, "calls");
    ensure_eq!(rig.dropped(&a, DropReason::Refused), 3, "refused spans");
    let error = rig.stats(&a).and_then(|s| s.last_error);
    ensure_eq!(
        error.map(|e| e.kind()),
        Some(ErrorKind::InvalidSpan),
        "the last error"
    );
    Ok(())
}

pub(crate) async fn repetition_keeps_the_guarantee(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    for _ in 0..3 {
        a.control
            .script([Act::StoreThenFail(passing()), Act::StoreThenFail(passing())]);
        let cx = Context::new().with_span(rig.start("root", &a.context()));
        rig.spans_at(&a, 5);
        a.end(rig.start("child", &cx));
        a.expect(cx.span().span_context());
        cx.span().end();
        rig.flush().await?;
    }
    ensure!(a.control.unknown_outcomes() >= 3, "no outcome was unknown");
    // The books allow doubles only where the backend declares at_least_once.
    w.verify(&rig).await
}

pub(crate) async fn repetition_after_reopening(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    // A sink that panics or fails for good is opened anew, and the batch may come again.
    a.control.script([
        Act::StoreThenFail(passing()),
        Act::Panic,
        Act::StoreThenFail(passing()),
    ]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await?;
    ensure!(a.control.opens() >= 2, "the sink was not opened again");
    Ok(())
}

pub(crate) async fn batches_come_one_at_a_time_in_sequence(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig_with(|b| {
        b.with_batch_limits(BatchLimits {
            spans: 7,
            ..crate::world::quick()
        })
    })?);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    a.control.set_hook(move |batch| {
        if let Ok(mut log) = log.lock() {
            log.push(batch.id());
        }
        std::thread::yield_now();
    });
    let (r, p) = (rig.clone(), a.clone());
    on_thread("four threads", move || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| r.spans_at(&p, 100));
            }
        });
    })
    .await?;
    w.verify(&rig).await?;
    ensure_eq!(a.control.most_writing(), 1, "writes under way at once");
    let seen = seen.lock().map_or_else(|_| Vec::new(), |seen| seen.clone());
    ensure!(seen.len() >= 400 / 7, "only {} batches", seen.len());
    for pair in seen.windows(2) {
        ensure_eq!(pair[0].writer, pair[1].writer, "the writer");
        ensure!(
            pair[0].sequence < pair[1].sequence,
            "sequence {} after {}",
            pair[1].sequence,
            pair[0].sequence
        );
    }
    Ok(())
}

pub(crate) async fn real_place_recovers(w: Arc<World>) -> Verdict {
    let (a, other) = (w.place("a").await?, w.place("other").await?);
    let rig = w.rig()?;
    rig.spans_at(&a, 5);
    rig.flush().await?;
    w.harness()
        .inflict(&*a.inner, RealFault::Unavailable)
        .await?;
    rig.spans_at(&a, 5);
    until("a write failed", || {
        rig.stats(&a).is_some_and(|s| s.retries > 0)
    })
    .await?;
    rig.spans_at(&other, 5);
    until("another place is stored meanwhile", || {
        rig.stored(&other) == 5
    })
    .await?;
    w.harness().inflict(&*a.inner, RealFault::Heal).await?;
    w.verify(&rig).await
}
