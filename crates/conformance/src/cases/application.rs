//! Promises 6 and 7: the application is left alone, and a sink does not trace itself.

use super::*;
use crate::faulty::Act;
use crate::world::{SOON, on_thread, until};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, Tracer as _};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

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
