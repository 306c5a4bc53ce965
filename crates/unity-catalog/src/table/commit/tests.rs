use super::*;

fn stamp() -> Stamp {
    Stamp {
        app_id: "trace-destination:a".into(),
        sequence: 7,
    }
}

fn tip() -> Tip {
    Tip {
        version: 3,
        mark: Mark::default(),
        row_ids: 9,
        timestamp: Some(1_000),
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
        // The columns that statistics are needed of.
        (
            r#"{"domainMetadata":{"domain":"delta.clustering","configuration":"{}","removed":false}}"#,
            Meaning::Changed,
        ),
        (
            r#"{"domainMetadata":{"domain":"somebody's","configuration":"{}","removed":false}}"#,
            Meaning::Other,
        ),
        // Another engine compacts, or adds something new: nothing to us.
        (
            r#"{"remove":{"path":"x","dataChange":false}}
{"somethingNew":{"a":1}}"#,
            Meaning::Other,
        ),
        // It removes rows, which may be remembered here.
        (
            r#"{"remove":{"path":"x","dataChange":true}}"#,
            Meaning::Changed,
        ),
        (r#"{"remove":{"path":"x"}}"#, Meaning::Changed),
        (r#"{"commitInfo":"a text"}"#, Meaning::Other),
        ("{\"add\":", Meaning::Changed),
    ] {
        let mut tip = tip();
        assert_eq!(
            meaning(commit.as_bytes(), &stamp(), &mut tip),
            expected,
            "{commit}"
        );
    }
}

#[test]
fn what_commits_of_others_hand_on_is_kept() {
    let domain = |highest: i64| {
        let configuration = serde_json::json!({"rowIdHighWaterMark": highest}).to_string();
        serde_json::json!({"domainMetadata":
            {"domain": "delta.rowTracking", "configuration": configuration, "removed": false}})
    };
    let mut tip = tip();
    let commit = format!(
        "{}\n{}",
        serde_json::json!({"commitInfo": {"inCommitTimestamp": 2_000}}),
        domain(41)
    );
    assert_eq!(
        meaning(commit.as_bytes(), &stamp(), &mut tip),
        Meaning::Other
    );
    assert_eq!((tip.row_ids, tip.timestamp), (41, Some(2_000)));
    // It never falls, and what cannot be understood changes nothing.
    for commit in [
        domain(5).to_string(),
        r#"{"commitInfo":{"inCommitTimestamp":"soon"}}"#.into(),
    ] {
        assert_eq!(
            meaning(commit.as_bytes(), &stamp(), &mut tip),
            Meaning::Other
        );
    }
    assert_eq!((tip.row_ids, tip.timestamp), (41, Some(2_000)));
    assert_eq!(timestamp_of(commit.as_bytes()), Some(2_000));
    assert_eq!(timestamp_of(b"{\"add\":{}}"), None);
}
