//! Text that is never shown: the rules live in one crate.

pub(crate) use trace_destination_http::Secret;

/// Takes secrets out of what somebody else said: stores and servers repeat what they were sent.
pub(crate) fn scrub<'a>(text: String, secrets: impl IntoIterator<Item = &'a str>) -> String {
    trace_destination_http::scrub(&text, secrets)
}
