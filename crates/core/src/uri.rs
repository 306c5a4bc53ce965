//! The grammar of locations, the same in code, files and environment variables:
//! `scheme://authority/path?key=value&…`, or `scheme:name` for locations without a host.

use crate::error::{Error, ErrorKind};
use crate::suggest;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Characters that are percent-encoded in a path, besides those beyond ASCII. The comma separates
/// locations in a list.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b',')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'\\')
    .add(b'^')
    .add(b'|');
/// Characters that are percent-encoded in a query key or value.
const QUERY: &AsciiSet = &PATH.add(b'&').add(b'=').add(b'+').add(b'\'');

/// Longest URI, in bytes. Long enough for any path, short enough to print in an error.
const MAX_LEN: usize = 8 * 1024;

/// The canonical name of a location. Two URIs are equal if and only if their texts mean the same
/// location: scheme and host are lower case, a default port is dropped, query parameters are
/// sorted, and characters are percent-encoded in one way. Nothing outside the text is consulted,
/// such as DNS.
///
/// A URI never holds a secret: user information is refused.
///
/// ```
/// use trace_destination_core::LocationUri;
///
/// let uri: LocationUri = "HTTP://Tracking.Example:80?experiment_name=a b".parse()?;
/// assert_eq!(uri.to_string(), "http://tracking.example?experiment_name=a%20b");
/// assert_eq!(uri.query("experiment_name"), Some("a b"));
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LocationUri(Arc<Inner>);

struct Inner {
    text: Box<str>,
    scheme: Box<str>,
    authority: Option<Box<str>>,
    path: Box<str>,
    query: BTreeMap<Box<str>, Box<str>>,
}

impl LocationUri {
    /// Builds a URI from its parts, none of them percent-encoded. `authority` is `host[:port]`. An
    /// empty one means no host, with the `//` kept.
    ///
    /// # Errors
    /// As for parsing.
    pub fn from_parts<'a>(
        scheme: &str,
        authority: Option<&str>,
        path: &str,
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let mut pairs = BTreeMap::new();
        for (k, v) in query {
            if pairs.insert(k.into(), v.into()).is_some() {
                return Err(invalid(scheme, format!("parameter `{k}` is given twice")));
            }
        }
        Self::build(scheme, authority, path, pairs)
    }

    fn build(
        scheme: &str,
        authority: Option<&str>,
        path: &str,
        query: BTreeMap<Box<str>, Box<str>>,
    ) -> Result<Self, Error> {
        let scheme = scheme.to_ascii_lowercase();
        let valid = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        if !valid {
            let error = invalid(
                &scheme,
                "the scheme is not made of letters, digits, `+`, `-`, `.`",
            );
            return Err(match suggest::server(&scheme, authority, path) {
                Some(mend) => error.mend(mend),
                None => error,
            });
        }
        let authority = authority
            .map(|a| canonical_authority(&scheme, a))
            .transpose()?;
        if query.contains_key("") {
            return Err(invalid(&scheme, "a parameter has no name"));
        }
        if path.contains('\0')
            || query
                .iter()
                .any(|(k, v)| k.contains('\0') || v.contains('\0'))
        {
            return Err(invalid(&scheme, "it contains a NUL byte"));
        }
        // `http://h/` and `http://h` are one location.
        let path = match (&authority, path) {
            (Some(a), "/") if !a.is_empty() => "",
            (_, path) => path,
        };
        if authority.is_none() && path.starts_with("//") {
            return Err(invalid(&scheme, "its name starts with `//`"));
        }
        if authority
            .as_ref()
            .is_some_and(|_| !path.is_empty() && !path.starts_with('/'))
        {
            return Err(invalid(
                &scheme,
                "the path after the host does not start with `/`",
            ));
        }

        let mut text = format!("{scheme}:");
        if let Some(authority) = &authority {
            text.push_str("//");
            text.push_str(authority);
        }
        text.extend(utf8_percent_encode(path, PATH));
        for (i, (key, value)) in query.iter().enumerate() {
            text.push(if i == 0 { '?' } else { '&' });
            text.extend(utf8_percent_encode(key, QUERY));
            text.push('=');
            text.extend(utf8_percent_encode(value, QUERY));
        }
        if text.len() > MAX_LEN {
            return Err(invalid(
                &scheme,
                format!("it is longer than {MAX_LEN} bytes"),
            ));
        }
        Ok(Self(Arc::new(Inner {
            text: text.into(),
            scheme: scheme.into(),
            authority: authority.map(Into::into),
            path: path.into(),
            query,
        })))
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.0.scheme
    }

    /// `host[:port]`, in lower case; empty where the URI has `//` and no host, `None` where it
    /// has no `//`.
    pub fn authority(&self) -> Option<&str> {
        self.0.authority.as_deref()
    }

    /// The decoded path, with its leading `/` where there is an authority.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The decoded value of a query parameter.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.0.query.get(key).map(|v| &**v)
    }

    /// All query parameters, decoded, sorted by key.
    pub fn query_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.query.iter().map(|(k, v)| (&**k, &**v))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

