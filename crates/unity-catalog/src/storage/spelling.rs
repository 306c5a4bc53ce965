//! What can be wrong with the text of a place or an option, found before it is used: clients of
//! stores panic over some of it, try for minutes with other, and a path of any spelling is a folder.

use super::secret::Secret;
use super::{OPEN, SCHEMES, family};
use std::collections::BTreeMap;
use trace_destination_core::{Error, ErrorKind};
use url::Url;

/// The schemes of stores, in every spelling.
pub(super) const KNOWN: [&str; 8] = ["file", "s3", "s3a", "abfs", "abfss", "az", "azure", "gs"];

/// Why a root is not one, and what mends it. The text is not repeated: it may hold a secret.
pub(crate) fn misspelt(text: &str) -> Option<(ErrorKind, String, String)> {
    let kind = ErrorKind::InvalidConfig;
    let wrong = |cause: &str, mend: &str| Some((kind, cause.to_owned(), mend.to_owned()));
    if text.trim() != text {
        return wrong("has blanks around it", "leave them out");
    }
    if text.contains(char::is_control) {
        return wrong("has control characters in it", "leave them out");
    }
    if text.starts_with(['"', '\'']) {
        return wrong("begins with a quotation mark", "leave the marks out");
    }
    if text.starts_with('~') {
        return wrong(
            "begins with `~`, which only a shell resolves",
            "write the path in full, or ./~… for a folder of that name",
        );
    }
    if text.starts_with('$') {
        return wrong(
            "begins with `$`: a variable that nothing has resolved",
            "write the path in full, or ./$… for a folder of that name",
        );
    }
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return None;
    }
    if scheme.len() == 1 {
        // A drive.
        return match cfg!(windows) || !rest.starts_with(['/', '\\']) {
            true => None,
            false => wrong(
                "is a path of another system",
                "write a path of this system, or a URL such as s3://bucket/lakehouse",
            ),
        };
    }
    let scheme = scheme.to_ascii_lowercase();
    let is_known = KNOWN.contains(&scheme.as_str());
    match rest.strip_prefix("//") {
        Some(_) if !is_known => Some((
            ErrorKind::Unsupported,
            format!("has the scheme `{scheme}:`, which is not one of a store"),
            format!("write one of {SCHEMES}, or a path"),
        )),
        Some(rest) if scheme != "file" && rest.split('/').next().is_none_or(str::is_empty) => {
            wrong("names no bucket", &format!("write {scheme}://bucket/…"))
        }
        Some(_) => None,
        None if scheme == "file" => wrong(
            "has too few slashes after `file:`",
            "write file:///path, or the path alone",
        ),
        None if is_known => Some((
            kind,
            format!("has too few slashes after `{scheme}:`"),
            format!("write {scheme}://bucket/…"),
        )),
        None => Some((
            kind,
            format!("begins as a URL of the scheme `{scheme}:` does, which is not one of a store"),
            format!("write one of {SCHEMES}, or ./… for a folder of that name"),
        )),
    }
}

/// Why a storage URL's host cannot be a bucket.
pub(crate) fn wrong_host(url: &Url) -> Option<(String, String)> {
    if url.scheme() == "file" {
        return None;
    }
    let text = |cause: &str, mend: &str| Some((cause.to_owned(), mend.to_owned()));
    if url.host_str().is_none_or(str::is_empty) {
        return text("it names no bucket", &format!("write one of {SCHEMES}"));
    }
    if url.port().is_some() {
        return text(
            "it has a port: the first part is the bucket, and not the store's address",
            "write s3://bucket/…, and give the store's address by AWS_ENDPOINT_URL",
        );
    }
    None
}

