//! One application, first with a local experiment and then with a tracking server, and nothing
//! changed but the environment.

use super::real;
use crate::cargo::cargo;
use crate::compare::experiment_view;
use crate::{CaseResult, Live, process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const EXPERIMENT: &str = "checkout";
/// It may have to be built.
const BUILD: Duration = Duration::from_secs(15 * 60);
const RUN: Duration = Duration::from_secs(60);

pub(super) fn example(live: &mut Live) -> CaseResult {
    let folder = live.work("server_example")?;
    let logs = live.root.join("logs");
    let mut build = cargo([
        "build",
        "--package",
        "trace-destination",
        "--example",
        "checkout",
    ]);
    build.args(["--features", "server", "--message-format", "json"]);
    let messages = process::run(
        build.stdin(Stdio::null()),
        &logs.join("example-build"),
        BUILD,
    )?;
    let program = executable(&messages)?;
    let home = live.root.join("home");
    let run = |name: &str, tracking: &str| {
        let mut command = process::clean_command(Path::new(&program), &home);
        command
            .env("MLFLOW_TRACKING_URI", tracking)
            .env("MLFLOW_EXPERIMENT_NAME", EXPERIMENT);
        process::run(&mut command, &logs.join(format!("example-{name}")), RUN)
    };
    let file = folder.join("local.db");
    run("local", &format!("sqlite:///{}", file.display()))?;
    let url = {
        let (_, proxy) = real(live)?;
        proxy.heal();
        proxy.url()
    };
    run("server", &url)?;
    let mlflow = live.mlflow()?;
    let local = seen(&experiment_view(&mlflow.dump(&file)?, EXPERIMENT)?)?;
    let (db, _) = real(live)?;
    let db = db.to_owned();
    let copy = folder.join("server.db");
    copy_of(&db, &copy)?;
    let server = seen(&experiment_view(&live.mlflow()?.dump(&copy)?, EXPERIMENT)?)?;
    if local.is_empty() || local != server {
        return Err(format!(
            "the two differ\nlocal  {}\nserver {}",
            json!(local),
            json!(server)
        )
        .into());
    }
    let spans: usize = local
        .values()
        .map(|t| t["spans"].as_object().map_or(0, |s| s.len()))
        .sum();
    Ok(format!(
        "{} traces, {spans} spans in a local experiment, then on a server: MLflow shows the same",
        local.len()
    ))
}

/// The file as it is now, taken while its server runs.
fn copy_of(db: &Path, copy: &Path) -> Result<(), String> {
    let failed = |e: rusqlite::Error| format!("copy {}: {e}", db.display());
    rusqlite::Connection::open(db)
        .and_then(|db| db.execute("VACUUM INTO ?1", [copy.to_string_lossy()]))
        .map(drop)
        .map_err(failed)
}

/// The program in cargo's messages.
fn executable(messages: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(messages)
        .map_err(|e| format!("read {}: {e}", messages.display()))?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|m| m["target"]["name"] == "checkout")
        .find_map(|m| m["executable"].as_str().map(str::to_owned))
        .ok_or_else(|| "cargo names no program".to_owned())
}

/// What a user of MLflow sees of each trace, without ids and times.
fn seen(view: &Value) -> Result<BTreeMap<String, Value>, String> {
    let traces = view["get_trace"].as_object().ok_or("no traces are shown")?;
    let mut all = BTreeMap::new();
    for trace in traces.values() {
        let spans: BTreeMap<&str, Value> = trace["spans"]
            .as_object()
            .into_iter()
            .flat_map(|spans| spans.values())
            .map(|s| {
                let seen = json!({
                    "type": s["type"], "status": s["status"], "inputs": s["inputs"],
                    "outputs": s["outputs"], "model": s["model"], "root": s["parent_id"].is_null(),
                });
                (s["name"].as_str().unwrap_or_default(), seen)
            })
            .collect();
        let info = &trace["info"];
        let preview = info["request_preview"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let shown = json!({
            "name": trace["name"], "session": trace["session"], "user": trace["user"],
            "usage": trace["token_usage"], "state": info["state"],
            "response": info["response_preview"], "tag": info["tags"]["cart"],
            "client": info["client_request_id"], "service": info["tags"]["service.name"],
            "spans": spans,
        });
        all.insert(preview, shown);
    }
    Ok(all)
}
