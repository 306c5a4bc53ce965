//! What made traces are made of.

use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use trace_destination_core::{
    AnyValue, Attribute, Event, Link, Resource, Scope, Span, SpanGroup, SpanKind, SpanRecord,
    Status, StatusCode,
};

/// When the first made span starts: 2026-11-23 02:13:20 UTC, in nanoseconds since the Unix epoch.
const START: u64 = 1_795_400_000_000_000_000;
pub(super) const MS: u64 = 1_000_000;

/// A span of the made trace `trace`, with children after their parents and times that nest as long
/// as no trace has more than 50 spans.
pub(super) fn span(trace: u64, number: u64, parent: Option<u64>, name: &'static str) -> SpanRecord {
    let start = START + trace * 1_000 * MS + number * MS;
    let mut span = SpanRecord::new(
        trace_id(trace),
        span_id(trace, number),
        name,
        start,
        start + (100 - 2 * number) * MS,
    );
    span.parent_span_id = parent.map(|p| span_id(trace, p));
    // Sampled, and known to have a local parent.
    span.flags = 0x101;
    span
}

pub(super) fn trace_id(trace: u64) -> TraceId {
    TraceId::from(0x7ace_0000_0000_0000_5a3b_1e00_0000_0000_u128 + u128::from(trace))
}

pub(super) fn span_id(trace: u64, number: u64) -> SpanId {
    SpanId::from(0x5ba0_0000_0000_0000 + (trace << 16) + number)
}

pub(super) fn event(name: &'static str, after: &SpanRecord, attributes: Vec<Attribute>) -> Event {
    Event {
        name: name.into(),
        time_unix_nano: after.start_time_unix_nano + MS / 2,
        attributes,
        dropped_attributes_count: 0,
    }
}

pub(super) fn link(trace: u64, number: u64, attributes: Vec<Attribute>) -> Link {
    Link {
        trace_id: trace_id(trace),
        span_id: span_id(trace, number),
        trace_state: String::new(),
        flags: 0x101,
        attributes,
        dropped_attributes_count: 0,
    }
}

/// The event and the status of a failed span, as OpenTelemetry records an exception.
pub(super) fn failed(
    mut span: SpanRecord,
    kind: &'static str,
    message: &'static str,
) -> SpanRecord {
    let exception = event(
        "exception",
        &span,
        vec![
            Attribute::new("exception.type", kind),
            Attribute::new("exception.message", message),
            Attribute::new(
                "exception.stacktrace",
                format!(
                    "Traceback (most recent call last):\n  File \"agent.py\", line 42\n{kind}: {message}"
                ),
            ),
            Attribute::new("exception.escaped", false),
        ],
    );
    span.events.push(exception);
    span.status = Status {
        code: StatusCode::Error,
        message: message.into(),
    };
    span
}

pub(super) fn ok(mut span: SpanRecord) -> SpanRecord {
    span.status.code = StatusCode::Ok;
    span
}

pub(super) fn of_kind(mut span: SpanRecord, kind: SpanKind) -> SpanRecord {
    span.kind = kind;
    span
}

pub(super) fn list(values: impl IntoIterator<Item = AnyValue>) -> AnyValue {
    AnyValue::Array(values.into_iter().collect())
}

pub(super) fn map(entries: impl IntoIterator<Item = (&'static str, AnyValue)>) -> AnyValue {
    AnyValue::Map(
        entries
            .into_iter()
            .map(|(k, v)| Attribute::new(k, v))
            .collect(),
    )
}

pub(super) fn group(
    resource: &Arc<Resource>,
    scope: &Arc<Scope>,
    spans: Vec<SpanRecord>,
) -> SpanGroup {
    SpanGroup {
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
        spans: spans.into_iter().map(Span::from).collect(),
    }
}

/// A resource with attributes of several kinds and a schema.
pub(super) fn shop() -> Arc<Resource> {
    Arc::new(Resource {
        attributes: vec![
            Attribute::new("service.name", "shop-agent"),
            Attribute::new("service.version", "2.4.1"),
            Attribute::new("process.pid", 4711),
            Attribute::new("deployment.canary", true),
            Attribute::new("host.load", 0.25),
            Attribute::new(
                "process.command_args",
                list(["agent".into(), "--verbose".into()]),
            ),
        ],
        dropped_attributes_count: 2,
        schema_url: Some("https://opentelemetry.io/schemas/1.38.0".to_owned()),
    })
}

/// A resource of another service.
pub(super) fn warehouse() -> Arc<Resource> {
    Arc::new(Resource {
        attributes: vec![
            Attribute::new("service.name", "warehouse"),
            Attribute::new("service.namespace", "logistics \u{1f69a}"),
        ],
        ..Resource::default()
    })
}

/// A scope with everything a scope can have.
pub(super) fn instrumented() -> Arc<Scope> {
    Arc::new(Scope {
        name: "opentelemetry.instrumentation.openai".to_owned(),
        version: Some("0.51b0".to_owned()),
        schema_url: Some("https://opentelemetry.io/schemas/1.37.0".to_owned()),
        attributes: vec![
            Attribute::new("instrumentation.beta", true),
            Attribute::new("instrumentation.order", 3),
        ],
        dropped_attributes_count: 1,
    })
}

/// A scope with a name only.
pub(super) fn named() -> Arc<Scope> {
    Arc::new(Scope {
        name: "shop".to_owned(),
        ..Scope::default()
    })
}
