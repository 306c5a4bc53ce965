//! Requests to one server and their answers: one pool of connections, a bounded number at a time.
//! Nothing is tried again here but what a token that was taken back refused: the pipeline decides.

use super::answer::{Fault, Refused, classify, retry_after, shorten};
use super::auth::Tokens;
use super::options::{CatalogServer, invalid};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use reqwest::{Certificate, Method, redirect};
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::Semaphore;
use trace_destination_core::{Error, ErrorKind, waiting_for_turn};

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(10);
/// Requests under way to one server.
const CONCURRENCY: usize = 8;
/// Bytes of an answer that are read. A table of a thousand columns is some hundred KiB.
const MAX_ANSWER: usize = 8 << 20;

/// An answer that is a success.
pub(super) struct Answer {
    pub(super) body: Value,
    /// The server's clock.
    pub(super) date: Option<Timestamp>,
}

/// The way to one server.
pub(super) struct Client {
    http: reqwest::Client,
    /// The server's address, for tokens and for errors.
    base: String,
    api: String,
    tokens: Tokens,
    permits: Semaphore,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

impl Client {
    pub(super) fn new(server: &CatalogServer) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trace-destination/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry credentials somewhere nobody configured.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(server.timeout()))
            .timeout(server.timeout())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(CONCURRENCY)
            .tcp_nodelay(true);
        if let Some(file) = &server.authorities {
            builder = builder.tls_certs_only(authorities(file)?);
        }
        let http = builder.build().map_err(|e| {
            invalid("the connection to the server cannot be set up")
                .mend("check the certificate file and the system's certificates")
                .caused_by(e)
        })?;
        Ok(Self {
            http,
            base: server.base.clone(),
            api: server.api(),
            tokens: Tokens::new(server.auth.clone()),
            permits: Semaphore::new(CONCURRENCY),
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Fault> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Fault> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        // Only closed with the client, which is borrowed.
        let _permit = waiting_for_turn(self.permits.acquire()).await;
        match self.attempt(&method, path, body).await {
            // Taken back before its time: another token may do.
            Err(fault) if fault.status() == Some(401) && self.tokens.forget().await => {
                self.attempt(&method, path, body).await
            }
            done => done,
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.api));
        if let Some(header) = self.tokens.header(&self.http, &self.base).await? {
            request = request.header(AUTHORIZATION, header);
        }
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = request.send().await;
        let response = response.map_err(|e| failure(e, &self.base))?;
        let status = response.status().as_u16();
        let header = |name: HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let delay = header(RETRY_AFTER).and_then(|text| retry_after(&text, Timestamp::now()));
        let date =
            header(DATE).and_then(|text| DateTimeParser::new().parse_timestamp(text.trim()).ok());
        let asked = || format!("{method} {path} at {}", self.base);
        let bytes = read(response, &self.base, asked).await?;
        let Some(class) = classify(status, error_code(&bytes).as_deref(), delay) else {
            let body = serde_json::from_slice(&bytes).map_err(|_| {
                Fault::new(
                    ErrorKind::Unsupported,
                    format!("{} was answered with {status} and no JSON", asked()),
                    "check the address: this is no Unity Catalog",
                )
            })?;
            return Ok(Answer { body, date });
        };
        Err(Fault::Answer(Refused {
            status,
            class,
            code: error_code(&bytes),
            says: shorten(&self.tokens.scrub(message(&bytes)).await),
            asked: asked(),
            credentials: self.tokens.name(),
        }))
    }
}

/// Reads the files once, so that a wrong one is reported when a location is made.
pub(super) fn check(server: &CatalogServer) -> Result<(), Error> {
    match &server.authorities {
        Some(file) => authorities(file).map(drop),
        None => Ok(()),
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, Error> {
    let unusable = |cause: &str| {
        invalid(format!("`{}` {cause}", file.display())).mend("name a readable PEM file")
    };
    let pem = std::fs::read(file).map_err(|e| unusable("cannot be read").caused_by(e))?;
    let list = Certificate::from_pem_bundle(&pem)
        .map_err(|e| unusable("holds no PEM certificates").caused_by(e))?;
    match list.is_empty() {
        true => Err(unusable("holds no PEM certificates")),
        false => Ok(list),
    }
}

/// The body of an answer to what was `asked` of a server, up to a size.
pub(super) async fn read(
    mut response: reqwest::Response,
    server: &str,
    asked: impl FnOnce() -> String,
) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failure(e, server))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!("{} was answered with more than 8 MiB", asked()),
                "check the address: this is another kind of server",
            ));
        }
    }
    Ok(bytes)
}

/// The server's own name for an error.
fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        error_code: String,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    Some(shorten(&named.error_code))
}

/// The message in an error's JSON, or all of its text.
fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(json)) => match json.get("message") {
            Some(Value::String(message)) => message.clone(),
            _ => text.into_owned(),
        },
        _ if text.trim_start().starts_with('<') => "a page of HTML".to_owned(),
        _ => text.into_owned(),
    }
}

/// A request that got no answer.
pub(super) fn failure(error: reqwest::Error, server: &str) -> Fault {
    let mut beneath = Beneath::default();
    beneath.look(&error);
    use rustls::Error as T;
    let (kind, cause, mend, retry) = match beneath.tls {
        Some(T::InvalidCertificate(_) | T::NoCertificatesPresented) => (
            ErrorKind::Unauthenticated,
            "the server's certificate is not trusted",
            "name its authority with UNITY_CATALOG_CA_FILE, or in code, and use the host name it was issued for",
            false,
        ),
        Some(_) => (
            ErrorKind::InvalidConfig,
            "the TLS handshake failed",
            "check that the port speaks TLS, or write http:// for one that does not",
            false,
        ),
        None if error.is_builder() => (
            ErrorKind::InvalidConfig,
            "the request cannot be made",
            "check the address and the proxy variables",
            false,
        ),
        None if error.is_timeout() => (
            ErrorKind::Timeout,
            "the server did not answer in time",
            "it is tried again; check the network, or give it more time with UNITY_CATALOG_TIMEOUT",
            true,
        ),
        None if beneath.refused => (
            ErrorKind::Unavailable,
            "nothing listens at this address",
            "it is tried again; start the server, or correct host and port",
            true,
        ),
        None if error.is_connect() => (
            ErrorKind::Unavailable,
            "no connection could be made",
            "it is tried again; check host, port and network",
            true,
        ),
        None => (
            ErrorKind::Unavailable,
            "the connection broke",
            "it is tried again; check the server and what is between",
            true,
        ),
    };
    Fault::Transport {
        kind,
        cause: format!("{server}: {cause}"),
        mend,
        retry,
        source: error.without_url(),
    }
}

/// What is found beneath an error.
#[derive(Default)]
struct Beneath {
    tls: Option<rustls::Error>,
    refused: bool,
}

impl Beneath {
    fn look(&mut self, error: &(dyn std::error::Error + 'static)) {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            self.tls = Some(tls.clone());
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            self.refused |= io.kind() == std::io::ErrorKind::ConnectionRefused;
            // What it wraps is not its source, and may be another of its kind.
            if let Some(inner) = io.get_ref() {
                return self.look(inner);
            }
        }
        if let Some(source) = error.source() {
            self.look(source);
        }
    }
}
