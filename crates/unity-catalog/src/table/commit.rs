//! Adding a file to the log, once, whatever the store says.
//!
//! An error of a commit says nothing about whether it landed, and neither does "already there": a
//! request that was sent twice beneath us finds its own first half. So after anything but a plain
//! success the log itself is read: a commit with our transaction in it is ours. And since a request
//! may still be on its way after it was given up, the same version is tried again until it is known
//! who has it: whatever comes late then finds it taken.

use super::file::File;
use super::log::{Log, Mark};
use super::protocol::{CLUSTERING_DOMAIN, ROW_TRACKING_DOMAIN, Shape};
use crate::error::{Fault, WRITE, fault};
use bytes::Bytes;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, CommitInfo, DomainMetadata, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use rand::Rng as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trace_destination_core::{Error, ErrorKind};

/// Versions lost to other writers before the batch is given back to its lane, to be tried again.
const RACES: u32 = 64;
/// Races after which the next one is run a little later.
const AT_ONCE: u32 = 4;
/// How much later at most.
const PAUSE_MILLIS: u64 = 20;
/// Commits of others that are read one by one; beyond, the table is loaded anew.
const STEPS: u64 = 64;

/// Who writes: the id under which a lane's batches are told apart, and the number of this one.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) app_id: String,
    pub(super) sequence: i64,
}

/// The newest version that is known, and what it hands on to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) version: u64,
    /// What tells its commit from that of another table at the same place.
    pub(super) mark: Mark,
    /// The highest number of a row so far, where rows have numbers (Delta protocol, "Row IDs"); -1
    /// before the first.
    pub(super) row_ids: i64,
    /// Its in-commit timestamp in milliseconds, where it has one.
    pub(super) timestamp: Option<i64>,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the log, as this version or one before.
    Committed(Tip),
    /// The table was changed in a way that asks for a new look at it. Nothing was committed.
    Changed,
    /// The version that was known is gone, or another. Nothing was committed.
    Replaced,
}

/// What the log holds beyond the version known so far.
pub(super) enum Beyond {
    /// Our own commit.
    Ours(Tip),
    /// Commits of others, up to this version, that do not touch what we know of the table.
    Others(Tip),
    /// Another protocol or other metadata, or too much to read one by one.
    Changed,
    Nothing,
}

/// Commits `file` as the first version after `base` that is free.
///
/// Before each try the commit of `base` is looked at: where it is another, the table is, and its
/// columns were not read.
pub(super) async fn commit(
    log: &Log,
    base: &mut Tip,
    shape: &Shape,
    file: &File,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    let mut known = base.clone();
    let mut vanished = 0;
    for race in 0..RACES {
        let content = content(file, stamp, shape, &known)?;
        let unread = |e| fault(WRITE, "looking at the table's log", e);
        if !log.has(&mut base.mark).await.map_err(unread)? {
            return Ok(Outcome::Replaced);
        }
        let answer = log.put(known.version + 1, content.bytes).await;
        if let Ok(Some(mark)) = answer {
            return Ok(Outcome::Committed(Tip {
                version: known.version + 1,
                mark,
                ..content.next
            }));
        }
        let beyond = match look(log, &known, stamp).await {
            Ok(beyond) => beyond,
            // What the first error said is more to the point than why it could not be looked into.
            Err(unread) => {
                let error = answer.err().unwrap_or(unread);
                return Err(retried(fault(WRITE, "committing a file", error)));
            }
        };
        match (beyond, answer) {
            (Beyond::Ours(tip), _) => {
                log.settle(tip.version).await?;
                return Ok(Outcome::Committed(tip));
            }
            (Beyond::Changed, _) => return Ok(Outcome::Changed),
            (Beyond::Others(tip), _) => known = tip,
            (Beyond::Nothing, Err(error)) => return Err(fault(WRITE, "committing a file", error)),
            // "It is there already", but it cannot be read: a store that shows what was written a
            // little later, or a request that was refused for another reason.
            (Beyond::Nothing, Ok(_)) => {
                vanished += 1;
                tokio::time::sleep(Duration::from_millis(20 << vanished)).await;
                if vanished > 5 {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        WRITE,
                        format!(
                            "the store says that version {} is there and does not show it",
                            known.version + 1
                        ),
                    )
                    .retryable()
                    .mend("use a store that shows what was written at once"));
                }
            }
        }
        pause(race).await;
    }
    Err(Error::new(
        ErrorKind::Locked,
        WRITE,
        format!("{RACES} versions in a row went to other writers of the table"),
    )
    .retryable()
    .mend("let fewer processes write this table, or larger batches"))
}

