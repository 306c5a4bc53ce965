//! What each span has of its own.

use super::bag::{Bags, Dictionaries, Shared};
use super::column::{Lengths, Numbers, Texts, field_type, list, structure};
use super::fault::Fault;
use super::group::FIRST_STATUS;
use super::{identity, keys, saturated};
use crate::schema::SchemaVersion;
use arrow_array::ArrayRef;
use arrow_array::types::{Date32Type, Int32Type, Int64Type};
use arrow_schema::DataType;
use trace_destination_core::Span;

const NANOS_PER_MICRO: i64 = 1_000;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// The columns that Databricks adds to those of OpenTelemetry, but for the service's name.
#[derive(Debug, Default)]
struct AddedColumns {
    record_id: Texts,
    time: Numbers<i64>,
    date: Numbers<i32>,
}

#[derive(Debug)]
struct EventColumns {
    lengths: Lengths,
    time: Numbers<i64>,
    name: Texts,
    attributes: Bags,
    dropped_attributes: Numbers<i32>,
}

#[derive(Debug)]
struct LinkColumns {
    lengths: Lengths,
    trace_id: Texts,
    span_id: Texts,
    trace_state: Texts,
    attributes: Bags,
    dropped_attributes: Numbers<i32>,
    flags: Numbers<i32>,
}

/// The columns of what each span has of its own.
#[derive(Debug)]
pub(super) struct SpanColumns {
    version: SchemaVersion,
    added: Option<AddedColumns>,
    trace_id: Texts,
    span_id: Texts,
    trace_state: Texts,
    parent_span_id: Texts,
    flags: Numbers<i32>,
    name: Texts,
    kind: Numbers<i32>,
    start: Numbers<i64>,
    end: Numbers<i64>,
    attributes: Bags,
    dropped_attributes: Numbers<i32>,
    events: EventColumns,
    dropped_events: Numbers<i32>,
    links: LinkColumns,
    dropped_links: Numbers<i32>,
    status_message: Texts,
    status_code: Numbers<i32>,
}

impl SpanColumns {
    pub(super) fn new(version: SchemaVersion) -> Self {
        Self {
            version,
            added: match version {
                SchemaVersion::V1 => None,
                SchemaVersion::V2 => Some(AddedColumns::default()),
            },
            trace_id: Texts::default(),
            span_id: Texts::default(),
            trace_state: Texts::default(),
            parent_span_id: Texts::default(),
            flags: Numbers::default(),
            name: Texts::default(),
            kind: Numbers::default(),
            start: Numbers::default(),
            end: Numbers::default(),
            attributes: Bags::new(version),
            dropped_attributes: Numbers::default(),
            events: EventColumns {
                lengths: Lengths::default(),
                time: Numbers::default(),
                name: Texts::default(),
                attributes: Bags::new(version),
                dropped_attributes: Numbers::default(),
            },
            dropped_events: Numbers::default(),
            links: LinkColumns {
                lengths: Lengths::default(),
                trace_id: Texts::default(),
                span_id: Texts::default(),
                trace_state: Texts::default(),
                attributes: Bags::new(version),
                dropped_attributes: Numbers::default(),
                flags: Numbers::default(),
            },
            dropped_links: Numbers::default(),
            status_message: Texts::default(),
            status_code: Numbers::default(),
        }
    }

    /// Appends a span, or nothing.
    ///
    /// # Errors
    /// If a row cannot hold it.
    pub(super) fn append(&mut self, span: &Span, shared: &mut Shared) -> Result<(), Fault> {
        let start = time("start", span.start_time_unix_nano())?;
        let end = time("end", span.end_time_unix_nano())?;
        for event in span.events() {
            time("event", event.time_unix_nano)?;
        }
        self.append_bags(span, shared)?;
        // From here on nothing fails.
        let (trace, id) = (span.trace_id(), span.span_id());
        if let Some(added) = &mut self.added {
            let record_id = identity::record_id(trace, id, start);
            added.record_id.push(record_id.as_str());
            added.time.push(start / NANOS_PER_MICRO);
            // 106,751 days at most.
            added.date.push((start / NANOS_PER_DAY) as i32);
        }
        self.trace_id.push(identity::trace_id(trace).as_str());
        self.span_id.push(identity::span_id(id).as_str());
        self.trace_state.push_non_empty(&span.trace_state());
        match span.parent_span_id() {
            Some(parent) => self.parent_span_id.push(identity::span_id(parent).as_str()),
            None => self.parent_span_id.push_null(),
        }
        self.flags.push(span.flags().cast_signed());
        self.name.push(span.name());
        self.kind.push(span.kind() as i32);
        self.start.push(start);
        self.end.push(end);
        self.dropped_attributes
            .push(saturated(span.dropped_attributes_count()));
        self.append_events(span);
        self.append_links(span);
        self.status_message.push_non_empty(span.status_message());
        self.status_code
            .push(FIRST_STATUS + span.status_code() as i32);
        Ok(())
    }

    /// Appends all attributes of a span, or none.
    fn append_bags(&mut self, span: &Span, shared: &mut Shared) -> Result<(), Fault> {
        if self.version == SchemaVersion::V1 {
            let events = span.events().map(|e| e.attributes);
            let links = span.links().map(|l| l.attributes);
            for bag in [span.attributes()].into_iter().chain(events).chain(links) {
                keys::each_key(bag, &mut |_| {})?;
            }
        }
        let marks = [
            &self.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ]
        .map(Bags::mark);
        let outcome = self.push_bags(span, shared);
        if outcome.is_err() {
            self.attributes.undo(marks[0]);
            self.events.attributes.undo(marks[1]);
            self.links.attributes.undo(marks[2]);
        }
        outcome
    }

