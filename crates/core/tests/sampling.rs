//! The share of traces that is kept: by the pipeline itself, whole traces, whatever the provider.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Destination, GlobalSlot, LocationState, MLFLOW_TRACE_SAMPLING_RATIO, MemoryLocation, Pipeline,
    PipelineBuilder, new_root, update_current_trace,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn pipeline(set: impl FnOnce(PipelineBuilder) -> PipelineBuilder) -> (Pipeline, SdkTracer) {
    let builder = Pipeline::builder().with_global(Arc::new(GlobalSlot::default()));
    let pipeline = set(builder).build().unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("sampling");
    (pipeline, tracer)
}

fn with_ratio(text: &str) -> impl FnOnce(PipelineBuilder) -> PipelineBuilder {
    let env = BTreeMap::from([(MLFLOW_TRACE_SAMPLING_RATIO.to_owned(), text.to_owned())]);
    move |builder| builder.with_env(&env).unwrap()
}

fn place(name: &str) -> (MemoryLocation, Destination) {
    let location = MemoryLocation::new(name);
    (location.clone(), Destination::new(location))
}

/// A root with a child, both ended; the id of their trace.
fn trace(tracer: &SdkTracer, parent: &Context) -> TraceId {
    let root = parent.with_span(tracer.start_with_context("root", parent));
    drop(tracer.start_with_context("child", &root));
    root.span().end();
    root.span().span_context().trace_id()
}

fn stored(location: &MemoryLocation) -> HashMap<TraceId, usize> {
    let mut traces = HashMap::new();
    for stored in location.store().spans() {
        *traces.entry(stored.span.trace_id()).or_default() += 1;
    }
    traces
}

/// Flushes, and checks that nothing counts as lost; gives the spans that were sampled out.
fn sampled_out(pipeline: &Pipeline) -> u64 {
    let report = pipeline.flush(PATIENCE).wait();
    assert!(report.all_stored() && report.nothing_lost(), "{report}");
    let stats = pipeline.stats();
    assert_eq!(stats.ignored_scopes, 0);
    stats.sampled_out
}

fn sdk_keeps(ratio: f64, trace: TraceId) -> bool {
    let kind = SpanKind::Internal;
    let decided = Sampler::TraceIdRatioBased(ratio).should_sample(None, trace, "", &kind, &[], &[]);
    decided.decision == SamplingDecision::RecordAndSample
}

#[test]
fn a_ratio_of_zero_stores_nothing_and_loses_nothing() {
    let (location, to) = place("sampling-zero");
    let (pipeline, tracer) = pipeline(|b| with_ratio("0")(b).with_environment(to));
    for _ in 0..3 {
        let root = Context::new().with_span(tracer.start_with_context("root", &Context::new()));
        let _guard = root.clone().attach();
        assert!(update_current_trace(|t| t.session_id = Some("s".into())));
        drop(tracer.start("one"));
        drop(tracer.start("two"));
        root.span().end();
    }
    assert_eq!(sampled_out(&pipeline), 9);
    assert!(stored(&location).is_empty());
    // It is not even opened.
    let stats = pipeline.stats();
    assert!(
        stats
            .locations
            .iter()
            .all(|l| l.accepted == 0 && l.state == LocationState::Closed)
    );
}

#[test]
fn traces_are_whole_and_those_that_the_sdk_would_keep() {
    let (location, to) = place("sampling-half");
    let (pipeline, tracer) = pipeline(|b| with_ratio("0.5")(b).strict());
    let mut kept = HashSet::new();
    let mut dropped = 0;
    for _ in 0..400 {
        let _scope = to.enter();
        let id = trace(&tracer, &Context::current());
        match sdk_keeps(0.5, id) {
            true => drop(kept.insert(id)),
            false => dropped += 2,
        }
    }
    assert_eq!(sampled_out(&pipeline), dropped);
    assert!((100..300).contains(&kept.len()), "{}", kept.len());
    let stored = stored(&location);
    assert!(stored.values().all(|spans| *spans == 2));
    assert_eq!(stored.into_keys().collect::<HashSet<_>>(), kept);
}

