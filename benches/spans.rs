//! Span start and end through the processor, against the SDK's own batch span processor, which
//! routes nothing.

mod workload;

use criterion::Criterion;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trace_destination_benches::{
    Comparison, Goal, NullExporter, NullLocation, Run, Sample, Void, criterion,
};
use trace_destination_core::{Destination, Pipeline};
use workload::{Side, Workers};

/// Room for everything a round holds, so that the budget is no part of the measurement.
const BUDGET: usize = 4 << 30;
const FLUSH: Duration = Duration::from_secs(30);
/// The sides are close, and single rounds vary by a third.
const PAIRS: usize = 120;

/// Our processor, in front of locations that keep nothing.
fn ours(destinations: usize) -> (Side, Pipeline, Arc<AtomicU64>) {
    let stored = Arc::new(AtomicU64::new(0));
    let all: Vec<Destination> = (0..destinations)
        .map(|i| Destination::new(NullLocation::new(&format!("tenant-{i}"), stored.clone())))
        .collect();
    let pipeline = Pipeline::builder()
        .strict()
        .with_budget(BUDGET, BUDGET)
        .build()
        .expect("a pipeline with default settings starts");
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    (Side::new(provider, &all), pipeline, stored)
}

/// The SDK's processor with a queue that holds a million spans and otherwise default settings. Its
/// spans start in the same contexts, where it finds nothing of interest.
fn stock(destinations: usize) -> (Side, NullExporter) {
    let exporter = NullExporter::default();
    let processor = BatchSpanProcessor::builder(exporter.clone())
        .with_batch_config(
            BatchConfigBuilder::default()
                .with_max_queue_size(1_000_000)
                .build(),
        )
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .build();
    let unused = Arc::default();
    let all: Vec<Destination> = (0..destinations)
        .map(|i| {
            Destination::new(NullLocation::new(
                &format!("tenant-{i}"),
                Arc::clone(&unused),
            ))
        })
        .collect();
    (Side::new(provider, &all), exporter)
}

fn row(run: &Run, c: &mut Criterion, spans_per_trace: usize, threads: usize, destinations: usize) {
    let goal = if spans_per_trace == 1 { 1.15 } else { 1.0 };
    let name = format!(
        "span: {spans_per_trace} per trace, {threads} thread{}, {destinations} destination{}",
        if threads == 1 { "" } else { "s" },
        if destinations == 1 { "" } else { "s" },
    );
    if !run.wants(&name) {
        return;
    }
    let spans = run.choose(200_000, 2_000);
    let traces = spans / spans_per_trace / threads;
    let spans = (traces * spans_per_trace * threads) as u64;
    let workers = Workers::start(threads);

    let (ours, pipeline, stored) = ours(destinations);
    let (stock, exporter) = stock(destinations);
    let (ours, stock) = (Arc::new(ours), Arc::new(stock));
    let mut our_total = 0;
    let mut our_round = || -> Result<Sample, Void> {
        let cost = workers.round(&ours, spans_per_trace, traces, || {
            let report = pipeline.flush(FLUSH).wait();
            if !report.all_stored() {
                return Err(Void(format!("ours: {report}")));
            }
            Ok(())
        })?;
        our_total += spans;
        match stored.load(Ordering::Relaxed) {
            n if n == our_total => Ok(cost.sample(spans)),
            n => Err(Void(format!("ours stored {n} of {our_total} spans"))),
        }
    };
    let mut stock_total = 0;
    let mut stock_round = || -> Result<Sample, Void> {
        let cost = workers.round(&stock, spans_per_trace, traces, || {
            stock
                .provider
                .force_flush()
                .map_err(|e| Void(format!("baseline: {e}")))
        })?;
        stock_total += spans;
        match exporter.spans() {
            n if n == stock_total => Ok(cost.sample(spans)),
            n => Err(Void(format!(
                "baseline exported {n} of {stock_total} spans"
            ))),
        }
    };
    Comparison::new(&name, "BatchSpanProcessor", Goal::AtMost(goal))
        .with_pairs(PAIRS)
        .with_unit(1e9, "ns per span")
        .with_also(&[
            "CPU of the application threads",
            "CPU incl. delivery",
            "wall until delivered",
        ])
        .run(run, &mut our_round, &mut stock_round);

    if run.is_pairs_only() {
        return;
    }
    let mut group = c.benchmark_group(name);
    group.throughput(criterion::Throughput::Elements(spans));
    group.sample_size(10);
    for (side, round) in [
        ("ours", &mut our_round as &mut dyn FnMut() -> _),
        ("BatchSpanProcessor", &mut stock_round),
    ] {
        group.bench_function(side, |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| match round() {
                        Ok(sample) => Duration::from_secs_f64(sample.value * spans as f64),
                        Err(Void(reason)) => panic!("void: {reason}"),
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

fn main() {
    let run = Run::from_args();
    let mut c = criterion();
    for destinations in [1, 1000] {
        for threads in [1, 2] {
            row(&run, &mut c, 5, threads, destinations);
        }
    }
    for threads in [1, 2] {
        row(&run, &mut c, 1, threads, 1000);
    }
    c.final_summary();
}
