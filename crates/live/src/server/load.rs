//! Load on a server through the SDK and a pipeline, and what the server's database has of it.

use crate::stored::Spans;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trace_destination::{
    BatchLimits, Destination, FlushReport, LocationUri, Pipeline, RetryPolicy, TraceLocation,
};
use trace_destination_server::ServerLocation;

/// The experiment a span belongs to, carried by the span itself.
const BELONGS: &str = "live.belongs";

/// How long the database may be busy with the server's own writing.
const BUSY: Duration = Duration::from_secs(30);

/// An experiment of a server, as a location with a short patience for single requests.
pub(super) fn location(
    url: &str,
    experiment: &str,
    timeout: Duration,
) -> Result<ServerLocation, String> {
    let uri: LocationUri = format!("{url}?experiment_name={experiment}")
        .parse()
        .map_err(|e: trace_destination::Error| e.to_string())?;
    ServerLocation::builder()
        .with_uri(&uri)
        .with_timeout(timeout)
        .build()
        .map_err(|e| e.to_string())
}

/// A pipeline that seals and retries soon, and loses nothing for want of memory.
pub(super) fn pipeline() -> Result<Pipeline, String> {
    Pipeline::builder()
        .strict()
        .with_batch_limits(BatchLimits {
            age: Duration::from_millis(100),
            ..BatchLimits::default()
        })
        .with_retry(RetryPolicy {
            initial: Duration::from_millis(50),
            max: Duration::from_millis(500),
            ..RetryPolicy::default()
        })
        .with_budget(512 << 20, 256 << 20)
        .build()
        .map_err(|e| e.to_string())
}

/// What must be where, by experiment.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<String, Spans>>);

impl Book {
    fn note(&self, experiment: &str, cx: &Context) {
        let span = cx.span().span_context().clone();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(experiment.to_owned())
            .or_default()
            .entry(format!("tr-{}", span.trace_id()))
            .or_default()
            .insert(span.span_id().to_string());
    }
}

/// An experiment to write to.
#[derive(Clone)]
pub(super) struct To {
    pub(super) experiment: String,
    pub(super) destination: Destination,
}

impl To {
    pub(super) fn new(experiment: &str, location: impl TraceLocation) -> Self {
        Self {
            experiment: experiment.to_owned(),
            destination: Destination::new(location),
        }
    }
}

/// What is written: by so many tasks on two threads, each one trace after the other, to the
/// experiments in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) tasks: usize,
    /// Traces of one task; what comes first, these or the signal to stop, ends it.
    pub(super) traces: usize,
    pub(super) spans_per_trace: usize,
    /// Between two traces of a task.
    pub(super) pause: Duration,
}

/// Writes until everything is written, or `stop` says so. Every span is in the book before it ends.
pub(super) fn run(
    pipeline: &Pipeline,
    to: &[To],
    book: &Arc<Book>,
    load: Load,
    stop: &Arc<AtomicBool>,
) -> Result<Duration, String> {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("live");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .map_err(|e| format!("start a runtime: {e}"))?;
    let began = Instant::now();
    let tasks: Vec<_> = (0..load.tasks)
        .map(|task| {
            let (tracer, book, stop) = (tracer.clone(), book.clone(), stop.clone());
            let to = to.to_vec();
            runtime.spawn(async move {
                let mut longest = Duration::ZERO;
                for n in 0..load.traces {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let to = &to[(task + n * load.tasks) % to.len()];
                    let start = |name: &'static str, cx: &Context| {
                        tracer
                            .span_builder(name)
                            .with_attributes([
                                KeyValue::new(BELONGS, to.experiment.clone()),
                                KeyValue::new("mlflow.spanInputs", format!("{{\"n\": {n}}}")),
                            ])
                            .start_with_context(&tracer, cx)
                    };
                    let outer = to.destination.in_context(&Context::new());
                    let root = Context::new().with_span(start("request", &outer));
                    book.note(&to.experiment, &root);
                    for _ in 1..load.spans_per_trace {
                        let cx = Context::new().with_span(start("step", &root));
                        book.note(&to.experiment, &cx);
                        longest = longest.max(timed(|| cx.span().end()));
                    }
                    longest = longest.max(timed(|| root.span().end()));
                    tokio::time::sleep(load.pause).await;
                }
                longest
            })
        })
        .collect();
    for task in tasks {
        runtime
            .block_on(task)
            .map_err(|e| format!("a task that writes: {e}"))?;
    }
    Ok(began.elapsed())
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

