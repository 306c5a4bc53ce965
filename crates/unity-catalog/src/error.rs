//! What Delta and object stores say, as the one error the pipeline knows.

use crate::storage::{TooLarge, renewal_error};
use std::error::Error as StdError;
use trace_destination_core::{Error, ErrorKind};

/// The error of this crate before its location is added.
pub(crate) type Fault = Error;

/// While a location is made.
pub(crate) const BUILD: &str = "configure table";
/// While a table is found, created or read.
pub(crate) const OPEN: &str = "open table";
/// While spans are written.
pub(crate) const WRITE: &str = "write table";
/// While a table is maintained.
pub(crate) const MAINTAIN: &str = "maintain table";

/// An error of a store, or of Delta with one of a store beneath it. `doing` continues "while".
pub(crate) fn fault<E>(operation: &'static str, doing: &str, error: E) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    // A catalog that gives no new credentials out has said what is wrong, and what mends it.
    if let Some(said) = renewal_error(&error) {
        return said.clone();
    }
    let (kind, mend) = classify(&error);
    let cause = match root_text(&error) {
        text if text.is_empty() => format!("failed while {doing}"),
        text => format!("{text}, while {doing}"),
    };
    let fault = Error::new(kind, operation, cause)
        .mend(mend)
        .caused_by(error);
    match passes(kind) {
        true => fault.retryable(),
        false => fault,
    }
}

/// An error of reading a table's log: of the store, or of what is in the log.
pub(crate) fn log_fault(operation: &'static str, doing: &str, error: delta_kernel::Error) -> Error {
    use delta_kernel::Error as Kernel;
    let (kind, mend) = match error {
        Kernel::Backtraced { source, .. } => return log_fault(operation, doing, *source),
        Kernel::ObjectStore(error) => return fault(operation, doing, error),
        Kernel::IOError(error) => return fault(operation, doing, error),
        Kernel::Unsupported(_) => (
            ErrorKind::Unsupported,
            "name another table, and let it be created here",
        ),
        // Also gaps in a listing, which a store may have for a moment, and files that a clean-up
        // took away meanwhile.
        Kernel::Generic(_)
        | Kernel::GenericError { .. }
        | Kernel::FileNotFound(_)
        | Kernel::JoinFailure(_)
        | Kernel::Reqwest(_) => return fault(operation, doing, error),
        // A request that failed while a file was being decoded.
        _ if comes_from_a_store(&error) => return fault(operation, doing, error),
        _ => (
            ErrorKind::Corrupt,
            "restore the table's log, or name another table",
        ),
    };
    let cause = format!("{}, while {doing}", root_text(&error));
    Error::new(kind, operation, cause)
        .mend(mend)
        .caused_by(error)
}

/// Whether a request to a store, or to files, is what failed.
pub(crate) fn comes_from_a_store(error: &(dyn StdError + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if error.is::<object_store::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        // Arrow and Parquet keep the error that a reader gave them in text only.
        let text = error.to_string();
        if text.contains("object store") || text.contains("External: ") {
            return true;
        }
        link = error.source();
    }
    false
}

/// Whether the same call may succeed later with nobody mending anything.
fn passes(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::Timeout
            | ErrorKind::StorageFull
            | ErrorKind::Locked
    )
}

/// Looks down the chain for the first link whose meaning is known.
fn classify(error: &(dyn StdError + 'static)) -> (ErrorKind, &'static str) {
    // S3 takes requests of the last and the next 15 minutes.
    let text = chain_text(error);
    if text.contains("RequestTimeTooSkewed") {
        return (
            ErrorKind::Unauthenticated,
            "set this machine's clock: the store's differs by more than it takes",
        );
    }
    if let Some(known) = of_configuration(&text.to_ascii_lowercase()) {
        return known;
    }
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(known) = of_store(error).or_else(|| of_io(error)) {
            return known;
        }
        link = error.source();
    }
    of_text(error)
}

