//! Spans stored in Delta tables, against an `ArrowWriter` that is fed the same rows ready-made and
//! cut into as many files; two tables by two threads; and the conversion to rows alone, against
//! writing them.

use arrow_array::RecordBatch;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanId, SpanKind, TraceContextExt, TraceId, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SimpleSpanProcessor, SpanData};
use parquet::arrow::ArrowWriter;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};
use trace_destination_benches::{Comparison, Goal, Run, Sample, Void};
use trace_destination_core::{
    BatchId, BatchLimits, Destination, Error, LocationUri, Pipeline, Resource, Scope, Span,
    SpanGroup, SpanRecord, TraceBatch, TraceLocation, TraceSink,
};
use trace_destination_unity_catalog::UnityCatalogLocation;
use trace_destination_unity_catalog::bench_support::{Converter, writer_options};

const FLUSH: Duration = Duration::from_secs(60);
/// Room for everything, so that the budget is no part of the measurement.
const BUDGET: usize = 4 << 30;

/// Spans of one resource and scope, and where a lane cuts them.
struct Workload {
    name: &'static str,
    resource: Arc<Resource>,
    scope: Arc<Scope>,
    spans: Vec<Span>,
    limits: BatchLimits,
}

impl Workload {
    /// Traces of five small spans, as the SDK hands them over.
    fn small(traces: usize) -> Self {
        let resource = opentelemetry_sdk::Resource::builder()
            .with_service_name("shop-agent")
            .build();
        let spans = sdk_spans(traces);
        let scope = Arc::new((&spans[0].instrumentation_scope).into());
        Self {
            name: "small spans",
            resource: Arc::new((&resource).into()),
            scope,
            spans: spans.into_iter().map(Span::from).collect(),
            limits: limits(),
        }
    }

    /// The captured traces of an agent, some 2.7 KB a span, over and over with other ids.
    fn agents(copies: u64) -> Self {
        let captured = trace_destination_otlp::sample::captured();
        let mut groups = trace_destination_otlp::decode_protobuf(captured).expect("it is OTLP");
        let group = groups.pop().expect("it has one group");
        let spans = (0..copies).flat_map(|copy| {
            group.spans.iter().map(move |span| {
                let spread = (copy + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let other = |id: SpanId| SpanId::from(u64::from_be_bytes(id.to_bytes()) ^ spread);
                let trace = u128::from_be_bytes(span.trace_id.to_bytes()) ^ u128::from(spread);
                let mut span = span.clone();
                span.trace_id = TraceId::from(trace);
                span.span_id = other(span.span_id);
                span.parent_span_id = span.parent_span_id.map(other);
                Span::from(span)
            })
        });
        Self {
            name: "agent traces",
            spans: spans.collect(),
            resource: group.resource,
            scope: group.scope,
            limits: limits(),
        }
    }

    /// The spans as a lane cuts them.
    fn batches(&self, writer: uuid::Uuid) -> Vec<TraceBatch> {
        let mut batches = Vec::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for span in &self.spans {
            let size = span.approximate_bytes();
            if part.len() == self.limits.spans || bytes + size > self.limits.bytes {
                batches.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push(span.clone());
        }
        batches.push(part);
        let batches = batches.into_iter().zip(1..);
        batches
            .map(|(spans, sequence)| {
                let group = SpanGroup {
                    resource: Arc::clone(&self.resource),
                    scope: Arc::clone(&self.scope),
                    spans,
                };
                TraceBatch::new(BatchId { writer, sequence }, vec![group], Vec::new())
            })
            .collect()
    }

    fn rate(&self, seconds: f64) -> Sample {
        Sample::from(self.spans.len() as f64 / seconds)
    }
}

/// What a lane of such a table seals its batches by.
fn limits() -> BatchLimits {
    location(Path::new("/"), 0).capabilities().batch
}

fn sdk_spans(traces: usize) -> Vec<SpanData> {
    let exporter = Keeps::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
        .build();
    let tracer = provider.tracer("bench");
    let start = |name: &'static str, cx: &Context, i: usize| {
        SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_attributes(vec![
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("session.id", format!("session-{:016x}", i % 97)),
                KeyValue::new("gen_ai.usage.input_tokens", i as i64),
                KeyValue::new("gen_ai.request.temperature", 0.7),
                KeyValue::new("stream", i.is_multiple_of(3)),
            ])
            .start_with_context(&tracer, cx)
    };
    for i in 0..traces {
        let cx = Context::new().with_span(start("request", &Context::new(), i));
        for name in ["agent", "model", "tool", "reply"] {
            start(name, &cx, i).end();
        }
        cx.span().end();
    }
    exporter.0.lock().expect("nobody panicked").clone()
}

/// An exporter that keeps what it gets.
#[derive(Clone, Debug, Default)]
struct Keeps(Arc<Mutex<Vec<SpanData>>>);

impl opentelemetry_sdk::trace::SpanExporter for Keeps {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("nobody panicked").extend(batch);
        Ok(())
    }
}

