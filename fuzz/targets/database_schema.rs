#![no_main]
//! A database of somebody else: each line is a statement that changes the tables of a new file. A file
//! that is taken is written, and holds what any other would; one that is not is refused with what
//! differs.
use libfuzzer_sys::fuzz_target;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::Value;
use rusqlite::{Connection, MAIN_DB};
use std::cell::Cell;
use std::sync::LazyLock;
use trace_destination_core::{BatchId, SpanGroup, TraceBatch};
use trace_destination_experiment::fuzzing::{check, create, write};
use trace_destination_otlp::decode_json;

mod error_text;

/// A new file, at the revision of the newest MLflow that was tried.
static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut conn = Connection::open_in_memory().expect("a database");
    create(&conn).expect("tables");
    conn.serialize(MAIN_DB).expect("bytes").to_vec()
});

static GROUPS: LazyLock<Vec<SpanGroup>> = LazyLock::new(|| {
    let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000a","name":"007",
         "startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[
            {"key":"mlflow.spanType","value":{"stringValue":"1e3"}},
            {"key":"session.id","value":{"stringValue":"0x10"}},
            {"key":"mlflow.spanInputs","value":{"stringValue":"{\"a\":1}"}},
            {"key":"mlflow.llm.model","value":{"stringValue":"00"}},
            {"key":"mlflow.llm.cost","value":{"stringValue":"{\"total_cost\":1}"}},
            {"key":"mlflow.chat.tokenUsage","value":{"stringValue":"{\"input_tokens\":3}"}}]},
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000b",
         "parentSpanId":"000000000000000a","name":"Child","startTimeUnixNano":"1"},
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000c",
         "parentSpanId":"000000000000000a","name":"child","startTimeUnixNano":"3"}]}]}]}"#;
    let decoded = decode_json(spans.as_bytes()).expect("it is OTLP");
    decoded
        .into_iter()
        .map(|group| group.into_group())
        .collect()
});

static EXPECTED: LazyLock<Vec<Vec<Value>>> = LazyLock::new(|| {
    let conn = opened();
    write(&conn, "n", &batch(), false).expect("a new file is written");
    rows(&conn).expect("rows")
});

fn batch() -> TraceBatch {
    let id = BatchId {
        writer: uuid::Uuid::from_u128(1),
        sequence: 1,
    };
    TraceBatch::new(id, GROUPS.clone(), Vec::new())
}

fn opened() -> Connection {
    let mut conn = Connection::open_in_memory().expect("a database");
    conn.deserialize_read_exact(MAIN_DB, &mut IMAGE.as_slice(), IMAGE.len(), false)
        .expect("an image");
    conn.execute_batch("PRAGMA foreign_keys = ON")
        .expect("a setting");
    conn
}

/// The values that every shape has.
fn rows(conn: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut found = Vec::new();
    for select in [
        "SELECT request_id, timestamp_ms, execution_time_ms, status, request_preview, \
         response_preview FROM main.trace_info ORDER BY request_id",
        "SELECT trace_id, span_id, parent_span_id, name, type, status, start_time_unix_nano, \
         end_time_unix_nano, content FROM main.spans ORDER BY span_id",
    ] {
        let mut query = conn.prepare(select)?;
        let width = query.column_count();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            found.push((0..width).map(|i| row.get(i)).collect::<Result<_, _>>()?);
        }
    }
    Ok(found)
}

/// Statements may change tables and nothing else.
fn is_allowed(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

fuzz_target!(|text: &str| {
    if text.len() > 2048 {
        return;
    }
    let mut conn = opened();
    // Triggers and views may never end.
    let left = Cell::new(500);
    let steps = move || {
        left.set(left.get() - 1);
        left.get() < 0
    };
    conn.progress_handler(1000, Some(steps)).expect("a handler");
    conn.authorizer(Some(is_allowed)).expect("a hook");
    for line in text.lines().take(12) {
        let _ = conn.execute(line, []);
    }
    conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        .expect("no hook");
    if let Err(error) = check(&conn) {
        return error_text::check(&error, &[]);
    }
    let words = text.to_ascii_uppercase();
    let has = |word: &str| words.contains(word);
    let apart = match write(&conn, "n", &batch(), false) {
        Ok(refused) => {
            assert_eq!(refused, 0, "{text}");
            false
        }
        Err(error) => {
            error_text::check(&error, &[]);
            // What only running it shows: rows that the database refuses, and triggers that fail.
            let explained = [
                "CHECK",
                "TRIGGER",
                "EXPERIMENT",
                "DELETE",
                "INSERT",
                "UPDATE",
            ];
            assert!(explained.iter().any(|word| has(word)), "{error}: {text}");
            let _ = conn.execute_batch("ROLLBACK");
            true
        }
    };
    if apart {
        match write(&conn, "n", &batch(), true) {
            Ok(refused) => assert!(refused <= 3),
            Err(error) => error_text::check(&error, &[]),
        }
        return;
    }
    if has("INSERT") || has("UPDATE") || has("DELETE") {
        // Rows were there before, or a trigger wrote some of its own.
        return;
    }
    assert_eq!(rows(&conn).ok().as_ref(), Some(&*EXPECTED), "{text}");
});
