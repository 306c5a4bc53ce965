//! HTTP beneath the stores of the clouds. Redirects are not followed, and no answer is read beyond
//! what its request asked for: a store may belong to a tenant.

use crate::storage::TooLarge;
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::client::{
    ClientConfigKey as Key, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderMap};
use reqwest::{Method, Proxy, redirect};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime;

/// Bytes that are read of an object when no range was asked for.
const MAX_OBJECT: u64 = 64 << 20;
/// Bytes of one page of a listing: a thousand names of a thousand bytes, and what is said of each.
const MAX_PAGE: u64 = 8 << 20;
/// Bytes of any other answer: credentials, and what a write returns.
const MAX_ANSWER: u64 = 1 << 20;
/// Bytes of an error. What is beyond is left out, so that the status is not lost.
const MAX_ERROR: u64 = 16 << 10;
/// Longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(20);
/// How long an idle connection is kept, unless the options say otherwise.
const POOL_IDLE: Duration = Duration::from_secs(10);

/// The key of a client: all its options, and the runtime that its connections live on.
type ClientKey = (String, Option<runtime::Id>);

static CLIENTS: Mutex<Option<HashMap<ClientKey, Weak<reqwest::Client>>>> = Mutex::new(None);

/// Makes the clients of stores. Stores with the same options share one: it holds connections and no
/// credentials, and the certificates of the system only once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let settings = settings(options);
        let runtime = runtime::Handle::try_current().ok().map(|r| r.id());
        let key = (settings, runtime);
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = clients.get_or_insert_default();
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(HttpClient::new(Bounded(client)));
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(client(options)?);
        clients.insert(key, Arc::downgrade(&client));
        Ok(HttpClient::new(Bounded(client)))
    }
}

/// Every option that [`client`] reads.
const KEYS: &[Key] = &[
    Key::AllowHttp,
    Key::AllowInvalidCertificates,
    Key::ConnectTimeout,
    Key::Http1Only,
    Key::Http2Only,
    Key::PoolIdleTimeout,
    Key::PoolMaxIdlePerHost,
    Key::ProxyUrl,
    Key::ProxyCaCertificate,
    Key::ProxyExcludes,
    Key::Timeout,
    Key::UserAgent,
];

fn settings(options: &ClientOptions) -> String {
    let values = KEYS
        .iter()
        .map(|key| options.get_config_value(key).unwrap_or_default());
    values.collect::<Vec<_>>().join("\n")
}

/// The client that `object_store` would make of these options, without redirects.
fn client(options: &ClientOptions) -> object_store::Result<reqwest::Client> {
    let value = |key: Key| options.get_config_value(&key);
    let is = |key: Key| value(key).is_some_and(|v| v == "true");
    let time = |key: Key| value(key).map(|text| duration(&text)).transpose();
    let mut builder = reqwest::Client::builder()
        .user_agent(
            value(Key::UserAgent)
                .unwrap_or_else(|| concat!("trace-destination/", env!("CARGO_PKG_VERSION")).into()),
        )
        // A redirect would carry credentials, or signatures, somewhere nobody configured.
        .redirect(redirect::Policy::none())
        .referer(false)
        .read_timeout(SILENCE)
        .pool_idle_timeout(time(Key::PoolIdleTimeout)?.unwrap_or(POOL_IDLE))
        .https_only(!is(Key::AllowHttp));
    if let Some(timeout) = time(Key::Timeout)? {
        builder = builder.timeout(timeout);
    }
    if let Some(timeout) = time(Key::ConnectTimeout)? {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(most) = value(Key::PoolMaxIdlePerHost) {
        builder = builder.pool_max_idle_per_host(most.trim().parse().map_err(failed)?);
    }
    if let Some(proxy) = value(Key::ProxyUrl) {
        let mut proxy = Proxy::all(proxy).map_err(failed)?;
        if let Some(excludes) = value(Key::ProxyExcludes) {
            proxy = proxy.no_proxy(reqwest::NoProxy::from_string(&excludes));
        }
        if let Some(certificate) = value(Key::ProxyCaCertificate) {
            let certificate =
                reqwest::Certificate::from_pem(certificate.as_bytes()).map_err(failed)?;
            builder = builder.tls_certs_merge([certificate]);
        }
        builder = builder.proxy(proxy);
    }
    if is(Key::Http1Only) {
        builder = builder.http1_only();
    }
    if is(Key::AllowInvalidCertificates) {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(failed)
}

fn duration(text: &str) -> object_store::Result<Duration> {
    let parsed: jiff::SignedDuration = text.parse().map_err(failed)?;
    Duration::try_from(parsed).map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic {
        store: "HTTP client",
        source: Box::new(error),
    }
}

/// A client whose answers are bounded.
struct Bounded(Arc<reqwest::Client>);

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bounded")
    }
}

#[async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await
    }
}

impl Bounded {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let limit = limit(&parts.method, url.query(), &parts.headers);
        let head = parts.method == Method::HEAD;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(body),
        });
        let mut answer = self.0.execute(request).await.map_err(transport)?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let (limit, cut) = match status.is_success() {
            false => (MAX_ERROR, true),
            true if head => (0, true),
            true => match check(&headers, limit)? {
                // A body that goes on beyond its own length ends there.
                Some(length) => (length, true),
                None => (limit, false),
            },
        };
        let mut response = HttpResponse::new(HttpResponseBody::new(Limited {
            body: answer.into(),
            left: limit,
            limit,
            cut,
        }));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// How many bytes the answer to a request may have.
