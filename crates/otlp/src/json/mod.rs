//! Decodes OTLP/JSON to records.
//!
//! The serde support of `opentelemetry-proto` 0.33 is not used, because it cannot read what others
//! write: it fails on `"arrayValue": {}` (how the Collector writes an empty list), on a key–value
//! pair without a key, on `null`, on `"doubleValue": "NaN"`, on URL-safe or unpadded base64 and on
//! enum names; and one bad span fails its whole request. So the text is read here, with leniency as
//! in the protobuf JSON mapping: numbers may be text, text may be absent or `null`, fields that
//! are unknown are skipped. Ids are hex, as OTLP departs from that mapping.
//!
//! There are two decoders. `quick` reads well-formed text directly into records. If it gives up on
//! a span or a request, `lenient` reads that from a tree: it accepts what MLflow's server accepts
//! and more, and leaves out the rest part by part.

mod lenient;
mod loose;
mod not_traces;
mod quick;
mod tree;
mod value;

use crate::request::ResourceSpans;
use crate::text::to_utf8;
use not_traces::NOT_A_REQUEST;
pub(crate) use not_traces::NotTraces;
use trace_destination_core::{Error, ErrorKind};
pub(crate) use tree::SyntaxError;

/// Decodes an OTLP/JSON `ExportTraceServiceRequest` (or `TracesData`, which is the same in JSON),
/// in UTF-8, UTF-16 or UTF-32.
///
/// Text that is not Unicode (bytes, or a lone surrogate such as `"\ud800"`) becomes U+FFFD. If a
/// key occurs twice, the last one counts. Counts that are negative or too large are clamped. Names
/// of enum values are read with or without their prefix; unknown ones mean unset. Ids that are too
/// short are padded with zeros on the left. A value that does not fit its field, or has none,
/// becomes what it looks like: `{"intValue": 18446744073709551615}` becomes text, as OpenTelemetry
/// maps such numbers, and so does `"value": "bare"`. Values may be nested about 50 deep. A link
/// whose ids cannot be read is left out and counted as dropped.
///
/// # Errors
/// `Corrupt` if the text is not JSON, or JSON but not such a request: one without `resourceSpans`,
/// unless it is empty. A bad span is not an error: it is in [`refused`](ResourceSpans::refused).
/// Any other bad part is in [`faults`](ResourceSpans::faults).
pub fn decode_json(text: &[u8]) -> Result<Vec<ResourceSpans>, Error> {
    let text = to_utf8(text);
    let failed = |cause: String, mend: &'static str| {
        Error::new(ErrorKind::Corrupt, "decode OTLP request", cause).mend(mend)
    };
    let syntax = |e: SyntaxError| failed(e.cause().into(), NOT_A_REQUEST).caused_by(e);
    let First { outcome, end } = first(&text).map_err(syntax)?;
    let rest = &text[end..];
    if let Some(at) = rest.iter().position(|b| !b.is_ascii_whitespace()) {
        return Err(syntax(SyntaxError::trailing(end + at)));
    }
    outcome.map_err(|e| failed(e.cause(), e.mend()))
}

/// The first JSON value of a text.
pub(crate) struct First {
    /// What it is as a request.
    pub(crate) outcome: Result<Vec<ResourceSpans>, NotTraces>,
    /// Where it ends, in bytes.
    pub(crate) end: usize,
}

/// Reads the first JSON value of a text, in UTF-8.
pub(crate) fn first(text: &[u8]) -> Result<First, SyntaxError> {
    if let Some((outcome, end)) = quick::request(text) {
        #[cfg(fuzzing)]
        agree(text, &outcome, end);
        return Ok(First { outcome, end });
    }
    let (root, end) = tree::parse(text)?;
    let outcome = lenient::request(&root);
    Ok(First { outcome, end })
}

/// Panics if the two decoders disagree on what the quick one reads. As text, so that a double that
/// is no number equals itself.
#[cfg(any(test, fuzzing))]
fn agree(text: &[u8], quick: &Result<Vec<ResourceSpans>, NotTraces>, end: usize) {
    let (root, tree_end) = tree::parse(text).expect("what is quickly decoded is JSON");
    let lenient = lenient::request(&root);
    assert_eq!(end, tree_end);
    assert_eq!(format!("{quick:?}"), format!("{lenient:?}"));
}

impl SyntaxError {
    pub(crate) fn cause(&self) -> &'static str {
        if self.eof {
            "the JSON text ends in the middle of a value"
        } else {
            "the text is not JSON"
        }
    }
}

#[cfg(test)]
mod tests;
