//! Stores by their URL, opened with what code and environment say, or with credentials that a
//! catalog gives out and that are renewed under the open store.

mod cloud;
mod guarded;
mod renewal;
mod secret;

pub(crate) use renewal::{Keys, Renewal, Vended, Vendor, renewal_error};
pub(crate) use secret::{Secret, scrub};

use guarded::Guarded;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{EnvSource, Error, ErrorKind};
use url::Url;

/// The URL schemes of stores.
const SCHEMES: &str = "file:///…, s3://…, abfss://…, gs://…";

/// Environment variable: `keep` or `drop` the session token of S3 credentials that a catalog gives
/// out. Unless set it is dropped where it never ends and an endpoint is configured: the open-source
/// catalog cannot get real ones for S3-compatible stores, and makes up for it with a token that
/// those refuse.
pub const UNITY_CATALOG_S3_SESSION_TOKEN: &str = "UNITY_CATALOG_S3_SESSION_TOKEN";

/// The variables that are read, by the names AWS, Azure, Google and object stores' clients give
/// them; in lower case they are names of options.
const VARS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    // The specific one comes later and wins.
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_SKIP_SIGNATURE",
    "AWS_CONDITIONAL_PUT",
    "AWS_REQUEST_PAYER",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURE_ALLOW_HTTP",
    "AZURE_AUTHORITY_HOST",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_USE_AZURE_CLI",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BASE_URL",
    "GOOGLE_ALLOW_HTTP",
    "GOOGLE_SKIP_SIGNATURE",
];

/// Longest time a store's client spends on trying one request again. The pipeline tries again too,
/// and meanwhile serves other locations.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// What to do with the session token of S3 credentials that a catalog gives out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionToken {
    /// Dropped where the credentials never end and an endpoint is configured, else kept.
    #[default]
    Auto,
    /// Always sent.
    Keep,
    /// Never sent.
    Drop,
}

/// How to reach object stores: regions, endpoints, and credentials where no catalog gives them out.
/// One set of options serves stores of every kind. `Debug` shows names and no values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorageOptions {
    options: BTreeMap<String, Secret>,
    session_token: SessionToken,
    retry_timeout: Duration,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl StorageOptions {
    /// No options: local files, and stores whose credentials the machine has by itself.
    pub fn new() -> Self {
        Self {
            options: BTreeMap::new(),
            session_token: SessionToken::Auto,
            retry_timeout: RETRY_TIMEOUT,
        }
    }

    /// The options in an environment: the variables of AWS, Azure and Google, each under its usual
    /// name; see the table in the crate documentation.
    ///
    /// # Errors
    /// `InvalidConfig` for a variable that is not UTF-8 or not understood.
    pub fn from_env(env: &dyn EnvSource) -> Result<Self, Error> {
        Self::new().or_env(env)
    }

    /// Fills in what is not set yet from an environment.
    ///
    /// # Errors
    /// As for [`StorageOptions::from_env`].
    pub fn or_env(mut self, env: &dyn EnvSource) -> Result<Self, Error> {
        for var in VARS {
            if let Some(value) = env.var(var)? {
                self.options
                    .entry(var.to_ascii_lowercase())
                    .or_insert_with(|| Secret::new(value));
            }
        }
        if self.session_token == SessionToken::Auto {
            self.session_token = match env.var(UNITY_CATALOG_S3_SESSION_TOKEN)?.as_deref() {
                None => SessionToken::Auto,
                Some("keep") => SessionToken::Keep,
                Some("drop") => SessionToken::Drop,
                Some(other) => {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "read environment",
                        format!("{UNITY_CATALOG_S3_SESSION_TOKEN}={other:?} is not understood"),
                    )
                    .mend("write keep or drop"));
                }
            };
        }
        Ok(self)
    }

    /// Sets an option by the name the crate `object_store` (0.13) gives it, such as `aws_region`,
    /// `azure_storage_account_name`, `google_base_url`, or `timeout` for all of them. An unknown one
    /// is an error when a store of its kind is opened.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into().trim().to_ascii_lowercase();
        self.options.insert(name, Secret::new(value));
        self
    }

    /// What to do with session tokens of S3 credentials that a catalog gives out.
    #[must_use]
    pub fn with_session_token(mut self, session_token: SessionToken) -> Self {
        self.session_token = session_token;
        self
    }

    /// Longest time a store's client spends on trying one request again before the pipeline takes
    /// over; 15 s unless set.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// The store at a URL, rooted there, with the credentials of these options.
    pub(crate) fn open(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
        self.open_with(url, None)
    }

    /// The store at a URL, rooted there, with credentials that are renewed while it is open. For
    /// local files none are needed.
    pub(crate) fn open_with(
        &self,
        url: &Url,
        renewal: Option<Arc<Renewal>>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        let path = StorePath::from_url_path(url.path()).map_err(|e| {
            invalid(url, "its path cannot be stored under")
                .mend("leave out empty segments, `.` and `..`")
                .caused_by(e)
        })?;
        if url.scheme() == "file" {
            return Ok(Arc::new(PrefixStore::new(LocalFileSystem::new(), path)));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(invalid(url, "it names no bucket").mend(format!("write one of {SCHEMES}")));
        }
        let store = match url.scheme() {
            "s3" | "s3a" => cloud::s3(self, url, renewal.clone()),
            "abfs" | "abfss" | "az" | "azure" => cloud::azure(self, url, renewal.clone()),
            "gs" => cloud::gcs(self, url, renewal.clone()),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                OPEN,
                format!("`{other}:` is not a store that is known here"),
            )
            .mend(format!("use one of {SCHEMES}"))),
        }?;
        let own = self
            .options
            .iter()
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| value.clone());
        let guarded = Guarded::new(store, renewal, own.collect());
        Ok(Arc::new(PrefixStore::new(guarded, path)))
    }

    /// The endpoint of S3 requests, where one is configured.
    fn s3_endpoint(&self) -> Option<&str> {
        [
            "aws_endpoint_url_s3",
            "aws_endpoint_url",
            "aws_endpoint",
            "endpoint",
            "endpoint_url",
        ]
        .iter()
        .find_map(|name| self.options.get(*name))
        .map(Secret::expose)
    }

    /// Whether a session token that a catalog gave out is to be left out.
    pub(crate) fn drops_session_token(&self, ends: bool) -> bool {
        match self.session_token {
            SessionToken::Keep => false,
            SessionToken::Drop => true,
            SessionToken::Auto => !ends && self.s3_endpoint().is_some(),
        }
    }
}

