//! The program that gets killed, and several of which write one file: an application that traces
//! through the SDK and says after each flush what it was told is stored.

use super::sample::Writing;
use clap::Args;
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// `live-writer`: used by the live cases, not by people.
#[derive(Args, Debug)]
pub(crate) struct LiveWriter {
    /// Where to write.
    #[arg(long)]
    uri: String,
    /// Go on until this file exists; without it until killed.
    #[arg(long)]
    until: Option<PathBuf>,
    /// Spans per trace, the root included.
    #[arg(long, default_value_t = 5)]
    spans: u64,
    /// Traces per flush.
    #[arg(long, default_value_t = 3)]
    per_flush: u64,
    /// Milliseconds to wait after each flush.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Name of the traces.
    #[arg(long, default_value = "live-writer")]
    name: String,
}

/// Writes, and prints `{"<trace id>": ["<span id>", …], …}` on one line for each flush that
/// reported everything stored.
pub(crate) fn run(options: &LiveWriter) -> Result<(), String> {
    // Whoever started it holds the other end of the standard input, and is gone when it closes.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let writing = Writing::open(&options.uri)?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(writing.pipeline().processor())
        .build();
    let tracer = provider.tracer("live-writer");
    let _scope = writing.destination().enter();
    let mut written = Map::new();
    let mut trace = 0;
    // Asked after a flush only, so that everything written is also reported.
    while trace % options.per_flush != 0 || !options.until.as_ref().is_some_and(|f| f.exists()) {
        trace += 1;
        let root = tracer
            .span_builder(format!("{} {trace}", options.name))
            .with_attributes([
                KeyValue::new("mlflow.spanInputs", format!("{{\"trace\": {trace}}}")),
                KeyValue::new("mlflow.traceTag.mlflow.traceName", options.name.clone()),
                KeyValue::new("session.id", format!("session {}", trace % 3)),
            ])
            .start(&tracer);
        let id = root.span_context().trace_id();
        let mut spans = vec![root.span_context().span_id().to_string()];
        let cx = Context::current().with_span(root);
        for step in 1..options.spans {
            let mut span = tracer
                .span_builder(format!("step {step}"))
                .with_attributes([
                    KeyValue::new("gen_ai.operation.name", "chat"),
                    KeyValue::new("gen_ai.usage.input_tokens", 3),
                    KeyValue::new("gen_ai.usage.output_tokens", 2),
                ])
                .start_with_context(&tracer, &cx);
            spans.push(span.span_context().span_id().to_string());
            span.end();
        }
        cx.span().end();
        written.insert(format!("tr-{id}"), json!(spans));
        if trace % options.per_flush == 0 {
            writing.flush()?;
            let mut line = Value::Object(std::mem::take(&mut written)).to_string();
            line.push('\n');
            let mut out = std::io::stdout().lock();
            // One write: what is killed in between leaves no half of a line that looks whole.
            out.write_all(line.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|e| format!("report what is stored: {e}"))?;
            std::thread::sleep(Duration::from_millis(options.pause));
        }
    }
    writing.close()
}