/// An error that leaves the outcome open is worth another try whatever it is: the next one finds
/// out.
fn retried(error: Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => error,
        _ => error.retryable(),
    }
}

/// Whoever lost a race has its file stored already and is ahead of those that won: it goes on at
/// once. Only if that does not help, writers that run in step are put out of it.
async fn pause(race: u32) {
    if race >= AT_ONCE {
        let millis = rand::rng().random_range(0..=PAUSE_MILLIS);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// Reads what follows `known`, one commit after the other.
pub(super) async fn look(
    log: &Log,
    known: &Tip,
    stamp: &Stamp,
) -> Result<Beyond, object_store::Error> {
    let mut tip = known.clone();
    while let Some((commit, mark)) = log.read(tip.version + 1).await? {
        tip.version += 1;
        tip.mark = mark;
        match meaning(&commit, stamp, &mut tip) {
            Meaning::Ours => return Ok(Beyond::Ours(tip)),
            Meaning::Changed => return Ok(Beyond::Changed),
            Meaning::Other if tip.version - known.version >= STEPS => return Ok(Beyond::Changed),
            Meaning::Other => {}
        }
    }
    Ok(match tip.version > known.version {
        true => Beyond::Others(tip),
        false => Beyond::Nothing,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Ours,
    Changed,
    Other,
}

/// The part of an action that matters here. Rows that are only added conflict with no change of
/// data, whoever makes it; what is remembered of rows does, where some are removed. Actions that are not known yet are not for us to judge either.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    meta_data: Option<IgnoredAny>,
    protocol: Option<IgnoredAny>,
    commit_info: Option<Value>,
    domain_metadata: Option<Domain>,
    remove: Option<Removed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    #[serde(default = "changes_data")]
    data_change: bool,
}

/// What it means where an action does not say.
fn changes_data() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct Domain {
    domain: String,
    configuration: Option<String>,
}

/// What a commit means for ours, and what it hands on.
fn meaning(commit: &[u8], stamp: &Stamp, tip: &mut Tip) -> Meaning {
    let mut found = Meaning::Other;
    for line in serde_json::Deserializer::from_slice(commit).into_iter::<Line>() {
        // Loading the table says what it is, or what is wrong with it.
        let Ok(line) = line else {
            return match found {
                Meaning::Ours => Meaning::Ours,
                _ => Meaning::Changed,
            };
        };
        if let Some(at) = line.commit_info.as_ref().and_then(in_commit_timestamp) {
            tip.timestamp = Some(at);
        }
        if let Some(txn) = line.txn
            && txn.app_id == stamp.app_id
            && txn.version >= stamp.sequence
        {
            found = Meaning::Ours;
        }
        let reclustered = match &line.domain_metadata {
            Some(d) if d.domain == ROW_TRACKING_DOMAIN => {
                let highest = d.configuration.as_deref().and_then(row_id_high_water_mark);
                tip.row_ids = tip.row_ids.max(highest.unwrap_or(tip.row_ids));
                false
            }
            Some(d) => d.domain == CLUSTERING_DOMAIN,
            None => false,
        };
        // Rows that are gone are no longer there to be repeated.
        let removed = line.remove.is_some_and(|removed| removed.data_change);
        let changed = line.meta_data.is_some() || line.protocol.is_some() || reclustered || removed;
        if changed && found != Meaning::Ours {
            found = Meaning::Changed;
        }
    }
    found
}

fn in_commit_timestamp(info: &Value) -> Option<i64> {
    info.get("inCommitTimestamp")?.as_i64()
}

/// The in-commit timestamp of a commit, if it has one.
pub(super) fn timestamp_of(commit: &[u8]) -> Option<i64> {
    let lines = serde_json::Deserializer::from_slice(commit).into_iter::<Line>();
    lines
        .map_while(Result::ok)
        .find_map(|line| in_commit_timestamp(&line.commit_info?))
}

/// The highest number of a row, as its metadata domain has it.
pub(super) fn row_id_high_water_mark(configuration: &str) -> Option<i64> {
    let configuration: Value = serde_json::from_str(configuration).ok()?;
    configuration.get("rowIdHighWaterMark")?.as_i64()
}

/// A commit as it is written, and what it hands on to the next.
struct Content {
    bytes: Bytes,
    next: Tip,
}

/// The commit that follows `base`.
fn content(file: &File, stamp: &Stamp, shape: &Shape, base: &Tip) -> Result<Content, Error> {
    let now = now_millis();
    let mut next = base.clone();
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    // A blind append: other engines need not count it as a conflict with what they do.
    let mut info = HashMap::from([
        ("isBlindAppend".to_owned(), Value::Bool(true)),
        (
            "operationMetrics".to_owned(),
            serde_json::json!({
                "numFiles": "1",
                "numOutputRows": file.rows().to_string(),
                "numOutputBytes": file.content.len().to_string(),
            }),
        ),
        (
            "clientVersion".to_owned(),
            concat!("trace-destination.", env!("CARGO_PKG_VERSION")).into(),
        ),
    ]);
    let mut add = file.add(now);
    let mut domain = None;
    if shape.row_tracking {
        add.base_row_id = Some(base.row_ids.checked_add(1).ok_or_else(exhausted)?);
        next.row_ids = base
            .row_ids
            .checked_add(file.rows())
            .ok_or_else(exhausted)?;
        let version = i64::try_from(base.version + 1);
        add.default_row_commit_version = Some(version.map_err(|_| exhausted())?);
        let configuration = serde_json::json!({"rowIdHighWaterMark": next.row_ids});
        domain = Some(Action::DomainMetadata(DomainMetadata {
            domain: ROW_TRACKING_DOMAIN.to_owned(),
            configuration: configuration.to_string(),
            removed: false,
        }));
        // No row is updated or copied.
        info.insert(
            "tags".to_owned(),
            serde_json::json!({"delta.rowTracking.preserved": "true"}),
        );
    }
    let mut provenance: CommitInfo = operation.get_commit_info();
    provenance.timestamp = Some(now);
    if shape.in_commit_timestamps {
        let after = match base.timestamp {
            None => now,
            Some(last) => now.max(last.checked_add(1).ok_or_else(exhausted)?),
        };
        provenance.in_commit_timestamp = Some(after);
        next.timestamp = Some(after);
    }
    // The first action, as in-commit timestamps want it.
    let actions = [Action::CommitInfo(provenance), Action::Add(add)];
    let actions = actions.into_iter().chain(domain).collect();
    let transaction = Transaction::new_with_last_update(&stamp.app_id, stamp.sequence, Some(now));
    let bytes = CommitData::new(actions, operation, info, vec![transaction])
        .get_bytes()
        .map_err(|e| fault(WRITE, "describing a commit", e))?;
    Ok(Content { bytes, next })
}

/// The error of a log whose numbers leave no room for another commit.
fn exhausted() -> Fault {
    Fault::new(
        ErrorKind::Corrupt,
        WRITE,
        "the table's log has a row number, timestamp or version beyond which there is none",
    )
    .mend("see who wrote it, and restore the table's log or name another table")
}

fn now_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
