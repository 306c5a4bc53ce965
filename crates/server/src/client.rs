//! Requests and answers of one server, and what its answers mean.

use crate::config::MAX_ANSWER;
use crate::status::Dialect;
use crate::transport::Transport;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use trace_destination_core::ErrorKind;
use trace_destination_http::{Fault, Outcome, Pool, Refused, Request, Row, origin};

/// The media type of OTLP in protobuf.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// A refusal of a request that carries no spans: what it says is no span's fault.
const NOT_ABOUT_SPANS: Row = Row::new(
    &[],
    ErrorKind::InvalidConfig,
    Outcome::Keep,
    "check the names in the location, the server's version and the proxies before it",
);

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

/// The way to one server: a host, and a path on it.
pub(crate) struct Client {
    http: trace_destination_http::Client,
    transport: Arc<Transport>,
    base: String,
    dialect: Dialect,
}

impl Client {
    pub(crate) fn new(
        transport: &Arc<Transport>,
        base: &str,
        dialect: Dialect,
    ) -> Result<Self, Fault> {
        let pool = Pool::shared(origin(base), &transport.wire())?;
        let headers = transport.headers.iter().map(|(k, v)| (k.as_str(), v));
        Ok(Self {
            http: trace_destination_http::Client::new(pool, &transport.credentials, headers)?,
            transport: transport.clone(),
            base: base.to_owned(),
            dialect,
        })
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whose rules its answers follow.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Sends one request and reads its answer. An answer that is no success is an error.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Fault> {
        let mut headers = HeaderMap::new();
        headers.extend(call.headers.iter().cloned());
        if let Some((media_type, _)) = &call.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            if call.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        let request = Request {
            method: call.method.clone(),
            url: format!("{}{}", self.base, call.path),
            headers,
            body: call.body.as_ref().map(|(_, body)| body.clone()),
        };
        let answer = self.http.send(&request, MAX_ANSWER).await;
        let answer = answer.map_err(|failure| Fault::unanswered(failure, None))?;
        let asked = || call.name(&self.base);
        let withheld = self.transport.withheld.0.as_ref();
        let checked = self
            .http
            .check(&answer, self.dialect.table(), asked, withheld);
        let has_spans = matches!(call.body, Some((PROTOBUF, _)));
        match checked {
            Ok(()) => Ok(Answer {
                content_type: answer.header(CONTENT_TYPE).map(str::to_owned),
                body: answer.body,
            }),
            Err(Fault::Answer(refused)) => Err(Fault::Answer(Refused {
                credentials: match self.dialect {
                    Dialect::Databricks if !self.http.credentials().is_fixed() => {
                        "the service principal's token"
                    }
                    _ => refused.credentials,
                },
                row: match refused.row.outcome {
                    Outcome::Apart if !has_spans => &NOT_ABOUT_SPANS,
                    _ => refused.row,
                },
                ..refused
            })),
            Err(fault) => Err(fault),
        }
    }

    /// What the server says, as an error may repeat it.
    pub(crate) fn said(&self, words: &[u8]) -> String {
        self.http.said(words)
    }
}