/// A table whose files are left to the system, as those of a bare `ArrowWriter` are.
fn location(root: &Path, table: usize) -> UnityCatalogLocation {
    table_at(root, table, false)
}

fn table_at(root: &Path, table: usize, durable: bool) -> UnityCatalogLocation {
    let root = root.display();
    let uri = format!("uc://main.bench.table{table}?root={root}&durable={durable}");
    let uri: LocationUri = uri.parse().expect("a path of letters is a URI");
    UnityCatalogLocation::from_uri(&uri).expect("a location")
}

fn void(what: impl std::fmt::Display) -> Void {
    Void(what.to_string())
}

/// Ingest to committed, as flush reports it; the table is there already.
fn committed(work: &Workload, records: &[SpanRecord], durable: bool) -> Result<Sample, Void> {
    let folder = tempfile::tempdir().map_err(void)?;
    let pipeline = Pipeline::builder()
        .with_budget(BUDGET, BUDGET)
        .build()
        .map_err(void)?;
    let place = Destination::new(table_at(folder.path(), 0, durable));
    let send = |spans: Vec<SpanRecord>| {
        let _ = pipeline.ingest(work.resource.clone(), work.scope.clone(), spans, &place);
        pipeline.flush(FLUSH).wait()
    };
    // One that does not come again: it would have no second row.
    let mut first = records[0].clone();
    first.start_time_unix_nano += 1;
    let report = send(vec![first]);
    if !report.all_stored() {
        return Err(void(report));
    }
    let copies = records.to_vec();
    let started = Instant::now();
    let report = send(copies);
    let took = started.elapsed().as_secs_f64();
    let stored: u64 = report.locations.iter().map(|l| l.stored).sum();
    if !report.all_stored() || stored != records.len() as u64 + 1 {
        return Err(void(report));
    }
    let _ = pipeline.shutdown(FLUSH).wait();
    Ok(work.rate(took))
}

/// One file with the properties of a table's.
fn file(rows: &RecordBatch) -> Result<Vec<u8>, Void> {
    let mut file = Vec::with_capacity(64 << 10);
    let writer = ArrowWriter::try_new_with_options(&mut file, rows.schema(), writer_options());
    let mut writer = writer.map_err(void)?;
    writer.write(rows).map_err(void)?;
    writer.close().map_err(void)?;
    Ok(file)
}

/// The same rows, ready-made, to as many files.
fn bare(work: &Workload, ready: &[RecordBatch]) -> Result<Sample, Void> {
    let folder = tempfile::tempdir().map_err(void)?;
    let started = Instant::now();
    for (i, rows) in ready.iter().enumerate() {
        let path = folder.path().join(format!("{i}.parquet"));
        std::fs::write(path, file(rows)?).map_err(void)?;
    }
    Ok(work.rate(started.elapsed().as_secs_f64()))
}

async fn store(
    opened: Result<Box<dyn TraceSink>, Error>,
    batches: &[TraceBatch],
) -> Result<(), Void> {
    let sink = opened.map_err(void)?;
    for batch in batches {
        let written = sink.write(batch).await.map_err(void)?;
        if !written.refused.is_empty() {
            return Err(void("a span was refused"));
        }
    }
    Ok(())
}

