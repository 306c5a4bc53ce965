//! Credentials: fixed ones, or a source that is asked before every request, so that they can change
//! while locations are open.

use crate::failure::Failure;
use crate::file::{LOOK_EVERY, Looked, Stamp};
use crate::oauth::{OAuthClient, Tokens};
use crate::secret::Secret;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use trace_destination_core::{Error, ErrorKind};

const OPERATION: &str = "get credentials";
/// Longest token file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The source of the credentials for one host. Cheap to clone.
///
/// Fixed credentials are equal if their values are; a [`CredentialProvider`] is equal only to
/// itself. So give clones of one value to all locations that share a host. `Debug` shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credentials(pub(crate) Source);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    #[default]
    None,
    Basic {
        user: String,
        password: Secret,
    },
    Bearer(Secret),
    File(PathBuf),
    OAuth(OAuthClient),
    Provider(Provider),
}

/// A provider of the application.
#[derive(Clone)]
pub(crate) struct Provider(Arc<dyn CredentialProvider>);

impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Provider {}

impl Hash for Provider {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The provider's own `Debug` may show secrets.
        f.write_str("Provider")
    }
}

/// A source of credentials that the application implements, such as a client of a vault.
#[async_trait]
pub trait CredentialProvider: Send + Sync + 'static {
    /// The credential for the next request.
    ///
    /// # Behavior
    /// Called before every request of every location that uses this provider, so cache a value
    /// while it is valid. The future may be dropped at any await point.
    ///
    /// # Errors
    /// If the application has no credential. The request is not sent. The error is reported with
    /// the location's name, and retried if it is marked as retryable. Its text must not contain a
    /// secret.
    async fn credential(&self) -> Result<Credential, Error>;

    /// Called when a server answered 401 to the last credential. Return true if the next one may be
    /// different; the request is then sent once more. The default is false.
    fn rejected(&self) -> bool {
        false
    }
}

/// One credential, which becomes a header of a request. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Credential(Value);

#[derive(Clone, Debug)]
enum Value {
    None,
    Basic { user: String, password: Secret },
    Bearer(Secret),
    Header { name: String, value: Secret },
}

impl Credential {
    /// No credential: the request is sent without one.
    pub fn none() -> Self {
        Self(Value::None)
    }

    /// HTTP Basic.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), Secret::new(password));
        Self(Value::Basic { user, password })
    }

    /// A bearer token, in the header `Authorization`.
    pub fn bearer(token: impl Into<String>) -> Self {
        Self(Value::Bearer(Secret::new(token)))
    }

    /// A header with any name, such as the API keys of OTLP vendors.
    pub fn header(name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), Secret::new(value));
        Self(Value::Header { name, value })
    }

    pub(crate) fn proof(&self) -> Result<Proof, Error> {
        let (name, text, mut secrets) = match &self.0 {
            Value::None => return Ok(Proof::default()),
            Value::Basic { user, password } => {
                let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
                let text = format!("Basic {pair}");
                (
                    AUTHORIZATION,
                    text,
                    vec![password.clone(), Secret::new(pair)],
                )
            }
            Value::Bearer(token) => {
                let text = format!("Bearer {}", token.expose());
                (AUTHORIZATION, text, vec![token.clone()])
            }
            Value::Header { name, value } => {
                let name = HeaderName::try_from(name).map_err(|_| unsendable("header"))?;
                (name, value.expose().to_owned(), vec![value.clone()])
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| unsendable("token"))?;
        value.set_sensitive(true);
        secrets.retain(|s| !s.expose().is_empty());
        Ok(Proof {
            header: Some((name, value)),
            secrets,
        })
    }
}

/// A credential as a header, with the texts that must not be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    header: Option<(HeaderName, HeaderValue)>,
    pub(crate) secrets: Vec<Secret>,
}

impl Proof {
    /// Whether both send the same header.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.header == other.header
    }

    pub(crate) fn put_into(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = &self.header {
            headers.insert(name, value.clone());
        }
    }
}

fn unsendable(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        OPERATION,
        format!("the {what} holds a character that cannot be sent"),
    )
    .mend("use visible ASCII characters; look for a line break at its end")
}