#[test]
fn a_destination_has_a_ratio_of_its_own() {
    for (ratio, at_usual) in [("0", 0), ("1", 10)] {
        let (all, to_all) = place(&format!("sampling-all-{ratio}"));
        let (none, to_none) = place(&format!("sampling-none-{ratio}"));
        let (usual, to_usual) = place(&format!("sampling-usual-{ratio}"));
        let to_all = to_all.with_sampling_ratio(1.0).unwrap();
        let to_none = to_none.with_sampling_ratio(0.0).unwrap();
        let both = Destination::all([to_all.clone(), to_none.clone()]).unwrap();
        let (pipeline, tracer) = pipeline(with_ratio(ratio));
        for _ in 0..10 {
            for to in [&to_all, &to_none, &to_usual] {
                trace(&tracer, &to.in_context(&Context::new()));
            }
        }
        trace(&tracer, &both.in_context(&Context::new()));
        assert_eq!(sampled_out(&pipeline), 20 + 2 * (10 - at_usual));
        // The legs of one destination are kept or dropped together, by the highest ratio.
        assert_eq!(stored(&all).len(), 11);
        assert_eq!(stored(&none).len(), 1);
        assert_eq!(stored(&usual).len() as u64, at_usual);
    }
}

#[test]
fn without_a_destination_spans_are_unrouted_whatever_the_ratio() {
    let (pipeline, tracer) = pipeline(with_ratio("0"));
    trace(&tracer, &Context::new());
    trace(&tracer, &Destination::discard().in_context(&Context::new()));
    assert!(!pipeline.flush(PATIENCE).wait().nothing_lost());
    let stats = pipeline.stats();
    assert_eq!(
        (stats.unrouted, stats.discarded, stats.sampled_out),
        (2, 2, 0)
    );
}

fn remote(trace: TraceId) -> SpanContext {
    let span = SpanId::from(7_u64);
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

#[test]
fn a_trace_from_another_process_is_decided_as_it_was_there() {
    let (location, to) = place("sampling-remote");
    let (low, high) = (TraceId::from(1_u128), TraceId::from(u128::MAX));
    assert!(sdk_keeps(0.1, low) && !sdk_keeps(0.1, high));
    let (pipeline, tracer) = pipeline(|b| with_ratio("0.1")(b).with_environment(to));
    for id in [low, high] {
        trace(
            &tracer,
            &Context::new().with_remote_span_context(remote(id)),
        );
    }
    assert_eq!(sampled_out(&pipeline), 2);
    assert_eq!(stored(&location), HashMap::from([(low, 2)]));
    // Where the pipeline's sampler decides, the flag tells what was decided.
    let _sampler = pipeline.sampler();
    trace(
        &tracer,
        &Context::new().with_remote_span_context(remote(high)),
    );
    assert_eq!(sampled_out(&pipeline), 2);
    assert_eq!(stored(&location).len(), 2);
}

/// A child that starts when its trace is forgotten is decided by the id, as its trace was.
#[test]
fn nothing_of_a_dropped_trace_comes_late() {
    let (location, to) = place("sampling-late");
    let (pipeline, tracer) = pipeline(|b| with_ratio("0.5")(b).with_linger(Duration::ZERO));
    let cx = to.in_context(&Context::new());
    let mut kept = 0;
    for _ in 0..100 {
        let root = cx.with_span(tracer.start_with_context("root", &cx));
        root.span().end();
        drop(tracer.start_with_context("late", &root));
        kept += u64::from(sdk_keeps(0.5, root.span().span_context().trace_id()));
    }
    assert_eq!(sampled_out(&pipeline), 2 * (100 - kept));
    assert!(stored(&location).values().all(|spans| *spans == 2));
    assert_eq!(pipeline.stats().orphaned, 0);
}

#[test]
fn a_root_detached_from_a_dropped_trace_is_decided_for_itself() {
    let (location, to) = place("sampling-detached");
    let (pipeline, tracer) = pipeline(with_ratio("0"));
    let cx = to.in_context(&Context::new());
    let root = cx.with_span(tracer.start_with_context("root", &cx));
    let guard = root.clone().attach();
    let kept = place("sampling-kept").1.with_sampling_ratio(1.0).unwrap();
    trace(&tracer, &kept.in_context(&new_root()));
    drop(guard);
    root.span().end();
    assert_eq!(sampled_out(&pipeline), 1);
    assert!(stored(&location).is_empty());
    assert_eq!(stored(&MemoryLocation::new("sampling-kept")).len(), 1);
}