    fn push_bags(&mut self, span: &Span, shared: &mut Shared) -> Result<(), Fault> {
        self.attributes.push(span.attributes(), shared)?;
        for event in span.events() {
            self.events.attributes.push(event.attributes, shared)?;
        }
        for link in span.links() {
            self.links.attributes.push(link.attributes, shared)?;
        }
        Ok(())
    }

    fn append_events(&mut self, span: &Span) {
        let events = &mut self.events;
        events.lengths.push(span.event_count());
        for event in span.events() {
            // In range: this was checked before the first column.
            events.time.push(event.time_unix_nano.cast_signed());
            events.name.push(event.name);
            events
                .dropped_attributes
                .push(saturated(event.dropped_attributes_count));
        }
        self.dropped_events
            .push(saturated(span.dropped_events_count()));
    }

    fn append_links(&mut self, span: &Span) {
        let links = &mut self.links;
        links.lengths.push(span.link_count());
        for link in span.links() {
            links
                .trace_id
                .push(identity::trace_id(link.trace_id).as_str());
            links.span_id.push(identity::span_id(link.span_id).as_str());
            links.trace_state.push_non_empty(&link.trace_state);
            links
                .dropped_attributes
                .push(saturated(link.dropped_attributes_count));
            links.flags.push(link.flags.cast_signed());
        }
        self.dropped_links
            .push(saturated(span.dropped_links_count()));
    }

    /// Bytes of the spans' own attributes.
    pub(super) fn value_bytes(&self) -> usize {
        self.attributes.value_bytes()
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.flags.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let added = self.added.as_ref().map_or(0, |added| {
            added.record_id.bytes() + added.time.bytes() + added.date.bytes()
        });
        let texts = [
            &self.trace_id,
            &self.span_id,
            &self.trace_state,
            &self.parent_span_id,
            &self.name,
            &self.status_message,
            &self.events.name,
            &self.links.trace_id,
            &self.links.span_id,
            &self.links.trace_state,
        ];
        let ints = [
            &self.flags,
            &self.kind,
            &self.dropped_attributes,
            &self.dropped_events,
            &self.dropped_links,
            &self.status_code,
            &self.events.dropped_attributes,
            &self.links.dropped_attributes,
            &self.links.flags,
        ];
        let bags = [
            &self.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ];
        added
            + texts.map(Texts::bytes).iter().sum::<usize>()
            + ints.map(Numbers::bytes).iter().sum::<usize>()
            + bags.map(Bags::bytes).iter().sum::<usize>()
            + [&self.start, &self.end, &self.events.time]
                .map(Numbers::bytes)
                .iter()
                .sum::<usize>()
            + self.events.lengths.bytes()
            + self.links.lengths.bytes()
    }

    /// The columns that Databricks adds, if the table has them.
    pub(super) fn finish_added(
        &mut self,
        columns: &mut Vec<ArrayRef>,
        service_name: impl FnOnce() -> ArrayRef,
    ) {
        if let Some(added) = &mut self.added {
            columns.push(added.record_id.finish());
            columns.push(added.time.finish_utc());
            columns.push(added.date.finish::<Date32Type>());
            columns.push(service_name());
        }
    }

    /// The columns from `trace_id` to `status`; `types` are those of the nested ones.
    pub(super) fn finish(
        &mut self,
        [attributes, events, links, status]: [&DataType; 4],
        columns: &mut Vec<ArrayRef>,
        from: &Dictionaries,
    ) {
        columns.extend([
            self.trace_id.finish(),
            self.span_id.finish(),
            self.trace_state.finish(),
            self.parent_span_id.finish(),
            self.flags.finish::<Int32Type>(),
            self.name.finish(),
            self.kind.finish_places(&from.terms),
            self.start.finish::<Int64Type>(),
            self.end.finish::<Int64Type>(),
            self.attributes.finish(attributes, from),
            self.dropped_attributes.finish::<Int32Type>(),
            self.events.finish(events, from),
            self.dropped_events.finish::<Int32Type>(),
            self.links.finish(links, from),
            self.dropped_links.finish::<Int32Type>(),
            structure(
                status,
                vec![
                    self.status_message.finish(),
                    self.status_code.finish_places(&from.terms),
                ],
            ),
        ]);
    }
}

impl EventColumns {
    fn finish(&mut self, data_type: &DataType, from: &Dictionaries) -> ArrayRef {
        list(data_type, &mut self.lengths, |element| {
            structure(
                element,
                vec![
                    self.time.finish::<Int64Type>(),
                    self.name.finish(),
                    self.attributes.finish(field_type(element, 2), from),
                    self.dropped_attributes.finish::<Int32Type>(),
                ],
            )
        })
    }
}

impl LinkColumns {
    fn finish(&mut self, data_type: &DataType, from: &Dictionaries) -> ArrayRef {
        list(data_type, &mut self.lengths, |element| {
            structure(
                element,
                vec![
                    self.trace_id.finish(),
                    self.span_id.finish(),
                    self.trace_state.finish(),
                    self.attributes.finish(field_type(element, 3), from),
                    self.dropped_attributes.finish::<Int32Type>(),
                    self.flags.finish::<Int32Type>(),
                ],
            )
        })
    }
}

/// A time as the columns hold it.
fn time(what: &str, nanos: u64) -> Result<i64, Fault> {
    i64::try_from(nanos).map_err(|_| Fault::time(what, nanos))
}
