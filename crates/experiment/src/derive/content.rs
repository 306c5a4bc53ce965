//! The column `spans.content`: one span as JSON, attribute values as JSON texts within it.

use super::attrs::{Attrs, push_entries};
use super::json::{self, Level};
use super::span;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trace_destination_core::{AnyValueRef, Attributes, Span, StatusCode};

/// Writes the span; `attrs` are its attributes after translation.
pub(super) fn content(span: &Span, attrs: &Attrs<'_>, end_ns: Option<i64>) -> String {
    let mut out = String::with_capacity(capacity(span));
    out.push_str("{\"trace_id\": ");
    push_id(&mut out, &span.trace_id().to_bytes());
    out.push_str(", \"span_id\": ");
    push_id(&mut out, &span.span_id().to_bytes());
    out.push_str(", \"parent_span_id\": ");
    match span::parent(span) {
        Some(id) => push_id(&mut out, &id.to_bytes()),
        None => out.push_str("null"),
    }
    out.push_str(", \"name\": ");
    json::push_string(&mut out, span.name(), Level::Once);
    out.push_str(", \"start_time_unix_nano\": ");
    json::push_display(&mut out, span.start_time_unix_nano());
    out.push_str(", \"end_time_unix_nano\": ");
    match end_ns {
        Some(end) => json::push_int(&mut out, end),
        None => out.push_str("null"),
    }
    out.push_str(", \"events\": [");
    for (i, event) in span.events().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str("{\"name\": ");
        json::push_string(&mut out, event.name, Level::Once);
        out.push_str(", \"time_unix_nano\": ");
        json::push_display(&mut out, event.time_unix_nano);
        out.push_str(", \"attributes\": ");
        push_attributes(&mut out, event.attributes);
        out.push('}');
    }
    out.push_str("], \"status\": {\"code\": \"STATUS_CODE_");
    out.push_str(span::status(span));
    out.push_str("\", \"message\": ");
    // OpenTelemetry's Python API drops a description from any other outcome.
    let message = match span.status_code() {
        StatusCode::Error => span.status_message(),
        StatusCode::Unset | StatusCode::Ok => "",
    };
    json::push_string(&mut out, message, Level::Once);
    out.push_str("}, \"attributes\": {");
    for (i, (key, value)) in attrs.0.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        json::push_string(&mut out, key, Level::Once);
        out.push_str(": ");
        value.write(&mut out);
    }
    out.push_str("}, \"links\": [");
    for (i, link) in span.links().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        json::push_display(
            &mut out,
            format_args!(
                "{{\"trace_id\": \"tr-{}\", \"span_id\": \"{}\", \"attributes\": ",
                link.trace_id, link.span_id
            ),
        );
        if link.attributes.is_empty() {
            out.push_str("null");
        } else {
            push_link_attributes(&mut out, link.attributes);
        }
        out.push('}');
    }
    out.push_str("]}");
    out
}

/// Room for a span of common text, so that the buffer grows rarely.
fn capacity(span: &Span) -> usize {
    span.approximate_bytes() + 256
}

fn push_id(out: &mut String, id: &[u8]) {
    out.push('"');
    STANDARD.encode_string(id, out);
    out.push('"');
}

fn push_attributes(out: &mut String, attributes: Attributes<'_>) {
    push_entries(out, attributes.len(), attributes.iter(), Level::Once);
}

/// Bytes in a link, unlike bytes anywhere else, are base64; but not bytes inside lists or maps.
fn push_link_attributes(out: &mut String, attributes: Attributes<'_>) {
    let encoded: Vec<(&str, Option<String>, AnyValueRef<'_>)> = attributes
        .iter()
        .map(|(key, value)| match value {
            AnyValueRef::Bytes(bytes) => (key, Some(STANDARD.encode(bytes)), value),
            other => (key, None, other),
        })
        .collect();
    let entries = encoded.iter().map(|(key, base64, value)| match base64 {
        Some(text) => (*key, AnyValueRef::String(text)),
        None => (*key, *value),
    });
    push_entries(out, encoded.len(), entries, Level::Once);
}
