//! What is stored is what was said, as far as the backend keeps it.

use super::*;
use crate::harness::StoredSpan;
use crate::world::lazy;
use opentelemetry::trace::{
    Link as SdkLink, Span as _, SpanContext, SpanId, SpanKind as SdkKind, Status as SdkStatus,
    TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use std::time::UNIX_EPOCH;
use trace_destination_core::{
    AnyValue, Attribute, DropReason, Event, Link, Resource, Scope, Span, SpanKind, SpanRecord,
    Status, StatusCode,
};

type Field = (&'static str, fn(&StoredSpan) -> String);

/// Attributes in an order of their own: backends need not keep the given one.
fn sorted(attributes: &[Attribute]) -> String {
    let mut all: Vec<_> = attributes
        .iter()
        .map(|a| (a.key.as_str(), &a.value))
        .collect();
    all.sort_by(|a, b| a.0.cmp(b.0));
    format!("{all:?}")
}

/// Every field of a span. As text, because NaN must equal itself here.
const FIELDS: &[Field] = &[
    ("parent", |s| format!("{:?}", s.span.parent_span_id)),
    ("trace state", |s| s.span.trace_state.clone()),
    ("flags", |s| format!("{:#x}", s.span.flags)),
    ("name", |s| s.span.name.to_string()),
    ("kind", |s| format!("{:?}", s.span.kind)),
    ("start", |s| s.span.start_time_unix_nano.to_string()),
    ("end", |s| s.span.end_time_unix_nano.to_string()),
    ("attributes", |s| sorted(&s.span.attributes)),
    ("dropped attributes", |s| {
        s.span.dropped_attributes_count.to_string()
    }),
    ("events", |s| {
        let event = |e: &Event| {
            format!(
                "{} {} {} {}",
                e.name,
                e.time_unix_nano,
                sorted(&e.attributes),
                e.dropped_attributes_count
            )
        };
        format!("{:?}", s.span.events.iter().map(event).collect::<Vec<_>>())
    }),
    ("dropped events", |s| {
        s.span.dropped_events_count.to_string()
    }),
    ("links", |s| {
        let link = |l: &Link| {
            format!(
                "{} {} {} {:#x} {} {}",
                l.trace_id,
                l.span_id,
                l.trace_state,
                l.flags,
                sorted(&l.attributes),
                l.dropped_attributes_count
            )
        };
        format!("{:?}", s.span.links.iter().map(link).collect::<Vec<_>>())
    }),
    ("dropped links", |s| s.span.dropped_links_count.to_string()),
    ("status", |s| format!("{:?}", s.span.status)),
    ("resource", |s| {
        format!(
            "{} {} {:?}",
            sorted(&s.resource.attributes),
            s.resource.dropped_attributes_count,
            s.resource.schema_url
        )
    }),
    ("scope", |s| {
        format!(
            "{} {:?} {:?} {} {}",
            s.scope.name,
            s.scope.version,
            s.scope.schema_url,
            sorted(&s.scope.attributes),
            s.scope.dropped_attributes_count
        )
    }),
];

/// Compares what is stored at a place with what was sent there.
async fn compare(w: &World, place: &Place, sent: Vec<StoredSpan>) -> Verdict {
    let groups = w.harness().declares().groups;
    let stored = w.stored(place).await?.spans;
    let mut reduced = std::collections::BTreeSet::new();
    for mut given in sent {
        if !groups {
            given.resource = Resource::default();
            given.scope = Scope::default();
            reduced.extend(["resource", "scope"]);
        }
        let kept = w.harness().keeps(given.clone());
        let found = stored
            .iter()
            .find(|s| {
                (s.span.trace_id, s.span.span_id) == (given.span.trace_id, given.span.span_id)
            })
            .ok_or_else(|| Failure::new(format!("`{}` is not stored", given.span.name)))?;
        for (name, of) in FIELDS {
            if of(&kept) != of(&given) {
                reduced.insert(name);
            }
            ensure_eq!(of(found), of(&kept), "{name} of `{}`", given.span.name);
        }
    }
    if !reduced.is_empty() {
        let names: Vec<_> = reduced.into_iter().collect();
        w.note(format!("not kept as given: {}", names.join(", ")));
    }
    Ok(())
}

pub(crate) async fn sdk_spans(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let exporter = InMemorySpanExporter::default();
    let resource = opentelemetry_sdk::Resource::builder()
        .with_service_name("conformance")
        .with_schema_url(
            [KeyValue::new("host.cpus", 4)],
            "https://example.com/resource",
        )
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
        .with_span_processor(rig.pipeline.processor())
        .with_resource(resource.clone())
        .build();
    let scope = InstrumentationScope::builder("conformance.fidelity")
        .with_version("1.2.3")
        .with_schema_url("https://example.com/scope")
        .with_attributes([KeyValue::new("scope.kind", "test")])
        .build();
    let tracer = provider.tracer_with_scope(scope.clone());
    let state = TraceState::from_key_value([("vendor", "x1"), ("other", "y2")])?;
    let parent = Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(0x0102_0304_u128),
        SpanId::from(0x0506),
        TraceFlags::SAMPLED,
        true,
        state,
    ));
    for kind in [
        SdkKind::Server,
        SdkKind::Client,
        SdkKind::Producer,
        SdkKind::Consumer,
        SdkKind::Internal,
    ] {
        let mut span = tracer
            .span_builder(format!("a {kind:?} span: \u{e9}\u{1f980} \"quoted\""))
            .with_kind(kind)
            .with_attributes([
                KeyValue::new("bool", true),
                KeyValue::new("int", -42_i64),
                KeyValue::new("large", i64::MAX),
                KeyValue::new("double", 0.1 + 0.2),
                KeyValue::new("text", "line\nline\ttab \u{1f600}"),
                KeyValue::new("empty", ""),
                KeyValue::new("bools", Value::Array(Array::Bool(vec![true, false]))),
                KeyValue::new("ints", Value::Array(Array::I64(vec![1, -2, i64::MIN]))),
                KeyValue::new("doubles", Value::Array(Array::F64(vec![1.5, -2.25]))),
                KeyValue::new(
                    "texts",
                    Value::Array(Array::String(vec!["a".into(), "b".into()])),
                ),
                KeyValue::new("none", Value::Array(Array::I64(Vec::new()))),
            ])
            .with_links(vec![SdkLink::new(
                SpanContext::new(
                    TraceId::from(7),
                    SpanId::from(8),
                    TraceFlags::SAMPLED,
                    false,
                    TraceState::default(),
                ),
                vec![KeyValue::new("why", "batch")],
                0,
            )])
            .start_with_context(&tracer, &a.destination.in_context(&parent));
        span.add_event(
            "exception",
            vec![KeyValue::new("exception.message", "boom")],
        );
        span.add_event("plain", Vec::new());
        span.set_status(SdkStatus::error("it broke"));
        a.end(span);
    }
    let mut ok = tracer
        .span_builder("ok")
        .with_start_time(UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789))
        .start_with_context(&tracer, &a.context());
    ok.set_status(SdkStatus::Ok);
    a.expect(ok.span_context());
    ok.end_with_timestamp(UNIX_EPOCH + Duration::from_nanos(1_700_000_001_987_654_321));
    w.verify(&rig).await?;
    let sent = exporter
        .get_finished_spans()?
        .into_iter()
        .map(|data| StoredSpan {
            resource: Resource::from(&resource),
            scope: Scope::from(&scope),
            span: Span::from(data).into_record(),
        })
        .collect();
    compare(&w, &a, sent).await
}

