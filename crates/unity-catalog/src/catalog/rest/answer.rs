//! What a catalog's answers mean: by the error code first, since the statuses of the open-source
//! server are odd (a table that exists already is a 400), and what can be done about them.

use std::borrow::Cow;
use std::time::Duration;
use trace_destination_core::{Error, ErrorKind, Retry};
use trace_destination_http::{TokenFault, Transport};

/// What is asked of a catalog; what an error says was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    LookUp,
    Place,
    Register,
    TableKeys,
    PathKeys,
}

impl Ask {
    fn operation(self) -> &'static str {
        match self {
            Self::LookUp => "look up table in Unity Catalog",
            Self::Place => "find a place for a new table in Unity Catalog",
            Self::Register => "register table in Unity Catalog",
            Self::TableKeys | Self::PathKeys => "get storage credentials from Unity Catalog",
        }
    }
}

/// What an answer that is no success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) kind: ErrorKind,
    pub(super) retry: Retry,
}

/// The meaning of an answer; `None` is success. Codes are those of the open-source server (0.6,
/// `ErrorCode.java`) and, where it has none of its own, of Databricks' REST API.
pub(super) fn classify(status: u16, code: Option<&str>, delay: Option<Duration>) -> Option<Class> {
    use ErrorKind as K;
    if (200..300).contains(&status) {
        return None;
    }
    let never = |kind| Class {
        kind,
        retry: Retry::Never,
    };
    let again = |kind| Class {
        kind,
        retry: delay.map_or(Retry::Backoff, Retry::After),
    };
    let by_code = match code.unwrap_or_default() {
        "ABORTED" | "COMMIT_VERSION_CONFLICT" | "RESOURCE_CONFLICT" => again(K::Locked),
        "RESOURCE_EXHAUSTED" | "REQUEST_LIMIT_EXCEEDED" | "TOO_MANY_REQUESTS" => {
            again(K::Throttled)
        }
        "TEMPORARILY_UNAVAILABLE" | "UNAVAILABLE" => again(K::Unavailable),
        "DEADLINE_EXCEEDED" => again(K::Timeout),
        "INTERNAL" | "INTERNAL_ERROR" | "DATA_LOSS" => again(K::Unavailable),
        "UNAUTHENTICATED" => never(K::Unauthenticated),
        "PERMISSION_DENIED" | "EXTERNAL_ACCESS_DISABLED_ON_METASTORE" => never(K::PermissionDenied),
        "UNIMPLEMENTED" | "NOT_IMPLEMENTED" | "FEATURE_DISABLED" | "UNSUPPORTED_TABLE_FORMAT" => {
            never(K::Unsupported)
        }
        "LOCATION_OVERLAP" => never(K::Conflict),
        "INVALID_ARGUMENT"
        | "INVALID_PARAMETER_VALUE"
        | "MALFORMED_REQUEST"
        | "BAD_REQUEST"
        | "FAILED_PRECONDITION"
        | "INVALID_STATE"
        | "OUT_OF_RANGE" => never(K::InvalidConfig),
        code if code.ends_with("ALREADY_EXISTS") => never(K::Conflict),
        code if code.ends_with("NOT_FOUND") || code.ends_with("DOES_NOT_EXIST") => {
            never(K::NotFound)
        }
        _ => match status {
            400 | 422 => never(K::InvalidConfig),
            401 | 407 => never(K::Unauthenticated),
            403 => never(K::PermissionDenied),
            404 | 410 => never(K::NotFound),
            408 | 504 => again(K::Timeout),
            409 => again(K::Locked),
            425 | 429 => again(K::Throttled),
            501 | 505 => never(K::Unsupported),
            500..=599 => again(K::Unavailable),
            _ => never(K::Unsupported),
        },
    };
    Some(by_code)
}

