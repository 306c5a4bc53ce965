//! Promises 1 to 3: which destination applies.

use super::*;
use crate::world::{on_thread, until};
use futures_util::StreamExt as _;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, Span as _, TraceContextExt as _};
use std::pin::pin;
use trace_destination_core::{Destination, DestinationExt as _};

pub(crate) async fn precedence(w: Arc<World>) -> Verdict {
    let (local, global, environment) = (
        w.place("local").await?,
        w.place("global").await?,
        w.place("environment").await?,
    );
    let rig = w.rig_with(|b| b.with_environment(environment.destination.clone()))?;
    environment.end(root(&rig));
    rig.global.set(global.destination.clone());
    global.end(root(&rig));
    {
        let _scope = local.destination.enter();
        local.end(root(&rig));
    }
    global.end(root(&rig));
    rig.global.clear();
    environment.end(root(&rig));
    w.verify(&rig).await
}

pub(crate) async fn no_destination_is_counted_and_stores_nothing(w: Arc<World>) -> Verdict {
    let _unused = w.place("unused").await?;
    let rig = w.rig()?;
    for _ in 0..3 {
        root(&rig).end();
    }
    w.verify(&rig).await?;
    let stats = rig.pipeline.stats();
    ensure_eq!(stats.unrouted, 3, "unrouted spans");
    ensure!(
        stats.locations.is_empty(),
        "locations came from nowhere: {:?}",
        stats.locations
    );
    Ok(())
}

pub(crate) async fn strict_has_nothing_below_context_local(w: Arc<World>) -> Verdict {
    let (local, global, environment) = (
        w.place("local").await?,
        w.place("global").await?,
        w.place("environment").await?,
    );
    let rig = w.rig_with(|b| b.strict().with_environment(environment.destination.clone()))?;
    rig.global.set(global.destination.clone());
    root(&rig).end();
    {
        let _scope = local.destination.enter();
        local.end(root(&rig));
        let _unset = Destination::unset().enter();
        root(&rig).end();
    }
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().unrouted, 2, "unrouted spans");
    Ok(())
}

pub(crate) async fn unset_falls_through(w: Arc<World>) -> Verdict {
    let (local, global, environment) = (
        w.place("local").await?,
        w.place("global").await?,
        w.place("environment").await?,
    );
    let rig = w.rig_with(|b| b.with_environment(environment.destination.clone()))?;
    rig.global.set(global.destination.clone());
    let _outer = local.destination.enter();
    {
        // Scopes replace: the outer scope is no level below this one.
        let _unset = Destination::unset().enter();
        global.end(root(&rig));
        rig.global.set(Destination::unset());
        environment.end(root(&rig));
    }
    local.end(root(&rig));
    w.verify(&rig).await
}

pub(crate) async fn discard_stores_nothing(w: Arc<World>) -> Verdict {
    let (local, global) = (w.place("local").await?, w.place("global").await?);
    let rig = w.rig()?;
    rig.global.set(global.destination.clone());
    let _outer = local.destination.enter();
    {
        let _scope = Destination::discard().enter();
        let parent = Context::current().with_span(root(&rig));
        rig.start("child", &parent).end();
        parent.span().end();
    }
    local.end(root(&rig));
    rig.global.set(Destination::discard());
    {
        let _unset = Destination::unset().enter();
        root(&rig).end();
    }
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().discarded, 3, "discarded spans");
    Ok(())
}

pub(crate) async fn start_context_before_current_context(w: Arc<World>) -> Verdict {
    let (own, current) = (w.place("own").await?, w.place("current").await?);
    let rig = w.rig()?;
    let _scope = current.destination.enter();
    own.end(rig.start("own", &own.context()));
    // What `parent: None` and `set_parent` come to: the start context knows nothing of the scope.
    current.end(rig.start("bare", &Context::new()));
    current.end(rig.start("remote", &remote(0xabc, 0xdef)));
    w.verify(&rig).await
}

