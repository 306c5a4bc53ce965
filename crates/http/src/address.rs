//! Addresses: what is local, and how errors and log lines show them.

use crate::secret::MASK;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Largest number of hosts that get a warning each; beyond it, one warning is for all.
const WARNED_HOSTS: usize = 256;

/// Characters that are never percent-encoded (RFC 3986, section 2.3, "unreserved").
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Percent-encodes a name as one segment of a path, or as a value in a query.
pub fn encoded(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// Scheme and authority of an address.
pub fn origin(address: &str) -> &str {
    let host = address.find("://").map_or(0, |i| i + 3);
    let end = address[host..]
        .find(['/', '?', '#'])
        .map_or(address.len(), |i| host + i);
    &address[..end]
}

/// Whether an address is loopback, where plain HTTP cannot be overheard.
pub fn is_loopback(address: &str) -> bool {
    let origin = origin(address);
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let name = host.to_ascii_lowercase();
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// An address as errors and log lines may show it: without user information and fragment. In the
/// query, only the values of `known` parameters are shown.
pub fn redacted(address: &str, known: &[&str]) -> String {
    let address = address.split('#').next().unwrap_or_default();
    let (place, query) = match address.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (address, None),
    };
    let host = place.find("://").map_or(0, |i| i + 3);
    let end = place[host..].find('/').map_or(place.len(), |i| host + i);
    let (authority, path) = place[host..].split_at(end - host);
    let masked = |bare: &str| format!("{}{MASK}@{bare}", &place[..host]);
    let mut shown = match (authority.rsplit_once('@'), place[host..].rsplit_once('@')) {
        // A password with both in it, as likely as a path.
        (Some(_), Some((_, bare))) if path.contains('@') => masked(bare),
        (Some((_, bare)), _) => format!("{}{bare}{path}", &place[..host]),
        // Where there is no port, it is a password with a slash in it.
        (None, Some((_, bare))) if !has_port_or_none(authority) => {
            format!("{}{bare}", &place[..host])
        }
        // It may still be one, of digits in front of its slash, or with the slash first.
        (None, Some((_, bare))) if authority.contains(':') && !authority.starts_with('[') => {
            masked(bare)
        }
        (None, None) if !has_port_or_none(authority) => format!("{}{MASK}", &place[..host]),
        (None, _) => place.to_owned(),
    };
    for (i, pair) in query.into_iter().flat_map(|q| q.split('&')).enumerate() {
        shown.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, _)) if known.contains(&key) => shown.push_str(pair),
            // Base64 ends so: what is in front of it is no name.
            Some((_, value)) if value.bytes().all(|b| b == b'=') => shown.push_str(MASK),
            Some((key, _)) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(MASK);
            }
            None => shown.push_str(MASK),
        }
    }
    shown
}

/// Whether what follows the last colon of an authority is a port, if there is one.
fn has_port_or_none(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        Some((_, port)) => port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit()),
        None => true,
    }
}

/// Warns, once for each host, where credentials travel in plain HTTP beyond this machine.
pub fn warn_of_plain(address: &str) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !address.starts_with("http://") || is_loopback(address) {
        return;
    }
    let origin = redacted(origin(address), &[]);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.len() > WARNED_HOSTS || !warned.insert(origin.clone()) {
        return;
    }
    match warned.len() <= WARNED_HOSTS {
        true => tracing::warn!(
            host = %origin,
            "credentials are sent in plain HTTP: whoever is on the way can read them; use https"
        ),
        false => tracing::warn!(
            "credentials are sent in plain HTTP to more than {WARNED_HOSTS} hosts; the others are not named"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_addresses() {
        for (name, expected) in [
            ("a-b_c.d~e", "a-b_c.d~e"),
            ("a b&c/d?e#f%", "a%20b%26c%2Fd%3Fe%23f%25"),
            ("é@", "%C3%A9%40"),
        ] {
            assert_eq!(encoded(name), expected);
        }
    }

    #[test]
    fn origins() {
        for (base, expected) in [
            ("http://h:1", "http://h:1"),
            ("https://h/a/b", "https://h"),
            ("https://h?x=/y", "https://h"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318"),
        ] {
            assert_eq!(origin(base), expected);
        }
    }

    #[test]
    fn loopback() {
        for (address, expected) in [
            ("http://127.0.0.1:5000/x", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:4318", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://LOCALHOST", true),
            ("http://a.localhost:1", true),
            ("http://127.0.0.1.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://h/127.0.0.1", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }

    #[test]
    fn addresses_are_shown_without_what_may_be_secret() {
        for (address, expected) in [
            ("https://idp/token", "https://idp/token"),
            ("https://u:hunter2@idp/t", "https://idp/t"),
            ("https://u:h@nter2@idp", "https://idp"),
            (
                "https://idp/t?client_secret=hunter2&scope=all&hunter2#hunter2",
                "https://idp/t?client_secret=[secret]&scope=all&[secret]",
            ),
            ("https://idp/a@b?x=hunter2@y", "https://idp/a@b?x=[secret]"),
            ("https://u:hun/ter2@idp:1/t", "https://idp:1/t"),
            ("https://u:hun/ter2", "https://[secret]"),
            ("https://u:/hunter2@idp/t", "https://[secret]@idp/t"),
            ("https://u:12/hunter2@idp/t", "https://[secret]@idp/t"),
            ("https://u:h@n/ter2@idp/t", "https://[secret]@idp/t"),
            ("https://[::1]:8080/a@b", "https://[::1]:8080/a@b"),
            ("https://[::1]/a@b", "https://[::1]/a@b"),
            (
                "https://idp/t?aHVudGVyMg==&aHVudGVyMjI=",
                "https://idp/t?[secret]&[secret]",
            ),
        ] {
            assert_eq!(redacted(address, &["scope"]), expected);
        }
    }
}
