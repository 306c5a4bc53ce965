//! The server backend against real MLflow servers: the suite, faults on the way, failures that
//! last, and what the project promises in numbers.

mod bars;
mod equality;
mod errors;
mod example;
mod faults;
mod harness;
mod load;
mod read_back;
mod timed;
pub(crate) mod writer;

use super::mlflow::Server;
use super::proxy::Proxy;
use super::{CaseResult, Live, Stop};
use std::path::{Path, PathBuf};
use trace_destination_conformance::{Report, Suite};

/// A case, and whether it takes so long that it has to be asked for.
type Case = (&'static str, fn(&mut Live) -> CaseResult, bool);

/// The one table of cases.
pub(super) const ALL: &[Case] = &[
    ("server_equals_captured", equality::captured, false),
    ("server_equals_generated", equality::generated, false),
    ("older_server", equality::older, false),
    (
        "newest_server_equals_captured",
        |live| live.newest(equality::captured),
        false,
    ),
    (
        "newest_server_equals_generated",
        |live| live.newest(equality::generated),
        false,
    ),
    ("server_fault_refuse", faults::refuse, false),
    ("server_fault_reset_request", faults::reset_request, false),
    ("server_fault_reset_reply", faults::reset_reply, false),
    ("server_fault_stall", faults::stall, false),
    ("server_fault_stall_reply", faults::stall_reply, false),
    ("server_fault_throttle", faults::throttle, false),
    ("server_fault_unavailable", faults::unavailable, false),
    ("server_fault_garbage", faults::garbage, false),
    ("server_fault_trickle", faults::trickle, false),
    ("server_fault_mixed", faults::mixed, false),
    ("server_fault_kill", faults::kill_and_restart, false),
    ("server_errors", errors::errors, false),
    ("server_example", example::example, false),
    ("server_silent", bars::silent, false),
    ("server_silent_ten_minutes", bars::silent_ten_minutes, true),
    ("server_away_20_s", bars::away, true),
    ("server_replay", bars::replay, true),
];

/// A server behind a proxy, which the cases share.
pub(super) struct Real {
    db: PathBuf,
    proxy: Proxy,
    _server: Server,
}

/// The shared server, started when it is first wanted: its database, and the proxy before it.
fn real(live: &mut Live) -> Result<(&Path, &Proxy), Stop> {
    if live.real.is_none() {
        let db = live.work("server")?.join("mlflow.db");
        let server = live.mlflow()?.serve(&db)?;
        let proxy = Proxy::start(server.port())?;
        live.real = Some(Real {
            db,
            proxy,
            _server: server,
        });
    }
    match &live.real {
        Some(real) => Ok((&real.db, &real.proxy)),
        None => Err("the shared server is gone".to_owned().into()),
    }
}

/// Runs the conformance suite against real servers: a plain one, or one with `basic-auth`.
pub(super) fn conform(live: &Live, basic_auth: bool, case: Option<&str>) -> Result<Report, Stop> {
    let harness = harness::RealServers::start(live, basic_auth)?;
    let mut suite = Suite::new().with_harness(std::sync::Arc::new(harness));
    if let Some(glob) = case {
        suite = suite.with_filter(glob);
    }
    Ok(suite.run())
}

/// The columns of the suite on real servers.
pub(crate) const COLUMNS: [(&str, bool); 2] =
    [(harness::PLAIN, false), (harness::BASIC_AUTH, true)];
