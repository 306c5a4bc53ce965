//! `churn`: tenants that come and go, beside healthy ones, failing ones and a caller's trace that
//! never ends. Memory stays flat, and every span is accounted for.

mod crowd;
mod watch;

use crate::backend::{Backend, Kind};
use crate::report::Report;
use crate::server::Answer;
use crate::traffic::{Application, until};
use crate::{Options, Outcome};
use crowd::Crowd;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use trace_destination_core::{Pipeline, PipelineStats, RetryPolicy};
use watch::Watch;

/// With more locations than this, a pipeline forgets those that were not used for longest; below,
/// those that were not used for ten minutes (`pipeline/delivery/sweep.rs` of the core).
const MANY: usize = 16 << 10;
/// The most there may be beyond that: those used within the last moment or holding spans, and those
/// whose traces linger, which are some 8,000 and as many of callers from outside.
const SLACK: usize = MANY;
/// Names that come at once at the start, so that a short run sees locations forgotten.
const FLOOD: usize = MANY + 1024;
const BUDGET: usize = 64 << 20;
const SAMPLE: Duration = Duration::from_millis(500);
const MIB: f64 = (1 << 20) as f64;

/// How a run is laid out.
#[derive(Clone, Copy, Debug)]
struct Plan {
    length: Duration,
    warm_up: Duration,
    /// Newcomers a second.
    rate: f64,
    /// Newcomers at once, at the start and now and then.
    flood: usize,
    burst: usize,
    /// Between bursts and quiet moments.
    period: Duration,
}

impl Plan {
    fn new(options: &Options) -> Self {
        let seconds = options.seconds.unwrap_or(3600);
        let memory = options.backend == Kind::Memory;
        let usual = match memory {
            true => 50_000,
            false => (15 * seconds).min(50_000),
        };
        let tenants = options.tenants.map_or(usual, u64::from);
        Self {
            length: Duration::from_secs(seconds),
            warm_up: Duration::from_secs(seconds / 6).min(Duration::from_secs(600)),
            rate: tenants as f64 / seconds as f64,
            flood: if memory { FLOOD } else { 100 },
            burst: if memory { 500 } else { 20 },
            period: Duration::from_secs((seconds / 8).clamp(5, 60)),
        }
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let plan = Plan::new(options);
    let backend = Backend::start(options.backend)?;
    let seconds = plan.length.as_secs();
    let mut report = Report::new(format!("churn: {}, {seconds} s", options.backend));
    let retry = RetryPolicy {
        deadline: Duration::from_secs((seconds / 12).clamp(3, 300)),
        ..RetryPolicy::default()
    };
    let pipeline = Pipeline::builder()
        .strict()
        .with_retry(retry)
        .with_idle_close(Duration::from_secs((seconds / 12).clamp(2, 60)))
        .build()
        .map_err(|e| e.to_string())?;
    let application = Application::new(&pipeline);
    let crowd = Crowd::new(&backend, &application)?;
    let mut watch = Watch::default();
    // Whoever makes spans holds it to read; a quiet moment, to write.
    let traffic = RwLock::new(());
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| -> Outcome {
        let arrive = scope.spawn(|| crowd.come_and_go(&plan, &traffic, &stop));
        scope.spawn(|| crowd.stay(&traffic, &stop));
        let observed = observe(
            &plan,
            &pipeline,
            &backend,
            &crowd,
            &traffic,
            &mut watch,
            &mut report,
        );
        stop.store(true, Ordering::Relaxed);
        match arrive.join() {
            Ok(arrived) => observed.and(arrived),
            Err(_) => Err("the thread that makes newcomers panicked".to_owned()),
        }
    });
    outcome?;
    backend.set(Answer::Take);
    crowd.recover();
    let flush = pipeline.flush(Duration::from_secs(60)).wait();
    report.require(flush.is_complete(), || format!("the last flush: {flush}"));
    quiet(&pipeline, &crowd, &mut report);
    crowd.report(&mut report);
    watch.report(&plan, &mut report);
    pipeline.shutdown(Duration::from_secs(10)).wait();
    drop(crowd);
    application.close();
    report.finish(options.json.as_deref())
}

/// Looks at the pipeline until the run is over, and has places and the server misbehave meanwhile.
fn observe(
    plan: &Plan,
    pipeline: &Pipeline,
    backend: &Backend,
    crowd: &Crowd<'_>,
    traffic: &RwLock<()>,
    watch: &mut Watch,
    report: &mut Report,
) -> Outcome {
    let began = Instant::now();
    let mut rest = began + plan.period;
    let mut samples = 0_usize;
    while began.elapsed() < plan.length {
        let stats = pipeline.stats();
        report.require(stats.bytes <= BUDGET, || {
            format!(
                "{} bytes were held, beyond the budget of {BUDGET}",
                stats.bytes
            )
        });
        watch.sample(began.elapsed(), &stats)?;
        drop(stats);
        samples += 1;
        if samples.is_multiple_of(4) {
            crowd.turn(samples / 4);
            // It is well half of the time, so that its tenants lose nothing.
            let turn = samples / 4;
            let answer = match turn.is_multiple_of(2) {
                true => Answer::Take,
                false => Answer::ALL[turn / 2 % Answer::ALL.len()],
            };
            backend.set(answer);
        }
        if Instant::now() >= rest {
            rest = Instant::now() + plan.period;
            // Poisoned only by a panic, which ends the run elsewhere.
            let _quiet = traffic.write();
            quiet(pipeline, crowd, report);
        }
        thread::sleep(SAMPLE);
    }
    Ok(())
}

/// Checks the sums while nobody makes spans.
fn quiet(pipeline: &Pipeline, crowd: &Crowd<'_>, report: &mut Report) {
    let ended = crowd.ended();
    let mut wrong = Some(String::new());
    // A snapshot is taken counter by counter, beside lanes that go on.
    until(Duration::from_secs(10), || {
        wrong = unbalanced(&pipeline.stats(), ended);
        wrong.is_none()
    });
    report.require(wrong.is_none(), || wrong.unwrap_or_default());
    crowd.check_memory(report);
}

/// What does not add up.
fn unbalanced(stats: &PipelineStats, ended: u64) -> Option<String> {
    let mut accepted = stats.forgotten.accepted;
    let known = stats.forgotten.stored + stats.forgotten.dropped.total();
    if accepted != known {
        return Some(format!(
            "forgotten locations accepted {accepted} spans, and {known} are accounted for"
        ));
    }
    for l in &stats.locations {
        let known = l.stored + l.queued + l.in_flight + l.dropped.total();
        if l.accepted != known {
            return Some(format!(
                "{}: {} spans accepted, {known} accounted for (stored {}, queued {}, in flight {}, dropped {})",
                l.uri,
                l.accepted,
                l.stored,
                l.queued,
                l.in_flight,
                l.dropped.total()
            ));
        }
        accepted += l.accepted;
    }
    let lost = stats.unrouted + stats.discarded + stats.orphaned;
    if accepted != ended || lost != 0 {
        return Some(format!(
            "{ended} spans ended, {accepted} were accepted; {} had no route, {} no binding",
            stats.unrouted, stats.orphaned
        ));
    }
    None
}