/// What stores say of a configuration that is wrong, whatever the status it comes with.
fn of_configuration(text: &str) -> Option<(ErrorKind, &'static str)> {
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&["invalidaccesskeyid", "signaturedoesnotmatch"]) {
        return Some((
            ErrorKind::Unauthenticated,
            "correct the access key and its secret: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the catalog gives out",
        ));
    }
    if says(&[
        "authorizationheadermalformed",
        "permanentredirect",
        "illegallocationconstraint",
        "without location",
        "301 moved",
    ]) {
        return Some((
            ErrorKind::InvalidConfig,
            "set AWS_REGION to the bucket's region, or AWS_ENDPOINT_URL to the store that has it: redirects are not followed",
        ));
    }
    if says(&["nosuchbucket", "containernotfound", "bucket does not exist"]) {
        return Some((
            ErrorKind::NotFound,
            "create the bucket or container, or correct its name",
        ));
    }
    // Where no credentials are configured, those of the machine are asked for.
    if says(&["//169.254.", "//metadata.google.internal", "//metadata/"]) {
        return Some((
            ErrorKind::Unauthenticated,
            "no credentials are configured and this machine has none: set those of the store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    if says(&["501 not implemented", "notimplemented"]) {
        return Some((
            ErrorKind::Unsupported,
            "use a store with conditional writes: S3, Azure, Google Cloud Storage, local files",
        ));
    }
    None
}

fn of_store(error: &(dyn StdError + 'static)) -> Option<(ErrorKind, &'static str)> {
    use object_store::Error as Store;
    if let Some(error) = error.downcast_ref::<TooLarge>() {
        if error.is_slow() {
            return Some((ErrorKind::Timeout, "see whether the store is reachable"));
        }
        return Some((
            ErrorKind::Corrupt,
            "see who writes to the table's place, and restore the table's log or name another table",
        ));
    }
    Some(match error.downcast_ref::<Store>()? {
        Store::PermissionDenied { .. } => (
            ErrorKind::PermissionDenied,
            "grant this principal the right to read, write and list the table's folder",
        ),
        Store::Unauthenticated { .. } => (
            ErrorKind::Unauthenticated,
            "renew the credentials of the store",
        ),
        Store::NotFound { .. } => (
            ErrorKind::NotFound,
            "create the bucket or folder, or correct its name",
        ),
        Store::NotSupported { .. } | Store::NotImplemented { .. } => (
            ErrorKind::Unsupported,
            "use a store with conditional writes: S3, Azure, Google Cloud Storage, local files",
        ),
        Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => (
            ErrorKind::InvalidConfig,
            "correct the address or options of the store",
        ),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => {
            (ErrorKind::Unavailable, "it is tried again")
        }
        // `Generic` carries the transport's error; its own chain says more.
        _ => return None,
    })
}

fn of_io(error: &(dyn StdError + 'static)) -> Option<(ErrorKind, &'static str)> {
    use std::io::ErrorKind as Io;
    Some(match error.downcast_ref::<std::io::Error>()?.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            "make the folder writable for this process",
        ),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::StorageFull, "make room"),
        Io::NotADirectory | Io::IsADirectory => (
            ErrorKind::InvalidConfig,
            "a file is where a folder is needed, or the other way round: name another root",
        ),
        Io::NotFound => (
            ErrorKind::NotFound,
            "create the folder, or correct its name",
        ),
        Io::TimedOut => (ErrorKind::Timeout, "see whether the store is reachable"),
        _ => return None,
    })
}

