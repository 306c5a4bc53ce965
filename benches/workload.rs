//! The spans both sides make, and the threads that make them.

use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rustix::time::{ClockId, clock_gettime};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Instant;
use trace_destination_benches::{Sample, Void};
use trace_destination_core::Destination;

/// A provider and the contexts in which its traces start, one per destination.
pub(crate) struct Side {
    pub(crate) provider: SdkTracerProvider,
    tracer: SdkTracer,
    contexts: Vec<Context>,
    session: String,
}

impl Side {
    pub(crate) fn new(provider: SdkTracerProvider, destinations: &[Destination]) -> Self {
        let root = Context::new();
        Self {
            tracer: provider.tracer("bench"),
            provider,
            session: "session-0123456789abcdef".into(),
            contexts: destinations.iter().map(|d| d.in_context(&root)).collect(),
        }
    }

    /// Starts and ends `traces` traces, each at the next destination.
    fn run(&self, thread: usize, spans_per_trace: usize, traces: usize) {
        // Threads meet each destination at different times.
        let first = thread * self.contexts.len() / 2;
        for i in 0..traces {
            let cx = &self.contexts[(first + i) % self.contexts.len()];
            match spans_per_trace {
                1 => drop(self.span("request", cx, i)),
                _ => self.trace(cx, i),
            }
        }
    }

    /// Five spans: a request that runs an agent, which calls a model and a tool, and a reply.
    fn trace(&self, cx: &Context, i: usize) {
        let request = cx.with_span(self.span("request", cx, i));
        {
            let agent = request.with_span(self.span("agent", &request, i));
            drop(self.span("model", &agent, i));
            drop(self.span("tool", &agent, i));
        }
        drop(self.span("reply", &request, i));
    }

    /// A span with five attributes of mixed kinds; it ends when it is dropped.
    fn span(&self, name: &'static str, cx: &Context, i: usize) -> opentelemetry_sdk::trace::Span {
        self.tracer
            .span_builder(name)
            .with_kind(SpanKind::Internal)
            .with_attributes(vec![
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("session.id", self.session.clone()),
                KeyValue::new("gen_ai.usage.input_tokens", i as i64),
                KeyValue::new("gen_ai.request.temperature", 0.7),
                KeyValue::new("stream", true),
            ])
            .start_with_context(&self.tracer, cx)
    }
}

/// What a round cost, in seconds.
pub(crate) struct Cost {
    /// From the start of the first application thread to the end of the last one.
    application: f64,
    /// CPU time of the application threads.
    threads: f64,
    /// CPU time of the process, delivery included.
    cpu: f64,
    /// From the start until everything was delivered.
    delivered: f64,
}

impl Cost {
    /// Per span; what the application waits for decides.
    pub(crate) fn sample(&self, spans: u64) -> Sample {
        let per_span = |seconds: f64| seconds / spans as f64;
        Sample {
            value: per_span(self.application),
            also: vec![
                per_span(self.threads),
                per_span(self.cpu),
                per_span(self.delivered),
            ],
        }
    }
}

struct Job {
    side: Arc<Side>,
    spans_per_trace: usize,
    traces: usize,
}

/// Application threads, the same ones for both sides.
pub(crate) struct Workers {
    jobs: Vec<Sender<Job>>,
    done: Receiver<(Instant, Instant, f64)>,
}

impl Workers {
    pub(crate) fn start(threads: usize) -> Self {
        let (report, done) = channel();
        let together = Arc::new(Barrier::new(threads));
        let jobs = (0..threads)
            .map(|thread| {
                let (sender, jobs) = channel::<Job>();
                let (report, together) = (report.clone(), together.clone());
                let work = move || {
                    for job in jobs {
                        together.wait();
                        let cpu = seconds(ClockId::ThreadCPUTime);
                        let start = Instant::now();
                        job.side.run(thread, job.spans_per_trace, job.traces);
                        let end = Instant::now();
                        let cpu = seconds(ClockId::ThreadCPUTime) - cpu;
                        let _ = report.send((start, end, cpu));
                    }
                };
                std::thread::Builder::new()
                    .name("application".into())
                    .spawn(work)
                    .expect("a thread can be started");
                sender
            })
            .collect();
        Self { jobs, done }
    }

    /// Lets every thread make `traces` traces, then delivers them.
    pub(crate) fn round(
        &self,
        side: &Arc<Side>,
        spans_per_trace: usize,
        traces: usize,
        deliver: impl FnOnce() -> Result<(), Void>,
    ) -> Result<Cost, Void> {
        let cpu = seconds(ClockId::ProcessCPUTime);
        for jobs in &self.jobs {
            let job = Job {
                side: side.clone(),
                spans_per_trace,
                traces,
            };
            jobs.send(job)
                .map_err(|_| Void("a thread is gone".into()))?;
        }
        let times: Vec<(Instant, Instant, f64)> = self.done.iter().take(self.jobs.len()).collect();
        let (Some(start), Some(end)) = (
            times.iter().map(|t| t.0).min(),
            times.iter().map(|t| t.1).max(),
        ) else {
            return Err(Void("a thread is gone".into()));
        };
        deliver()?;
        Ok(Cost {
            application: (end - start).as_secs_f64(),
            threads: times.iter().map(|t| t.2).sum(),
            cpu: seconds(ClockId::ProcessCPUTime) - cpu,
            delivered: start.elapsed().as_secs_f64(),
        })
    }
}

fn seconds(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