/// Whether a text can be sent in a header: clients of stores panic over others.
pub(crate) fn can_be_sent(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Checks the options that are for stores of a URL's kind.
///
/// # Errors
/// `InvalidConfig` naming the option; its value is not repeated.
pub(super) fn check_options(options: &BTreeMap<String, Secret>, url: &Url) -> Result<(), Error> {
    let prefix = match family(url.scheme()) {
        "s3" => "aws_",
        "abfss" => "azure_",
        "gs" => "google_",
        _ => return Ok(()),
    };
    let mut others = ["aws_", "azure_", "google_"].into_iter();
    let others: Vec<_> = others.by_ref().filter(|other| *other != prefix).collect();
    for (name, value) in options {
        if others.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        if let Some((cause, mend)) = wrong_value(name, value.expose()) {
            let shown = name.escape_debug();
            let cause = format!("the storage option `{shown}` {cause}");
            return Err(
                Error::new(ErrorKind::InvalidConfig, OPEN, cause).mend(format!(
                    "{mend}: {}",
                    shown.to_string().to_ascii_uppercase()
                )),
            );
        }
    }
    Ok(())
}

fn wrong_value(name: &str, value: &str) -> Option<(&'static str, &'static str)> {
    // Keys in JSON have line breaks, and paths any letters.
    let is_free = name.contains("service_account")
        || name.contains("credentials")
        || name.contains("certificate")
        || name.ends_with("_file");
    if is_free && !name.ends_with("_uri") {
        return None;
    }
    if value.is_empty() {
        return Some(("is empty", "give it a value, or leave it out"));
    }
    if value.contains(['\n', '\r']) {
        return Some(("has a line break in it", "leave the line break out"));
    }
    if value.trim() != value {
        return Some(("has blanks around it", "leave them out"));
    }
    if !can_be_sent(value) {
        return Some((
            "has characters that cannot be sent",
            "use letters, digits and signs of ASCII",
        ));
    }
    let is_address = name.contains("endpoint") && !name.contains("use_")
        || name.ends_with("_url")
        || name.ends_with("full_uri")
        || name == "proxy_url";
    if !is_address {
        return None;
    }
    let web = ["http://", "https://"];
    let has_scheme = web.iter().any(|scheme| {
        let begins = value.get(..scheme.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(scheme))
    });
    if !has_scheme && name != "proxy_url" {
        return Some((
            "is no web address: it does not begin with http:// or https://",
            "write https://host:port",
        ));
    }
    match Url::parse(value) {
        Ok(url) if url.has_host() && url.query().is_none() && url.fragment().is_none() => None,
        _ => Some(("is no web address", "write https://host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{StorageOptions, parse_url};

    #[test]
    fn roots_that_are_not_what_they_look_like() {
        for (text, cause) in [
            ("file:/x", "slashes"),
            ("file:x", "slashes"),
            ("s3:/b", "slashes"),
            ("s3:b/x", "slashes"),
            ("S3:/b", "slashes"),
            ("gs:/b", "slashes"),
            ("abfss:/c@a/x", "slashes"),
            ("s3://", "no bucket"),
            ("s3:///x", "no bucket"),
            ("~", "shell"),
            ("~/x", "shell"),
            ("~user/x", "shell"),
            ("$HOME/x", "variable"),
            ("${HOME}/x", "variable"),
            (" /x", "blanks"),
            ("/x ", "blanks"),
            ("\t/x", "blanks"),
            ("s3://b/x\n", "blanks"),
            ("\u{a0}/x", "blanks"),
            ("/x\ny", "control"),
            ("\"/x\"", "quotation"),
            ("'/x'", "quotation"),
            ("http://host/x", "not one of a store"),
            ("hdfs://host/x", "not one of a store"),
            ("dbfs:/x", "not one of a store"),
            ("minio:9000", "not one of a store"),
            ("C:/x", "another system"),
            ("c:\\x", "another system"),
        ] {
            let (_, said, mend) = misspelt(text).unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(said.contains(cause), "{text:?}: {said}");
            assert!(!mend.is_empty());
        }
        for text in [
            "",
            "x",
            "/x",
            "./~x",
            "./s3:x",
            "x/y:z",
            "/x/~y/$z",
            "file:///x",
            "s3://bucket/x",
            "S3A://bucket",
            "abfss://c@account.dfs.core.windows.net/x",
            "gs://bucket",
            "a:b",
            "1:2",
        ] {
            assert_eq!(misspelt(text), None, "{text}");
        }
    }

    #[test]
    fn options_that_no_client_takes() {
        let s3 = parse_url("s3://bucket/x").unwrap();
        let check = |name: &str, value: &str| {
            let options = StorageOptions::new().with_option(name, value);
            check_options(&options.options, &s3)
        };
        for (name, value, cause) in [
            ("AWS_ENDPOINT_URL", "minio:9000", "begin with http"),
            ("AWS_ENDPOINT_URL", "localhost", "begin with http"),
            ("AWS_ENDPOINT", "//minio:9000", "begin with http"),
            ("endpoint", "s3://minio", "begin with http"),
            ("AWS_ENDPOINT_URL", "http://", "web address"),
            ("AWS_ENDPOINT_URL", "http://h ost", "web address"),
            ("AWS_ENDPOINT_URL", "http://minio:99999", "web address"),
            ("AWS_ENDPOINT_URL", "", "empty"),
            ("AWS_REGION", "", "empty"),
            ("AWS_REGION", " eu-west-1", "blanks"),
            ("AWS_REGION", "eu\u{2013}west", "ASCII"),
            ("AWS_SESSION_TOKEN", "hunter2\n", "line break"),
            ("AWS_SESSION_TOKEN", "hunt\ner2", "line break"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2\r\n", "line break"),
            ("AWS_ACCESS_KEY_ID", "hunter2\0", "ASCII"),
            ("token", "hunter2\u{7f}", "ASCII"),
        ] {
            let error = check(name, value).expect_err(name);
            let said = format!("{error} {}", error.mend_hint().unwrap());
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(said.contains(cause), "{name}={value:?}: {said}");
            assert!(said.contains(&name.to_ascii_uppercase()), "{said}");
            assert!(!format!("{said} {error:?}").contains("hunter2"), "{said}");
        }
        for (name, value) in [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_ENDPOINT_URL", "HTTPS://minio.example/path"),
            ("AWS_SESSION_TOKEN", "IQoJ+/=="),
            ("AWS_ALLOW_HTTP", "true"),
            ("timeout", "8s"),
            // For another store.
            ("AZURE_STORAGE_SAS_TOKEN", "x\n"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}"),
        ] {
            check(name, value).unwrap_or_else(|e| panic!("{name}={value:?}: {e}"));
        }
        let gs = parse_url("gs://bucket/x").unwrap();
        let key = StorageOptions::new().with_option("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}");
        assert!(check_options(&key.options, &gs).is_ok());
    }
}
