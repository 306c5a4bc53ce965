//! Proxies, which the client takes from the environment by itself: which one is in use, for errors to
//! name it, and whether it can be used at all.

use crate::address::redacted;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use trace_destination_core::{Error, ErrorKind};

/// The variables of a scheme, the first that is set before the others.
fn variables(scheme: &str) -> [&'static str; 4] {
    match scheme {
        "https" => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    }
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
}

/// The proxy that requests to an address go through, as an error names it: without credentials.
pub(crate) fn of(address: &str) -> Option<String> {
    let address: Uri = address.parse().ok()?;
    let proxy = Matcher::from_system().intercept(&address)?;
    let proxy = proxy.uri();
    let at = format!("{}://{}", proxy.scheme_str()?, proxy.authority()?);
    let variable = variables(address.scheme_str()?).into_iter();
    let variable = variable.into_iter().find(|name| set(name).is_some());
    Some(match variable {
        Some(variable) => format!("{at}, from {variable}"),
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
    let Some((name, value)) = variables(scheme)
        .into_iter()
        .find_map(|n| Some((n, set(n)?)))
    else {
        return Ok(());
    };
    let used = |proxy: &str| {
        let no = set("NO_PROXY")
            .or_else(|| set("no_proxy"))
            .unwrap_or_default();
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