fn limit(method: &Method, query: Option<&str>, headers: &HeaderMap) -> u64 {
    if method != Method::GET {
        return MAX_ANSWER;
    }
    if let Some(range) = headers.get("range").or_else(|| headers.get("x-ms-range")) {
        return range.to_str().ok().and_then(length).unwrap_or(MAX_OBJECT);
    }
    let lists = |pair: &str| pair.starts_with("list-type=") || pair == "comp=list";
    match query.is_some_and(|query| query.split('&').any(lists)) {
        true => MAX_PAGE,
        false => MAX_OBJECT,
    }
}

/// The length of `bytes=from-to`, or of `bytes=-last`.
fn length(range: &str) -> Option<u64> {
    let (from, to) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    match (from, to) {
        ("", last) => last.parse().ok(),
        (_, "") => None,
        (from, to) => {
            let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
            to.checked_sub(from)?.checked_add(1)
        }
    }
}

/// The length that an answer claims. It is refused here if it is too large, before anything makes
/// room for it.
fn check(headers: &HeaderMap, limit: u64) -> Result<Option<u64>, HttpError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text("content-length").and_then(|text| text.trim().parse::<u64>().ok());
    // `object_store` counts one on from the last position.
    let last = text("content-range").and_then(|text| {
        text.split('/')
            .next()?
            .rsplit('-')
            .next()?
            .trim()
            .parse()
            .ok()
    });
    if length.is_some_and(|length| length > limit) || last == Some(u64::MAX) {
        return Err(too_large(limit));
    }
    Ok(length)
}

fn too_large(limit: u64) -> HttpError {
    let text = format!("the store's answer has more than {limit} bytes");
    // Of a kind that is not tried again.
    HttpError::new(HttpErrorKind::Decode, TooLarge::wrong(text))
}

fn transport(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        beneath(&error)
    };
    // The address is said by whoever asked, where it may be shown.
    HttpError::new(kind, error.without_url())
}

/// What the connection's own error means for trying again.
fn beneath(error: &reqwest::Error) -> HttpErrorKind {
    use std::io::ErrorKind as Io;
    let mut link = std::error::Error::source(error);
    while let Some(error) = link {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            match error.kind() {
                Io::TimedOut => return HttpErrorKind::Timeout,
                Io::ConnectionAborted
                | Io::ConnectionReset
                | Io::BrokenPipe
                | Io::UnexpectedEof => return HttpErrorKind::Interrupted,
                _ => {}
            }
        }
        // Hyper's errors, which have no public name here.
        let text = error.to_string();
        if [
            "connection closed",
            "incomplete message",
            "body write aborted",
        ]
        .iter()
        .any(|said| text.contains(said))
        {
            return HttpErrorKind::Request;
        }
        link = error.source();
    }
    HttpErrorKind::Unknown
}

/// A body of bounded length.
struct Limited {
    body: reqwest::Body,
    left: u64,
    limit: u64,
    /// What is beyond the limit is left out, and is no error.
    cut: bool,
}

impl Body for Limited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.cut && self.left == 0 {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(transport(error)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let Ok(mut data) = frame.into_data() else {
            // Trailers, which nobody reads.
            return Poll::Ready(None);
        };
        let length = data.len() as u64;
        if length > self.left {
            if !self.cut {
                return Poll::Ready(Some(Err(too_large(self.limit))));
            }
            data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        }
        self.left = self.left.saturating_sub(length);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
    // No size is hinted at: it would be the server's word, and room would be made for it.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_have_what_was_asked_for() {
        let none = HeaderMap::new();
        let ranged = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("range", range.parse().unwrap());
            limit(&Method::GET, None, &headers)
        };
        assert_eq!(ranged("bytes=10-19"), 10);
        assert_eq!(ranged("bytes=-8"), 8);
        assert_eq!(ranged("bytes=10-"), MAX_OBJECT);
        assert_eq!(ranged("bytes=19-10"), MAX_OBJECT);
        assert_eq!(ranged("bytes=0-18446744073709551615"), MAX_OBJECT);
        assert_eq!(
            limit(&Method::GET, Some("list-type=2&x=y"), &none),
            MAX_PAGE
        );
        assert_eq!(limit(&Method::GET, Some("a=b&comp=list"), &none), MAX_PAGE);
        assert_eq!(limit(&Method::GET, None, &none), MAX_OBJECT);
        assert_eq!(limit(&Method::POST, None, &none), MAX_ANSWER);
    }

    #[test]
    fn sizes_that_servers_claim_are_checked() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        assert!(check(&headers("content-length", "10"), 10).is_ok());
        assert!(check(&headers("content-length", "99999999999"), 10).is_err());
        let last = "bytes 0-18446744073709551615/18446744073709551615";
        assert!(check(&headers("content-range", last), 10).is_err());
        assert!(check(&headers("content-range", "bytes 0-9/10"), 10).is_ok());
    }

    #[test]
    fn durations_of_options_are_understood() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("1m 30s", 90.0),
            ("500ms", 0.5),
            ("2 sec", 2.0),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs_f64(seconds));
        }
        assert!(duration("soon").is_err());
    }
}
