//! Sample traces: a real capture, and generated ones with what the capture lacks.
//!
//! Both are the same bytes on every call and every machine, so that the results of two programs can
//! be compared.

mod genai;
mod parts;
mod shapes;
mod values;

use crate::encode_protobuf;

/// A real OTLP export of MLflow 3.17.2's Python SDK, as one protobuf `ExportTraceServiceRequest`:
/// 252 spans in 44 traces of a small support agent, 8 of them with an error status. Its attributes
/// are all text, with one resource and one scope.
pub fn captured() -> &'static [u8] {
    include_bytes!("../../tests/data/agents.otlp.binpb")
}

/// Generated traces, as protobuf `ExportTraceServiceRequest`s in the order in which they are sent.
///
/// Every kind of OTLP value, nested; links; three resources and three scopes; traces split over
/// requests, children first; dropped counts, trace states and flags; all span kinds and outcomes;
/// exceptions; the OpenTelemetry GenAI conventions and MLflow's own attributes; sessions and users;
/// text that is empty, long or from all over Unicode; the extremes of numbers and times.
///
/// Every span is valid OTLP. Values that some backends refuse (doubles that are not numbers, times
/// at the ends of their range) are in the last request alone.
pub fn generated() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    requests.push(values::nested());
    requests.push(shapes::kinds_and_outcomes());
    requests.push(shapes::links_and_limits());
    requests.extend(shapes::split_traces());
    requests.push(genai::agent());
    requests.push(genai::mlflow_attributes());
    requests.push(genai::sessions());
    requests.push(values::texts());
    requests.push(values::extremes());
    requests
        .iter()
        .map(|groups| encode_protobuf(groups))
        .collect()
}