/// Everything that keeps a catalog from answering as wanted.
#[derive(Debug)]
pub(super) enum Fault {
    /// It answered, but not with success.
    Answer(Refused),
    /// There was no answer.
    Transport {
        class: Transport,
        /// The address that was asked.
        server: String,
        source: reqwest::Error,
    },
    /// There is no token to send.
    Token(Box<TokenFault>),
    /// Something else, said in full.
    Said {
        kind: ErrorKind,
        cause: String,
        mend: Cow<'static, str>,
        retry: bool,
    },
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) class: Class,
    /// The server's own name for the error, such as `TABLE_NOT_FOUND`.
    pub(super) code: Option<String>,
    /// What the server says, shortened, without secrets.
    pub(super) says: String,
    /// What was asked of whom, such as `GET /schemas/a.b at http://h:8080`.
    pub(super) asked: String,
    /// With what credentials.
    pub(super) credentials: &'static str,
    /// Whether the environment has some that were not sent.
    pub(super) withheld: bool,
}

impl Fault {
    pub(super) fn new(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Said {
            kind,
            cause: cause.into(),
            mend: mend.into(),
            retry: false,
        }
    }

    /// The same, worth trying again.
    pub(super) fn passing(
        kind: ErrorKind,
        cause: impl Into<String>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Said {
            kind,
            cause: cause.into(),
            mend: mend.into(),
            retry: true,
        }
    }

    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Answer(refused) => refused.code.as_deref(),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Answer(refused) => refused.class.kind,
            Self::Transport { class, .. } => class.kind(),
            Self::Token(fault) => fault.kind,
            Self::Said { kind, .. } => *kind,
        }
    }

    /// Whether what was asked may have been done all the same.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            Self::Answer(refused) => refused.status >= 500 || refused.status == 408,
            Self::Transport { class, .. } => class.is_passing(),
            Self::Token(_) | Self::Said { .. } => false,
        }
    }

    /// The public error, for what was asked.
    pub(super) fn during(self, ask: Ask) -> Error {
        Error::from(Failed(ask, self))
    }
}

/// An error of the configuration, made again with the operation at hand.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Said {
            kind: error.kind(),
            cause: error.cause().to_owned(),
            mend: error.mend_hint().unwrap_or_default().to_owned().into(),
            retry: error.retry() != Retry::Never,
        }
    }
}

/// A fault and what it kept from being done.
struct Failed(Ask, Fault);

impl From<Failed> for Error {
    fn from(Failed(ask, fault): Failed) -> Self {
        let passing = |retry| if retry { Retry::Backoff } else { Retry::Never };
        let operation = ask.operation();
        match fault {
            Fault::Answer(refused) => {
                let mend = mend(ask, &refused);
                let Refused {
                    status,
                    class,
                    code,
                    says,
                    asked,
                    ..
                } = refused;
                let code = code.map(|c| format!(" {c}")).unwrap_or_default();
                let says = match says.is_empty() {
                    true => says,
                    false => format!(": {says}"),
                };
                let cause = format!("{asked} was answered with {status}{code}{says}");
                with_retry(
                    Error::new(class.kind, operation, cause).mend(mend),
                    class.retry,
                )
            }
            Fault::Transport {
                class,
                server,
                source,
            } => with_retry(
                Error::new(
                    class.kind(),
                    operation,
                    format!("{server}: {}", class.cause()),
                )
                .mend(transport_mend(class))
                .caused_by(source),
                passing(class.is_passing()),
            ),
            Fault::Token(fault) => {
                let error = Error::new(fault.kind, operation, fault.cause);
                let error = match fault.is_passing {
                    true => error.mend("it is tried again; no token was given out"),
                    false => error.mend(
                        "check the OAuth client's id and secret, and where it gets its tokens",
                    ),
                };
                let error = match fault.source {
                    Some(source) => error.caused_by(source),
                    None => error,
                };
                with_retry(error, passing(fault.is_passing))
            }
            Fault::Said {
                kind,
                cause,
                mend,
                retry,
            } => with_retry(
                Error::new(kind, operation, cause).mend(mend),
                passing(retry),
            ),
        }
    }
}

fn with_retry(error: Error, retry: Retry) -> Error {
    match retry {
        Retry::Never => error,
        Retry::Backoff => error.retryable(),
        Retry::After(delay) => error.retry_after(delay),
    }
}

