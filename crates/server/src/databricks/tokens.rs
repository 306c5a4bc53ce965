//! Access tokens of a service principal: OAuth client credentials, renewed before they end.

use crate::client::{failure, read};
use crate::config::RENEW_BEFORE;
use crate::error::{Fault, shorten};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use trace_destination_core::ErrorKind;

/// Where tokens are given out, and for what (Databricks, "Authorize service principal access with
/// OAuth").
const PATH: &str = "/oidc/v1/token";
const REQUEST: &str = "grant_type=client_credentials&scope=all-apis";
/// How long a token counts that does not say how long it does.
const USUAL_LIFE: u64 = 3600;

/// What tokens are given out for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
}

/// The current token, for all locations of a host.
pub(crate) struct Tokens {
    grant: Grant,
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
    pub(crate) fn new(grant: Grant) -> Self {
        Self {
            grant,
            current: Mutex::new(None),
        }
    }

    /// A token that is good for a while yet. Whoever comes while one is fetched waits for it.
    pub(crate) async fn current(
        &self,
        http: &reqwest::Client,
        base: &str,
    ) -> Result<Secret, Fault> {
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
            // A token with a short life is used for half of it.
            renew_at: Instant::now() + life.saturating_sub(RENEW_BEFORE).max(life / 2),
        });
        Ok(text)
    }

    /// Takes the token out of what a server says.
    pub(crate) async fn scrub(&self, text: String) -> String {
        match &*self.current.lock().await {
            Some(token) if !token.text.expose().is_empty() => {
                text.replace(token.text.expose(), "[secret]")
            }
            _ => text,
        }
    }

    /// Drops the token: the server did not accept it.
    pub(crate) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    async fn fetch(&self, http: &reqwest::Client, base: &str) -> Result<Given, Fault> {
        let Grant {
            client_id,
            client_secret,
        } = &self.grant;
        let pair = STANDARD.encode(format!("{client_id}:{}", client_secret.expose()));
        let denied = |cause: String, kind| {
            Fault::new(
                kind,
                cause,
                "check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, and the host",
            )
        };
        let mut header = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| {
            denied(
                "the OAuth client cannot be sent".into(),
                ErrorKind::InvalidConfig,
            )
        })?;
        header.set_sensitive(true);
        let response = http
            .post(format!("{base}{PATH}"))
            .header(AUTHORIZATION, header)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(REQUEST)
            .send()
            .await
            .map_err(failure)?;
        let status = response.status();
        if !status.is_success() {
            let said = read(response).await.unwrap_or_default();
            // In this order: of a secret that is cut off, a part would be left.
            let said = String::from_utf8_lossy(&said)
                .replace(client_secret.expose(), "[secret]")
                .replace(&pair, "[secret]");
            let said = shorten(&said);
            let cause = format!("POST {PATH} was answered with {}: {said}", status.as_u16());
            return Err(match status.as_u16() {
                429 | 500..=599 => Fault::passing(
                    ErrorKind::Unavailable,
                    cause,
                    "it is tried again; no token was given out",
                ),
                _ => denied(cause, ErrorKind::Unauthenticated),
            });
        }
        let body = read(response).await?;
        serde_json::from_slice(&body).map_err(|_| {
            denied(
                format!("POST {PATH} was answered with something else than a token"),
                ErrorKind::Unsupported,
            )
        })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}
