//! From spans to rows: what MLflow 3.17.2's own tracking server stores for the same OTLP.
//!
//! Everything here is pure. [`span_facts`] turns one span into the values of its `spans` row plus
//! what it contributes to its trace; [`Rollup`] adds token usage and cost up over the span tree,
//! whatever order spans arrive in; [`resource_tags`] gives the tags a resource puts on a trace.
//! Where this deliberately differs from MLflow is listed in `docs/mlflow-differences.md`.

mod attrs;
mod content;
mod events;
mod genai;
mod json;
mod keys;
mod preview;
mod rollup;
mod span;
mod tags;
#[cfg(test)]
mod tests;
mod tokens;
mod vendors;

pub(crate) use rollup::{COST_KEYS, Cost, Rollup, USAGE_KEYS, Usage, stored_values};
pub(crate) use tags::resource_tags;

use attrs::{Attr, Attrs};
use json::Json;
use trace_destination_core::{
    AnyValueRef, Attributes, Error, ErrorKind, Resource, Span, StatusCode,
};

/// One `spans` row, and what the span says about its trace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpanFacts {
    /// `tr-` and 32 hex digits.
    pub(crate) trace_id: String,
    /// 16 hex digits.
    pub(crate) span_id: String,
    /// 16 hex digits; `None` at the root of the trace.
    pub(crate) parent_span_id: Option<String>,
    pub(crate) name: String,
    /// The column `spans.type`: what `mlflow.spanType` said, without translation.
    pub(crate) span_type: Option<String>,
    /// `UNSET`, `OK` or `ERROR`.
    pub(crate) status: &'static str,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start_ns: i64,
    /// Nanoseconds since the Unix epoch; `None` where the sender gave no end.
    pub(crate) end_ns: Option<i64>,
    /// The column `spans.content`: the whole span as JSON.
    pub(crate) content: String,
    /// Token usage of this span alone; feed it to [`Rollup`].
    pub(crate) usage: Option<Usage>,
    /// Cost of this span alone, if given; `Cost::columns` are the three cost columns.
    pub(crate) cost: Option<Cost>,
    /// The column `spans.model_name`.
    pub(crate) model_name: Option<String>,
    /// The column `spans.model_provider`.
    pub(crate) model_provider: Option<String>,
    /// The session this span names, never empty. The first one a trace gets is kept.
    pub(crate) session_id: Option<String>,
    /// The user this span names, never empty. The first one a trace gets is kept
    /// (metadata `mlflow.trace.user`).
    pub(crate) user_id: Option<String>,
    /// What only the root of a trace says.
    pub(crate) root: Option<RootFacts>,
}

/// What the root span says about its trace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RootFacts {
    /// `OK` or `ERROR`. A trace without a root yet is `IN_PROGRESS`; a final state is kept.
    pub(crate) state: &'static str,
    /// At most 1000 characters. The first one a trace gets is kept.
    pub(crate) request_preview: Option<String>,
    /// At most 1000 characters. The first one a trace gets is kept.
    pub(crate) response_preview: Option<String>,
    /// The name the application gave the trace; overwrites an earlier one.
    pub(crate) name: Option<String>,
    /// The root span's own name, for a trace that has got no other name. MLflow's server leaves
    /// such traces nameless.
    pub(crate) fallback_name: String,
    /// Tags the application gave the trace, one entry per key. They beat the resource's tags.
    pub(crate) tags: Vec<(String, String)>,
}

/// Clients whose name MLflow copies from the resource to the root span.
const KNOWN_SERVICES: [&str; 5] = [
    "claude-code",
    "codex_cli_rs",
    "codex_vscode",
    "gemini-cli",
    "qwen-code",
];

/// Characters a session id and a trace name may have.
const MAX_SESSION: usize = 250;
const MAX_NAME: usize = 4096;
/// Lists and maps within each other that a value may have.
const MAX_NESTING: usize = 128;
/// Characters of a model or provider that are kept.
const MAX_MODEL: usize = 500;