impl Credentials {
    /// No credentials: requests are sent without them.
    pub fn none() -> Self {
        Self::default()
    }

    /// HTTP Basic.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), Secret::new(password));
        Self(Source::Basic { user, password })
    }

    /// A bearer token that does not change.
    pub fn bearer(token: impl Into<String>) -> Self {
        Self(Source::Bearer(Secret::new(token)))
    }

    /// A bearer token in a file, as Kubernetes and vault agents write them. The file is checked at
    /// most once a second while requests are sent, and after a 401, and read again if it has
    /// changed. Blanks and line ends around the token are ignored.
    pub fn bearer_file(file: impl Into<PathBuf>) -> Self {
        Self(Source::File(file.into()))
    }

    /// Tokens from an OAuth client (client credentials grant), renewed before they expire.
    pub fn oauth(client: OAuthClient) -> Self {
        Self(Source::OAuth(client))
    }

    /// A function that is called before every request. It must not block or take long: let it
    /// return a value that other code keeps up to date.
    pub fn from_fn(
        current: impl Fn() -> Result<Credential, Error> + Send + Sync + 'static,
    ) -> Self {
        struct Function<F>(F);
        #[async_trait]
        impl<F> CredentialProvider for Function<F>
        where
            F: Fn() -> Result<Credential, Error> + Send + Sync + 'static,
        {
            async fn credential(&self) -> Result<Credential, Error> {
                (self.0)()
            }

            fn rejected(&self) -> bool {
                // The value may have changed since the request was sent.
                true
            }
        }
        Self::provider(Arc::new(Function(current)))
    }

    /// A provider of the application.
    pub fn provider(provider: Arc<dyn CredentialProvider>) -> Self {
        Self(Source::Provider(Provider(provider)))
    }

    /// Whether requests are sent without credentials.
    pub fn is_none(&self) -> bool {
        self.0 == Source::None
    }

    /// Whether the credentials never change.
    pub fn is_fixed(&self) -> bool {
        matches!(
            self.0,
            Source::None | Source::Basic { .. } | Source::Bearer(_)
        )
    }

    /// The credentials as an error describes them.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Source::None => crate::fault::NO_CREDENTIALS,
            Source::Basic { .. } => "user and password",
            Source::Bearer(_) => "the token",
            Source::File(_) => "the token in the file",
            Source::OAuth(_) => "the OAuth client's token",
            Source::Provider(_) => "the credential of the application's provider",
        }
    }

    /// Checks the credentials as far as that is possible without a request.
    ///
    /// # Errors
    /// `InvalidConfig` for values that cannot be sent, and for a token file that cannot be read.
    pub fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Source::Basic { .. } | Source::Bearer(_) => self.fixed().proof().map(drop),
            Source::File(file) => read(file).and_then(|c| c.proof()).map(drop),
            Source::OAuth(client) => client.check(),
            Source::None | Source::Provider(_) => Ok(()),
        }
    }

    fn fixed(&self) -> Credential {
        match &self.0 {
            Source::Basic { user, password } => Credential::basic(user, password.expose()),
            Source::Bearer(token) => Credential::bearer(token.expose()),
            _ => Credential::none(),
        }
    }
}

fn read(file: &Path) -> Result<Credential, Error> {
    let unusable = |cause: &str| {
        Error::new(
            ErrorKind::InvalidConfig,
            OPERATION,
            format!("the token file `{}` {cause}", file.display()),
        )
        .mend("name a readable file that holds a token and nothing else")
    };
    let about = std::fs::metadata(file).map_err(|e| unusable("cannot be read").caused_by(e))?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(unusable("is no file of at most 64 KiB"));
    }
    let text =
        std::fs::read_to_string(file).map_err(|e| unusable("cannot be read").caused_by(e))?;
    match text.trim() {
        "" => Err(unusable("is empty")),
        token => Ok(Credential::bearer(token)),
    }
}

/// Credentials in use, with their current value.
pub(crate) struct Authorizer {
    credentials: Credentials,
    live: Live,
    /// The last value that was sent, for [`Authorizer::secrets`].
    sent: Mutex<Arc<Proof>>,
}

