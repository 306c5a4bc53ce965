//! Encoding and sending spans over OTLP/HTTP: a sink of ours against `opentelemetry-otlp`'s
//! exporter, the same spans in the same batches to the same server, which reads and forgets.

use criterion::Throughput;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, TraceContextExt, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Compression as OtlpCompression, Protocol, SpanExporter};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracerProvider, SimpleSpanProcessor, SpanData, SpanExporter as _,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use trace_destination_benches::{Comparison, Goal, Run, Sample, Void, criterion};
use trace_destination_core::{
    BatchId, LocationUri, Resource, Scope, Span, SpanGroup, TraceBatch, TraceLocation, TraceSink,
};
use trace_destination_server::{Compression, ServerLocation};

/// Spans of one batch: what a lane seals by default.
const BATCH: usize = 512;

fn main() {
    let run = Run::from_args();
    let server = Server::start();
    // Both sides send from the same runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    let mut met = true;
    for destinations in [1, 100] {
        let otlp = format!("otlp+http://{}", server.address);
        let mlflow = format!("http://{}?experiment_id=7", server.address);
        for (kind, address, gzip) in [
            ("otlp", &otlp, true),
            ("mlflow", &mlflow, true),
            // The levels differ and theirs cannot be set, so once without compression.
            ("plain", &otlp, false),
        ] {
            let row = format!("server_{kind}_{destinations}_destinations");
            let batches = run.choose(destinations.max(40), destinations);
            let ours = Ours::open(&runtime, address, destinations, gzip);
            let theirs = Theirs::open(&runtime, server.address, destinations, gzip);
            let spans = spans();
            met &= Comparison::new(row, "opentelemetry-otlp", Goal::AtLeast(1.0))
                .with_unit(1.0, "spans/s")
                .with_note(match gzip {
                    true => format!("{BATCH} spans a batch, gzip on both: level 1 here, 6 there"),
                    false => format!("{BATCH} spans a batch, no compression on either"),
                })
                .run(
                    &run,
                    &mut || server.counted(batches, || ours.send(&runtime, &spans, batches)),
                    &mut || server.counted(batches, || theirs.send(&runtime, &spans, batches)),
                );
        }
    }
    if !run.is_pairs_only() {
        figures(&runtime, &server);
    }
    assert!(met, "a goal is not met");
}

/// Absolute figures, for the record.
fn figures(runtime: &Runtime, server: &Server) {
    let mut criterion = criterion();
    let mut group = criterion.benchmark_group("server");
    group.throughput(Throughput::Elements(BATCH as u64));
    let spans = spans();
    let address = format!("http://{}?experiment_id=7", server.address);
    let ours = Ours::open(runtime, &address, 1, true);
    group.bench_function("mlflow", |b| b.iter(|| ours.send(runtime, &spans, 1)));
    let theirs = Theirs::open(runtime, server.address, 1, true);
    group.bench_function("opentelemetry_otlp", |b| {
        b.iter(|| theirs.send(runtime, &spans, 1));
    });
    group.finish();
    criterion.final_summary();
}

/// Five spans a trace, five attributes of mixed kinds each, some with the text of a conversation.
fn spans() -> Vec<SpanData> {
    let exporter = Keeps::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
        .build();
    let tracer = provider.tracer("bench");
    let start = |name: &'static str, cx: &Context, i: usize| {
        tracer
            .span_builder(name)
            .with_kind(SpanKind::Internal)
            .with_attributes(vec![
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("session.id", format!("session-{}", i % 7)),
                KeyValue::new("gen_ai.usage.input_tokens", i as i64),
                KeyValue::new("gen_ai.request.temperature", 0.7),
                KeyValue::new(
                    "gen_ai.input.messages",
                    format!("[{{\"role\": \"user\", \"content\": \"question {i}: what is it?\"}}]"),
                ),
            ])
            .start_with_context(&tracer, cx)
    };
    for i in 0..BATCH.div_ceil(5) {
        let cx = Context::new().with_span(start("request", &Context::new(), i));
        for name in ["agent", "model", "tool", "reply"] {
            start(name, &cx, i).end();
        }
        cx.span().end();
    }
    let mut spans = exporter.0.lock().expect("nobody panicked").clone();
    spans.truncate(BATCH);
    spans
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

struct Ours(Vec<Box<dyn TraceSink>>, AtomicU64, Arc<Resource>);

