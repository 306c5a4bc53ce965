//! What MLflow, or anybody else, changes about the tables: what can be written is written, whatever
//! its revision is called; what cannot is refused by its name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rusqlite::Connection;
use std::path::Path;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Error, ErrorKind, Retry, TraceLocation};

/// After MLflow 3.17.2's: those of 3.18.0, and one that no MLflow has yet.
const NEWER: [&str; 4] = [
    "e7d1f4b2a9c6",
    "8b6ad64cb8f5",
    "f4a9b2c7d1e6",
    "ffffffffffff",
];

struct File {
    _dir: TempDir,
    path: std::path::PathBuf,
}

impl File {
    fn new(ddl: &str, revision: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        made_by_mlflow(&path, ddl)
            .execute(
                "UPDATE alembic_version SET version_num = ?1 WHERE ?1 <> ''",
                [revision],
            )
            .unwrap();
        Self { _dir: dir, path }
    }

    fn change(&self, sql: &str) {
        let conn = Connection::open(&self.path).unwrap();
        conn.execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn store(&self, trace: u128) -> Result<(), Error> {
        let written = run(store(&at(&self.path, "a"), &batch(conversation(trace))))?;
        assert!(written.refused.is_empty(), "{written:?}");
        assert!(written.lost_updates.is_empty(), "{written:?}");
        Ok(())
    }

    #[track_caller]
    fn refuses(&self, says: &str) -> Error {
        let error = self.store(99).unwrap_err();
        assert_eq!(error.retry(), Retry::Never, "{error:?}");
        assert!(error.to_string().contains(says), "`{says}` in: {error}");
        assert!(error.location().is_some());
        assert!(error.mend_hint().is_some_and(|m| !m.is_empty()), "{error}");
        error
    }
}

#[test]
fn a_newer_revision_of_known_tables_is_written() {
    for ddl in [HEAD, BEFORE_COLUMNS, OLDEST] {
        for revision in NEWER {
            if ddl != HEAD && revision != "ffffffffffff" {
                continue;
            }
            let file = File::new(ddl, revision);
            file.store(1).unwrap_or_else(|e| panic!("{revision}: {e}"));
            assert_eq!(count(&file.path, "spans"), 2, "{revision}");
            if ddl == HEAD {
                assert_eq!(
                    texts(
                        &file.path,
                        "SELECT trace_name, total_tokens FROM trace_info"
                    ),
                    ["chat|15"]
                );
            } else {
                assert_eq!(count(&file.path, "trace_request_metadata"), 4);
            }
            assert_eq!(
                texts(&file.path, "SELECT version_num FROM alembic_version"),
                [revision],
            );
            assert_sound(&file.path);
        }
    }
}

#[test]
fn changes_that_rows_do_not_mind_are_written() {
    let every = |sql: &str| -> String {
        [
            "trace_info",
            "trace_tags",
            "trace_request_metadata",
            "spans",
            "experiments",
            "assessments",
            "entity_associations",
        ]
        .map(|table| sql.replace('@', table))
        .concat()
    };
    for (change, rows) in [
        (every("ALTER TABLE @ ADD COLUMN extra TEXT;"), None),
        (
            every("ALTER TABLE @ ADD COLUMN extra INTEGER NOT NULL DEFAULT 7;"),
            Some(("SELECT DISTINCT extra FROM spans", "7")),
        ),
        (
            every("ALTER TABLE @ ADD COLUMN \"a \"\" b\" TEXT GENERATED ALWAYS AS ('x');"),
            None,
        ),
        (
            "ALTER TABLE spans ADD COLUMN of_run VARCHAR(32) REFERENCES runs (run_uuid)".into(),
            None,
        ),
        (
            "CREATE INDEX i1 ON spans (name); CREATE INDEX i2 ON trace_info (status) WHERE status = 'OK';
             CREATE UNIQUE INDEX i3 ON spans (span_id, experiment_id, trace_id);
             CREATE UNIQUE INDEX i4 ON trace_info (request_id) WHERE status = 'OK';
             CREATE UNIQUE INDEX i5 ON experiments (workspace, name, lifecycle_stage);"
                .into(),
            None,
        ),
        (
            "CREATE TABLE log (what TEXT);
             CREATE TRIGGER t1 AFTER INSERT ON spans BEGIN INSERT INTO log VALUES (NEW.name); END;
             CREATE TRIGGER t2 AFTER DELETE ON spans BEGIN DELETE FROM trace_info; END;"
                .into(),
            Some(("SELECT count(*) FROM log", "2")),
        ),
    ] {
        for revision in ["dc11669786a5", "ffffffffffff"] {
            let file = File::new(HEAD, revision);
            file.change(&change);
            file.store(1).unwrap_or_else(|e| panic!("{change}: {e}"));
            assert_eq!(count(&file.path, "spans"), 2, "{change}");
            if let Some((sql, expected)) = rows {
                assert_eq!(texts(&file.path, sql), [expected]);
            }
        }
    }
}

/// A change to the tables, what the refusal names, and the mend that it gives, done.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "DROP TABLE assessments; CREATE TABLE holder (id INTEGER);
         CREATE TRIGGER \"gr'een\" AFTER INSERT ON spans BEGIN UPDATE spans SET name = 'x'; END",
        "trigger `gr'een` of table `spans`",
        "DROP TRIGGER \"gr'een\"",
    ),
    (
        "CREATE TRIGGER t BEFORE INSERT ON trace_tags BEGIN SELECT RAISE(IGNORE); END",
        "trigger `t` of table `trace_tags`",
        "DROP TRIGGER \"t\"",
    ),
    (
        "CREATE TRIGGER t UPDATE ON trace_info BEGIN DELETE FROM spans; END",
        "trigger `t` of table `trace_info`",
        "DROP TRIGGER \"t\"",
    ),
    (
        "CREATE TRIGGER t UPDATE ON assessments BEGIN DELETE FROM spans; END",
        "trigger `t` of table `assessments`",
        "DROP TRIGGER \"t\"",
    ),
    (
        "CREATE TRIGGER t BEFORE INSERT ON experiments BEGIN SELECT RAISE(IGNORE); END",
        "trigger `t` of table `experiments`",
        "DROP TRIGGER \"t\"",
    ),
    (
        "CREATE UNIQUE INDEX one_name ON spans (trace_id, name)",
        "unique index `one_name` of table `spans` over trace_id, name",
        "DROP INDEX \"one_name\"",
    ),
    (
        "CREATE UNIQUE INDEX u ON spans (span_id) WHERE status = 'OK'",
        "unique index `u` of table `spans` over span_id",
        "DROP INDEX \"u\"",
    ),
    (
        "CREATE UNIQUE INDEX u ON trace_tags (request_id, \"key\" COLLATE NOCASE)",
        "unique index `u` of table `trace_tags`",
        "DROP INDEX \"u\"",
    ),
    (
        "CREATE UNIQUE INDEX u ON trace_info (lower(request_id))",
        "unique index `u` of table `trace_info` over an expression",
        "DROP INDEX \"u\"",
    ),
    (
        "CREATE UNIQUE INDEX u ON experiments (artifact_location)",
        "unique index `u` of table `experiments` over artifact_location",
        "DROP INDEX \"u\"",
    ),
    (
        "CREATE TRIGGER \"a \"\" b\" INSERT ON spans BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "trigger `a \" b` of table `spans`",
        "DROP TRIGGER \"a \"\" b\"",
    ),
    (
        "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON;
         ALTER TABLE experiments RENAME TO e2;
         CREATE TABLE experiments (
            experiment_id INTEGER NOT NULL, name VARCHAR(256) NOT NULL,
            artifact_location VARCHAR(256), lifecycle_stage VARCHAR(32), creation_time BIGINT,
            last_update_time BIGINT, workspace VARCHAR(63) DEFAULT 'default' NOT NULL,
            owner TEXT NOT NULL, PRIMARY KEY (experiment_id), UNIQUE (workspace, name))",
        "table `experiments` has a column `owner` that must have a value",
        "ALTER TABLE experiments DROP COLUMN \"owner\"",
    ),
    (
        "ALTER TABLE trace_info RENAME TO t2; CREATE VIEW trace_info AS SELECT * FROM t2",
        "`trace_info` is a view instead of a table",
        "DROP VIEW trace_info; ALTER TABLE t2 RENAME TO trace_info",
    ),
];

