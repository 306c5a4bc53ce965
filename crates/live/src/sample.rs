//! The traces the cases write, and how they are written: through the pipeline, into a file.

use opentelemetry::trace::{SpanId, TraceId};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use trace_destination::{
    AnyValue, Attribute, Destination, LocationUri, Pipeline, Resource, Scope, SpanGroup,
    SpanRecord, StatusCode,
};
use trace_destination_otlp::{decode_protobuf, encode_protobuf, sample};

const FLUSH: Duration = Duration::from_secs(60);

/// The real capture, as one OTLP request.
pub(super) fn captured() -> Vec<Vec<u8>> {
    vec![sample::captured().to_vec()]
}

/// The made traces, as OTLP requests, without what MLflow's server answers with 500: bytes in the
/// attributes of a resource.
pub(super) fn generated_for_server() -> Result<Vec<Vec<u8>>, String> {
    sample::generated()
        .iter()
        .map(|request| {
            let groups: Vec<SpanGroup> = decode_protobuf(request)
                .map_err(|e| e.to_string())?
                .into_iter()
                .map(|group| SpanGroup {
                    resource: Arc::new(Resource {
                        attributes: without_bytes(&group.resource.attributes),
                        ..Resource::clone(&group.resource)
                    }),
                    scope: group.scope,
                    spans: group.spans.into_iter().map(Into::into).collect(),
                })
                .collect();
            Ok(encode_protobuf(&groups))
        })
        .collect()
}

fn without_bytes(attributes: &[Attribute]) -> Vec<Attribute> {
    let kept = attributes
        .iter()
        .filter(|a| !matches!(a.value, AnyValue::Bytes(_)));
    kept.map(|a| Attribute::new(a.key.clone(), without_nested_bytes(&a.value)))
        .collect()
}

fn without_nested_bytes(value: &AnyValue) -> AnyValue {
    match value {
        AnyValue::Array(values) => AnyValue::Array(
            values
                .iter()
                .filter(|v| !matches!(v, AnyValue::Bytes(_)))
                .map(without_nested_bytes)
                .collect(),
        ),
        AnyValue::Map(entries) => AnyValue::Map(without_bytes(entries)),
        other => other.clone(),
    }
}

/// A pipeline that writes into one experiment of a file, for as long as a case wants it open.
pub(super) struct Writing {
    pipeline: Pipeline,
    destination: Destination,
}

impl Writing {
    pub(super) fn open(uri: &str) -> Result<Self, String> {
        let destination = trace_destination::destination(uri).map_err(|e| e.to_string())?;
        let pipeline = Pipeline::builder()
            .strict()
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            pipeline,
            destination,
        })
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Writes one OTLP request, to the end; gives the number of its spans.
    pub(super) fn request(&self, request: &[u8]) -> Result<usize, String> {
        let mut count = 0;
        for group in decode_protobuf(request).map_err(|e| e.to_string())? {
            if let Some(refused) = group.refused.first() {
                return Err(format!("a span is refused in decoding: {}", refused.error));
            }
            count += group.spans.len();
            let ingested =
                self.pipeline
                    .ingest(group.resource, group.scope, group.spans, &self.destination);
            if ingested.dropped > 0 {
                return Err(format!(
                    "{} spans are dropped on the way in",
                    ingested.dropped
                ));
            }
        }
        self.flush()?;
        Ok(count)
    }

    /// An error unless everything so far is stored.
    pub(super) fn flush(&self) -> Result<(), String> {
        let report = self.pipeline.flush(FLUSH).wait();
        if report.all_stored() {
            return Ok(());
        }
        Err(format!("flush did not store everything: {report}"))
    }

    pub(super) fn close(self) -> Result<(), String> {
        let report = self.pipeline.shutdown(FLUSH).wait();
        if report.all_stored() {
            return Ok(());
        }
        Err(format!("shutdown did not store everything: {report}"))
    }
}

/// Writes OTLP requests into one experiment of a file, each flushed, and closes it; gives the
/// number of spans.
pub(super) fn write(db: &Path, experiment: &str, requests: &[Vec<u8>]) -> Result<usize, String> {
    let writing = Writing::open(&uri(db, experiment)?)?;
    let mut count = 0;
    for request in requests {
        count += writing.request(request)?;
    }
    writing.close()?;
    Ok(count)
}

/// The URI of an experiment in a file.
pub(super) fn uri(db: &Path, experiment: &str) -> Result<String, String> {
    let path = format!("/{}", db.display());
    LocationUri::from_parts("sqlite", Some(""), &path, [("experiment_name", experiment)])
        .map(|uri| uri.to_string())
        .map_err(|e| e.to_string())
}

/// One span of a made trace: `number` 1 is the root, the others are its children.
pub(super) fn span(trace: u128, number: u64) -> SpanRecord {
    const BASE: u64 = 1_795_500_000_000_000_000;
    const MS: u64 = 1_000_000;
    let start = BASE + (trace as u64 & 0xffff) * 1_000 * MS + number * MS;
    let root = span_id(trace, 1);
    let mut span = SpanRecord::new(
        TraceId::from(trace),
        span_id(trace, number),
        if number == 1 {
            "request".to_owned()
        } else {
            format!("step {number}")
        },
        start,
        start + (500 - 2 * number) * MS,
    )
    .with_attribute("mlflow.spanInputs", format!("{{\"step\": {number}}}"))
    .with_attribute("mlflow.spanOutputs", "\"done\"");
    span.parent_span_id = (number > 1).then_some(root);
    span.status.code = StatusCode::Ok;
    span
}

fn span_id(trace: u128, number: u64) -> SpanId {
    SpanId::from(((trace as u64) << 20) | number)
}

/// Spans as one OTLP request, of a service of its own.
pub(super) fn request(service: &str, spans: Vec<SpanRecord>) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![Attribute::new("service.name", service.to_owned())],
        ..Resource::default()
    };
    encode_protobuf(&[SpanGroup {
        resource: Arc::new(resource),
        scope: Arc::new(Scope::default()),
        spans: spans.into_iter().map(Into::into).collect(),
    }])
}