/// What clients of stores say of HTTP, which they keep in text only.
fn of_text(error: &(dyn StdError + 'static)) -> (ErrorKind, &'static str) {
    let text = chain_text(error).to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    // Not bare numbers and words: the text has addresses, durations and `retry_timeout` in it.
    if says(&[
        "code: 429",
        "status 429",
        "slowdown",
        "slow down",
        "too many requests",
        "throttl",
    ]) {
        (
            ErrorKind::Throttled,
            "it is tried again; raise the store's limits if it lasts",
        )
    } else if says(&[
        "expiredtoken",
        "invalidtoken",
        "invalidaccesskeyid",
        "signaturedoesnotmatch",
    ]) {
        (
            ErrorKind::Unauthenticated,
            "renew the credentials of the store",
        )
    } else if says(&["accessdenied"]) {
        (
            ErrorKind::PermissionDenied,
            "grant this principal the right to read, write and list the table's folder",
        )
    } else if says(&[
        "without location",
        "301 moved",
        "302 found",
        "303 see",
        "308 perm",
    ]) {
        (
            ErrorKind::InvalidConfig,
            "redirects are not followed: configure the region or endpoint that the store is at",
        )
    } else if says(&["307 temp"]) {
        (
            ErrorKind::Unavailable,
            "redirects are not followed: configure the region or endpoint that the store is at",
        )
    } else if says(&["timed out"]) {
        (ErrorKind::Timeout, "see whether the store is reachable")
    } else {
        (ErrorKind::Unavailable, "see whether the store is reachable")
    }
}

fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(error) = link {
        text.push_str(": ");
        text.push_str(&error.to_string());
        link = error.source();
    }
    text
}

/// What the innermost error says, in one short line: the outer ones repeat it.
fn root_text(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(error) = innermost.source() {
        innermost = error;
    }
    let text = innermost.to_string();
    let line = text.lines().next().unwrap_or_default().trim();
    shown(line, 300)
}

/// What a table, a store or a catalog says, as an error repeats it: anybody may have written it.
/// Without control characters, and at most `longest` characters of it.
pub(crate) fn shown(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == longest => {
                shown.push('…');
                break;
            }
            c if c.is_control() => shown.extend(c.escape_debug()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use trace_destination_core::Retry;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        }
    }

    #[test]
    fn errors_of_stores_keep_their_meaning() {
        let io = |kind| generic(std::io::Error::new(kind, "said the system"));
        for (error, kind, retry) in [
            (
                generic("error sending request: 503"),
                ErrorKind::Unavailable,
                Retry::Backoff,
            ),
            (
                generic("status 429: SlowDown"),
                ErrorKind::Throttled,
                Retry::Backoff,
            ),
            (
                generic("operation timed out"),
                ErrorKind::Timeout,
                Retry::Backoff,
            ),
            (
                generic("http://127.0.0.1:42911 in 429µs, retry_timeout: 1s - refused"),
                ErrorKind::Unavailable,
                Retry::Backoff,
            ),
            (
                object_store::Error::PermissionDenied {
                    path: "x".into(),
                    source: "403: <Code>RequestTimeTooSkewed</Code>".into(),
                },
                ErrorKind::Unauthenticated,
                Retry::Never,
            ),
            (
                generic("<Code>ExpiredToken</Code>"),
                ErrorKind::Unauthenticated,
                Retry::Never,
            ),
            (
                io(std::io::ErrorKind::PermissionDenied),
                ErrorKind::PermissionDenied,
                Retry::Never,
            ),
            (
                io(std::io::ErrorKind::StorageFull),
                ErrorKind::StorageFull,
                Retry::Backoff,
            ),
        ] {
            let fault = fault(WRITE, "storing a file", error);
            assert_eq!((fault.kind(), fault.retry()), (kind, retry), "{fault}");
            assert!(fault.mend_hint().is_some());
            assert!(fault.source().is_some());
        }
    }

    #[test]
    fn meaning_is_found_beneath_delta() {
        let store = object_store::Error::PermissionDenied {
            path: "x".into(),
            source: "no".into(),
        };
        let delta = deltalake::DeltaTableError::ObjectStore { source: store };
        let fault = fault(OPEN, "reading the log", delta);
        assert_eq!(fault.kind(), ErrorKind::PermissionDenied);
    }
}
