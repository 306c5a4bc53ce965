//! Where names may stand in `sqlite:` URIs, and which names stand for something else there.

use crate::beside::MARK;
use crate::config::{DEFAULT_EXPERIMENT, EXPERIMENT_NAME_PARAM, MAX_EXPERIMENT_NAME};
use trace_destination_core::{Hole, NameRule};

/// What SQLite puts behind a database's name for its own files, and this crate for its mark.
const ENDINGS: [&str; 4] = ["-wal", "-shm", "-journal", MARK];
/// The folder of artifacts that MLflow makes beside a database.
const ARTIFACTS: &str = "mlruns";
/// Names that are devices in every folder of Windows, with any ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

pub(crate) fn holes() -> Vec<Hole> {
    vec![
        // SQLite compares names byte by byte.
        Hole::query(EXPERIMENT_NAME_PARAM, NameRule::Exact)
            .with_max_len(MAX_EXPERIMENT_NAME)
            .with_check(experiment),
        // Files on some systems fold case, so only lower case fits.
        Hole::file(NameRule::Segment).with_check(file),
        Hole::folder(NameRule::Segment).with_check(segment),
    ]
}

/// Everything without an experiment goes to the default one.
fn experiment(name: &str) -> Result<(), &'static str> {
    match name == DEFAULT_EXPERIMENT.1 {
        true => Err("it is MLflow's own experiment, for traces that name none"),
        false => Ok(()),
    }
}

fn file(name: &str) -> Result<(), &'static str> {
    match ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        true => Err("a file that is kept beside another database has such a name"),
        false => segment(name),
    }
}

fn segment(name: &str) -> Result<(), &'static str> {
    let stem = name.split('.').next().unwrap_or_default();
    let port = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"))
        .is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()));
    if port || DEVICES.contains(&stem) {
        return Err("Windows takes it for a device");
    }
    match name == ARTIFACTS {
        true => Err("MLflow keeps the artifacts of all experiments under it"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_something_else_is_refused() {
        for name in [
            "a.db-wal",
            "a-shm",
            "x-journal",
            "a.db-mark",
            "a.db-stale1-wal",
            "con.db",
            "nul",
            "com1.db",
            "mlruns",
        ] {
            assert!(file(name).is_err(), "{name}");
        }
        for name in [
            "a.db",
            "console.db",
            "com10.db",
            "comx",
            "mlruns.db",
            "wal",
            "a-wal.db",
        ] {
            assert!(file(name).is_ok(), "{name}");
        }
        assert!(experiment("Default").is_err());
        assert!(
            experiment("default").is_ok(),
            "another experiment in SQLite"
        );
    }
}
