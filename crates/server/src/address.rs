//! Finds out what a location names: from its URI and its builder, checked.

use crate::builder::ServerLocationBuilder;
use crate::config::{
    CREATE_PARAM, EXPERIMENT_ID_PARAM, EXPERIMENT_NAME_PARAM, MAX_EXPERIMENT_NAME, OTLP_GRPC_PORT,
    OTLP_TRACES_PATH, TABLE_PARAM, WORKSPACE_PARAM,
};
use crate::databricks::Table;
use crate::error::{BUILD, invalid};
use crate::options::MissingExperiment;
use crate::target::{Experiment, Family, Target};
use reqwest::header::HeaderValue;
use trace_destination_core::{Error, ErrorKind, LocationUri, mend_of_parameter};

impl ServerLocationBuilder {
    pub(crate) fn mlflow(&self, uri: &LocationUri) -> Result<Target, Error> {
        allow(
            uri,
            &[
                EXPERIMENT_NAME_PARAM,
                EXPERIMENT_ID_PARAM,
                CREATE_PARAM,
                WORKSPACE_PARAM,
            ],
        )?;
        let base = base(uri, uri.scheme())?;
        if let Some(name) = &self.name {
            let length = name.chars().count();
            if length == 0 || length > MAX_EXPERIMENT_NAME || name.contains('\0') {
                return Err(invalid(format!(
                    "an experiment name of {length} characters cannot be stored"
                ))
                .mend(format!(
                    "use 1 to {MAX_EXPERIMENT_NAME} characters, none of them NUL"
                )));
            }
        }
        let id = self.id.as_deref().map(experiment_id).transpose()?;
        if self.name.is_none() && id.is_none() {
            return Err(invalid("no experiment is given").mend(format!(
                "add ?{EXPERIMENT_NAME_PARAM}=… or ?{EXPERIMENT_ID_PARAM}=…"
            )));
        }
        if let Some(workspace) = &self.workspace
            && (workspace.is_empty() || HeaderValue::try_from(workspace).is_err())
        {
            return Err(
                invalid("the workspace is empty or cannot be sent in a header")
                    .mend("name the workspace in visible ASCII characters"),
            );
        }
        let query = [
            (EXPERIMENT_NAME_PARAM, self.name.as_deref()),
            (EXPERIMENT_ID_PARAM, id.as_deref()),
            // The default is left out, so that a URI that spells it is the same place.
            (
                CREATE_PARAM,
                (self.missing == MissingExperiment::Fail).then_some("false"),
            ),
            (WORKSPACE_PARAM, self.workspace.as_deref()),
        ];
        Ok(Target {
            uri: LocationUri::from_parts(
                uri.scheme(),
                uri.authority(),
                uri.path().trim_end_matches('/'),
                query.into_iter().filter_map(|(k, v)| Some((k, v?))),
            )?,
            base,
            family: Family::Mlflow {
                experiment: Experiment {
                    name: self.name.clone(),
                    id,
                    missing: self.missing,
                },
                workspace: self.workspace.clone(),
            },
        })
    }

    pub(crate) fn otlp(&self, uri: &LocationUri) -> Result<Target, Error> {
        allow(uri, &[])?;
        let scheme = uri.scheme().trim_start_matches("otlp+");
        let path = match uri.path() {
            "" => OTLP_TRACES_PATH,
            path => path,
        };
        let grpc = format!(":{OTLP_GRPC_PORT}");
        if let Some(host) = uri.authority().and_then(|a| a.strip_suffix(&grpc)) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                BUILD,
                format!("port {OTLP_GRPC_PORT} is where OTLP over gRPC listens, which is not spoken here"),
            )
            .mend(format!("use OTLP over HTTP: {}://{host}:4318", uri.scheme())));
        }
        let host = base(uri, scheme)?;
        let shown = match path {
            OTLP_TRACES_PATH => "",
            path => path,
        };
        Ok(Target {
            uri: LocationUri::from_parts(uri.scheme(), uri.authority(), shown, [])?,
            // `base` holds the URI's own path already.
            base: match uri.path() {
                "" => format!("{host}{OTLP_TRACES_PATH}"),
                _ => host,
            },
            family: Family::Otlp,
        })
    }

    pub(crate) fn databricks(&self, uri: &LocationUri) -> Result<Target, Error> {
        allow(uri, &[TABLE_PARAM])?;
        let shape = "write databricks://profile?table=catalog.schema.prefix_otel_spans";
        if !uri.path().is_empty() {
            return Err(invalid("a Databricks location has no path").mend(shape));
        }
        let table = uri
            .query(TABLE_PARAM)
            .and_then(Table::parse)
            .ok_or_else(|| {
                invalid("parameter `table` does not name catalog.schema.table").mend(shape)
            })?;
        let Some(host) = &self.databricks_host else {
            return Err(
                invalid("the address of the Databricks workspace is not known").mend(
                    "set DATABRICKS_HOST, or name a profile of ~/.databrickscfg that has a host",
                ),
            );
        };
        if self.grant.is_none() && self.credentials.is_none() {
            return Err(invalid("there are no credentials for Databricks").mend(
                "set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or name a profile that has them",
            ));
        }
        let host = match host.contains("://") {
            true => host.clone(),
            false => format!("https://{host}"),
        };
        let address: LocationUri = host.parse()?;
        Ok(Target {
            uri: uri.clone(),
            base: base(&address, address.scheme())?,
            family: Family::Databricks { table },
        })
    }
}

/// The address requests start with: scheme, host and path without a `/` at its end.
fn base(uri: &LocationUri, scheme: &str) -> Result<String, Error> {
    let Some(host) = uri.authority().filter(|a| !a.is_empty()) else {
        return Err(invalid("the address has no host").mend("write scheme://host:port"));
    };
    if !host.is_ascii() {
        // A client would fold it, full-width letters too, into a host that another URI names.
        return Err(invalid("the host has letters beyond ASCII")
            .mend("write it as DNS has it, beginning with xn--"));
    }
    // The encoded path, as the URI prints it.
    let text = uri.as_str().split('?').next().unwrap_or_default();
    let start = text.find(host).unwrap_or_default() + host.len();
    let base = format!("{scheme}://{host}{}", text[start..].trim_end_matches('/'));
    match reqwest::Url::parse(&base) {
        Ok(_) if matches!(scheme, "http" | "https") => Ok(base),
        Ok(_) => Err(invalid("the address is not http or https").mend("write https://host")),
        Err(e) => Err(invalid("the address is not a URL")
            .mend("write scheme://host:port")
            .caused_by(e)),
    }
}

fn allow(uri: &LocationUri, known: &[&str]) -> Result<(), Error> {
    match uri.query_pairs().find(|(key, _)| !known.contains(key)) {
        None => Ok(()),
        Some((key, _)) => Err(
            invalid(format!("parameter `{}` is unknown", key.escape_debug())).mend(match known {
                [] => "leave it out; headers come from the environment or from code".to_owned(),
                known => mend_of_parameter(key, known),
            }),
        ),
    }
}

/// An experiment id in the one spelling the server prints it in.
fn experiment_id(text: &str) -> Result<String, Error> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(id) if digits => Ok(id.to_string()),
        _ => Err(invalid("the experiment id is not a decimal number")
            .mend("give the number MLflow shows, or the name as experiment_name")),
    }
}
