//! The newest MLflow upgrades a file while it is being written.

use super::equality::sound;
use super::files::CREATED_REVISION;
use super::ui;
use crate::stored::{self, Spans};
use crate::{CaseResult, Live, Stop, provision, sample};
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trace_destination::{Destination, Pipeline};

const TASKS: u64 = 16;
/// Of each task; with [`SPANS`] each, 20,000 in all.
const TRACES: u64 = 50;
const SPANS: u64 = 25;
/// Traces of each task before the upgrade begins, and, at most, while it goes on.
const BEFORE: u64 = 10;
const DURING: u64 = 30;
/// Between two traces of a task while the upgrade goes on, which takes a second or two.
const PACE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_secs(300);
const FLUSH: Duration = Duration::from_secs(120);

/// How far the upgrade is: not begun, at work, done.
const NOT_BEGUN: u8 = 0;
const AT_WORK: u8 = 1;
const DONE: u8 = 2;

/// Sixteen tasks write 20,000 spans into as many experiments of one file while MLflow upgrades it
/// from the shape that we make to its own: each span is there, once, in its experiment, by SQLite,
/// by the search of MLflow's API, and the web UI lists them.
pub(super) fn under_load(live: &mut Live) -> CaseResult {
    live.newest(upgraded_under_load)
}

