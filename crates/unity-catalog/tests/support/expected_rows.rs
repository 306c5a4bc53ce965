// The rows that spans have to become, made straight from the decoded spans and by other code than
// the writer's. `examples/expected_rows.rs` prints them and says what they look like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use trace_destination_core::{
    AnyValue, Attribute, Resource, Scope, SpanGroup, SpanKind, SpanRecord, StatusCode,
};

/// The row of every span of a group, in order; `version` is 1 or 2.
pub(crate) fn expected_rows(group: &SpanGroup, version: u8) -> Vec<Value> {
    let spans = group.spans.iter();
    spans
        .map(|span| row(&span.to_record(), &group.resource, &group.scope, version))
        .collect()
}

fn row(span: &SpanRecord, resource: &Resource, scope: &Scope, version: u8) -> Value {
    let bag = |attributes: &[Attribute]| match version {
        1 => texts(attributes),
        _ => object(attributes),
    };
    let start = span.start_time_unix_nano;
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    if version == 2 {
        let service = resource
            .attributes
            .iter()
            .rfind(|a| a.key.as_str() == "service.name");
        put("record_id", record_id(span).into());
        put("time", (start / 1_000).into());
        put("date", date(start).into());
        put(
            "service_name",
            match service.map(|a| &a.value) {
                Some(AnyValue::String(name)) => text(name.as_str()),
                _ => Value::Null,
            },
        );
    }
    put("trace_id", span.trace_id.to_string().into());
    put("span_id", span.span_id.to_string().into());
    put("trace_state", text(&span.trace_state));
    put(
        "parent_span_id",
        span.parent_span_id.map(|id| id.to_string()).into(),
    );
    put("flags", (span.flags as i32).into());
    put("name", (&*span.name).into());
    put(
        "kind",
        match span.kind {
            SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
            SpanKind::Internal => "SPAN_KIND_INTERNAL",
            SpanKind::Server => "SPAN_KIND_SERVER",
            SpanKind::Client => "SPAN_KIND_CLIENT",
            SpanKind::Producer => "SPAN_KIND_PRODUCER",
            SpanKind::Consumer => "SPAN_KIND_CONSUMER",
        }
        .into(),
    );
    put("start_time_unix_nano", start.into());
    put("end_time_unix_nano", span.end_time_unix_nano.into());
    put("attributes", bag(&span.attributes));
    put(
        "dropped_attributes_count",
        count(span.dropped_attributes_count),
    );
    let events = span.events.iter().map(|e| {
        json!({
            "time_unix_nano": e.time_unix_nano,
            "name": e.name,
            "attributes": bag(&e.attributes),
            "dropped_attributes_count": count(e.dropped_attributes_count),
        })
    });
    put("events", events.collect());
    put("dropped_events_count", count(span.dropped_events_count));
    let links = span.links.iter().map(|l| {
        json!({
            "trace_id": l.trace_id.to_string(),
            "span_id": l.span_id.to_string(),
            "trace_state": text(&l.trace_state),
            "attributes": bag(&l.attributes),
            "dropped_attributes_count": count(l.dropped_attributes_count),
            "flags": l.flags as i32,
        })
    });
    put("links", links.collect());
    put("dropped_links_count", count(span.dropped_links_count));
    put(
        "status",
        json!({
            "message": text(&span.status.message),
            "code": match span.status.code {
                StatusCode::Unset => "STATUS_CODE_UNSET",
                StatusCode::Ok => "STATUS_CODE_OK",
                StatusCode::Error => "STATUS_CODE_ERROR",
            },
        }),
    );
    put(
        "resource",
        json!({
            "attributes": bag(&resource.attributes),
            "dropped_attributes_count": count(resource.dropped_attributes_count),
        }),
    );
    put(
        "resource_schema_url",
        text(resource.schema_url.as_deref().unwrap_or("")),
    );
    put(
        "instrumentation_scope",
        json!({
            "name": text(&scope.name),
            "version": text(scope.version.as_deref().unwrap_or("")),
            "attributes": bag(&scope.attributes),
            "dropped_attributes_count": count(scope.dropped_attributes_count),
        }),
    );
    put(
        "span_schema_url",
        text(scope.schema_url.as_deref().unwrap_or("")),
    );
    Value::Object(row)
}

fn text(text: &str) -> Value {
    (!text.is_empty()).then_some(text).into()
}

