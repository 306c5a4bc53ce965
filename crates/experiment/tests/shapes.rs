//! Every shape of the database is written in its own way, also when it changes between batches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use tempfile::TempDir;
use trace_destination_core::TraceLocation;

const TAGS: &str = "SELECT \"key\", value FROM trace_tags ORDER BY 1";
const METADATA: &str = "SELECT \"key\", value FROM trace_request_metadata ORDER BY 1";

#[test]
fn a_new_file_has_the_oldest_shape_and_rows_for_names_and_usage() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("deeper/new.db");
    run(store(&at(&path, "checkout"), &batch(conversation(7)))).unwrap();

    let root = path.parent().unwrap().canonicalize().unwrap();
    let root = root.to_str().unwrap();
    assert_eq!(
        texts(&path, "SELECT * FROM alembic_version"),
        ["a1b2c3d4e5f6"]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT experiment_id, name, artifact_location, lifecycle_stage FROM experiments"
        ),
        [format!("1|checkout|{root}/mlruns/1|active")]
    );
    let trace = "tr-00000000000000000000000000000007";
    assert_eq!(
        texts(&path, "SELECT * FROM trace_info"),
        [format!(
            "{trace}|1|1795305600001|6|OK|-|{{\"q\": \"hi\"}}|{{\"a\": \"yo\"}}"
        )]
    );
    assert_eq!(
        texts(&path, TAGS),
        [
            "env|dev".to_owned(),
            format!("mlflow.artifactLocation|{root}/mlruns/1/traces/{trace}/artifacts"),
            "mlflow.trace.spansLocation|TRACKING_STORE".to_owned(),
            "mlflow.traceName|chat".to_owned(),
            "service.name|svc".to_owned(),
        ]
    );
    assert_eq!(
        texts(&path, METADATA),
        [
            "mlflow.trace.cost|{\"input_cost\": 0.5, \"output_cost\": 0.25, \"total_cost\": 0.75}",
            "mlflow.trace.session|s-1",
            "mlflow.trace.tokenUsage|{\"input_tokens\": 10, \"output_tokens\": 5, \"total_tokens\": 15}",
            "mlflow.trace.user|u-1",
        ]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT trace_id, experiment_id, span_id, parent_span_id, name, type, status, \
             start_time_unix_nano, end_time_unix_nano, duration_ns FROM spans ORDER BY span_id"
        ),
        [
            format!(
                "{trace}|1|0000000000000001|-|answer|-|UNSET|1795305600001000000|1795305600006000000|5000000"
            ),
            format!(
                "{trace}|1|0000000000000002|0000000000000001|call|CHAT_MODEL|UNSET|1795305600002000000|1795305600007000000|5000000"
            ),
        ]
    );
    assert_eq!(texts(&path, "PRAGMA journal_mode"), ["wal"]);
    assert_sound(&path);
}

#[test]
fn the_last_shape_before_columns_gets_rows_metrics_and_dimensions() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("old.db");
    drop(made_by_mlflow(&path, BEFORE_COLUMNS));
    run(store(&at(&path, "checkout"), &batch(conversation(7)))).unwrap();

    assert_eq!(
        texts(
            &path,
            "SELECT artifact_location, workspace FROM experiments WHERE name = 'checkout'"
        ),
        ["mlflow-artifacts:/1|default"]
    );
    assert_eq!(
        texts(&path, "SELECT db_payload_generation FROM trace_info"),
        ["1"]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT value FROM trace_tags WHERE \"key\" = 'mlflow.traceName'"
        ),
        ["chat"]
    );
    assert_eq!(count(&path, "trace_request_metadata"), 4);
    assert_eq!(
        texts(
            &path,
            "SELECT \"key\", value FROM trace_metrics ORDER BY rowid"
        ),
        ["input_tokens|10", "output_tokens|5", "total_tokens|15"]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT span_id, \"key\", value FROM span_metrics ORDER BY rowid"
        ),
        [
            "0000000000000002|input_cost|0.5",
            "0000000000000002|output_cost|0.25",
            "0000000000000002|total_cost|0.75",
        ]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT dimension_attributes FROM spans ORDER BY span_id"
        ),
        [
            "-",
            "{\"mlflow.llm.model\":\"m-1\",\"mlflow.llm.provider\":\"p-1\"}"
        ]
    );
    assert_sound(&path);
}

#[test]
fn the_head_shape_gets_columns_and_no_rows() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("head.db");
    drop(made_by_mlflow(&path, HEAD));
    run(store(&at(&path, "checkout"), &batch(conversation(7)))).unwrap();
    assert_columns(&path);
    assert_eq!(
        texts(&path, METADATA),
        ["mlflow.trace.user|u-1"],
        "nothing else is a row here"
    );
    assert_eq!(count(&path, "trace_metrics"), 0);
    assert_eq!(count(&path, "span_metrics"), 0);
    assert_sound(&path);
}