/// The rows of one span.
///
/// # Errors
/// [`ErrorKind::InvalidSpan`], naming span and attribute, for what MLflow's server refuses (there
/// the whole request): a time beyond 2^63 ns, a session id over 250 or a trace name over 4096
/// characters, token counts or a cost that are not numbers, a list or map as span type; and for a
/// value that nests over 128 levels.
pub(crate) fn span_facts(span: &Span, resource: &Resource) -> Result<SpanFacts, Error> {
    let refuse = |what: &str, mend: &'static str| refusal(span, what, mend);
    let start_ns = i64::try_from(span.start_time_unix_nano()).map_err(|_| {
        refuse(
            "its start time is beyond the year 2262",
            "send nanoseconds since 1970",
        )
    })?;
    let end_ns = match span.end_time_unix_nano() {
        0 => None,
        end => Some(i64::try_from(end).map_err(|_| {
            refuse(
                "its end time is beyond the year 2262",
                "send nanoseconds since 1970",
            )
        })?),
    };
    if nests_too_deep(span) {
        return Err(refuse(
            "a value nests more than 128 lists or maps",
            "send deep structures as JSON text",
        ));
    }
    let trace_id = format!("tr-{}", span.trace_id());
    let parent = span::parent(span);

    let mut attrs = Attrs::new(span.attributes(), 8);
    let span_type = match attrs.get(keys::SPAN_TYPE) {
        Some(value) => type_column(value).map_err(|()| {
            refuse(
                "attribute `mlflow.spanType` is a list or map",
                "set it to one word, such as TOOL",
            )
        })?,
        None => None,
    };
    let quoted = format!("\"{trace_id}\"");
    attrs.set(keys::REQUEST_ID, Attr::Text(quoted));
    if parent.is_none()
        && let Some(service) = known_service(resource)
    {
        attrs.set("service.name", Attr::Quoted(service));
    }
    if attrs.0.iter().any(|(k, _)| genai::is_foreign(k)) || events::any(span) {
        genai::translate(&mut attrs, span);
    } else {
        genai::model_of_payload(&mut attrs);
    }

    let usage = match attrs.get(keys::USAGE).and_then(Attr::decoded) {
        Some(counts @ Json::Dict(_)) => Some(Usage::of(&counts).map_err(|key| {
            refuse(
                &format!("`{key}` in attribute `mlflow.chat.tokenUsage` is not a number"),
                "send whole numbers",
            )
        })?),
        _ => None,
    };
    let cost = match attrs.get(keys::COST).map(Attr::decoded) {
        Some(Some(amounts @ Json::Dict(_))) => Some(Cost::of(&amounts).map_err(|key| {
            refuse(
                &format!("`{key}` in attribute `mlflow.llm.cost` is not a number"),
                "send US dollars as numbers",
            )
        })?),
        Some(_) => {
            return Err(refuse(
                "attribute `mlflow.llm.cost` is not a JSON object",
                "send an object with input_cost, output_cost and total_cost",
            ));
        }
        None => None,
    };
    let session_id = attrs
        .get(keys::SESSION)
        .or_else(|| attrs.get(keys::CONVERSATION))
        .map(|v| v.plain().into_owned())
        .filter(|v| !v.is_empty());
    if session_id.as_ref().is_some_and(|v| longer(v, MAX_SESSION)) {
        return Err(refuse(
            "its session id has more than 250 characters",
            "shorten attribute `session.id`",
        ));
    }
    let model = |key| {
        attrs.get(key).map(|value| {
            let mut name = value.plain().into_owned();
            if longer(&name, MAX_MODEL)
                && let Some((end, _)) = name.char_indices().nth(MAX_MODEL)
            {
                name.truncate(end);
            }
            name
        })
    };
    let root = match parent {
        Some(_) => None,
        None => Some(root_facts(span, &attrs)?),
    };
    Ok(SpanFacts {
        span_id: span.span_id().to_string(),
        parent_span_id: parent.map(|id| id.to_string()),
        name: span.name().to_owned(),
        span_type,
        status: span::status(span),
        start_ns,
        end_ns,
        content: content::content(span, &attrs, end_ns),
        usage,
        cost,
        model_name: model(keys::MODEL),
        model_provider: model(keys::PROVIDER),
        session_id,
        user_id: attrs
            .get(keys::USER)
            .map(|v| v.plain().into_owned())
            .filter(|v| !v.is_empty()),
        root,
        trace_id,
    })
}

