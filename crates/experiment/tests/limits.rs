//! Values at the edge of what can be stored: stored, or refused alone with a reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use tempfile::TempDir;
use trace_destination_core::{AnyValue, ErrorKind, SpanRecord, TraceLocation, TraceUpdate};

fn stored(spans: Vec<SpanRecord>) -> (TempDir, std::path::PathBuf, Vec<(usize, ErrorKind)>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let written = run(store(&at(&path, "a"), &batch(spans))).unwrap();
    let refused = written
        .refused
        .iter()
        .map(|r| {
            assert!(r.error.location().is_some(), "{:?}", r.error);
            (r.index, r.error.kind())
        })
        .collect();
    assert_sound(&path);
    (dir, path, refused)
}

fn contents(path: &std::path::Path) -> Vec<serde_json::Value> {
    texts(path, "SELECT content FROM spans ORDER BY span_id")
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect()
}

#[test]
fn times_beyond_the_database_are_refused_alone() {
    let mut late = span(1, 2, Some(1), "late");
    late.start_time_unix_nano = 1 << 63;
    let mut endless = span(1, 3, Some(1), "endless");
    endless.end_time_unix_nano = u64::MAX;
    let spans = vec![
        span(1, 1, None, "root"),
        late,
        endless,
        span(2, 1, None, "x"),
    ];
    let (_dir, path, refused) = stored(spans);
    assert_eq!(
        refused,
        [(1, ErrorKind::InvalidSpan), (2, ErrorKind::InvalidSpan)]
    );
    assert_eq!(count(&path, "spans"), 2);
    assert_eq!(count(&path, "trace_info"), 2);
}

#[test]
fn odd_times_are_kept_as_they_are() {
    let mut from_zero = span(1, 1, None, "zero");
    from_zero.start_time_unix_nano = 0;
    let mut backwards = span(2, 1, None, "backwards");
    backwards.end_time_unix_nano = backwards.start_time_unix_nano - 3_000_000;
    let mut open = span(3, 1, None, "open");
    open.end_time_unix_nano = 0;
    let (_dir, path, refused) = stored(vec![from_zero, backwards, open]);
    assert_eq!(refused, []);
    assert_eq!(
        texts(
            &path,
            "SELECT timestamp_ms, execution_time_ms FROM trace_info ORDER BY request_id"
        ),
        ["0|1795305600006", "1795305600001|-3", "1795305600001|-"]
    );
}

#[test]
fn a_span_of_20_mb_and_a_span_of_nothing() {
    let huge = "x".repeat(20 << 20);
    let big = span(1, 1, None, "big").with_attribute("huge", huge.clone());
    let (_dir, path, refused) = stored(vec![big, span(1, 2, Some(1), "")]);
    assert_eq!(refused, []);
    let contents = contents(&path);
    let value: String =
        serde_json::from_str(contents[0]["attributes"]["huge"].as_str().unwrap()).unwrap();
    assert!(value == huge, "20 MB came back differently");
    assert_eq!(contents[1]["name"], "");
}