fn nested() -> AnyValue {
    AnyValue::Map(vec![
        Attribute::new("empty", AnyValue::Empty),
        Attribute::new("bytes", AnyValue::Bytes(vec![0, 255, 128, 10])),
        Attribute::new("none", AnyValue::Array(Vec::new())),
        Attribute::new("nothing", AnyValue::Map(Vec::new())),
        Attribute::new(
            "mixed",
            AnyValue::Array(vec![
                AnyValue::Bool(false),
                AnyValue::Int(i64::MIN),
                AnyValue::Double(-0.5),
                AnyValue::String("\u{7f16}".into()),
                AnyValue::Array(vec![AnyValue::Map(vec![Attribute::new("deep", 1_i64)])]),
            ]),
        ),
    ])
}

pub(crate) async fn otlp_spans(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let mut sent = Vec::new();
    for r in 0..3_u8 {
        let resource = Arc::new(Resource {
            attributes: vec![
                Attribute::new("service.name", format!("service-{r}")),
                Attribute::new("nested", nested()),
            ],
            dropped_attributes_count: u32::from(r),
            schema_url: Some("https://example.com/resource".into()),
        });
        let scope = Arc::new(Scope {
            name: format!("scope-{r}"),
            version: Some("0.1".into()),
            schema_url: None,
            attributes: vec![Attribute::new("scoped", true)],
            dropped_attributes_count: 2,
        });
        let trace = TraceId::from(0xaaaa_0000_u128 + u128::from(r));
        let root = SpanId::from(0xb000 + u64::from(r));
        let start = 1_700_000_000_000_000_001 + u64::from(r) * 1_000_000_000;
        let mut span = SpanRecord {
            trace_state: "vendor=1,other=2".into(),
            flags: 0x301,
            kind: SpanKind::Server,
            dropped_attributes_count: 3,
            dropped_events_count: 4,
            dropped_links_count: 5,
            events: vec![Event {
                name: "event".into(),
                time_unix_nano: start + 5,
                attributes: vec![Attribute::new("nested", nested())],
                dropped_attributes_count: 6,
            }],
            links: vec![Link {
                trace_id: TraceId::from(0xcc),
                span_id: SpanId::from(0xdd),
                trace_state: "linked=1".into(),
                flags: 0x101,
                attributes: vec![Attribute::new("nested", nested())],
                dropped_attributes_count: 7,
            }],
            status: Status {
                code: StatusCode::Error,
                message: "a message".into(),
            },
            ..SpanRecord::new(trace, root, "an ingested root", start, start + 1_000_003)
        };
        for (key, value) in [
            ("empty", AnyValue::Empty),
            ("bool", AnyValue::Bool(true)),
            ("int", AnyValue::Int(-1)),
            ("double", AnyValue::Double(1e300)),
            ("text", AnyValue::String("text".into())),
            ("bytes", AnyValue::Bytes(vec![1, 2, 3])),
            ("nested", nested()),
        ] {
            span.attributes.push(Attribute::new(key, value));
        }
        let child = SpanRecord {
            parent_span_id: Some(root),
            kind: SpanKind::Unspecified,
            ..SpanRecord::new(
                trace,
                SpanId::from(0xe000 + u64::from(r)),
                "a child",
                start + 1,
                start + 2,
            )
        };
        for record in [child, span] {
            a.expect_ids(record.trace_id, record.span_id);
            let ingested = rig.pipeline.ingest(
                resource.clone(),
                scope.clone(),
                vec![record.clone()],
                &a.destination,
            );
            ensure_eq!(
                (ingested.accepted, ingested.dropped),
                (1, 0),
                "accepted and dropped"
            );
            sent.push(StoredSpan {
                span: record,
                resource: (*resource).clone(),
                scope: (*scope).clone(),
            });
        }
    }
    w.verify(&rig).await?;
    compare(&w, &a, sent).await
}

