//! What somebody else's log says in the place of a name is repeated in an error in one short line, and
//! never inside a statement that is to be run.

use crate::help::*;
use serde_json::json;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, TraceLocation as _};

#[tokio::test]
async fn names_in_a_log_are_shown_in_one_short_line() {
    let words = format!("a\nb\u{1b}[2J\u{7}{}", "x".repeat(100_000));
    type Edit<'a> = &'a dyn Fn(&mut First);
    let cases: [Edit<'_>; 7] = [
        &|first| first.protocol["writerFeatures"] = json!(["variantType", &words]),
        &|first| first.metadata["partitionColumns"] = json!([&words]),
        &|first| {
            first.metadata["configuration"]["otel.schemaVersion"] = words.as_str().into();
        },
        &|first| {
            first.protocol["writerFeatures"] = json!(["variantType", "checkConstraints"]);
            let name = format!("delta.constraints.{words}");
            first.metadata["configuration"][name] = "name <> ''".into();
        },
        &|first| {
            let mut added = column(&words, "string");
            added["nullable"] = false.into();
            first.fields(&[]).push(added);
        },
        &|first| {
            first.protocol["writerFeatures"] = json!(["variantType", "allowColumnDefaults"]);
            let mut added = column(&words, "string");
            added["metadata"]["CURRENT_DEFAULT"] = "'a'".into();
            first.fields(&[]).push(added);
        },
        &|first| first.metadata["schemaString"] = words.as_str().into(),
    ];
    for (i, edit) in cases.into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        let mut first = First::new(&[], &[]).await;
        edit(&mut first);
        if i == 6 {
            // The columns as they are in the metadata.
            first.schema = json!({ "type": words });
        }
        first.write(&shop(dir.path()));
        let error = location(dir.path()).open().await.err().unwrap();
        let text = error.to_string();
        assert!(text.len() < 3_000, "{i}: {} bytes", text.len());
        assert!(!text.contains(char::is_control), "{i}: {text:?}");
        assert!(error.mend_hint().is_some_and(|mend| mend.len() > 10), "{i}");
        let known = [
            ErrorKind::Unsupported,
            ErrorKind::Corrupt,
            ErrorKind::Unavailable,
        ];
        assert!(known.contains(&error.kind()), "{i}: {text}");
    }
}