impl Ours {
    fn open(runtime: &Runtime, address: &str, count: usize, gzip: bool) -> Self {
        let resource = opentelemetry_sdk::Resource::builder().build();
        let sinks = (0..count).map(|i| {
            let uri = match address.contains('?') {
                true => {
                    format!("{address}&experiment_name=e{i}").replace("id=7", &format!("id={i}"))
                }
                false => format!("{address}/d{i}"),
            };
            let uri: LocationUri = uri.parse().expect("the address is a URI");
            let location = ServerLocation::builder()
                .with_uri(&uri)
                .with_compression(match gzip {
                    true => Compression::Gzip,
                    false => Compression::None,
                })
                .build()
                .expect("the location is right");
            let opened = runtime.block_on(location.open());
            opened.expect("the server answers")
        });
        Self(
            sinks.collect(),
            AtomicU64::new(0),
            Arc::new((&resource).into()),
        )
    }

    fn send(&self, runtime: &Runtime, spans: &[SpanData], batches: usize) -> f64 {
        let scope: Arc<Scope> = Arc::new((&spans[0].instrumentation_scope).into());
        let batches: Vec<TraceBatch> = (0..batches)
            .map(|i| {
                let id = BatchId {
                    writer: uuid::Uuid::nil(),
                    sequence: self.1.fetch_add(1, Ordering::Relaxed),
                };
                let group = SpanGroup {
                    resource: self.2.clone(),
                    scope: scope.clone(),
                    spans: spans
                        .iter()
                        .map(|s| Span::from(moved(s, i % self.0.len())))
                        .collect(),
                };
                TraceBatch::new(id, vec![group], Vec::new())
            })
            .collect();
        let start = Instant::now();
        runtime.block_on(async {
            for (i, batch) in batches.iter().enumerate() {
                let written = self.0[i % self.0.len()].write(batch).await;
                assert!(written.expect("the server takes all").refused.is_empty());
            }
        });
        start.elapsed().as_secs_f64()
    }
}

/// The span in a trace of its destination's own: a tracking server has each trace once.
fn moved(span: &SpanData, destination: usize) -> SpanData {
    let mut span = span.clone();
    let old = &span.span_context;
    let mut trace = old.trace_id().to_bytes();
    trace[0] ^= destination as u8;
    span.span_context = SpanContext::new(
        TraceId::from_bytes(trace),
        old.span_id(),
        old.trace_flags(),
        old.is_remote(),
        old.trace_state().clone(),
    );
    span
}

struct Theirs(Vec<SpanExporter>);

impl Theirs {
    fn open(runtime: &Runtime, address: SocketAddr, count: usize, gzip: bool) -> Self {
        let _entered = runtime.enter();
        let exporters = (0..count).map(|i| {
            let builder = SpanExporter::builder()
                .with_http()
                .with_endpoint(format!("http://{address}/d{i}/v1/traces"))
                .with_protocol(Protocol::HttpBinary);
            let builder = match gzip {
                true => builder.with_compression(OtlpCompression::Gzip),
                false => builder,
            };
            builder.build().expect("the exporter can be made")
        });
        Self(exporters.collect())
    }

    fn send(&self, runtime: &Runtime, spans: &[SpanData], batches: usize) -> f64 {
        let batches: Vec<Vec<SpanData>> = (0..batches).map(|_| spans.to_vec()).collect();
        let start = Instant::now();
        runtime.block_on(async {
            for (i, batch) in batches.into_iter().enumerate() {
                let sent = self.0[i % self.0.len()].export(batch).await;
                sent.expect("the server takes all");
            }
        });
        start.elapsed().as_secs_f64()
    }
}

/// A server that reads requests and forgets them, on a runtime of its own.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be started");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let counter = requests.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, counter.clone()));
            }
        });
        Self {
            address,
            requests,
            _runtime: runtime,
        }
    }

    /// The rate of a side, void unless each batch came as one request.
    fn counted(&self, batches: usize, send: impl Fn() -> f64) -> Result<Sample, Void> {
        let before = self.requests.load(Ordering::Relaxed);
        let seconds = send();
        let came = self.requests.load(Ordering::Relaxed) - before;
        match came == batches as u64 {
            true => Ok(Sample::from((batches * BATCH) as f64 / seconds)),
            false => Err(Void(format!("{came} requests for {batches} batches"))),
        }
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(1 << 16);
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok())
            .unwrap_or(0);
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..head + length);
        let path = text.split(' ').nth(1).unwrap_or_default();
        let body = if path == "/version" {
            "3.17.2".to_owned()
        } else if let Some(id) = path.strip_prefix("/api/2.0/mlflow/experiments/get?experiment_id=")
        {
            format!(
                r#"{{"experiment":{{"experiment_id":"{id}","name":"e{id}","lifecycle_stage":"active"}}}}"#
            )
        } else {
            let spans = path.ends_with("/v1/traces") || path.starts_with("/d");
            requests.fetch_add(u64::from(spans), Ordering::Relaxed);
            let found = path.ends_with("/batchgetinfos");
            if found {
                "{}".to_owned()
            } else {
                String::new()
            }
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}