/// An error unless a flush stored everything.
pub(super) fn flush(pipeline: &Pipeline, deadline: Duration) -> Result<FlushReport, String> {
    let report = pipeline.flush(deadline).wait();
    match report.all_stored() {
        true => Ok(report),
        false => Err(format!("flush did not store everything:\n{report}")),
    }
}

/// Whether the database holds exactly what the book says of one experiment.
pub(super) fn verify_one(db: &Path, book: &Book, experiment: &str) -> Result<usize, String> {
    let all = book.0.lock().unwrap_or_else(PoisonError::into_inner);
    let one = all.get(experiment).cloned().unwrap_or_default();
    let one = Book(Mutex::new(BTreeMap::from([(experiment.to_owned(), one)])));
    verify(db, &one)
}

/// Whether the database holds exactly what the book says, each span once and where it belongs.
pub(super) fn verify(db: &Path, book: &Book) -> Result<usize, String> {
    let found = read(db, book).map_err(|e| format!("read {}: {e}", db.display()))?;
    let book = book.0.lock().unwrap_or_else(PoisonError::into_inner);
    let expected: usize = book.values().map(crate::stored::count).sum();
    let lost = expected - found.right.min(expected);
    if (lost, found.doubled, found.misrouted, found.foreign) != (0, 0, 0, 0) {
        return Err(format!(
            "of {expected} spans {lost} are lost; {} doubled, {} misrouted, {} of nobody",
            found.doubled, found.misrouted, found.foreign
        ));
    }
    Ok(expected)
}

#[derive(Default)]
struct Found {
    right: usize,
    doubled: usize,
    misrouted: usize,
    foreign: usize,
}

fn read(db: &Path, book: &Book) -> rusqlite::Result<Found> {
    let db = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(BUSY)?;
    let book = book.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut query = db.prepare(
        "SELECT e.name, t.request_id, s.span_id, s.experiment_id = t.experiment_id, \
         json_extract(s.content, '$.attributes.\"live.belongs\"') \
         FROM spans s LEFT JOIN trace_info t ON t.request_id = s.trace_id \
         LEFT JOIN experiments e ON e.experiment_id = t.experiment_id",
    )?;
    let mut rows = query.query([])?;
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Found::default();
    while let Some(row) = rows.next()? {
        let experiment: Option<String> = row.get(0)?;
        let trace: Option<String> = row.get(1)?;
        let span: String = row.get(2)?;
        let consistent: Option<bool> = row.get(3)?;
        let belongs: Option<String> = row.get(4)?;
        // Attribute values are JSON texts.
        let belongs = belongs.and_then(|text| serde_json::from_str::<String>(&text).ok());
        let (Some(experiment), Some(trace)) = (experiment, trace) else {
            found.foreign += 1;
            continue;
        };
        let Some(belongs) = belongs.filter(|b| book.contains_key(b)) else {
            // Other cases write to the same server; theirs are in other experiments.
            found.foreign += usize::from(book.contains_key(&experiment));
            continue;
        };
        let known = book[&belongs]
            .get(&trace)
            .is_some_and(|t| t.contains(&span));
        if belongs != experiment || consistent != Some(true) {
            found.misrouted += 1;
        } else if !known {
            found.foreign += 1;
        } else if !seen.insert((trace, span)) {
            found.doubled += 1;
        } else {
            found.right += 1;
        }
    }
    Ok(found)
}
