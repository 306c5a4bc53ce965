//! The orders of `docs/tracing.md`: where the spans of the `tracing` crate go, by where a span is
//! made, entered and given a parent. Each line of the page's table is a test here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use futures_util::{Stream, StreamExt as _, stream};
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use trace_destination::{
    Destination, DestinationExt as _, GlobalSlot, MemoryLocation, Pipeline, TraceBinding,
    bind_current_trace, new_root,
};
use tracing::{Instrument as _, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

const PATIENCE: Duration = Duration::from_secs(30);

/// The tenants of one case.
#[derive(Clone)]
struct Tenants {
    acme: Destination,
    other: Destination,
}

/// Work of a request: a span, between waits in which the executor may do something else.
async fn work() {
    tokio::task::yield_now().await;
    info_span!("work").in_scope(|| {});
    tokio::task::yield_now().await;
}

/// What comes before the tenant is known.
fn authenticate() {
    info_span!("authenticate").in_scope(|| {});
}

/// What a propagator makes of a request's `traceparent`.
fn extracted() -> Context {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let parent = SpanContext::new(
        TraceId::from(0xca11 << 64 | id),
        SpanId::from(0xca11),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    Context::new().with_remote_span_context(parent)
}

/// A body of two items, made inside `span` after the handler has returned.
fn body(span: Span) -> impl Stream<Item = u32> + Unpin {
    let mut n = 0;
    stream::poll_fn(move |_| {
        n += 1;
        let item = (n <= 2).then_some(n);
        if item.is_some() {
            span.in_scope(|| info_span!("item").in_scope(|| {}));
        }
        Poll::Ready(item)
    })
}

async fn consume(mut body: impl Stream<Item = u32> + Unpin) {
    while body.next().await.is_some() {
        tokio::task::yield_now().await;
    }
}

/// Where the spans of one case went, with a strict pipeline or with a global destination.
fn outcome<F: Future<Output = ()>>(id: &str, strict: bool, run: fn(Tenants) -> F) -> String {
    let kind = if strict { "strict" } else { "global" };
    let place = |name: &str| MemoryLocation::new(&format!("{id}-{kind}-{name}"));
    let places = ["acme", "other", "global"].map(|name| (name, place(name)));
    let to = |i: usize| Destination::new(places[i].1.clone());
    let global = Arc::new(GlobalSlot::new());
    global.set(to(2));
    // Roots below the scopes count in a process that has any, as each of these programs.
    drop(to(0).enter());
    let builder = Pipeline::builder().with_global(global);
    let builder = if strict { builder.strict() } else { builder };
    let pipeline = builder.build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("orders"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let tenants = Tenants {
            acme: to(0),
            other: to(1),
        };
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(run(tenants));
    });
    let report = pipeline.shutdown(PATIENCE).wait();
    assert!(report.is_complete(), "{report}");
    let stats = pipeline.stats();
    assert_eq!(
        (stats.undecided.traces, stats.orphaned),
        (0, 0),
        "{stats:?}"
    );
    assert_eq!(report.all_stored(), stats.unrouted == 0, "{report}");
    let mut parts: Vec<String> = Vec::new();
    for (name, place) in &places {
        match place.store().len() {
            0 => {}
            spans => parts.push(format!("{name} {spans}")),
        }
    }
    for (what, count) in [
        ("unrouted", stats.unrouted),
        ("ignored scope", stats.ignored_scopes),
        ("unscoped root", stats.unscoped_roots),
    ] {
        match count {
            0 => {}
            count => parts.push(format!("{what} {count}")),
        }
    }
    parts.join(", ")
}

macro_rules! orders {
    ($($id:ident: $strict:literal, $global:literal, $run:expr;)*) => {
        $(
            #[test]
            fn $id() {
                let id = stringify!($id);
                assert_eq!(outcome(id, true, $run), $strict, "strict");
                assert_eq!(outcome(id, false, $run), $global, "with a global destination");
            }
        )*

        /// Every order, and what becomes of it: strict, and with a global destination.
        const ORDERS: &[(&str, [&str; 2])] = &[$((stringify!($id), [$strict, $global]),)*];
    };
}

orders! {
    // A layer of the server makes the request's span; its tenant is known after authentication.
    scope_inside: "acme 3", "global 3, ignored scope 1, unscoped root 1", |t| {
        async move {
            authenticate();
            work().with_destination(t.acme).await;
        }
        .instrument(info_span!("request"))
    };
    bind_inside: "acme 3", "global 3, unscoped root 1", |t| {
        async move {
            authenticate();
            let _ = bind_current_trace(&t.acme);
            work().await;
        }
        .instrument(info_span!("request"))
    };
    polled_inside_a_scope: "acme 2", "acme 2", |t| {
        let request = info_span!("request");
        work().instrument(request).with_destination(t.acme)
    };
    scope_inside_instrument: "acme 2", "global 2, ignored scope 1, unscoped root 1", |t| {
        work().with_destination(t.acme).instrument(info_span!("request"))
    };
    made_in_a_guard: "acme 2", "acme 2", |t| {
        let request = {
            let _scope = t.acme.enter();
            info_span!("request")
        };
        work().instrument(request)
    };
    new_root_with_parent_none: "unrouted 3", "global 3, unscoped root 2", |t| {
        async move {
            let detached = t.acme.in_context(&new_root());
            let job = {
                let _detached = detached.attach();
                info_span!(parent: None, "job")
            };
            work().instrument(job).await;
        }
        .instrument(info_span!("request"))
    };
    new_root_with_set_parent: "acme 2, unrouted 1", "acme 2, global 1, unscoped root 1", |t| {
        async move {
            let job = info_span!(parent: None, "job");
            job.set_parent(t.acme.in_context(&new_root())).unwrap();
            work().instrument(job).await;
        }
        .instrument(info_span!("request"))
    };
    new_root_of_another_tenant: "acme 1, other 2", "acme 1, other 2", |t| {
        async move {
            let job = info_span!(parent: None, "job");
            job.set_parent(t.other.in_context(&new_root())).unwrap();
            work().instrument(job).await;
        }
        .instrument(info_span!("request"))
        .with_destination(t.acme)
    };
    entered_before_the_scope: "unrouted 2", "global 2, unscoped root 1", |t| {
        let request = info_span!("request");
        request.in_scope(|| {});
        work().instrument(request).with_destination(t.acme)
    };
    set_parent_and_scope_outside: "acme 2", "acme 2", |t| {
        let request = info_span!("request");
        request.set_parent(extracted()).unwrap();
        work().instrument(request).with_destination(t.acme)
    };
    set_parent_with_the_destination: "acme 2", "acme 2", |t| {
        let request = info_span!("request");
        request.set_parent(t.acme.in_context(&extracted())).unwrap();
        work().instrument(request)
    };
    set_parent_in_a_guard_entered_outside: "unrouted 2", "global 2, unscoped root 1", |t| {
        let request = {
            let _scope = t.acme.enter();
            let request = info_span!("request");
            request.set_parent(extracted()).unwrap();
            request
        };
        work().instrument(request)
    };
    set_parent_in_a_guard_entered_there: "acme 2", "acme 2", |t| {
        let _scope = t.acme.enter();
        let request = info_span!("request");
        request.set_parent(extracted()).unwrap();
        request.in_scope(|| {});
        work().instrument(request)
    };
    set_parent_and_scope_inside: "acme 3", "global 3, ignored scope 1, unscoped root 1", |t| {
        let request = info_span!("request");
        request.set_parent(extracted()).unwrap();
        async move {
            authenticate();
            work().with_destination(t.acme).await;
        }
        .instrument(request)
    };
    set_parent_and_bind_inside: "acme 3", "global 3, unscoped root 1", |t| {
        let request = info_span!("request");
        request.set_parent(extracted()).unwrap();
        async move {
            authenticate();
            let _ = bind_current_trace(&t.acme);
            work().await;
        }
        .instrument(request)
    };
    set_parent_after_the_first_entry: "acme 2", "acme 2", |t| {
        let request = info_span!("request");
        {
            let _scope = t.acme.enter();
            request.in_scope(|| {});
        }
        assert!(request.set_parent(t.other.in_context(&extracted())).is_err());
        work().instrument(request)
    };
    set_parent_of_a_running_trace: "acme 4", "acme 4", |t| {
        async move {
            let job = info_span!(parent: None, "job");
            job.set_parent(Span::current().context()).unwrap();
            work().instrument(job).await;
            // The trace has its destination: a scope inside has no effect.
            work().await;
        }
        .instrument(info_span!("request"))
        .with_destination(t.acme)
    };
    set_parent_twice: "other 2", "other 2", |t| {
        let request = info_span!("request");
        request.set_parent(t.acme.in_context(&extracted())).unwrap();
        request.set_parent(t.other.in_context(&extracted())).unwrap();
        work().instrument(request)
    };
    in_scope_under_a_guard: "acme 2", "acme 2", |t| async move {
        let _scope = t.acme.enter();
        info_span!("request").in_scope(|| info_span!("work").in_scope(|| {}));
    };
    spawned_with_the_current_span: "acme 3", "global 3, ignored scope 1, unscoped root 1", |t| {
        async move {
            let task = work().instrument(Span::current());
            let task = tokio::spawn(task);
            work().with_destination(t.acme).await;
            task.await.unwrap();
        }
        .instrument(info_span!("request"))
    };
    spawned_with_a_span_of_its_own: "acme 2, unrouted 2", "acme 2, global 2, unscoped root 1", |t| {
        async move {
            let task = tokio::spawn(work().instrument(info_span!(parent: None, "task")));
            work().await;
            task.await.unwrap();
        }
        .instrument(info_span!("request"))
        .with_destination(t.acme)
    };
    spawned_in_a_scope: "acme 4", "acme 4", |t| {
        let acme = t.acme.clone();
        async move {
            let task = work().instrument(info_span!(parent: None, "task"));
            let task = tokio::spawn(task.with_destination(acme));
            work().await;
            task.await.unwrap();
        }
        .instrument(info_span!("request"))
        .with_destination(t.acme)
    };
    spawned_with_the_current_context: "acme 2, unrouted 2", "acme 2, global 2, unscoped root 1", |t| {
        async move {
            let task = work().instrument(info_span!(parent: None, "task"));
            let task = tokio::spawn(task.with_current_context());
            work().await;
            task.await.unwrap();
        }
        .instrument(info_span!("request"))
        .with_destination(t.acme)
    };
    stream_in_a_scope: "acme 3", "acme 3", |t| {
        let stream = body(info_span!("stream")).with_destination(t.acme);
        consume(stream)
    };
    body_inside_the_request: "acme 5", "global 5, ignored scope 1, unscoped root 1", |t| async move {
        let request = info_span!("request");
        let handler = async move {
            authenticate();
            work().with_destination(t.acme).await;
            body(Span::current())
        };
        let body = handler.instrument(request).await;
        consume(body).await;
    };
    body_with_a_span_of_its_own: "acme 2, unrouted 3", "acme 2, global 3, unscoped root 1", |t| async move {
        let handler = async move {
            work().await;
            body(info_span!(parent: None, "body"))
        };
        let body = handler
            .instrument(info_span!("request"))
            .with_destination(t.acme)
            .await;
        consume(body).await;
    };
    body_in_a_scope_of_its_own: "acme 5", "acme 5", |t| async move {
        let acme = t.acme.clone();
        let handler = async move {
            work().await;
            body(info_span!(parent: None, "body")).with_destination(acme)
        };
        let body = handler
            .instrument(info_span!("request"))
            .with_destination(t.acme)
            .await;
        consume(body).await;
    };
    body_in_a_scope_around_the_request: "unrouted 4", "global 4, unscoped root 1", |t| async move {
        let handler = async move {
            authenticate();
            body(Span::current()).with_destination(t.acme)
        };
        let body = handler.instrument(info_span!("request")).await;
        consume(body).await;
    };
    two_tenants_in_one_span: "acme 2, other 1", "global 3, ignored scope 2, unscoped root 1", |t| {
        async move {
            work().with_destination(t.acme).await;
            work().with_destination(t.other).await;
        }
        .instrument(info_span!("batch"))
    };
    never_in_a_scope: "unrouted 2", "global 2, unscoped root 1", |t| {
        let _ = t.acme.enter();
        work().instrument(info_span!("request"))
    };
}

/// The lines of the page's table: the order's name, and what becomes of it.
fn lines() -> BTreeMap<String, [String; 2]> {
    let page = include_str!("../../../docs/tracing.md");
    let cells = |line: &str| {
        let cells: Vec<String> = line.split('|').map(|c| c.trim().to_owned()).collect();
        match &cells[..] {
            [_, name, _, strict, global, _] => {
                let name = name.strip_prefix('`')?.strip_suffix('`')?;
                Some((name.to_owned(), [strict.clone(), global.clone()]))
            }
            _ => None,
        }
    };
    page.lines().filter_map(cells).collect()
}

#[test]
fn the_page_tells_what_becomes_of_each_order() {
    let page = lines();
    let tested = ORDERS.iter().map(|(id, outcome)| {
        let outcome = outcome.map(str::to_owned);
        ((*id).to_owned(), outcome)
    });
    assert_eq!(page, tested.collect());
}

#[test]
fn what_bind_answers_with_tracing() {
    assert_eq!(
        outcome("answers", true, |t| {
            async move {
                assert_eq!(bind_current_trace(&t.acme), TraceBinding::Bound);
                assert_eq!(bind_current_trace(&t.acme), TraceBinding::AlreadyBound);
                assert_eq!(bind_current_trace(&t.other), TraceBinding::BoundElsewhere);
            }
            .instrument(info_span!("request"))
        }),
        "acme 1"
    );
    assert_eq!(
        outcome("answers", false, |t| {
            async move {
                assert_eq!(bind_current_trace(&t.acme), TraceBinding::BoundElsewhere);
            }
            .instrument(info_span!("request"))
        }),
        "global 1, unscoped root 1"
    );
    assert_eq!(
        bind_current_trace(&Destination::discard()),
        TraceBinding::NotOurs
    );
}

#[test]
fn without_context_activation_the_span_has_to_be_made_current() {
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("orders"))
        .with_context_activation(false);
    let place = MemoryLocation::new("no-activation");
    let acme = Destination::new(place.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        info_span!("request").in_scope(|| {
            assert_eq!(bind_current_trace(&acme), TraceBinding::NotOurs);
            let _current = Span::current().context().attach();
            assert_eq!(bind_current_trace(&acme), TraceBinding::Bound);
        });
    });
    assert!(pipeline.shutdown(PATIENCE).wait().all_stored());
    assert_eq!(place.store().len(), 1);
}

#[test]
fn work_that_tenants_share_decides_for_nobody_else() {
    use futures_util::future::FutureExt as _;
    let outcome = outcome("shared", true, |t| async move {
        let unknown = info_span!("unknown");
        unknown.in_scope(|| {});
        let shared = async {
            tokio::task::yield_now().await;
            info_span!("fetch keys").in_scope(|| {});
        };
        let shared = shared.instrument(unknown.clone()).shared();
        let (first, own) = (shared.clone(), t.other.clone());
        work()
            .instrument(info_span!("request"))
            .with_destination(t.other.clone())
            .await;
        first.with_destination(t.other.clone()).await;
        async move {
            // A child of somebody else's span, made in a scope and a span of one's own.
            let theirs = info_span!(parent: &unknown, "for somebody");
            {
                let _scope = own.enter();
                theirs.in_scope(|| {});
            }
            shared.await;
            unknown.in_scope(|| assert!(bind_current_trace(&t.acme).is_bound()));
        }
        .instrument(info_span!("request"))
        .with_destination(t.other)
        .await;
    });
    // The child went where its scope is, and decided nothing.
    assert_eq!(outcome, "acme 2, other 4");
}