/// Spans that are odd but may come over the wire, each by its oddity.
fn odd_spans() -> Vec<(&'static str, SpanRecord)> {
    let now = 1_700_000_000_000_000_000;
    let mut all: Vec<(&'static str, SpanRecord)> = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut SpanRecord)| {
        let n = all.len() as u64 + 1;
        let trace = TraceId::from(0x0dd_0000_u128 + u128::from(n));
        let mut record = SpanRecord::new(trace, SpanId::from(n), what, now, now + 1_000);
        change(&mut record);
        all.push((what, record));
    };
    let with = |key: &'static str, value: AnyValue| {
        move |r: &mut SpanRecord| r.attributes.push(Attribute::new(key, value.clone()))
    };
    add(
        "an attribute of 20 MB",
        &with("huge", AnyValue::String("x".repeat(20_000_000).into())),
    );
    add("no attributes", &|_| {});
    add(
        "NUL in a value",
        &with("nul", AnyValue::String("a\0b".into())),
    );
    add("NUL in a key", &with("n\0ul", AnyValue::Bool(true)));
    add("NUL in the name", &|r| r.name = "a\0b".into());
    add(
        "a lone surrogate in JSON text",
        &with("json", AnyValue::String("{\"s\":\"\\ud800\"}".into())),
    );
    add(
        "JSON text that is cut off",
        &with("json", AnyValue::String("{\"s\":".into())),
    );
    add("NaN", &with("nan", AnyValue::Double(f64::NAN)));
    add(
        "infinity",
        &with("inf", AnyValue::Double(f64::NEG_INFINITY)),
    );
    add("a start of 0", &|r| r.start_time_unix_nano = 0);
    add("an end before its start", &|r| {
        r.end_time_unix_nano = r.start_time_unix_nano - 1
    });
    add("no end", &|r| r.end_time_unix_nano = 0);
    add("the last moment there is", &|r| {
        r.end_time_unix_nano = u64::MAX
    });
    add("an empty name", &|r| r.name = "".into());
    add("a name of 100 kB", &|r| r.name = "n".repeat(100_000).into());
    add("a key of 0 bytes", &with("", AnyValue::Int(1)));
    add("a key twice", &|r| {
        r.attributes.push(Attribute::new("twice", 1_i64));
        r.attributes.push(Attribute::new("twice", 2_i64));
    });
    add("a thousand attributes", &|r| {
        for i in 0..1_000_i64 {
            r.attributes.push(Attribute::new(format!("key-{i}"), i));
        }
    });
    let deep = (0..60).fold(AnyValue::Int(1), |value, _| AnyValue::Array(vec![value]));
    add("a value 60 levels deep", &with("deep", deep));
    add("its own parent", &|r| r.parent_span_id = Some(r.span_id));
    add("an event at 0", &|r| r.events.push(Event::default()));
    all
}

