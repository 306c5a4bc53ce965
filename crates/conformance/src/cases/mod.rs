//! The cases, by subject. Each is one short async function; [`crate::table`] lists them.

pub(crate) mod application;
pub(crate) mod around;
pub(crate) mod binding;
pub(crate) mod budget;
pub(crate) mod delivery;
pub(crate) mod fidelity;
pub(crate) mod flush;
pub(crate) mod foreign_ids;
pub(crate) mod input;
pub(crate) mod isolation;
pub(crate) mod lanes;
pub(crate) mod observe;
pub(crate) mod runtimes;
pub(crate) mod scope;

pub(crate) use crate::failure::{Failure, ensure, ensure_eq};
pub(crate) use crate::world::{Place, Rig, World};
pub(crate) use std::sync::Arc;
pub(crate) use std::time::Duration;

/// What a case returns.
pub(crate) type Verdict = Result<(), Failure>;

/// The context of a span in another process: a trace id and a parent that came over the wire.
pub(crate) fn remote(trace: u128, span: u64) -> opentelemetry::Context {
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    opentelemetry::Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ))
}

/// What a place is told of another tenant's trace must not say whose it is.
pub(crate) fn names_nobody_else(text: &str, here: &Place, other: &Place) -> Verdict {
    let names = |place: &Place| {
        let values = place.uri().query_pairs().map(|(_, value)| value.to_owned());
        let mut names: Vec<String> = values.collect();
        names.push(place.uri().to_string());
        names.retain(|name| name.len() > 2);
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names
    };
    let own = names(here);
    let rest = own
        .iter()
        .fold(text.to_owned(), |text, name| text.replace(name, ""));
    for name in names(other).iter().filter(|name| !own.contains(name)) {
        ensure!(!rest.contains(name), "{text} names {name}");
    }
    Ok(())
}

/// A root span from nothing but the current context.
pub(crate) fn root(rig: &Rig) -> opentelemetry_sdk::trace::Span {
    rig.start("root", &opentelemetry::Context::current())
}
