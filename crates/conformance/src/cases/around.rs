//! What surrounds the pipeline: trace-level values, the transform hook, sampling.

use super::*;
use crate::harness::StoredSpan;
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use trace_destination_core::{DropReason, LocationUri, Span, Transformed, update_current_trace};

pub(crate) async fn trace_values(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let run = w.harness().run_id().map(str::to_owned);
    let rig = w.rig()?;
    ensure!(
        !update_current_trace(|_| {}),
        "an update without a trace was accepted"
    );
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    let trace = cx.span().span_context().trace_id();
    {
        let _running = cx.clone().attach();
        let accepted = update_current_trace(|t| {
            t.tags.insert("env".into(), "dev".into());
            t.tags.insert("stage".into(), "first".into());
            t.metadata.insert("build".into(), "7".into());
            t.session_id = Some("session-1".into());
            t.name = Some("first name".into());
            t.run_id = run.clone();
        });
        ensure!(accepted, "an update was not accepted");
        rig.flush().await?;
        // From inside a child, with another scope around it: the trace decides.
        let child = Context::current().with_span(rig.start("child", &Context::current()));
        let _inside = child.clone().attach();
        let _other = b.destination.enter();
        update_current_trace(|t| {
            t.tags.insert("stage".into(), "second".into());
            t.user_id = Some("user-1".into());
            t.name = Some("trace name".into());
            t.request_preview = Some("hello?".into());
            t.response_preview = Some("hello!".into());
            t.client_request_id = Some("request-1".into());
        });
        a.expect(child.span().span_context());
        child.span().end();
    }
    a.expect(cx.span().span_context());
    cx.span().end();
    w.verify(&rig).await?;
    let stored = w.stored(&a).await?;
    let found = stored
        .values(trace)
        .ok_or_else(|| Failure::new("no trace-level values are stored"))?;
    for (map, key, value) in [
        (&found.tags, "env", "dev"),
        (&found.tags, "stage", "second"),
        (&found.metadata, "build", "7"),
    ] {
        ensure_eq!(map.get(key).map(String::as_str), Some(value), "`{key}`");
    }
    for (what, value, expected) in [
        ("session", &found.session_id, "session-1"),
        ("user", &found.user_id, "user-1"),
        ("request preview", &found.request_preview, "hello?"),
        ("response preview", &found.response_preview, "hello!"),
        ("client request id", &found.client_request_id, "request-1"),
        ("name", &found.name, "trace name"),
    ] {
        ensure_eq!(value.as_deref(), Some(expected), "the {what}");
    }
    if run.is_some() {
        ensure_eq!(found.run_id, run, "the run");
    }
    ensure_eq!(
        rig.stats(&a).map(|s| (s.lost_updates, s.late_updates)),
        Some((0, 0)),
        "updates lost, and still tried"
    );
    ensure!(
        w.stored(&b).await?.updates.is_empty(),
        "values reached another place"
    );
    Ok(())
}

pub(crate) async fn values_after_the_root(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let cx = Context::new().with_span(rig.start("root", &a.context()));
    let child = cx.with_span(rig.start("child", &cx));
    let set = |value: &str| {
        let _running = child.clone().attach();
        update_current_trace(|t| drop(t.tags.insert("env".into(), value.into())))
    };
    ensure!(set("in time"), "an update was not accepted");
    a.expect(cx.span().span_context());
    cx.span().end();
    ensure!(
        set("too late"),
        "an update of an open span was not accepted"
    );
    a.expect(child.span().span_context());
    child.span().end();
    b.end(rig.start("plain", &b.context()));
    w.verify(&rig).await?;
    let lost = |place: &Place| rig.stats(place).map(|s| s.lost_updates);
    ensure_eq!(lost(&a), Some(1), "updates counted as lost");
    ensure_eq!(lost(&b), Some(0), "updates counted as lost elsewhere");
    let error = rig.stats(&a).and_then(|s| s.last_error);
    ensure!(
        error.is_some_and(|e| e.mend_hint().is_some()),
        "no error says why, and what to do"
    );
    let trace = cx.span().span_context().trace_id();
    let found = w.stored(&a).await?.values(trace);
    let found = found.and_then(|values| values.tags.get("env").cloned());
    ensure_eq!(
        found.as_deref(),
        Some("in time"),
        "the value that came in time"
    );
    Ok(())
}

pub(crate) async fn transform_hook(w: Arc<World>) -> Verdict {
    let (redacted, plain) = (w.place("redacted").await?, w.place("plain").await?);
    let uri = redacted.uri().clone();
    let rig = w.rig_with(|b| {
        b.with_transform(move |location: &LocationUri, span: &mut Span| {
            if *location != uri {
                return Transformed::Keep;
            }
            match span.name() {
                "dropped" => return Transformed::Drop,
                "panics" => panic!("this hook panics on purpose"),
                _ => {}
            }
            span.record_mut()
                .attributes
                .retain(|a| a.key.as_str() != "secret");
            Transformed::Keep
        })
    })?;
    for place in [&redacted, &plain] {
        let mut span = rig.start("kept", &place.context());
        span.set_attribute(KeyValue::new("secret", "hunter2"));
        span.set_attribute(KeyValue::new("public", "yes"));
        place.end(span);
    }
    for name in ["dropped", "panics"] {
        plain.end(rig.start(name, &plain.context()));
        rig.start(name, &redacted.context()).end();
    }
    w.verify(&rig).await?;
    ensure_eq!(
        rig.dropped(&redacted, DropReason::Transform),
        2,
        "spans dropped by the hook"
    );
    let has = |spans: &[StoredSpan], key: &str| {
        spans
            .iter()
            .any(|s| s.span.attributes.iter().any(|a| a.key.as_str() == key))
    };
    let found = w.stored(&redacted).await?.spans;
    ensure!(
        !has(&found, "secret"),
        "the secret is stored at the redacted place"
    );
    ensure!(has(&found, "public"), "the hook took too much");
    ensure!(
        has(&w.stored(&plain).await?.spans, "secret"),
        "another place was redacted too"
    );
    Ok(())
}

pub(crate) async fn sampling_per_destination(w: Arc<World>) -> Verdict {
    let (all, none, some) = (
        w.place("all").await?,
        w.place("none").await?,
        w.place("some").await?,
    );
    let rig = w.rig_with(|b| b.with_sampling_ratio(0.0))?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(rig.pipeline.processor())
        .with_sampler(rig.pipeline.sampler())
        .build();
    let tracer = provider.tracer("sampled");
    let every = all.destination.clone().with_sampling_ratio(1.0)?;
    let half = some.destination.clone().with_sampling_ratio(0.5)?;
    let mut kept = 0;
    for _ in 0..400 {
        let parent = every.in_context(&Context::new());
        let cx = Context::new().with_span(tracer.start_with_context("all", &parent));
        all.end(tracer.start_with_context("child", &cx));
        all.expect(cx.span().span_context());
        cx.span().end();
        tracer.start_with_context("none", &none.context()).end();
        let span = tracer.start_with_context("half", &half.in_context(&Context::new()));
        if span.span_context().is_sampled() {
            kept += 1;
            some.end(span);
        }
    }
    // Ten standard deviations of a fair coin either way.
    ensure!(
        (100..=300).contains(&kept),
        "{kept} of 400 were kept at a ratio of one half"
    );
    w.verify(&rig).await
}