/// What the reader can do where there is no answer.
fn transport_mend(class: Transport) -> &'static str {
    match class {
        Transport::UntrustedCertificate => {
            "name its authority with UNITY_CATALOG_CA_FILE, or in code, and use the host name it was issued for"
        }
        Transport::Alert | Transport::Tls => {
            "check that the port speaks TLS, or write http:// for one that does not"
        }
        Transport::Unmakeable => "check the address and the proxy variables",
        Transport::Timeout => {
            "it is tried again; check the network, or give it more time with UNITY_CATALOG_TIMEOUT"
        }
        Transport::Refused => "it is tried again; start the server, or correct host and port",
        Transport::Connect => "it is tried again; check host, port and network",
        Transport::Broken => "it is tried again; check the server and what is between",
    }
}

/// What the reader can do about an answer.
fn mend(ask: Ask, refused: &Refused) -> &'static str {
    use ErrorKind as K;
    let code = refused.code.as_deref().unwrap_or_default();
    match (refused.class.kind, ask) {
        (K::Unauthenticated | K::PermissionDenied, _)
            if refused.withheld && refused.credentials == "no credentials" =>
        {
            "UNITY_CATALOG_TOKEN or UNITY_CATALOG_CLIENT_ID is set and was not sent, since UNITY_CATALOG_URI does not name this server: set UNITY_CATALOG_URI to its address, or give a token in code"
        }
        (K::NotFound, _) if code.starts_with("CATALOG") => {
            "create the catalog, or correct its name in the location"
        }
        (K::NotFound, _) if code.starts_with("SCHEMA") => {
            "create the schema, or correct its name in the location"
        }
        (K::NotFound, Ask::TableKeys) => "the table was dropped meanwhile; it is looked up anew",
        (K::NotFound, _) if code.is_empty() => {
            "check the address: no Unity Catalog of version 0.5 or later answers there"
        }
        (K::NotFound, _) => "create what is missing, or correct its name in the location",
        (K::Unauthenticated, _) if refused.credentials == "no credentials" => {
            "set UNITY_CATALOG_TOKEN, or DATABRICKS_TOKEN for a workspace, or give a token in code"
        }
        (K::Unauthenticated, _) => {
            "the token is wrong or over: set a new one in UNITY_CATALOG_TOKEN or DATABRICKS_TOKEN, or use an OAuth client, whose tokens are renewed"
        }
        (K::PermissionDenied, _) if code.starts_with("EXTERNAL_ACCESS") => {
            "have a metastore admin turn on external data access"
        }
        (K::PermissionDenied, _) if refused.says.contains("Invalid access token") => {
            "the open-source server takes only tokens it issued: exchange the identity provider's at /api/1.0/unity-control/auth/tokens"
        }
        (K::PermissionDenied, Ask::LookUp | Ask::Place) => {
            "grant USE CATALOG and USE SCHEMA, and SELECT and MODIFY on the table"
        }
        (K::PermissionDenied, Ask::Register) => {
            "grant USE CATALOG, USE SCHEMA and CREATE TABLE, and CREATE EXTERNAL TABLE on the external location over the table's place"
        }
        (K::PermissionDenied, Ask::TableKeys) => {
            "grant USE CATALOG and USE SCHEMA, SELECT and MODIFY on the table, and on Databricks EXTERNAL USE SCHEMA"
        }
        (K::PermissionDenied, Ask::PathKeys) => {
            "grant CREATE EXTERNAL TABLE on an external location over the place (on Databricks EXTERNAL USE LOCATION too), or have the table created"
        }
        (K::Conflict, _) if code == "LOCATION_OVERLAP" => {
            "name a storage root below an external location and outside managed storage: UNITY_CATALOG_STORAGE_ROOT or with_storage_root"
        }
        (K::Conflict, _) => "use another name, or drop what exists under this one",
        (K::InvalidConfig, Ask::TableKeys | Ask::PathKeys) => {
            "give the server credentials for this bucket (an external location, or its s3, adls or gcs properties), or set UNITY_CATALOG_STORAGE_CREDENTIALS=own and use this process's"
        }
        (K::InvalidConfig, Ask::Register) => {
            "check the server's version (0.5 or later knows VARIANT columns) and the storage root"
        }
        (K::Throttled, _) => "it is tried again when the server allows",
        (K::Unsupported, _) if (300..400).contains(&refused.status) => {
            "write the address the server redirects to"
        }
        _ if refused.class.retry != Retry::Never => {
            "it is tried again; look into the server's log if it stays"
        }
        _ => "look into the server's log, and check its version and the address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_count_before_statuses() {
        #[rustfmt::skip]
        let table = [
            (200, None, "ok"),
            (204, Some("INTERNAL"), "ok"),
            (404, Some("TABLE_NOT_FOUND"), "NotFound Never"),
            (404, Some("SCHEMA_DOES_NOT_EXIST"), "NotFound Never"),
            (400, Some("CATALOG_NOT_FOUND"), "NotFound Never"),
            (400, Some("TABLE_ALREADY_EXISTS"), "Conflict Never"),
            (409, Some("ALREADY_EXISTS"), "Conflict Never"),
            (400, Some("RESOURCE_ALREADY_EXISTS"), "Conflict Never"),
            (409, Some("ABORTED"), "Locked After"),
            (400, Some("INVALID_ARGUMENT"), "InvalidConfig Never"),
            (400, Some("FAILED_PRECONDITION"), "InvalidConfig Never"),
            (400, Some("LOCATION_OVERLAP"), "Conflict Never"),
            (401, Some("UNAUTHENTICATED"), "Unauthenticated Never"),
            (403, Some("PERMISSION_DENIED"), "PermissionDenied Never"),
            (400, Some("EXTERNAL_ACCESS_DISABLED_ON_METASTORE"), "PermissionDenied Never"),
            (429, Some("RESOURCE_EXHAUSTED"), "Throttled After"),
            (500, Some("INTERNAL"), "Unavailable After"),
            (501, Some("UNIMPLEMENTED"), "Unsupported Never"),
            (503, Some("TEMPORARILY_UNAVAILABLE"), "Unavailable After"),
            (400, Some("SOMETHING_NEW"), "InvalidConfig Never"),
            (500, Some("SOMETHING_NEW"), "Unavailable After"),
            (301, None, "Unsupported Never"),
            (401, None, "Unauthenticated Never"),
            (403, None, "PermissionDenied Never"),
            (404, None, "NotFound Never"),
            (405, None, "Unsupported Never"),
            (408, None, "Timeout After"),
            (429, None, "Throttled After"),
            (502, None, "Unavailable After"),
            (504, None, "Timeout After"),
        ];
        for (status, code, expected) in table {
            let class = classify(status, code, Some(Duration::from_secs(3)));
            let said = class.map_or("ok".to_owned(), |c| match c.retry {
                Retry::Never => format!("{:?} Never", c.kind),
                Retry::After(delay) => {
                    assert_eq!(delay, Duration::from_secs(3));
                    format!("{:?} After", c.kind)
                }
                Retry::Backoff => format!("{:?} Backoff", c.kind),
            });
            assert_eq!(said, expected, "{status} {code:?}");
        }
    }

    #[test]
    fn every_answer_has_a_mend() {
        for ask in [
            Ask::LookUp,
            Ask::Place,
            Ask::Register,
            Ask::TableKeys,
            Ask::PathKeys,
        ] {
            for (status, code) in [
                (404, Some("CATALOG_NOT_FOUND")),
                (404, Some("SCHEMA_NOT_FOUND")),
                (404, None),
                (401, Some("UNAUTHENTICATED")),
                (403, Some("PERMISSION_DENIED")),
                (400, Some("FAILED_PRECONDITION")),
                (400, Some("LOCATION_OVERLAP")),
                (429, None),
                (500, None),
                (302, None),
                (418, None),
            ] {
                let refused = Refused {
                    status,
                    class: classify(status, code, None).unwrap(),
                    code: code.map(str::to_owned),
                    says: "said".into(),
                    asked: "GET /x at http://h".into(),
                    credentials: "no credentials",
                    withheld: false,
                };
                let error = Fault::Answer(refused).during(ask);
                let text = error.to_string();
                assert!(error.mend_hint().is_some_and(|m| m.len() > 10), "{text}");
                assert!(
                    text.contains("GET /x at http://h was answered with"),
                    "{text}"
                );
            }
        }
    }
}
