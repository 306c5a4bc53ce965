//! Cases that went wrong once.

use crate::help::*;
use crate::lake;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;
use trace_destination_core::{BatchId, SpanGroup, SpanKind, TraceBatch};
use trace_destination_otlp::ResourceSpans;
use uuid::Uuid;

fn of_groups(sequence: u64, groups: Vec<SpanGroup>) -> TraceBatch {
    let id = BatchId {
        writer: Uuid::from_u128(1),
        sequence,
    };
    TraceBatch::new(id, groups, Vec::new())
}

/// The groups of a case.
fn case(groups: Vec<ResourceSpans>) -> Vec<SpanGroup> {
    let group = |group: ResourceSpans| SpanGroup {
        resource: group.resource,
        scope: group.scope,
        spans: group.spans.into_iter().map(Into::into).collect(),
    };
    groups.into_iter().map(group).collect()
}

/// The bounds that the log has of the services in each file.
fn bounds(folder: &Path) -> Vec<(Option<String>, Option<String>)> {
    let mut all = Vec::new();
    for commit in commits(folder).values() {
        for add in actions(commit, "add") {
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let bound = |which: &str| stats[which]["service_name"].as_str().map(str::to_owned);
            all.push((bound("minValues"), bound("maxValues")));
        }
    }
    all
}

/// `stats_bound.jsonl`: a filter on the service finds the file.
#[tokio::test]
async fn bounds_of_services_are_bounds() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    let text = include_str!("cases/stats_bound.jsonl");
    let groups = trace_destination_otlp::decode_json(text.trim().as_bytes()).unwrap();
    sink.write(&of_groups(0, case(groups))).await.unwrap();
    let folder = shop(dir.path());
    let rows = lake::spans(&folder).await.unwrap();
    assert_eq!(rows.len(), 1);
    let name = &rows[0].resource.attributes[0].value;
    let trace_destination_core::AnyValue::String(name) = name else {
        panic!("{name:?}");
    };
    let name = name.as_str();
    assert!(name.contains('\u{10ffff}'), "{name:?}");
    let [(Some(low), Some(high))] = &bounds(&folder)[..] else {
        panic!("{:?}", bounds(&folder));
    };
    assert!(low.as_str() <= name && name <= high.as_str());
}

/// `span_twice.binpb`: one row, in one batch and in two, also across other batches.
#[tokio::test]
async fn a_span_that_comes_twice_has_one_row() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    let twice = include_bytes!("cases/span_twice.binpb");
    let groups = || case(trace_destination_otlp::decode_protobuf(twice).unwrap());
    assert_eq!(groups().iter().map(|g| g.spans.len()).sum::<usize>(), 2);
    let folder = shop(dir.path());
    for sequence in 0..3 {
        let written = sink.write(&of_groups(sequence, groups())).await.unwrap();
        assert!(written.refused.is_empty());
        assert_eq!(stored(&folder).await.len(), 1);
    }
    // Beside others, which are stored.
    sink.write(&numbered(1, 3)).await.unwrap();
    let mut groups = numbered(1, 3).groups().to_vec();
    groups.extend(numbered(1, 4).groups().to_vec());
    sink.write(&of_groups(4, groups)).await.unwrap();
    assert_eq!(stored(&folder).await.len(), 1 + 3 + 3);
    // Nothing was committed for what was there already.
    assert_eq!(commits(&folder).len(), 1 + 1 + 2);
}

/// Spans that are told apart by more than their ids are both kept, and so is one that was refused.
#[tokio::test]
async fn spans_that_share_an_id_are_kept() {
    let dir = TempDir::new().unwrap();
    let sink = open(&location(dir.path())).await;
    let (mut client, mut server) = (span(1, 1), span(1, 1));
    (client.kind, server.kind) = (SpanKind::Client, SpanKind::Server);
    let mut running = span(1, 2);
    running.end_time_unix_nano = 0;
    let mut odd = span(1, 3);
    odd.end_time_unix_nano = u64::MAX;
    for (sequence, spans) in [
        vec![client.clone(), running],
        vec![server, span(1, 2), odd],
        vec![client, span(1, 3)],
    ]
    .into_iter()
    .enumerate()
    {
        let sequence = u64::try_from(sequence).unwrap();
        sink.write(&batch(1, sequence, spans)).await.unwrap();
    }
    assert_eq!(stored(&shop(dir.path())).await.len(), 5);
}

/// What is remembered is what was stored: a batch that failed for good takes nothing with it.
#[tokio::test]
async fn a_span_of_a_batch_that_failed_is_stored_when_it_comes_again() {
    let dir = TempDir::new().unwrap();
    let location = location(dir.path());
    let sink = open(&location).await;
    sink.write(&batch(1, 0, vec![span(1, 1)])).await.unwrap();
    let log = shop(dir.path()).join("_delta_log");
    let aside = dir.path().join("aside");
    std::fs::rename(&log, &aside).unwrap();
    let error = sink.write(&batch(1, 1, vec![span(1, 2)])).await;
    assert!(error.is_err());
    std::fs::rename(&aside, &log).unwrap();
    let again = batch(1, 2, vec![span(1, 1), span(1, 2)]);
    sink.write(&again).await.unwrap();
    let stored = stored(&shop(dir.path())).await;
    assert!(stored.iter().any(|(_, id)| id.ends_with('2')), "{stored:?}");
}

/// Rows that somebody removed are no longer there to be repeated; those that were only rewritten are.
#[tokio::test]
async fn a_span_whose_row_was_removed_is_stored_when_it_comes_again() {
    for (data_change, rows) in [("true", 1), ("false", 0)] {
        let dir = TempDir::new().unwrap();
        let sink = open(&location(dir.path())).await;
        sink.write(&batch(1, 0, vec![span(1, 1)])).await.unwrap();
        let folder = shop(dir.path());
        let log = folder.join("_delta_log");
        let commit = std::fs::read_to_string(log.join("00000000000000000001.json")).unwrap();
        let actions = commit
            .lines()
            .map(serde_json::from_str::<serde_json::Value>);
        let path = actions
            .filter_map(|action| Some(action.ok()?.get("add")?.get("path")?.to_string()))
            .next()
            .unwrap();
        let removed = format!(
            "{{\"remove\":{{\"path\":{path},\"deletionTimestamp\":1,\"dataChange\":{data_change}}}}}\n"
        );
        std::fs::write(log.join("00000000000000000002.json"), removed).unwrap();
        sink.write(&batch(1, 1, vec![span(1, 1)])).await.unwrap();
        assert_eq!(stored(&folder).await.len(), rows, "{data_change}");
    }
}