fn root_facts(span: &Span, attrs: &Attrs<'_>) -> Result<RootFacts, Error> {
    let mut name = None;
    let mut tags = Vec::new();
    for (key, value) in &attrs.0 {
        let tag = key.strip_prefix(keys::TRACE_TAG);
        match tag.and_then(|key| tags::trace_tag(key, value)) {
            Some((key, value)) if key == keys::TRACE_NAME => name = Some(value),
            Some(tag) => tags.push(tag),
            None => {}
        }
    }
    if name.as_ref().is_some_and(|v| longer(v, MAX_NAME)) {
        return Err(refusal(
            span,
            "the trace name it sets has more than 4096 characters",
            "shorten attribute `mlflow.traceTag.mlflow.traceName`",
        ));
    }
    Ok(RootFacts {
        state: match span.status_code() {
            StatusCode::Error => "ERROR",
            StatusCode::Unset | StatusCode::Ok => "OK",
        },
        request_preview: attrs
            .get(keys::INPUTS)
            .and_then(|v| preview::preview(v, "user")),
        response_preview: attrs
            .get(keys::OUTPUTS)
            .and_then(|v| preview::preview(v, "assistant")),
        name,
        fallback_name: span.name().to_owned(),
        tags,
    })
}

/// OTLP over the wire cannot nest as deep, records made by hand can; values are written by recursion.
fn nests_too_deep(span: &Span) -> bool {
    fn deep(value: AnyValueRef<'_>, left: usize) -> bool {
        match value {
            AnyValueRef::Array(_) | AnyValueRef::Map(_) if left == 0 => true,
            AnyValueRef::Array(v) => v.iter().any(|v| deep(v, left - 1)),
            AnyValueRef::Map(v) => v.iter().any(|(_, v)| deep(v, left - 1)),
            _ => false,
        }
    }
    let any = |attributes: Attributes<'_>| attributes.iter().any(|(_, v)| deep(v, MAX_NESTING));
    any(span.attributes())
        || span.events().any(|e| any(e.attributes))
        || span.links().any(|l| any(l.attributes))
}

/// What a text column holds after the value was bound to it.
fn type_column(value: &Attr<'_>) -> Result<Option<String>, ()> {
    Ok(match value {
        Attr::Quoted(text) | Attr::Json(text) => Some((*text).to_owned()),
        Attr::Value(AnyValueRef::Empty) => None,
        Attr::Value(AnyValueRef::Bool(v)) => Some(u8::from(*v).to_string()),
        Attr::Value(AnyValueRef::Double(v)) if v.is_nan() => None,
        Attr::Value(AnyValueRef::Array(_) | AnyValueRef::Map(_)) => return Err(()),
        other => Some(other.plain().into_owned()),
    })
}

fn known_service(resource: &Resource) -> Option<&str> {
    let (_, value) = resource
        .attributes()
        .iter()
        .find(|(key, _)| *key == "service.name")?;
    value.as_str().filter(|name| KNOWN_SERVICES.contains(name))
}

fn longer(text: &str, limit: usize) -> bool {
    text.len() > limit && text.chars().nth(limit).is_some()
}

fn refusal(span: &Span, what: &str, mend: &'static str) -> Error {
    let cause = format!(
        "span `{}` ({} of trace {}): {what}",
        span.name(),
        span.span_id(),
        span.trace_id()
    );
    Error::new(ErrorKind::InvalidSpan, "store span", cause).mend(mend)
}
