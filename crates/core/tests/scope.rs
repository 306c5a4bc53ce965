//! Promises 1, 2, 4 and 6: which destination applies, and who follows it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use futures_util::{FutureExt as _, Stream as _, StreamExt as _, stream};
use opentelemetry::trace::{
    FutureExt as _, Link, Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::sync::Arc;
use std::time::Duration;
use support::*;
use trace_destination_core::{Destination, DestinationExt, GlobalSlot, Pipeline, new_root};

/// Two places, a slot and a pipeline over them.
struct Setup {
    a: Place,
    b: Place,
    slot: Arc<GlobalSlot>,
    pipeline: Pipeline,
    tracer: SdkTracer,
}

impl Setup {
    fn new(name: &str) -> Self {
        Self::with(name, |b| b)
    }

    fn with(
        name: &str,
        configure: impl FnOnce(
            trace_destination_core::PipelineBuilder,
        ) -> trace_destination_core::PipelineBuilder,
    ) -> Self {
        let slot = Arc::new(GlobalSlot::new());
        let pipeline = configure(quick().with_global(slot.clone()))
            .build()
            .unwrap();
        Self {
            a: Place::new(&format!("{name}-a")),
            b: Place::new(&format!("{name}-b")),
            slot,
            tracer: tracer(&pipeline),
            pipeline,
        }
    }

    /// A root span by the ordinary call.
    fn span(&self, name: &'static str) {
        drop(self.tracer.start(name));
    }

    fn expect(&self, a: &[&str], b: &[&str]) {
        flush(&self.pipeline);
        assert_eq!(self.a.names(), a, "at a");
        assert_eq!(self.b.names(), b, "at b");
        settled(&self.pipeline);
    }
}

fn remote(trace: u128, span: u64, flags: TraceFlags) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        flags,
        true,
        TraceState::NONE,
    )
}

#[test]
fn local_then_global_then_environment_then_none() {
    let env = Place::new("precedence-env");
    let s = Setup::with("precedence", |b| b.with_environment(env.to()));
    s.span("env");
    s.slot.set(s.b.to());
    s.span("global");
    {
        let _scope = s.a.to().enter();
        s.span("local");
    }
    s.span("global again");
    s.slot.clear();
    s.span("env again");
    s.expect(&["local"], &["global", "global again"]);
    assert_eq!(env.names(), ["env", "env again"]);
    assert_eq!(s.pipeline.stats().unrouted, 0);
}

#[test]
fn with_none_spans_are_counted_and_nothing_is_written() {
    let s = Setup::new("none");
    s.span("x");
    s.tracer.in_span("y", |_| s.span("z"));
    s.expect(&[], &[]);
    let stats = s.pipeline.stats();
    assert_eq!(stats.unrouted, 3);
    assert!(stats.locations.is_empty());
}

#[test]
fn strict_has_no_fallback() {
    let env = Place::new("strict-env");
    let s = Setup::with("strict", |b| b.with_environment(env.to()).strict());
    s.slot.set(s.b.to());
    s.span("nowhere");
    {
        let _scope = s.a.to().enter();
        s.span("local");
        let _unset = Destination::unset().enter();
        s.span("nowhere");
    }
    s.expect(&["local"], &[]);
    assert!(env.names().is_empty());
    assert_eq!(s.pipeline.stats().unrouted, 2);
}

#[test]
fn the_global_is_replaced_and_cleared_at_once_returning_the_old_one() {
    let s = Setup::new("global");
    assert_eq!(s.slot.get(), None);
    assert_eq!(s.slot.set(s.a.to()), None);
    s.span("1");
    assert_eq!(s.slot.set(s.b.to()), Some(s.a.to()));
    s.span("2");
    assert_eq!(s.slot.clear(), Some(s.b.to()));
    assert_eq!(s.slot.clear(), None);
    s.span("3");
    s.expect(&["1"], &["2"]);
    assert_eq!(s.pipeline.stats().unrouted, 1);
}

#[test]
fn an_open_trace_keeps_its_destination_whatever_becomes_of_the_global() {
    let s = Setup::new("open-trace");
    s.slot.set(s.a.to());
    let bound = Context::new().with_span(s.tracer.start("root"));
    s.slot.set(s.b.to());
    drop(s.tracer.start_with_context("after set", &bound));
    s.slot.clear();
    drop(s.tracer.start_with_context("after clear", &bound));

    let unbound = Context::new().with_span(s.tracer.start("nowhere"));
    s.slot.set(s.b.to());
    drop(s.tracer.start_with_context("nowhere too", &unbound));
    drop((bound, unbound));
    s.expect(&["after clear", "after set", "root"], &[]);
    assert_eq!(s.pipeline.stats().unrouted, 2);
}

