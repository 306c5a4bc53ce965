//! Access tokens by the OAuth client credentials grant (RFC 6749, section 4.4), renewed before they
//! expire.

use crate::address::{redacted, warn_of_plain};
use crate::bounded::{Answer, json, read};
use crate::failure::{Failure, TokenFault};
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

/// Tokens are renewed this long before they expire, or after half their life if that is later.
const MARGIN: Duration = Duration::from_secs(60);
/// Longest answer of a token server, in bytes: a token goes into a header, which servers limit to
/// some KiB.
const MAX_ANSWER: usize = 64 << 10;
/// Characters that `application/x-www-form-urlencoded` leaves as they are, and `~`, which RFC 3986
/// leaves too. RFC 6749, section 2.3.1, requires ids and secrets in this encoding. `~` is left
/// because servers that decode accept it, and servers that do not decode need it.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*')
    .remove(b'~');

/// An OAuth client that gets access tokens for itself. `Debug` shows neither its secret nor the
/// query of its address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OAuthClient {
    id: String,
    secret: Secret,
    token_url: String,
    scope: Option<String>,
}

impl OAuthClient {
    /// A client with its id and secret, and the address of the token endpoint. Id and secret are
    /// sent only to that address.
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

    /// Sets the scope of the tokens.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Checks the client as far as that is possible without a request.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_web = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https");
        match reqwest::Url::parse(&self.token_url) {
            Ok(url) if is_web(&url) && url.has_host() => Ok(()),
            // Shows neither the address nor the parser's message: the mistyped text may be the
            // secret.
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

/// The tokens of one client.
pub(crate) struct Tokens {
    client: OAuthClient,
    /// Id and secret, encoded as they are sent.
    pair: Secret,
    /// The secret in that encoding.
    encoded: Secret,
    header: HeaderValue,
    current: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The token that was given out last, also where a server did not accept it: whoever is asked
    /// for the next one may repeat it.
    last: Option<Secret>,
    /// When the last attempt to get a token failed, and why.
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

    /// A token that stays valid for a while. Requests that come while one is being fetched wait for
    /// it and share its failure, so that a token server that hangs costs them one wait together.
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
        let given = match self.fetch(http, state.last.as_ref()).await {
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
        state.last = Some(text.clone());
        state.token = Some(Token {
            text: text.clone(),
            renew_at: now
                .checked_add(life.saturating_sub(MARGIN).max(life / 2))
                .unwrap_or(now),
        });
        Ok(text)
    }

    /// Drops a token that a server did not accept, unless a newer one has replaced it.
    pub(crate) async fn forget(&self, refused: Option<&Secret>) {
        let mut state = self.current.lock().await;
        if state.token.as_ref().map(|token| &token.text) == refused {
            state.token = None;
        }
    }

    pub(crate) fn secrets(&self) -> [Secret; 3] {
        [&self.client.secret, &self.pair, &self.encoded].map(Secret::clone)
    }

    async fn ask(&self, http: &reqwest::Client, body: String) -> Result<Answer, Failure> {
        #[cfg(fuzzing)]
        if let Some(answer) = crate::fuzzing::answer(
            &self.client.token_url,
            &[(AUTHORIZATION, self.header.clone())].into_iter().collect(),
            MAX_ANSWER,
        ) {
            return Ok(answer);
        }
        let sent = http
            .post(&self.client.token_url)
            .header(AUTHORIZATION, self.header.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) => read(response, MAX_ANSWER).await,
            Err(error) => {
                Err(Failure::of(error).through(|| crate::proxy::of(&self.client.token_url)))
            }
        }
    }

    /// Asks for a token. `last` is the one before, which is not to be shown either.
    async fn fetch(
        &self,
        http: &reqwest::Client,
        last: Option<&Secret>,
    ) -> Result<Given, TokenFault> {
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
        let answer = self.ask(http, body).await;
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
            let secrets = secrets.iter().chain(last).map(Secret::expose);
            let words = said(&answer.body, secrets);
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
        // The text may hold a token, so the error does not repeat it.
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
