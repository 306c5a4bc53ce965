//! What is in a file, read with SQLite alone; and what writers said they stored.

use super::process::{self, Group};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Span ids by trace id, as MLflow writes them (`tr-…`, hex).
pub(super) type Spans = BTreeMap<String, BTreeSet<String>>;

const BUSY: Duration = Duration::from_secs(20);

/// Everything in a file, after checking that SQLite finds it sound.
pub(super) fn spans(db: &Path) -> Result<Spans, String> {
    read(db).map_err(|e| format!("read {}: {e}", db.display()))?
}

fn read(db: &Path) -> rusqlite::Result<Result<Spans, String>> {
    // Read-write: what a killed writer left in the log is recovered by the next one who opens.
    let db = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.busy_timeout(BUSY)?;
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
    if integrity != "ok" {
        return Ok(Err(format!("integrity_check says {integrity}")));
    }
    let strays: i64 = db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| {
        r.get(0)
    })?;
    if strays != 0 {
        return Ok(Err(format!(
            "{strays} rows refer to rows that are not there"
        )));
    }
    let mut found = Spans::new();
    // A writer killed while it created the file leaves one without tables, and nothing in it.
    if !db.table_exists(None, "trace_info")? {
        return Ok(Ok(found));
    }
    let mut statement = db.prepare("SELECT request_id FROM trace_info")?;
    for id in statement.query_map([], |r| r.get::<_, String>(0))? {
        found.insert(id?, BTreeSet::new());
    }
    let mut statement = db.prepare("SELECT trace_id, span_id FROM spans")?;
    let rows = statement.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
    for row in rows {
        let (trace, span) = row?;
        if !found.entry(trace.clone()).or_default().insert(span.clone()) {
            return Ok(Err(format!("span {span} of {trace} is there twice")));
        }
    }
    Ok(Ok(found))
}

/// Number of spans.
pub(super) fn count(spans: &Spans) -> usize {
    spans.values().map(BTreeSet::len).sum()
}

/// An error naming the first span of `expected` that `found` lacks.
pub(super) fn contains(found: &Spans, expected: &Spans) -> Result<(), String> {
    for (trace, spans) in expected {
        let there = found.get(trace);
        if let Some(span) = spans.iter().find(|s| there.is_none_or(|t| !t.contains(*s))) {
            return Err(format!(
                "span {span} of {trace} was reported stored and is not there"
            ));
        }
    }
    Ok(())
}

/// The spans MLflow's Python API shows in one part of a dump; an error where reading one failed.
pub(super) fn shown(dump: &Value, part: &str) -> Result<Spans, String> {
    let traces = dump["api"][part]
        .as_object()
        .ok_or_else(|| format!("`{part}` is not in the dump"))?;
    let mut found = Spans::new();
    for (id, trace) in traces {
        let spans = trace["spans"]
            .as_object()
            .map(|s| s.keys().cloned().collect());
        found.insert(id.clone(), spans.unwrap_or_default());
    }
    Ok(found)
}

/// The spans of decoded OTLP requests.
pub(super) fn of_requests(requests: &[Vec<u8>]) -> Result<Spans, String> {
    let mut spans = Spans::new();
    for request in requests {
        for group in trace_destination_otlp::decode_protobuf(request).map_err(|e| e.to_string())? {
            for span in group.spans {
                let ids = spans.entry(format!("tr-{}", span.trace_id)).or_default();
                ids.insert(span.span_id.to_string());
            }
        }
    }
    Ok(spans)
}

/// A running `live-writer`.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) group: Group,
    out: PathBuf,
    err: PathBuf,
}

impl Writer {
    pub(super) fn start(
        program: &Path,
        home: &Path,
        log: &Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let (out, err) = (log.with_extension("out"), log.with_extension("err"));
        let file =
            |path: &Path| File::create(path).map_err(|e| format!("create {}: {e}", path.display()));
        let mut command = process::clean_command(program, home);
        command
            .arg("live-writer")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(file(&out)?)
            .stderr(file(&err)?);
        Ok(Self {
            group: Group::spawn(&mut command)?,
            out,
            err,
        })
    }

    /// What it said is stored, so far. A last line that was cut by a kill says nothing.
    pub(super) fn said(&self) -> Result<Spans, String> {
        let text = fs::read_to_string(&self.out)
            .map_err(|e| format!("read {}: {e}", self.out.display()))?;
        let mut spans = Spans::new();
        for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
            let line: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| format!("{}: {e}", self.out.display()))?;
            for (trace, ids) in line {
                let ids = ids.as_array().into_iter().flatten();
                let ids = ids.filter_map(Value::as_str).map(str::to_owned);
                spans.entry(trace).or_default().extend(ids);
            }
        }
        Ok(spans)
    }

    /// Waits until it ended well.
    pub(super) fn finish(mut self, timeout: Duration) -> Result<Spans, String> {
        match self.group.wait(timeout)? {
            Some(status) if status.success() => self.said(),
            Some(status) => Err(format!(
                "a writer ended with {status}: {}",
                process::tail(&self.err)
            )),
            None => Err(format!(
                "a writer did not end within {} s",
                timeout.as_secs()
            )),
        }
    }

    /// An error if it ended by itself: it was to run until killed.
    pub(super) fn still_running(&mut self) -> Result<(), String> {
        match self.group.ended()? {
            None => Ok(()),
            Some(status) => Err(format!(
                "a writer ended with {status}: {}",
                process::tail(&self.err)
            )),
        }
    }
}