#[test]
fn scopes_nest_replace_and_restore() {
    let s = Setup::new("nest");
    s.slot.set(s.b.to());
    {
        let _a = s.a.to().enter();
        s.span("a");
        {
            let _b = s.b.to().enter();
            s.span("b");
            {
                let _unset = Destination::unset().enter();
                s.span("global");
                let _discard = Destination::discard().enter();
                s.span("discarded");
            }
            s.span("b again");
        }
        s.span("a again");
    }
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _a = s.a.to().enter();
        panic!("as told");
    }));
    assert!(unwound.is_err());
    s.span("global again");
    s.expect(
        &["a", "a again"],
        &["b", "b again", "global", "global again"],
    );
    assert_eq!(s.pipeline.stats().discarded, 1);
}

#[test]
fn discard_and_unset_are_levels_of_their_own_everywhere() {
    let s = Setup::new("words");
    s.slot.set(Destination::discard());
    s.span("discarded");
    s.slot.set(Destination::unset());
    s.span("unrouted");
    {
        let _scope = Destination::unset().enter();
        s.span("unrouted");
    }
    s.expect(&[], &[]);
    let stats = s.pipeline.stats();
    assert_eq!((stats.discarded, stats.unrouted), (1, 2));
}

#[test]
fn a_scope_inside_an_open_trace_bound_elsewhere_has_no_effect_and_is_counted() {
    let s = Setup::new("inside");
    {
        let _a = s.a.to().enter();
        s.tracer.in_span("root", |_| {
            s.span("plain");
            let _b = s.b.to().enter();
            s.span("child");
            let _same = s.a.to().enter();
            s.span("same");
            let _unset = Destination::unset().enter();
            s.span("unset");
        });
    }
    s.expect(&["child", "plain", "root", "same", "unset"], &[]);
    assert_eq!(s.pipeline.stats().ignored_scopes, 1);
}

#[test]
fn new_root_detaches_with_a_link() {
    let s = Setup::new("detach");
    {
        let _a = s.a.to().enter();
        s.tracer.in_span("long", |cx| {
            let old = cx.span().span_context().clone();
            let detached = s.b.to().in_context(&new_root());
            {
                let _guard = detached.attach();
                s.tracer.in_span("new", |cx| {
                    assert_ne!(cx.span().span_context().trace_id(), old.trace_id());
                    s.span("new child");
                });
            }
            s.span("old child");
            flush(&s.pipeline);
            s.b.see(|seen| {
                let new = seen.spans.iter().find(|s| s.name() == "new").unwrap();
                let links: Vec<_> = new.links().collect();
                assert_eq!(links.len(), 1);
                assert_eq!(links[0].trace_id, old.trace_id());
                assert_eq!(links[0].span_id, old.span_id());
                assert_eq!(new.parent_span_id(), None);
                let child = seen.spans.iter().find(|s| s.name() == "new child").unwrap();
                assert_eq!(child.link_count(), 0);
                assert_eq!(child.trace_id(), new.trace_id());
            });
        });
    }
    s.expect(&["long", "old child"], &["new", "new child"]);
}

#[test]
fn new_root_without_a_span_is_an_ordinary_root() {
    let s = Setup::new("detach-none");
    {
        let _guard = s.a.to().in_context(&new_root()).attach();
        s.span("root");
    }
    s.expect(&["root"], &[]);
    assert_eq!(s.a.see(|seen| seen.spans[0].link_count()), 0);
}

#[test]
fn links_and_baggage_of_another_trace_are_never_used_for_routing() {
    let s = Setup::new("links");
    let there = root(&s.tracer, &s.a.to(), "there");
    let _b = s.b.to().enter();
    let span = s
        .tracer
        .span_builder("linked")
        .with_links(vec![Link::new(
            there.span().span_context().clone(),
            Vec::new(),
            0,
        )])
        .start_with_context(&s.tracer, &Context::current());
    drop(span);
    let mut late = s.tracer.start("linked late");
    late.add_link(there.span().span_context().clone(), Vec::new());
    drop((late, there));
    s.expect(&["there"], &["linked", "linked late"]);
    let linked = s.b.see(|seen| {
        seen.spans
            .iter()
            .map(|s| s.link_count())
            .collect::<Vec<_>>()
    });
    assert_eq!(linked, [1, 1], "they are data, and kept");
}