fn assert_columns(path: &std::path::Path) {
    assert_eq!(
        texts(
            path,
            "SELECT trace_name, session_id, input_tokens, output_tokens, total_tokens, \
             cache_read_input_tokens, input_cost, output_cost, total_cost, db_payload_generation \
             FROM trace_info"
        ),
        ["chat|s-1|10|5|15|-|0.5|0.25|0.75|1"]
    );
    assert_eq!(
        texts(
            path,
            "SELECT input_cost, total_cost, model_name, model_provider FROM spans ORDER BY span_id"
        ),
        ["-|-|-|-", "0.5|0.75|m-1|p-1"]
    );
}

#[test]
fn columns_that_exist_before_the_revision_says_so_are_written_beside_the_rows() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("between.db");
    let conn = made_by_mlflow(&path, HEAD);
    // MLflow adds the columns first and names the revision last.
    conn.execute_batch(
        "UPDATE alembic_version SET version_num = 'b7e2c1a4d9f3';
         ALTER TABLE spans ADD COLUMN dimension_attributes JSON;",
    )
    .unwrap();
    drop(conn);
    run(store(&at(&path, "checkout"), &batch(conversation(7)))).unwrap();
    assert_columns(&path);
    assert_eq!(count(&path, "trace_request_metadata"), 4);
    assert_eq!(count(&path, "trace_metrics"), 3);
    assert_eq!(count(&path, "span_metrics"), 3);
}

#[test]
fn an_upgrade_between_two_batches_is_noticed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("upgraded.db");
    run(async {
        let sink = at(&path, "checkout").open().await.unwrap();
        let all = conversation(7);
        sink.write(&batch(all[..1].to_vec())).await.unwrap();
        // The part of MLflow's upgrade that concerns these tables. The columns of `spans` are there.
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(
            "BEGIN;
             ALTER TABLE trace_info ADD COLUMN db_payload_generation INTEGER DEFAULT '0' NOT NULL;
             ALTER TABLE trace_info ADD COLUMN trace_name VARCHAR(4096);
             ALTER TABLE trace_info ADD COLUMN session_id VARCHAR(250);
             ALTER TABLE trace_info ADD COLUMN input_tokens BIGINT;
             ALTER TABLE trace_info ADD COLUMN output_tokens BIGINT;
             ALTER TABLE trace_info ADD COLUMN total_tokens BIGINT;
             ALTER TABLE trace_info ADD COLUMN cache_read_input_tokens BIGINT;
             ALTER TABLE trace_info ADD COLUMN cache_creation_input_tokens BIGINT;
             ALTER TABLE trace_info ADD COLUMN cache_creation_input_tokens_above_1hr BIGINT;
             ALTER TABLE trace_info ADD COLUMN input_cost FLOAT;
             ALTER TABLE trace_info ADD COLUMN output_cost FLOAT;
             ALTER TABLE trace_info ADD COLUMN total_cost FLOAT;
             UPDATE trace_info SET trace_name = 'chat', session_id = 's-1';
             DELETE FROM trace_tags WHERE \"key\" = 'mlflow.traceName';
             DELETE FROM trace_request_metadata WHERE \"key\" = 'mlflow.trace.session';
             DROP TRIGGER trace_destination_keep_span_values;
             UPDATE alembic_version SET version_num = 'dc11669786a5';
             COMMIT;",
        )
        .unwrap();
        drop(conn);
        sink.write(&batch(all[1..].to_vec())).await.unwrap();
        sink.close().await.unwrap();
    });
    assert_columns(&path);
    assert_eq!(texts(&path, METADATA), ["mlflow.trace.user|u-1"]);
    assert_sound(&path);
}

#[test]
fn a_file_moves_from_shape_to_shape_without_losing_a_value() {
    for ddl in [OLDEST, BEFORE_COLUMNS, HEAD] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("any.db");
        drop(made_by_mlflow(&path, ddl));
        let location = at(&path, "checkout");
        // Child first, root later, everything again: the end is the same.
        let all = conversation(7);
        for spans in [&all[1..], &all[..1], &all[..]] {
            run(store(&location, &batch(spans.to_vec()))).unwrap();
        }
        assert_eq!(
            texts(
                &path,
                "SELECT timestamp_ms, execution_time_ms, status, request_preview FROM trace_info"
            ),
            ["1795305600001|6|OK|{\"q\": \"hi\"}"]
        );
        assert_eq!(count(&path, "spans"), 2);
        if ddl == HEAD {
            assert_eq!(
                texts(
                    &path,
                    "SELECT trace_name, session_id, total_tokens, total_cost FROM trace_info"
                ),
                ["chat|s-1|15|0.75"]
            );
        } else {
            assert_eq!(count(&path, "trace_request_metadata"), 4);
        }
        assert_sound(&path);
    }
}