#[test]
fn what_cannot_be_written_is_refused_by_its_name_and_its_mend_works() {
    for (change, says, mend) in REFUSED {
        for revision in ["dc11669786a5", "ffffffffffff"] {
            let file = File::new(HEAD, revision);
            file.change(change);
            let error = file.refuses(says);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert_eq!(count(&file.path, "spans"), 0);
            let hint = error.mend_hint().unwrap();
            if !mend.contains("VIEW") {
                assert!(hint.contains(mend), "`{mend}` in: {hint}");
            }
            file.change(mend);
            file.store(1).unwrap_or_else(|e| panic!("{mend}: {e}"));
        }
    }
}

/// A piece of MLflow's DDL, what is there instead, and what the refusal names.
const REBUILT: &[(&str, &str, &str)] = &[
    (
        "content TEXT NOT NULL,\n    input_cost",
        "content TEXT NOT NULL,\n    tenant TEXT NOT NULL,\n    input_cost",
        "table `spans` has a column `tenant` that must have a value",
    ),
    (
        "content TEXT NOT NULL,\n    input_cost",
        "content TEXT NOT NULL,\n    tenant TEXT NOT NULL DEFAULT NULL,\n    input_cost",
        "column `tenant` that must have a value",
    ),
    (
        "content TEXT NOT NULL,\n    input_cost",
        "content TEXT GENERATED ALWAYS AS ('{}'),\n    input_cost",
        "column `content` of table `spans` is generated",
    ),
    (
        "start_time_unix_nano BIGINT NOT NULL",
        "start_time_unix_nano FLOAT NOT NULL",
        "column `start_time_unix_nano` of table `spans` has the type `FLOAT`",
    ),
    (
        "start_time_unix_nano BIGINT NOT NULL",
        "start_time_unix_nano VARCHAR(20) NOT NULL",
        "has the type `VARCHAR(20)`",
    ),
    (
        "    name TEXT,\n    type VARCHAR(500),",
        "    name NUMERIC,\n    type VARCHAR(500),",
        "column `name` of table `spans` has the type `NUMERIC`",
    ),
    (
        "    name TEXT,\n    type VARCHAR(500),",
        "    name TEXT,\n    type VARCHAR(500) NOT NULL,",
        "column `type` of table `spans` may not be NULL",
    ),
    (
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id)",
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id, name)",
        "table `spans` has no unique index over trace_id, span_id",
    ),
    (
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id)",
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id), UNIQUE (start_time_unix_nano)",
        "over start_time_unix_nano",
    ),
    (
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id)",
        "CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id), \
         FOREIGN KEY (parent_span_id) REFERENCES spans (span_id)",
        "column `parent_span_id` of table `spans` refers to `spans`",
    ),
    (
        "request_id VARCHAR(50) NOT NULL,\n    experiment_id INTEGER NOT NULL,\n    timestamp_ms",
        "request_id VARCHAR(50) NOT NULL COLLATE NOCASE,\n    experiment_id INTEGER NOT NULL,\n    timestamp_ms",
        "trace_info",
    ),
];