#[test]
fn descendants_follow_on_other_threads_and_after_the_scope() {
    let s = Setup::new("follow");
    let root = {
        let _a = s.a.to().enter();
        Context::current().with_span(s.tracer.start("root"))
    };
    s.slot.set(s.b.to());
    let worker = {
        let (root, tracer) = (root.clone(), s.tracer.clone());
        std::thread::spawn(move || {
            let _guard = root.attach();
            tracer.in_span("child", |_| drop(tracer.start("grandchild")));
            tracer.start("handed over")
        })
    };
    drop(worker.join().unwrap());
    root.span().end();
    drop(s.tracer.start_with_context("late", &root));
    s.expect(&["child", "grandchild", "handed over", "late", "root"], &[]);
}

#[test]
fn a_child_with_no_binding_left_uses_its_own_scope_else_is_an_orphan() {
    let s = Setup::with("orphan", |b| b.with_linger(Duration::ZERO));
    s.slot.set(s.b.to());
    let root = root(&s.tracer, &s.a.to(), "root");
    root.span().end();
    drop(
        s.tracer
            .start_with_context("own scope", &s.b.to().in_context(&root)),
    );
    // The explicit context still has the scope in it, which is its own.
    drop(s.tracer.start_with_context("kept scope", &root));
    let bare = Context::new().with_remote_span_context(root.span().span_context().clone());
    assert!(!bare.span().span_context().is_remote());
    let orphan = bare.with_span(s.tracer.start_with_context("orphan", &bare));
    drop(s.tracer.start_with_context("orphan's child", &orphan));
    drop(orphan);
    {
        let _b = s.b.to().enter();
        drop(s.tracer.start_with_context("current scope", &bare));
    }
    s.expect(&["kept scope", "root"], &["current scope", "own scope"]);
    assert_eq!(s.pipeline.stats().orphaned, 2, "never the global");
}

#[test]
fn bindings_linger_then_end() {
    let s = Setup::with("linger", |b| b.with_linger(Duration::from_millis(200)));
    let root = root(&s.tracer, &s.a.to(), "root");
    let bare = Context::new().with_remote_span_context(root.span().span_context().clone());
    root.span().end();
    drop(s.tracer.start_with_context("late", &bare));
    eventually("the binding ends", || s.pipeline.stats().bound_traces == 0);
    drop(s.tracer.start_with_context("too late", &bare));
    s.expect(&["late", "root"], &[]);
    assert_eq!(s.pipeline.stats().orphaned, 1);
}

#[test]
fn bindings_expire_and_are_counted() {
    let s = Setup::with("expire", |b| {
        b.with_max_trace_age(Duration::from_millis(100))
    });
    let root = root(&s.tracer, &s.a.to(), "root");
    eventually("it expires", || s.pipeline.stats().expired_bindings == 1);
    drop(root);
    s.expect(&[], &[]);
    assert_eq!(s.pipeline.stats().orphaned, 1);
    assert_eq!(s.pipeline.stats().bound_traces, 0);
}

#[test]
fn a_foreign_trace_id_is_no_key_to_another_tenant() {
    let s = Setup::new("foreign");
    s.slot.set(Destination::discard());
    let id = remote(0xabc, 0x1, TraceFlags::SAMPLED);
    let start = |place: &Place, name: &'static str| {
        let cx = place
            .to()
            .in_context(&Context::new())
            .with_remote_span_context(id.clone());
        cx.with_span(s.tracer.start_with_context(name, &cx))
    };
    let a = start(&s.a, "a root");
    let b = start(&s.b, "b root");
    for (cx, name) in [(&a, "a child"), (&b, "b child")] {
        // Without the scope: the binding alone decides.
        let bare = Context::new().with_remote_span_context(cx.span().span_context().clone());
        let child = bare.with_span(s.tracer.start_with_context(name, &bare));
        drop(s.tracer.start_with_context(name, &child));
    }
    drop((a, b));
    s.expect(
        &["a child", "a child", "a root"],
        &["b child", "b child", "b root"],
    );
    assert_eq!(s.pipeline.stats().discarded, 0);
}

