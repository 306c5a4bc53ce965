//! The writer of `cargo xtask conformance --live --backend unity-catalog`: a process of its own, so
//! that it can be killed. Not meant for people; the quickstart and `replay` are.
//!
//! ```text
//! live_writer URI files FILE...                   OTLP requests, each flushed
//! live_writer URI batches WRITER FIRST LAST SPANS made batches straight to the sink, each once stored
//!                                                 told as `stored <sequence>`
//! live_writer URI flow WRITER TRACES SPANS        made traces through a pipeline
//! live_writer URI values STEP TRACES              made traces straight to the sink: in step 1 with
//!                                                 values set on all but the last, in step 2 other
//!                                                 values of every second one, without spans
//! ```
//!
//! `LIVE_STORE_TIMEOUT` is how long the store's client waits for an answer; it then hardly tries
//! again by itself.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use opentelemetry::trace::{SpanId, TraceId};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trace_destination_core::{
    Attribute, BatchId, Destination, Error, Ingested, LocationUri, Overflow, Pipeline, ProcessEnv,
    Resource, RetryPolicy, Scope, Span, SpanGroup, SpanRecord, TraceBatch, TraceLocation,
    TraceSink, TraceUpdate,
};
use trace_destination_otlp::decode_protobuf;
use trace_destination_unity_catalog::{StorageOptions, UnityCatalogLocation};
use uuid::Uuid;

/// Longer than any case.
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two attempts of a batch.
const PAUSE: Duration = Duration::from_millis(20);

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // Whoever started it holds the other end of the standard input, and is gone when it closes.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(beneath) = source {
                text.push_str(&format!(": {beneath}"));
                source = beneath.source();
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failed> {
    let [uri, what, rest @ ..] = arguments else {
        return Err("see the documentation of this program for its arguments".into());
    };
    let location = Arc::new(location(uri)?);
    let numbers: Result<Vec<u64>, _> = rest.iter().map(|n| n.parse()).collect();
    match (what.as_str(), numbers.as_deref()) {
        ("files", _) => files(location, rest),
        ("batches", Ok(&[writer, first, last, spans])) => {
            batches(&*location, writer, first, last, spans)
        }
        ("flow", Ok(&[writer, traces, spans])) => flow(location, writer, traces, spans),
        ("values", Ok(&[step, traces])) => values(&*location, step, traces),
        _ => Err(format!("{what} {rest:?} is not understood").into()),
    }
}

/// The location as the environment completes it.
fn location(uri: &str) -> Result<UnityCatalogLocation, Error> {
    let mut storage = StorageOptions::new();
    if let Ok(timeout) = std::env::var("LIVE_STORE_TIMEOUT") {
        // The store's client gives up early, so that the pipeline has to try again too.
        storage = storage
            .with_option("timeout", timeout)
            .with_retry_timeout(Duration::from_millis(300));
    }
    UnityCatalogLocation::builder()
        .with_uri(&uri.parse::<LocationUri>()?)
        .with_storage(storage)
        .with_env(&ProcessEnv)
        .build()
}

fn pipeline() -> Result<Pipeline, Error> {
    Pipeline::builder()
        .strict()
        .with_overflow(Overflow::Block(PATIENCE))
        .with_retry(RetryPolicy {
            deadline: PATIENCE,
            ..RetryPolicy::default()
        })
        .build()
}

fn files(location: Arc<UnityCatalogLocation>, files: &[String]) -> Result<(), Failed> {
    let destination = Destination::from_location(location);
    let pipeline = pipeline()?;
    for file in files {
        for group in decode_protobuf(&std::fs::read(file)?)? {
            if let Some(refused) = group.refused.into_iter().next() {
                return Err(refused.error.into());
            }
            taken(&pipeline.ingest(group.resource, group.scope, group.spans, &destination))?;
        }
        let report = pipeline.flush(PATIENCE).wait();
        if !report.all_stored() {
            return Err(format!("flush: {report}").into());
        }
    }
    let report = pipeline.shutdown(PATIENCE).wait();
    let stored: u64 = report.locations.iter().map(|l| l.stored).sum();
    println!("{stored}");
    Ok(())
}

fn taken(ingested: &Ingested) -> Result<(), Failed> {
    match ingested.dropped {
        0 => Ok(()),
        dropped => Err(format!("{dropped} spans are dropped on the way in").into()),
    }
}

