//! Whatever order batches of a trace come in, and however often, the end is the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use std::path::Path;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{SpanRecord, TraceLocation};

/// Everything that is stored, but for counters of writes.
fn everything(path: &Path) -> Vec<String> {
    let columns = texts(path, "SELECT name FROM pragma_table_info('trace_info')");
    let columns: Vec<_> = columns
        .iter()
        .filter(|c| *c != "db_payload_generation")
        .map(String::as_str)
        .collect();
    let mut all = texts(
        path,
        &format!(
            "SELECT {} FROM trace_info ORDER BY request_id",
            columns.join(", ")
        ),
    );
    for (table, order) in [
        ("trace_tags", "request_id, \"key\""),
        ("trace_request_metadata", "request_id, \"key\""),
        ("spans", "trace_id, span_id"),
    ] {
        let sql = format!("SELECT * FROM {table} ORDER BY {order}");
        all.extend(
            texts(path, &sql)
                .into_iter()
                .map(|r| format!("{table} {r}")),
        );
    }
    assert_sound(path);
    all
}

#[test]
fn the_same_batch_again_changes_nothing() {
    for ddl in [OLDEST, BEFORE_COLUMNS, HEAD] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        drop(made_by_mlflow(&path, ddl));
        run(async {
            let location = at(&path, "a");
            let sink = location.open().await.unwrap();
            let once = batch(conversation(1));
            sink.write(&once).await.unwrap();
            let expected = everything(&path);
            sink.write(&once).await.unwrap();
            assert_eq!(everything(&path), expected, "from memory");
            sink.close().await.unwrap();
            let sink = location.open().await.unwrap();
            sink.write(&once).await.unwrap();
            assert_eq!(everything(&path), expected, "from the file");
            sink.close().await.unwrap();
        });
    }
}

#[test]
fn a_span_that_comes_again_replaces_itself() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        let mut changed = conversation(1).remove(1);
        changed.name = "renamed".into();
        sink.write(&batch(vec![changed])).await.unwrap();
        sink.close().await.unwrap();
    });
    assert_eq!(
        texts(&path, "SELECT name FROM spans ORDER BY span_id"),
        ["answer", "renamed"]
    );
}

/// One span of a made-up trace: which earlier span is its parent, and what it carries.
#[derive(Clone, Debug)]
struct Made {
    parent: usize,
    usage: Option<u32>,
    cost: Option<u32>,
    error: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let carried = || prop::option::weighted(0.4, 1u32..50);
    (
        any::<prop::sample::Index>(),
        carried(),
        carried(),
        any::<bool>(),
    )
        .prop_map(|(parent, usage, cost, error)| Made {
            parent: parent.index(64),
            usage,
            cost,
            error,
        })
}

fn trace_of(trace: u128, spans: &[Made]) -> Vec<SpanRecord> {
    let mut records = vec![conversation(trace).remove(0)];
    for (i, made) in spans.iter().enumerate() {
        let id = i as u64 + 2;
        let parent = made.parent as u64 % (id - 1) + 1;
        let mut record = span(trace, id, Some(parent), "step");
        record.end_time_unix_nano += u64::from(made.usage.unwrap_or(0)) * 1_000_000;
        if made.error {
            record.status.code = trace_destination_core::StatusCode::Error;
        }
        if let Some(n) = made.usage {
            record = record.with_attribute(
                "mlflow.chat.tokenUsage",
                format!(r#"{{"input_tokens": {n}, "output_tokens": 1, "total_tokens": {n}}}"#),
            );
        }
        if let Some(n) = made.cost {
            // Quarters add up exactly in any order.
            let amount = f64::from(n) / 4.0;
            record = record.with_attribute(
                "mlflow.llm.cost",
                format!(
                    r#"{{"input_cost": {amount}, "output_cost": 0.0, "total_cost": {amount}}}"#
                ),
            );
        }
        records.push(record);
    }
    records
}

/// How a batch of the shuffled delivery is formed.
#[derive(Clone, Debug)]
struct Delivery {
    size: usize,
    again: bool,
    reopen: bool,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (
        1usize..5,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(size, again, reopen)| Delivery {
            size,
            again,
            reopen,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_order_in_any_portions_ends_as_one_batch_in_order(
        first in prop::collection::vec(made(), 0..10),
        second in prop::collection::vec(made(), 0..10),
        ranks in prop::collection::vec(any::<u32>(), 22),
        plan in prop::collection::vec(delivery(), 1..12),
        shape in 0usize..3,
    ) {
        let ddl = [OLDEST, BEFORE_COLUMNS, HEAD][shape];
        let dir = TempDir::new().unwrap();
        let (straight, shuffled) = (dir.path().join("a.db"), dir.path().join("b.db"));
        drop(made_by_mlflow(&straight, ddl));
        drop(made_by_mlflow(&shuffled, ddl));
        let all = [trace_of(1, &first), trace_of(2, &second)].concat();
        run(async {
            store(&at(&straight, "a"), &batch(all.clone())).await.unwrap();

            let mut rest: Vec<_> = all.iter().zip(&ranks).collect();
            rest.sort_by_key(|(_, rank)| **rank);
            let mut rest: Vec<SpanRecord> = rest.into_iter().map(|(s, _)| s.clone()).collect();
            let location = at(&shuffled, "a");
            let mut sink = location.open().await.unwrap();
            let mut turns = plan.iter().cycle();
            while !rest.is_empty() {
                let turn = turns.next().unwrap();
                let portion = batch(rest.split_off(rest.len().saturating_sub(turn.size)));
                sink.write(&portion).await.unwrap();
                if turn.reopen {
                    sink.close().await.unwrap();
                    sink = location.open().await.unwrap();
                }
                if turn.again {
                    sink.write(&portion).await.unwrap();
                }
            }
            sink.close().await.unwrap();
        });
        prop_assert_eq!(everything(&straight), everything(&shuffled));
    }
}
