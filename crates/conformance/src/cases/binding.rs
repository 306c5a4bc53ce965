//! Promise 4: a destination is resolved once per local root, and its descendants follow it.

use super::*;
use crate::world::{on_thread, until};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanKind, TraceContextExt as _, TraceId, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use trace_destination_core::{DestinationExt as _, new_root};

pub(crate) async fn follows_its_root(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = Arc::new(w.rig()?);
    rig.global.set(a.destination.clone());
    let by_global = rig.start("by global", &Context::new());
    let by_scope = {
        let _scope = b.destination.enter();
        rig.start("by scope", &Context::current())
    };
    rig.global.set(b.destination.clone());
    let cx = Context::new().with_span(by_global);
    // A child from another thread, while other scopes and another global hold there.
    let (r, pa, pb, parent) = (rig.clone(), a.clone(), b.clone(), cx.clone());
    on_thread("end elsewhere", move || {
        let _scope = pb.destination.enter();
        let child = r.start("child", &parent);
        let grandchild = r.start(
            "grandchild",
            &Context::new().with_remote_span_context(child.span_context().clone()),
        );
        pa.end(grandchild);
        pa.end(child);
        pb.end(by_scope);
    })
    .await?;
    a.expect(cx.span().span_context());
    cx.span().end();
    w.verify(&rig).await
}

pub(crate) async fn global_change_does_not_reach_open_traces(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let unbound = Context::new().with_span(rig.start("bound to none", &Context::new()));
    rig.global.set(a.destination.clone());
    let bound = Context::new().with_span(rig.start("bound", &Context::new()));
    rig.start("child of none", &unbound).end();
    rig.global.set(b.destination.clone());
    a.end(rig.start("child", &bound));
    rig.global.clear();
    a.end(rig.start("child", &bound));
    a.expect(bound.span().span_context());
    bound.span().end();
    unbound.span().end();
    w.verify(&rig).await?;
    ensure_eq!(
        rig.pipeline.stats().unrouted,
        2,
        "spans of the trace bound to none"
    );
    Ok(())
}

pub(crate) async fn late_child_follows(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    a.expect(cx.span().span_context());
    cx.span().end();
    rig.global.set(b.destination.clone());
    rig.flush().await?;
    async {
        let late = rig.start("late", &cx);
        let late = Context::new().with_span(late);
        a.end(rig.start("later still", &late));
        a.expect(late.span().span_context());
        late.span().end();
    }
    .with_destination(b.destination.clone())
    .await;
    w.verify(&rig).await
}

pub(crate) async fn orphan_never_takes_the_global(w: Arc<World>) -> Verdict {
    let (a, own, global) = (
        w.place("a").await?,
        w.place("own").await?,
        w.place("global").await?,
    );
    let rig = w.rig_with(|b| b.with_linger(Duration::from_millis(20)))?;
    rig.global.set(global.destination.clone());
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    a.expect(cx.span().span_context());
    cx.span().end();
    until("the binding is gone", || {
        rig.pipeline.stats().bound_traces == 0
    })
    .await?;
    let orphan = Context::new().with_span(rig.start("orphan", &cx));
    // Its descendants are no better off.
    rig.start("orphan's child", &orphan).end();
    orphan.span().end();
    own.end(rig.start(
        "with a destination of its own",
        &own.destination.in_context(&cx),
    ));
    w.verify(&rig).await?;
    ensure_eq!(rig.pipeline.stats().orphaned, 2, "orphaned spans");
    Ok(())
}

