//! What the project promises in numbers, against real servers.

use super::load::{self, Book, Load, To};
use super::real;
use crate::mlflow::Serving;
use crate::proxy::Fault;
use crate::server::timed::Timed;
use crate::{CaseResult, Live, progress};
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trace_destination::{Destination, Pipeline};

const FLUSH: Duration = Duration::from_secs(280);

// --- A server that is away for a while.

const TASKS: usize = 16;
const EXPERIMENTS: usize = 50;
const SPANS: usize = 20_000;
const PER_TRACE: usize = 5;
/// Between two traces of a task: MLflow is not to be busy all the time.
const PAUSE: Duration = Duration::from_millis(230);
const CALM: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(20);

/// A server is killed for 20 s in the middle of 20,000 spans; another one in the same process does
/// not feel it.
pub(super) fn away(live: &mut Live) -> CaseResult {
    let folder = live.work("server_away")?;
    let mlflow = live.mlflow()?;
    let (db, healthy_db) = (folder.join("mlflow.db"), folder.join("healthy.db"));
    let server = mlflow.serve(&db)?;
    let healthy = mlflow.serve(&healthy_db)?;
    let port = server.port();
    // Everything as it is by default: budgets, batches, retries.
    let pipeline = Pipeline::builder()
        .strict()
        .build()
        .map_err(|e| e.to_string())?;
    let minute = Duration::from_secs(60);
    let to: Vec<To> = (0..EXPERIMENTS)
        .map(|i| {
            let name = format!("away-{i}");
            Ok(To::new(
                &name,
                load::location(&server.url(), &name, minute)?,
            ))
        })
        .collect::<Result<_, String>>()?;
    let inner = load::location(&healthy.url(), "healthy", minute)?;
    let timed = Timed::new(inner);
    let times = timed.times();
    let beside = Destination::new(timed);
    let (book, healthy_book) = (Arc::new(Book::default()), Arc::new(Book::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load {
        tasks: TASKS,
        traces: SPANS / PER_TRACE / TASKS,
        spans_per_trace: PER_TRACE,
        pause: PAUSE,
    };
    let other = [To {
        experiment: "healthy".to_owned(),
        destination: beside,
    }];
    let began = Instant::now();
    let seen = std::thread::scope(|scope| -> Result<_, String> {
        let never = Arc::new(AtomicBool::new(false));
        let (pipeline, to, book) = (&pipeline, &to, &book);
        let writing = scope.spawn(move || load::run(pipeline, to, book, load, &never));
        let other_load = Load {
            tasks: 1,
            traces: usize::MAX,
            spans_per_trace: PER_TRACE,
            pause: Duration::from_millis(200),
        };
        let (other, stop, healthy_book) = (&other, &stop, &healthy_book);
        let other_writing =
            scope.spawn(move || load::run(pipeline, other, healthy_book, other_load, stop));
        // Its first seconds are for opening and for the server to warm up.
        let warm = times.now() + CALM / 4;
        std::thread::sleep(CALM);
        let killed = times.now();
        let at_kill = stored(pipeline, to);
        server.kill()?;
        progress("live: server_away_20_s: killed");
        std::thread::sleep(AWAY);
        let serving = Serving {
            port: Some(port),
            ..Serving::default()
        };
        let server = mlflow.serve_with(&db, &serving)?;
        progress("live: server_away_20_s: started again");
        let wrote = writing
            .join()
            .map_err(|_| "the writing thread panicked".to_owned())??;
        let report = pipeline.flush(FLUSH).wait();
        let all = began.elapsed();
        let flushed = times.now();
        stop.store(true, Ordering::Relaxed);
        other_writing
            .join()
            .map_err(|_| "the other writing thread panicked".to_owned())??;
        if !report.all_stored() {
            return Err(format!("flush did not store everything:\n{report}"));
        }
        load::flush(pipeline, FLUSH)?;
        let calm = times.between(warm, killed);
        let disturbed = times.between(killed, flushed);
        Ok((server, calm, disturbed, at_kill, wrote, all))
    })?;
    let (server, calm, disturbed, at_kill, wrote, all) = seen;
    let retries: u64 = pipeline.stats().locations.iter().map(|l| l.retries).sum();
    let count = load::verify(&db, &book)?;
    let beside = load::verify(&healthy_db, &healthy_book)?;
    server.stop()?;
    healthy.stop()?;
    if count != SPANS || at_kill == 0 || at_kill >= SPANS as u64 {
        return Err(format!("{count} spans, {at_kill} of them stored at the kill").into());
    }
    let (before, during) = (p99(&calm)?, p99(&disturbed)?);
    let text = format!(
        "{count} spans from {TASKS} tasks to {EXPERIMENTS} experiments in {:.0} s, {at_kill} stored \
         when the server was killed for {:.0} s, {retries} attempts failed, all stored after {:.0} s: \
         0 lost, doubled, misrouted; beside it {beside} spans, p99 from ended to stored {:.2} s calm \
         ({} spans) and {:.2} s then ({} spans)",
        wrote.as_secs_f64(),
        AWAY.as_secs_f64(),
        all.as_secs_f64(),
        before.as_secs_f64(),
        calm.len(),
        during.as_secs_f64(),
        disturbed.len()
    );
    match during <= 2 * before {
        true => Ok(text),
        false => Err(format!("the healthy server felt it: {text}").into()),
    }
}

fn stored(pipeline: &Pipeline, to: &[To]) -> u64 {
    let stats = pipeline.stats();
    let uris = to.iter().map(|t| t.destination.locations()[0].uri());
    uris.filter_map(|uri| stats.location(uri))
        .map(|l| l.stored)
        .sum()
}

fn p99(times: &[Duration]) -> Result<Duration, String> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted
        .get(index)
        .copied()
        .filter(|_| sorted.len() >= 100)
        .ok_or_else(|| format!("only {} spans were timed", sorted.len()))
}

// --- A server that never answers.

/// For half a minute, with small budgets, so that they are exhausted in it.
pub(super) fn silent(live: &mut Live) -> CaseResult {
    never_answers(live, Duration::from_secs(20), 8 << 20, 2 << 20)
}

/// For ten minutes, with the usual budgets.
pub(super) fn silent_ten_minutes(live: &mut Live) -> CaseResult {
    never_answers(live, Duration::from_secs(600), 64 << 20, 16 << 20)
}

const LANES: usize = 6;
/// Bytes of text in one span.
const FILLER: usize = 1024;
/// Spans a second, of two threads together.
const RATE: f64 = 1200.0;
/// Memory beside the budget: allocator, requests being made, and this program.
const BESIDE: u64 = 48 << 20;
const DEADLINE: Duration = Duration::from_secs(5);

fn never_answers(_: &mut Live, duration: Duration, process: usize, lane: usize) -> CaseResult {
    // Connections are opened by the kernel; nobody ever reads from them.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let pipeline = Pipeline::builder()
        .strict()
        .with_budget(process, lane)
        .build()
        .map_err(|e| e.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let url = format!("http://127.0.0.1:{port}");
    let to: Vec<Destination> = (0..LANES)
        .map(|i| load::location(&url, &format!("silent-{i}"), Duration::from_secs(60)))
        .map(|l| l.map(Destination::new))
        .collect::<Result<_, _>>()?;
    let before = resident()?;
    let began = Instant::now();
    let write = || {
        let tracer = provider.tracer("silent");
        let (mut times, mut n) = (Vec::new(), 0_u32);
        while began.elapsed() < duration {
            let cx = to[n as usize % LANES].in_context(&Context::new());
            let mut span = tracer.start_with_context("unheard", &cx);
            span.set_attribute(KeyValue::new("filler", "x".repeat(FILLER)));
            let ended = Instant::now();
            span.end();
            times.push(u32::try_from(ended.elapsed().as_micros()).unwrap_or(u32::MAX));
            n += 1;
            let due = Duration::from_secs_f64(f64::from(n) * 2.0 / RATE);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        times
    };
    let (mut held, mut grown) = (0, 0);
    let mut times = std::thread::scope(|scope| -> Result<Vec<u32>, String> {
        let writers = [scope.spawn(write), scope.spawn(write)];
        while began.elapsed() < duration {
            std::thread::sleep(Duration::from_millis(500));
            held = held.max(pipeline.stats().bytes);
            grown = grown.max(resident()?.saturating_sub(before));
        }
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| "a writer panicked".to_owned())?);
        }
        Ok(all)
    })?;
    let stats = pipeline.stats();
    let sum = |f: fn(&trace_destination::LocationStats) -> u64| -> u64 {
        stats.locations.iter().map(f).sum()
    };
    let (accepted, stored, dropped) = (
        sum(|l| l.accepted),
        sum(|l| l.stored),
        sum(|l| l.dropped.total()),
    );
    let waiting = sum(|l| l.queued + l.in_flight);
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let asked = Instant::now();
    let report = pipeline.shutdown(DEADLINE).wait();
    let took = asked.elapsed();
    // The times themselves are this case's, not the pipeline's.
    let grown = grown.saturating_sub(times.len() as u64 * 8);
    let text = format!(
        "{:.0} s, {accepted} spans to {LANES} locations of a server that never answers: ending one took \
         {} µs (median), {} µs (99.9 %), {} µs (longest); at most {:.1} MiB held of {:.0}, the process \
         grew by {:.1} MiB; {dropped} dropped and counted, {waiting} waiting; shutdown in {:.1} s of {:.0}",
        duration.as_secs_f64(),
        at(0.5),
        at(0.999),
        at(1.0),
        held as f64 / f64::from(1 << 20),
        process as f64 / f64::from(1 << 20),
        grown as f64 / f64::from(1 << 20),
        took.as_secs_f64(),
        DEADLINE.as_secs_f64(),
    );
    let mut wrong = Vec::new();
    // Waiting for the server would take a minute; a thread that is not scheduled takes far less.
    if at(0.999) > 50_000 || at(1.0) > 3_000_000 {
        wrong.push("an application thread waited");
    }
    if held > process || grown > process as u64 + BESIDE {
        wrong.push("memory is over the budget");
    }
    if accepted != times.len() as u64 || stored != 0 || dropped + waiting != accepted {
        wrong.push("the counters do not add up");
    }
    if dropped == 0 {
        wrong.push("nothing had to be dropped: the load was too small to show anything");
    }
    if took > DEADLINE + Duration::from_secs(2) || report.all_stored() {
        wrong.push("shutdown took longer than its deadline");
    }
    match wrong.is_empty() {
        true => Ok(text),
        false => Err(format!("{}: {text}", wrong.join("; ")).into()),
    }
}