fn count(count: u32) -> Value {
    count.min(i32::MAX as u32).into()
}

fn date(nanos: u64) -> String {
    let seconds = (nanos / 1_000_000_000) as i64;
    let time = jiff::Timestamp::from_second(seconds).expect("64 bits of nanoseconds are in range");
    time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// Milliseconds, version, fraction of the millisecond, variant, and bits of both ids.
fn record_id(span: &SpanRecord) -> String {
    let split_mix = |value: u64| {
        let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let trace = u128::from_be_bytes(span.trace_id.to_bytes());
    let id = u64::from_be_bytes(span.span_id.to_bytes());
    let mut bits = split_mix((trace >> 64) as u64);
    bits = split_mix(bits ^ trace as u64);
    bits = split_mix(bits ^ id);
    let nanos = u128::from(span.start_time_unix_nano);
    let uuid = (nanos / 1_000_000) << 80
        | 0x7 << 76
        | (nanos % 1_000_000 * 4096 / 1_000_000) << 64
        | 0b10 << 62
        | u128::from(bits >> 2);
    uuid::Uuid::from_u128(uuid).to_string()
}

/// Of keys that repeat, the last counts.
fn last_values(attributes: &[Attribute]) -> BTreeMap<&str, &AnyValue> {
    attributes
        .iter()
        .map(|a| (a.key.as_str(), &a.value))
        .collect()
}

/// A bag of version 2.
fn object(attributes: &[Attribute]) -> Value {
    let entries = last_values(attributes).into_iter().map(|(key, value)| {
        let escaped = if key.starts_with('$') {
            format!("${key}")
        } else {
            key.to_owned()
        };
        (escaped, typed(value))
    });
    Value::Object(entries.collect())
}

/// A value with its type.
pub(crate) fn typed(value: &AnyValue) -> Value {
    match value {
        AnyValue::Empty => Value::Null,
        AnyValue::Bool(v) => (*v).into(),
        AnyValue::Int(v) => (*v).into(),
        AnyValue::Double(v) => double(*v),
        AnyValue::String(v) => v.as_str().into(),
        AnyValue::Bytes(v) => json!({"$bytes": STANDARD.encode(v)}),
        AnyValue::Array(v) => v.iter().map(typed).collect(),
        AnyValue::Map(v) => object(v),
    }
}

/// A double, which JSON cannot always say.
pub(crate) fn double(value: f64) -> Value {
    if value.is_nan() {
        json!({"$double": "NaN"})
    } else if value == f64::INFINITY {
        json!({"$double": "Infinity"})
    } else if value == f64::NEG_INFINITY {
        json!({"$double": "-Infinity"})
    } else {
        value.into()
    }
}

/// A bag of version 1.
fn texts(attributes: &[Attribute]) -> Value {
    let entries = last_values(attributes).into_iter().map(|(key, value)| {
        let text = match value {
            AnyValue::Empty => Value::Null,
            AnyValue::String(v) => v.as_str().into(),
            AnyValue::Bytes(v) => STANDARD.encode(v).into(),
            AnyValue::Double(v) if v.is_nan() => "NaN".into(),
            AnyValue::Double(v) if v.is_infinite() && *v > 0.0 => "Infinity".into(),
            AnyValue::Double(v) if v.is_infinite() => "-Infinity".into(),
            other => plain_json(other).to_string().into(),
        };
        (key.to_owned(), text)
    });
    Value::Object(entries.collect())
}

/// The JSON that stands in a text of version 1. Keys of maps stay in the order in which their last
/// value was given.
fn plain_json(value: &AnyValue) -> Value {
    match value {
        AnyValue::Empty => Value::Null,
        AnyValue::Bool(v) => (*v).into(),
        AnyValue::Int(v) => (*v).into(),
        AnyValue::Double(v) => match double(*v) {
            Value::Object(special) => special["$double"].clone(),
            number => number,
        },
        AnyValue::String(v) => v.as_str().into(),
        AnyValue::Bytes(v) => STANDARD.encode(v).into(),
        AnyValue::Array(v) => v.iter().map(plain_json).collect(),
        AnyValue::Map(v) => {
            let mut map = Map::new();
            for entry in v {
                // Taken out first, so that a key that repeats moves to its last place.
                map.shift_remove(entry.key.as_str());
                map.insert(entry.key.as_str().to_owned(), plain_json(&entry.value));
            }
            Value::Object(map)
        }
    }
}