fn upgraded_under_load(live: &mut Live) -> CaseResult {
    let folder = live.work("upgraded_under_load")?;
    let db = folder.join("upgraded.db");
    let mlflow = live.mlflow()?;
    let pipeline = Pipeline::builder()
        .strict()
        .build()
        .map_err(|e| e.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("tasks");
    let destinations: Vec<Destination> = (0..TASKS)
        .map(|n| {
            let uri = sample::uri(&db, &experiment(n))?;
            trace_destination::destination(&uri).map_err(|e| e.to_string())
        })
        .collect::<Result<_, _>>()?;

    let stage = AtomicU8::new(NOT_BEGUN);
    let written = AtomicU64::new(0);
    let meanwhile = AtomicU64::new(0);
    let deadline = Instant::now() + DEADLINE;
    let task = |destination: &Destination| -> Result<Spans, String> {
        let mut spans = Spans::new();
        for n in 0..TRACES {
            let wait_for = match n {
                ..BEFORE => NOT_BEGUN,
                BEFORE => AT_WORK,
                _ if n >= BEFORE + DURING => DONE,
                _ => NOT_BEGUN,
            };
            while stage.load(Ordering::Acquire) < wait_for {
                if Instant::now() > deadline {
                    return Err("the upgrade did not come about".to_owned());
                }
                std::thread::sleep(POLL);
            }
            let _scope = destination.enter();
            let (trace, ids) = make_trace(&tracer);
            spans.insert(trace, ids);
            written.fetch_add(1, Ordering::Relaxed);
            if stage.load(Ordering::Acquire) == AT_WORK {
                meanwhile.fetch_add(SPANS, Ordering::Relaxed);
                std::thread::sleep(PACE);
            }
        }
        Ok(spans)
    };
    let (expected, revision) = std::thread::scope(|scope| {
        let tasks: Vec<_> = destinations
            .iter()
            .map(|destination| scope.spawn(|| task(destination)))
            .collect();
        let upgrade = || -> Result<String, String> {
            while written.load(Ordering::Relaxed) < TASKS * BEFORE {
                std::thread::sleep(POLL);
            }
            pipeline.flush(FLUSH).wait();
            let opened = scope.spawn(|| mlflow.open(&db));
            // Most of its time MLflow spends on starting; the tasks go on when it begins to write.
            while !opened.is_finished() && revision(&db).is_ok_and(|r| r == CREATED_REVISION) {
                std::thread::sleep(POLL);
            }
            stage.store(AT_WORK, Ordering::Release);
            opened.join().unwrap_or_else(|_| Err("it panicked".into()))
        };
        let revision = upgrade();
        stage.store(DONE, Ordering::Release);
        let joined = tasks.into_iter().map(|task| task.join());
        let spans: Result<Vec<Spans>, String> = joined
            .map(|spans| spans.unwrap_or_else(|_| Err("a task panicked".to_owned())))
            .collect();
        Ok::<_, String>((spans?, revision?))
    })?;
    let report = pipeline.shutdown(FLUSH).wait();
    if !report.all_stored() {
        return Err(format!("not everything was stored: {report}").into());
    }
    let meanwhile = meanwhile.into_inner();
    if revision == CREATED_REVISION || meanwhile == 0 {
        return Err(format!("{meanwhile} spans ended during an upgrade to {revision}").into());
    }

    let found = in_experiments(&db)?;
    for (n, expected) in expected.iter().enumerate() {
        let found = found
            .iter()
            .find(|(name, _)| **name == experiment(n as u64));
        same("SQLite", n, found.map(|(_, spans)| spans), expected)?;
    }
    let all: Spans = expected.iter().flat_map(|s| s.clone()).collect();
    let count = stored::count(&all);
    if stored::spans(&db)? != all || count as u64 != TASKS * TRACES * SPANS {
        return Err(format!("the file has not exactly the {count} spans").into());
    }
    let shown = mlflow.search(&db)?;
    for (n, expected) in expected.iter().enumerate() {
        same("the API", n, shown.get(&experiment(n as u64)), expected)?;
    }
    let seen = match provision::chromium() {
        Ok(chromium) => {
            let server = mlflow.serve(&db)?;
            let id = mlflow.experiment_id(&server, &experiment(7))?;
            let traces = format!("{}/#/experiments/{id}/traces", server.url());
            let plan = json!([{ "url": traces, "expect": [PREVIEW] }]);
            ui::browse(live, &chromium, &folder, &plan)?;
            server.stop()?;
            "also listed by the UI"
        }
        Err(_) => "the UI was not asked, without Chromium",
    };
    sound(&json!({ "rows": mlflow.rows(&db)? }))?;
    Ok(format!(
        "MLflow {} upgraded the file to {revision} while {TASKS} tasks wrote {count} spans, {meanwhile} \
         of them in those seconds: each there once, in its experiment; {seen}",
        mlflow.version()?
    ))
}

/// What the roots got as inputs, which the UI's list shows.
const PREVIEW: &str = "while it is upgraded";

fn experiment(task: u64) -> String {
    format!("task-{task:02}")
}

/// One trace through the SDK: its id and those of its spans, as MLflow writes them.
fn make_trace(tracer: &SdkTracer) -> (String, BTreeSet<String>) {
    let root = tracer
        .span_builder("request")
        .with_attributes([
            KeyValue::new("mlflow.spanInputs", PREVIEW),
            KeyValue::new("session.id", "load"),
        ])
        .start(tracer);
    let trace = format!("tr-{}", root.span_context().trace_id());
    let mut ids = BTreeSet::from([root.span_context().span_id().to_string()]);
    let cx = Context::current().with_span(root);
    for step in 1..SPANS {
        let mut span = tracer
            .span_builder(format!("step {step}"))
            .with_attributes([
                KeyValue::new("gen_ai.response.model", "gpt-x"),
                KeyValue::new("gen_ai.usage.input_tokens", 3),
                KeyValue::new("gen_ai.usage.output_tokens", 2),
            ])
            .start_with_context(tracer, &cx);
        ids.insert(span.span_context().span_id().to_string());
        span.end();
    }
    cx.span().end();
    (trace, ids)
}

/// An error unless these are the spans of a task.
fn same(who: &str, task: usize, found: Option<&Spans>, expected: &Spans) -> Result<(), Stop> {
    let found = found.ok_or_else(|| format!("{who} shows no experiment of task {task}"))?;
    stored::contains(found, expected).map_err(|e| format!("{who}, task {task}: {e}"))?;
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "{who} shows {} spans of task {task} instead of {}",
        stored::count(found),
        stored::count(expected)
    )
    .into())
}

fn open(db: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

fn revision(db: &Path) -> rusqlite::Result<String> {
    open(db)?.query_row("SELECT version_num FROM alembic_version", [], |r| r.get(0))
}

/// The spans of each experiment, by its name, as the rows of the spans have it.
fn in_experiments(db: &Path) -> Result<Vec<(String, Spans)>, String> {
    let read = || -> rusqlite::Result<Vec<(String, Spans)>> {
        let conn = open(db)?;
        let mut statement = conn.prepare(
            "SELECT e.name, s.trace_id, s.span_id FROM spans s \
             JOIN trace_info t ON t.request_id = s.trace_id AND t.experiment_id = s.experiment_id \
             JOIN experiments e USING (experiment_id) ORDER BY e.name",
        )?;
        let mut rows = statement.query([])?;
        let mut found: Vec<(String, Spans)> = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if found.last().is_none_or(|(last, _)| *last != name) {
                found.push((name, Spans::new()));
            }
            if let Some((_, spans)) = found.last_mut() {
                spans.entry(row.get(1)?).or_default().insert(row.get(2)?);
            }
        }
        Ok(found)
    };
    read().map_err(|e| format!("read {}: {e}", db.display()))
}
