//! Which Unity Catalog server to ask, who is asking, and where new tables go.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;
use trace_destination_core::{EnvSource, Error, ErrorKind, LocationUri, parse_var};
use trace_destination_http::{Credentials, OAuthClient, Secret, Tls};
use url::Url;

/// Environment variable: address of the Unity Catalog server, such as `http://127.0.0.1:8080`.
pub const UNITY_CATALOG_URI: &str = "UNITY_CATALOG_URI";
/// Environment variable: a bearer token for the server at [`UNITY_CATALOG_URI`].
pub const UNITY_CATALOG_TOKEN: &str = "UNITY_CATALOG_TOKEN";
/// Environment variable: id of an OAuth client that gets its tokens by client credentials.
pub const UNITY_CATALOG_CLIENT_ID: &str = "UNITY_CATALOG_CLIENT_ID";
/// Environment variable: secret of the OAuth client.
pub const UNITY_CATALOG_CLIENT_SECRET: &str = "UNITY_CATALOG_CLIENT_SECRET";
/// Environment variable: where the OAuth client gets its tokens; `<server>/oidc/v1/token` unless
/// set, which is Databricks' place.
pub const UNITY_CATALOG_TOKEN_URL: &str = "UNITY_CATALOG_TOKEN_URL";
/// Environment variable: storage URL below which new tables are put, as
/// `<root>/<catalog>/<schema>/<table>`.
pub const UNITY_CATALOG_STORAGE_ROOT: &str = "UNITY_CATALOG_STORAGE_ROOT";
/// Environment variable: seconds for one request to the server; 30 unless set.
pub const UNITY_CATALOG_TIMEOUT: &str = "UNITY_CATALOG_TIMEOUT";
/// Environment variable: PEM file with the certificate authorities to trust instead of the
/// system's.
pub const UNITY_CATALOG_CA_FILE: &str = "UNITY_CATALOG_CA_FILE";
/// Environment variable: `vended` (unless set) asks the catalog for credentials of its storage;
/// `own` uses those of this process's environment or code.
pub const UNITY_CATALOG_STORAGE_CREDENTIALS: &str = "UNITY_CATALOG_STORAGE_CREDENTIALS";

/// Environment variable: address of a Databricks workspace, where [`UNITY_CATALOG_URI`] is not set.
pub const DATABRICKS_HOST: &str = "DATABRICKS_HOST";
/// Environment variable: a Databricks access token.
pub const DATABRICKS_TOKEN: &str = "DATABRICKS_TOKEN";
/// Environment variable: id of a Databricks service principal.
pub const DATABRICKS_CLIENT_ID: &str = "DATABRICKS_CLIENT_ID";
/// Environment variable: OAuth secret of a Databricks service principal.
pub const DATABRICKS_CLIENT_SECRET: &str = "DATABRICKS_CLIENT_SECRET";

/// Where Databricks gives tokens out, and for what ("Authorize service principal access to
/// Databricks with OAuth").
const TOKEN_PATH: &str = "/oidc/v1/token";
const TOKEN_SCOPE: &str = "all-apis";
/// Longest time of one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The path below a server's address (Unity Catalog REST API 2.1).
const API: &str = "/api/2.1/unity-catalog";

const BUILD: &str = "configure Unity Catalog";

/// Whose credentials open a table's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageCredentials {
    /// Short-lived ones that the catalog gives out for each table.
    #[default]
    Vended,
    /// This process's own, from [`StorageOptions`](crate::StorageOptions). The catalog then only
    /// names tables; for servers that cannot give credentials out.
    Own,
}

/// A Unity Catalog server: the open-source one (0.5 or later) or a Databricks workspace.
///
/// `Debug` shows no secret. Two locations with equal settings share connections and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CatalogServer {
    /// Without the API's path, without `/` at its end.
    pub(super) base: String,
    pub(super) auth: Auth,
    pub(super) withheld: Withheld,
    pub(crate) storage_root: Option<Url>,
    pub(super) storage_credentials: StorageCredentials,
    /// [`TIMEOUT`] unless set.
    pub(super) timeout: Option<Duration>,
    pub(super) authorities: Option<PathBuf>,
}

/// What proves who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Auth {
    /// Nothing, as the open-source server wants it unless told otherwise.
    None,
    Given(Credentials),
    /// An OAuth client.
    Client {
        id: String,
        secret: Secret,
        /// Where it gets tokens, if not at Databricks' path of the server. Its query may be secret.
        token_url: Option<Secret>,
    },
}

