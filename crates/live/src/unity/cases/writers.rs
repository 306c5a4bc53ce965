//! Many writers of one table, killed while they write, their batches delivered again.

use super::super::super::{CaseResult, Stop};
use super::super::Unity;
use super::super::servers;
use super::super::writer::{self, Batches, Ids, Writer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Eight processes with fifty commits each, killed three times each.
const BATCHES: Batches = Batches {
    writers: 8,
    last: 50,
    spans: 5,
};
const KILLS: u32 = 3;
pub(super) const BUCKET: &str = "lake";

/// The store honours `If-None-Match: *` when several create the same key at once: what every commit
/// relies on.
pub(super) fn store_creates_once(unity: &mut Unity) -> CaseResult {
    const KEYS: u32 = 60;
    const WRITERS: u32 = 16;
    let s3 = servers::s3(unity.store()?);
    let duck = unity.duck()?;
    duck.ask("bucket", json!({"s3": s3, "name": "conditional"}))?;
    let wrong = duck.ask(
        "conditional",
        json!({"s3": s3, "name": "conditional", "keys": KEYS, "writers": WRITERS}),
    )?;
    match wrong.as_array() {
        Some(wrong) if wrong.is_empty() => Ok(format!(
            "of {WRITERS} that create one key at once, one did, {KEYS} times"
        )),
        _ => Err(format!("not exactly one created a key: {wrong}").into()),
    }
}

pub(super) fn killed_on_files(unity: &mut Unity) -> CaseResult {
    let work = unity.work("killed_writers_files")?;
    let uri = writer::uri(&work.display().to_string(), "killed");
    let writer = Writer::new(unity, &uri);
    all(&writer, "files")?;
    let path = writer::table(&work, "killed");
    let seen = unity.duck()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &BATCHES.ids()).map_err(|e| format!("DuckDB: {e}"))?;
    let seen = unity.spark()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &BATCHES.ids()).map_err(|e| format!("Spark: {e}"))?;
    summary(unity, &path)
}

pub(super) fn killed_on_store(unity: &mut Unity) -> CaseResult {
    let (s3, endpoint) = {
        let store = unity.store()?;
        (servers::s3(store), store.url())
    };
    unity
        .duck()?
        .ask("bucket", json!({"s3": s3, "name": BUCKET}))?;
    let uri = writer::uri(&format!("s3://{BUCKET}/killed"), "killed");
    let writer = Writer::new(unity, &uri).with_store(&endpoint);
    all(&writer, "store")?;
    // DuckDB reads from the store itself, Spark the files as another client copied them.
    let table = format!("s3://{BUCKET}/killed/main/traces/killed_otel_spans");
    let seen = unity.duck()?.ask("ids", json!({"path": table, "s3": s3}))?;
    exactly_once(&seen, &BATCHES.ids()).map_err(|e| format!("DuckDB: {e}"))?;
    let path = copied(
        unity,
        &s3,
        "killed/main/traces/killed_otel_spans",
        "killed_writers_store",
    )?;
    let seen = unity.spark()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &BATCHES.ids()).map_err(|e| format!("Spark: {e}"))?;
    summary(unity, &path)
}

/// All writers at once, each killed and started again.
fn all(writer: &Writer, name: &str) -> Result<(), String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=BATCHES.writers)
            .map(|number| scope.spawn(move || writer.killed(name, &BATCHES, number, KILLS)))
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok(())
    })
}

/// A table of the store as a folder, copied by a client that is not ours.
pub(super) fn copied(
    unity: &mut Unity,
    s3: &Value,
    prefix: &str,
    case: &str,
) -> Result<String, Stop> {
    let folder = unity.work(case)?;
    let count = unity.duck()?.ask(
        "download",
        json!({"s3": s3, "name": BUCKET, "prefix": prefix, "folder": folder}),
    )?;
    if count == 0 {
        return Err(format!("nothing is stored below {prefix}").into());
    }
    Ok(folder.display().to_string())
}

/// Every span once, and no other; `seen` are trace, span and how often.
pub(super) fn exactly_once(seen: &Value, expected: &BTreeSet<Ids>) -> Result<(), String> {
    let mut found = BTreeSet::new();
    for row in seen.as_array().into_iter().flatten() {
        let id = |i: usize| row[i].as_str().unwrap_or_default().to_owned();
        if row[2] != 1 {
            return Err(format!(
                "span {} of {} is there {} times",
                id(1),
                id(0),
                row[2]
            ));
        }
        found.insert((id(0), id(1)));
    }
    let lost: Vec<_> = expected.difference(&found).collect();
    let foreign: Vec<_> = found.difference(expected).collect();
    match (lost.first(), foreign.first()) {
        (None, None) => Ok(()),
        _ => Err(format!(
            "{} of {} spans are lost, such as {:?}; {} are foreign, such as {:?}",
            lost.len(),
            expected.len(),
            lost.first(),
            foreign.len(),
            foreign.first()
        )),
    }
}

/// What the log says, read commit by commit: every file of the table is there and whole.
fn summary(unity: &mut Unity, path: &str) -> CaseResult {
    let log = unity.duck()?.ask("log", json!({"path": path}))?;
    let ids = BATCHES.ids().len();
    let transactions: Vec<_> = log["transactions"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    let last = |v: &&Value| **v == BATCHES.last;
    if log["rows"] != ids
        || transactions.len() as u64 != BATCHES.writers
        || !transactions.iter().all(|(_, v)| last(v))
    {
        return Err(format!("the log says {log}").into());
    }
    Ok(format!(
        "{ids} spans of {} writers × {} commits, each writer killed {KILLS} times: each once; {} versions, {} checkpoints, {} files left by killed writers and never part of the table",
        BATCHES.writers, BATCHES.last, log["versions"], log["checkpoints"], log["orphans"]
    ))
}
