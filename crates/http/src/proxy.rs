//! Proxies, which the client takes from the environment by itself: which one is in use, for errors to
//! name it, and whether it can be used at all.

use crate::address::redacted;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use trace_destination_core::{Error, ErrorKind};

/// The variable of a scheme that decides, and what it names. Read as the client does (hyper-util 0.1):
/// of the two spellings the first that is set counts, also where it is empty.
fn variable(scheme: &str) -> Option<(&'static str, String)> {
    let first = |names: [&'static str; 2]| {
        let set = |name| Some((name, std::env::var(name).ok()?));
        let found = names.into_iter().find_map(set);
        found.filter(|(_, value)| !value.is_empty())
    };
    let own = match scheme {
        "https" => ["HTTPS_PROXY", "https_proxy"],
        _ => ["HTTP_PROXY", "http_proxy"],
    };
    first(own).or_else(|| first(["ALL_PROXY", "all_proxy"]))
}

/// The proxy that requests to an address go through, as an error names it: without credentials.
pub(crate) fn of(address: &str) -> Option<String> {
    let address: Uri = address.parse().ok()?;
    let proxy = Matcher::from_system().intercept(&address)?;
    let proxy = proxy.uri();
    // Not its authority: of a password with an `@` in it, a part would be taken for the host's.
    let host = proxy.host()?;
    let at = match proxy.port_u16() {
        Some(port) => format!("{}://{host}:{port}", proxy.scheme_str()?),
        None => format!("{}://{host}", proxy.scheme_str()?),
    };
    Some(match variable(address.scheme_str()?) {
        Some((variable, _)) => format!("{at}, from {variable}"),
        None => format!("{at}, from the system"),
    })
}

/// Checks the variable that names the proxy of an address. One that cannot be understood would be
/// passed over, and requests would not go through the proxy.
///
/// # Errors
/// `InvalidConfig` naming the variable.
pub fn check_proxy(address: &str) -> Result<(), Error> {
    let Ok(address) = address.parse::<Uri>() else {
        return Ok(());
    };
    let Some(scheme) = address.scheme_str() else {
        return Ok(());
    };
    // In a CGI program no proxy is used: its variables are what a client sent.
    let is_cgi = std::env::var_os("REQUEST_METHOD").is_some();
    let Some((name, value)) = variable(scheme).filter(|_| !is_cgi) else {
        return Ok(());
    };
    let authority = value.split_once("://").map_or(&*value, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "read environment",
            format!("the user or password in {name} holds an `@` that is not encoded"),
        )
        .mend("write %40 for an @ in it"));
    }
    let used = |proxy: &str| {
        let no = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
        let no = no.unwrap_or_default();
        let matcher = Matcher::builder().all(proxy.to_owned()).no(no).build();
        matcher.intercept(&address).is_some()
    };
    if used(&value) || !used("http://proxy") {
        return Ok(());
    }
    let shown = redacted(&value, &[]);
    let shown = shown.rsplit('@').next().unwrap_or_default();
    Err(Error::new(
        ErrorKind::InvalidConfig,
        "read environment",
        format!(
            "{name} is no address of a proxy: `{}`",
            shown.escape_debug()
        ),
    )
    .mend("write http://host:port, with user:password@ before the host where it asks for them"))
}
