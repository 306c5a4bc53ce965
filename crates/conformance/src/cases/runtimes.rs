//! Promise 2, on every kind of thread and runtime, and through `tracing`.

use super::*;
use crate::world::{SOON, on_thread};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use trace_destination_core::DestinationExt as _;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// Two tenants and a global, by turns, ending with a flush on the spot.
async fn turns(rig: &Rig, a: &Place, b: &Place, global: &Place) -> Verdict {
    rig.global.set(global.destination.clone());
    for _ in 0..10 {
        async {
            a.end(root(rig));
            async { b.end(root(rig)) }
                .with_destination(b.destination.clone())
                .await;
            tokio::task::yield_now().await;
            a.end(root(rig));
        }
        .with_destination(a.destination.clone())
        .await;
        global.end(root(rig));
    }
    ensure!(
        rig.pipeline.flush(SOON).await.is_complete(),
        "the flush on the spot was not complete"
    );
    Ok(())
}

pub(crate) async fn plain_threads(w: Arc<World>) -> Verdict {
    let (a, b, global) = (
        w.place("a").await?,
        w.place("b").await?,
        w.place("global").await?,
    );
    let rig = Arc::new(w.rig()?);
    rig.global.set(global.destination.clone());
    let (r, pa, pb, pg) = (rig.clone(), a.clone(), b.clone(), global.clone());
    on_thread("threads", move || -> Verdict {
        std::thread::scope(|scope| {
            for place in [&pa, &pb] {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _scope = place.destination.enter();
                        let parent = Context::current().with_span(root(&r));
                        let carried = parent.clone();
                        scope.spawn(|| place.end(r.start("child", &{ carried })));
                        place.expect(parent.span().span_context());
                        parent.span().end();
                    }
                    pg.end(root(&r));
                });
            }
        });
        ensure!(
            r.pipeline.flush(SOON).wait().is_complete(),
            "the flush was not complete"
        );
        Ok(())
    })
    .await??;
    w.verify(&rig).await
}

pub(crate) async fn current_thread_runtime(w: Arc<World>) -> Verdict {
    let (a, b, global) = (
        w.place("a").await?,
        w.place("b").await?,
        w.place("global").await?,
    );
    let rig = w.rig()?;
    // The case itself runs on a current-thread runtime.
    turns(&rig, &a, &b, &global).await?;
    w.verify(&rig).await
}

pub(crate) async fn multi_thread_runtime(w: Arc<World>) -> Verdict {
    let (a, b, global) = (
        w.place("a").await?,
        w.place("b").await?,
        w.place("global").await?,
    );
    let rig = Arc::new(w.rig()?);
    let r = rig.clone();
    on_thread("a multi-thread runtime", move || -> Verdict {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()?;
        runtime.block_on(async move {
            tokio::spawn(async move { turns(&r, &a, &b, &global).await }).await?
        })
    })
    .await??;
    w.verify(&rig).await
}

pub(crate) async fn through_tracing(w: Arc<World>) -> Verdict {
    let (a, b, global) = (
        w.place("a").await?,
        w.place("b").await?,
        w.place("global").await?,
    );
    let rig = w.rig()?;
    rig.global.set(global.destination.clone());
    let layer = tracing_opentelemetry::layer().with_tracer(rig.tracer.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    let default = tracing::subscriber::set_default(subscriber);
    let expect = |place: &Place, span: &tracing::Span| {
        let cx = span.context();
        place.expect(cx.span().span_context());
    };

    // A guard, with a child.
    {
        let _scope = a.destination.enter();
        let span = tracing::info_span!("guarded");
        let _entered = span.enter();
        expect(&a, &span);
        let child = tracing::info_span!("child");
        expect(&a, &child);
    }
    // A scoped future with instrumented work in it, and the other way round.
    async {
        let span = tracing::info_span!("inside");
        async { tokio::task::yield_now().await }
            .instrument(span.clone())
            .await;
        expect(&b, &span);
    }
    .with_destination(b.destination.clone())
    .await;
    let outer = tracing::info_span!("outer");
    async {
        expect(&a, &tracing::Span::current());
        let child = tracing::info_span!("child");
        expect(&a, &child);
    }
    .instrument(outer)
    .with_context(a.destination.in_context(&Context::current()))
    .await;
    // Roots whose start context is empty or remote: only the current context has the scope.
    async {
        let bare = tracing::info_span!(parent: None, "bare");
        expect(&b, &bare);
        let remote_root = tracing::info_span!(parent: None, "remote");
        ensure!(
            remote_root.set_parent(remote(0x77, 0x88)).is_ok(),
            "the remote parent was not accepted"
        );
        expect(&b, &remote_root);
        Ok(())
    }
    .with_destination(b.destination.clone())
    .await?;
    expect(&global, &tracing::info_span!("nowhere in particular"));
    // What reads the places back may be instrumented too.
    drop(default);
    w.verify(&rig).await
}
