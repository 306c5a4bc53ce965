//! What keeps a span, or a value set on a trace, from becoming a row.

use opentelemetry::trace::TraceId;
use std::borrow::Cow;
use trace_destination_core::{Error, ErrorKind, Span};

/// Why one span, or every span of a group, cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    cause: Cow<'static, str>,
    mend: &'static str,
}

impl Fault {
    /// A time that a BIGINT of nanoseconds cannot hold.
    pub(super) fn time(what: &str, time: u64) -> Self {
        Self {
            cause: format!(
                "the {what} time, {time} ns after 1970, is beyond the 64-bit signed column"
            )
            .into(),
            mend: "correct the clock that made it; times up to the year 2262 fit",
        }
    }

    /// Attributes that readers of VARIANT would fail on.
    pub(super) fn size(bytes: usize, limit: usize) -> Self {
        Self {
            cause: format!(
                "as VARIANT its values take {bytes} bytes, and readers take {limit} at most"
            )
            .into(),
            mend: "store large content elsewhere and a reference to it in the trace",
        }
    }

    /// Values that are nested deeper than readers can be expected to follow.
    pub(super) fn depth(limit: usize) -> Self {
        Self {
            cause: format!("an attribute's value is nested more than {limit} deep").into(),
            mend: "flatten the value, or store it as JSON text",
        }
    }

    /// More different keys and resources than one batch can refer to.
    pub(super) fn batch() -> Self {
        Self {
            cause: "the keys and resources of its batch take more than 2 GiB".into(),
            mend: "write smaller batches",
        }
    }

    /// As the error of a value set on a trace.
    pub(super) fn of_value(&self, name: &str, trace: TraceId) -> Error {
        let name: String = name.chars().take(80).collect();
        Error::new(
            ErrorKind::InvalidSpan,
            format!("make a row of `{}` of trace {trace}", name.escape_debug()),
            self.cause.clone(),
        )
        .mend(self.mend)
    }

    /// As the error of one span.
    pub(super) fn of(&self, span: &Span) -> Error {
        // Names come from outside and may be of any length; this much identifies one.
        let name: String = span.name().chars().take(80).collect();
        Error::new(
            ErrorKind::InvalidSpan,
            format!("make a row of span `{}`", name.escape_debug()),
            self.cause.clone(),
        )
        .mend(self.mend)
    }
}
