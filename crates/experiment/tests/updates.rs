//! Values an application sets on a trace as a whole: stored, and stronger than what spans say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use opentelemetry::trace::TraceId;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{TraceLocation, TraceUpdate};

fn update(trace: u128) -> TraceUpdate {
    let mut update = TraceUpdate::new(TraceId::from(trace));
    update.tags.insert("env".into(), "prod".into());
    update
        .tags
        .insert("mlflow.trace.spansLocation".into(), "NOWHERE".into());
    update.metadata.insert("version".into(), "7".into());
    update.name = Some("set".into());
    update.session_id = Some("s-set".into());
    update.user_id = Some("u-set".into());
    update.client_request_id = Some("req".into());
    update.request_preview = Some("asked".into());
    update.response_preview = Some("é".repeat(1200));
    update
}

const TAGS: &str = "SELECT \"key\", value FROM trace_tags \
     WHERE \"key\" <> 'mlflow.artifactLocation' ORDER BY 1";

#[test]
fn they_win_before_with_and_after_the_root() {
    let all = || conversation(1);
    let plans = [
        vec![batch_with(all(), vec![update(1)])],
        vec![
            batch_with(all()[1..].to_vec(), vec![update(1)]),
            batch(all()[..1].to_vec()),
        ],
        vec![batch(all()), batch_with(Vec::new(), vec![update(1)])],
        vec![batch_with(Vec::new(), vec![update(1)]), batch(all())],
        vec![batch_with(all(), vec![update(1)]), batch(all())],
    ];
    for ddl in [OLDEST, BEFORE_COLUMNS, HEAD] {
        for plan in &plans {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("x.db");
            drop(made_by_mlflow(&path, ddl));
            run(async {
                let sink = at(&path, "a").open().await.unwrap();
                for batch in plan {
                    sink.write(batch).await.unwrap();
                }
                sink.close().await.unwrap();
            });
            let preview = "é".repeat(1000);
            assert_eq!(
                texts(
                    &path,
                    "SELECT status, timestamp_ms, execution_time_ms, client_request_id, \
                     request_preview, response_preview FROM trace_info"
                ),
                [format!("OK|1795305600001|6|req|asked|{preview}")]
            );
            let mut tags = vec![
                "env|prod",
                "mlflow.trace.spansLocation|TRACKING_STORE",
                "service.name|svc",
            ];
            let mut metadata = vec!["mlflow.trace.user|u-set", "version|7"];
            if ddl == HEAD {
                assert_eq!(
                    texts(
                        &path,
                        "SELECT trace_name, session_id, total_tokens FROM trace_info"
                    ),
                    ["set|s-set|15"]
                );
            } else {
                tags.insert(2, "mlflow.traceName|set");
                metadata.splice(
                    0..0,
                    [
                        "mlflow.trace.cost|{\"input_cost\": 0.5, \"output_cost\": 0.25, \"total_cost\": 0.75}",
                        "mlflow.trace.session|s-set",
                        "mlflow.trace.tokenUsage|{\"input_tokens\": 10, \"output_tokens\": 5, \"total_tokens\": 15}",
                    ],
                );
            }
            assert_eq!(texts(&path, TAGS), tags);
            assert_eq!(
                texts(
                    &path,
                    "SELECT \"key\", value FROM trace_request_metadata ORDER BY 1"
                ),
                metadata
            );
            assert_sound(&path);
        }
    }
}

#[test]
fn a_later_update_replaces_only_what_it_sets() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let mut later = TraceUpdate::new(TraceId::from(1));
    later.name = Some("later".into());
    later.tags.insert("more".into(), "1".into());
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        for batch in [
            batch_with(conversation(1), vec![update(1)]),
            batch_with(Vec::new(), vec![later]),
        ] {
            sink.write(&batch).await.unwrap();
        }
        sink.close().await.unwrap();
    });
    assert_eq!(
        texts(&path, TAGS),
        [
            "env|prod",
            "mlflow.trace.spansLocation|TRACKING_STORE",
            "mlflow.traceName|later",
            "more|1",
            "service.name|svc"
        ]
    );
    assert_eq!(
        texts(&path, "SELECT client_request_id FROM trace_info"),
        ["req"]
    );
}

