//! Requests and answers: one pool of connections per host, a bounded number of requests at a time.

use crate::classify::{Class, Dialect, Signs, classify};
use crate::config::{CONNECT_TIMEOUT, MAX_ANSWER, POOL_IDLE};
use crate::databricks::Tokens;
use crate::error::{Fault, Refused, shorten};
use crate::tls;
use crate::transport::Transport;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, redirect};
use std::sync::Arc;
use tokio::sync::Semaphore;
use trace_destination_core::{ErrorKind, waiting_for_turn};

/// The media type of OTLP in protobuf.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Appended to the base address, with its query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<(&'static str, Bytes)>,
    pub(crate) gzip: bool,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            gzip: false,
        }
    }

    pub(crate) fn with_json(mut self, body: &serde_json::Value) -> Self {
        self.body = Some((JSON, Bytes::from(body.to_string())));
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        // Checked when the location was built; a value that slipped through is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// What an error says was asked.
    fn name(&self, base: &str) -> String {
        let host = base.find("://").map_or(0, |i| i + 3);
        let below = base[host..].find('/').map_or("", |i| &base[host + i..]);
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {below}{path}", self.method)
    }
}

/// An answer that is a success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
}

/// Connections to one host, whatever is asked for there, and how many requests may use them.
pub(crate) struct Pool {
    http: reqwest::Client,
    permits: Semaphore,
    /// Sent with every request, marked as secret.
    headers: HeaderMap,
    transport: Arc<Transport>,
}

/// The way to one server: a host, and a path on it.
pub(crate) struct Client {
    pool: Arc<Pool>,
    base: String,
    /// Where tokens come from that have to be renewed.
    tokens: Option<Tokens>,
    dialect: Dialect,
}

