use super::*;
use crate::record::{AnyValueRef, SpanRecord};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::time::SystemTime;

/// One root as the SDK gives it and as a record, with these attributes.
fn roots(attributes: &[(&'static str, &'static str)]) -> [Span; 2] {
    let (trace, span) = (TraceId::from(1), SpanId::from(2));
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);
    let pairs = attributes.iter();
    let data = SpanData {
        span_context: context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "root".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: pairs.map(|(k, v)| KeyValue::new(*k, *v)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    };
    let record: SpanRecord = data.clone().into();
    [data.into(), record.into()]
}

fn attributes(span: &Span) -> Vec<(String, String)> {
    let text = |value: AnyValueRef<'_>| value.as_str().unwrap_or("?").to_owned();
    let all = span.attributes();
    let mut all: Vec<_> = all.iter().map(|(k, v)| (k.to_owned(), text(v))).collect();
    all.sort();
    all
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = of
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    pairs.sort();
    pairs
}

#[test]
fn every_value_has_one_attribute_and_wins_over_its_like() {
    let mut update = TraceUpdate::new(TraceId::from(1));
    update.name = Some("checkout".into());
    update.session_id = Some("s".into());
    update.user_id = Some("u".into());
    update.client_request_id = Some("c".into());
    update.request_preview = Some("in".into());
    update.response_preview = Some("out".into());
    update.run_id = Some("run".into());
    update.tags.insert("env".into(), "dev".into());
    update
        .tags
        .insert("mlflow.traceName".into(), "beaten".into());
    for (key, value) in [
        ("build", "7"),
        ("mlflow.modelId", "m"),
        ("mlflow.trace.session", "beaten"),
        ("mlflow.trace.user", "beaten"),
        ("mlflow.sourceRun", "beaten"),
    ] {
        update.metadata.insert(key.into(), value.into());
    }
    let there = [
        ("session.id", "of the span"),
        ("mlflow.trace.session", "of the span"),
        ("user.id", "of the span"),
        ("mlflow.trace.user", "of the span"),
        ("mlflow.traceTag.env", "of the span"),
        ("mlflow.traceTag.mlflow.traceName", "of the span"),
        ("mlflow.sourceRun", "of the span"),
        ("mlflow.spanInputs", "stays"),
        ("gen_ai.conversation.id", "stays"),
        ("env", "stays"),
    ];
    for mut root in roots(&there) {
        write(update.clone(), &mut root);
        let expected = pairs(&[
            ("mlflow.traceTag.mlflow.traceName", "checkout"),
            ("session.id", "s"),
            ("user.id", "u"),
            ("mlflow.trace.clientRequestId", "c"),
            ("mlflow.traceInputs", "in"),
            ("mlflow.traceOutputs", "out"),
            ("mlflow.sourceRun", "run"),
            ("mlflow.traceTag.env", "dev"),
            ("mlflow.traceMetadata.build", "7"),
            ("mlflow.modelId", "m"),
            ("mlflow.spanInputs", "stays"),
            ("gen_ai.conversation.id", "stays"),
            ("env", "stays"),
        ]);
        assert_eq!(attributes(&root), expected);
    }
}

#[test]
fn what_is_not_set_leaves_the_span_alone() {
    let there = [("session.id", "of the span"), ("mlflow.trace.user", "u")];
    for mut root in roots(&there) {
        write(TraceUpdate::new(TraceId::from(1)), &mut root);
        assert_eq!(attributes(&root), pairs(&there));
        let mut update = TraceUpdate::new(TraceId::from(1));
        update
            .metadata
            .insert("mlflow.trace.session".into(), "s".into());
        update.tags.insert("mlflow.traceName".into(), "n".into());
        write(update, &mut root);
        let expected = [
            ("session.id", "s"),
            ("mlflow.trace.user", "u"),
            ("mlflow.traceTag.mlflow.traceName", "n"),
        ];
        assert_eq!(attributes(&root), pairs(&expected));
    }
}
