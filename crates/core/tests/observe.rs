//! Promises 5, 10 and 13: the sums hold at every moment, metrics have the conventional names, and
//! decoded spans go the same way as live ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::*;
use trace_destination_core::{
    AnyValue, Destination, DropReason, GlobalSlot, Ingested, Overflow, Resource, Scope, SpanRecord,
    update_current_trace,
};

/// Metric name → sorted attributes → value.
type Metrics = BTreeMap<String, BTreeMap<Vec<(String, String)>, i64>>;

fn collect(provider: &SdkMeterProvider, exporter: &InMemoryMetricExporter) -> Metrics {
    exporter.reset();
    provider.force_flush().unwrap();
    let mut all = Metrics::new();
    for resource in exporter.get_finished_metrics().unwrap() {
        for metric in resource.scope_metrics().flat_map(|s| s.metrics()) {
            let series = all.entry(metric.name().to_owned()).or_default();
            let mut add = |attributes: Vec<&KeyValue>, value: i64| {
                let mut key: Vec<_> = attributes
                    .iter()
                    .map(|kv| (kv.key.to_string(), kv.value.to_string()))
                    .collect();
                key.sort();
                assert!(series.insert(key, value).is_none(), "a series twice");
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    for p in sum.data_points() {
                        add(p.attributes().collect(), p.value() as i64);
                    }
                }
                AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                    assert!(!sum.is_monotonic());
                    for p in sum.data_points() {
                        add(p.attributes().collect(), p.value());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    all
}

fn key(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn metrics_have_the_conventional_names() {
    let exporter = InMemoryMetricExporter::default();
    let meters = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .build();
    let pipeline = quick()
        .with_batch_limits(unhurried())
        .with_budget(1 << 20, 1 << 19)
        .with_late_binding(PATIENCE, 1 << 16)
        .with_meter(meters.meter("test"))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("metrics", |_, _| Step::Refuse(&["bad"]));
    for name in ["a", "bad", "b"] {
        span_to(&tracer, &place.to(), name);
    }
    let ours = ("otel.component.type", "trace_destination_processor");
    let component = ("otel.component.name", "trace_destination_processor/script");
    let metrics = collect(&meters, &exporter);
    assert_eq!(
        metrics["otel.sdk.processor.span.queue.size"],
        BTreeMap::from([(key(&[component, ours]), 3)])
    );
    flush(&pipeline);
    let metrics = collect(&meters, &exporter);
    assert_eq!(
        metrics["otel.sdk.processor.span.processed"],
        BTreeMap::from([
            (key(&[component, ours]), 2),
            (key(&[("error.type", "refused"), component, ours]), 1),
        ])
    );
    assert_eq!(
        metrics["otel.sdk.processor.span.queue.size"][&key(&[component, ours])],
        0
    );
    let bytes = &metrics["trace_destination.queue.bytes"];
    assert_eq!(
        bytes[&key(&[ours, ("trace_destination.budget", "limit")])],
        1 << 20
    );
    assert_eq!(
        bytes[&key(&[ours, ("trace_destination.budget", "used")])],
        0
    );
    let root = late::undecided(&tracer, "root");
    late::child(&tracer, &root, "nowhere");
    {
        let _running = root.clone().attach();
        assert!(update_current_trace(|t| t.name = Some("n".into())));
    }
    let metrics = collect(&meters, &exporter);
    for kind in ["trace", "span", "update"] {
        let series = key(&[ours, ("trace_destination.kind", kind)]);
        assert_eq!(metrics["trace_destination.undecided"][&series], 1, "{kind}");
    }
    drop(root);
    flush(&pipeline);
    span_to(&tracer, &Destination::discard(), "on purpose");
    let metrics = collect(&meters, &exporter);
    for kind in ["trace", "span", "update"] {
        let series = key(&[ours, ("trace_destination.kind", kind)]);
        assert_eq!(metrics["trace_destination.undecided"][&series], 0, "{kind}");
    }
    for (reason, count) in [
        ("unrouted", 2),
        ("unrouted_update", 1),
        ("unscoped_root", 0),
        ("discarded", 1),
        ("orphaned", 0),
        ("expired_binding", 0),
        ("ignored_scope", 0),
    ] {
        let series = key(&[ours, ("trace_destination.reason", reason)]);
        assert_eq!(metrics["trace_destination.unplaced"][&series], count);
    }
    for (name, count) in [("batches", 1), ("retries", 0), ("lost_updates", 0)] {
        let metric = &metrics[&format!("trace_destination.{name}")];
        assert_eq!(metric[&key(&[component, ours])], count, "{name}");
    }
    for (state, count) in [("open", 1), ("closed", 0), ("retrying", 0), ("failing", 0)] {
        let series = key(&[component, ours, ("trace_destination.state", state)]);
        assert_eq!(metrics["trace_destination.locations"][&series], count);
    }
    // The instruments do not keep the pipeline alive.
    drop((tracer, pipeline));
    eventually("they fall silent", || {
        collect(&meters, &exporter)
            .get("otel.sdk.processor.span.processed")
            .is_none_or(BTreeMap::is_empty)
    });
}

#[test]
fn metrics_per_location_are_opt_in_and_capped() {
    let exporter = InMemoryMetricExporter::default();
    let meters = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .build();
    let pipeline = quick()
        .with_meter(meters.meter("test"))
        .with_metrics_per_location(2)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let places: Vec<_> = (0..5).map(|i| Place::new(&format!("per-{i}"))).collect();
    for place in &places {
        span_to(&tracer, &place.to(), "a");
    }
    flush(&pipeline);
    let processed = &collect(&meters, &exporter)["otel.sdk.processor.span.processed"];
    let located = |at: Option<&str>| -> i64 {
        processed
            .iter()
            .filter(|(k, _)| {
                let location = k.iter().find(|(k, _)| k == "trace_destination.location");
                location.map(|(_, v)| v.as_str()) == at
            })
            .map(|(_, v)| *v)
            .sum()
    };
    assert_eq!(located(Some("script:per-0")), 1);
    assert_eq!(located(Some("script:per-1")), 1);
    assert_eq!(located(None), 3);
    assert_eq!(processed.len(), 3);
}

fn record(trace: u8, span: u8, name: &'static str) -> SpanRecord {
    SpanRecord::new(
        TraceId::from_bytes([trace; 16]),
        SpanId::from_bytes([span; 8]),
        name,
        1,
        2,
    )
}

#[test]
fn ingested_spans_lose_nothing_and_are_counted() {
    let pipeline = quick().build().unwrap();
    let (a, b) = (Place::new("ingest-a"), Place::new("ingest-b"));
    let both = Destination::all([a.to(), b.to()]).unwrap();
    let mut odd = record(1, 1, "odd");
    odd.attributes = vec![
        trace_destination_core::Attribute::new("bytes", AnyValue::Bytes(vec![0, 255])),
        trace_destination_core::Attribute::new(
            "map",
            AnyValue::Map(vec![trace_destination_core::Attribute::new(
                "k",
                AnyValue::Empty,
            )]),
        ),
        trace_destination_core::Attribute::new(
            "mixed",
            AnyValue::Array(vec![AnyValue::Int(1), AnyValue::Double(f64::INFINITY)]),
        ),
    ];
    odd.dropped_events_count = 7;
    odd.flags = 0x301;
    odd.trace_state = "a=1,b=2".into();
    let resource = Arc::new(Resource::default());
    let scope = Arc::new(Scope::default());
    let ingest =
        |spans, to: &Destination| pipeline.ingest(resource.clone(), scope.clone(), spans, to);
    let result = ingest(vec![odd.clone(), record(1, 2, "plain")], &both);
    assert_eq!(
        result,
        Ingested {
            accepted: 4,
            dropped: 0,
            ..Ingested::default()
        }
    );
    let none = Ingested {
        accepted: 0,
        dropped: 1,
        ..Ingested::default()
    };
    assert_eq!(
        ingest(vec![record(2, 1, "x")], &Destination::discard()),
        none
    );
    assert_eq!(ingest(vec![record(2, 1, "x")], &Destination::unset()), none);
    assert_eq!(ingest(Vec::new(), &both), Ingested::default());
    let many: Vec<_> = (0..1_000).map(|_| record(3, 3, "many")).collect();
    assert_eq!(ingest(many, &a.to()).accepted, 1_000);
    flush(&pipeline);
    assert_eq!(b.names(), ["odd", "plain"]);
    assert_eq!(b.see(|s| s.spans[0].to_record()), odd);
    assert_eq!(a.len(), 1_002);
    let stats = pipeline.stats();
    assert_eq!((stats.discarded, stats.unrouted), (1, 1));
    assert_eq!(stats.bound_traces, 0);
    settled(&pipeline);
    pipeline.shutdown(PATIENCE).wait();
    let late = ingest(vec![record(4, 4, "late")], &both);
    assert_eq!((late.accepted, late.dropped), (0, 2));
    let refused = |to: &Place| late.refused.iter().find(|r| r.location == *to.uri());
    for place in [&a, &b] {
        assert_eq!(refused(place).unwrap().spans, [record(4, 4, "late")]);
    }
    assert_eq!(a.stats(&pipeline).dropped.by(DropReason::Shutdown), 1);
}

#[test]
fn resources_and_scopes_stay_apart_in_a_batch() {
    use opentelemetry::trace::TracerProvider as _;
    let pipeline = quick().with_batch_limits(unhurried()).build().unwrap();
    let (location, to) = memory("resources");
    for service in ["one", "two"] {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
            .with_resource(
                opentelemetry_sdk::Resource::builder_empty()
                    .with_attribute(KeyValue::new("service.name", service))
                    .build(),
            )
            .with_span_processor(pipeline.processor())
            .build();
        for scope in ["x", "y"] {
            let scope = InstrumentationScope::builder(scope)
                .with_version("1")
                .with_attributes([KeyValue::new("k", scope)])
                .build();
            let tracer = provider.tracer_with_scope(scope);
            for _ in 0..2 {
                span_to(&tracer, &to, "a");
            }
        }
    }
    flush(&pipeline);
    let stored = location.store().spans();
    assert_eq!(stored.len(), 8);
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for s in &stored {
        let service = s.resource.attributes().get("service.name").unwrap();
        assert_eq!(s.scope.version.as_deref(), Some("1"));
        assert_eq!(s.scope.attributes.len(), 1);
        *seen
            .entry((service.as_str().unwrap().to_owned(), s.scope.name.clone()))
            .or_default() += 1;
    }
    assert_eq!(seen.len(), 4);
    assert!(seen.values().all(|n| *n == 2));
}

#[test]
fn the_sums_hold_at_every_moment() {
    let pipeline = quick()
        .with_budget(256 << 10, 32 << 10)
        .with_idle_close(Duration::from_millis(5))
        .with_linger(Duration::from_millis(20))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let places = [
        Place::new("sums-good"),
        Place::on_write("sums-shaky", |n, _| {
            if n % 3 == 0 {
                Step::Fail(shaky())
            } else {
                Step::Do
            }
        }),
        Place::on_write("sums-refuses", |_, _| Step::Refuse(&["1"])),
        Place::on_write("sums-broken", |n, _| {
            if n % 2 == 0 {
                Step::Fail(broken())
            } else {
                Step::Do
            }
        }),
        Place::on_write("sums-panics", |n, _| {
            if n % 4 == 0 { Step::Panic } else { Step::Do }
        }),
    ];
    let all = Destination::all(places.iter().map(Place::to)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                balanced(&pipeline);
            }
        });
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for i in 0..1_500 {
                        let to = match i % 6 {
                            5 => all.clone(),
                            i => places[i].to(),
                        };
                        span_to(&tracer, &to, format!("{}", i % 2));
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        eventually("everything is done", || {
            pipeline.flush(PATIENCE).wait().is_complete()
        });
        stop.store(true, Ordering::Relaxed);
    });
    settled(&pipeline);
    for place in &places {
        let stats = place.stats(&pipeline);
        assert_eq!(stats.accepted, 3 * (250 + 250));
        assert_eq!(stats.stored, place.len() as u64, "{}", place.uri());
    }
}

#[test]
fn nothing_is_ever_misrouted() {
    // Few enough that the segments of the shared trace ids all linger, even in one shard.
    const TENANTS: usize = 80;
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 400;
    let slot = Arc::new(GlobalSlot::new());
    let pipeline = quick()
        .with_global(slot.clone())
        .with_overflow(Overflow::Block(PATIENCE))
        .with_linger(Duration::from_secs(5))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let tenants: Vec<_> = (0..TENANTS)
        .map(|i| memory(&format!("stress-{i}")))
        .collect();
    // Handed to whichever thread comes next: spans to end, and parents for late children.
    let (send, receive) = std::sync::mpsc::channel::<(usize, Context)>();
    let receive = std::sync::Mutex::new(receive);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (send, receive) = (send.clone(), &receive);
            let (tracer, tenants, slot) = (&tracer, &tenants, &slot);
            scope.spawn(move || {
                let mut state = 0x9E37_79B9_7F4A_7C15 ^ (thread + 1);
                let mut random = move |below: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % below
                };
                for _ in 0..ROUNDS {
                    let tenant = random(TENANTS as u64) as usize;
                    let name = tenant.to_string();
                    let destination = &tenants[tenant].1;
                    let scoped = destination.in_context(&Context::new());
                    // A few trace ids from outside, used by every tenant.
                    let cx = match random(3) {
                        0 => scoped.with_remote_span_context(SpanContext::new(
                            TraceId::from_bytes([random(2) as u8 + 1; 16]),
                            SpanId::from_bytes([random(3) as u8 + 1; 8]),
                            TraceFlags::SAMPLED,
                            true,
                            TraceState::NONE,
                        )),
                        _ => scoped,
                    };
                    let root = match random(3) {
                        0 => {
                            let _scope = destination.enter();
                            let cx = Context::current();
                            cx.with_span(tracer.start(name.clone()))
                        }
                        _ => cx.with_span(tracer.start_with_context(name.clone(), &cx)),
                    };
                    // Without the scope: what follows finds its way by the binding alone.
                    let bare =
                        Context::new().with_remote_span_context(root.span().span_context().clone());
                    for _ in 0..random(4) {
                        let child = tracer.start_with_context(name.clone(), &bare);
                        if random(2) == 0 {
                            drop(child);
                        } else {
                            let _ = send.send((tenant, bare.with_span(child)));
                        }
                    }
                    let _ = send.send((tenant, bare));
                    if random(10) == 0 {
                        slot.set(tenants[random(TENANTS as u64) as usize].1.clone());
                    }
                    drop(root);
                    let handed = receive.lock().unwrap().try_recv();
                    if let Ok((tenant, cx)) = handed {
                        drop(tracer.start_with_context(tenant.to_string(), &cx));
                    }
                }
            });
        }
    });
    drop(receive);
    flush(&pipeline);
    settled(&pipeline);
    let stats = pipeline.stats();
    assert_eq!(
        (stats.orphaned, stats.unrouted, stats.expired_bindings),
        (0, 0, 0)
    );
    let mut stored = 0;
    for (i, (location, _)) in tenants.iter().enumerate() {
        let store = location.store();
        for span in store.spans() {
            assert_eq!(span.span.name(), i.to_string(), "misrouted");
        }
        assert_eq!(store.len() as u64, store.writes(), "stored twice");
        stored += store.len() as u64;
    }
    let sum = |f: fn(&trace_destination_core::LocationStats) -> u64| -> u64 {
        stats.locations.iter().map(f).sum()
    };
    assert_eq!(sum(|l| l.accepted), stored, "lost");
    assert_eq!(sum(|l| l.dropped.total()), 0);
    assert!(stored > THREADS * ROUNDS * 2);
}
