//! What the environment says about reaching a server.

use crate::builder::ServerLocationBuilder;
use crate::config::*;
use crate::databricks::Grant;
use crate::error::invalid;
use crate::transport::{Compression, Withheld};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    EnvSource, Error, ErrorKind, LocationUri, bool_var, millis_var, parse_var,
};
use trace_destination_http::{Credentials, Secret, origin};

/// Fills in what the builder does not have yet.
pub(crate) fn apply(builder: &mut ServerLocationBuilder, env: &dyn EnvSource) -> Result<(), Error> {
    let Some(uri) = builder.uri.clone() else {
        return Err(
            invalid("the environment was asked before the address was given")
                .mend("call with_uri before with_env"),
        );
    };
    match uri.scheme() {
        "http" | "https" => mlflow(builder, &uri, env),
        "otlp+http" | "otlp+https" => otlp(builder, &uri, env),
        "databricks" => databricks(builder, &uri, env),
        _ => Ok(()),
    }
}

fn mlflow(
    builder: &mut ServerLocationBuilder,
    uri: &LocationUri,
    env: &dyn EnvSource,
) -> Result<(), Error> {
    if let Some(seconds) = parse_var::<u64>(env, TIMEOUT_VAR, "a whole number of seconds")? {
        let timeout = Duration::from_secs(seconds.max(1));
        builder.timeout.get_or_insert(timeout);
    }
    let named = env.var(TRACKING_URI_VAR)?;
    let elsewhere = is_elsewhere(uri, named.as_deref());
    match mlflow_credentials(env) {
        Ok((_, credentials)) if names(builder, uri, named.as_deref()) => {
            if builder.credentials.is_none() {
                builder.credentials = credentials;
            }
        }
        Ok((from, _)) => builder.withheld = withheld(from, TRACKING_URI_VAR, uri),
        // What is wrong with the way to another server is no matter of this one.
        Err(_) if elsewhere || !builder.credentials.is_none() => {}
        Err(error) => return Err(error),
    }
    if elsewhere {
        return Ok(());
    }
    if builder.workspace.is_none() {
        builder.workspace = env.var(WORKSPACE_VAR)?;
    }
    let insecure = bool_var(env, INSECURE_TLS_VAR)? == Some(true);
    let authorities = env.var(SERVER_CERT_VAR)?;
    if insecure && authorities.is_some() {
        return Err(invalid(format!(
            "{INSECURE_TLS_VAR} and {SERVER_CERT_VAR} contradict each other"
        ))
        .mend("unset one of them"));
    }
    builder.tls.insecure |= insecure;
    or_file(&mut builder.tls.authorities, authorities);
    or_file(&mut builder.tls.certificate, env.var(CLIENT_CERT_VAR)?);
    Ok(())
}

/// User and password, else a token, else the credentials file: MLflow's order. With what they are
/// from.
fn mlflow_credentials(env: &dyn EnvSource) -> Result<(&'static str, Credentials), Error> {
    if let Some(auth) = env.var(AUTH_VAR)? {
        return Err(unsupported(format!("{AUTH_VAR}={auth:?}")));
    }
    if bool_var(env, SIGV4_VAR)? == Some(true) {
        return Err(unsupported(format!("{SIGV4_VAR}=true")));
    }
    let none = ("", Credentials::none());
    let (user, password) = (env.var(USERNAME_VAR)?, env.var(PASSWORD_VAR)?);
    if let (Some(user), Some(password)) = (user, password) {
        return Ok((USERNAME_VAR, Credentials::basic(user, password)));
    }
    if let Some(token) = env.var(TOKEN_VAR)? {
        return Ok((TOKEN_VAR, Credentials::bearer(token)));
    }
    let Some(home) = env.var(HOME_VAR)? else {
        return Ok(none);
    };
    let file = Path::new(&home).join(".mlflow").join("credentials");
    let Some(mut profiles) = ini(&file)? else {
        return Ok(none);
    };
    let mut section = profiles.remove("mlflow").unwrap_or_default();
    let mut take = |name: &str| section.remove(name).filter(|v| !v.expose().is_empty());
    match (
        take("mlflow_tracking_username"),
        take("mlflow_tracking_password"),
    ) {
        (Some(user), Some(password)) => Ok((
            "~/.mlflow/credentials",
            Credentials::basic(user.expose(), password.expose()),
        )),
        _ => Ok(none),
    }
}

/// What a refusal says where there are credentials that are not for this host.
fn withheld(from: &str, variable: &str, uri: &LocationUri) -> Withheld {
    let scheme = uri.scheme().trim_start_matches("otlp+");
    let host = uri.authority().unwrap_or_default();
    Withheld((!from.is_empty()).then(|| {
        let advice = format!(
            "{from} is set and was not sent, since {variable} does not name this host: set {variable}={scheme}://{host}, or give credentials in code"
        );
        Arc::new(advice)
    }))
}

