//! Transforms edit spans before they are stored: redaction, enrichment, filtering.

use crate::contain::caught;
use crate::record::Span;
use crate::uri::LocationUri;

/// What happens to a span after its transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transformed {
    /// The span is stored as the transform left it.
    Keep,
    /// The span is dropped, and counted as [`DropReason::Transform`](crate::DropReason).
    Drop,
}

/// Edits spans on their way to a location. Runs once per span and location, on a thread of the
/// pipeline, never on the application's threads. If it panics, the span is dropped and counted.
/// Trace-level values are seen only where they are attributes of the root span, not where a location
/// stores them apart.
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
