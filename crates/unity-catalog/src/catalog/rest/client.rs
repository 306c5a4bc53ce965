//! Requests to one server and their answers. Nothing is tried again here but what a token that was
//! taken back refused: the pipeline decides.

use super::answer::{Fault, WITHHELD};
use super::options::CatalogServer;
use super::status::TABLE;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_http::{Pool, Request, Wire, json, origin};

/// Requests under way to one server.
const CONCURRENCY: usize = 8;
/// Bytes of an answer that are read. A table of a thousand columns is some hundred KiB.
const MAX_ANSWER: usize = 8 << 20;

/// An answer that is a success.
pub(super) struct Answer {
    body: Bytes,
    /// The server's clock.
    pub(super) date: Option<Timestamp>,
}

impl Answer {
    #[cfg(test)]
    pub(super) fn of(body: &Value, date: Option<Timestamp>) -> Self {
        let body = body.to_string().into();
        Self { body, date }
    }

    /// The value in it; `None` for something else. What is not asked for is not kept.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        json(&self.body)
    }
}

/// The way to one server.
pub(super) struct Client {
    http: trace_destination_http::Client,
    /// The server's address, for errors.
    base: String,
    api: String,
    withheld: Option<Arc<String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

impl Client {
    pub(super) fn new(server: &CatalogServer) -> Result<Self, Error> {
        let wire = Wire {
            tls: server.tls(),
            timeout: server.timeout(),
            concurrency: CONCURRENCY,
        };
        let pool = Pool::shared(origin(&server.base), &wire)?;
        Ok(Self {
            http: trace_destination_http::Client::new(pool, &server.credentials(), [])?,
            base: server.base.clone(),
            api: server.api(),
            withheld: server.withheld.0.then(|| Arc::new(WITHHELD.to_owned())),
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
        let mut headers = HeaderMap::new();
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let asked = || format!("{method} {path} at {}", self.base);
        let request = Request {
            method: method.clone(),
            url: format!("{}{path}", self.api),
            headers,
            body: body.map(|body| body.to_string().into()),
        };
        let answer = self.http.send(&request, MAX_ANSWER).await;
        let answer = answer.map_err(|failure| Fault::unanswered(failure, Some(&self.base)))?;
        self.http
            .check(&answer, TABLE, asked, self.withheld.as_ref())?;
        if answer.is_cut {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!("{} was answered with more than 8 MiB", asked()),
                "check the address: this is another kind of server",
            ));
        }
        if json::<serde::de::IgnoredAny>(&answer.body).is_none() {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!(
                    "{} was answered with {} and no JSON",
                    asked(),
                    answer.status
                ),
                "check the address: this is no Unity Catalog",
            ));
        }
        let date = answer
            .header(DATE)
            .and_then(|text| DateTimeParser::new().parse_timestamp(text.trim()).ok());
        Ok(Answer {
            body: answer.body,
            date,
        })
    }
}