/// Bytes of memory this process has.
fn resident() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/self/statm").map_err(|e| format!("statm: {e}"))?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|p| p.parse().ok());
    // Pages are 4 KiB wherever this runs.
    pages
        .map(|p| p * 4096)
        .ok_or_else(|| format!("statm says {text}"))
}

// --- As fast as a bare replay.

const PAIRS: usize = 5;
const REPLAYED_EXPERIMENTS: usize = 8;
const REPLAYED_SPANS: u64 = 256;
const REPLAYED_TRACE: u64 = 4;
const RATIO: f64 = 0.9;

/// The same spans through a pipeline, and as bodies recorded before and sent by a bare HTTP client:
/// in turn, to one real server, each time with new traces.
pub(super) fn replay(live: &mut Live) -> CaseResult {
    let (_, proxy) = real(live)?;
    proxy.heal();
    let direct = format!("http://127.0.0.1:{}", proxy.upstream());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("start a runtime: {e}"))?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .map_err(|e| format!("make a client: {e}"))?;
    let (recording, sending) = (Sending::open(&proxy.url())?, Sending::open(&direct)?);
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    // The first pair warms the server up.
    for pair in 0..=PAIRS {
        // Recorded first: the proxy keeps the bodies from the server.
        proxy.set(Fault::Record);
        recording.send()?;
        let bodies = proxy.take_recorded();
        proxy.heal();
        if bodies.len() != REPLAYED_EXPERIMENTS {
            return Err(format!("{} requests were recorded", bodies.len()).into());
        }
        let ours = || sending.send();
        let bare = || -> Result<f64, String> {
            let began = Instant::now();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for request in &bodies {
                    let mut call = client.post(format!("{direct}/v1/traces"));
                    for (name, value) in &request.headers {
                        call = call.header(name, value);
                    }
                    tasks.spawn(call.body(request.body.clone()).send());
                }
                while let Some(sent) = tasks.join_next().await {
                    let answer = sent
                        .map_err(|e| format!("a request panicked: {e}"))?
                        .map_err(|e| format!("replay: {e}"))?;
                    if answer.status() != 200 {
                        return Err(format!("replay: answered with {}", answer.status()));
                    }
                }
                Ok(())
            })?;
            Ok(began.elapsed().as_secs_f64())
        };
        // Who comes first changes.
        let (ours, bare) = match pair % 2 {
            0 => {
                let ours = ours()?;
                (ours, bare()?)
            }
            _ => {
                let bare = bare()?;
                (ours()?, bare)
            }
        };
        if pair > 0 {
            let spans = (REPLAYED_EXPERIMENTS as u64 * REPLAYED_SPANS) as f64;
            ratios.push(bare / ours);
            rates.push((spans / ours, spans / bare));
            progress(&format!(
                "live: server_replay: {:.0} and {:.0} spans/s",
                spans / ours,
                spans / bare
            ));
        }
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let mean = |f: fn(&(f64, f64)) -> f64| rates.iter().map(f).sum::<f64>() / rates.len() as f64;
    let text = format!(
        "{:.2} of the rate of a bare replay (median of {PAIRS} pairs, {:.2} to {:.2}): {:.0} and {:.0} spans/s",
        median,
        ratios[0],
        ratios[ratios.len() - 1],
        mean(|r| r.0),
        mean(|r| r.1)
    );
    match median >= RATIO {
        true => Ok(text),
        false => Err(format!("below {RATIO}: {text}").into()),
    }
}

