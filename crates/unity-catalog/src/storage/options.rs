//! How stores are reached, and which places a catalog may name.

use super::guarded::Guarded;
use super::local::{Cached, Disk, Flush, Local};
use super::renewal::Renewal;
use super::secret::Secret;
use super::spelling::{check_options, wrong_host};
use super::{OPEN, SCHEMES, cloud, family, invalid};
use object_store::ObjectStore;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{EnvSource, Error, ErrorKind};
use url::Url;

/// Environment variable: `keep` or `drop` the session token of S3 credentials that a catalog gives
/// out. Unless set it is dropped where it never ends and an endpoint is configured: the open-source
/// catalog cannot get real ones for S3-compatible stores, and makes up for it with a token that
/// those refuse.
pub const UNITY_CATALOG_S3_SESSION_TOKEN: &str = "UNITY_CATALOG_S3_SESSION_TOKEN";

/// Environment variable: `true` lets a catalog server name local files as the place of a table.
/// `false` unless set. For a server on this machine.
pub const UNITY_CATALOG_FILE_LOCATIONS: &str = "UNITY_CATALOG_FILE_LOCATIONS";

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

/// Who may read what is made in local folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FolderAccess {
    /// Folders that are made have mode 0700, and files in such a folder 0600: only this process's
    /// user may read them. Folders that exist keep their mode, and files in them what the umask
    /// leaves. Unix only; elsewhere this is as [`Umask`](Self::Umask).
    #[default]
    Owner,
    /// What the umask of the process leaves, as for any other file.
    Umask,
}

/// Which local files may be a table that a catalog server names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum LocalPlaces {
    /// None: a server that is not this machine's would choose where this process writes.
    #[default]
    Refused,
    /// Those beneath a folder.
    Below(String),
    /// All.
    Allowed,
}

/// How to reach object stores: regions, endpoints, and credentials where no catalog gives them out.
/// One set of options serves stores of every kind. `Debug` shows names and no values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorageOptions {
    pub(super) options: BTreeMap<String, Secret>,
    session_token: SessionToken,
    pub(super) retry_timeout: Duration,
    folders: FolderAccess,
    durable: bool,
    local: LocalPlaces,
    /// The scheme that the places of tables have to have, where one is configured.
    scheme: Option<String>,
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
            folders: FolderAccess::default(),
            durable: true,
            local: LocalPlaces::default(),
            scheme: None,
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
            // A variable that is set to nothing is as good as unset.
            if let Some(value) = env.var(var)?.filter(|value| !value.is_empty()) {
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
        if self.local == LocalPlaces::Refused {
            match env.var(UNITY_CATALOG_FILE_LOCATIONS)?.as_deref() {
                None | Some("false") => {}
                Some("true") => self.local = LocalPlaces::Allowed,
                Some(other) => {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "read environment",
                        format!("{UNITY_CATALOG_FILE_LOCATIONS}={other:?} is not understood"),
                    )
                    .mend("write true or false"));
                }
            }
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

    /// Who may read the folders and files that are made for tables in local folders; their owner
    /// unless set.
    #[must_use]
    pub fn with_folder_access(mut self, access: FolderAccess) -> Self {
        self.folders = access;
        self
    }

    /// Whether a batch in local files is on the disk before it counts as stored: it is unless set to
    /// `false`. Then the system writes files when it likes, and a power failure or a crash of the
    /// system may take back what was reported as stored, or leave a commit whose file is incomplete.
    /// The end of the process alone takes back nothing either way. A URI says so by `durable=false`.
    #[must_use]
    pub fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether a catalog server may name local files as the place of a table (`file:` and paths):
    /// not unless set. Meant for a server on this machine, as the open-source one is in tests; any
    /// other would choose where this process writes. A storage root that is a local folder allows
    /// what is beneath it without this.
    #[must_use]
    pub fn with_file_locations(mut self, allowed: bool) -> Self {
        self.local = match allowed {
            true => LocalPlaces::Allowed,
            false => LocalPlaces::Refused,
        };
        self
    }

    /// The options of a catalog that is a folder or a place in a store itself: nobody else names
    /// places.
    pub(crate) fn of_own_root(&self) -> Self {
        self.clone().with_file_locations(true)
    }

    /// The options where a server names places, and new tables are put beneath a root if one is
    /// configured.
    pub(crate) fn of_server(&self, root: Option<&Url>) -> Self {
        let mut options = self.clone();
        if let Some(root) = root {
            if root.scheme() == "file" && options.local == LocalPlaces::Refused {
                options.local = LocalPlaces::Below(root.path().to_owned());
            }
            // Whoever allows local files as well has said so.
            if options.local != LocalPlaces::Allowed {
                options.scheme = Some(family(root.scheme()).to_owned());
            }
        }
        options
    }

    /// Refuses a place that the configuration does not allow a catalog to name.
    fn check_place(&self, url: &Url, path: &StorePath) -> Result<(), Error> {
        let refused = |cause: String| {
            Error::new(ErrorKind::PermissionDenied, OPEN, cause).mend(format!(
                "move the table, set a storage root beneath which it is, or, for a catalog server on this machine, {UNITY_CATALOG_FILE_LOCATIONS}=true or StorageOptions::with_file_locations"
            ))
        };
        if url.scheme() == "file" {
            let below = |root: &String| {
                StorePath::from_url_path(root).is_ok_and(|root| path.prefix_matches(&root))
            };
            match &self.local {
                LocalPlaces::Allowed => {}
                LocalPlaces::Below(root) if below(root) => {}
                LocalPlaces::Below(root) => {
                    return Err(refused(format!(
                        "the catalog names the local folder `{}`, which is not beneath the storage root `{root}`",
                        url.path()
                    )));
                }
                LocalPlaces::Refused => {
                    return Err(refused(format!(
                        "the catalog names the local folder `{}` as the place of a table",
                        url.path()
                    )));
                }
            }
        }
        match &self.scheme {
            Some(scheme) if family(url.scheme()) != scheme => Err(refused(format!(
                "the catalog names a place in `{}:`, and its storage root is in `{scheme}:`",
                url.scheme()
            ))),
            _ => Ok(()),
        }
    }

    /// Checks the options that are for stores of a URL's kind, as far as that is known without them.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Error> {
        check_options(&self.options, url)
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
        self.check_place(url, &path)?;
        if url.scheme() == "file" {
            let folder = url
                .to_file_path()
                .map_err(|()| invalid(url, "it is no path").mend("name an absolute path"))?;
            let flush: Arc<dyn Flush> = match self.durable {
                true => Arc::new(Disk),
                false => Arc::new(Cached),
            };
            let files = Local::new(&folder, self.folders, flush);
            return Ok(Arc::new(PrefixStore::new(files, path)));
        }
        if let Some((cause, mend)) = wrong_host(url) {
            return Err(invalid(url, &cause).mend(mend));
        }
        self.check(url)?;
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
    pub(super) fn s3_endpoint(&self) -> Option<&str> {
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
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Whether an option's value may not be shown.
fn is_secret(name: &str) -> bool {
    ["secret", "token", "_key", "sas"]
        .iter()
        .any(|part| name.contains(part))
        && !name.ends_with("_file")
}
