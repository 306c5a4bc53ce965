//! Encodes records to OTLP protobuf, directly into one buffer, without intermediate messages.
//!
//! Field numbers are those of `opentelemetry/proto/{collector/trace,trace,common,resource}/v1`.

use crate::wire::{
    bytes, bytes_len, fixed32, fixed64, key_len, message, put_len, text, uint, varint_len,
};
use std::ops::Range;
use std::sync::Arc;
use trace_destination_core::{
    AnyValueRef, Attributes, EventRef, LinkRef, Resource, Scope, Span, SpanGroup, StatusCode,
};

/// Encodes spans as one OTLP `ExportTraceServiceRequest`.
///
/// Keeps the order. Adjacent groups with one resource share one `ResourceSpans`.
pub fn encode_protobuf(groups: &[SpanGroup]) -> Vec<u8> {
    EncodedSpans::new(groups, &mut AsGiven).request(|_| true)
}

/// Changes to spans that a receiver needs.
pub trait Rewrite {
    /// Calls `put` for each attribute that the encoded span is to have. The default changes
    /// nothing.
    fn attributes(&mut self, span: &Span, put: &mut dyn FnMut(&str, AnyValueRef<'_>)) {
        for (key, value) in span.attributes().iter() {
            put(key, value);
        }
    }

    /// Calls `put` for each attribute that the encoded resource is to have. The default changes
    /// nothing.
    fn resource_attributes(
        &mut self,
        resource: &Resource,
        put: &mut dyn FnMut(&str, AnyValueRef<'_>),
    ) {
        for (key, value) in resource.attributes().iter() {
            put(key, value);
        }
    }

    /// The end of the encoded span, in nanoseconds since the Unix epoch. The default changes
    /// nothing.
    fn end_time_unix_nano(&mut self, span: &Span) -> u64 {
        span.end_time_unix_nano()
    }
}

/// Changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsGiven;

impl Rewrite for AsGiven {}

/// Spans that are encoded one by one, so that requests with all or some of them can be assembled
/// without encoding again. For a sender that has to find the one bad span.
#[derive(Clone, Debug)]
pub struct EncodedSpans {
    /// Each span as an entry of `ScopeSpans.spans`.
    spans: Vec<u8>,
    /// Where each span ends in `spans`.
    ends: Vec<usize>,
    resources: Vec<EncodedResource>,
}

#[derive(Clone, Debug)]
struct EncodedResource {
    /// `ResourceSpans.resource`.
    head: Vec<u8>,
    /// `ResourceSpans.schema_url`.
    tail: Vec<u8>,
    scopes: Vec<EncodedScope>,
}

#[derive(Clone, Debug)]
struct EncodedScope {
    /// `ScopeSpans.scope`.
    head: Vec<u8>,
    /// `ScopeSpans.schema_url`.
    tail: Vec<u8>,
    /// Positions of its spans among all.
    spans: Range<usize>,
}

impl EncodedSpans {
    /// Encodes every span, with the changes of `rewrite`.
    pub fn new(groups: &[SpanGroup], rewrite: &mut impl Rewrite) -> Self {
        let bytes: usize = groups
            .iter()
            .flat_map(|g| &g.spans)
            .map(Span::approximate_bytes)
            .sum();
        let mut encoded = Self {
            spans: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(groups.iter().map(|g| g.spans.len()).sum()),
            resources: Vec::new(),
        };
        let mut last: Option<&Arc<Resource>> = None;
        for group in groups {
            if !last.is_some_and(|r| Arc::ptr_eq(r, &group.resource)) {
                encoded
                    .resources
                    .push(EncodedResource::new(&group.resource, rewrite));
                last = Some(&group.resource);
            }
            let first = encoded.ends.len();
            for one in &group.spans {
                span(&mut encoded.spans, one, rewrite);
                encoded.ends.push(encoded.spans.len());
            }
            let spans = first..encoded.ends.len();
            if let Some(resource) = encoded.resources.last_mut() {
                resource.scopes.push(EncodedScope::new(&group.scope, spans));
            }
        }
        encoded
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no spans.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The `ExportTraceServiceRequest` with the spans whose position `select` accepts. Scopes and
    /// resources without an accepted span are left out.
    pub fn request(&self, select: impl Fn(usize) -> bool) -> Vec<u8> {
        // Lengths are computed first: in protobuf each precedes its content.
        let scope_body = |scope: &EncodedScope| -> usize {
            let spans: usize = scope
                .spans
                .clone()
                .filter(|i| select(*i))
                .map(|i| self.span(i).len())
                .sum();
            match spans {
                // None of its spans was selected. A scope that never had spans is kept.
                0 if !scope.spans.is_empty() => 0,
                spans => scope.head.len() + spans + scope.tail.len(),
            }
        };
        let mut total = 0;
        let mut bodies = Vec::new();
        for resource in &self.resources {
            let scopes: Vec<usize> = resource.scopes.iter().map(scope_body).collect();
            let inner: usize = scopes
                .iter()
                .filter(|body| **body > 0)
                .map(|body| bytes_len(2, *body))
                .sum();
            let body = match inner {
                0 => 0,
                inner => resource.head.len() + inner + resource.tail.len(),
            };
            if body > 0 {
                total += bytes_len(1, body);
            }
            bodies.push((body, scopes));
        }
        let mut out = Vec::with_capacity(total);
        for (resource, (body, scopes)) in self.resources.iter().zip(&bodies) {
            if *body == 0 {
                continue;
            }
            put_len(&mut out, 1, *body);
            out.extend_from_slice(&resource.head);
            for (scope, body) in resource.scopes.iter().zip(scopes) {
                if *body == 0 {
                    continue;
                }
                put_len(&mut out, 2, *body);
                out.extend_from_slice(&scope.head);
                for i in scope.spans.clone().filter(|i| select(*i)) {
                    out.extend_from_slice(self.span(i));
                }
                out.extend_from_slice(&scope.tail);
            }
            out.extend_from_slice(&resource.tail);
        }
        debug_assert_eq!(out.len(), total, "the lengths that were written are wrong");
        out
    }

    fn span(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => 0,
            index => self.ends[index - 1],
        };
        &self.spans[start..self.ends[index]]
    }
}

impl EncodedResource {
    fn new(resource: &Resource, rewrite: &mut impl Rewrite) -> Self {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        message(&mut head, 1, 2, |out| {
            rewrite.resource_attributes(resource, &mut |key, value| key_value(out, 1, key, value));
            uint(out, 2, resource.dropped_attributes_count.into());
        });
        text(
            &mut tail,
            3,
            resource.schema_url.as_deref().unwrap_or_default(),
        );
        Self {
            head,
            tail,
            scopes: Vec::new(),
        }
    }
}

impl EncodedScope {
    fn new(scope: &Scope, spans: Range<usize>) -> Self {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        message(&mut head, 1, 1, |out| {
            text(out, 1, &scope.name);
            text(out, 2, scope.version.as_deref().unwrap_or_default());
            attributes(out, 3, Attributes::record(&scope.attributes));
            uint(out, 4, scope.dropped_attributes_count.into());
        });
        text(
            &mut tail,
            3,
            scope.schema_url.as_deref().unwrap_or_default(),
        );
        Self { head, tail, spans }
    }
}

fn span(out: &mut Vec<u8>, span: &Span, rewrite: &mut impl Rewrite) {
    message(out, 2, 2, |out| {
        bytes(out, 1, &span.trace_id().to_bytes());
        bytes(out, 2, &span.span_id().to_bytes());
        text(out, 3, &span.trace_state());
        if let Some(parent) = span.parent_span_id() {
            bytes(out, 4, &parent.to_bytes());
        }
        text(out, 5, span.name());
        uint(out, 6, span.kind() as u64);
        fixed64(out, 7, span.start_time_unix_nano());
        fixed64(out, 8, rewrite.end_time_unix_nano(span));
        rewrite.attributes(span, &mut |key, value| key_value(out, 9, key, value));
        uint(out, 10, span.dropped_attributes_count().into());
        for event in span.events() {
            self::event(out, event);
        }
        uint(out, 12, span.dropped_events_count().into());
        for link in span.links() {
            self::link(out, link);
        }
        uint(out, 14, span.dropped_links_count().into());
        let (code, description) = (span.status_code(), span.status_message());
        if code != StatusCode::Unset || !description.is_empty() {
            message(out, 15, 1, |out| {
                text(out, 2, description);
                uint(out, 3, code as u64);
            });
        }
        fixed32(out, 16, span.flags());
    });
}

fn event(out: &mut Vec<u8>, event: EventRef<'_>) {
    message(out, 11, 1, |out| {
        fixed64(out, 1, event.time_unix_nano);
        text(out, 2, event.name);
        attributes(out, 3, event.attributes);
        uint(out, 4, event.dropped_attributes_count.into());
    });
}

fn link(out: &mut Vec<u8>, link: LinkRef<'_>) {
    message(out, 13, 1, |out| {
        bytes(out, 1, &link.trace_id.to_bytes());
        bytes(out, 2, &link.span_id.to_bytes());
        text(out, 3, &link.trace_state);
        attributes(out, 4, link.attributes);
        uint(out, 5, link.dropped_attributes_count.into());
        fixed32(out, 6, link.flags);
    });
}

fn attributes(out: &mut Vec<u8>, field: u32, list: Attributes<'_>) {
    for (key, value) in list.iter() {
        key_value(out, field, key, value);
    }
}

fn key_value(out: &mut Vec<u8>, field: u32, key: &str, value: AnyValueRef<'_>) {
    match scalar_len(value) {
        // The common case: every length is known, and no content has to move.
        Some(value_len) => {
            let key_len = match key.len() {
                0 => 0,
                len => bytes_len(1, len),
            };
            put_len(out, field, key_len + bytes_len(2, value_len));
            text(out, 1, key);
            put_len(out, 2, value_len);
            any_value(out, value);
        }
        None => message(out, field, 2, |out| {
            text(out, 1, key);
            message(out, 2, 2, |out| any_value(out, value));
        }),
    }
}

/// Length of an encoded value, if it is known without encoding.
fn scalar_len(value: AnyValueRef<'_>) -> Option<usize> {
    Some(match value {
        AnyValueRef::Empty => 0,
        AnyValueRef::Bool(_) => key_len(2) + 1,
        AnyValueRef::Int(v) => key_len(3) + varint_len(v as u64),
        AnyValueRef::Double(_) => key_len(4) + 8,
        AnyValueRef::String(v) => bytes_len(1, v.len()),
        AnyValueRef::Bytes(v) => bytes_len(7, v.len()),
        AnyValueRef::Array(_) | AnyValueRef::Map(_) => return None,
    })
}

/// Writes the one field of an `AnyValue`, also if it is zero or empty.
fn any_value(out: &mut Vec<u8>, value: AnyValueRef<'_>) {
    match value {
        AnyValueRef::Empty => {}
        AnyValueRef::String(v) => bytes(out, 1, v.as_bytes()),
        AnyValueRef::Bool(v) => crate::wire::varint_field(out, 2, v.into()),
        AnyValueRef::Int(v) => crate::wire::varint_field(out, 3, v as u64),
        AnyValueRef::Double(v) => crate::wire::fixed64_field(out, 4, v.to_bits()),
        AnyValueRef::Array(v) => message(out, 5, 2, |out| {
            for element in v.iter() {
                match scalar_len(element) {
                    Some(len) => {
                        put_len(out, 1, len);
                        any_value(out, element);
                    }
                    None => message(out, 1, 2, |out| any_value(out, element)),
                }
            }
        }),
        AnyValueRef::Map(v) => message(out, 6, 2, |out| {
            for (key, value) in v.iter() {
                key_value(out, 1, key, value);
            }
        }),
        AnyValueRef::Bytes(v) => bytes(out, 7, v),
    }
}
