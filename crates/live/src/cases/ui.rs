//! The web UI in a headless browser.

use super::equality::sound;
use crate::sample::{self, Writing};
use crate::{CaseResult, Live, Stop, process, provision};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trace_destination::{Attribute, Event, SpanRecord, StatusCode};

const EXPERIMENT: &str = "checkout";
const TRACE: u128 = 0x0d15_91a7_0000_0000_0000_0000_0000_0001;
/// The trace's name, and its root span's.
const NAME: &str = "checkout-flow";
const ROOT: &str = "POST /checkout";
/// In nanoseconds.
const MINUTE: u64 = 60_000_000_000;
/// For one page, in seconds.
const PAGE_TIMEOUT: u64 = 90;

/// The trace the pictures show: a chat model, a tool that fails, a session, token usage.
fn trace() -> Vec<SpanRecord> {
    let mut root = sample::span(TRACE, 1)
        .with_attribute("mlflow.traceTag.mlflow.traceName", NAME)
        .with_attribute("mlflow.spanType", "AGENT")
        .with_attribute(
            "mlflow.spanInputs",
            "{\"question\": \"Where is my parcel 4711?\"}",
        )
        .with_attribute(
            "mlflow.spanOutputs",
            "{\"answer\": \"It arrives tomorrow.\"}",
        )
        .with_attribute("session.id", "session-ui")
        .with_attribute("user.id", "user-ui");
    let mut model = sample::span(TRACE, 2)
        .with_attribute("mlflow.spanType", "CHAT_MODEL")
        .with_attribute("gen_ai.request.model", "gpt-4o-mini")
        .with_attribute("gen_ai.usage.input_tokens", 120)
        .with_attribute("gen_ai.usage.output_tokens", 30);
    model.name = "ask-model".into();
    let mut tool = sample::span(TRACE, 3).with_attribute("mlflow.spanType", "TOOL");
    tool.name = "track-parcel".into();
    tool.status.code = StatusCode::Error;
    tool.status.message = "carrier does not answer".into();
    tool.events.push(Event {
        name: "exception".into(),
        time_unix_nano: tool.end_time_unix_nano,
        attributes: vec![
            Attribute::new("exception.type", "TimeoutError"),
            Attribute::new("exception.message", "carrier does not answer"),
        ],
        dropped_attributes_count: 0,
    });
    root.name = ROOT.into();
    let mut spans = vec![root, model, tool];
    // The page lists the traces of the last days, and none from the future.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let begin = u64::try_from(now.as_nanos()).unwrap_or_default() - MINUTE;
    let first = spans[0].start_time_unix_nano;
    for span in &mut spans {
        let shift = |time: &mut u64| *time = *time - first + begin;
        shift(&mut span.start_time_unix_nano);
        shift(&mut span.end_time_unix_nano);
        span.events
            .iter_mut()
            .for_each(|e| shift(&mut e.time_unix_nano));
    }
    spans
}

/// MLflow's web UI lists our trace and shows its spans; pictures go to `.live/artifacts/`.
pub(super) fn ui_screenshot(live: &mut Live) -> CaseResult {
    let mlflow = live.mlflow()?;
    let chromium = provision::chromium().map_err(Stop::Missing)?;
    let folder = live.work("ui_screenshot")?;
    let db = folder.join("ui.db");
    let writing = Writing::open(&sample::uri(&db, EXPERIMENT)?)?;
    writing.request(&sample::request("web-shop", trace()))?;
    for request in sample::captured() {
        writing.request(&request)?;
    }
    writing.close()?;
    let server = mlflow.serve(&db)?;
    let id = mlflow.experiment_id(&server, EXPERIMENT)?;
    let artifacts = live.root.join("artifacts");
    let list = artifacts.join(live.name("mlflow-traces.png"));
    let detail = artifacts.join(live.name("mlflow-trace.png"));
    let traces = format!("{}/#/experiments/{id}/traces", server.url());
    let plan = json!([
        { "url": traces, "expect": ["Where is my parcel 4711?", "It arrives tomorrow.", "session-ui"] },
        // A greeting and an assistant cover the list until they are dismissed; names are a column
        // that is not shown at first.
        { "click": "Got it", "expect": ["session-ui"] },
        { "click": "Close", "expect": ["Display"] },
        { "click": "Display", "expect": ["Columns"] },
        { "click": "Columns", "expect": ["Trace name"] },
        { "click": "Trace name", "expect": [NAME] },
        { "click": "Traces", "expect": [NAME, "session-ui", "150"], "screenshot": list },
        {
            "url": format!("{traces}/tr-{TRACE:032x}"),
            "expect": [ROOT, "ask-model", "track-parcel", "It arrives tomorrow.", "session-ui"],
            "screenshot": detail,
        },
    ]);
    browse(live, &chromium, &folder, &plan)?;
    server.stop()?;
    sound(&mlflow.dump(&db)?)?;
    Ok(format!(
        "list and detail of `{NAME}`: {}, {}",
        list.display(),
        detail.display()
    ))
}

/// Takes the steps of a plan in a browser; an error where a page lacks what it is to show.
pub(super) fn browse(
    live: &Live,
    chromium: &Path,
    folder: &Path,
    plan: &Value,
) -> Result<(), Stop> {
    let mlflow = live.mlflow()?;
    let file = folder.join("plan.json");
    fs::write(&file, plan.to_string()).map_err(|e| format!("write {}: {e}", file.display()))?;
    let mut command = process::clean_command(&mlflow.python(), &live.root.join("home"));
    command
        .arg(live.scripts.join("browser.py"))
        .arg("--chromium")
        .arg(chromium)
        .arg("--profile")
        .arg(folder.join("profile"))
        .args(["--timeout", &PAGE_TIMEOUT.to_string()])
        .arg(&file);
    let timeout = Duration::from_secs(PAGE_TIMEOUT * 4);
    let steps = process::run_json(
        &mut command,
        &live.root.join("logs").join(live.name("browser")),
        timeout,
    )?;
    let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
    for (step, done) in plan.as_array().into_iter().flatten().zip(steps) {
        if done["missing"] != json!([]) {
            return Err(format!(
                "after {step} the page lacks {}: {}",
                done["missing"], done["text"]
            )
            .into());
        }
    }
    if Some(steps.len()) != plan.as_array().map(Vec::len) {
        return Err(format!("{} steps were taken", steps.len()).into());
    }
    Ok(())
}