fn unsupported(what: String) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "read environment",
        format!("{what} asks for a way to authenticate that is not spoken here"),
    )
    .mend(format!(
        "unset it and use {USERNAME_VAR} and {PASSWORD_VAR}, or {TOKEN_VAR}"
    ))
}

fn otlp(
    builder: &mut ServerLocationBuilder,
    uri: &LocationUri,
    env: &dyn EnvSource,
) -> Result<(), Error> {
    if let (None, Some((name, value))) = (builder.compression, otlp_var(env, OTLP_COMPRESSION)?) {
        builder.compression = Some(match value.trim() {
            "gzip" => Compression::Gzip,
            "none" => Compression::None,
            other => {
                return Err(invalid(format!(
                    "{name}=`{}` is not understood",
                    other.escape_debug()
                ))
                .mend("write gzip or none"));
            }
        });
    }
    if let (None, Some((name, _))) = (builder.timeout, otlp_var(env, OTLP_TIMEOUT)?) {
        builder.timeout = millis_var(env, &name)?.filter(|t| !t.is_zero());
    }
    // The specific address, else the general one.
    let endpoint = otlp_var(env, "ENDPOINT")?.map(|(_, value)| value);
    if let Some((name, value)) = otlp_var(env, OTLP_HEADERS)? {
        let is_named = names(builder, uri, endpoint.as_deref());
        if !is_named {
            builder.withheld = withheld(&name, OTLP_ENDPOINT_VAR, uri);
        }
        for pair in value.split(',').filter(|p| !p.trim().is_empty()) {
            let decoded = pair.split_once('=').and_then(|(key, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                Some((key.trim().to_ascii_lowercase(), value.into_owned()))
            });
            let Some((key, value)) = decoded.filter(|(key, _)| !key.is_empty()) else {
                // The text is not repeated: it holds API keys.
                return Err(invalid(format!("{name} is not a list of key=value"))
                    .mend("write key=value,key=value, with values percent-encoded"));
            };
            if is_named {
                let value = Secret::new(value);
                builder.headers.entry(key).or_insert(value);
            }
        }
    }
    if is_elsewhere(uri, endpoint.as_deref()) {
        return Ok(());
    }
    let file = |name| Ok::<_, Error>(otlp_var(env, name)?.map(|(_, value)| value));
    or_file(&mut builder.tls.authorities, file(OTLP_CERTIFICATE)?);
    or_file(&mut builder.tls.certificate, file(OTLP_CLIENT_CERTIFICATE)?);
    or_file(&mut builder.tls.key, file(OTLP_CLIENT_KEY)?);
    Ok(())
}