#[test]
fn an_own_trace_that_comes_back_with_another_tenant_stays_apart() {
    let s = Setup::with("loopback", |b| b.with_linger(Duration::from_millis(50)));
    let a = root(&s.tracer, &s.a.to(), "a root");
    let sent = a.span().span_context().clone();
    let came_back = SpanContext::new(
        sent.trace_id(),
        sent.span_id(),
        sent.trace_flags(),
        true,
        TraceState::NONE,
    );
    let cx =
        s.b.to()
            .in_context(&Context::new())
            .with_remote_span_context(came_back);
    let b = cx.with_span(s.tracer.start_with_context("b root", &cx));
    let b_span = b.span().span_context().clone();
    drop(b);
    std::thread::sleep(Duration::from_millis(500));
    // B's segment is over while A's is open.
    let bare = Context::new().with_remote_span_context(b_span);
    drop(s.tracer.start_with_context("b late", &bare));
    drop(s.tracer.start_with_context("a child", &a));
    drop(a);
    s.expect(&["a child", "a root"], &["b root"]);
    assert_eq!(s.pipeline.stats().orphaned, 1);
}

#[test]
fn a_remote_parent_makes_a_local_root() {
    let s = Setup::new("remote-parent");
    s.slot.set(s.a.to());
    for (flags, name) in [
        (TraceFlags::SAMPLED, "sampled"),
        (TraceFlags::default(), "unsampled"),
    ] {
        let cx = Context::new().with_remote_span_context(remote(7, 7, flags));
        drop(s.tracer.start_with_context(name, &cx));
    }
    // The SDK's default sampler is parent-based: nothing comes of an unsampled remote parent.
    s.expect(&["sampled"], &[]);
}

#[test]
fn recorded_but_unsampled_spans_neither_bind_nor_are_stored() {
    #[derive(Clone, Debug)]
    struct RecordOnly;
    impl opentelemetry_sdk::trace::ShouldSample for RecordOnly {
        fn should_sample(
            &self,
            _: Option<&Context>,
            _: TraceId,
            name: &str,
            _: &opentelemetry::trace::SpanKind,
            _: &[KeyValue],
            _: &[Link],
        ) -> opentelemetry_sdk::trace::SamplingResult {
            use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult};
            SamplingResult {
                decision: match name {
                    "quiet" => SamplingDecision::RecordOnly,
                    _ => SamplingDecision::RecordAndSample,
                },
                attributes: Vec::new(),
                trace_state: TraceState::NONE,
            }
        }
    }
    let s = Setup::new("record-only");
    let tracer = SdkTracerProvider::builder()
        .with_sampler(RecordOnly)
        .with_span_processor(s.pipeline.processor())
        .build()
        .tracer("t");
    let quiet = root(&tracer, &s.a.to(), "quiet");
    assert!(quiet.span().is_recording());
    assert_eq!(s.pipeline.stats().bound_traces, 0);
    // Its child is a local root of its own: the parent is not recorded.
    drop(tracer.start_with_context("child", &s.b.to().in_context(&quiet)));
    drop(quiet);
    s.expect(&[], &["child"]);
    assert_eq!(s.pipeline.stats().unrouted, 0);
}

#[test]
fn sampled_out_traces_cost_nothing() {
    let s = Setup::new("sampled-out");
    let tracer = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOff)
        .with_span_processor(s.pipeline.processor())
        .build()
        .tracer("t");
    let root = root(&tracer, &s.a.to(), "root");
    drop(tracer.start_with_context("child", &root));
    drop(root);
    s.expect(&[], &[]);
    assert!(s.pipeline.stats().locations.is_empty());
}

#[test]
fn a_sampler_sees_the_destination() {
    let s = Setup::with("sampler", |b| b.with_sampling_ratio(0.0));
    let tracer = SdkTracerProvider::builder()
        .with_sampler(s.pipeline.sampler())
        .with_span_processor(s.pipeline.processor())
        .build()
        .tracer("t");
    let all = s.a.to().with_sampling_ratio(1.0).unwrap();
    let half = s.b.to().with_sampling_ratio(0.5).unwrap();
    for _ in 0..400 {
        let a = root(&tracer, &all, "all");
        drop(tracer.start_with_context("child", &a));
        drop(root(&tracer, &half, "half"));
        drop(root(&tracer, &Place::new("sampler-default").to(), "none"));
        let _scope = half.enter();
        drop(tracer.start("half"));
    }
    // A parent's decision is followed, whatever the ratio.
    for flags in [TraceFlags::SAMPLED, TraceFlags::default()] {
        let cx = half
            .in_context(&Context::new())
            .with_remote_span_context(remote(u128::MAX, 1, flags));
        drop(tracer.start_with_context("remote", &cx));
    }
    flush(&s.pipeline);
    assert_eq!(s.a.len(), 800);
    let kept = s.b.len();
    assert!((300..500).contains(&kept), "{kept} of 800 at one half");
    assert_eq!(s.b.names().iter().filter(|n| *n == "remote").count(), 1);
    assert_eq!(s.pipeline.stats().locations.len(), 2);
    settled(&s.pipeline);
}

