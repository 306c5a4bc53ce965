//! Promise 4, against trace ids that come from outside: they are no key to a trace of somebody else.

use super::*;
use crate::world::on_thread;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use trace_destination_core::update_current_trace;

/// A request with the id of a trace that runs here, and with a sampled flag of its own.
fn repeats(id: TraceId, sampled: bool) -> Context {
    let flags = match sampled {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    let parent = SpanContext::new(id, SpanId::from(0x5eed), flags, true, TraceState::NONE);
    Context::new().with_remote_span_context(parent)
}

/// Tries to set values of the trace that is current.
fn forge() -> bool {
    update_current_trace(|trace| {
        trace.user_id = Some("mallory".into());
        trace.session_id = Some("forged".into());
        trace.name = Some("forged".into());
        trace.run_id = Some("forged".into());
        trace.request_preview = Some("forged".into());
        trace.tags.insert("owner".into(), "mallory".into());
    })
}

pub(crate) async fn only_code_of_a_trace_sets_its_values(w: Arc<World>) -> Verdict {
    let without_processor = SdkTracerProvider::builder().build();
    let library = without_processor.tracer("a library with a provider of its own");
    for (strict, ended) in [(false, false), (true, false), (false, true), (true, true)] {
        let (victim, other) = (w.place("victim").await?, w.place("other").await?);
        let rig = Arc::new(w.rig_with(|b| if strict { b.strict() } else { b })?);
        let cx = Context::new().with_span(rig.start("victim", &victim.context()));
        let id = cx.span().span_context().trace_id();
        let own = |key: &str| {
            update_current_trace(|trace| {
                trace.user_id = Some("victim".into());
                trace.tags.insert("owner".into(), "victim".into());
                trace.tags.insert(key.into(), "set".into());
            })
        };
        {
            let _running = cx.clone().attach();
            ensure!(own("root"), "the root may set no values");
        }
        // Any thread inside it may, in a child too.
        let child = Context::new().with_span(rig.start("child", &cx));
        let inside = child.clone();
        let set = on_thread("a thread inside", move || {
            let _running = inside.attach();
            update_current_trace(|trace| drop(trace.tags.insert("child".into(), "set".into())))
        });
        ensure!(set.await?, "a child on another thread may set no values");
        victim.expect(child.span().span_context());
        child.span().end();
        {
            let _running = child.attach();
            ensure!(!forge(), "a span that has ended set values");
        }
        if ended {
            victim.expect(cx.span().span_context());
            cx.span().end();
            let _running = cx.clone().attach();
            ensure!(!forge(), "a root that has ended set values");
        }
        for sampled in [false, true] {
            let incoming = other.destination.in_context(&repeats(id, sampled));
            {
                let _running = incoming.clone().attach();
                ensure!(!forge(), "a remote span set values, sampled: {sampled}");
            }
            let foreign = library.start_with_context("of another provider", &incoming);
            let foreign = incoming.with_span(foreign);
            {
                let _running = foreign.clone().attach();
                ensure!(!forge(), "a span of another provider set values");
            }
            // What is made under it, without a destination of its own, is no better.
            let bare = library.start_with_context("bare", &repeats(id, sampled));
            let below = Context::new().with_span(bare);
            let below = Context::new().with_span(rig.start("below it", &below));
            {
                let _running = below.clone().attach();
                ensure!(!forge(), "a span below one of another provider set values");
            }
            victim.allow(below.span().span_context());
            below.span().end();
            let suppressed = incoming.with_telemetry_suppressed();
            let suppressed = suppressed.with_span(rig.start("suppressed", &suppressed));
            {
                let _running = suppressed.clone().attach();
                ensure!(!forge(), "a suppressed span set values");
            }
            let request = incoming.with_span(rig.start("request", &incoming));
            let _running = request.clone().attach();
            ensure_eq!(forge(), sampled, "whether a request may set its own values");
            if sampled {
                other.expect(request.span().span_context());
            }
            request.span().end();
            ensure!(!forge(), "a request that has ended set values");
        }
        if !ended {
            let _running = cx.clone().attach();
            ensure!(own("later"), "the root may set no values any more");
            victim.expect(cx.span().span_context());
            cx.span().end();
        }
        w.verify(&rig).await?;
        let stored = w.stored(&victim).await?;
        let values = stored.updates.iter().find(|u| u.trace_id == id);
        let values = values.ok_or_else(|| Failure::new("the victim's values are not stored"))?;
        let text = format!("{values:?}");
        ensure!(
            !text.contains("mallory") && !text.contains("forged"),
            "somebody else set values, strict: {strict}, ended: {ended}: {text}"
        );
        ensure_eq!(values.user_id.as_deref(), Some("victim"), "the user");
        for key in ["root", "child"] {
            ensure!(values.tags.contains_key(key), "no tag `{key}` in {text}");
        }
    }
    Ok(())
}

pub(crate) async fn spans_under_a_foreign_provider(w: Arc<World>) -> Verdict {
    let (victim, other) = (w.place("victim").await?, w.place("other").await?);
    let without_processor = SdkTracerProvider::builder().build();
    let library = without_processor.tracer("a library with a provider of its own");
    let rig = w.rig()?;
    let root = Context::new().with_span(rig.start("root", &victim.context()));
    let id = root.span().span_context().trace_id();
    // A library between two spans of a trace: the trace stays whole.
    let between = victim
        .context()
        .with_span(library.start_with_context("between", &root));
    victim.end(rig.start("below", &between));
    // The id came back, and the library made the local root.
    for _ in 0..3 {
        let incoming = other.destination.in_context(&repeats(id, true));
        let foreign =
            incoming.with_span(library.start_with_context("made by a library", &incoming));
        let cx = foreign.with_span(rig.start("below it", &foreign));
        other.end(rig.start("further below", &cx));
        other.expect(cx.span().span_context());
        cx.span().end();
        victim.end(rig.start("child", &root));
    }
    victim.expect(root.span().span_context());
    root.span().end();
    w.verify(&rig).await
}
