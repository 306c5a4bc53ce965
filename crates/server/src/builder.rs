//! Making a location: from parts, from a URI, from the environment; checked once, in `build()`.

use crate::config::{
    CONCURRENCY, CREATE_PARAM, EXPERIMENT_ID_PARAM, EXPERIMENT_NAME_PARAM, MLFLOW_TIMEOUT,
    OTLP_REQUEST_TIMEOUT, SCHEMES, TABLE_PARAM, WORKSPACE_PARAM,
};
use crate::databricks::Grant;
use crate::environment;
use crate::error::invalid;
use crate::location::ServerLocation;
use crate::options::MissingExperiment;
use crate::target::Family;
use crate::transport::{Compression, Transport, Withheld};
use reqwest::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use trace_destination_core::{EnvSource, Error, LocationUri};
use trace_destination_http::{Credentials, Secret, Tls, check_proxy};

/// Builds a [`ServerLocation`]; see [`ServerLocation::builder`]. What code sets beats what the
/// environment says.
#[derive(Clone, Default)]
pub struct ServerLocationBuilder {
    pub(crate) uri: Option<LocationUri>,
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) missing: MissingExperiment,
    pub(crate) workspace: Option<String>,
    pub(crate) credentials: Credentials,
    pub(crate) tls: Tls,
    pub(crate) headers: BTreeMap<String, Secret>,
    pub(crate) compression: Option<Compression>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) databricks_host: Option<String>,
    pub(crate) grant: Option<Grant>,
    pub(crate) credential_host: Option<String>,
    pub(crate) withheld: Withheld,
    pub(crate) deferred: Vec<Error>,
}

/// The parameters whose values are no secret.
const KNOWN_PARAMS: [&str; 5] = [
    EXPERIMENT_NAME_PARAM,
    EXPERIMENT_ID_PARAM,
    CREATE_PARAM,
    WORKSPACE_PARAM,
    TABLE_PARAM,
];

/// A URI as errors show it: the value of a parameter that nobody knows may be a secret.
fn shown(uri: &LocationUri) -> LocationUri {
    let is_known = |key: &str| KNOWN_PARAMS.contains(&key);
    if uri.query_pairs().all(|(key, _)| is_known(key)) {
        return uri.clone();
    }
    let pairs = uri.query_pairs().map(|(key, value)| match is_known(key) {
        true => (key, value),
        false => (key, "…"),
    });
    LocationUri::from_parts(uri.scheme(), uri.authority(), uri.path(), pairs)
        .or_else(|_| LocationUri::from_parts(uri.scheme(), uri.authority(), "", []))
        .unwrap_or_else(|_| uri.clone())
}