pub(crate) async fn hostile_spans(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_budget(512 << 20, 256 << 20)
            .with_batch_limits(lazy())
    })?;
    let odd = odd_spans();
    let count = odd.len() as u64;
    let (resource, scope) = (Arc::new(Resource::default()), Arc::new(Scope::default()));
    let sane = |n: u64| {
        let trace = TraceId::from(0x5a_0000_u128 + u128::from(n));
        SpanRecord::new(
            trace,
            SpanId::from(n),
            "sane",
            1_700_000_000_000_000_000,
            1_700_000_000_000_000_005,
        )
    };
    let mut records = Vec::new();
    for (i, (_, record)) in (1..).zip(&odd) {
        let beside = sane(i);
        a.expect_ids(beside.trace_id, beside.span_id);
        a.allow_ids(record.trace_id, record.span_id);
        records.extend([record.clone(), beside]);
    }
    let ingested = rig
        .pipeline
        .ingest(resource, scope, records, &a.destination);
    ensure_eq!(
        (ingested.accepted, ingested.dropped),
        (2 * count, 0),
        "accepted and dropped"
    );
    let report = rig.flush().await?;
    let l = report
        .location(a.uri())
        .ok_or_else(|| Failure::new("no such location"))?;
    let refused = l.dropped.by(DropReason::Refused);
    ensure_eq!(
        l.dropped.total(),
        refused,
        "spans dropped for other reasons than refusal: {report}"
    );
    ensure_eq!(l.stored + refused, 2 * count, "stored and refused spans");
    ensure!(
        refused == 0 || l.error.is_some(),
        "spans were refused without a reason"
    );
    w.verify_stored().await?;
    let found = w.stored(&a).await?.spans;
    let missing: Vec<_> = odd
        .iter()
        .filter(|(_, r)| {
            !found
                .iter()
                .any(|s| s.span.span_id == r.span_id && s.span.trace_id == r.trace_id)
        })
        .map(|(what, _)| *what)
        .collect();
    ensure_eq!(
        missing.len() as u64,
        refused,
        "spans neither stored nor refused among {missing:?}"
    );
    w.note(if missing.is_empty() {
        format!("all {count} odd spans are stored")
    } else {
        format!("refused: {}", missing.join(", "))
    });
    w.verify_counters(&rig)
}