impl std::fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageOptions")
            .field("options", &self.options.keys())
            .field("session_token", &self.session_token)
            .finish_non_exhaustive()
    }
}

const OPEN: &str = "open storage";

/// Whether an option's value may not be shown.
fn is_secret(name: &str) -> bool {
    ["secret", "token", "_key", "sas"]
        .iter()
        .any(|part| name.contains(part))
        && !name.ends_with("_file")
}

fn invalid(url: &Url, cause: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        OPEN,
        format!("`{url}` cannot be used: {cause}"),
    )
}

/// A storage URL, or a local path, without `/` at its end.
///
/// # Errors
/// `InvalidConfig`; the text is not repeated where it may hold a secret.
pub(crate) fn parse_url(text: &str) -> Result<Url, Error> {
    let wrong = |cause: &str| {
        Error::new(
            ErrorKind::InvalidConfig,
            "parse storage URL",
            cause.to_owned(),
        )
        .mend(format!("write one of {SCHEMES}, or an absolute path"))
    };
    let text = text.trim();
    if text.starts_with('/') {
        let mut url =
            Url::from_file_path(Path::new(text)).map_err(|()| wrong("the path is not absolute"))?;
        trim(&mut url);
        return Ok(url);
    }
    let mut url =
        Url::parse(text).map_err(|e| wrong("it is neither a URL nor a path").caused_by(e))?;
    let known = ["file", "s3", "s3a", "abfs", "abfss", "az", "azure", "gs"];
    if !known.contains(&url.scheme()) {
        return Err(wrong("its scheme is not one of a store"));
    }
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a password, parameters or a fragment"));
    }
    if url.scheme() == "file" && url.host_str().is_some_and(|h| !h.is_empty()) {
        return Err(wrong(
            "a local file has no host: three slashes follow `file:`",
        ));
    }
    trim(&mut url);
    Ok(url)
}

fn trim(url: &mut Url) {
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
}

/// Whether two URLs are one place, however they are spelled.
pub(crate) fn same_place(a: &Url, b: &Url) -> bool {
    let scheme = |url: &Url| match url.scheme() {
        "s3a" => "s3".to_owned(),
        other => other.to_owned(),
    };
    let path = |url: &Url| {
        let parts = url.path().split('/').filter(|p| !p.is_empty());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    scheme(a) == scheme(b)
        && a.host_str().unwrap_or_default() == b.host_str().unwrap_or_default()
        && a.username() == b.username()
        && path(a) == path(b)
}

#[cfg(test)]
mod tests;
