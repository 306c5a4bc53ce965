//! A batch as rows, grouped by trace: everything that can be computed without the database.

use crate::config::MAX_TEXT;
use crate::derive::{self, SpanFacts};
use foldhash::{HashMap, HashMapExt};
use std::ops::Range;
use trace_destination_core::{Error, ErrorKind, Refusal, TraceBatch, TraceUpdate};

/// The rows of one batch.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The spans that can be stored.
    pub(crate) spans: Vec<SpanRow>,
    /// The traces they belong to, in order of appearance.
    pub(crate) traces: Vec<TraceRows>,
    /// The spans that no MLflow database can store.
    pub(crate) refused: Vec<Refusal>,
    /// Tags by resource.
    tags: Vec<Vec<(String, String)>>,
}

/// One row of `spans`.
#[derive(Debug)]
pub(crate) struct SpanRow {
    /// Position in the batch.
    pub(crate) index: usize,
    pub(crate) facts: SpanFacts,
}

impl SpanRow {
    /// The refusal of this span.
    pub(crate) fn refused(&self, error: &Error) -> Refusal {
        Refusal {
            index: self.index,
            error: error.clone(),
        }
    }
}

/// What a batch says about one trace.
#[derive(Debug)]
pub(crate) struct TraceRows {
    /// The trace id as a number.
    pub(crate) key: u128,
    /// The trace id as MLflow writes it.
    pub(crate) id: String,
    /// Its spans within [`Rows::spans`].
    pub(crate) spans: Range<usize>,
    /// Tags of the first resource that has any.
    resource: Option<usize>,
    /// What the application set on the trace as a whole.
    pub(crate) update: Option<TraceUpdate>,
}

impl Rows {
    /// Encodes a batch. Spans that cannot be encoded are refused alone.
    pub(crate) fn of(batch: &TraceBatch) -> Self {
        let mut rows = Self {
            spans: Vec::with_capacity(batch.span_count()),
            traces: Vec::new(),
            refused: Vec::new(),
            tags: Vec::new(),
        };
        // Which trace each span belongs to, by position in `traces`.
        let mut owners: Vec<usize> = Vec::with_capacity(batch.span_count());
        let mut known: HashMap<u128, usize> = HashMap::new();
        let mut index = 0;
        for group in batch.groups() {
            let tags = derive::resource_tags(&group.resource);
            let resource = (!tags.is_empty()).then_some(rows.tags.len());
            rows.tags.push(tags);
            for span in &group.spans {
                match derive::span_facts(span, &group.resource).and_then(storable) {
                    Ok(facts) => {
                        let key = u128::from_be_bytes(span.trace_id().to_bytes());
                        let trace = *known.entry(key).or_insert_with(|| {
                            rows.traces.push(TraceRows::new(key));
                            rows.traces.len() - 1
                        });
                        let resource_of = &mut rows.traces[trace].resource;
                        *resource_of = resource_of.or(resource);
                        owners.push(trace);
                        rows.spans.push(SpanRow { index, facts });
                    }
                    Err(error) => rows.refused.push(Refusal { index, error }),
                }
                index += 1;
            }
        }
        for update in batch.updates() {
            let key = u128::from_be_bytes(update.trace_id.to_bytes());
            let trace = *known.entry(key).or_insert_with(|| {
                rows.traces.push(TraceRows::new(key));
                rows.traces.len() - 1
            });
            match &mut rows.traces[trace].update {
                Some(earlier) => earlier.merge(update.clone()),
                none => *none = Some(update.clone()),
            }
        }
        rows.order_by_trace(owners);
        rows
    }

    /// Tags that the resource of a trace's spans puts on the trace.
    pub(crate) fn resource_tags(&self, trace: &TraceRows) -> &[(String, String)] {
        trace.resource.map_or(&[], |i| &self.tags[i])
    }

    /// Puts the spans of one trace side by side, in order of arrival.
    fn order_by_trace(&mut self, owners: Vec<usize>) {
        let mut tagged: Vec<(usize, SpanRow)> =
            owners.into_iter().zip(self.spans.drain(..)).collect();
        if !tagged.is_sorted_by_key(|(owner, _)| *owner) {
            tagged.sort_by_key(|(owner, _)| *owner);
        }
        let mut start = 0;
        for (position, (owner, row)) in tagged.into_iter().enumerate() {
            let trace = &mut self.traces[owner];
            if trace.spans.is_empty() {
                start = position;
            }
            trace.spans = start..position + 1;
            self.spans.push(row);
        }
    }
}

impl TraceRows {
    fn new(key: u128) -> Self {
        Self {
            key,
            id: format!("tr-{key:032x}"),
            spans: 0..0,
            resource: None,
            update: None,
        }
    }
}

/// Refuses a row that SQLite could not hold, before it fails a transaction.
fn storable(facts: SpanFacts) -> Result<SpanFacts, Error> {
    let bytes = facts.content.len() + facts.name.len();
    if bytes > MAX_TEXT {
        return Err(Error::new(
            ErrorKind::InvalidSpan,
            "store span",
            format!("it takes {bytes} bytes, and SQLite stores {MAX_TEXT} at most"),
        )
        .mend("shorten its attributes"));
    }
    Ok(facts)
}