/// A pipeline with its locations open.
struct Sending {
    pipeline: Pipeline,
    provider: SdkTracerProvider,
    to: Vec<Destination>,
}

impl Sending {
    fn open(url: &str) -> Result<Self, String> {
        let pipeline = Pipeline::builder()
            .strict()
            .build()
            .map_err(|e| e.to_string())?;
        let to = (0..REPLAYED_EXPERIMENTS)
            .map(|i| load::location(url, &format!("replay-{i}"), Duration::from_secs(60)))
            .map(|l| l.map(Destination::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            provider: SdkTracerProvider::builder()
                .with_span_processor(pipeline.processor())
                .build(),
            pipeline,
            to,
        })
    }

    /// Writes new traces; seconds from the first span until all are stored.
    fn send(&self) -> Result<f64, String> {
        let tracer = self.provider.tracer("replay");
        let began = Instant::now();
        for to in &self.to {
            let outer = to.in_context(&Context::new());
            for n in 0..REPLAYED_SPANS / REPLAYED_TRACE {
                let start = |name: String, cx: &Context| {
                    tracer
                        .span_builder(name)
                        .with_attributes([
                            KeyValue::new("mlflow.spanInputs", format!("{{\"question\": {n}}}")),
                            KeyValue::new("mlflow.spanOutputs", "\"an answer of some words\""),
                            KeyValue::new("gen_ai.usage.input_tokens", n as i64),
                        ])
                        .start_with_context(&tracer, cx)
                };
                let root = Context::new().with_span(start("request".to_owned(), &outer));
                for step in 1..REPLAYED_TRACE {
                    start(format!("step {step}"), &root).end();
                }
                root.span().end();
            }
        }
        load::flush(&self.pipeline, FLUSH)?;
        Ok(began.elapsed().as_secs_f64())
    }
}
