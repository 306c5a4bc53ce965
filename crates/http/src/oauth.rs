//! Access tokens by OAuth client credentials (RFC 6749, section 4.4), renewed before they end.

use crate::address::{redacted, warn_of_plain};
use crate::bounded::{json, read};
use crate::failure::Failure;
use crate::secret::{Secret, said};
use crate::times::token_life;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trace_destination_core::{Error, ErrorKind};

/// Tokens are renewed this long before they end, or when half their life is over if that is later.
const MARGIN: Duration = Duration::from_secs(60);
/// Bytes of a token's answer: a token goes into a header, which servers bound at some KiB.
const MAX_ANSWER: usize = 64 << 10;
/// Sent as it is by `application/x-www-form-urlencoded`, in which RFC 6749, section 2.3.1, has ids
/// and secrets written before they are joined; and `~`, which RFC 3986 leaves as it is. Servers that
/// decode take it either way, and those that do not take it only so.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*')
    .remove(b'~');

/// A client that gets access tokens for itself. `Debug` shows neither its secret nor what is in the
/// query of its address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OAuthClient {
    id: String,
    secret: Secret,
    token_url: String,
    scope: Option<String>,
}

impl OAuthClient {
    /// A client with its id and secret, and the address of its tokens. They are sent to that address
    /// and to no other.
    pub fn new(
        id: impl Into<String>,
        secret: impl Into<String>,
        token_url: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            secret: Secret::new(secret),
            token_url: token_url.into(),
            scope: None,
        }
    }

    /// What the tokens are for.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Checks what can be checked without asking for a token.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_web = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https");
        match reqwest::Url::parse(&self.token_url) {
            Ok(url) if is_web(&url) && url.has_host() => Ok(()),
            // Neither the address nor the parser's words: what is mistyped may be the secret.
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "get credentials",
                "the address of the OAuth client's tokens is no web address",
            )
            .mend("write https://host/path")),
        }
    }

    fn shown(&self) -> String {
        redacted(&self.token_url, &[])
    }
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient")
            .field("id", &self.id)
            .field("secret", &self.secret)
            .field("token_url", &self.shown())
            .field("scope", &self.scope)
            .finish()
    }
}

/// Why there is no token.
#[derive(Debug)]
pub struct TokenFault {
    /// What an error calls it.
    pub kind: ErrorKind,
    /// What happened, with the address that was asked, without a secret.
    pub cause: String,
    /// Whether the same may succeed later.
    pub is_passing: bool,
    /// The error beneath.
    pub source: Option<reqwest::Error>,
}

impl TokenFault {
    /// The same for somebody else; the error beneath is the first one's.
    fn again(&self) -> Self {
        Self {
            kind: self.kind,
            cause: self.cause.clone(),
            is_passing: self.is_passing,
            source: None,
        }
    }
}

/// The tokens of one client.
pub(crate) struct Tokens {
    client: OAuthClient,
    /// The id and secret as they are sent.
    pair: Secret,
    /// The secret as it is encoded for that.
    encoded: Secret,
    header: HeaderValue,
    current: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// When the last attempt to get one failed, and why.
    failed: Option<(Instant, TokenFault)>,
}

struct Token {
    text: Secret,
    renew_at: Instant,
}

#[derive(serde::Deserialize)]
struct Given {
    access_token: String,
    expires_in: Option<Value>,
}

