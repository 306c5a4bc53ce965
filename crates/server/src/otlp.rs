//! Any OTLP/HTTP endpoint: an OpenTelemetry collector, or whatever else speaks it.

use crate::client::Answer;
use crate::error::{Blame, Fault, FaultExt as _, WRITE};
use crate::export::{Tries, deliver, is_healthy, post, post_nothing};
use crate::host::Host;
use async_trait::async_trait;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::header::{HeaderName, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trace_destination_core::{
    BatchId, Error, ErrorKind, LocationUri, Refusal, TraceBatch, TraceSink, Written,
};
use trace_destination_http::json;
use trace_destination_otlp::{AsGiven, EncodedSpans};

/// An OTLP endpoint, ready to be sent to.
pub(crate) struct OtlpSink {
    uri: LocationUri,
    host: Arc<Host>,
    tries: Arc<Tries>,
}

/// What to do about a success that is a web page.
pub(crate) const MEND_WEB_PAGE: &str = "write the address of an OTLP receiver, usually port 4318, or of a tracking server, and look at the proxies before it";

impl OtlpSink {
    pub(crate) fn new(uri: LocationUri, host: Arc<Host>, tries: Arc<Tries>) -> Self {
        Self { uri, host, tries }
    }
}

#[async_trait]
impl TraceSink for OtlpSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        // The pipeline writes them on the root span; a batch made by hand may have some.
        const NO_TRACES: &str = "OTLP knows spans, and nothing of a trace as a whole";
        if batch.span_count() == 0 {
            return Ok(Written::default().without_updates(batch, NO_TRACES));
        }
        let encoded = EncodedSpans::new(batch.groups(), &mut AsGiven);
        let to = Endpoint {
            host: &self.host,
            uri: &self.uri,
            path: "",
            headers: &[],
            tries: &self.tries,
        };
        to.send(batch.id(), &encoded)
            .await
            .map(|written| written.without_updates(batch, NO_TRACES))
            .map_err(|fault| fault.during(WRITE).at(&self.uri))
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// Where requests go.
pub(crate) struct Endpoint<'a> {
    pub(crate) host: &'a Host,
    pub(crate) uri: &'a LocationUri,
    /// Below the address of the host.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    pub(crate) tries: &'a Tries,
}

impl Endpoint<'_> {
    /// Sends a batch; finds the offender where the whole request is rejected.
    pub(crate) async fn send(
        &self,
        batch: BatchId,
        encoded: &EncodedSpans,
    ) -> Result<Written, Fault> {
        let &Self {
            host,
            uri,
            path,
            headers,
            tries,
        } = self;
        let (positions, before) = tries.left_of(batch, encoded.len());
        let rejected = AtomicU64::new(before);
        let said = std::sync::Mutex::new(String::new());
        let attempt = async |selected: Vec<usize>| {
            let plain = selected.len() == 1 && tries.is_again(batch);
            let body = match selected.len() == encoded.len() {
                true => encoded.request(|_| true),
                false => encoded.request(|i| selected.binary_search(&i).is_ok()),
            };
            let answer = post(host, path, headers, body, plain).await?;
            let (count, message) = partial_success(host, &answer)?;
            let count = count.min(selected.len() as u64);
            rejected.fetch_add(count, Ordering::Relaxed);
            tries.note_taken(batch, &selected, count);
            if !message.is_empty()
                && let Ok(mut said) = said.lock()
            {
                *said = message;
            }
            Ok::<(), Fault>(())
        };
        let probe = |_unclear| is_healthy(host, path, headers);
        let mut written = Written::default();
        for (index, fault) in deliver(tries, batch, positions, &attempt, probe).await? {
            let error = fault.during(WRITE).at(uri);
            written.refused.push(Refusal { index, error });
        }
        let count = usize::try_from(rejected.into_inner()).unwrap_or(usize::MAX);
        let said = said.into_inner().unwrap_or_default();
        if count == 0 && !said.is_empty() {
            tracing::warn!(location = %uri, message = %said, "the OTLP endpoint took all spans, with a warning");
        }
        // The protocol says how many and not which: the count is right, the positions are stand-ins.
        let free = (0..encoded.len()).filter(|i| !written.refused.iter().any(|r| r.index == *i));
        let stand_ins: Vec<usize> = free.take(count).collect();
        for index in stand_ins {
            let error = Error::new(
                ErrorKind::InvalidSpan,
                WRITE,
                format!(
                    "the endpoint rejected {count} spans of a batch without saying which: {said}"
                ),
            )
            .mend("look into its log")
            .at(uri);
            written.refused.push(Refusal { index, error });
        }
        Ok(written)
    }
}

/// Asks an endpoint with a request without a span whether it is there, is one, and lets this client
/// in.
pub(crate) async fn takes_nothing(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(), Fault> {
    match post_nothing(host, path, headers).await {
        Ok(answer) => partial_success(host, &answer).map(drop),
        // It read the request. Not every server likes an empty one.
        Err(fault) if fault.blame() == Blame::Data => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// How many spans of a successful request were rejected after all, and what else was said.
pub(crate) fn partial_success(host: &Host, answer: &Answer) -> Result<(u64, String), Fault> {
    let media_type = answer.content_type.as_deref().unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if answer.body.is_empty() {
        return Ok((0, String::new()));
    }
    if media_type.eq_ignore_ascii_case("text/html") || answer.body.starts_with(b"<") {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            "spans were answered with a web page: this is no OTLP receiver",
            MEND_WEB_PAGE,
        ));
    }
    let (count, words) = match media_type.eq_ignore_ascii_case("application/json") {
        true => json_partial_success(&answer.body),
        // A success may have a body nobody asked for: plain text such as `ok`.
        false => ExportTraceServiceResponse::decode(answer.body.clone())
            .ok()
            .and_then(|response| response.partial_success)
            .map(|partial| {
                let count = u64::try_from(partial.rejected_spans).unwrap_or(0);
                (count, partial.error_message)
            }),
    }
    .unwrap_or_default();
    Ok((count, host.client.said(words.as_bytes())))
}

fn json_partial_success(body: &[u8]) -> Option<(u64, String)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Response {
        partial_success: Option<Partial>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Partial {
        rejected_spans: Option<Count>,
        error_message: Option<String>,
    }
    // Protobuf's JSON writes 64-bit numbers as text.
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(u64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    let partial = json::<Response>(body)?.partial_success?;
    let count = match partial.rejected_spans {
        Some(Count::Number(count)) => count,
        Some(Count::Text(text)) => text.parse().unwrap_or(0),
        Some(Count::Other(_)) | None => 0,
    };
    Some((count, partial.error_message.unwrap_or_default()))
}
