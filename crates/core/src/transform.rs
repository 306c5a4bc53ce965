//! The hook that edits spans before they are stored: redaction, enrichment, filtering.

use crate::contain::caught;
use crate::record::Span;
use crate::uri::LocationUri;

/// What becomes of a span after a hook has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transformed {
    /// It is stored as the hook left it.
    Keep,
    /// It is not stored; counted as `transform`.
    Drop,
}

/// Edits spans on their way to a location. Runs on a delivery thread, once per span and location,
/// never on the application's threads; a hook that panics drops the span.
///
/// ```
/// use trace_destination_core::{LocationUri, Span, Transformed};
///
/// let redact = |_location: &LocationUri, span: &mut Span| {
///     if span.attributes().get("user.email").is_some() {
///         span.record_mut().attributes.retain(|a| a.key.as_str() != "user.email");
///     }
///     Transformed::Keep
/// };
/// # let _: &dyn trace_destination_core::SpanTransform = &redact;
/// ```
pub trait SpanTransform: Send + Sync + 'static {
    /// Edits `span`, which is about to be stored at `location`.
    fn transform(&self, location: &LocationUri, span: &mut Span) -> Transformed;
}

impl<F> SpanTransform for F
where
    F: Fn(&LocationUri, &mut Span) -> Transformed + Send + Sync + 'static,
{
    fn transform(&self, location: &LocationUri, span: &mut Span) -> Transformed {
        self(location, span)
    }
}

pub(crate) enum Verdict {
    Keep,
    Drop,
    Panicked(String),
}

pub(crate) fn apply(hook: &dyn SpanTransform, location: &LocationUri, span: &mut Span) -> Verdict {
    match caught(|| hook.transform(location, span)) {
        Ok(Transformed::Keep) => Verdict::Keep,
        Ok(Transformed::Drop) => Verdict::Drop,
        Err(panic) => Verdict::Panicked(format!("the hook panicked: {panic}")),
    }
}
