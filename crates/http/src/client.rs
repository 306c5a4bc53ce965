//! Requests to one server, with its credentials.

use crate::address::warn_of_plain;
use crate::bounded::{Answer, error_code, message, read};
use crate::credentials::{Authorizer, Credentials, Proof};
use crate::failure::Failure;
use crate::fault::{Fault, Refused};
use crate::pool::{Pool, Wire};
use crate::secret::{Secret, said};
use crate::status::StatusTable;
use crate::times::retry_after;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{Error, waiting_for_turn};

/// What servers (Go's net/http, nginx, Apache) answer with 400 where plain HTTP comes to their port for
/// TLS.
const TO_TLS: [&str; 3] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
];

/// Whether a server answers that its port is for TLS: a page or a line of its own, and not an error
/// that repeats some text of the request.
fn is_for_tls(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let is_own = text.starts_with('<') || text == "Client sent an HTTP request to an HTTPS server.";
    is_own && TO_TLS.iter().any(|told| text.contains(told))
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: String,
    /// Headers besides those of the client.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

/// A client of one server: its host's pool, and the credentials and headers of every request.
pub struct Client {
    pool: Arc<Pool>,
    authorizer: Arc<Authorizer>,
    headers: HeaderMap,
    secrets: Vec<Secret>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client that uses `pool`, with credentials and headers, whose values count as secrets.
    /// Header names and values that cannot be sent are left out; code that takes them from a user
    /// checks them.
    ///
    /// # Errors
    /// `InvalidConfig` for credentials that cannot be sent.
    pub fn new<'a>(
        pool: Arc<Pool>,
        credentials: &Credentials,
        headers: impl IntoIterator<Item = (&'a str, &'a Secret)>,
    ) -> Result<Self, Error> {
        let mut all = HeaderMap::new();
        let mut secrets = Vec::new();
        for (name, value) in headers {
            let parts = (
                HeaderName::try_from(name),
                HeaderValue::try_from(value.expose()),
            );
            if let (Ok(name), Ok(mut sent)) = parts {
                sent.set_sensitive(true);
                all.insert(name, sent);
                secrets.push(value.clone());
            }
        }
        Ok(Self {
            authorizer: pool.authorizer(credentials)?,
            pool,
            headers: all,
            secrets,
        })
    }

    /// How requests are sent.
    pub fn wire(&self) -> &Wire {
        self.pool.wire()
    }

    /// The credentials as an error describes them.
    pub fn credentials(&self) -> &Credentials {
        self.authorizer.credentials()
    }

    /// Sends a request and reads its answer, up to `limit` bytes of its body.
    ///
    /// # Behavior
    /// One call is one request, except in two cases in which the first request cannot have had an
    /// effect: a 401 if there may be another credential, and a failed TLS handshake if certificate
    /// files were replaced meanwhile. Each is repeated once.
    ///
    /// Credentials are fetched before a permit of the host is taken, so that a token server that
    /// hangs delays only those that need its tokens. Waiting for a permit does not count toward the
    /// retry deadline of a batch.
    ///
    /// # Errors
    /// If there is no answer. An answer with any status is `Ok`.
    pub async fn send(&self, request: &Request, limit: usize) -> Result<Answer, Failure> {
        let proof = self.authorizer.proof(&self.pool.http()).await?;
        let first = self.attempt(request, &proof, limit).await;
        match &first {
            Ok(answer) if answer.status == 401 && self.authorizer.rejected(&proof).await => {
                let next = self.authorizer.proof(&self.pool.http()).await?;
                match next.is_same(&proof) {
                    true => first,
                    false => self.attempt(request, &next, limit).await,
                }
            }
            Err(Failure::Transport { class, .. }) if class.is_tls() && self.pool.reload() => {
                self.attempt(request, &proof, limit).await
            }
            _ => first,
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        proof: &Proof,
        limit: usize,
    ) -> Result<Answer, Failure> {
        // The semaphore is closed only with the pool, which is borrowed.
        let _permit = waiting_for_turn(self.pool.permits.acquire()).await;
        if !(proof.secrets.is_empty() && self.secrets.is_empty()) {
            warn_of_plain(&request.url);
        }
        let mut headers = self.headers.clone();
        proof.put_into(&mut headers);
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
        #[cfg(fuzzing)]
        if let Some(answer) = crate::fuzzing::answer(&request.url, &headers, limit) {
            return Ok(answer);
        }
        let http = self.pool.http();
        let mut sent = http.request(request.method.clone(), &request.url);
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        let response = sent.headers(headers).send().await;
        let response = response
            .map_err(|error| Failure::of(error).through(|| crate::proxy::of(&request.url)))?;
        read(response, limit).await
    }

    /// Checks whether an answer is a success, by the table of its kind of server. `asked` names the
    /// request in errors; `withheld` names the variable to set if credentials exist that were not
    /// sent.
    ///
    /// # Errors
    /// The meaning of the answer, by the table.
    pub fn check(
        &self,
        answer: &Answer,
        table: StatusTable,
        asked: impl FnOnce() -> String,
        withheld: Option<&Arc<String>>,
    ) -> Result<(), Fault> {
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        if answer.status == 400 && is_for_tls(&answer.body) {
            return Err(Fault::new(
                trace_destination_core::ErrorKind::InvalidConfig,
                format!(
                    "{} was sent as plain HTTP to a port that speaks TLS",
                    asked()
                ),
                "write https:// for this address, or name the port for plain HTTP",
            ));
        }
        let code = error_code(&answer.body);
        let Some(row) = table.row(answer.status, code.as_deref()) else {
            return Ok(());
        };
        let delay = answer.header(RETRY_AFTER);
        let delay = delay.and_then(|text| retry_after(text, Timestamp::now()));
        Err(Fault::Answer(Refused {
            status: answer.status,
            row,
            retry: row.outcome.retry(delay),
            code: code.map(|code| self.said(code.as_bytes())),
            says: self.said(&message(&answer.body)).into(),
            asked: asked().into(),
            credentials: self.credentials().name(),
            withheld: withheld.cloned(),
        }))
    }

    /// A server's text as an error may repeat it: one line, shortened, without secrets of this
    /// client.
    pub fn said(&self, words: &[u8]) -> String {
        let own = self.authorizer.secrets();
        said(words, own.iter().chain(&self.secrets).map(Secret::expose))
    }
}
