//! The process that the suite kills: it writes, flushes, and prints on its standard output what a
//! flush reported as stored.

use crate::failure::{Failure, ensure};
use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, SpanId, TraceContextExt as _, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trace_destination_core::{Destination, Pipeline, TraceLocation};

/// Prefix of every line that names a stored span.
const MARK: &str = "stored:";

/// Writes traces to `location` until it is killed, or for a minute at most.
///
/// # Errors
/// If the pipeline cannot be built, a flush is not complete, or nobody reads the output.
pub fn run(location: Arc<dyn TraceLocation>) -> Result<(), Failure> {
    let pipeline = Pipeline::builder().strict().build()?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("writer");
    let scope = Destination::from_location(location).in_context(&Context::new());
    let began = Instant::now();
    let mut size = 1;
    while began.elapsed() < Duration::from_secs(60) {
        let mut lines = String::new();
        for _ in 0..size {
            let cx = Context::new().with_span(tracer.start_with_context("root", &scope));
            for _ in 0..3 {
                let mut child = tracer.start_with_context("child", &cx);
                say(&mut lines, child.span_context());
                child.end();
            }
            say(&mut lines, cx.span().span_context());
            cx.span().end();
        }
        let report = pipeline.flush(Duration::from_secs(30)).wait();
        ensure!(
            report.all_stored(),
            "the flush did not store everything: {report}"
        );
        let mut out = std::io::stdout().lock();
        out.write_all(lines.as_bytes())?;
        out.flush()?;
        size = size % 40 + 7;
    }
    Ok(())
}

/// A process that runs [`run`], and the spans that it has reported as stored.
pub(crate) struct Writing {
    child: Child,
    promised: Arc<Mutex<Vec<(TraceId, SpanId)>>>,
    reader: JoinHandle<()>,
}

impl Writing {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("no output to read"))?;
        let promised = Arc::<Mutex<Vec<_>>>::default();
        let heard = promised.clone();
        let reader = std::thread::spawn(move || {
            // The last line may be cut off, and the process may print other lines.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let (Some(span), Ok(mut heard)) = (parse(&line), heard.lock()) {
                    heard.push(span);
                }
            }
        });
        Ok(Self {
            child,
            promised,
            reader,
        })
    }

    /// Number of spans that it has reported as stored.
    pub(crate) fn promised(&self) -> usize {
        self.promised.lock().map_or(0, |p| p.len())
    }

    /// Kills it, and returns every span that it has reported as stored.
    pub(crate) fn kill(mut self) -> Result<Vec<(TraceId, SpanId)>, Failure> {
        self.child.kill()?;
        self.child.wait()?;
        self.reader
            .join()
            .map_err(|_| Failure::new("the reader panicked"))?;
        Ok(self
            .promised
            .lock()
            .map_or_else(|_| Vec::new(), |p| p.clone()))
    }
}

fn say(lines: &mut String, span: &opentelemetry::trace::SpanContext) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "{MARK}{}:{}", span.trace_id(), span.span_id());
}

/// The span that a whole line of [`run`] names.
fn parse(line: &str) -> Option<(TraceId, SpanId)> {
    let (trace, span) = line.split_once(MARK)?.1.split_once(':')?;
    if trace.len() != 32 || span.len() != 16 {
        return None;
    }
    Some((TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?))
}