fn canonical_authority(scheme: &str, authority: &str) -> Result<String, Error> {
    if authority.contains('@') {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "parse location",
            format!("the `{scheme}` URI carries user information before its host"),
        )
        .mend("give credentials through the environment or the builder, never in a URI"));
    }
    if authority
        .contains(|c: char| c.is_whitespace() || c.is_control() || "/?#\\,%<>{}\"".contains(c))
    {
        return Err(invalid(
            scheme,
            "the host contains a character that no host has",
        ));
    }
    // Only ASCII is folded: folding other letters can make two different names equal.
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        // `[::1]` has colons but no port.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority.as_str(), None),
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|a| !a.is_empty()),
        None => (!host.contains(':')).then_some(host),
    };
    if bare.is_none_or(|b| b.contains(['[', ']'])) {
        return Err(invalid(
            scheme,
            "the host has a `:`, `[` or `]` that is not part of an IPv6 address in `[]`",
        ));
    }
    let Some(port) = port else {
        return Ok(authority);
    };
    let port: u16 = match port.parse() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        // Not repeated: in `http://user:secret/@host` it is the secret.
        _ => return Err(invalid(scheme, "the port is not a number up to 65535")),
    };
    if host.is_empty() {
        return Err(invalid(scheme, "a port is given without a host"));
    }
    let default = match scheme {
        "http" | "otlp+http" => Some(80),
        "https" | "otlp+https" => Some(443),
        _ => None,
    };
    Ok(if default == Some(port) {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    })
}

fn invalid(scheme: &str, cause: impl fmt::Display) -> Error {
    // The text itself is not repeated: a mistyped URI may hold a secret.
    Error::new(
        ErrorKind::InvalidConfig,
        "parse location",
        format!("the `{}` URI is malformed: {cause}", scheme.escape_debug()),
    )
    .mend("write it as scheme://host/path?key=value, with special characters percent-encoded")
}

impl FromStr for LocationUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "parse location",
                format!("the URI is longer than {MAX_LEN} bytes"),
            )
            .mend("shorten it"));
        }
        if let Some(error) = suggest::quoted(text) {
            return Err(error);
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(suggest::without_scheme(text));
        };
        if rest.contains('#') {
            return Err(invalid(
                scheme,
                "it has a fragment (`#`); write `%23` for the character itself",
            ));
        }
        let decode = |part: &str| -> Result<Box<str>, Error> {
            let bytes = part.as_bytes();
            for (i, _) in part.match_indices('%') {
                let hex = bytes
                    .get(i + 1..i + 3)
                    .is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
                if !hex {
                    return Err(invalid(scheme, "a `%` is not followed by two hex digits"));
                }
            }
            percent_decode_str(part)
                .decode_utf8()
                .map(|s| s.into())
                .map_err(|e| invalid(scheme, "a percent-encoded part is not UTF-8").caused_by(e))
        };
        let (hierarchy, query) = match rest.split_once('?') {
            Some((h, q)) => (h, Some(q)),
            None => (rest, None),
        };
        let (authority, path) = match hierarchy.strip_prefix("//") {
            Some(after) => {
                let end = after.find('/').unwrap_or(after.len());
                (Some(&after[..end]), &after[end..])
            }
            None => (None, hierarchy),
        };
        let mut pairs = BTreeMap::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key)?;
            if pairs.insert(key.clone(), decode(value)?).is_some() {
                return Err(invalid(
                    scheme,
                    format!("parameter `{}` is given twice", key.escape_debug()),
                ));
            }
        }
        Self::build(scheme, authority, &decode(path)?, pairs)
    }
}