pub(crate) async fn guards_nest_and_restore(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    {
        let _a = a.destination.enter();
        {
            let _b = b.destination.enter();
            b.end(root(&rig));
            let _again = a.destination.enter();
            a.end(root(&rig));
        }
        a.end(root(&rig));
        let scope = b.destination.clone();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _b = scope.enter();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        ensure!(unwound.is_err(), "the closure did not panic");
        a.end(root(&rig));
    }
    root(&rig).end();
    // Dropped in the order they were made: the last scope stays until its own guard goes.
    let first = a.destination.enter();
    let second = b.destination.enter();
    drop(first);
    b.end(root(&rig));
    drop(second);
    root(&rig).end();
    w.verify(&rig).await?;
    ensure_eq!(
        rig.pipeline.stats().unrouted,
        2,
        "spans outside every scope"
    );
    Ok(())
}

pub(crate) async fn carried_by_whatever_carries_a_context(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = Arc::new(w.rig()?);
    let carried = a.destination.in_context(&Context::current());
    let (thread_rig, thread_a) = (rig.clone(), a.clone());
    let to_thread = carried.clone();
    on_thread("attach on another thread", move || {
        let _guard = to_thread.attach();
        thread_a.end(root(&thread_rig));
    })
    .await?;
    async {
        a.end(root(&rig));
        tokio::task::yield_now().await;
        a.end(root(&rig));
    }
    .with_context(carried)
    .await;
    let future = {
        let _scope = b.destination.enter();
        async {
            tokio::task::yield_now().await;
            b.end(root(&rig));
        }
        .with_current_context()
    };
    let _other = a.destination.enter();
    future.await;
    w.verify(&rig).await
}

pub(crate) async fn future_keeps_the_trace_whole(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    // Made outside of the span that is current when it runs.
    let child = async {
        let child = root(&rig);
        let trace = child.span_context().trace_id();
        a.end(child);
        tokio::task::yield_now().await;
        let second = root(&rig);
        let same = second.span_context().trace_id() == trace;
        a.end(second);
        (trace, same)
    }
    .with_destination(a.destination.clone());
    let parent = a.context().with_span(rig.start("root", &a.context()));
    let (trace, same) = child.with_context(parent.clone()).await;
    a.expect(parent.span().span_context());
    parent.span().end();
    ensure!(same, "the trace was split at an await");
    ensure_eq!(
        trace,
        parent.span().span_context().trace_id(),
        "trace of the children"
    );
    // Scopes around scopes: the inner one counts, and the outer one is there again afterwards.
    async {
        async { b.end(root(&rig)) }
            .with_destination(b.destination.clone())
            .await;
        a.end(root(&rig));
    }
    .with_destination(a.destination.clone())
    .await;
    w.verify(&rig).await
}

pub(crate) async fn futures_do_not_leak_into_each_other(w: Arc<World>) -> Verdict {
    let rig = Arc::new(w.rig()?);
    let mut places = Vec::new();
    for _ in 0..8 {
        places.push(w.place("task").await?);
    }
    let global = w.place("global").await?;
    rig.global.set(global.destination.clone());
    for workers in [1, 4] {
        let (rig, places) = (rig.clone(), places.clone());
        on_thread("eight scoped tasks", move || -> Verdict {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_time()
                .build()?;
            let tasks: Vec<_> = places
                .into_iter()
                .map(|place| {
                    let rig = rig.clone();
                    let scope = place.destination.clone();
                    let work = async move {
                        for _ in 0..25 {
                            let parent = Context::current().with_span(root(&rig));
                            tokio::task::yield_now().await;
                            place.end(rig.start("child", &parent));
                            place.expect(parent.span().span_context());
                            parent.span().end();
                        }
                    };
                    runtime.spawn(work.with_destination(scope))
                })
                .collect();
            for task in tasks {
                runtime.block_on(task)?;
            }
            Ok(())
        })
        .await??;
    }
    global.end(root(&rig));
    w.verify(&rig).await
}