#[test]
fn usage_and_cost_that_the_application_gives_are_not_recomputed() {
    for ddl in [OLDEST, HEAD] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        drop(made_by_mlflow(&path, ddl));
        let mut given = TraceUpdate::new(TraceId::from(1));
        let usage = r#"{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}"#;
        given
            .metadata
            .insert("mlflow.trace.tokenUsage".into(), usage.into());
        run(async {
            let sink = at(&path, "a").open().await.unwrap();
            sink.write(&batch_with(conversation(1), vec![given]))
                .await
                .unwrap();
            sink.write(&batch(conversation(1))).await.unwrap();
            sink.close().await.unwrap();
        });
        let sql = match ddl {
            HEAD => "SELECT input_tokens, output_tokens, total_tokens FROM trace_info",
            _ => {
                "SELECT value FROM trace_request_metadata WHERE \"key\" = 'mlflow.trace.tokenUsage'"
            }
        };
        let expected = if ddl == HEAD { "1|2|3" } else { usage };
        assert_eq!(texts(&path, sql), [expected]);
    }
}

#[test]
fn a_run_is_linked_by_a_row_where_there_are_such_rows_and_by_metadata_otherwise() {
    for (ddl, known_run, rows, metadata) in [
        (OLDEST, true, 0, 1),
        (BEFORE_COLUMNS, true, 1, 0),
        (HEAD, true, 1, 0),
        (HEAD, false, 0, 1),
    ] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        let conn = made_by_mlflow(&path, ddl);
        if known_run {
            conn.execute_batch(
                "INSERT INTO runs (run_uuid, lifecycle_stage, experiment_id) VALUES ('r1', 'active', 0)",
            )
            .unwrap();
        }
        drop(conn);
        let mut link = TraceUpdate::new(TraceId::from(1));
        link.run_id = Some("r1".into());
        let linked = batch_with(conversation(1), vec![link]);
        for _ in 0..2 {
            run(store(&at(&path, "a"), &linked)).unwrap();
        }
        let found = texts(
            &path,
            "SELECT value FROM trace_request_metadata WHERE \"key\" = 'mlflow.sourceRun'",
        );
        assert_eq!(found, vec!["r1"; metadata]);
        if ddl != OLDEST {
            assert_eq!(
                texts(
                    &path,
                    "SELECT source_type, source_id, destination_type, destination_id FROM entity_associations"
                ),
                vec!["trace|tr-00000000000000000000000000000001|run|r1"; rows]
            );
        }
    }
}

#[test]
fn what_an_mlflow_client_finalized_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let conn = made_by_mlflow(&path, HEAD);
    conn.execute_batch(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status, \
         session_id, input_tokens, output_tokens, total_tokens) VALUES \
         ('tr-00000000000000000000000000000001', 0, 5, 6, 'ERROR', 'given', 1, 2, 3);
         INSERT INTO trace_request_metadata VALUES \
         ('mlflow.trace.infoFinalized', 'true', 'tr-00000000000000000000000000000001');",
    )
    .unwrap();
    drop(conn);
    run(store(&at(&path, "Default"), &batch(conversation(1)))).unwrap();
    assert_eq!(
        texts(
            &path,
            "SELECT timestamp_ms, execution_time_ms, status, session_id, total_tokens, total_cost, \
             request_preview FROM trace_info"
        ),
        ["5|6|ERROR|given|3|0.75|{\"q\": \"hi\"}"]
    );
    assert_eq!(
        texts(&path, TAGS),
        [
            "env|dev",
            "mlflow.trace.spansLocation|TRACKING_STORE",
            "service.name|svc"
        ]
    );
}

/// The tags by which MLflow finds a trace's data, as its own server keeps them out.
const RESERVED: [&str; 4] = [
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
    "mlflow.artifactLocation",
];