impl fmt::Display for LocationUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for LocationUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocationUri({})", self.0.text)
    }
}

impl PartialEq for LocationUri {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for LocationUri {}

impl PartialOrd for LocationUri {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LocationUri {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl Hash for LocationUri {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<LocationUri>().unwrap().to_string()
    }

    #[test]
    fn canonical_form() {
        for (given, expected) in [
            (
                "sqlite:///a.db?experiment_name=x",
                "sqlite:///a.db?experiment_name=x",
            ),
            ("SQLITE:////abs/a.db", "sqlite:////abs/a.db"),
            ("http://H:80/?b=2&a=1", "http://h?a=1&b=2"),
            ("https://h:443/base", "https://h/base"),
            ("http://h:443", "http://h:443"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://h:080", "http://h"),
            ("http://h:05000", "http://h:5000"),
            ("memory:x%2Cy", "memory:x%2Cy"),
            (
                "uc://Cat.Sch.p?root=/tmp/a b",
                "uc://cat.sch.p?root=/tmp/a%20b",
            ),
            ("memory:caf\u{e9}", "memory:caf%C3%A9"),
            // ASCII folds, and nothing else: a Kelvin sign is no k, a dotted I no i.
            (
                "UC://K\u{212a}.\u{130}.\u{c4}",
                "uc://k\u{212a}.\u{130}.\u{c4}",
            ),
        ] {
            assert_eq!(canonical(given), expected);
            assert_eq!(canonical(expected), expected, "not a fixed point");
        }
    }

    #[test]
    fn only_ascii_makes_a_scheme() {
        for text in [
            "\u{212a}:x",
            "\u{ff48}ttp://h",
            "sq\u{13a}ite:///x",
            "http\u{17f}://h",
        ] {
            assert!(text.parse::<LocationUri>().is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_is_an_error_without_the_text() {
        for text in [
            "",
            "nothing",
            ":x",
            "1a:b",
            "http://u:secret@h",
            "http://u:secret/@h",
            "http://h:99999",
            "http://h:+80",
            "http://h:80:80",
            "http://[::1]x:80",
            "http://[]:1",
            "http://a]:1",
            "name://a}b",
            "name://{a",
            "http://h#f",
            "memory:%zz",
            "memory:%ff",
            "http://h?a=1&a=2",
            "http://h?=1",
            "http://:80",
            "memory:a%00b",
        ] {
            let error = text.parse::<LocationUri>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    #[test]
    fn parts_and_text_agree() {
        use proptest::prelude::*;
        let part = || prop_oneof!["[a-z0-9./ ?#%,&=+'-]{0,8}", any::<String>()];
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        proptest!(config, |(
            scheme in prop_oneof!["[a-zA-Z][a-zA-Z0-9+.-]{0,4}", any::<String>()],
            authority in proptest::option::of(prop_oneof!["[a-zA-Z0-9.:\\[\\]-]{0,8}", any::<String>()]),
            path in part(),
            query in proptest::collection::btree_map(part(), part(), 0..3),
        )| {
            let pairs = query.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            let Ok(uri) = LocationUri::from_parts(&scheme, authority.as_deref(), &path, pairs) else {
                return Ok(());
            };
            let again: LocationUri = uri.to_string().parse().unwrap();
            prop_assert_eq!(&again, &uri);
            prop_assert_eq!(again.scheme(), uri.scheme());
            prop_assert_eq!(again.authority(), uri.authority());
            prop_assert_eq!(again.path(), uri.path());
            prop_assert_eq!(
                again.query_pairs().collect::<Vec<_>>(),
                query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>()
            );
            prop_assert!(!uri.as_str().contains(','), "a list could not hold it");
        });
    }

    #[test]
    fn any_text_is_a_uri_or_an_error() {
        use proptest::prelude::*;
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        proptest!(config, |(text in prop_oneof![
            "[a-z]{1,4}:(//)?[a-zA-Z0-9.:%/?&=#@\\[\\]-]{0,20}",
            any::<String>(),
        ])| {
            if let Ok(uri) = text.parse::<LocationUri>() {
                prop_assert_eq!(uri.as_str().parse::<LocationUri>().unwrap(), uri);
            }
        });
    }
}
