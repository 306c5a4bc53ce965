//! Requests put together from spans that were encoded once.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use trace_destination_core::{AnyValueRef, Resource, Span, SpanGroup};
use trace_destination_otlp::{
    AsGiven, EncodedSpans, ResourceSpans, Rewrite, decode_protobuf, encode_protobuf, sample,
};

fn groups() -> Vec<SpanGroup> {
    std::iter::once(sample::captured().to_vec())
        .chain(sample::generated())
        .flat_map(|bytes| decode_protobuf(&bytes).unwrap())
        .map(ResourceSpans::into_group)
        .collect()
}

/// What is left of the groups; those that lose all of their spans go.
fn selected(groups: &[SpanGroup], select: impl Fn(usize) -> bool) -> Vec<SpanGroup> {
    let mut next = 0..;
    groups
        .iter()
        .filter_map(|group| {
            let mut group = group.clone();
            let before = group.spans.len();
            group.spans.retain(|_| select(next.next().unwrap()));
            (before == 0 || !group.spans.is_empty()).then_some(group)
        })
        .collect()
}

#[test]
fn a_selection_is_what_its_spans_alone_would_be() {
    let groups = groups();
    let encoded = EncodedSpans::new(&groups, &mut AsGiven);
    assert_eq!(
        encoded.len(),
        groups.iter().map(|g| g.spans.len()).sum::<usize>()
    );
    assert!(encoded.request(|_| true) == encode_protobuf(&groups));
    for modulus in [2, 3, 7, 100] {
        let select = |i: usize| i % modulus == 1;
        let request = encoded.request(select);
        assert!(
            request == encode_protobuf(&selected(&groups, select)),
            "{modulus}"
        );
        // The shortest encoding there is: the one another implementation chooses.
        let again = ExportTraceServiceRequest::decode(&*request).unwrap();
        assert!(again.encode_to_vec() == request, "{modulus}");
    }
    let none = encoded.request(|_| false);
    let left = decode_protobuf(&none).unwrap();
    assert!(left.iter().all(|g| g.spans.is_empty()));
}

struct Changed;

impl Rewrite for Changed {
    fn attributes(&mut self, span: &Span, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
        put("name", AnyValueRef::String(span.name()));
    }

    fn resource_attributes(&mut self, _: &Resource, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
        put("only", AnyValueRef::Int(-1));
    }

    fn end_time_unix_nano(&mut self, span: &Span) -> u64 {
        span.start_time_unix_nano().saturating_add(1)
    }
}

#[test]
fn what_is_rewritten_is_all_that_changes() {
    let groups = groups();
    let request = EncodedSpans::new(&groups, &mut Changed).request(|_| true);
    let found = decode_protobuf(&request).unwrap();
    for (found, given) in found.iter().zip(&groups) {
        let only: Vec<_> = found.resource.attributes().iter().collect();
        assert!(matches!(only[..], [("only", AnyValueRef::Int(-1))]));
        for (found, given) in found.spans.iter().zip(&given.spans) {
            let mut expected = given.to_record();
            let name = expected.name.to_string();
            expected.attributes.clear();
            let mut expected = expected.with_attribute("name".to_owned(), name);
            expected.end_time_unix_nano = expected.start_time_unix_nano.saturating_add(1);
            // As text, because NaN equals itself there.
            assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        }
    }
}