/// The variable for traces, else the one for every signal; with its name.
fn otlp_var(env: &dyn EnvSource, suffix: &str) -> Result<Option<(String, String)>, Error> {
    for prefix in OTLP_VAR_PREFIXES {
        let name = format!("{prefix}{suffix}");
        if let Some(value) = env.var(&name)? {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
}

fn databricks(
    builder: &mut ServerLocationBuilder,
    uri: &LocationUri,
    env: &dyn EnvSource,
) -> Result<(), Error> {
    let named = uri.authority().filter(|a| !a.is_empty());
    // A profile that is named decides alone; without one, variables come first.
    let mut found = Section::new();
    if named.is_none() {
        for (key, variable) in [
            ("host", DATABRICKS_HOST_VAR),
            ("token", DATABRICKS_TOKEN_VAR),
            ("client_id", DATABRICKS_CLIENT_ID_VAR),
            ("client_secret", DATABRICKS_CLIENT_SECRET_VAR),
        ] {
            if let Some(value) = env.var(variable)? {
                found.insert(key.to_owned(), Secret::new(value));
            }
        }
    }
    let variable = env.var(DATABRICKS_PROFILE_VAR)?;
    let wanted = named.map(str::to_owned).or(variable);
    let complete = found.contains_key("host") && found.len() > 1;
    if named.is_some() || !complete {
        let profile = profile(env, wanted.as_deref())?;
        // The credentials of a profile are for its own host.
        let same = match (found.get("host"), profile.get("host")) {
            (Some(one), Some(other)) => same_host(one.expose(), other.expose()),
            (Some(_), None) => false,
            (None, _) => true,
        };
        for (key, value) in profile.into_iter().filter(|_| same) {
            found.entry(key).or_insert(value);
        }
    }
    let host = found.remove("host").map(|h| h.expose().to_owned());
    let own = match (&builder.databricks_host, &host) {
        // Code names another host than the environment does: what is there is not for it.
        (Some(code), Some(host)) => same_host(code, host),
        (Some(_), None) => false,
        (None, _) => true,
    };
    if builder.databricks_host.is_none() {
        builder.databricks_host = host;
    }
    if own && builder.credentials.is_none() && builder.grant.is_none() {
        match (
            found.remove("token"),
            found.remove("client_id"),
            found.remove("client_secret"),
        ) {
            (Some(token), ..) => builder.credentials = Credentials::bearer(token.expose()),
            (None, Some(id), Some(secret)) => {
                builder.grant = Some(Grant {
                    client_id: id.expose().to_owned(),
                    client_secret: secret,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether two ways to write a workspace's host mean one.
fn same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| -> Option<LocationUri> {
        match host.contains("://") {
            true => origin(host).parse().ok(),
            false => origin(&format!("https://{host}")).parse().ok(),
        }
    };
    address(one).is_some_and(|one| Some(one) == address(other))
}

/// A profile of `~/.databrickscfg`. One that is asked for by name has to be there.
fn profile(env: &dyn EnvSource, wanted: Option<&str>) -> Result<Section, Error> {
    let file = match env.var(DATABRICKS_CONFIG_FILE_VAR)? {
        Some(file) => Some(PathBuf::from(file)),
        None => env
            .var(HOME_VAR)?
            .map(|home| Path::new(&home).join(".databrickscfg")),
    };
    let profiles = match &file {
        Some(file) => ini(file)?.unwrap_or_default(),
        None => Profiles::new(),
    };
    // Host names, which profiles look like in a URI, know no upper case.
    let name = wanted.unwrap_or("DEFAULT");
    match profiles
        .into_iter()
        .find(|(section, _)| section.eq_ignore_ascii_case(name))
    {
        Some((_, section)) => Ok(section),
        None if wanted.is_none() => Ok(Section::new()),
        None => Err(invalid(format!(
            "there is no Databricks profile `{}`",
            name.escape_debug()
        ))
        .mend("add it to ~/.databrickscfg, or set DATABRICKS_CONFIG_FILE to the file that has it")),
    }
}

type Section = BTreeMap<String, Secret>;
type Profiles = BTreeMap<String, Section>;

/// Longest file of credentials that is read.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file of `[section]`s with `key = value`; `None` if there is none.
fn ini(file: &Path) -> Result<Option<Profiles>, Error> {
    use std::io::ErrorKind as I;
    let shown = file.display().to_string();
    let about = |what: &str| invalid(format!("`{}` {what}", shown.escape_debug()));
    let read = std::fs::metadata(file).and_then(|found| {
        // Devices and pipes have no end, and some wait for one.
        let is_usable = found.is_file() && found.len() <= MAX_FILE;
        is_usable.then(|| std::fs::read_to_string(file)).transpose()
    });
    let text = match read {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Err(about("is no file of at most 1 MiB").mend("name another file, or none"));
        }
        Err(e) if e.kind() == I::NotFound => return Ok(None),
        // Not the parser's words: what is in the file may be secret.
        Err(e) if e.kind() == I::InvalidData => {
            return Err(about("is not UTF-8").mend("save it as UTF-8"));
        }
        Err(e) => {
            return Err(about("cannot be read")
                .mend("allow this user to read it, or remove it")
                .caused_by(e));
        }
    };
    // Some editors of Windows begin a file with it.
    let text = text.trim_start_matches('\u{feff}');
    let mut profiles = Profiles::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim().to_owned();
            profiles.entry(section.clone()).or_default();
        } else if let Some((key, value)) = line.split_once('=') {
            profiles
                .entry(section.clone())
                .or_default()
                .insert(key.trim().to_ascii_lowercase(), Secret::new(value.trim()));
        }
    }
    Ok(Some(profiles))
}

/// Whether the configuration names this location's host as the one that credentials are for: in the
/// variable beside them, or in code.
fn names(builder: &ServerLocationBuilder, uri: &LocationUri, variable: Option<&str>) -> bool {
    let named = [variable, builder.credential_host.as_deref()];
    named.into_iter().flatten().any(|named| {
        let address = named.trim().parse::<LocationUri>();
        address.is_ok_and(|named| is_origin(&named, uri))
    })
}

/// Whether a variable names a server, and another one than this.
fn is_elsewhere(uri: &LocationUri, named: Option<&str>) -> bool {
    match named.map(|named| named.trim().parse::<LocationUri>()) {
        Some(Ok(named)) => matches!(named.scheme(), "http" | "https") && !is_origin(&named, uri),
        _ => false,
    }
}

fn is_origin(named: &LocationUri, uri: &LocationUri) -> bool {
    matches!(named.scheme(), "http" | "https")
        && named.scheme() == uri.scheme().trim_start_matches("otlp+")
        && named.authority().is_some_and(|a| !a.is_empty())
        && named.authority() == uri.authority()
}

fn or_file(slot: &mut Option<PathBuf>, value: Option<String>) {
    if slot.is_none() {
        *slot = value.map(PathBuf::from);
    }
}
