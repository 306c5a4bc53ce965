//! The counters as OpenTelemetry metrics. They are read when a reader collects, so spans do not pay
//! for them. Names and attributes follow the semantic conventions for SDK span processors (version
//! 1.36 of `open-telemetry/semantic-conventions`, `docs/otel/sdk-metrics.md` there); instruments
//! without a convention begin with `trace_destination.`.

use crate::pipeline::Shared;
use crate::stats::{DropReason, LocationState};
use crate::totals::Totals;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const COMPONENT_TYPE: &str = "trace_destination_processor";

/// Registers observable instruments that live as long as the pipeline.
pub(crate) fn register(meter: &Meter, shared: &Arc<Shared>, locations: usize) {
    let weak = Arc::downgrade(shared);
    let source = weak.clone();
    meter
        .u64_observable_counter("otel.sdk.processor.span.processed")
        .with_unit("{span}")
        .with_description("Spans for which processing has finished, stored or dropped.")
        .with_callback(move |observer| {
            for (series, sums) in series(&source, locations) {
                observer.observe(sums.stored, &series.attributes(None));
                for reason in DropReason::ALL {
                    let dropped = sums.dropped[reason as usize];
                    if dropped > 0 {
                        observer.observe(dropped, &series.attributes(Some(reason)));
                    }
                }
            }
        })
        .build();
    let source = weak.clone();
    meter
        .i64_observable_up_down_counter("otel.sdk.processor.span.queue.size")
        .with_unit("{span}")
        .with_description("Spans waiting to be stored.")
        .with_callback(move |observer| {
            for (series, sums) in series(&source, locations) {
                observer.observe(
                    i64::try_from(sums.waiting).unwrap_or(i64::MAX),
                    &series.attributes(None),
                );
            }
        })
        .build();
    count_fates(meter, &weak, locations);
    count_unplaced(meter, &weak);
    count_undecided(meter, &weak);
    // The queue is bounded in bytes, so there is no capacity in spans as the conventions have it.
    meter
        .i64_observable_up_down_counter("trace_destination.queue.bytes")
        .with_unit("By")
        .with_description("Memory held by spans that are not stored yet.")
        .with_callback(move |observer| {
            if let Some(shared) = weak.upgrade() {
                for (kind, bytes) in [
                    ("used", shared.budget.used() + shared.room.used()),
                    ("limit", shared.budget.limit() + shared.room.limit()),
                ] {
                    observer.observe(
                        i64::try_from(bytes).unwrap_or(i64::MAX),
                        &[
                            KeyValue::new("otel.component.type", COMPONENT_TYPE),
                            KeyValue::new("trace_destination.budget", kind),
                        ],
                    );
                }
            }
        })
        .build();
}

/// Counters of batches, retries and lost trace-level values, and the number of locations by state.
fn count_fates(meter: &Meter, weak: &Weak<Shared>, locations: usize) {
    type Counter = (&'static str, &'static str, &'static str, fn(&Sums) -> u64);
    const COUNTERS: [Counter; 3] = [
        (
            "trace_destination.batches",
            "{batch}",
            "Batches written.",
            |sums| sums.batches,
        ),
        (
            "trace_destination.retries",
            "{attempt}",
            "Attempts to write a batch that failed and were repeated.",
            |sums| sums.retries,
        ),
        (
            "trace_destination.lost_updates",
            "{update}",
            "Trace-level updates that were not stored.",
            |sums| sums.lost_updates,
        ),
    ];
    for (name, unit, description, read) in COUNTERS {
        let source = weak.clone();
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                for (series, sums) in series(&source, locations) {
                    observer.observe(read(&sums), &series.attributes(None));
                }
            })
            .build();
    }
    let source = weak.clone();
    meter
        .i64_observable_up_down_counter("trace_destination.locations")
        .with_unit("{location}")
        .with_description("Locations in use, by state.")
        .with_callback(move |observer| {
            for (series, sums) in series(&source, locations) {
                for state in LocationState::ALL {
                    let mut attributes = series.attributes(None);
                    attributes.push(KeyValue::new("trace_destination.state", state.as_str()));
                    observer.observe(sums.states[state as usize], &attributes);
                }
            }
        })
        .build();
}