#[test]
fn suppressed_spans_are_none_of_ours() {
    let s = Setup::new("suppressed");
    s.slot.set(s.a.to());
    let clean = Context::new();
    {
        let _quiet = Context::enter_telemetry_suppressed_scope();
        // The SDK asks only the context it is given; we ask the current one too.
        let cx = clean.with_span(s.tracer.start_with_context("suppressed", &clean));
        drop(s.tracer.start_with_context("suppressed child", &cx));
        drop(cx);
    }
    s.span("heard");
    s.expect(&["heard"], &[]);
    assert_eq!(s.pipeline.stats().unrouted + s.pipeline.stats().orphaned, 0);
}

#[test]
fn what_a_sink_does_is_not_traced() {
    let slot = Arc::new(GlobalSlot::new());
    let pipeline = quick().with_global(slot.clone()).build().unwrap();
    let app = tracer(&pipeline);
    let inner = app.clone();
    let place = Place::on_write("reentrant", move |_, _| {
        inner.in_span("from current", |_| {});
        drop(inner.start_with_context("from nothing", &Context::new()));
        let blocking = inner.clone();
        tokio::task::spawn_blocking(move || {
            drop(blocking.start_with_context("on the pool", &Context::new()));
        });
        let spawned = inner.clone();
        tokio::spawn(async move {
            drop(spawned.start_with_context("in a task", &Context::new()));
        });
        Step::Do
    });
    slot.set(place.to());
    for _ in 0..5 {
        drop(app.start("mine"));
        flush(&pipeline);
    }
    std::thread::sleep(Duration::from_millis(200));
    flush(&pipeline);
    assert_eq!(place.names(), ["mine"; 5]);
    assert_eq!(place.stats(&pipeline).accepted, 5);
    assert_eq!(pipeline.stats().unrouted + pipeline.stats().orphaned, 0);
    settled(&pipeline);
}

/// A future that starts one span at each of a few polls.
async fn spans(tracer: SdkTracer, name: &'static str) {
    for _ in 0..3 {
        drop(tracer.start(name));
        tokio::task::yield_now().await;
    }
}

fn interleaved(runtime: &tokio::runtime::Runtime, name: &str) {
    let s = Setup::new(name);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..20)
            .flat_map(|_| {
                [(&s.a, "a"), (&s.b, "b")].map(|(place, name)| {
                    tokio::spawn(spans(s.tracer.clone(), name).with_destination(place.to()))
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(s.tracer.start("outside"));
    });
    s.expect(&["a"; 60], &["b"; 60]);
    assert_eq!(s.pipeline.stats().unrouted, 1);
}

#[test]
fn tasks_on_a_current_thread_runtime() {
    interleaved(
        &tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap(),
        "current-thread",
    );
}

#[test]
fn tasks_on_a_multi_thread_runtime() {
    interleaved(
        &tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .build()
            .unwrap(),
        "multi-thread",
    );
}

#[test]
fn plain_threads() {
    let s = Setup::new("threads");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            for (place, name) in [(&s.a, "a"), (&s.b, "b")] {
                let s = &s;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _scope = place.to().enter();
                        s.span(name);
                    }
                });
            }
        }
    });
    s.expect(&["a"; 200], &["b"; 200]);
}

#[test]
fn only_the_destination_is_overlaid_on_a_future() {
    let s = Setup::new("overlay");
    // The span entered around the future stays the parent of what is inside.
    let outer = root(&s.tracer, &s.a.to(), "outer");
    let tracer = s.tracer.clone();
    let inside = async move {
        drop(tracer.start("inside"));
        tokio::task::yield_now().await;
        drop(tracer.start("inside"));
    }
    .with_destination(s.a.to());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(inside.with_context(outer.clone()));
    let id = outer.span().span_context().span_id();
    drop(outer);
    s.expect(&["inside", "inside", "outer"], &[]);
    s.a.see(|seen| {
        let inside = seen.spans.iter().filter(|s| s.name() == "inside");
        assert!(inside.map(|s| s.parent_span_id()).all(|p| p == Some(id)));
    });
}