/// Whether the environment has credentials that are not for this server. It makes no other server
/// of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Withheld(pub(super) bool);

impl PartialEq for Withheld {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Withheld {}

impl Hash for Withheld {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl CatalogServer {
    /// A server at an address such as `http://127.0.0.1:8080` or
    /// `https://workspace.cloud.databricks.com`, asked without credentials.
    ///
    /// # Errors
    /// `InvalidConfig` if the address is not of `http` or `https`, or carries a secret or a query.
    pub fn new(address: &str) -> Result<Self, Error> {
        Ok(Self {
            base: base(address)?,
            auth: Auth::None,
            withheld: Withheld(false),
            storage_root: None,
            storage_credentials: StorageCredentials::Vended,
            timeout: None,
            authorities: None,
        })
    }

    /// Asks with a bearer token: one that the open-source server issued, or a Databricks personal
    /// access token. An empty token stands for none.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        let token: String = token.into();
        self.auth = match token.is_empty() {
            true => Auth::None,
            false => Auth::Given(Credentials::bearer(token)),
        };
        self
    }

    /// Asks with credentials of any kind: also those that change while locations are open, from a
    /// file, a function, an OAuth client or a provider of the application. Servers that are given
    /// clones of one value share its tokens.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.auth = match credentials.is_none() {
            true => Auth::None,
            false => Auth::Given(credentials),
        };
        self
    }

    /// Asks with tokens that an OAuth client gets by client credentials, as Databricks' service
    /// principals do at `<server>/oidc/v1/token`. They are renewed before they end.
    #[must_use]
    pub fn with_oauth(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        let token_url = match &self.auth {
            Auth::Client { token_url, .. } => token_url.clone(),
            _ => None,
        };
        self.auth = Auth::Client {
            id: client_id.into(),
            secret: Secret::new(client_secret),
            token_url,
        };
        self
    }

    /// Where the OAuth client gets its tokens, if not at Databricks' place. Call it after
    /// [`with_oauth`](Self::with_oauth).
    #[must_use]
    pub fn with_token_url(mut self, url: impl Into<String>) -> Self {
        if let Auth::Client { token_url, .. } = &mut self.auth {
            *token_url = Some(Secret::new(url));
        }
        self
    }

    /// Where new tables go: `<root>/<catalog>/<schema>/<table>`. Without it, below the storage root
    /// of the schema, else of the catalog.
    ///
    /// On Databricks an external table may not lie in managed storage, which those storage roots
    /// are: name a place below an external location there.
    ///
    /// # Errors
    /// `InvalidConfig` if it is no storage URL, or carries a secret.
    pub fn with_storage_root(mut self, root: &str) -> Result<Self, Error> {
        self.storage_root = Some(crate::storage::parse_url(root)?);
        Ok(self)
    }

    /// Whose credentials open a table's storage; those the catalog gives out, unless told
    /// otherwise.
    #[must_use]
    pub fn with_storage_credentials(mut self, credentials: StorageCredentials) -> Self {
        self.storage_credentials = credentials;
        self
    }

    /// Longest time of one request; 30 s unless set.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.max(Duration::from_millis(1)));
        self
    }

    /// PEM file with the certificate authorities to trust instead of the system's. Read when the
    /// first location is opened.
    #[must_use]
    pub fn with_certificate_authorities(mut self, file: impl Into<PathBuf>) -> Self {
        self.authorities = Some(file.into());
        self
    }

    /// The server the environment names: [`UNITY_CATALOG_URI`], else [`DATABRICKS_HOST`]; `None` if
    /// neither is set. With everything else the environment says, as by
    /// [`with_env`](Self::with_env).
    ///
    /// # Errors
    /// `InvalidConfig` naming the variable that is wrong or missing.
    pub fn from_env(env: &dyn EnvSource) -> Result<Option<Self>, Error> {
        let server = match (env.var(UNITY_CATALOG_URI)?, env.var(DATABRICKS_HOST)?) {
            (Some(address), _) => Self::new(&address).map_err(|e| names(e, UNITY_CATALOG_URI))?,
            (None, Some(host)) => workspace(&host)?,
            (None, None) => return Ok(None),
        };
        server.with_env(env).map(Some)
    }

    /// Whatever the environment says about reaching this server and is not set already.
    ///
    /// Credentials belong to the server that the variable beside them names: those of
    /// `UNITY_CATALOG_…` to [`UNITY_CATALOG_URI`], those of `DATABRICKS_…` to [`DATABRICKS_HOST`].
    /// Another server does not get them, and where nothing is named nobody does; an answer of 401 or
    /// 403 then says what to set.
    ///
    /// # Errors
    /// As for [`from_env`](Self::from_env).
    pub fn with_env(mut self, env: &dyn EnvSource) -> Result<Self, Error> {
        if self.auth == Auth::None {
            self = self.with_credentials_of(env)?;
        }
        if let (None, Some(root)) = (&self.storage_root, env.var(UNITY_CATALOG_STORAGE_ROOT)?) {
            self = self
                .with_storage_root(&root)
                .map_err(|e| names(e, UNITY_CATALOG_STORAGE_ROOT))?;
        }
        let seconds = parse_var::<u64>(env, UNITY_CATALOG_TIMEOUT, "a whole number of seconds")?;
        if let (None, Some(seconds)) = (self.timeout, seconds) {
            self = self.with_timeout(Duration::from_secs(seconds.max(1)));
        }
        if let (None, Some(file)) = (&self.authorities, env.var(UNITY_CATALOG_CA_FILE)?) {
            self = self.with_certificate_authorities(file);
        }
        match env.var(UNITY_CATALOG_STORAGE_CREDENTIALS)?.as_deref() {
            None | Some("vended") => {}
            Some("own") => self = self.with_storage_credentials(StorageCredentials::Own),
            Some(other) => {
                return Err(invalid(format!(
                    "{UNITY_CATALOG_STORAGE_CREDENTIALS}={other:?} is not understood"
                ))
                .mend("write vended or own"));
            }
        }
        Ok(self)
    }

    fn with_credentials_of(mut self, env: &dyn EnvSource) -> Result<Self, Error> {
        let named = env.var(UNITY_CATALOG_URI)?;
        let is_own = named.is_some_and(|named| base(&named).is_ok_and(|b| b == self.base));
        if !is_own {
            let set = [UNITY_CATALOG_TOKEN, UNITY_CATALOG_CLIENT_ID];
            for variable in set {
                self.withheld.0 |= env.var(variable)?.is_some();
            }
        }
        let of_workspace = match env.var(DATABRICKS_HOST)? {
            Some(host) => workspace(&host)?.base == self.base,
            None => false,
        };
        let sets = [
            (
                is_own,
                UNITY_CATALOG_TOKEN,
                UNITY_CATALOG_CLIENT_ID,
                UNITY_CATALOG_CLIENT_SECRET,
            ),
            (
                of_workspace,
                DATABRICKS_TOKEN,
                DATABRICKS_CLIENT_ID,
                DATABRICKS_CLIENT_SECRET,
            ),
        ];
        for (_, token, id_var, secret) in sets.into_iter().filter(|(is_meant, ..)| *is_meant) {
            if let Some(token) = env.var(token)? {
                return Ok(self.with_token(token));
            }
            let missing = |set: &str, unset: &str| {
                invalid(format!("{set} is set and {unset} is not"))
                    .mend("set both, or a token instead")
            };
            match (env.var(id_var)?, env.var(secret)?) {
                (None, None) => {}
                (Some(_), None) => return Err(missing(id_var, secret)),
                (None, Some(_)) => return Err(missing(secret, id_var)),
                (Some(id), Some(secret)) => {
                    let server = self.with_oauth(id, secret);
                    // It is named beside the first set, and gets the secret of no other.
                    return Ok(match env.var(UNITY_CATALOG_TOKEN_URL)? {
                        Some(url) if id_var == UNITY_CATALOG_CLIENT_ID => {
                            server.with_token_url(url)
                        }
                        _ => server,
                    });
                }
            }
        }
        Ok(self)
    }

    /// The address of the server, without the API's path.
    pub fn address(&self) -> &str {
        &self.base
    }

    /// Reads the files once, so that a wrong one is reported when a location is made.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.tls().check()?;
        trace_destination_http::check_proxy(&self.base)?;
        self.credentials().check()
    }

    pub(super) fn tls(&self) -> Tls {
        Tls {
            authorities: self.authorities.clone(),
            ..Tls::default()
        }
    }

    pub(super) fn credentials(&self) -> Credentials {
        match &self.auth {
            Auth::None => Credentials::none(),
            Auth::Given(credentials) => credentials.clone(),
            Auth::Client {
                id,
                secret,
                token_url,
            } => {
                let own = || format!("{}{TOKEN_PATH}", self.base);
                let url = token_url
                    .as_ref()
                    .map_or_else(own, |u| u.expose().to_owned());
                let client = OAuthClient::new(id, secret.expose(), url);
                Credentials::oauth(client.with_scope(TOKEN_SCOPE))
            }
        }
    }

    /// Longest time of one request.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// The address of the API.
    pub(super) fn api(&self) -> String {
        format!("{}{API}", self.base)
    }
}

