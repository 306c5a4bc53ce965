//! What spans look like besides their values: kinds, outcomes, links, limits, and how traces come.

use super::parts::{
    event, failed, group, instrumented, link, named, of_kind, ok, shop, span, warehouse,
};
use std::sync::Arc;
use trace_destination_core::{Attribute, Scope, SpanGroup, SpanKind, Status, StatusCode};

/// A trace with every span kind, and one for every outcome of a root.
pub(super) fn kinds_and_outcomes() -> Vec<SpanGroup> {
    let kinds = [
        (1, "server", SpanKind::Server),
        (2, "unspecified", SpanKind::Unspecified),
        (3, "internal", SpanKind::Internal),
        (4, "client", SpanKind::Client),
        (5, "producer", SpanKind::Producer),
        (6, "consumer", SpanKind::Consumer),
    ];
    let kinds = kinds.map(|(number, name, kind)| {
        of_kind(span(10, number, (number > 1).then_some(1), name), kind)
    });
    let mut spoken = ok(span(12, 1, None, "ok with a message"));
    spoken.status.message = "all went well".into();
    let mut unset = span(13, 1, None, "unset with a message");
    unset.status.message = "nobody knows".into();
    let mut silent = span(14, 1, None, "error without a message");
    silent.status.code = StatusCode::Error;
    let parent = ok(span(15, 1, None, "ok with a failed child"));
    let child = failed(
        span(15, 2, Some(1), "fails"),
        "TimeoutError",
        "no answer in 30 s",
    );
    vec![
        group(&shop(), &named(), kinds.into()),
        group(
            &shop(),
            &instrumented(),
            vec![
                failed(
                    span(11, 1, None, "fails"),
                    "ValueError",
                    "order 7 does not exist",
                ),
                spoken,
                unset,
                silent,
                parent,
                child,
            ],
        ),
    ]
}

/// Links with all they can have, and counts of what was lost to limits.
pub(super) fn links_and_limits() -> Vec<SpanGroup> {
    let mut span_ = of_kind(span(20, 1, None, "consume"), SpanKind::Consumer);
    span_.trace_state = "vendor=opaque,other@tenant=1:2".to_owned();
    // Sampled and random, with a remote parent.
    span_.flags = 0x303;
    span_.dropped_attributes_count = 3;
    span_.dropped_events_count = 4;
    span_.dropped_links_count = 5;
    let mut cut = event("cut", &span_, vec![Attribute::new("kept", 1)]);
    cut.dropped_attributes_count = 6;
    span_.events.push(cut);
    let mut remote = link(
        10,
        5,
        vec![
            Attribute::new("messaging.operation.type", "receive"),
            Attribute::new("messaging.batch.message_count", 2),
        ],
    );
    remote.trace_state = "vendor=other".to_owned();
    remote.flags = 0x301;
    remote.dropped_attributes_count = 7;
    let unknown = link(9_999, 1, Vec::new());
    span_.links = vec![remote, unknown];

    let mut limit = span(20, 2, Some(1), "at its limits");
    limit.dropped_attributes_count = u32::MAX;
    limit.dropped_events_count = u32::MAX;
    limit.dropped_links_count = u32::MAX;
    limit.flags = u32::MAX;
    limit.events = (0..64).map(|_| event("tick", &limit, Vec::new())).collect();
    for i in 0..128 {
        limit
            .attributes
            .push(Attribute::new(format!("attribute.{i:03}"), i));
    }
    // A link to a span of its own trace, before that span.
    limit.links.push(link(20, 3, Vec::new()));

    let mut twice = span(20, 3, Some(1), "says a key twice")
        .with_attribute("key", "first")
        .with_attribute("key", "last");
    twice.status = Status {
        code: StatusCode::Ok,
        message: "".into(),
    };
    vec![group(
        &warehouse(),
        &instrumented(),
        vec![span_, limit, twice],
    )]
}

/// Traces whose spans come in several requests, from several resources: leaves first, roots last;
/// and one whose root never comes.
pub(super) fn split_traces() -> Vec<Vec<SpanGroup>> {
    let worker = Arc::new(Scope {
        name: "warehouse.worker".to_owned(),
        version: Some("1".to_owned()),
        ..Scope::default()
    });
    let mut leaf = span(30, 3, Some(2), "pick");
    leaf.attributes.push(Attribute::new("shelf", "A-17"));
    let mut middle = of_kind(span(30, 2, Some(1), "POST /pick"), SpanKind::Server);
    // Its parent is in another process.
    middle.flags = 0x301;
    let root = ok(of_kind(span(30, 1, None, "order"), SpanKind::Client))
        .with_attribute("mlflow.spanInputs", "{\"order\": 7}")
        .with_attribute("mlflow.spanOutputs", "{\"shelf\": \"A-17\"}");

    let other_child = span(31, 2, Some(1), "restock");
    let other_root = failed(span(31, 1, None, "inventory"), "IOError", "shelf is empty");

    let orphan = span(32, 2, Some(1), "its root never comes");
    vec![
        vec![group(
            &warehouse(),
            &worker,
            vec![leaf, other_child, orphan],
        )],
        vec![group(&warehouse(), &named(), vec![middle])],
        vec![
            group(&shop(), &named(), vec![root]),
            group(&warehouse(), &worker, vec![other_root]),
        ],
    ]
}