#[test]
fn tables_that_were_rebuilt_otherwise_are_refused_by_what_differs() {
    for (piece, instead, says) in REBUILT {
        let ddl = HEAD.replace(piece, instead);
        assert_ne!(ddl, HEAD, "{piece}");
        for revision in ["", "ffffffffffff"] {
            let file = File::new(&ddl, revision);
            let error = file.refuses(says);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert_eq!(count(&file.path, "trace_info"), 0);
        }
    }
}

#[test]
fn an_experiment_that_is_there_needs_no_row_of_its_table() {
    let file = File::new(HEAD, "");
    file.store(1).unwrap();
    file.change("CREATE TRIGGER t BEFORE INSERT ON experiments BEGIN SELECT RAISE(IGNORE); END");
    file.store(2).unwrap();
    assert_eq!(count(&file.path, "trace_info"), 2);
    let error = run(store(&at(&file.path, "another"), &batch(conversation(3)))).unwrap_err();
    assert!(error.to_string().contains("trigger `t`"), "{error}");
}

#[test]
fn a_missing_column_of_an_unknown_revision_is_named() {
    for (table, column) in [
        ("trace_info", "total_cost"),
        ("trace_info", "trace_name"),
        ("trace_info", "response_preview"),
        ("spans", "model_provider"),
        ("spans", "parent_span_id"),
        ("trace_tags", "value"),
        ("experiments", "last_update_time"),
    ] {
        let file = File::new(HEAD, "ffffffffffff");
        file.change(&format!(
            "ALTER TABLE {table} RENAME COLUMN {column} TO other"
        ));
        // MLflow may be at work: it is tried again for a while.
        let error = file.store(1).unwrap_err();
        assert_eq!(error.retry(), Retry::Backoff, "{error:?}");
        age(&file.path);
        let error = file.refuses(&format!("table `{table}` lacks the column `{column}`"));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("ffffffffffff"), "{error}");
        file.change(&format!(
            "ALTER TABLE {table} RENAME COLUMN other TO {column}"
        ));
        file.store(1).unwrap();
    }
}

