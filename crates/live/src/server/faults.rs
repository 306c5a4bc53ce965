//! Faults between us and a real server: whatever happens to requests, every span is stored once,
//! where it belongs.

use super::load::{self, Book, Load, To};
use super::real;
use crate::mlflow::Serving;
use crate::proxy::{Fault, Proxy};
use crate::{CaseResult, Live};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const EXPERIMENTS: usize = 6;
/// Longest time of one request.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same where requests stall, which are given up then.
const SHORT: Duration = Duration::from_secs(4);
/// How long something is wrong.
const TROUBLE: Duration = Duration::from_millis(1500);
const FLUSH: Duration = Duration::from_secs(240);
const LOAD: Load = Load {
    tasks: 4,
    traces: 25,
    spans_per_trace: 4,
    pause: Duration::from_millis(80),
};

pub(super) fn refuse(live: &mut Live) -> CaseResult {
    during(live, "refuse", |proxy| proxy.refuse(true))
}

pub(super) fn reset_request(live: &mut Live) -> CaseResult {
    during(live, "reset_request", |p| p.set(Fault::ResetRequest))
}

pub(super) fn reset_reply(live: &mut Live) -> CaseResult {
    during(live, "reset_reply", |p| p.set(Fault::ResetReply))
}

pub(super) fn stall(live: &mut Live) -> CaseResult {
    during(live, "stall", |p| p.set(Fault::Stall))
}

pub(super) fn stall_reply(live: &mut Live) -> CaseResult {
    during(live, "stall_reply", |p| p.set(Fault::StallReply))
}

pub(super) fn throttle(live: &mut Live) -> CaseResult {
    during(live, "throttle", |p| p.set(Fault::Status(429, Some(1))))
}

pub(super) fn unavailable(live: &mut Live) -> CaseResult {
    during(live, "unavailable", |p| {
        p.everything(true);
        p.set(Fault::Status(503, None));
    })
}

pub(super) fn garbage(live: &mut Live) -> CaseResult {
    during(live, "garbage", |p| p.set(Fault::Garbage))
}

pub(super) fn trickle(live: &mut Live) -> CaseResult {
    during(live, "trickle", |p| p.set(Fault::Trickle))
}

/// Everything at once, in an order drawn at random.
pub(super) fn mixed(live: &mut Live) -> CaseResult {
    let seed: u64 = rand::rng().random();
    crate::progress(&format!("live: server_fault_mixed: seed {seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = [
        Fault::Pass,
        Fault::ResetRequest,
        Fault::ResetReply,
        Fault::StallReply,
        Fault::Stall,
        Fault::Status(429, Some(0)),
        Fault::Status(502, None),
        Fault::Status(503, None),
        Fault::Garbage,
        Fault::Trickle,
    ];
    let script: Vec<Fault> = (0..60)
        .map(|_| kinds[random.random_range(0..kinds.len())].clone())
        .collect();
    during(live, "mixed", move |p| p.script(script))
}

/// The server is killed and started again on the same database and port while spans come.
pub(super) fn kill_and_restart(live: &mut Live) -> CaseResult {
    let folder = live.work("server_fault_kill")?;
    let db = folder.join("mlflow.db");
    let mlflow = live.mlflow()?;
    let server = mlflow.serve(&db)?;
    let port = server.port();
    let (pipeline, book) = (load::pipeline()?, Arc::new(Book::default()));
    let to = destinations(&server.url(), "kill")?;
    let stop = Arc::new(AtomicBool::new(false));
    warm(&pipeline, &to, &book)?;
    let load = Load {
        pause: Duration::from_millis(150),
        ..LOAD
    };
    let restarted = std::thread::scope(|scope| -> Result<_, String> {
        let writing = scope.spawn(|| load::run(&pipeline, &to, &book, load, &stop));
        std::thread::sleep(TROUBLE / 2);
        server.kill()?;
        std::thread::sleep(TROUBLE / 2);
        let serving = Serving {
            port: Some(port),
            ..Serving::default()
        };
        let server = mlflow.serve_with(&db, &serving)?;
        writing
            .join()
            .map_err(|_| "the writing thread panicked".to_owned())??;
        Ok(server)
    })?;
    load::flush(&pipeline, FLUSH)?;
    let retries: u64 = pipeline.stats().locations.iter().map(|l| l.retries).sum();
    if retries == 0 {
        return Err("nothing was tried while the server was away"
            .to_owned()
            .into());
    }
    let count = load::verify(&db, &book)?;
    restarted.stop()?;
    Ok(format!(
        "{count} spans to {EXPERIMENTS} experiments, {retries} attempts failed: 0 lost, doubled, misrouted"
    ))
}

/// Writes while something is wrong with the way to the server, and after; then looks.
fn during(live: &mut Live, what: &str, inflict: impl FnOnce(&Proxy)) -> CaseResult {
    let (db, proxy) = real(live)?;
    proxy.heal();
    let (pipeline, book) = (load::pipeline()?, Arc::new(Book::default()));
    let to = destinations(&proxy.url(), what)?;
    let stop = Arc::new(AtomicBool::new(false));
    warm(&pipeline, &to, &book)?;
    let hit = proxy.hit();
    inflict(proxy);
    std::thread::scope(|scope| -> Result<(), String> {
        let writing = scope.spawn(|| load::run(&pipeline, &to, &book, LOAD, &stop));
        std::thread::sleep(TROUBLE);
        if what != "mixed" {
            proxy.heal();
        }
        writing
            .join()
            .map_err(|_| "the writing thread panicked".to_owned())??;
        Ok(())
    })?;
    let report = load::flush(&pipeline, FLUSH);
    proxy.heal();
    report?;
    let retries: u64 = pipeline.stats().locations.iter().map(|l| l.retries).sum();
    let hit = proxy.hit() - hit;
    // A slow answer is an answer; everything else has to be tried again.
    if (hit == 0 && what != "refuse") || (retries == 0 && what != "trickle") {
        return Err(format!("nothing happened: {hit} requests hit, {retries} repeated").into());
    }
    let count = load::verify(db, &book)?;
    let closed = pipeline.shutdown(FLUSH).wait();
    if !closed.all_stored() {
        return Err(format!("shutdown: {closed}").into());
    }
    Ok(format!(
        "{count} spans to {EXPERIMENTS} experiments, {hit} requests hit, {retries} attempts failed: \
         0 lost, doubled, misrouted"
    ))
}

fn destinations(url: &str, what: &str) -> Result<Vec<To>, String> {
    let patience = match what {
        "stall" | "stall_reply" | "mixed" => SHORT,
        _ => PATIENCE,
    };
    (0..EXPERIMENTS)
        .map(|i| {
            let name = format!("{what}-{i}");
            Ok(To::new(&name, load::location(url, &name, patience)?))
        })
        .collect()
}

/// One trace to each experiment, so that the trouble is for writing and not for opening alone.
fn warm(pipeline: &trace_destination::Pipeline, to: &[To], book: &Arc<Book>) -> Result<(), String> {
    let load = Load {
        tasks: 1,
        traces: to.len(),
        spans_per_trace: 1,
        pause: Duration::ZERO,
    };
    load::run(pipeline, to, book, load, &Arc::new(AtomicBool::new(false)))?;
    load::flush(pipeline, FLUSH).map(drop)
}
