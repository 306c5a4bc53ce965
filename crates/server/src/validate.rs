//! What MLflow's server refuses, and with it the whole request: found before anything is sent.
//! What is not known here is found by taking a refused request apart.

use crate::error::WRITE;
use crate::keys;
use opentelemetry::trace::{SpanId, TraceId};
use trace_destination_core::{AnyValueRef, Error, ErrorKind, Span};

/// Characters a session id and a trace name may have.
pub(crate) const MAX_SESSION: usize = 250;
const MAX_NAME: usize = 4096;

/// Checks one span.
///
/// # Errors
/// `InvalidSpan`, naming span, attribute and mend.
pub(crate) fn span(span: &Span) -> Result<(), Error> {
    let refuse = |what: &str, mend: &'static str| Err(refusal(span, what, mend));
    if span.trace_id() == TraceId::INVALID || span.span_id() == SpanId::INVALID {
        return refuse("its trace id or span id is all zero", "give it ids");
    }
    if i64::try_from(span.start_time_unix_nano()).is_err() {
        return refuse(
            "its start time is beyond the year 2262",
            "send nanoseconds since 1970",
        );
    }
    if i64::try_from(span.end_time_unix_nano()).is_err() {
        return refuse(
            "its end time is beyond the year 2262",
            "send nanoseconds since 1970",
        );
    }
    let (mut session, mut conversation) = (None, None);
    for (key, value) in span.attributes().iter() {
        match key {
            keys::SESSION => session = Some(value),
            keys::CONVERSATION => conversation = Some(value),
            keys::COST if !is_object(value) => {
                return refuse(
                    "attribute `mlflow.llm.cost` is not a JSON object",
                    "send an object with input_cost, output_cost and total_cost",
                );
            }
            keys::TRACE_NAME_ATTRIBUTE if text(value).is_some_and(|t| longer(t, MAX_NAME)) => {
                return refuse(
                    "the trace name it sets has more than 4096 characters",
                    "shorten attribute `mlflow.traceTag.mlflow.traceName`",
                );
            }
            _ => {}
        }
    }
    let session = session.or(conversation).and_then(text);
    if session.is_some_and(|t| longer(t, MAX_SESSION)) {
        return refuse(
            "its session id has more than 250 characters",
            "shorten attribute `session.id`",
        );
    }
    Ok(())
}

/// What may be wrong with a span that the server did not take.
pub(crate) fn suspicion(span: &Span) -> Option<&'static str> {
    span.attributes().iter().find_map(|(key, value)| match key {
        keys::USAGE if !is_object(value) => {
            Some("attribute `mlflow.chat.tokenUsage` should be an object of whole numbers")
        }
        keys::USAGE => match value {
            AnyValueRef::Map(map)
                if map
                    .iter()
                    .all(|(_, v)| matches!(v, AnyValueRef::Int(_) | AnyValueRef::Double(_))) =>
            {
                None
            }
            AnyValueRef::String(text)
                if serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| {
                    v.as_object()
                        .is_some_and(|o| o.values().all(serde_json::Value::is_number))
                }) =>
            {
                None
            }
            _ => Some("attribute `mlflow.chat.tokenUsage` should hold whole numbers"),
        },
        keys::SPAN_TYPE if matches!(value, AnyValueRef::Array(_) | AnyValueRef::Map(_)) => {
            Some("attribute `mlflow.spanType` should be one word, such as TOOL")
        }
        keys::COST => Some("attribute `mlflow.llm.cost` should hold numbers"),
        _ => None,
    })
}

pub(crate) fn refusal(span: &Span, what: &str, mend: impl Into<String>) -> Error {
    let name: String = span.name().chars().take(80).collect();
    let cause = format!(
        "span `{}` ({} of trace {}): {what}",
        name.escape_debug(),
        span.span_id(),
        span.trace_id()
    );
    Error::new(ErrorKind::InvalidSpan, WRITE, cause).mend(mend.into())
}

fn text(value: AnyValueRef<'_>) -> Option<&str> {
    value.as_str()
}

fn is_object(value: AnyValueRef<'_>) -> bool {
    match value {
        AnyValueRef::Map(_) => true,
        AnyValueRef::String(text) => {
            text.trim_start().starts_with('{')
                && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
        }
        _ => false,
    }
}

fn longer(text: &str, limit: usize) -> bool {
    text.len() > limit && text.chars().nth(limit).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trace_destination_core::{AnyValue, Attribute, SpanRecord};

    fn record() -> SpanRecord {
        SpanRecord::new(TraceId::from(1), SpanId::from(2), "s", 3, 4)
    }

    #[test]
    fn what_sinks_a_request_is_refused_alone() {
        let long = |n: usize| "é".repeat(n);
        let numbers = AnyValue::Map(vec![Attribute::new("total_cost", 0.5)]);
        let mut late = record();
        late.start_time_unix_nano = 1 << 63;
        let mut endless = record();
        endless.end_time_unix_nano = u64::MAX;
        let mut nobody = record();
        nobody.trace_id = TraceId::INVALID;
        for (what, record, says) in [
            ("plain", record(), None),
            (
                "session of 250",
                record().with_attribute("session.id", long(250)),
                None,
            ),
            (
                "session of 251",
                record().with_attribute("session.id", long(251)),
                Some("session"),
            ),
            (
                "conversation of 251",
                record().with_attribute("gen_ai.conversation.id", long(251)),
                Some("session"),
            ),
            (
                "long conversation behind a session",
                record()
                    .with_attribute("gen_ai.conversation.id", long(251))
                    .with_attribute("session.id", "short"),
                None,
            ),
            (
                "name of 4097",
                record().with_attribute("mlflow.traceTag.mlflow.traceName", long(4097)),
                Some("4096"),
            ),
            (
                "cost as text",
                record().with_attribute("mlflow.llm.cost", "much"),
                Some("cost"),
            ),
            (
                "cost as number",
                record().with_attribute("mlflow.llm.cost", 1.5),
                Some("cost"),
            ),
            (
                "cost as JSON",
                record().with_attribute("mlflow.llm.cost", "{\"total_cost\": 1}"),
                None,
            ),
            (
                "cost as map",
                record().with_attribute("mlflow.llm.cost", numbers),
                None,
            ),
            ("late", late, Some("start time")),
            ("endless", endless, Some("end time")),
            ("nobody", nobody, Some("zero")),
        ] {
            let found = span(&record.into()).err().map(|e| e.to_string());
            match says {
                None => assert_eq!(found, None, "{what}"),
                Some(says) => assert!(
                    found.as_ref().is_some_and(|f| f.contains(says)),
                    "{what}: {found:?}"
                ),
            }
        }
    }
}