/// Spans and traces that reached no location, by reason.
fn count_unplaced(meter: &Meter, weak: &Weak<Shared>) {
    type Counter = (&'static str, fn(&Totals) -> &AtomicU64);
    const REASONS: [Counter; 7] = [
        ("unrouted", |totals| &totals.unrouted),
        ("orphaned", |totals| &totals.orphaned),
        ("discarded", |totals| &totals.discarded),
        ("sampled_out", |totals| &totals.sampled_out),
        ("expired_binding", |totals| &totals.expired_bindings),
        ("ignored_scope", |totals| &totals.ignored_scopes),
        ("unrouted_update", |totals| &totals.unrouted_updates),
    ];
    let source = weak.clone();
    meter
        .u64_observable_counter("trace_destination.unplaced")
        .with_unit("{event}")
        .with_description(
            "Spans without a destination (unrouted, orphaned, discarded, sampled out), traces whose \
             binding expired while spans were open, spans started in a scope that had no effect, \
             trace-level updates without a destination, and roots below the scopes.",
        )
        .with_callback(move |observer| {
            let Some(shared) = source.upgrade().filter(|shared| !shared.is_inherited()) else {
                return;
            };
            let totals = REASONS.map(|(reason, total)| (reason, total(&shared.totals)));
            let unscoped = ("unscoped_root", &shared.levels.unscoped);
            for (reason, total) in totals.into_iter().chain([unscoped]) {
                observer.observe(
                    total.load(Ordering::Relaxed),
                    &[
                        KeyValue::new("otel.component.type", COMPONENT_TYPE),
                        KeyValue::new("trace_destination.reason", reason),
                    ],
                );
            }
        })
        .build();
}

/// What waits for the destination of its trace.
fn count_undecided(meter: &Meter, weak: &Weak<Shared>) {
    let source = weak.clone();
    meter
        .i64_observable_up_down_counter("trace_destination.undecided")
        .with_unit("{event}")
        .with_description("Traces without a destination so far, and what waits in them.")
        .with_callback(move |observer| {
            let Some(shared) = source.upgrade().filter(|shared| !shared.is_inherited()) else {
                return;
            };
            let waiting = shared.room.stats();
            for (kind, count) in [
                ("trace", waiting.traces),
                ("span", waiting.spans),
                ("update", waiting.updates),
            ] {
                observer.observe(
                    i64::try_from(count).unwrap_or(i64::MAX),
                    &[
                        KeyValue::new("otel.component.type", COMPONENT_TYPE),
                        KeyValue::new("trace_destination.kind", kind),
                    ],
                );
            }
        })
        .build();
}

/// One time series: a backend, or one of the first few locations.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    backend: String,
    location: Option<String>,
}

impl Series {
    fn attributes(&self, error: Option<DropReason>) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("otel.component.type", COMPONENT_TYPE),
            KeyValue::new(
                "otel.component.name",
                format!("{COMPONENT_TYPE}/{}", self.backend),
            ),
        ];
        if let Some(location) = &self.location {
            attributes.push(KeyValue::new(
                "trace_destination.location",
                location.clone(),
            ));
        }
        if let Some(reason) = error {
            attributes.push(KeyValue::new("error.type", reason.as_str()));
        }
        attributes
    }
}

#[derive(Default)]
struct Sums {
    stored: u64,
    waiting: u64,
    batches: u64,
    retries: u64,
    lost_updates: u64,
    /// Number of locations in each state.
    states: [i64; LocationState::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
}

fn series(shared: &Weak<Shared>, locations: usize) -> BTreeMap<Series, Sums> {
    let mut all: BTreeMap<Series, Sums> = BTreeMap::new();
    let Some(shared) = shared.upgrade() else {
        return all;
    };
    if shared.is_inherited() {
        return all;
    }
    shared.settle_all();
    let (lanes, forgotten) = shared.routes.all_and_forgotten();
    for (index, lane) in lanes.iter().enumerate() {
        let series = Series {
            backend: lane.uri.scheme().to_owned(),
            location: (index < locations).then(|| lane.uri.to_string()),
        };
        let sums = all.entry(series).or_default();
        let stored = lane.counters.stored.load(Ordering::Relaxed);
        let dropped = lane.dropped();
        let accepted = lane.accepted();
        sums.stored += stored;
        sums.batches += lane.counters.batches.load(Ordering::Relaxed);
        sums.retries += lane.counters.retries.load(Ordering::Relaxed);
        sums.lost_updates += lane.lost_updates();
        sums.states[lane.state().public() as usize] += 1;
        sums.waiting += accepted.saturating_sub(stored + dropped.total());
        for reason in DropReason::ALL {
            sums.dropped[reason as usize] += dropped.by(reason);
        }
    }
    // A counter must not fall, so forgotten locations stay in the sum of their backend.
    for (backend, forgotten) in forgotten.0 {
        let series = Series {
            backend,
            location: None,
        };
        let sums = all.entry(series).or_default();
        sums.stored += forgotten.stored;
        sums.batches += forgotten.batches;
        sums.retries += forgotten.retries;
        sums.lost_updates += forgotten.lost_updates;
        for reason in DropReason::ALL {
            sums.dropped[reason as usize] += forgotten.dropped.by(reason);
        }
    }
    all
}