/// Ends a root span when dropped.
struct EndsOnDrop {
    rig: Arc<Rig>,
    place: Place,
}

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.place.end(root(&self.rig));
    }
}

pub(crate) async fn future_is_dropped_inside_its_scope(w: Arc<World>) -> Verdict {
    let (a, other) = (w.place("a").await?, w.place("other").await?);
    let rig = Arc::new(w.rig()?);
    let ends = EndsOnDrop {
        rig: rig.clone(),
        place: a.clone(),
    };
    let cancelled = async move {
        let _ends = ends;
        std::future::pending::<()>().await;
    }
    .with_destination(a.destination.clone());
    {
        let _scope = other.destination.enter();
        let timeout = tokio::time::timeout(Duration::from_millis(20), cancelled).await;
        ensure!(timeout.is_err(), "a pending future came back");
    }
    w.verify(&rig).await
}

pub(crate) async fn stream_scope(w: Arc<World>) -> Verdict {
    let (a, other) = (w.place("a").await?, w.place("other").await?);
    let rig = w.rig()?;
    let stream = futures_util::stream::iter(0..5)
        .map(|i| {
            a.end(root(&rig));
            i
        })
        .with_destination(a.destination.clone());
    let mut stream = pin!(stream);
    let mut seen = 0;
    while stream.next().await.is_some() {
        let _scope = other.destination.enter();
        other.end(root(&rig));
        seen += 1;
    }
    ensure_eq!(seen, 5, "items of the stream");
    w.verify(&rig).await
}

pub(crate) async fn one_root_with_its_own_destination(w: Arc<World>) -> Verdict {
    let (a, global) = (w.place("a").await?, w.place("global").await?);
    let rig = w.rig()?;
    rig.global.set(global.destination.clone());
    let span = rig.start("explicit", &a.destination.in_context(&Context::current()));
    global.end(root(&rig));
    a.end(span);
    w.verify(&rig).await
}

pub(crate) async fn global_is_replaced_and_cleared(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    ensure_eq!(
        rig.global.set(a.destination.clone()),
        None,
        "what was there at first"
    );
    a.end(root(&rig));
    ensure_eq!(
        rig.global.set(b.destination.clone()),
        Some(a.destination.clone()),
        "what was replaced"
    );
    b.end(root(&rig));
    ensure_eq!(
        rig.global.get(),
        Some(b.destination.clone()),
        "what is there"
    );
    ensure_eq!(
        rig.global.clear(),
        Some(b.destination.clone()),
        "what was cleared"
    );
    root(&rig).end();
    ensure_eq!(rig.global.clear(), None, "what was cleared the second time");
    w.verify(&rig).await?;
    ensure_eq!(
        rig.pipeline.stats().unrouted,
        1,
        "spans after the global was cleared"
    );
    Ok(())
}

pub(crate) async fn global_changes_while_a_place_is_stuck(w: Arc<World>) -> Verdict {
    let (stuck, free) = (w.place("stuck").await?, w.place("free").await?);
    let rig = Arc::new(w.rig()?);
    stuck.control.set(crate::Act::Block);
    rig.global.set(stuck.destination.clone());
    stuck.end(root(&rig));
    until("the sink is stuck", || stuck.control.waiting() > 0).await?;
    let (r, s, f) = (rig.clone(), stuck.clone(), free.clone());
    on_thread("a thousand changes of the global", move || {
        for _ in 0..500 {
            r.global.set(f.destination.clone());
            r.global.clear();
            r.global.set(s.destination.clone());
        }
        r.global.set(f.destination.clone());
        f.end(root(&r));
    })
    .await?;
    ensure_eq!(stuck.control.waiting(), 1, "writes under way");
    stuck.control.open_gate();
    w.verify(&rig).await
}