#[test]
fn bytes_that_text_does_not_like() {
    let odd = span(1, 1, None, "a\0b")
        .with_attribute("nul\0key", "x\0y")
        .with_attribute("mlflow.traceTag.nul", "1\x002")
        .with_attribute("session.id", "s\0t")
        .with_attribute("surrogate", r#"{"half": "\ud800"}"#)
        .with_attribute("bytes", AnyValue::Bytes(vec![0, 255]));
    let (_dir, path, refused) = stored(vec![odd, span(1, 2, Some(1), "good")]);
    assert_eq!(refused, []);
    assert_eq!(
        rows(
            &path,
            "SELECT name FROM spans WHERE span_id = '0000000000000001'"
        ),
        [[rusqlite::types::Value::Text("a\0b".into())]]
    );
    assert_eq!(count(&path, "spans"), 2);
    assert_eq!(
        rows(
            &path,
            "SELECT value FROM trace_request_metadata WHERE \"key\" = 'mlflow.trace.session'"
        ),
        [[rusqlite::types::Value::Text("s\0t".into())]]
    );
}

#[test]
fn numbers_that_are_none() {
    let odd = span(1, 1, None, "nan")
        .with_attribute("nan", f64::NAN)
        .with_attribute("inf", f64::INFINITY)
        .with_attribute("min", i64::MIN);
    let (_dir, path, refused) = stored(vec![odd]);
    assert_eq!(refused, []);
    // As MLflow's own server writes them, each value a JSON text.
    let attributes = &contents(&path)[0]["attributes"];
    assert_eq!(attributes["nan"], "NaN");
    assert_eq!(attributes["inf"], "Infinity");
    assert_eq!(attributes["min"], "-9223372036854775808");
}

#[test]
fn a_trace_that_lives_elsewhere_is_refused_without_naming_that_place() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        store(&at(&path, "one"), &batch(conversation(1)))
            .await
            .unwrap();
        let sink = at(&path, "two").open().await.unwrap();
        let before = texts(&path, "SELECT * FROM trace_info");
        let mixed = [conversation(2), conversation(1)].concat();
        let written = sink.write(&batch(mixed)).await.unwrap();
        assert_eq!(
            written.refused.iter().map(|r| r.index).collect::<Vec<_>>(),
            [2, 3]
        );
        for refusal in &written.refused {
            assert_eq!(refusal.error.kind(), ErrorKind::Conflict);
            let text = refusal.error.to_string();
            assert!(text.contains("experiment 2 `two`"), "{text}");
            assert!(!text.contains("one`"), "{text}");
            assert!(!text.contains("experiment 1"), "{text}");
        }
        // Values of such a trace are lost too, with its spans and alone.
        for spans in [vec![span(1, 9, Some(1), "more")], vec![]] {
            let update = TraceUpdate {
                user_id: Some("mallory".into()),
                ..TraceUpdate::new(conversation(1)[0].trace_id)
            };
            let told = sink.write(&batch_with(spans, vec![update])).await.unwrap();
            assert_eq!(told.lost_updates.len(), 1);
            assert_eq!(told.lost_updates[0].kind(), ErrorKind::Conflict);
        }
        assert_eq!(
            texts(
                &path,
                "SELECT * FROM trace_request_metadata WHERE value = 'mallory'"
            )
            .len(),
            0
        );
        assert_eq!(
            texts(&path, "SELECT * FROM trace_info WHERE experiment_id = 1"),
            before
        );
        assert_eq!(
            texts(
                &path,
                "SELECT experiment_id, count(*) FROM spans GROUP BY 1 ORDER BY 1"
            ),
            ["1|2", "2|2"]
        );
        sink.close().await.unwrap();
    });
}

#[test]
fn an_archived_trace_takes_no_more_spans() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    run(async {
        let location = at(&path, "one");
        store(&location, &batch(conversation(1))).await.unwrap();
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(
                "UPDATE trace_tags SET value = 'ARCHIVE_REPO' WHERE \"key\" = 'mlflow.trace.spansLocation'",
            )
            .unwrap();
        let written = store(&location, &batch(vec![span(1, 9, Some(1), "late")]))
            .await
            .unwrap();
        assert_eq!(written.refused[0].error.kind(), ErrorKind::Conflict);
        assert_eq!(count(&path, "spans"), 2);
    });
}

#[test]
fn rows_that_the_database_refuses_are_refused_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    made_by_mlflow(&path, HEAD)
        .execute_batch(
            "CREATE TRIGGER no_span BEFORE INSERT ON spans WHEN new.name = 'bad'
             BEGIN SELECT RAISE(ABORT, 'not this span'); END;
             CREATE TRIGGER no_trace BEFORE INSERT ON trace_info WHEN new.trace_name = 'bad trace'
             BEGIN SELECT RAISE(ABORT, 'not this trace'); END;",
        )
        .unwrap();
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        let mut spans = conversation(1);
        spans.push(span(1, 3, Some(1), "bad"));
        spans.push(span(2, 1, None, "bad trace"));
        spans.push(span(2, 2, Some(1), "bad"));
        spans.push(span(3, 1, None, "good"));
        let written = sink.write(&batch(spans)).await.unwrap();
        assert_eq!(
            written.refused.iter().map(|r| r.index).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        for refusal in &written.refused {
            assert_eq!(refusal.error.kind(), ErrorKind::Unsupported);
            let first = std::error::Error::source(&refusal.error);
            let says = std::iter::successors(first, |e| e.source())
                .any(|e| e.to_string().contains("not this"));
            assert!(says, "{:?}", refusal.error);
        }
        sink.write(&batch(conversation(4))).await.unwrap();
        sink.close().await.unwrap();
    });
    assert_eq!(
        texts(
            &path,
            "SELECT request_id, (SELECT count(*) FROM spans WHERE trace_id = request_id) FROM trace_info"
        ),
        [
            "tr-00000000000000000000000000000001|2",
            "tr-00000000000000000000000000000003|1",
            "tr-00000000000000000000000000000004|2"
        ]
    );
    assert_sound(&path);
}