/// Batches with given ids, as a pipeline that forgot how far it came would write them again.
fn batches(
    location: &dyn TraceLocation,
    writer: u64,
    first: u64,
    last: u64,
    spans: u64,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut sink: Option<Box<dyn TraceSink>> = None;
        for sequence in first..=last {
            let id = BatchId {
                writer: Uuid::from_u128(
                    0x11fe_0000_0000_4000_8000_0000_0000_0000 | u128::from(writer),
                ),
                sequence,
            };
            let batch = TraceBatch::new(id, vec![made(writer, sequence, spans)], Vec::new());
            let began = Instant::now();
            loop {
                let outcome = match &sink {
                    Some(sink) => sink.write(&batch).await.map(|written| written.refused),
                    None => match location.open().await {
                        Ok(opened) => {
                            sink = Some(opened);
                            continue;
                        }
                        Err(error) => Err(error),
                    },
                };
                match outcome {
                    Ok(refused) if refused.is_empty() => break,
                    Ok(refused) => return Err(format!("refused: {refused:?}").into()),
                    Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
                    Err(error) => eprintln!(
                        "again: {error} {:?}",
                        std::error::Error::source(&error).map(ToString::to_string)
                    ),
                }
                tokio::time::sleep(PAUSE).await;
            }
            println!("stored {sequence}");
            std::io::stdout().flush()?;
        }
        match sink {
            Some(sink) => Ok(sink.close().await?),
            None => Ok(()),
        }
    })
}

fn flow(
    location: Arc<UnityCatalogLocation>,
    writer: u64,
    traces: u64,
    spans: u64,
) -> Result<(), Failed> {
    let uri = location.uri().clone();
    let destination = Destination::from_location(location);
    let pipeline = pipeline()?;
    for trace in 1..=traces {
        let group = made(writer, trace, spans);
        let records = group.spans.into_iter().map(Span::into_record).collect();
        taken(&pipeline.ingest(group.resource, group.scope, records, &destination))?;
        if trace % 3 == 0 {
            let report = pipeline.flush(PATIENCE).wait();
            if !report.all_stored() {
                return Err(format!("flush: {report}").into());
            }
            println!("stored {trace}");
        }
    }
    let report = pipeline.shutdown(PATIENCE).wait();
    if !report.all_stored() {
        return Err(format!("shutdown: {report}").into());
    }
    if let Some(stats) = pipeline.stats().location(&uri) {
        println!("batches {} retries {}", stats.batches, stats.retries);
    }
    Ok(())
}

/// Values of traces, each step as a process of its own; `crates/live` makes the same.
fn values(location: &dyn TraceLocation, step: u64, traces: u64) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sink = location.open().await?;
        for trace in 1..=traces {
            let (mut groups, mut updates) = (Vec::new(), Vec::new());
            let group = made(1, trace, 2);
            let update = TraceUpdate::new(group.spans[0].trace_id());
            match step {
                1 => {
                    groups.push(group);
                    updates.extend((trace < traces).then(|| first_values(update, trace)));
                }
                _ => updates.extend((trace % 2 == 1).then(|| later_values(update, trace))),
            }
            let id = BatchId {
                writer: Uuid::from_u128(u128::from(step) << 64),
                sequence: trace,
            };
            let written = sink.write(&TraceBatch::new(id, groups, updates)).await?;
            if let Some(error) = written.lost_updates.into_iter().next() {
                return Err(error.into());
            }
        }
        Ok(sink.close().await?)
    })
}

fn first_values(mut update: TraceUpdate, trace: u64) -> TraceUpdate {
    update.tags = [
        ("env", "dev"),
        ("stage", "begun"),
        ("odd \"key'$.[]", "\u{fc}\n\t\\"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    update.metadata.insert("build.number".into(), "1".into());
    update.name = Some(format!("trace {trace}"));
    update.session_id = Some(format!("session {}", trace % 3));
    update.client_request_id = Some(format!("request {trace}"));
    update.request_preview = Some(format!("hello {trace}"));
    update.run_id = trace.is_multiple_of(2).then(|| format!("run-{trace}"));
    update
}

fn later_values(mut update: TraceUpdate, trace: u64) -> TraceUpdate {
    update.tags.insert("stage".into(), "done".into());
    update.metadata.insert("build.number".into(), "2".into());
    update.user_id = Some(format!("user {trace}"));
    update.response_preview = Some(format!("bye {trace}"));
    update
}

/// One trace of a writer; `crates/live` makes the same ids.
fn made(writer: u64, trace: u64, spans: u64) -> SpanGroup {
    const START: u64 = 1_795_400_000_000_000_000;
    const MS: u64 = 1_000_000;
    let trace_id = TraceId::from(u128::from(writer) << 64 | u128::from(trace));
    let span_id = |number: u64| SpanId::from(trace << 16 | number);
    let spans = (1..=spans).map(|number| {
        let start = START + trace * 1_000 * MS + number * MS;
        let name = format!("writer {writer} trace {trace}");
        let mut span = SpanRecord::new(trace_id, span_id(number), name, start, start + MS)
            .with_attribute("writer", i64::try_from(writer).unwrap_or_default())
            .with_attribute("text", "some text that many spans carry");
        span.parent_span_id = (number > 1).then(|| span_id(1));
        Span::from(span)
    });
    SpanGroup {
        resource: Arc::new(Resource {
            attributes: vec![Attribute::new("service.name", format!("writer-{writer}"))],
            ..Resource::default()
        }),
        scope: Arc::new(Scope::default()),
        spans: spans.collect(),
    }
}