/// The workspace at a host, which is often written without a scheme.
fn workspace(host: &str) -> Result<CatalogServer, Error> {
    let address = match host.contains("://") {
        true => host.to_owned(),
        false => format!("https://{host}"),
    };
    CatalogServer::new(&address).map_err(|e| names(e, DATABRICKS_HOST))
}

fn base(address: &str) -> Result<String, Error> {
    let uri: LocationUri =
        address
            .trim()
            .parse()
            .map_err(|error: Error| match address.contains("://") {
                true => error,
                false => {
                    error.mend("write http://host:8080 or https://workspace.cloud.databricks.com")
                }
            })?;
    let is_web = matches!(uri.scheme(), "http" | "https");
    if !is_web || uri.authority().is_none_or(str::is_empty) {
        return Err(
            invalid("the address of the Unity Catalog server is no web address")
                .mend("write http://host:8080 or https://workspace.cloud.databricks.com"),
        );
    }
    if uri.query_pairs().next().is_some() {
        return Err(
            invalid("the address of the Unity Catalog server has parameters").mend(
                "write the address alone; tokens and the storage root have variables of their own",
            ),
        );
    }
    let text = uri.as_str().trim_end_matches('/');
    Ok(text.strip_suffix(API).unwrap_or(text).to_owned())
}