#[test]
fn usage_and_cost_of_another_form_are_told_as_lost() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        for (key, value, losses) in [
            ("mlflow.trace.tokenUsage", r#"{"input_tokens": 1}"#, 0),
            ("mlflow.trace.tokenUsage", "many", 1),
            ("mlflow.trace.tokenUsage", r#"{"input_tokens": "many"}"#, 1),
            ("mlflow.trace.tokenUsage", "[1]", 1),
            ("mlflow.trace.cost", r#"{"total_cost": 0.5}"#, 0),
            ("mlflow.trace.cost", "", 1),
            ("mlflow.trace.cost", "0.5", 1),
            ("mlflow.trace.cost", "}}", 1),
        ] {
            let mut update = TraceUpdate::new(TraceId::from(1));
            update.metadata.insert(key.into(), value.into());
            let spans = conversation(1);
            let written = sink.write(&batch_with(spans, vec![update])).await.unwrap();
            assert_eq!(written.lost_updates.len(), losses, "{key} {value}");
            let told = written
                .lost_updates
                .iter()
                .all(|e| e.to_string().contains(key));
            assert!(told, "{:?}", written.lost_updates);
        }
        sink.close().await.unwrap();
    });
}

#[test]
fn reserved_tags_and_keys_that_mlflow_does_not_take_are_told_as_lost() {
    let long = "k".repeat(251);
    let cases: Vec<(TraceUpdate, &str)> = RESERVED
        .iter()
        .map(|key| {
            let mut update = TraceUpdate::new(TraceId::from(1));
            update
                .tags
                .insert((*key).into(), "file:///elsewhere".into());
            (update, *key)
        })
        .collect();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        let before = texts(&path, "SELECT * FROM trace_tags ORDER BY 1");
        for (update, key) in cases {
            let written = sink
                .write(&batch_with(Vec::new(), vec![update]))
                .await
                .unwrap();
            let lost = written.lost_updates;
            assert_eq!(lost.len(), 1, "{key}");
            assert!(lost[0].to_string().contains(key), "{}", lost[0]);
            assert_eq!(
                texts(&path, "SELECT * FROM trace_tags ORDER BY 1"),
                before,
                "{key}"
            );
        }
        // Several at once are one error, and what else the update says is stored.
        let mut update = TraceUpdate::new(TraceId::from(1));
        for key in RESERVED.into_iter().chain([long.as_str(), "", "fine"]) {
            update.tags.insert(key.into(), "v".into());
            update.metadata.insert(key.into(), "v".into());
        }
        let written = sink
            .write(&batch_with(Vec::new(), vec![update]))
            .await
            .unwrap();
        assert_eq!(written.lost_updates.len(), 1);
        let text = written.lost_updates[0].to_string();
        assert!(text.contains("and 7 more") && text.len() < 600, "{text}");
        let fine = "SELECT value FROM trace_tags WHERE \"key\" = 'fine'";
        assert_eq!(texts(&path, fine), ["v"]);
        // As attributes of a root they are kept out too.
        let spans = vec![RESERVED.iter().fold(span(2, 1, None, "root"), |span, key| {
            span.with_attribute(format!("mlflow.traceTag.{key}"), "file:///elsewhere")
        })];
        sink.write(&batch(spans)).await.unwrap();
        let elsewhere = "SELECT count(*) FROM trace_tags WHERE value = 'file:///elsewhere'";
        assert_eq!(texts(&path, elsewhere), ["0"]);
        sink.close().await.unwrap();
    });
}

#[test]
fn values_of_a_trace_that_is_elsewhere_are_told_as_lost() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let (a, b) = (at(&path, "a"), at(&path, "b"));
        let first = a.open().await.unwrap();
        first.write(&batch(conversation(1))).await.unwrap();
        let second = b.open().await.unwrap();
        let written = second
            .write(&batch_with(Vec::new(), vec![update(1)]))
            .await
            .unwrap();
        assert_eq!(written.lost_updates.len(), 1);
        assert_eq!(
            texts(
                &path,
                "SELECT count(*) FROM trace_tags WHERE value = 'prod'"
            ),
            ["0"]
        );
    });
}
