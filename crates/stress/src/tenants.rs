//! `tenants`: many tenants in one process, one trace each, then idle.

use crate::backend::Backend;
use crate::place::Ledger;
use crate::report::Report;
use crate::resources::{Peaks, live_bytes, process};
use crate::traffic::{Application, Tenant, until};
use crate::{Options, Outcome};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trace_destination_core::{LocationState, Pipeline};

/// The most threads the process may have.
const MAX_THREADS: u64 = 64;
/// How long a location stays open unused: all are open at once for a while.
const IDLE: Duration = Duration::from_secs(15);

pub(crate) fn run(options: &Options) -> Outcome {
    let count = options.tenants.unwrap_or(10_000) as usize;
    let most = Duration::from_secs(options.seconds.unwrap_or(600));
    let backend = Backend::start(options.backend)?;
    let mut report = Report::new(format!("tenants: {count} of {}", options.backend));
    let pipeline = Pipeline::builder()
        .strict()
        .with_idle_close(IDLE)
        .build()
        .map_err(|e| e.to_string())?;
    let application = Application::new(&pipeline);
    let ledger = Arc::<Ledger>::default();
    let tenant = |number: usize| -> Outcome<Tenant> {
        let place = Some((&backend, number));
        let tenant = Tenant::new(format!("t{number}"), place, ledger.clone(), false)?;
        application.request(&tenant, None, 0, 0);
        Ok(tenant)
    };
    // Threads, connections and tables of the process are there before the count begins. This one is
    // of a file, a schema and an experiment of its own.
    let first = tenant(1_000_000)?;
    let warm = pipeline.flush(Duration::from_secs(30)).wait();
    report.require(warm.all_stored(), || format!("the first trace: {warm}"));

    let peaks = Peaks::start();
    let (memory, _) = process()?;
    let live = live_bytes();
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / count as f64 / 1024.0;
    let began = Instant::now();
    let tenants = (0..count).map(tenant).collect::<Outcome<Vec<_>>>()?;
    let stored = pipeline.flush(most).wait();
    let took = began.elapsed();
    let (open_memory, open_live) = (process()?.0, live_bytes());
    let open = pipeline.stats().locations.into_iter();
    let open = open.filter(|l| l.state == LocationState::Open).count();
    report.require(stored.all_stored(), || format!("after {took:?}: {stored}"));
    let closed = until(IDLE * 4 + most / 10, || {
        let stats = pipeline.stats();
        stats
            .locations
            .iter()
            .all(|l| l.state == LocationState::Closed)
    });
    report.require(closed, || {
        format!("locations were not closed after being idle for {IDLE:?}")
    });
    // What was closed is freed a moment later.
    std::thread::sleep(Duration::from_millis(500));
    let (closed_memory, closed_live) = (process()?.0, live_bytes());

    let threads = peaks.threads();
    report.figure("time until all were stored", took.as_secs_f64(), "s");
    report.figure("locations open then", open as f64, "");
    report.figure("threads, peak", threads as f64, "");
    let name = "allocated for each tenant, all stored";
    report.figure(name, each(open_live, live), "KiB");
    let name = "allocated for each tenant, all closed";
    report.figure(name, each(closed_live, live), "KiB");
    let name = "resident for each tenant, all stored";
    report.figure(name, each(open_memory, memory), "KiB");
    let name = "resident for each tenant, all closed";
    report.figure(name, each(closed_memory, memory), "KiB");
    let name = "resident for each tenant, peak";
    report.figure(name, each(peaks.memory(), memory), "KiB");
    println!(
        "  | {} | {count} | {:.1} s | {threads} | {open} | {:.1} KiB | {:.1} KiB | {:.1} KiB |",
        options.backend,
        took.as_secs_f64(),
        each(open_live, live),
        each(closed_live, live),
        each(peaks.memory(), memory),
    );
    report.require(threads <= MAX_THREADS, || {
        format!("{threads} threads, and {MAX_THREADS} are the most")
    });
    let all = ledger.stored();
    report.require(all == count as u64 + 1, || {
        format!("{all} spans are stored, and {} ended", count + 1)
    });
    report.require(ledger.misplaced() == 0, || {
        format!(
            "{} spans came to another tenant's place",
            ledger.misplaced()
        )
    });
    pipeline.shutdown(Duration::from_secs(10)).wait();
    drop((first, tenants));
    application.close();
    report.finish(options.json.as_deref())
}
