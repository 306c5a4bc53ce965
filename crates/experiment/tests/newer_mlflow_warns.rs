//! An unknown revision is reported once per file. One test, because it listens to the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt;
use std::sync::{Arc, Mutex};
use support::*;
use tempfile::TempDir;
use trace_destination_core::TraceLocation;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata
            .target()
            .starts_with("trace_destination_experiment")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn one_warning_per_file_names_the_revision() {
    let ear = Ear::default();
    tracing::subscriber::set_global_default(ear.clone()).unwrap();
    let dir = TempDir::new().unwrap();
    let make = |name: &str, revision: &str| {
        let path = dir.path().join(name);
        made_by_mlflow(&path, HEAD)
            .execute("UPDATE alembic_version SET version_num = ?1", [revision])
            .unwrap();
        path
    };
    for (name, revision, warnings) in [
        ("current.db", "f4a9b2c7d1e6", 0),
        ("unknown.db", "ffffffffffff", 1),
        ("hostile.db", "a\u{1b}[2J\nb", 1),
    ] {
        let path = make(name, revision);
        run(async {
            // Many locations, many batches, opened anew.
            for round in 0..3 {
                for experiment in ["a", "b", "c"] {
                    let sink = at(&path, experiment).open().await.unwrap();
                    for n in 1..=3 {
                        sink.write(&batch(conversation(round * 1000 + n)))
                            .await
                            .unwrap();
                    }
                    sink.close().await.unwrap();
                }
            }
        });
        let heard: Vec<String> = std::mem::take(&mut ear.0.lock().unwrap());
        assert_eq!(heard.len(), warnings, "{name}: {heard:?}");
        for line in &heard {
            assert!(line.starts_with("WARN"), "{line}");
            assert!(line.contains(name), "{line}");
            assert!(
                line.contains(&revision.escape_debug().to_string()),
                "{line}"
            );
            assert!(!line.contains('\u{1b}'), "{line}");
        }
    }
}