impl Tokens {
    pub(crate) fn new(client: OAuthClient) -> Result<Self, Error> {
        client.check()?;
        let encode = |text: &str| utf8_percent_encode(text, FORM).to_string();
        let encoded = encode(client.secret.expose());
        let pair = STANDARD.encode(format!("{}:{encoded}", encode(&client.id)));
        let mut header = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                "get credentials",
                "the OAuth client's id or secret cannot be sent",
            )
        })?;
        header.set_sensitive(true);
        Ok(Self {
            client,
            pair: Secret::new(pair),
            encoded: Secret::new(encoded),
            header,
            current: Mutex::default(),
        })
    }

    /// A token that is good for a while yet. Whoever comes while one is fetched waits for it, and
    /// shares its failure: a server that hangs costs all of them one wait, and not one each.
    pub(crate) async fn current(&self, http: &reqwest::Client) -> Result<Secret, Failure> {
        let asked = Instant::now();
        let mut state = self.current.lock().await;
        if let Some(token) = &state.token
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        if let Some((at, fault)) = &state.failed
            && *at >= asked
        {
            return Err(Failure::Token(Box::new(fault.again())));
        }
        let given = match self.fetch(http).await {
            Ok(given) => given,
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.again()));
                return Err(Failure::Token(Box::new(fault)));
            }
        };
        let life = token_life(given.expires_in.as_ref());
        let text = Secret::new(given.access_token);
        let now = Instant::now();
        state.failed = None;
        state.token = Some(Token {
            text: text.clone(),
            renew_at: now
                .checked_add(life.saturating_sub(MARGIN).max(life / 2))
                .unwrap_or(now),
        });
        Ok(text)
    }

    /// Drops the token that a server did not accept. One that was fetched since stays.
    pub(crate) async fn forget(&self, refused: Option<&Secret>) {
        let mut state = self.current.lock().await;
        if state.token.as_ref().map(|token| &token.text) == refused {
            state.token = None;
        }
    }

    pub(crate) fn secrets(&self) -> [Secret; 3] {
        [&self.client.secret, &self.pair, &self.encoded].map(Secret::clone)
    }

    async fn fetch(&self, http: &reqwest::Client) -> Result<Given, TokenFault> {
        let url = self.client.shown();
        let fault = |kind, cause: String, is_passing| TokenFault {
            kind,
            cause: format!("POST {url} {cause}"),
            is_passing,
            source: None,
        };
        warn_of_plain(&self.client.token_url);
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.client.scope {
            body.push_str("&scope=");
            body.extend(utf8_percent_encode(scope, FORM));
        }
        let sent = http
            .post(&self.client.token_url)
            .header(AUTHORIZATION, self.header.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await;
        let answer = match sent {
            Ok(response) => read(response, MAX_ANSWER).await,
            Err(error) => {
                Err(Failure::of(error).through(|| crate::proxy::of(&self.client.token_url)))
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::Transport {
                class,
                detail,
                source,
            }) => {
                let detail = detail.map(|d| format!(": {d}")).unwrap_or_default();
                return Err(TokenFault {
                    source: Some(source),
                    ..fault(
                        class.kind(),
                        format!("got no answer: {}{detail}", class.cause()),
                        class.is_passing(),
                    )
                });
            }
            Err(Failure::Token(inner)) => return Err(*inner),
            Err(Failure::Credentials(error)) => {
                return Err(fault(error.kind(), error.cause().to_owned(), false));
            }
        };
        let status = answer.status;
        if !(200..300).contains(&status) {
            let secrets = self.secrets();
            let words = said(&answer.body, secrets.iter().map(Secret::expose));
            let cause = format!("was answered with {status}: {words}");
            return Err(match status {
                408 | 425 | 429 | 500..=599 => fault(ErrorKind::Unavailable, cause, true),
                _ => fault(ErrorKind::Unauthenticated, cause, false),
            });
        }
        if answer.is_cut {
            let cause = format!("was answered with more than {} KiB", MAX_ANSWER >> 10);
            return Err(fault(ErrorKind::Unsupported, cause, false));
        }
        // Its text may hold a token: an error does not repeat it.
        match json::<Given>(&answer.body) {
            Some(given) if !given.access_token.is_empty() => Ok(given),
            _ => Err(fault(
                ErrorKind::Unsupported,
                "was answered with something else than a token".into(),
                false,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, secret: &str) -> String {
        let tokens = Tokens::new(OAuthClient::new(id, secret, "https://host/token")).unwrap();
        let header = tokens.header.to_str().unwrap().to_owned();
        let pair = header.strip_prefix("Basic ").unwrap();
        String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap()
    }

    /// Many servers do not decode: what need not be encoded is not.
    #[test]
    fn ids_are_sent_as_they_are_where_that_is_allowed() {
        for same in [
            "8d7c1f3e-0b2a-4c4e-9d6f-1a2b3c4d5e6f",
            "svc.trace_writer-1~a*",
            "dose0123456789abcdef",
        ] {
            assert_eq!(sent(same, same), format!("{same}:{same}"));
        }
        // What would end the id, or be decoded to something else, is encoded.
        for (text, encoded) in [
            ("a:b", "a%3Ab"),
            ("a+b", "a%2Bb"),
            ("a b", "a%20b"),
            ("a%2Db", "a%252Db"),
            ("a/b=&", "a%2Fb%3D%26"),
            ("ü", "%C3%BC"),
            ("a\n", "a%0A"),
        ] {
            assert_eq!(sent(text, text), format!("{encoded}:{encoded}"), "{text}");
        }
    }

    #[test]
    fn a_secret_is_masked_in_the_form_it_is_sent_in() {
        let client = OAuthClient::new("id", "hunter22-a/b", "https://host/token");
        let secrets = Tokens::new(client).unwrap().secrets();
        let words = b"wrong: hunter22-a%2Fb hunter22-a/b aWQ6aHVudGVyMjItYSUyRmI=";
        let said = said(words, secrets.iter().map(Secret::expose));
        assert_eq!(said, "wrong: [secret] [secret] [secret]");
    }
}
