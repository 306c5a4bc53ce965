//! Suggestions for common mistakes in URIs and names.

use crate::error::{Error, ErrorKind};
use crate::uri::LocationUri;

/// Longest text that an error repeats, in bytes.
const SHOWN: usize = 200;

/// The candidate of which a text is probably a misspelling, if there is one.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // One letter in four may differ, and one in any word: `http` is not a misspelling of `sftp`.
    let most = (text.chars().count() / 4).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(text, candidate), candidate))
        .filter(|(distance, _)| (1..=most).contains(distance))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The candidate that a text is most like, however far that is.
pub(crate) fn likest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let likeness = |candidate: &&str| strsim::jaro_winkler(text, candidate);
    candidates
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Suggestions for schemes of other programs.
pub(crate) fn of_scheme(scheme: &str) -> Option<&'static str> {
    // A database may be named with its driver: `postgresql+psycopg2`.
    Some(match scheme.split('+').next().unwrap_or_default() {
        "postgresql" | "postgres" | "mysql" | "mariadb" | "mssql" | "oracle" => {
            "write to the MLflow tracking server in front of the database: \
             http://host:5000?experiment_name=name"
        }
        "file" => "write sqlite:///mlflow.db for a local store; MLflow's file store is not written",
        "grpc" | "otlp" => "write otlp+http://host:4318 for an OTLP endpoint",
        "databricks-uc" | "delta" => "write uc://catalog.schema.prefix for tables",
        "s3" | "s3a" | "gs" | "abfs" | "abfss" | "az" => {
            "write uc://catalog.schema.prefix?root=s3://bucket/folder for tables in an object store"
        }
        // A drive letter.
        drive if drive.len() == 1 => "write sqlite:///C:/path/mlflow.db for a file",
        _ => return None,
    })
}

/// A suggestion for a URI with an unknown scheme, which may be the name of a host.
pub(crate) fn of_uri(uri: &LocationUri) -> Option<String> {
    server(uri.scheme(), uri.authority(), uri.path())
}

/// A suggestion for `host:port`, which was parsed as a scheme and a name.
pub(crate) fn server(scheme: &str, authority: Option<&str>, path: &str) -> Option<String> {
    let (port, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let is_host = !scheme.is_empty() && scheme.bytes().all(is_of_host);
    (authority.is_none() && is_port && is_host && is_plain(rest)).then(|| {
        format!("write http://{scheme}:{port}{rest}?experiment_name=name for a tracking server")
    })
}

/// The error for a text without a scheme. It repeats the text only if that cannot contain a secret.
pub(crate) fn without_scheme(text: &str) -> Error {
    let error = |cause: String| Error::new(ErrorKind::InvalidConfig, "parse location", cause);
    if text.is_empty() {
        return error("the URI is empty: it has no scheme".to_owned())
            .mend("write a URI such as sqlite:///mlflow.db?experiment_name=checkout");
    }
    if let Some(error) = quoted(text) {
        return error;
    }
    if text == "databricks" {
        return error("`databricks` names no table".to_owned())
            .mend("write databricks://profile?table=catalog.schema.prefix_otel_spans");
    }
    if !is_plain(text) {
        return error("the URI has no scheme such as `sqlite:`".to_owned())
            .mend("write it as scheme://host/path?key=value");
    }
    let error = error(format!("`{text}` has no scheme such as `sqlite:`"));
    let is_file = [".db", ".sqlite", ".sqlite3"]
        .iter()
        .any(|end| text.to_ascii_lowercase().ends_with(end));
    error.mend(match is_file {
        true => format!("write sqlite:///{text} for a file"),
        false => "write a URI such as sqlite:///mlflow.db?experiment_name=checkout".to_owned(),
    })
}

/// The error for a text in quotation marks, which are left of what a shell would have taken away.
pub(crate) fn quoted(text: &str) -> Option<Error> {
    text.starts_with(['"', '\'', '`', '“', '‘']).then(|| {
        let cause = "the URI begins with a quotation mark";
        Error::new(ErrorKind::InvalidConfig, "parse location", cause).mend(
            "leave the quotation marks out: files of variables, unlike a shell, keep them in the value",
        )
    })
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.".contains(&byte)
}

/// Whether a text is short and consists of the characters of names and paths. A text with `@`, `=`,
/// `?` or `&` may contain a credential.
fn is_plain(text: &str) -> bool {
    text.len() <= SHOWN && text.bytes().all(|b| is_of_host(b) || b"_/\\ ".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_near() {
        let schemes = ["http", "https", "memory", "sqlite", "uc"];
        for (text, near) in [
            ("sqlit", Some("sqlite")),
            ("sqllite", Some("sqlite")),
            ("htpp", Some("http")),
            ("ud", Some("uc")),
            ("ftp", None),
            ("s3", None),
            ("redis", None),
            ("http", Some("https")),
        ] {
            assert_eq!(nearest(text, schemes), near, "{text}");
        }
    }

    #[test]
    fn nothing_that_may_be_a_secret_is_repeated() {
        for text in [
            "user:secret@host",
            "secret?token=secret",
            "token=secret",
            "a@secret",
            "secret&b",
            &format!("secret{}", "x".repeat(SHOWN)),
        ] {
            let error = text.parse::<LocationUri>().err();
            let error = error.unwrap_or_else(|| without_scheme(text));
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
