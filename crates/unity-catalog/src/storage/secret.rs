//! Text that is never shown: the rules live in one crate.

pub(crate) use trace_destination_http::Secret;

/// Takes secrets out of what somebody else said: stores and servers repeat what they were sent.
pub(crate) fn scrub<'a>(text: String, secrets: impl IntoIterator<Item = &'a str>) -> String {
    trace_destination_http::scrub(&text, secrets)
}

/// Takes user information and queries out of the addresses in a text: they may be signatures, keys
/// and tokens that nobody here was told of.
pub(crate) fn without_secrets_of_addresses(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ')' | '}');
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        cleaned.push_str(before);
        let (address, after) = address.split_at(address.find(ends).unwrap_or(address.len()));
        let (place, query) = match address.find(['?', '#']) {
            Some(at) => (&address[..at], "?[…]"),
            None => (address, ""),
        };
        let host = place.find('/').unwrap_or(place.len());
        // `abfss://container@account` names a container there, and no user.
        match place[..host].rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                cleaned.push_str("[…]");
                cleaned.push_str(&place[user.len()..]);
            }
            _ => cleaned.push_str(place),
        }
        cleaned.push_str(query);
        rest = after;
    }
    cleaned.push_str(rest);
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_where_they_lead_and_not_with_what() {
        for (said, shown) in [
            ("nothing here", "nothing here"),
            (
                "GET http://host:9000/b/k?X-Amz-Signature=hunter2&a=b in 3 ms",
                "GET http://host:9000/b/k?[…] in 3 ms",
            ),
            (
                "<a>https://u:hunter2@host/x#hunter2</a> \"s3://b/c\"",
                "<a>https://[…]@host/x?[…]</a> \"s3://b/c\"",
            ),
            ("abfss://c@account/x", "abfss://c@account/x"),
            ("http://?sig=hunter2", "http://?[…]"),
            ("a://b://c?d", "a://b://c?[…]"),
            ("://", "://"),
        ] {
            assert_eq!(without_secrets_of_addresses(said), shown);
        }
    }
}