/// Makes a file look as if nobody had touched it for a while.
fn age(path: &Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(then).unwrap();
}

#[test]
fn links_that_cannot_be_rows_are_metadata() {
    let file = File::new(HEAD, "ffffffffffff");
    file.change(
        "ALTER TABLE entity_associations RENAME TO old_links;
         CREATE TABLE entity_associations (association_id TEXT, who TEXT NOT NULL);
         INSERT INTO runs (run_uuid, experiment_id) VALUES ('r-1', 0)",
    );
    let mut update = trace_destination_core::TraceUpdate::new(1_u128.into());
    update.run_id = Some("r-1".into());
    let batch = batch_with(conversation(1), vec![update]);
    run(store(&at(&file.path, "a"), &batch)).unwrap();
    assert_eq!(
        texts(
            &file.path,
            "SELECT value FROM trace_request_metadata WHERE \"key\" = 'mlflow.sourceRun'"
        ),
        ["r-1"]
    );
}

#[test]
fn a_shape_that_changes_while_it_is_written_is_looked_at_again() {
    let file = File::new(HEAD, "dc11669786a5");
    run(async {
        let sink = at(&file.path, "a").open().await.unwrap();
        let write = async |trace| sink.write(&batch(conversation(trace))).await;
        write(1).await.unwrap();
        file.change("UPDATE alembic_version SET version_num = 'ffffffffffff'");
        write(2).await.unwrap();
        file.change("ALTER TABLE spans ADD COLUMN extra TEXT NOT NULL DEFAULT 'x'");
        write(3).await.unwrap();
        file.change("CREATE TRIGGER t AFTER INSERT ON spans BEGIN DELETE FROM spans; END");
        let error = write(4).await.unwrap_err();
        assert!(error.to_string().contains("trigger `t`"), "{error}");
        file.change("DROP TRIGGER t");
        write(4).await.unwrap();
        // As a table that is rebuilt outside of a transaction is gone for a moment.
        file.change("PRAGMA legacy_alter_table = ON; ALTER TABLE spans RENAME TO spans_old");
        let error = write(5).await.unwrap_err();
        assert_eq!(error.retry(), Retry::Backoff, "{error:?}");
        file.change("PRAGMA legacy_alter_table = ON; ALTER TABLE spans_old RENAME TO spans");
        write(5).await.unwrap();
        file.change("DELETE FROM alembic_version");
        let error = write(6).await.unwrap_err();
        assert_eq!(error.retry(), Retry::Backoff, "{error:?}");
        file.change("INSERT INTO alembic_version VALUES ('f4a9b2c7d1e6')");
        write(6).await.unwrap();
        sink.close().await.unwrap();
    });
    assert_eq!(count(&file.path, "trace_info"), 6);
    assert_eq!(count(&file.path, "spans"), 12);
    assert_sound(&file.path);
}

/// What MLflow's revision 75868b020152 does to spans: values from the older places, which a file of
/// revision a1b2c3d4e5f6 has not, and then the table made anew.
const BACKFILL: &str = "
    UPDATE spans SET input_cost = NULL, output_cost = NULL, total_cost = NULL, model_name = NULL,
        model_provider = NULL;
    CREATE TABLE _alembic_tmp_spans AS SELECT * FROM spans;";

