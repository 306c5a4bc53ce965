//! `neighbours`: ten healthy tenants, alone and then beside many that misbehave.

use crate::backend::Backend;
use crate::place::{Ledger, Mode, unix_nanos};
use crate::report::Report;
use crate::resources::{Peaks, median};
use crate::traffic::{Application, Pace, Tenant, until};
use crate::{Options, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use trace_destination_core::{BatchLimits, Pipeline};

const HEALTHY: usize = 10;
/// Spans a second of each healthy tenant.
const RATE: f64 = 500.0;
/// Bytes of a bad neighbour's span, and how many of them all bad ones end in a second: 32 MiB,
/// half of the budget.
const BAD_SPAN: usize = 16 << 10;
const BAD_RATE: f64 = 2048.0;
/// The pipeline's default budget.
const BUDGET: usize = 64 << 20;
const ROUNDS: u32 = 3;
/// The most the healthy ones' 99th percentile may grow.
const MAX_GROWTH: f64 = 1.5;
const TICK: Duration = Duration::from_millis(2);

struct Round {
    calm: [f64; 2],
    beside: [f64; 2],
    ended: u64,
    stored: u64,
    misplaced: u64,
    dropped: u64,
    bad_ended: u64,
    bad_dropped: u64,
    most_held: usize,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let bad = options.tenants.unwrap_or(64) as usize;
    let seconds = options.seconds.unwrap_or(60);
    let phase = Duration::from_secs(seconds) / (2 * ROUNDS);
    let mut report = Report::new(format!(
        "neighbours: {HEALTHY} healthy of {} beside {bad} bad, {ROUNDS} rounds of 2 × {phase:?}",
        options.backend
    ));
    let peaks = Peaks::start();
    let mut growth = Vec::new();
    for round in 0..ROUNDS {
        let r = self::round(options, bad, phase)?;
        let grown = r.beside[1] / r.calm[1].max(0.001);
        growth.push(grown);
        println!(
            "  round {}: p50/p99 {:.0}/{:.0} ms calm, {:.0}/{:.0} ms beside, p99 x{grown:.2}; {} of {} stored; bad: {} ended, {} dropped; held at most {:.1} MiB",
            round + 1,
            r.calm[0],
            r.calm[1],
            r.beside[0],
            r.beside[1],
            r.stored,
            r.ended,
            r.bad_ended,
            r.bad_dropped,
            r.most_held as f64 / f64::from(1 << 20),
        );
        for (name, value, unit) in [
            ("p50 calm", r.calm[0], "ms"),
            ("p99 calm", r.calm[1], "ms"),
            ("p50 beside", r.beside[0], "ms"),
            ("p99 beside", r.beside[1], "ms"),
            ("spans ended, healthy", r.ended as f64, ""),
            ("spans lost, healthy", r.ended.abs_diff(r.stored) as f64, ""),
            (
                "held at most",
                r.most_held as f64 / f64::from(1 << 20),
                "MiB",
            ),
        ] {
            report.figure(&format!("{name}, round {}", round + 1), value, unit);
        }
        report.require(r.ended == r.stored && r.dropped == 0, || {
            format!(
                "the healthy tenants ended {} spans, {} were stored and {} dropped",
                r.ended, r.stored, r.dropped
            )
        });
        report.require(r.misplaced == 0, || {
            format!("{} spans came to another tenant's place", r.misplaced)
        });
        report.require(r.most_held <= BUDGET, || {
            format!(
                "{} bytes were held, beyond the budget of {BUDGET}",
                r.most_held
            )
        });
        report.require(r.bad_dropped > 0, || {
            "the bad neighbours were not offered more than fits".to_owned()
        });
    }
    let median = median(growth);
    report.figure("p99 beside to p99 calm, median", median, "x");
    report.figure("threads, peak", peaks.threads() as f64, "");
    report.require(median <= MAX_GROWTH, || {
        format!("the healthy tenants' p99 grew by {median:.2}, and {MAX_GROWTH} is the most")
    });
    report.finish(options.json.as_deref())
}

fn round(options: &Options, bad: usize, phase: Duration) -> Outcome<Round> {
    let backend = Backend::start(options.backend)?;
    let mut builder = Pipeline::builder().strict();
    if let Some(age) = options.batch_age {
        builder = builder.with_batch_limits(BatchLimits {
            age: Duration::from_millis(age),
            ..BatchLimits::default()
        });
    }
    let pipeline = builder.build().map_err(|e| e.to_string())?;
    let application = Application::new(&pipeline);
    let ledger = Arc::new(Ledger::timed());
    let healthy: Vec<Tenant> = (0..HEALTHY)
        .map(|i| {
            // Each has a file or schema of its own.
            let place = Some((&backend, i * 1000));
            Tenant::new(format!("healthy-{i}"), place, ledger.clone(), false)
        })
        .collect::<Outcome<_>>()?;
    let bad: Vec<Tenant> = (0..bad)
        .map(|i| {
            let mode = Mode::BAD[i % Mode::BAD.len()];
            let tenant = Tenant::new(
                format!("bad-{i}"),
                None,
                Arc::default(),
                mode == Mode::Block,
            )?;
            tenant.dial.set(mode);
            Ok(tenant)
        })
        .collect::<Outcome<_>>()?;
    // Files are made and places opened before anything is measured.
    for tenant in &healthy {
        application.request(tenant, None, 0, 0);
    }
    pipeline.flush(Duration::from_secs(20)).wait();
    ledger.take_waits();

    let stop = AtomicBool::new(false);
    let beside = AtomicBool::new(false);
    let mut most_held = 0;
    let mut phases = [0; 2];
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut pace = Pace::new(RATE);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..pace.due() {
                    for tenant in &healthy {
                        application.request(tenant, None, 0, 0);
                    }
                }
                thread::sleep(TICK);
            }
        });
        scope.spawn(|| {
            let mut pace: Option<Pace> = None;
            let mut next = bad.iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                if beside.load(Ordering::Relaxed) {
                    let pace = pace.get_or_insert_with(|| Pace::new(BAD_RATE));
                    for tenant in next.by_ref().take(pace.due() as usize) {
                        application.request(tenant, None, 0, BAD_SPAN);
                    }
                }
                thread::sleep(TICK);
            }
        });
        for (i, begins) in phases.iter_mut().enumerate() {
            *begins = unix_nanos();
            beside.store(i == 1, Ordering::Relaxed);
            let began = Instant::now();
            while began.elapsed() < phase {
                most_held = most_held.max(pipeline.stats().bytes);
                thread::sleep(Duration::from_millis(50));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let ended = healthy.iter().map(Tenant::ended).sum();
    until(Duration::from_secs(15), || ledger.stored() >= ended);
    let stats = pipeline.stats();
    let dropped = |tenants: &[Tenant]| -> u64 {
        let places = tenants.iter().flat_map(|t| t.destination.locations());
        let found = places.filter_map(|place| stats.location(place.uri()));
        found.map(|location| location.dropped.total()).sum()
    };
    let waits = ledger.take_waits();
    let times = |from: u64, to: u64| -> [f64; 2] {
        let mut times: Vec<f64> = waits
            .iter()
            .filter(|(ended, _)| (from..to).contains(ended))
            .map(|(_, wait)| wait.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied();
        [at(0.5).unwrap_or_default(), at(0.99).unwrap_or_default()]
    };
    let round = Round {
        calm: times(phases[0], phases[1]),
        beside: times(phases[1], u64::MAX),
        ended,
        stored: ledger.stored(),
        misplaced: ledger.misplaced(),
        dropped: dropped(&healthy),
        bad_ended: bad.iter().map(Tenant::ended).sum(),
        bad_dropped: dropped(&bad),
        most_held,
    };
    for tenant in &bad {
        tenant.dial.set(Mode::Store);
    }
    pipeline.shutdown(Duration::from_secs(5)).wait();
    application.close();
    Ok(round)
}
