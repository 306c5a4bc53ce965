//! Stores by their URL, opened with what code and environment say, or with credentials that a
//! catalog gives out and that are renewed under the open store.

mod bounded;
mod cloud;
mod guarded;
mod local;
mod options;
mod renewal;
mod scan;
mod secret;
mod spelling;

pub(crate) use bounded::{Bounded, Limits, TooLarge};
pub(crate) use local::{Settled, partial_files};
pub use options::*;
pub(crate) use renewal::{Keys, Renewal, Vended, Vendor, renewal_error};
pub(crate) use secret::{Secret, scrub};
pub(crate) use spelling::{can_be_sent, misspelt, wrong_host};

use std::path::Path;
use trace_destination_core::{Error, ErrorKind};
use url::Url;

/// The URL schemes of stores.
const SCHEMES: &str = "file:///…, s3://…, abfss://…, gs://…";

const OPEN: &str = "open storage";

fn invalid(url: &Url, cause: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        OPEN,
        format!("`{url}` cannot be used: {cause}"),
    )
}

/// A storage URL, or a local path, without `/` at its end.
///
/// # Errors
/// `InvalidConfig`; the text is not repeated where it may hold a secret.
pub(crate) fn parse_url(text: &str) -> Result<Url, Error> {
    let wrong = |cause: &str| {
        Error::new(
            ErrorKind::InvalidConfig,
            "parse storage URL",
            cause.to_owned(),
        )
        .mend(format!("write one of {SCHEMES}, or an absolute path"))
    };
    let text = text.trim();
    // Before it is parsed: a URL resolves what leads upwards, `%2e%2e` too, and does not tell.
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    if decoded
        .split(['/', '\\'])
        .any(|part| matches!(part, "." | ".."))
    {
        return Err(wrong("a part of it is `.` or `..`"));
    }
    if decoded.contains(char::is_control) {
        return Err(wrong("it has control characters"));
    }
    if text.starts_with('/') {
        let mut url =
            Url::from_file_path(Path::new(text)).map_err(|()| wrong("the path is not absolute"))?;
        trim(&mut url);
        return Ok(url);
    }
    let mut url =
        Url::parse(text).map_err(|e| wrong("it is neither a URL nor a path").caused_by(e))?;
    if !spelling::KNOWN.contains(&url.scheme()) {
        return Err(wrong("its scheme is not one of a store"));
    }
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a password, parameters or a fragment"));
    }
    if url.scheme() == "file" && url.host_str().is_some_and(|h| !h.is_empty()) {
        return Err(wrong(
            "a local file has no host: three slashes follow `file:`",
        ));
    }
    if let Some((cause, mend)) = wrong_host(&url) {
        return Err(wrong(&cause).mend(mend));
    }
    trim(&mut url);
    Ok(url)
}

fn trim(url: &mut Url) {
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
}

/// One scheme for those of one kind of store.
fn family(scheme: &str) -> &str {
    match scheme {
        "s3a" => "s3",
        "abfs" | "az" | "azure" => "abfss",
        other => other,
    }
}

/// Whether two URLs are one place, however they are spelled.
pub(crate) fn same_place(a: &Url, b: &Url) -> bool {
    let scheme = |url: &Url| match url.scheme() {
        "s3a" => "s3".to_owned(),
        other => other.to_owned(),
    };
    let path = |url: &Url| {
        let parts = url.path().split('/').filter(|p| !p.is_empty());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    scheme(a) == scheme(b)
        && a.host_str().unwrap_or_default() == b.host_str().unwrap_or_default()
        && a.username() == b.username()
        && path(a) == path(b)
}

#[cfg(test)]
mod tests;