#[test]
fn a_new_file_keeps_cost_and_model_of_its_spans_through_an_upgrade() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new.db");
    let location = at(&path, "a");
    run(store(&location, &batch(conversation(1)))).unwrap();
    let values = "SELECT span_id, input_cost, output_cost, total_cost, model_name, model_provider \
                  FROM spans ORDER BY span_id";
    let expected = [
        "0000000000000001|-|-|-|-|-",
        "0000000000000002|0.5|0.25|0.75|m-1|p-1",
    ];
    assert_eq!(texts(&path, values), expected);
    // A span that comes again without them has none.
    let mut again = conversation(1);
    again[1]
        .attributes
        .retain(|a| !a.key.as_str().starts_with("mlflow.llm"));
    run(store(&location, &batch(again))).unwrap();
    assert_eq!(
        texts(&path, values),
        ["0000000000000001|-|-|-|-|-", "0000000000000002|-|-|-|-|-"]
    );
    run(store(&location, &batch(conversation(1)))).unwrap();
    assert_eq!(texts(&path, values), expected);

    // SQLite writes the trigger anew when the table is renamed.
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("ALTER TABLE spans RENAME TO s2; ALTER TABLE s2 RENAME TO spans")
        .unwrap();
    run(store(&location, &batch(conversation(1)))).unwrap();
    conn.execute_batch("PRAGMA recursive_triggers = ON")
        .unwrap();
    conn.execute_batch(BACKFILL).unwrap();
    assert_eq!(texts(&path, values), expected);
    // Whatever an upgrade finds in the older places wins.
    conn.execute_batch("UPDATE spans SET model_name = 'other' WHERE model_name IS NOT NULL")
        .unwrap();
    assert_eq!(
        texts(
            &path,
            "SELECT model_name FROM spans WHERE model_name IS NOT NULL"
        ),
        ["other"]
    );
    conn.execute_batch("DROP TABLE spans").unwrap();
    assert_eq!(
        texts(
            &path,
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ),
        [""; 0]
    );
    assert_eq!(count(&path, "_alembic_tmp_spans"), 2);
}

#[test]
fn our_trigger_under_its_name_with_other_doings_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new.db");
    let location = at(&path, "a");
    run(store(&location, &batch(conversation(1)))).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "DROP TRIGGER trace_destination_keep_span_values;
         CREATE TRIGGER trace_destination_keep_span_values AFTER UPDATE OF name ON spans
         BEGIN UPDATE spans SET content = ''; END",
    )
    .unwrap();
    let error = run(store(&location, &batch(conversation(2)))).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("trace_destination_keep_span_values"),
        "{error}"
    );
    assert_eq!(count(&path, "spans"), 2);
}

