//! A program that answers requests, one JSON document per line: Spark and DuckDB, each started once
//! and kept for all cases.

use super::super::process::{self, Group};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The first start of Spark on a busy machine.
const START: Duration = Duration::from_secs(300);
/// One request; beyond this something hangs.
const ANSWER: Duration = Duration::from_secs(300);

/// A running engine; ends on drop.
#[derive(Debug)]
pub(super) struct Engine {
    name: &'static str,
    group: Group,
    input: ChildStdin,
    answers: Receiver<String>,
    log: PathBuf,
}

impl Engine {
    pub(super) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self, String> {
        let file = File::create(log).map_err(|e| format!("create {}: {e}", log.display()))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        let mut group = Group::spawn(command)?;
        let (input, output) = group.pipes().ok_or("an engine has no pipes")?;
        let (sender, answers) = channel();
        // A thread, so that an answer that never comes is noticed.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let engine = Self {
            name,
            group,
            input,
            answers,
            log: log.to_owned(),
        };
        engine.answer("start", START)?;
        Ok(engine)
    }

    /// Asks for an operation with arguments by name; gives its answer.
    pub(super) fn ask(&mut self, operation: &str, mut arguments: Value) -> Result<Value, String> {
        arguments["op"] = json!(operation);
        writeln!(self.input, "{arguments}")
            .and_then(|()| self.input.flush())
            .map_err(|e| format!("ask {} to {operation}: {e}", self.name))?;
        let mut answer = self.answer(operation, ANSWER)?;
        match answer.get("error") {
            Some(error) => Err(format!(
                "{} cannot {operation}: {}",
                self.name,
                error.as_str().unwrap_or_default()
            )),
            None => Ok(answer["ok"].take()),
        }
    }

    /// A document that is an answer.
    fn answer(&self, operation: &str, timeout: Duration) -> Result<Value, String> {
        let line = self.answers.recv_timeout(timeout).map_err(|e| {
            let what = match e {
                RecvTimeoutError::Timeout => {
                    format!("did not {operation} within {} s", timeout.as_secs())
                }
                RecvTimeoutError::Disconnected => format!("ended while it was to {operation}"),
            };
            format!("{} {what}\n{}", self.name, process::tail(&self.log))
        })?;
        serde_json::from_str(&line).map_err(|e| format!("{} answers no JSON: {e}", self.name))
    }

    /// Whether it still runs.
    pub(super) fn running(&mut self) -> bool {
        matches!(self.group.ended(), Ok(None))
    }
}
