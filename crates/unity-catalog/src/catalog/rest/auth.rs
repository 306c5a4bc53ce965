//! Who is asking: nobody, a bearer token, or an OAuth client whose tokens are renewed before they
//! end.

use super::answer::{Fault, shorten};
use super::client::{failure, read};
use crate::storage::{Secret, scrub};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trace_destination_core::ErrorKind;

/// Where Databricks gives tokens out, and for what ("Authorize service principal access to
/// Databricks with OAuth").
const DATABRICKS_PATH: &str = "/oidc/v1/token";
const REQUEST: &str = "grant_type=client_credentials&scope=all-apis";
/// How long a token counts that does not say how long it does: Databricks' hour.
const USUAL_LIFE: u64 = 3600;
/// Tokens are renewed this long before they end, or when half their life is over if that is later.
const MARGIN: Duration = Duration::from_secs(60);

/// What proves who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Auth {
    /// Nothing, as the open-source server wants it unless told otherwise.
    None,
    /// A token as it is.
    Bearer(Secret),
    /// An OAuth client.
    Client {
        id: String,
        secret: Secret,
        /// Where it gets tokens, if not at Databricks' path of the server.
        token_url: Option<String>,
    },
}

impl Auth {
    /// What an error may say of it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "no token",
            Self::Bearer(_) => "the token",
            Self::Client { .. } => "the OAuth client's token",
        }
    }
}

/// The tokens of one server.
pub(super) struct Tokens {
    auth: Auth,
    current: Mutex<Option<Token>>,
}

struct Token {
    text: Secret,
    renew_at: Instant,
}

#[derive(serde::Deserialize)]
struct Given {
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn new(auth: Auth) -> Self {
        Self {
            auth,
            current: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.auth.name()
    }

    /// The header `Authorization`. Whoever comes while a token is fetched waits for it.
    pub(super) async fn header(
        &self,
        http: &reqwest::Client,
        base: &str,
    ) -> Result<Option<HeaderValue>, Fault> {
        let token = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Bearer(token) => token.clone(),
            Auth::Client { .. } => self.renewed(http, base).await?,
        };
        sensitive(format!("Bearer {}", token.expose())).map(Some)
    }

    async fn renewed(&self, http: &reqwest::Client, base: &str) -> Result<Secret, Fault> {
        let mut current = self.current.lock().await;
        if let Some(token) = &*current
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let given = self.fetch(http, base).await?;
        let life = Duration::from_secs(given.expires_in.unwrap_or(USUAL_LIFE));
        let text = Secret::new(given.access_token);
        *current = Some(Token {
            text: text.clone(),
            renew_at: Instant::now() + life.saturating_sub(MARGIN).max(life / 2),
        });
        Ok(text)
    }

    /// Drops the token, which the server did not accept; whether there may be another.
    pub(super) async fn forget(&self) -> bool {
        self.current.lock().await.take().is_some()
    }

    /// Takes the secrets out of what a server says.
    pub(super) async fn scrub(&self, text: String) -> String {
        let current = self.current.lock().await;
        let current = current.as_ref().map(|t| t.text.expose());
        let own = match &self.auth {
            Auth::None => None,
            Auth::Bearer(secret) | Auth::Client { secret, .. } => Some(secret.expose()),
        };
        scrub(text, own.into_iter().chain(current))
    }

    async fn fetch(&self, http: &reqwest::Client, base: &str) -> Result<Given, Fault> {
        let Auth::Client {
            id,
            secret,
            token_url,
        } = &self.auth
        else {
            return Err(Fault::new(
                ErrorKind::Internal,
                "a token was asked for without an OAuth client",
                "report this",
            ));
        };
        let url = match token_url {
            Some(url) => url.clone(),
            None => format!("{base}{DATABRICKS_PATH}"),
        };
        // RFC 6749, 2.3.1: both are form-encoded before they are joined.
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret.expose())));
        let refused = |kind, cause: String| {
            Fault::new(
                kind,
                cause,
                "check the OAuth client's id and secret, and where it gets its tokens",
            )
        };
        let sent = http
            .post(&url)
            .header(AUTHORIZATION, sensitive(format!("Basic {pair}"))?)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(REQUEST)
            .send();
        let response = sent.await.map_err(|e| failure(e, &url))?;
        let status = response.status().as_u16();
        let body = read(response, &url, || format!("POST {url}")).await?;
        if !(200..300).contains(&status) {
            // In this order: of a secret that is cut off, a part would be left.
            let said = scrub(
                String::from_utf8_lossy(&body).into_owned(),
                [secret.expose(), &pair],
            );
            let said = shorten(&said);
            let cause = format!("POST {url} was answered with {status}: {said}");
            return Err(match status {
                429 | 500..=599 => Fault::passing(
                    ErrorKind::Unavailable,
                    cause,
                    "it is tried again; no token was given out",
                ),
                _ => refused(ErrorKind::Unauthenticated, cause),
            });
        }
        serde_json::from_slice(&body).map_err(|_| {
            refused(
                ErrorKind::Unsupported,
                format!("POST {url} was answered with something else than a token"),
            )
        })
    }
}

fn sensitive(text: String) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Fault::new(
            ErrorKind::InvalidConfig,
            "the token holds a character that cannot be sent",
            "use visible ASCII characters; look for a line break at its end",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