/// MLflow's upgrade from our shape to its own, in the steps that others can see: columns come one
/// by one, a table is gone for a moment, and rows are moved into columns in one transaction.
const UPGRADE: &[&str] = &[
    "CREATE TABLE trace_metrics (request_id VARCHAR(50) NOT NULL, \"key\" VARCHAR(250) NOT NULL, \
     value FLOAT, PRIMARY KEY (request_id, \"key\"), \
     FOREIGN KEY (request_id) REFERENCES trace_info (request_id) ON DELETE CASCADE)",
    "CREATE TABLE span_metrics (trace_id VARCHAR(50) NOT NULL, span_id VARCHAR(50) NOT NULL, \
     \"key\" VARCHAR(250) NOT NULL, value FLOAT, PRIMARY KEY (trace_id, span_id, \"key\"), \
     FOREIGN KEY (trace_id, span_id) REFERENCES spans (trace_id, span_id) ON DELETE CASCADE)",
    "ALTER TABLE spans ADD COLUMN dimension_attributes JSON",
    "UPDATE alembic_version SET version_num = 'c8d9e0f1a2b3'",
    "ALTER TABLE trace_info ADD COLUMN db_payload_generation INTEGER DEFAULT '0' NOT NULL",
    "PRAGMA legacy_alter_table = ON",
    "ALTER TABLE trace_info RENAME TO trace_info_before",
    "ALTER TABLE trace_info_before RENAME TO trace_info",
    "DELETE FROM alembic_version",
    "INSERT INTO alembic_version VALUES ('b7e2c1a4d9f3')",
    "ALTER TABLE trace_info ADD COLUMN trace_name VARCHAR(4096)",
    "ALTER TABLE trace_info ADD COLUMN session_id VARCHAR(250)",
    "ALTER TABLE trace_info ADD COLUMN input_tokens BIGINT",
    "ALTER TABLE trace_info ADD COLUMN output_tokens BIGINT",
    "ALTER TABLE trace_info ADD COLUMN total_tokens BIGINT",
    "ALTER TABLE trace_info ADD COLUMN cache_read_input_tokens BIGINT",
    "ALTER TABLE trace_info ADD COLUMN cache_creation_input_tokens BIGINT",
    "ALTER TABLE trace_info ADD COLUMN cache_creation_input_tokens_above_1hr BIGINT",
    "ALTER TABLE trace_info ADD COLUMN input_cost FLOAT",
    "ALTER TABLE trace_info ADD COLUMN output_cost FLOAT",
    "ALTER TABLE trace_info ADD COLUMN total_cost FLOAT",
    "BEGIN IMMEDIATE;
     UPDATE trace_info SET
        trace_name = (SELECT value FROM trace_tags t
            WHERE t.request_id = trace_info.request_id AND \"key\" = 'mlflow.traceName'),
        session_id = (SELECT value FROM trace_request_metadata m
            WHERE m.request_id = trace_info.request_id AND \"key\" = 'mlflow.trace.session'),
        total_tokens = (SELECT json_extract(value, '$.total_tokens') FROM trace_request_metadata m
            WHERE m.request_id = trace_info.request_id AND \"key\" = 'mlflow.trace.tokenUsage');
     UPDATE spans SET
        model_name = json_extract(dimension_attributes, '$.\"mlflow.llm.model\"'),
        model_provider = json_extract(dimension_attributes, '$.\"mlflow.llm.provider\"'),
        input_cost = NULL, output_cost = NULL,
        total_cost = (SELECT value FROM span_metrics m WHERE m.trace_id = spans.trace_id
            AND m.span_id = spans.span_id AND \"key\" = 'total_cost');
     DELETE FROM trace_tags WHERE \"key\" = 'mlflow.traceName';
     DELETE FROM trace_request_metadata
        WHERE \"key\" IN ('mlflow.trace.session', 'mlflow.trace.tokenUsage', 'mlflow.trace.cost');
     DELETE FROM trace_metrics; DELETE FROM span_metrics;
     COMMIT",
    "ALTER TABLE spans DROP COLUMN dimension_attributes",
    "UPDATE alembic_version SET version_num = '75868b020152'",
    "UPDATE alembic_version SET version_num = 'f4a9b2c7d1e6'",
    "UPDATE alembic_version SET version_num = 'ffffffffffff'",
];

#[test]
fn nothing_is_lost_while_a_file_is_upgraded_step_by_step() {
    const TASKS: u128 = 8;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new.db");
    run(store(&at(&path, "task-0"), &batch(conversation(1 << 64)))).unwrap();
    let step = std::sync::atomic::AtomicUsize::new(0);
    let done = || step.load(std::sync::atomic::Ordering::Acquire) == UPGRADE.len();
    // Each task writes on as long as the upgrade goes on, and once after it.
    let written = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (path, done) = (&path, &done);
                scope.spawn(move || {
                    run(async {
                        let sink = at(path, &format!("task-{task}")).open().await.unwrap();
                        let mut n = 0;
                        loop {
                            let last = done();
                            n += 1;
                            let all = conversation((task + 1) * 1_000_000 + n);
                            // The child first: the trace goes on in another batch.
                            for spans in [&all[1..], &all[..1]] {
                                let written = persist(&*sink, &batch(spans.to_vec())).await;
                                assert!(written.refused.is_empty(), "{written:?}");
                            }
                            if last {
                                break;
                            }
                        }
                        sink.close().await.unwrap();
                        n
                    })
                })
            })
            .collect();
        let conn = Connection::open(&path).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(60))
            .unwrap();
        for sql in UPGRADE {
            conn.execute_batch(sql)
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            step.fetch_add(1, std::sync::atomic::Ordering::Release);
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        let written = tasks.into_iter().map(|task| task.join().unwrap());
        written.collect::<Vec<u128>>()
    });
    let traces = 1 + written.iter().sum::<u128>() as i64;
    assert_eq!(count(&path, "trace_info"), traces);
    assert_eq!(count(&path, "spans"), 2 * traces);
    for (task, n) in written.iter().enumerate() {
        let sql = format!(
            "SELECT count(*), count(DISTINCT trace_id) FROM spans JOIN experiments e USING (experiment_id) \
             WHERE e.name = 'task-{task}'"
        );
        let more = i64::from(task == 0);
        let n = *n as i64 + more;
        assert_eq!(texts(&path, &sql), [format!("{}|{n}", 2 * n)]);
    }
    // Every value came along, whatever moment its trace was written in.
    assert_eq!(
        texts(
            &path,
            "SELECT trace_name, session_id, total_tokens, status, count(*) FROM trace_info GROUP BY 1, 2, 3, 4"
        ),
        [format!("chat|s-1|15|OK|{traces}")]
    );
    assert_eq!(
        texts(
            &path,
            "SELECT model_name, model_provider, total_cost, count(*) FROM spans GROUP BY 1, 2, 3"
        ),
        [format!("-|-|-|{traces}"), format!("m-1|p-1|0.75|{traces}")]
    );
    assert_sound(&path);
}