enum Live {
    Fixed,
    File(Mutex<FileState>),
    OAuth(Box<Tokens>),
    Provider(Provider),
}

struct FileState {
    stamp: Stamp,
    looked: Looked,
    proof: Option<Arc<Proof>>,
}

impl Authorizer {
    /// # Errors
    /// `InvalidConfig` for values that cannot be sent.
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, Error> {
        let live = match &credentials.0 {
            Source::None | Source::Basic { .. } | Source::Bearer(_) => Live::Fixed,
            Source::File(_) => Live::File(Mutex::new(FileState {
                stamp: Stamp::default(),
                looked: Looked::now(),
                proof: None,
            })),
            Source::OAuth(client) => Live::OAuth(Box::new(Tokens::new(client.clone())?)),
            Source::Provider(provider) => Live::Provider(provider.clone()),
        };
        Ok(Self {
            sent: Mutex::new(Arc::new(credentials.fixed().proof()?)),
            live,
            credentials: credentials.clone(),
        })
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn sent(&self) -> Arc<Proof> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The credential for the next request.
    pub(crate) async fn proof(&self, http: &reqwest::Client) -> Result<Arc<Proof>, Failure> {
        let proof = match &self.live {
            Live::Fixed => return Ok(self.sent()),
            Live::File(state) => self.of_file(state).map_err(Failure::Credentials)?,
            Live::OAuth(tokens) => {
                let token = tokens.current(http).await?;
                let credential = Credential::bearer(token.expose());
                Arc::new(credential.proof().map_err(Failure::Credentials)?)
            }
            Live::Provider(provider) => {
                let credential = provider.0.credential().await;
                let proof = credential.and_then(|c| c.proof());
                Arc::new(proof.map_err(Failure::Credentials)?)
            }
        };
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = proof.clone();
        Ok(proof)
    }

    fn of_file(&self, state: &Mutex<FileState>) -> Result<Arc<Proof>, Error> {
        let Source::File(file) = &self.credentials.0 else {
            return Ok(Arc::default());
        };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.looked.is_due(LOOK_EVERY);
        if let Some(proof) = &state.proof
            && !due
        {
            return Ok(proof.clone());
        }
        let stamp = Stamp::of(file);
        match &state.proof {
            Some(proof) if stamp == state.stamp => Ok(proof.clone()),
            before => match (read(file).and_then(|c| c.proof()), before) {
                (Ok(proof), _) => {
                    let proof = Arc::new(proof);
                    (state.stamp, state.proof) = (stamp, Some(proof.clone()));
                    Ok(proof)
                }
                // The file may be being written: the stamp is not kept, so it is read again.
                (Err(error), Some(proof)) => {
                    tracing::debug!(error = %error, "the token at hand is used on");
                    Ok(proof.clone())
                }
                (Err(error), None) => Err(error),
            },
        }
    }

    /// Called if the server did not accept `proof`. Returns whether there may be another.
    pub(crate) async fn rejected(&self, proof: &Arc<Proof>) -> bool {
        match &self.live {
            Live::Fixed => false,
            Live::File(state) => {
                let Source::File(file) = &self.credentials.0 else {
                    return false;
                };
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = Stamp::of(file) != state.stamp;
                // Another request may have replaced it already.
                let newer = state.proof.as_ref().is_some_and(|p| !Arc::ptr_eq(p, proof));
                if changed
                    && !newer
                    && let Ok(Ok(next)) = read(file).map(|c| c.proof())
                {
                    (state.stamp, state.proof) = (Stamp::of(file), Some(Arc::new(next)));
                }
                changed || newer
            }
            Live::OAuth(tokens) => {
                let refused = proof.secrets.first();
                tokens.forget(refused).await;
                true
            }
            Live::Provider(provider) => provider.0.rejected(),
        }
    }

    /// The texts that must not be shown: of the last credential, and of the client that gets
    /// tokens.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.sent().secrets.clone();
        if let Live::OAuth(tokens) = &self.live {
            secrets.extend(tokens.secrets());
        }
        secrets
    }
}