impl Pool {
    pub(crate) fn new(transport: &Arc<Transport>, https: bool) -> Result<Self, Fault> {
        let config =
            tls::config(&transport.tls, https).map_err(|e| said(ErrorKind::InvalidConfig, &e))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(concat!("trace-destination/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry spans and credentials somewhere nobody configured.
            .redirect(redirect::Policy::none())
            .referer(false)
            // One call is one request: the pipeline alone decides what is sent again.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT.min(transport.timeout))
            .timeout(transport.timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(transport.concurrency)
            .tcp_nodelay(true)
            .build()
            .map_err(failure)?;
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            // Checked when the location was built.
            if let Ok(mut value) = HeaderValue::try_from(value) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        };
        if let Some(header) = transport.credentials.header() {
            put(AUTHORIZATION, &header);
        }
        for (name, value) in &transport.headers {
            if let Ok(name) = HeaderName::try_from(name) {
                put(name, value.expose());
            }
        }
        Ok(Self {
            http,
            permits: Semaphore::new(transport.concurrency),
            transport: transport.clone(),
            headers,
        })
    }
}

impl Client {
    pub(crate) fn new(
        pool: Arc<Pool>,
        base: &str,
        tokens: Option<Tokens>,
        dialect: Dialect,
    ) -> Self {
        Self {
            pool,
            base: base.to_owned(),
            tokens,
            dialect,
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.pool.transport
    }

    /// Sends one request and reads its answer. An answer that is no success is an error.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Fault> {
        // Only closed with the client, which is borrowed.
        let _permit = waiting_for_turn(self.pool.permits.acquire()).await;
        let first = self.attempt(&call).await;
        match (&first, &self.tokens) {
            (Err(fault), Some(tokens)) if fault.status() == Some(401) => {
                // Taken back before its time: a new one may do.
                tokens.forget().await;
                self.attempt(&call).await
            }
            _ => first,
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Fault> {
        let mut headers = self.pool.headers.clone();
        if let Some(tokens) = &self.tokens {
            let token = tokens.current(&self.pool.http, &self.base).await?;
            if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose())) {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        let url = format!("{}{}", self.base, call.path);
        let mut request = self.pool.http.request(call.method.clone(), url);
        if let Some((media_type, body)) = &call.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            if call.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            request = request.body(body.clone());
        }
        let response = request.headers(headers).send().await.map_err(failure)?;
        let status = response.status().as_u16();
        let header = |name| {
            let value: Option<&HeaderValue> = response.headers().get(name);
            value.and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let (content_type, retry_after) = (header(CONTENT_TYPE), header(RETRY_AFTER));
        let body = read(response).await?;
        let code = match status {
            200..=299 => None,
            _ => error_code(&body),
        };
        let signs = Signs {
            status,
            retry_after: retry_after.as_deref(),
            code: code.as_deref(),
            now: Timestamp::now(),
        };
        match classify(self.dialect, signs) {
            None => Ok(Answer { content_type, body }),
            Some(class) => {
                let asked = call.name(&self.base);
                Err(self.refused(status, class, code, &body, asked).await)
            }
        }
    }

    async fn refused(
        &self,
        status: u16,
        class: Class,
        code: Option<String>,
        body: &[u8],
        asked: String,
    ) -> Fault {
        Fault::Answer(Refused {
            status,
            class,
            code,
            // Before it is shortened: half a secret would not be found.
            says: shorten(&self.scrub(message(body)).await),
            asked,
            credentials: match self.tokens {
                Some(_) => "the service principal's token",
                None => self.transport().credentials.name(),
            },
        })
    }

    /// Takes our own secrets out of what a server says: some repeat what they were sent.
    async fn scrub(&self, mut text: String) -> String {
        if let Some(tokens) = &self.tokens {
            text = tokens.scrub(text).await;
        }
        let header = self.transport().credentials.header();
        let encoded = header.as_deref().and_then(|h| h.split(' ').nth(1));
        let password = match &self.transport().credentials {
            crate::transport::Credentials::Basic { password, .. } => Some(password.expose()),
            _ => None,
        };
        let own = self.transport().headers.values().map(|v| v.expose());
        for secret in encoded.into_iter().chain(password).chain(own) {
            if !secret.is_empty() && text.contains(secret) {
                text = text.replace(secret, "[secret]");
            }
        }
        text
    }
}

/// An error of the builder, made again with the operation at hand.
fn said(kind: ErrorKind, error: &trace_destination_core::Error) -> Fault {
    Fault::new(
        kind,
        error.cause().to_owned(),
        error.mend_hint().unwrap_or_default().to_owned(),
    )
}

/// The body of an answer, cut where it is longer than any should be.
pub(crate) async fn read(mut response: reqwest::Response) -> Result<Bytes, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        let room = MAX_ANSWER - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// MLflow's and Databricks' own name for an error.
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
    let Ok(serde_json::Value::Object(json)) = serde_json::from_slice(body) else {
        return match text.trim_start().starts_with('<') {
            true => "a page of HTML".to_owned(),
            false => text.into_owned(),
        };
    };
    for key in ["message", "detail", "error_description", "error"] {
        match json.get(key) {
            Some(serde_json::Value::String(message)) => return message.clone(),
            Some(other) if !other.is_null() => return other.to_string(),
            _ => {}
        }
    }
    text.into_owned()
}

/// A request that got no answer.
pub(crate) fn failure(error: reqwest::Error) -> Fault {
    let mut beneath = Beneath::default();
    beneath.look(&error);
    let Beneath { tls, refused } = beneath;
    use rustls::Error as T;
    let (kind, cause, mend, retry) = match tls {
        Some(T::InvalidCertificate(_) | T::NoCertificatesPresented) => (
            ErrorKind::Unauthenticated,
            "the server's certificate is not trusted",
            "name its authority with MLFLOW_TRACKING_SERVER_CERT_PATH or OTEL_EXPORTER_OTLP_CERTIFICATE, or in code, and use the host name it was issued for",
            false,
        ),
        Some(T::AlertReceived(_)) => (
            ErrorKind::Unauthenticated,
            "the server ended the TLS handshake",
            "it may ask for a client certificate: name one with MLFLOW_TRACKING_CLIENT_CERT_PATH, or in code",
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
            "check the address, the headers and the proxy variables",
            false,
        ),
        None if error.is_timeout() => (
            ErrorKind::Timeout,
            "the server did not answer in time",
            "it is tried again; check the network, or give it more time",
            true,
        ),
        None if refused => (
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
        cause,
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
