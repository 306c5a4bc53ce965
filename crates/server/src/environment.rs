//! What the environment says about reaching a server.

use crate::builder::{ServerLocationBuilder, invalid};
use crate::config::*;
use crate::databricks::Grant;
use crate::secret::Secret;
use crate::transport::{Compression, Credentials};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trace_destination_core::{
    EnvSource, Error, ErrorKind, LocationUri, bool_var, millis_var, parse_var,
};

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
    if !is_meant(uri, env.var("MLFLOW_TRACKING_URI")?.as_deref()) {
        return Ok(());
    }
    if builder.workspace.is_none() {
        builder.workspace = env.var(WORKSPACE_VAR)?;
    }
    if builder.credentials == Credentials::None {
        builder.credentials = mlflow_credentials(env)?;
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

/// User and password, else a token, else the credentials file: MLflow's order.
fn mlflow_credentials(env: &dyn EnvSource) -> Result<Credentials, Error> {
    if let Some(auth) = env.var(AUTH_VAR)? {
        return Err(unsupported(format!("{AUTH_VAR}={auth}")));
    }
    if bool_var(env, SIGV4_VAR)? == Some(true) {
        return Err(unsupported(format!("{SIGV4_VAR}=true")));
    }
    let (user, password) = (env.var(USERNAME_VAR)?, env.var(PASSWORD_VAR)?);
    if let (Some(user), Some(password)) = (user, password) {
        return Ok(Credentials::Basic {
            user,
            password: Secret::new(password),
        });
    }
    if let Some(token) = env.var(TOKEN_VAR)? {
        return Ok(Credentials::Bearer(Secret::new(token)));
    }
    let Some(home) = env.var(HOME_VAR)? else {
        return Ok(Credentials::None);
    };
    let file = Path::new(&home).join(".mlflow").join("credentials");
    let Some(mut profiles) = ini(&file)? else {
        return Ok(Credentials::None);
    };
    let mut section = profiles.remove("mlflow").unwrap_or_default();
    let mut take = |name: &str| section.remove(name).filter(|v| !v.expose().is_empty());
    match (
        take("mlflow_tracking_username"),
        take("mlflow_tracking_password"),
    ) {
        (Some(user), Some(password)) => Ok(Credentials::Basic {
            user: user.expose().to_owned(),
            password,
        }),
        _ => Ok(Credentials::None),
    }
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
    if let (None, Some((_, value))) = (builder.compression, otlp_var(env, OTLP_COMPRESSION)?) {
        builder.compression = Some(match value.trim() {
            "gzip" => Compression::Gzip,
            "none" => Compression::None,
            other => {
                return Err(invalid(format!(
                    "compression `{}` is not understood",
                    other.escape_debug()
                ))
                .mend("set OTEL_EXPORTER_OTLP_COMPRESSION to gzip or none"));
            }
        });
    }
    if let (None, Some((name, _))) = (builder.timeout, otlp_var(env, OTLP_TIMEOUT)?) {
        builder.timeout = millis_var(env, &name)?.filter(|t| !t.is_zero());
    }
    // The specific address, else the general one.
    let endpoint = otlp_var(env, "ENDPOINT")?.map(|(_, value)| value);
    if !is_meant(uri, endpoint.as_deref()) {
        return Ok(());
    }
    if let Some((name, value)) = otlp_var(env, OTLP_HEADERS)? {
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
            builder
                .headers
                .entry(key)
                .or_insert_with(|| Secret::new(value));
        }
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
        for (key, value) in profile {
            found.entry(key).or_insert(value);
        }
    }
    if builder.databricks_host.is_none() {
        builder.databricks_host = found.remove("host").map(|h| h.expose().to_owned());
    }
    if builder.credentials == Credentials::None && builder.grant.is_none() {
        match (
            found.remove("token"),
            found.remove("client_id"),
            found.remove("client_secret"),
        ) {
            (Some(token), ..) => builder.credentials = Credentials::Bearer(token),
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

/// Reads a file of `[section]`s with `key = value`; `None` if there is none.
fn ini(file: &Path) -> Result<Option<Profiles>, Error> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(invalid(format!("`{}` cannot be read", file.display()))
                .mend("allow this user to read it, or remove it")
                .caused_by(e));
        }
    };
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

/// Whether credentials that belong to the server a variable names are meant for this one.
fn is_meant(uri: &LocationUri, named: Option<&str>) -> bool {
    let Some(named) = named.filter(|n| n.contains("://")) else {
        return true;
    };
    let scheme = uri.scheme().trim_start_matches("otlp+");
    match named.trim().parse::<LocationUri>() {
        Ok(named) if matches!(named.scheme(), "http" | "https") => {
            named.scheme() == scheme && named.authority() == uri.authority()
        }
        // The store the environment names is no server: its credentials are for whichever there is.
        _ => true,
    }
}

fn or_file(slot: &mut Option<PathBuf>, value: Option<String>) {
    if slot.is_none() {
        *slot = value.map(PathBuf::from);
    }
}
