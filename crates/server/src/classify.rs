//! What an answer means: pure, so that the whole table can be tested.

use jiff::Timestamp;
use trace_destination_core::{ErrorKind, Retry};
use trace_destination_http::retry_after;

/// Whose rules an answer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// MLflow's tracking server (3.17.2), and proxies before it.
    Mlflow,
    /// OTLP/HTTP (specification 1.9, "OTLP/HTTP Response" and "Retryable Response Codes"): of all
    /// failures, 429, 502, 503 and 504 alone may be tried again.
    Otlp,
    /// Databricks' REST API.
    Databricks,
}

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A span in the request; the others may be fine.
    Data,
    /// The server failed, which a span can cause.
    Unclear,
    /// The server, the address or the credentials.
    Place,
}

/// What an answer that is no success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) kind: ErrorKind,
    pub(crate) retry: Retry,
    pub(crate) blame: Blame,
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs<'a> {
    pub(crate) status: u16,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<&'a str>,
    /// `error_code` in MLflow's JSON.
    pub(crate) code: Option<&'a str>,
    /// The time of the answer.
    pub(crate) now: Timestamp,
}

/// The meaning of an answer; `None` is success.
pub(crate) fn classify(dialect: Dialect, signs: Signs<'_>) -> Option<Class> {
    use ErrorKind as K;
    let delay = signs
        .retry_after
        .and_then(|text| retry_after(text, signs.now));
    let never = |kind, blame| Class {
        kind,
        retry: Retry::Never,
        blame,
    };
    let again = |kind, blame| Class {
        kind,
        retry: delay.map_or(Retry::Backoff, Retry::After),
        blame,
    };
    let otlp = dialect == Dialect::Otlp;
    Some(match signs.status {
        200..=299 => return None,
        // What MLflow answers with a 500 that no repetition mends.
        500 if signs.code == Some("FEATURE_DISABLED") => never(K::InvalidConfig, Blame::Place),
        400 | 413 | 422 => never(K::InvalidSpan, Blame::Data),
        401 | 407 => never(K::Unauthenticated, Blame::Place),
        403 => never(K::PermissionDenied, Blame::Place),
        404 | 410 => never(K::NotFound, Blame::Place),
        408 if !otlp => again(K::Timeout, Blame::Place),
        // MLflow: another writer was in the way (ABORTED, RESOURCE_CONFLICT).
        409 if !otlp => again(K::Locked, Blame::Place),
        425 if !otlp => again(K::Throttled, Blame::Place),
        429 => again(K::Throttled, Blame::Place),
        501 | 505 => never(K::Unsupported, Blame::Place),
        502 | 503 => again(K::Unavailable, Blame::Place),
        504 => again(K::Timeout, Blame::Place),
        507 if !otlp => again(K::StorageFull, Blame::Place),
        500 if !otlp => again(K::Unavailable, Blame::Unclear),
        500..=599 if !otlp => again(K::Unavailable, Blame::Place),
        // A span may be what a collector stumbles over; the rest of the batch deserves a try.
        500 => never(K::Unavailable, Blame::Unclear),
        501..=599 => never(K::Unavailable, Blame::Place),
        _ => never(K::Unsupported, Blame::Place),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(dialect: Dialect, status: u16, after: Option<&str>, code: Option<&str>) -> String {
        let signs = Signs {
            status,
            retry_after: after,
            code,
            now: "2026-11-22T08:49:00Z".parse().unwrap(),
        };
        match classify(dialect, signs) {
            None => "ok".into(),
            Some(c) => format!("{:?} {:?} {:?}", c.kind, c.retry, c.blame),
        }
    }

    #[test]
    fn the_table() {
        use Dialect::{Databricks, Mlflow, Otlp};
        #[rustfmt::skip]
        let table = [
            (Mlflow, 200, None, None, "ok"),
            (Otlp, 202, None, None, "ok"),
            (Mlflow, 301, None, None, "Unsupported Never Place"),
            (Mlflow, 400, None, Some("INVALID_PARAMETER_VALUE"), "InvalidSpan Never Data"),
            (Mlflow, 401, None, None, "Unauthenticated Never Place"),
            (Mlflow, 403, None, None, "PermissionDenied Never Place"),
            (Mlflow, 404, None, Some("RESOURCE_DOES_NOT_EXIST"), "NotFound Never Place"),
            (Mlflow, 405, None, None, "Unsupported Never Place"),
            (Mlflow, 407, None, None, "Unauthenticated Never Place"),
            (Mlflow, 408, None, None, "Timeout Backoff Place"),
            (Otlp, 408, None, None, "Unsupported Never Place"),
            (Mlflow, 409, None, Some("ABORTED"), "Locked Backoff Place"),
            (Mlflow, 413, None, None, "InvalidSpan Never Data"),
            (Otlp, 413, None, None, "InvalidSpan Never Data"),
            (Mlflow, 422, None, None, "InvalidSpan Never Data"),
            (Mlflow, 429, Some("7"), None, "Throttled After(7s) Place"),
            (Otlp, 429, Some("7"), None, "Throttled After(7s) Place"),
            (Databricks, 429, None, None, "Throttled Backoff Place"),
            (Mlflow, 500, None, Some("INTERNAL_ERROR"), "Unavailable Backoff Unclear"),
            (Mlflow, 500, None, Some("FEATURE_DISABLED"), "InvalidConfig Never Place"),
            (Otlp, 500, None, None, "Unavailable Never Unclear"),
            (Mlflow, 501, None, None, "Unsupported Never Place"),
            (Mlflow, 502, None, None, "Unavailable Backoff Place"),
            (Otlp, 502, None, None, "Unavailable Backoff Place"),
            (Mlflow, 503, Some("Sun, 22 Nov 2026 08:49:37 GMT"), None, "Unavailable After(37s) Place"),
            (Otlp, 503, Some("2"), None, "Unavailable After(2s) Place"),
            (Otlp, 504, None, None, "Timeout Backoff Place"),
            (Mlflow, 507, None, None, "StorageFull Backoff Place"),
            (Otlp, 507, None, None, "Unavailable Never Place"),
            (Mlflow, 520, None, None, "Unavailable Backoff Place"),
        ];
        for (dialect, status, after, code, expected) in table {
            assert_eq!(
                class(dialect, status, after, code),
                expected,
                "{dialect:?} {status}"
            );
        }
    }
}
