use super::*;
use opentelemetry::trace::{SpanId, TraceId};
use std::sync::Arc;
use trace_destination_core::{
    BatchId, Error, ErrorKind, Resource, Scope, SpanGroup, SpanKind, SpanRecord,
};
use uuid::Uuid;

fn span(trace: u128, id: u64) -> SpanRecord {
    SpanRecord::new(TraceId::from(trace), SpanId::from(id), "s", 1_000, 2_000)
}

fn batch(spans: Vec<SpanRecord>) -> TraceBatch {
    let group = SpanGroup {
        resource: Arc::new(Resource::default()),
        scope: Arc::new(Scope::default()),
        spans: spans.into_iter().map(Into::into).collect(),
    };
    let id = BatchId {
        writer: Uuid::nil(),
        sequence: 0,
    };
    TraceBatch::new(id, vec![group], Vec::new())
}

fn repeated(recent: &Recent, spans: Vec<SpanRecord>) -> Vec<usize> {
    let mut all: Vec<_> = recent
        .sort(&batch(spans), &[])
        .repeated
        .into_iter()
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn only_what_is_stored_is_remembered() {
    let mut recent = Recent::default();
    let first = recent.sort(&batch(vec![span(1, 1), span(1, 2)]), &[]);
    // Not stored yet: nothing is known.
    assert_eq!(repeated(&recent, vec![span(1, 1)]), [] as [usize; 0]);
    let error = Error::new(ErrorKind::InvalidSpan, "write table", "odd");
    recent.remember(&first, &[Refusal { index: 1, error }]);
    assert_eq!(recent.len(), 1);
    assert_eq!(
        repeated(
            &recent,
            vec![span(1, 1), span(1, 2), span(2, 1), span(1, 1)]
        ),
        [0, 3],
        "the second was refused"
    );
    recent.clear();
    assert_eq!(repeated(&recent, vec![span(1, 1)]), [] as [usize; 0]);
}

#[test]
fn a_span_that_is_refused_is_repeated_by_none() {
    let recent = Recent::default();
    let error = || Error::new(ErrorKind::InvalidSpan, "write table", "odd");
    let both = batch(vec![span(1, 1), span(1, 1), span(1, 1)]);
    let sorted = recent.sort(
        &both,
        &[Refusal {
            index: 0,
            error: error(),
        }],
    );
    assert_eq!(sorted.repeated.into_iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_span_is_another_if_anything_of_it_is() {
    let mut recent = Recent::default();
    let known = span(0x0102, 3);
    let first = recent.sort(&batch(vec![known.clone()]), &[]);
    recent.remember(&first, &[]);
    let mut later = known.clone();
    later.end_time_unix_nano += 1;
    let mut earlier = known.clone();
    earlier.start_time_unix_nano -= 1;
    // A client and a server that share an id.
    let mut server = known.clone();
    server.kind = SpanKind::Server;
    let others = vec![
        later,
        earlier,
        server,
        span(0x0102, 4),
        span(0x0103, 3),
        // The same bytes, cut elsewhere.
        span(0x01, 0x0203),
        span(3, 0x0102),
    ];
    assert_eq!(repeated(&recent, others), [] as [usize; 0]);
    // Its values are not.
    let told_more = known.with_attribute("more", 1_i64);
    assert_eq!(repeated(&recent, vec![told_more]), [0]);
}

#[test]
fn what_is_remembered_is_bounded_and_the_youngest_stay() {
    let mut recent = Recent::default();
    let count = u64::try_from(2 * PER_TABLE).unwrap();
    for first in (0..count).step_by(4096) {
        let spans = (first..first + 4096).map(|id| span(1, id + 1)).collect();
        let sorted = recent.sort(&batch(spans), &[]);
        assert!(sorted.repeated.is_empty());
        recent.remember(&sorted, &[]);
        assert!(recent.len() <= PER_TABLE, "{}", recent.len());
    }
    assert!(recent.len() >= PER_TABLE / 2);
    let half = u64::try_from(PER_TABLE / 2).unwrap();
    let youngest = (count - half..count).map(|id| span(1, id + 1)).collect();
    assert_eq!(repeated(&recent, youngest).len(), PER_TABLE / 2);
    assert_eq!(repeated(&recent, vec![span(1, 1)]), [] as [usize; 0]);
    let held = HELD.load(Ordering::Relaxed);
    assert!(held >= recent.len());
}
