#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use opentelemetry::trace::TraceId;

fn update() -> TraceUpdate {
    TraceUpdate::new(TraceId::from(7))
}

fn limits() -> TraceValueLimits {
    TraceValueLimits {
        name: 4,
        session_id: 3,
        preview: 5,
        key: 20,
        value: 6,
    }
}

#[test]
fn an_id_that_is_too_long_is_left_out_and_not_cut() {
    let mut long = update();
    long.client_request_id = Some("x".repeat(LONGEST_ID));
    long.run_id = Some("x".repeat(LONGEST_ID + 1));
    long.user_id = Some("u".into());
    let lost = long.fit(&limits()).unwrap();
    assert!(lost.to_string().contains("run"), "{lost}");
    assert_eq!(long.run_id, None);
    assert!(long.client_request_id.is_some() && long.user_id.is_some());
}

#[test]
fn texts_are_cut_by_characters_and_nothing_else_changes() {
    let mut short = update();
    short.name = Some("näme".into());
    short.session_id = Some("äöü".into());
    short.user_id = Some("user-1".into());
    short.client_request_id = Some("a client's id of any length".into());
    short.run_id = Some("a run's id of any length".into());
    short.request_preview = Some("hello".into());
    short.tags.insert("key".into(), "värdet".into());
    let before = short.clone();
    assert!(short.fit(&limits()).is_none());
    assert_eq!(short, before);

    let mut long = update();
    long.name = Some("nämed".into());
    long.session_id = Some("äöüß".into());
    long.user_id = Some("user-12".into());
    long.request_preview = Some("hello?".into());
    long.response_preview = Some("hello!".into());
    long.tags.insert("key".into(), "värdet!".into());
    long.tags.insert("mlflow.traceName".into(), "named".into());
    long.metadata.insert("key".into(), "1234567".into());
    long.metadata
        .insert("mlflow.trace.session".into(), "sess".into());
    assert!(
        long.fit(&limits()).is_none(),
        "a text that is cut is not lost"
    );
    assert_eq!(long.name.as_deref(), Some("näme"));
    assert_eq!(long.session_id.as_deref(), Some("äöü"));
    assert_eq!(long.user_id.as_deref(), Some("user-1"));
    assert_eq!(long.request_preview.as_deref(), Some("hello"));
    assert_eq!(long.response_preview.as_deref(), Some("hello"));
    assert_eq!(long.tags["key"], "värdet");
    assert_eq!(long.tags["mlflow.traceName"], "name");
    assert_eq!(long.metadata["key"], "123456");
    assert_eq!(long.metadata["mlflow.trace.session"], "ses");
}

#[test]
fn keys_that_no_place_takes_are_left_out_and_named() {
    for (tag, key, why) in [
        (true, "", "empty"),
        (false, "", "empty"),
        (true, "twenty-one characters", "20 characters"),
        (false, "twenty-one characters", "20 characters"),
        (true, "mlflow.artifactLocation", "20 characters"),
    ] {
        let mut update = update();
        let map = match tag {
            true => &mut update.tags,
            false => &mut update.metadata,
        };
        map.insert(key.into(), "x".into());
        map.insert("fine".into(), "x".into());
        let error = update.fit(&limits()).unwrap();
        assert!(error.cause().contains(why), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.mend_hint().is_some());
        assert_eq!(
            (update.tags.len(), update.metadata.len()),
            (usize::from(tag), usize::from(!tag))
        );
    }
    let mut reserved = update();
    for key in RESERVED_TAGS {
        reserved.tags.insert(key.into(), "nowhere".into());
    }
    reserved
        .metadata
        .insert(RESERVED_METADATA[0].into(), "true".into());
    let error = reserved.fit(&TraceValueLimits::default()).unwrap();
    assert!(error.cause().contains("(and 4 more)"), "{error}");
    assert!(reserved.is_empty());
    // A key that is the value of a stranger is shown so that it cannot break a log line.
    let mut hostile = update();
    hostile
        .tags
        .insert(format!("a\n\u{1b}[2J{}", "x".repeat(10_000)), "x".into());
    let error = hostile
        .fit(&TraceValueLimits::default())
        .unwrap()
        .to_string();
    assert!(
        error.len() < 600 && !error.contains('\n') && !error.contains('\u{1b}'),
        "{error}"
    );
}
