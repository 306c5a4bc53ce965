//! Three tenants in one process, each with its own experiment; everything else goes to the global
//! one. Live spans and replayed real traces share one pipeline. Run it:
//!
//! ```text
//! cargo run --example quickstart
//! ```
#![allow(clippy::print_stdout)]

use opentelemetry::trace::{FutureExt, Span, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trace_destination::{
    DestinationExt, Pipeline, SpanRecord, Template, location, set_global, update_current_trace,
};
use trace_destination_otlp::ResourceSpans;

const DATABASE: &str = "quickstart.db";
/// Where the traces of a tenant go. Its name is put into the experiment's, or refused.
const TENANT: &str = "sqlite:///quickstart.db?experiment_name=tenant-{tenant}";
/// Where everything else goes.
const PLATFORM: &str = "sqlite:///quickstart.db?experiment_name=platform";
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();

    // 1. One pipeline, one tracer provider: the only set-up an application needs.
    let pipeline = Pipeline::builder().build()?;
    let provider = SdkTracerProvider::builder()
        .with_resource(
            Resource::builder()
                .with_service_name("support-agent")
                .build(),
        )
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("quickstart");

    // 2. Traces without a destination of their own go to the global one. A process in which every
    //    trace belongs to a tenant uses `Pipeline::builder().strict()` instead, and sets none.
    set_global(location(PLATFORM)?);
    tracer.in_span("load model", |_| {});

    // 3. Concurrent requests of three tenants. They differ only in their scope.
    let template = Template::new(TENANT)?;
    let mut requests = Vec::new();
    for tenant in TENANTS {
        for question in ["Where is my order?", "Cancel it, please."] {
            let request = handle_request(tracer.clone(), tenant, question);
            let destination = template.destination([("tenant", tenant)])?;
            requests.push(tokio::spawn(request.with_destination(destination)));
        }
    }
    for request in requests {
        request.await?;
    }
    tracer.in_span("nightly clean-up", |_| {});

    // 4. Traces captured from a real agent, replayed through the same pipeline.
    let mut captured =
        trace_destination_otlp::decode_protobuf(trace_destination_otlp::sample::captured())?;
    move_to_now(&mut captured);
    let mut replayed = 0;
    for group in captured {
        for span in group.spans {
            let tenant = TENANTS[usize::from(span.trace_id.to_bytes()[0]) % TENANTS.len()];
            let (resource, scope) = (group.resource.clone(), group.scope.clone());
            let destination = template.destination([("tenant", tenant)])?;
            let sent = pipeline.ingest(resource, scope, vec![span], &destination);
            replayed += sent.accepted;
        }
    }

    // 5. Store everything, or report why not.
    let report = pipeline.shutdown(Duration::from_secs(30)).await;
    if !report.all_stored() {
        return Err(format!("not everything was stored:\n{report}").into());
    }
    println!(
        "{replayed} spans replayed, everything stored in {:.0?}\n",
        started.elapsed()
    );
    summary::print(DATABASE)?;
    println!(
        "\nSee them in MLflow's UI:\n  uvx mlflow ui --backend-store-uri sqlite:///{DATABASE}"
    );
    Ok(())
}

/// An agent that answers one request: application code without any mention of destinations.
async fn handle_request(tracer: SdkTracer, tenant: &'static str, question: &'static str) {
    let root = tracer
        .span_builder("handle_request")
        .with_attributes([
            KeyValue::new("mlflow.spanType", "AGENT"),
            KeyValue::new(
                "mlflow.spanInputs",
                format!("{{\"question\": \"{question}\"}}"),
            ),
            KeyValue::new("mlflow.spanOutputs", "\"It arrives tomorrow.\""),
        ])
        .start(&tracer);
    let cx = Context::current_with_span(root);
    async {
        update_current_trace(|trace| {
            trace.session_id = Some(format!("{tenant}-chat-1"));
            trace.user_id = Some("user-7".into());
            trace.tags.insert("tenant".into(), tenant.into());
        });
        search(&tracer).await;
        chat(&tracer).await;
        Context::current().span().set_status(Status::Ok);
    }
    .with_context(cx)
    .await;
}

async fn search(tracer: &SdkTracer) {
    let mut span = tracer.start("search orders");
    span.set_attribute(KeyValue::new("mlflow.spanType", "RETRIEVER"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    span.end();
}

/// A span with OpenTelemetry's GenAI conventions, which MLflow reads too.
async fn chat(tracer: &SdkTracer) {
    let mut span = tracer.start("chat gpt-4o");
    span.set_attribute(KeyValue::new("gen_ai.operation.name", "chat"));
    span.set_attribute(KeyValue::new("gen_ai.request.model", "gpt-4o"));
    span.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", 84));
    span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", 21));
    tokio::time::sleep(Duration::from_millis(30)).await;
    span.end();
}

/// Moves captured traces in time, so that the last one ends now: MLflow's list of traces shows the
/// last seven days.
fn move_to_now(groups: &mut [ResourceSpans]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |d| d.as_nanos() as u64);
    let ends = groups.iter().flat_map(|g| &g.spans);
    let last = ends.map(|s| s.end_time_unix_nano).max().unwrap_or(now);
    let by = now.saturating_sub(last);
    let shift = |span: &mut SpanRecord| {
        span.start_time_unix_nano += by;
        span.end_time_unix_nano += by;
        for event in &mut span.events {
            event.time_unix_nano += by;
        }
    };
    groups.iter_mut().flat_map(|g| &mut g.spans).for_each(shift);
}

/// Reads the database back, to show what is stored.
mod summary {
    use rusqlite::{Connection, OpenFlags, Result};

    pub(crate) fn print(database: &str) -> Result<()> {
        // A connection that may not write cannot remove the log that SQLite makes for it.
        let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut experiments = db.prepare(
            "SELECT e.experiment_id, e.name, count(DISTINCT t.request_id), count(s.span_id)
             FROM experiments e JOIN trace_info t USING (experiment_id)
             JOIN spans s ON s.trace_id = t.request_id GROUP BY 1 ORDER BY 2",
        )?;
        let rows = experiments.query_map([], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, i64>(2)?,
                r.get::<_, i64>(3)?,
            ))
        })?;
        for row in rows {
            let (id, name, traces, spans) = row?;
            println!(
                "sqlite:///{database}?experiment_name={name}   {traces} traces, {spans} spans"
            );
            roots(&db, id)?;
        }
        Ok(())
    }

    /// The traces of an experiment, those with the same name on one line.
    fn roots(db: &Connection, experiment: i64) -> Result<()> {
        let mut roots = db.prepare(
            "SELECT s.name, count(*), avg(n.spans), avg(t.execution_time_ms), sum(t.status = 'ERROR')
             FROM trace_info t
             JOIN spans s ON s.trace_id = t.request_id AND s.parent_span_id IS NULL
             JOIN (SELECT trace_id, count(*) AS spans FROM spans GROUP BY 1) n ON n.trace_id = t.request_id
             WHERE t.experiment_id = ?1 GROUP BY 1 ORDER BY 1",
        )?;
        let rows: Vec<(String, i64, f64, f64, i64)> = roots
            .query_map([experiment], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })?
            .collect::<Result<_>>()?;
        for (i, (name, traces, spans, millis, errors)) in rows.iter().enumerate() {
            let branch = if i + 1 == rows.len() {
                "└─"
            } else {
                "├─"
            };
            let failed = if *errors > 0 {
                format!(", {errors} failed")
            } else {
                String::new()
            };
            println!("{branch} {traces} × {name}: {spans:.1} spans, {millis:.0} ms each{failed}");
        }
        Ok(())
    }
}