/// Batches to committed files, as many tables at once as there are threads.
fn tables(work: &Workload, threads: usize) -> Result<Sample, Void> {
    let folder = tempfile::tempdir().map_err(void)?;
    let together = Barrier::new(threads);
    let run = |table: usize| -> Result<(Instant, Instant), Void> {
        let batches = work.batches(uuid::Uuid::new_v4());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs no more than a few file handles");
        let opened = runtime.block_on(location(folder.path(), table).open());
        together.wait();
        let started = Instant::now();
        let stored = runtime.block_on(store(opened, &batches));
        let ended = Instant::now();
        // Freeing the batches is not measured, of neither thread.
        together.wait();
        stored.map(|()| (started, ended))
    };
    let times: Result<Vec<_>, Void> = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads)
            .map(|table| scope.spawn(move || run(table)))
            .collect();
        let times = threads
            .into_iter()
            .map(|t| t.join().expect("no thread panics"));
        times.collect()
    });
    let times = times?;
    let first = times.iter().map(|t| t.0).min().expect("a thread ran");
    let last = times.iter().map(|t| t.1).max().expect("a thread ran");
    let rate = work.rate((last - first).as_secs_f64()).value;
    Ok(Sample::from(rate * threads as f64))
}

/// Seconds per span to make rows.
fn convert(work: &Workload, converter: &mut Converter, batches: &[TraceBatch]) -> Sample {
    let started = Instant::now();
    for batch in batches {
        converter.each_slice(black_box(batch), |rows| drop(black_box(rows)));
    }
    Sample::from(started.elapsed().as_secs_f64() / work.spans.len() as f64)
}

fn main() {
    let run = Run::from_args();
    let workloads = [
        Workload::small(run.choose(6_400, 40)),
        Workload::agents(run.choose(96, 1)),
    ];
    for work in workloads {
        let name = |what: &str| format!("unity-catalog: {}, {what}", work.name);
        let batches = work.batches(uuid::Uuid::nil());
        let mut converter = Converter::default();
        let ready: Vec<RecordBatch> = batches
            .iter()
            .map(|batch| {
                // At once: rows that are ready are written faster than slice by slice.
                let (rows, refused) = converter.whole(batch);
                assert!(refused.is_empty(), "{refused:?}");
                rows.expect("every batch has spans")
            })
            .collect();
        let bytes: usize = ready
            .iter()
            .map(|rows| file(rows).map_or(0, |f| f.len()))
            .sum();
        let shape = format!(
            "{} spans in {} files of {} KB together",
            work.spans.len(),
            ready.len(),
            bytes / 1_000
        );

        let row = name("spans/s committed");
        if run.wants(&row) {
            let records: Vec<SpanRecord> = work.spans.iter().map(Span::to_record).collect();
            Comparison::new(&row, "ArrowWriter, rows ready-made", Goal::AtLeast(0.5))
                .with_unit(1.0, "spans/s")
                .with_note(&shape)
                .run(&run, &mut || committed(&work, &records, false), &mut || {
                    bare(&work, &ready)
                });
        }
        let row = name("durable, spans/s committed");
        if run.wants(&row) {
            let records: Vec<SpanRecord> = work.spans.iter().map(Span::to_record).collect();
            Comparison::new(&row, "left to the system", Goal::AtLeast(0.0))
                .with_unit(1.0, "spans/s")
                .with_note(&shape)
                .run(&run, &mut || committed(&work, &records, true), &mut || {
                    committed(&work, &records, false)
                });
        }
        let row = name("two tables by two threads, spans/s");
        if run.wants(&row) {
            Comparison::new(&row, "one table by one thread", Goal::AtLeast(1.6))
                .with_pairs(80)
                .with_unit(1.0, "spans/s")
                .with_note(&shape)
                .run(&run, &mut || tables(&work, 2), &mut || tables(&work, 1));
        }
        let row = name("conversion to rows");
        if run.wants(&row) {
            let mut convert = || Ok(convert(&work, &mut converter, &batches));
            Comparison::new(&row, "ArrowWriter, the rows it made", Goal::AtMost(0.5))
                .with_unit(1e9, "ns per span")
                .run(&run, &mut convert, &mut || {
                    let started = Instant::now();
                    for rows in &ready {
                        black_box(file(rows)?);
                    }
                    let took = started.elapsed().as_secs_f64();
                    Ok(Sample::from(took / work.spans.len() as f64))
                });
        }
    }
}