pub(crate) async fn foreign_trace_id_is_no_key(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let incoming = remote(0xfeed, 0xbeef);
    let open = |place: &Place| {
        let cx = place.destination.in_context(&incoming);
        Context::new().with_span(rig.start("segment", &cx))
    };
    let (of_a, of_b) = (open(&a), open(&b));
    ensure_eq!(
        of_a.span().span_context().trace_id(),
        of_b.span().span_context().trace_id(),
        "trace ids of the two segments"
    );
    for _ in 0..3 {
        a.end(rig.start("child", &of_a));
        b.end(rig.start("child", &of_b));
    }
    a.expect(of_a.span().span_context());
    of_a.span().end();
    // The first segment is over; the second is still itself, and so are late children.
    b.end(rig.start("child", &of_b));
    a.end(rig.start("late child", &of_a));
    b.expect(of_b.span().span_context());
    of_b.span().end();
    b.end(rig.start("late child", &of_b));
    // The trace id of a trace made here, coming back from outside, is no key either.
    let made_here = Context::new().with_span(rig.start("made here", &a.context()));
    let id = made_here.span().span_context().trace_id();
    let back = b
        .destination
        .in_context(&remote(u128::from_be_bytes(id.to_bytes()), 0x5eed));
    b.end(rig.start("comes back", &back));
    a.end(rig.start("child", &made_here));
    a.expect(made_here.span().span_context());
    made_here.span().end();
    w.verify(&rig).await
}

/// Decides by the name of the span.
#[derive(Clone, Debug)]
struct ByName;

impl ShouldSample for ByName {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: match name {
                "unsampled" => SamplingDecision::RecordOnly,
                "unrecorded" => SamplingDecision::Drop,
                _ => SamplingDecision::RecordAndSample,
            },
            attributes: Vec::new(),
            trace_state: Default::default(),
        }
    }
}

fn by_name(rig: &Rig) -> opentelemetry_sdk::trace::SdkTracer {
    SdkTracerProvider::builder()
        .with_span_processor(rig.pipeline.processor())
        .with_sampler(ByName)
        .build()
        .tracer("by name")
}

pub(crate) async fn unrecorded_parent_makes_a_root(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let tracer = by_name(&rig);
    for name in ["unrecorded", "unsampled"] {
        let parent = Context::new().with_span(tracer.start_with_context(name, &a.context()));
        b.end(tracer.start_with_context("child", &b.destination.in_context(&parent)));
        rig.global.set(a.destination.clone());
        a.end(tracer.start_with_context("child", &parent));
        rig.global.clear();
        parent.span().end();
    }
    w.verify(&rig).await
}

pub(crate) async fn bindings_end(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_linger(Duration::from_millis(20)))?;
    for i in 0..500_u64 {
        let parent = match i % 3 {
            0 => a.context(),
            1 => a
                .destination
                .in_context(&remote(0xb1d_0000_0000 + u128::from(i), 7)),
            _ => a.destination.in_context(&remote(0x1234, 7)),
        };
        let cx = Context::new().with_span(rig.start("root", &parent));
        a.end(rig.start("child", &cx));
        a.expect(cx.span().span_context());
        cx.span().end();
    }
    until("no trace is bound", || {
        rig.pipeline.stats().bound_traces == 0
    })
    .await?;
    w.verify(&rig).await?;
    ensure_eq!(rig.stats(&a).map(|s| s.open_spans), Some(0), "open spans");
    Ok(())
}

pub(crate) async fn bindings_expire(w: Arc<World>) -> Verdict {
    let (a, global) = (w.place("a").await?, w.place("global").await?);
    let rig = w.rig_with(|b| {
        b.with_max_trace_age(Duration::from_millis(100))
            .with_linger(Duration::from_millis(50))
    })?;
    let cx = Context::new().with_span(rig.start("forgotten", &a.context()));
    rig.global.set(global.destination.clone());
    until("the binding expires", || {
        rig.pipeline.stats().expired_bindings == 1
    })
    .await?;
    ensure_eq!(rig.pipeline.stats().bound_traces, 0, "bound traces");
    // Whatever becomes of it now, it goes nowhere else.
    a.allow(cx.span().span_context());
    rig.start("child", &cx).end();
    cx.span().end();
    w.verify(&rig).await
}