/// The same error, saying which variable it is about.
fn names(error: Error, variable: &str) -> Error {
    let mended = error.mend_hint().unwrap_or("correct it").to_owned();
    Error::new(
        ErrorKind::InvalidConfig,
        "read environment",
        format!("{variable} cannot be used: {}", error.cause()),
    )
    .mend(mended)
}

pub(super) fn invalid(cause: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, BUILD, cause.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn env(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    }

    #[test]
    fn addresses() {
        for (given, base) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://h:8080/api/2.1/unity-catalog/", "http://h:8080"),
            ("https://H/uc/", "https://h/uc"),
        ] {
            assert_eq!(CatalogServer::new(given).unwrap().address(), base);
        }
        for wrong in [
            "",
            "h:8080",
            "ftp://h",
            "http://u:secret@h",
            "http://h?token=secret",
            "http://",
        ] {
            let error = CatalogServer::new(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{wrong}");
            assert!(error.mend_hint().is_some(), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    #[test]
    fn the_environment_in_order() {
        let from = |vars: &[(&str, &str)]| CatalogServer::from_env(&env(vars)).unwrap();
        assert_eq!(from(&[]), None);
        assert_eq!(from(&[(UNITY_CATALOG_TOKEN, "t")]), None);
        let server = |address| CatalogServer::new(address).unwrap();
        let uc = (UNITY_CATALOG_URI, "http://uc:8080");
        let host = (DATABRICKS_HOST, "w.cloud.databricks.com");
        let pat = (DATABRICKS_TOKEN, "pat");
        assert_eq!(
            from(&[uc, host, pat]),
            Some(server("http://uc:8080")),
            "a workspace's token is not for another server"
        );
        assert_eq!(
            from(&[host, pat]),
            Some(server("https://w.cloud.databricks.com").with_token("pat"))
        );
        assert_eq!(
            from(&[
                host,
                (DATABRICKS_CLIENT_ID, "i"),
                (DATABRICKS_CLIENT_SECRET, "s")
            ]),
            Some(server("https://w.cloud.databricks.com").with_oauth("i", "s"))
        );
        assert_eq!(
            from(&[
                uc,
                (UNITY_CATALOG_CLIENT_ID, "i"),
                (UNITY_CATALOG_CLIENT_SECRET, "s"),
                (UNITY_CATALOG_TOKEN_URL, "http://idp/token"),
                (UNITY_CATALOG_STORAGE_ROOT, "s3://bucket/traces/"),
                (UNITY_CATALOG_TIMEOUT, "7"),
                (UNITY_CATALOG_CA_FILE, "/ca.pem"),
                (UNITY_CATALOG_STORAGE_CREDENTIALS, "own"),
            ]),
            Some(
                server("http://uc:8080")
                    .with_oauth("i", "s")
                    .with_token_url("http://idp/token")
                    .with_storage_root("s3://bucket/traces")
                    .unwrap()
                    .with_timeout(Duration::from_secs(7))
                    .with_certificate_authorities("/ca.pem")
                    .with_storage_credentials(StorageCredentials::Own)
            )
        );
    }

    #[test]
    fn credentials_go_to_the_server_they_are_for() {
        let with = |address: &str, vars: &[(&str, &str)]| {
            let server = CatalogServer::new(address).unwrap();
            server.with_env(&env(vars)).unwrap().auth
        };
        let token = (UNITY_CATALOG_TOKEN, "t");
        let named = (UNITY_CATALOG_URI, "http://uc:8080/");
        let pat = (DATABRICKS_TOKEN, "pat");
        let host = (DATABRICKS_HOST, "w.cloud.databricks.com");
        let bearer = |text: &str| Auth::Given(Credentials::bearer(text));
        assert_eq!(with("http://uc:8080", &[named, token]), bearer("t"));
        // Where nothing is named, nobody gets it; and a refusal says so.
        let server = CatalogServer::new("http://uc:8080").unwrap();
        let server = server.with_env(&env(&[token])).unwrap();
        assert_eq!((&server.auth, server.withheld.0), (&Auth::None, true));
        for other in [
            "https://uc:8080",
            "http://uc",
            "http://uc:8080.x",
            "http://uc:8081",
        ] {
            let set = [(UNITY_CATALOG_URI, other), token];
            assert_eq!(with("http://uc:8080", &set), Auth::None, "{other}");
        }
        // The place of one set's tokens gets no secret of the other.
        let set = [
            host,
            (DATABRICKS_CLIENT_ID, "i"),
            (DATABRICKS_CLIENT_SECRET, "s"),
            (UNITY_CATALOG_TOKEN_URL, "http://idp/token"),
        ];
        match with("https://w.cloud.databricks.com", &set) {
            Auth::Client { token_url, .. } => assert_eq!(token_url, None),
            other => panic!("{other:?}"),
        }
        assert_eq!(with("http://other:8080", &[named, token]), Auth::None);
        assert_eq!(with("http://uc:8080", &[host, pat]), Auth::None);
        assert_eq!(
            with("https://w.cloud.databricks.com", &[host, pat]),
            bearer("pat")
        );
        // Code beats the environment.
        let server = CatalogServer::new("http://uc:8080").unwrap();
        let server = server.with_token("mine").with_env(&env(&[token])).unwrap();
        assert_eq!(server.auth, bearer("mine"));
    }

    #[test]
    fn wrong_variables_are_named_and_secrets_are_not_shown() {
        let uc = (UNITY_CATALOG_URI, "http://uc:8080");
        for (vars, named) in [
            (vec![(UNITY_CATALOG_URI, "uc")], UNITY_CATALOG_URI),
            (vec![(DATABRICKS_HOST, "ftp://h")], DATABRICKS_HOST),
            (
                vec![uc, (UNITY_CATALOG_CLIENT_ID, "i")],
                UNITY_CATALOG_CLIENT_SECRET,
            ),
            (
                vec![uc, (UNITY_CATALOG_CLIENT_SECRET, "hunter2")],
                UNITY_CATALOG_CLIENT_ID,
            ),
            (
                vec![uc, (UNITY_CATALOG_STORAGE_ROOT, "hunter2")],
                UNITY_CATALOG_STORAGE_ROOT,
            ),
            (
                vec![uc, (UNITY_CATALOG_TIMEOUT, "long")],
                UNITY_CATALOG_TIMEOUT,
            ),
            (
                vec![uc, (UNITY_CATALOG_STORAGE_CREDENTIALS, "mine")],
                UNITY_CATALOG_STORAGE_CREDENTIALS,
            ),
        ] {
            let error = CatalogServer::from_env(&env(&vars)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(named), "{error}");
            assert!(error.mend_hint().is_some(), "{error}");
        }
        let server = CatalogServer::new("http://h").unwrap();
        for server in [
            server.clone().with_token("hunter2"),
            server
                .with_oauth("id", "hunter2")
                .with_token_url("https://u:hunter2@idp/token?key=hunter2"),
        ] {
            assert!(!format!("{server:?}").contains("hunter2"));
        }
    }
}