impl fmt::Debug for ServerLocationBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.databricks_host.as_deref();
        let host = host.map(|host| trace_destination_http::redacted(host, &[]));
        f.debug_struct("ServerLocationBuilder")
            .field("uri", &self.uri.as_ref().map(shown))
            .field("workspace", &self.workspace)
            .field("databricks_host", &host)
            .field("compression", &self.compression)
            .field("timeout", &self.timeout)
            .field("deferred", &self.deferred)
            .field("credentials", &self.credentials)
            .field("grant", &self.grant)
            .field("tls", &self.tls)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl ServerLocationBuilder {
    /// The place, and everything else its URI says. Needed.
    #[must_use]
    pub fn with_uri(mut self, uri: &LocationUri) -> Self {
        for (key, value) in uri.query_pairs() {
            let result =
                match key {
                    EXPERIMENT_NAME_PARAM => {
                        self.name = Some(value.into());
                        Ok(())
                    }
                    EXPERIMENT_ID_PARAM => {
                        self.id = Some(value.into());
                        Ok(())
                    }
                    WORKSPACE_PARAM => {
                        self.workspace = Some(value.into());
                        Ok(())
                    }
                    CREATE_PARAM => match value {
                        "true" => Ok(MissingExperiment::Create),
                        "false" => Ok(MissingExperiment::Fail),
                        _ => Err(invalid("parameter `create` is not understood")
                            .mend("write true or false")),
                    }
                    .map(|v| self.missing = v),
                    // Read where it belongs, and refused where it does not.
                    _ => Ok(()),
                };
            self.deferred
                .extend(result.err().map(|e| e.at(&shown(uri))));
        }
        self.uri = Some(uri.clone());
        self
    }

    /// The experiment's name. Resolved to an id when the location is opened.
    #[must_use]
    pub fn with_experiment_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The experiment's id, a decimal number as MLflow prints it. Given with a name, both must be
    /// of one experiment.
    #[must_use]
    pub fn with_experiment_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// What to do when the experiment is missing.
    #[must_use]
    pub fn with_missing(mut self, missing: MissingExperiment) -> Self {
        self.missing = missing;
        self
    }

    /// The workspace, on a tracking server that has several.
    #[must_use]
    pub fn with_workspace(mut self, workspace: impl Into<String>) -> Self {
        self.workspace = Some(workspace.into());
        self
    }

    /// HTTP Basic, which MLflow's own `basic-auth` asks for.
    #[must_use]
    pub fn with_basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials::basic(user, password);
        self
    }

    /// A bearer token: for proxies and managed servers, and the access token of `databricks:`.
    #[must_use]
    pub fn with_bearer_token(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::bearer(token);
        self
    }

    /// Credentials of any kind: also those that change while locations are open, from a file, a
    /// function, an OAuth client or a [`CredentialProvider`](crate::CredentialProvider). Locations on
    /// one host share connections whatever their credentials, and tokens if these are clones of one
    /// value.
    ///
    /// ```
    /// use trace_destination_server::{Credentials, ServerLocation};
    ///
    /// // Made once for the host; the token is read again when the file changes.
    /// let token = Credentials::bearer_file("/var/run/secrets/mlflow/token");
    /// let builder = ServerLocation::builder().with_credentials(token.clone());
    /// ```
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The host that credentials of the environment are for, such as `https://mlflow.example`, where
    /// the variable that names it (`MLFLOW_TRACKING_URI`, `OTEL_EXPORTER_OTLP_ENDPOINT`) is not set.
    /// They are sent there and nowhere else. Call it before [`with_env`](Self::with_env).
    #[must_use]
    pub fn with_credential_host(mut self, address: impl Into<String>) -> Self {
        self.credential_host = Some(address.into());
        self
    }

    /// A header sent with every request. Its value is treated as a secret.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        let name = name.as_ref().trim().to_ascii_lowercase();
        self.headers.insert(name, Secret::new(value));
        self
    }

    /// PEM file with the certificate authorities to trust instead of the system's.
    #[must_use]
    pub fn with_certificate_authorities(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.authorities = Some(file.into());
        self
    }

    /// PEM file with this client's certificate chain and, unless
    /// [`with_client_key`](Self::with_client_key) names another file, its key.
    #[must_use]
    pub fn with_client_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.certificate = Some(file.into());
        self
    }

    /// PEM file with the key of the client's certificate.
    #[must_use]
    pub fn with_client_key(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.key = Some(file.into());
        self
    }

    /// Takes any certificate of the server: whoever is on the way can read and change everything.
    #[must_use]
    pub fn with_insecure_tls(mut self) -> Self {
        self.tls.insecure = true;
        self
    }

    /// Whether requests are compressed; gzip for tracking servers (plain where the server does not
    /// take it), otherwise not.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Longest time of one request; 60 s for tracking servers and Databricks, 10 s for others.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Requests under way to one host at a time, over all locations with the same settings; 8.
    #[must_use]
    pub fn with_concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// The address of the Databricks workspace, for `databricks:`.
    #[must_use]
    pub fn with_databricks_host(mut self, host: impl Into<String>) -> Self {
        self.databricks_host = Some(host.into());
        self
    }

    /// A service principal that gets its tokens by OAuth client credentials, for `databricks:`.
    #[must_use]
    pub fn with_databricks_oauth(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        self.grant = Some(Grant {
            client_id: client_id.into(),
            client_secret: Secret::new(client_secret),
        });
        self
    }

    /// Whatever the environment says about reaching this kind of place and is not set already; see
    /// the table in the [crate documentation](crate#environment).
    ///
    /// Credentials in the environment are for the host that the environment names beside them, in
    /// `MLFLOW_TRACKING_URI` or `OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT`, or that
    /// [`with_credential_host`](Self::with_credential_host) names. They are sent to no other host; an
    /// answer of 401 or 403 then says what to set. Call it after [`with_uri`](Self::with_uri).
    #[must_use]
    pub fn with_env(mut self, env: &dyn EnvSource) -> Self {
        if let Err(error) = environment::apply(&mut self, env) {
            self.deferred.push(error);
        }
        self
    }

    /// Checks everything that can be known without asking the server.
    ///
    /// # Errors
    /// `InvalidConfig` for a missing or unusable address, experiment, table, header, certificate
    /// file or credential, and for a place that is in use with others; `Unsupported` for gRPC.
    pub fn build(mut self) -> Result<ServerLocation, Error> {
        let uri = self.uri.take().ok_or_else(|| {
            invalid("no address is given")
                .mend("write http://host:5000?experiment_name=…, or otlp+http://host:4318")
        })?;
        if let Some(error) = self.deferred.drain(..).next() {
            return Err(match error.location() {
                Some(_) => error,
                None => error.at(&shown(&uri)),
            });
        }
        self.finish(&uri).map_err(|e| e.at(&shown(&uri)))
    }

    fn finish(self, uri: &LocationUri) -> Result<ServerLocation, Error> {
        let target = match uri.scheme() {
            "http" | "https" => self.mlflow(uri)?,
            "otlp+http" | "otlp+https" => self.otlp(uri)?,
            "databricks" => self.databricks(uri)?,
            other => {
                return Err(invalid(format!("`{other}:` is not a server"))
                    .mend(format!("use one of {}", SCHEMES.join(", "))));
            }
        };
        let mlflow = matches!(target.family, Family::Mlflow { .. });
        let otlp = matches!(target.family, Family::Otlp);
        for (name, value) in &self.headers {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value.expose()).is_err()
            {
                return Err(invalid(format!(
                    "header `{}` has a name or value that cannot be sent",
                    name.escape_debug()
                ))
                .mend("use visible ASCII characters"));
            }
        }
        let credentials = match (&target.family, &self.grant) {
            (Family::Databricks { .. }, Some(grant)) if self.credentials.is_none() => {
                grant.credentials(&target.base)
            }
            _ => self.credentials,
        };
        credentials.check()?;
        self.tls.check()?;
        check_proxy(&target.base)?;
        let timeout = match otlp {
            true => OTLP_REQUEST_TIMEOUT,
            false => MLFLOW_TIMEOUT,
        };
        ServerLocation::of(
            target,
            Transport {
                credentials,
                tls: self.tls,
                headers: self.headers,
                compression: self.compression.unwrap_or(match mlflow {
                    true => Compression::Gzip,
                    false => Compression::None,
                }),
                timeout: self.timeout.unwrap_or(timeout),
                concurrency: self.concurrency.unwrap_or(CONCURRENCY).max(1),
                withheld: self.withheld,
            },
        )
    }
}