pub(crate) async fn scope_inside_an_open_trace(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let cx = a.context().with_span(rig.start("root", &a.context()));
    let _running = cx.clone().attach();
    {
        let _same = a.destination.enter();
        a.end(rig.start("child", &Context::current()));
    }
    ensure_eq!(rig.pipeline.stats().ignored_scopes, 0, "ignored scopes");
    {
        let _other = b.destination.enter();
        a.end(rig.start("child", &Context::current()));
    }
    a.expect(cx.span().span_context());
    cx.span().end();
    w.verify(&rig).await?;
    ensure!(
        rig.pipeline.stats().ignored_scopes > 0,
        "a scope without effect was not counted"
    );
    Ok(())
}

pub(crate) async fn new_root_detaches(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let cx = a.context().with_span(rig.start("long-lived", &a.context()));
    let old = cx.span().span_context().clone();
    let detached = {
        let _running = cx.clone().attach();
        let span = rig.start("detached", &b.destination.in_context(&new_root()));
        a.end(rig.start("still a child", &Context::current()));
        span
    };
    let new = detached.span_context().clone();
    ensure!(
        new.trace_id() != old.trace_id(),
        "the detached span is in the old trace"
    );
    let detached = Context::new().with_span(detached);
    b.end(rig.start("child", &detached));
    b.expect(&new);
    detached.span().end();
    a.expect(&old);
    cx.span().end();
    w.verify(&rig).await?;
    let stored = w.stored(&b).await?;
    let root = stored
        .spans
        .iter()
        .find(|s| s.span.span_id == new.span_id());
    let expected = w.harness().keeps(crate::StoredSpan::from(
        trace_destination_core::SpanRecord {
            links: vec![trace_destination_core::Link {
                trace_id: old.trace_id(),
                span_id: old.span_id(),
                trace_state: String::new(),
                flags: 0x101,
                attributes: Vec::new(),
                dropped_attributes_count: 0,
            }],
            ..trace_destination_core::SpanRecord::new(new.trace_id(), new.span_id(), "", 0, 0)
        },
    ));
    let links = |s: &crate::StoredSpan| -> Vec<_> {
        s.span
            .links
            .iter()
            .map(|l| (l.trace_id, l.span_id))
            .collect()
    };
    ensure_eq!(
        root.map(links),
        Some(links(&expected)),
        "links of the detached root"
    );
    ensure!(
        root.is_some_and(|r| r.span.parent_span_id.is_none()),
        "the detached root has a parent"
    );
    Ok(())
}

pub(crate) async fn unsampled_spans_neither_bind_nor_are_stored(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let tracer = by_name(&rig);
    let span = tracer.start_with_context("unsampled", &a.context());
    ensure_eq!(rig.pipeline.stats().bound_traces, 0, "bound traces");
    drop(span);
    w.verify(&rig).await?;
    let stats = rig.pipeline.stats();
    ensure_eq!(
        (stats.unrouted, stats.discarded, stats.orphaned),
        (0, 0, 0),
        "unrouted, discarded, orphaned"
    );
    ensure!(
        stats.location(a.uri()).is_none_or(|l| l.accepted == 0),
        "an unsampled span was accepted"
    );
    Ok(())
}

pub(crate) async fn links_are_data(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let elsewhere = rig.start("elsewhere", &b.context());
    let target: SpanContext = elsewhere.span_context().clone();
    let mut linking = rig.start("linking", &a.context());
    linking.add_link(target.clone(), Vec::new());
    let cx = Context::new().with_span(linking);
    a.end(rig.start("child", &cx));
    a.expect(cx.span().span_context());
    cx.span().end();
    b.end(elsewhere);
    w.verify(&rig).await?;
    for s in &w.stored(&a).await?.spans {
        for link in &s.span.links {
            ensure_eq!(
                (link.trace_id, link.span_id),
                (target.trace_id(), target.span_id()),
                "the stored link"
            );
        }
    }
    Ok(())
}
