//! Adding a file to the log, once, whatever the store says.
//!
//! An error of a commit says nothing about whether it landed, and neither does "already there": a
//! request that was sent twice beneath us finds its own first half. So after anything but a plain
//! success the log itself is read: a commit with our transaction in it is ours. And since a request
//! may still be on its way after it was given up, the same version is tried again until it is known
//! who has it: whatever comes late then finds it taken.

use super::file::File;
use super::log::Log;
use crate::error::{WRITE, fault};
use bytes::Bytes;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use rand::Rng as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
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

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the log, as this version or one before.
    Committed(u64),
    /// The table was changed in a way that asks for a new look at it. Nothing was committed.
    Changed,
}

/// What the log holds beyond the version known so far.
enum Beyond {
    /// Our own commit.
    Ours(u64),
    /// Commits of others, up to this version, that do not touch what we know of the table.
    Others(u64),
    /// Another protocol or other metadata, or too much to read one by one.
    Changed,
    Nothing,
}

/// Commits `file` as the first version after `known` that is free.
pub(super) async fn commit(
    log: &Log,
    mut known: u64,
    file: &File,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    let bytes = content(file, stamp)?;
    let mut vanished = 0;
    for race in 0..RACES {
        let answer = log.put(known + 1, bytes.clone()).await;
        if matches!(answer, Ok(true)) {
            return Ok(Outcome::Committed(known + 1));
        }
        let beyond = match look(log, known, stamp).await {
            Ok(beyond) => beyond,
            // What the first error said is more to the point than why it could not be looked into.
            Err(unread) => {
                let error = answer.err().unwrap_or(unread);
                return Err(retried(fault(WRITE, "committing a file", error)));
            }
        };
        match (beyond, answer) {
            (Beyond::Ours(version), _) => {
                log.settle(version).await?;
                return Ok(Outcome::Committed(version));
            }
            (Beyond::Changed, _) => return Ok(Outcome::Changed),
            (Beyond::Others(version), _) => known = version,
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
                            known + 1
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
async fn look(log: &Log, known: u64, stamp: &Stamp) -> Result<Beyond, object_store::Error> {
    let mut version = known;
    while let Some(commit) = log.read(version + 1).await? {
        version += 1;
        match meaning(&commit, stamp) {
            Meaning::Ours => return Ok(Beyond::Ours(version)),
            Meaning::Changed => return Ok(Beyond::Changed),
            Meaning::Other if version - known >= STEPS => return Ok(Beyond::Changed),
            Meaning::Other => {}
        }
    }
    Ok(match version > known {
        true => Beyond::Others(version),
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
/// data, whoever makes it; actions that are not known yet are not for us to judge either.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    meta_data: Option<IgnoredAny>,
    protocol: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

fn meaning(commit: &[u8], stamp: &Stamp) -> Meaning {
    let mut found = Meaning::Other;
    for line in serde_json::Deserializer::from_slice(commit).into_iter::<Line>() {
        match line {
            Ok(Line { txn: Some(txn), .. })
                if txn.app_id == stamp.app_id && txn.version >= stamp.sequence =>
            {
                return Meaning::Ours;
            }
            Ok(Line {
                meta_data: None,
                protocol: None,
                ..
            }) => {}
            // Loading the table says what it is, or what is wrong with it.
            _ => found = Meaning::Changed,
        }
    }
    found
}

/// The actions of a commit.
fn content(file: &File, stamp: &Stamp) -> Result<Bytes, Error> {
    let now = now_millis();
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    // A blind append: other engines need not count it as a conflict with what they do.
    let info = HashMap::from([
        ("isBlindAppend".to_owned(), serde_json::Value::Bool(true)),
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
    let transaction = Transaction::new_with_last_update(&stamp.app_id, stamp.sequence, Some(now));
    CommitData::new(
        vec![Action::Add(file.add(now))],
        operation,
        info,
        vec![transaction],
    )
    .get_bytes()
    .map_err(|e| fault(WRITE, "describing a commit", e))
}

fn now_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            app_id: "trace-destination:a".into(),
            sequence: 7,
        }
    }

    #[test]
    fn a_commit_is_told_by_its_transaction() {
        for (commit, expected) in [
            (r#"{"commitInfo":{}}"#, Meaning::Other),
            (
                r#"{"add":{"path":"x"}}
{"txn":{"appId":"trace-destination:a","version":7}}"#,
                Meaning::Ours,
            ),
            // A later batch of the same lane: this one was stored before it.
            (
                r#"{"txn":{"appId":"trace-destination:a","version":8}}"#,
                Meaning::Ours,
            ),
            (
                r#"{"txn":{"appId":"trace-destination:a","version":6}}"#,
                Meaning::Other,
            ),
            (
                r#"{"txn":{"appId":"trace-destination:b","version":7}}"#,
                Meaning::Other,
            ),
            (r#"{"metaData":{"id":"x"}}"#, Meaning::Changed),
            (r#"{"protocol":{"minReaderVersion":3}}"#, Meaning::Changed),
            // Another engine removes, compacts, or says something new: nothing to us.
            (
                r#"{"remove":{"path":"x","dataChange":true}}
{"somethingNew":{"a":1}}"#,
                Meaning::Other,
            ),
            ("{\"add\":", Meaning::Changed),
        ] {
            assert_eq!(meaning(commit.as_bytes(), &stamp()), expected, "{commit}");
        }
    }
}