#[test]
fn nested_futures_and_what_a_future_leaves_behind() {
    let s = Setup::new("nested-futures");
    let tracer = s.tracer.clone();
    let inner = {
        let tracer = tracer.clone();
        async move { drop(tracer.start("inner")) }.with_destination(s.b.to())
    };
    let outer = {
        let tracer = tracer.clone();
        async move {
            drop(tracer.start("before"));
            inner.await;
            drop(tracer.start("after"));
        }
        .with_destination(s.a.to())
    };
    outer.now_or_never().unwrap();
    s.span("outside");
    s.expect(&["after", "before"], &["inner"]);
    assert_eq!(s.pipeline.stats().unrouted, 1);
}

/// Starts a span when it is dropped, as a clean-up guard does.
struct OnDrop(SdkTracer, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        drop(self.0.start(self.1));
    }
}

#[test]
fn a_cancelled_future_is_dropped_inside_its_scope() {
    let s = Setup::new("cancel");
    s.slot.set(s.b.to());
    for polls in 0..2 {
        let guard = OnDrop(s.tracer.clone(), "cleanup");
        let mut future = Box::pin(
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
            .with_destination(s.a.to()),
        );
        for _ in 0..polls {
            assert!(future.as_mut().now_or_never().is_none());
        }
        drop(future);
    }
    s.span("outside");
    s.expect(&["cleanup", "cleanup"], &["outside"]);
}

#[test]
fn a_panicking_future_restores_what_was_there() {
    let s = Setup::new("future-panic");
    let future = async { panic!("as told") }.with_destination(s.a.to());
    let result = std::panic::AssertUnwindSafe(future)
        .catch_unwind()
        .now_or_never();
    assert!(result.unwrap().is_err());
    s.span("outside");
    s.expect(&[], &[]);
    assert_eq!(s.pipeline.stats().unrouted, 1);
}

#[test]
fn a_stream_keeps_its_scope_at_every_item_and_when_dropped() {
    let s = Setup::new("stream");
    let (tracer, guard) = (s.tracer.clone(), OnDrop(s.tracer.clone(), "cleanup"));
    let mut stream = Box::pin(
        stream::iter(0..3)
            .map(move |i| {
                let _keep = &guard;
                drop(tracer.start("item"));
                i
            })
            .with_destination(s.a.to()),
    );
    assert_eq!(stream.size_hint(), (3, Some(3)));
    while let Some(i) = stream.next().now_or_never().unwrap() {
        s.span("between");
        assert!(i < 3);
    }
    drop(stream);
    s.expect(&["cleanup", "item", "item", "item"], &[]);
    assert_eq!(s.pipeline.stats().unrouted, 3);
}

#[test]
fn an_explicit_destination_for_one_root_wins_over_the_current_scope() {
    let s = Setup::new("explicit");
    let _a = s.a.to().enter();
    span_to(&s.tracer, &s.b.to(), "explicit");
    drop(s.tracer.start_with_context("bare context", &Context::new()));
    s.expect(&["bare context"], &["explicit"]);
}

#[test]
fn the_context_carries_the_scope_wherever_it_goes() {
    let s = Setup::new("carried");
    let carried = {
        let _a = s.a.to().enter();
        async {
            tokio::task::yield_now().await;
            drop(s.tracer.start("with_current_context"));
        }
        .with_current_context()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(carried);
    s.expect(&["with_current_context"], &[]);
}

#[test]
fn resolve_says_where_a_root_would_go() {
    let s = Setup::new("resolve");
    assert_eq!(s.pipeline.resolve(&Context::new()), None);
    s.slot.set(s.b.to());
    assert_eq!(s.pipeline.resolve(&Context::new()), Some(s.b.to()));
    let cx = s.a.to().in_context(&Context::new());
    assert_eq!(s.pipeline.resolve(&cx), Some(s.a.to()));
    let _scope = s.a.to().enter();
    assert_eq!(s.pipeline.resolve(&Context::new()), Some(s.a.to()));
    assert_eq!(trace_destination_core::current(), Some(s.a.to()));
}
