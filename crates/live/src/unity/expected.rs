//! The rows a spans table has to hold, made from OTLP requests and from nothing else, in the form in
//! which `canonical.py` gives what an engine reads.

use serde_json::{Map, Value, json};
use trace_destination::{AnyValue, Attribute, SpanKind, SpanRecord, StatusCode};
use trace_destination_otlp::{ResourceSpans, decode_protobuf};

/// The columns that are no part of OTLP: `record_id` has to be there and unique, the others follow
/// from the span.
pub(super) const RECORD_ID: &str = "record_id";

/// The rows of requests, in their order, without `record_id`.
pub(super) fn rows(requests: &[Vec<u8>]) -> Result<Vec<Value>, String> {
    let mut rows = Vec::new();
    for request in requests {
        for group in decode_protobuf(request).map_err(|e| e.to_string())? {
            rows.extend(group.spans.iter().map(|span| row(&group, span)));
        }
    }
    Ok(rows)
}

fn row(group: &ResourceSpans, span: &SpanRecord) -> Value {
    let micros = span.start_time_unix_nano / 1000;
    let events = span.events.iter().map(|e| {
        json!({
            "time_unix_nano": e.time_unix_nano,
            "name": e.name,
            "attributes": bag(&e.attributes),
            "dropped_attributes_count": count(e.dropped_attributes_count),
        })
    });
    let links = span.links.iter().map(|l| {
        json!({
            "trace_id": l.trace_id.to_string(),
            "span_id": l.span_id.to_string(),
            "trace_state": text(&l.trace_state),
            "attributes": bag(&l.attributes),
            "dropped_attributes_count": count(l.dropped_attributes_count),
            "flags": flags(l.flags),
        })
    });
    json!({
        "time": micros,
        "date": date(micros),
        "service_name": service_name(&group.resource.attributes),
        "trace_id": span.trace_id.to_string(),
        "span_id": span.span_id.to_string(),
        "trace_state": text(&span.trace_state),
        "parent_span_id": span.parent_span_id.map(|p| p.to_string()),
        "flags": flags(span.flags),
        "name": span.name,
        "kind": kind(span.kind),
        "start_time_unix_nano": span.start_time_unix_nano,
        "end_time_unix_nano": span.end_time_unix_nano,
        "attributes": bag(&span.attributes),
        "dropped_attributes_count": count(span.dropped_attributes_count),
        "events": events.collect::<Value>(),
        "dropped_events_count": count(span.dropped_events_count),
        "links": links.collect::<Value>(),
        "dropped_links_count": count(span.dropped_links_count),
        "status": {
            "message": text(&span.status.message),
            "code": match span.status.code {
                StatusCode::Unset => "STATUS_CODE_UNSET",
                StatusCode::Ok => "STATUS_CODE_OK",
                StatusCode::Error => "STATUS_CODE_ERROR",
            },
        },
        "resource": {
            "attributes": bag(&group.resource.attributes),
            "dropped_attributes_count": count(group.resource.dropped_attributes_count),
        },
        "resource_schema_url": optional(group.resource.schema_url.as_deref()),
        "instrumentation_scope": {
            "name": text(&group.scope.name),
            "version": optional(group.scope.version.as_deref()),
            "attributes": bag(&group.scope.attributes),
            "dropped_attributes_count": count(group.scope.dropped_attributes_count),
        },
        "span_schema_url": optional(group.scope.schema_url.as_deref()),
    })
}

/// A row of the older columns, whose attributes are all text.
pub(super) fn older(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(columns) = row.as_object_mut() {
        for added in ["time", "date", "service_name"] {
            columns.remove(added);
        }
    }
    as_text(&mut row);
    row
}

/// Turns every bag below a value into a map of texts.
fn as_text(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(as_text),
        Value::Object(fields) => {
            for (name, field) in fields {
                if name != "attributes" {
                    as_text(field);
                    continue;
                }
                let bag = field["object"].as_object().into_iter().flatten();
                let texts = bag.map(|(k, v)| (k.clone(), json!({"string": text_of(v)})));
                *field = json!({"object": texts.collect::<Map<_, _>>()});
            }
        }
        _ => {}
    }
}

/// A typed value as text: text as it is, anything else as JSON.
fn text_of(value: &Value) -> String {
    match value["string"].as_str() {
        Some(text) => text.to_owned(),
        None => json_of(value).to_string(),
    }
}

fn json_of(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|o| o.iter().next()) else {
        return Value::Null;
    };
    match (kind.as_str(), inner) {
        ("int", Value::String(text)) => text.parse::<i64>().map_or(Value::Null, Value::from),
        ("array", Value::Array(values)) => values.iter().map(json_of).collect(),
        ("object", Value::Object(fields)) => Value::Object(
            fields
                .iter()
                .map(|(k, v)| (k.clone(), json_of(v)))
                .collect(),
        ),
        ("null", _) => Value::Null,
        _ => inner.clone(),
    }
}

/// Attributes as one object. Of a key that comes twice the last value counts.
fn bag(attributes: &[Attribute]) -> Value {
    let mut fields = Map::new();
    for attribute in attributes {
        fields.insert(attribute.key.as_str().to_owned(), typed(&attribute.value));
    }
    json!({"object": fields})
}

fn typed(value: &AnyValue) -> Value {
    match value {
        AnyValue::Empty => json!({"null": true}),
        AnyValue::Bool(v) => json!({"bool": v}),
        AnyValue::Int(v) => json!({"int": v.to_string()}),
        AnyValue::Double(v) if v.is_nan() => json!({"double": "nan"}),
        AnyValue::Double(v) => json!({"double": format!("{:016x}", v.to_bits())}),
        AnyValue::String(v) => json!({"string": v.as_str()}),
        AnyValue::Bytes(v) => {
            json!({"bytes": v.iter().map(|b| format!("{b:02x}")).collect::<String>()})
        }
        AnyValue::Array(v) => json!({"array": v.iter().map(typed).collect::<Vec<_>>()}),
        AnyValue::Map(v) => bag(v),
    }
}

/// Columns of counts are signed: what does not fit is the largest.
fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Flags are bits: all of them are kept, the highest is the sign.
fn flags(flags: u32) -> i32 {
    flags.cast_signed()
}

fn text(text: &str) -> Value {
    optional(Some(text))
}

/// What a span does not say is NULL, not an empty text.
fn optional(text: Option<&str>) -> Value {
    text.filter(|t| !t.is_empty())
        .map_or(Value::Null, Value::from)
}

fn service_name(resource: &[Attribute]) -> Value {
    let named = resource
        .iter()
        .rev()
        .find(|a| a.key.as_str() == "service.name");
    match named.map(|a| &a.value) {
        Some(AnyValue::String(name)) => name.as_str().into(),
        _ => Value::Null,
    }
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    }
}

/// The day of a time (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(micros: u64) -> String {
    let days = micros / 86_400_000_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_calendars_do() {
        const DAY: u64 = 86_400_000_000;
        for (days, name) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_780, "2026-11-23"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days * DAY), name);
            assert_eq!(date(days * DAY + DAY - 1), name);
        }
    }

    #[test]
    fn every_made_span_has_its_row() {
        let rows = rows(&trace_destination_otlp::sample::generated()).unwrap();
        assert!(rows.len() > 40, "{}", rows.len());
        assert!(
            rows.iter()
                .all(|r| r.as_object().is_some_and(|r| r.len() == 23))
        );
    }
}
