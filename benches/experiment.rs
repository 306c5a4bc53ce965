//! Spans stored in one SQLite file, against a bare `rusqlite` that inserts the same rows, as many
//! per transaction and under the same pragmas, and against what MLflow's own SDK stored.

use opentelemetry::trace::{SpanId, TraceId};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trace_destination_benches::{Comparison, Goal, Run, Sample, Void};
use trace_destination_core::{
    BatchId, Destination, LocationUri, Pipeline, Resource, Scope, Span, SpanGroup, SpanRecord,
    TraceBatch,
};
use trace_destination_experiment::{ExperimentLocation, bench_support};

/// Spans per second that MLflow 3.17.2's Python SDK stored in a SQLite file, end to end.
const MLFLOW: f64 = 135.0;
/// The first start time; any will do.
const EPOCH: u64 = 1_790_000_000_000_000_000;
const FLUSH: Duration = Duration::from_secs(60);
/// Room for everything, so that the budget is no part of the measurement.
const BUDGET: usize = 4 << 30;

/// Traces of five spans with five attributes of mixed kinds, `first` counting traces.
fn traces(first: u64, traces: u64) -> Vec<SpanRecord> {
    let span = |trace: u64, index: u64, name: &'static str| {
        let start = EPOCH + trace * 1_000_000 + index * 1_000;
        // Ids are random in life, which is what makes indexes costly.
        let spread = (trace * 8 + index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let trace_id = (trace + 1).wrapping_mul(0xD134_2543_DE82_EF95);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&trace_id.to_be_bytes());
        id[8..].copy_from_slice(&trace_id.rotate_left(17).to_be_bytes());
        SpanRecord::new(
            TraceId::from_bytes(id),
            SpanId::from_bytes(spread.to_be_bytes()),
            name,
            start,
            start + 900_000,
        )
        .with_attribute("mlflow.spanType", if index == 2 { "LLM" } else { "CHAIN" })
        .with_attribute("session.id", "session-0123456789abcdef")
        .with_attribute("request.number", trace as i64)
        .with_attribute("temperature", 0.7)
        .with_attribute("cached", index == 3)
    };
    (first..first + traces)
        .flat_map(|trace| {
            let root = span(trace, 0, "request");
            let child = |index, name| {
                let mut child = span(trace, index, name);
                child.parent_span_id = Some(root.span_id);
                child
            };
            let children = [
                child(1, "agent"),
                child(2, "model"),
                child(3, "tool"),
                child(4, "reply"),
            ];
            children.into_iter().chain([root.clone()])
        })
        .collect()
}

fn batch(spans: Vec<SpanRecord>) -> TraceBatch {
    let id = BatchId {
        writer: uuid::Uuid::nil(),
        sequence: 1,
    };
    let group = SpanGroup {
        resource: Arc::default(),
        scope: Arc::default(),
        spans: spans.into_iter().map(Span::from).collect(),
    };
    TraceBatch::new(id, vec![group], Vec::new())
}

fn location(file: &Path, experiment: usize) -> Destination {
    let uri = format!(
        "sqlite:///{}?experiment_name=bench-{experiment}",
        file.display()
    );
    let uri: LocationUri = uri.parse().expect("a path of letters is a URI");
    Destination::new(ExperimentLocation::from_uri(&uri).expect("a location"))
}

fn void(what: impl std::fmt::Display) -> Void {
    Void(what.to_string())
}

/// Ingest to stored, as flush reports it; file and experiments are there already.
fn ours(sets: &[Vec<SpanRecord>]) -> Result<f64, Void> {
    let folder = tempfile::tempdir().map_err(void)?;
    let file = folder.path().join("ours.db");
    let pipeline = Pipeline::builder()
        .with_budget(BUDGET, BUDGET)
        .build()
        .map_err(void)?;
    let (resource, scope): (Arc<Resource>, Arc<Scope>) = Default::default();
    let places: Vec<Destination> = (0..sets.len()).map(|i| location(&file, i)).collect();
    let mut sent = 0;
    for (i, place) in places.iter().enumerate() {
        let first = traces(1 << 40 | i as u64, 1);
        sent += first.len() as u64;
        let _ = pipeline.ingest(resource.clone(), scope.clone(), first, place);
    }
    let report = pipeline.flush(FLUSH).wait();
    if !report.all_stored() {
        return Err(void(report));
    }
    let spans: usize = sets.iter().map(Vec::len).sum();
    let copies: Vec<Vec<SpanRecord>> = sets.to_vec();
    let started = Instant::now();
    for (set, place) in copies.into_iter().zip(&places) {
        let _ = pipeline.ingest(resource.clone(), scope.clone(), set, place);
    }
    let report = pipeline.flush(FLUSH).wait();
    let took = started.elapsed().as_secs_f64();
    let stored: u64 = report.locations.iter().map(|l| l.stored).sum();
    if !report.all_stored() || stored != sent + spans as u64 {
        return Err(void(report));
    }
    let _ = pipeline.shutdown(FLUSH).wait();
    Ok(spans as f64 / took)
}

/// The rows of every set, in the order in which the sink writes them.
struct Raw {
    rows: Vec<bench_support::Row>,
    spans: usize,
    experiments: usize,
    spans_per_transaction: usize,
}

impl Raw {
    fn of(sets: &[Vec<SpanRecord>], spans_per_transaction: usize) -> Self {
        let mut rows = Vec::new();
        for (i, set) in sets.iter().enumerate() {
            let folder = tempfile::tempdir().expect("a folder");
            let scratch = folder.path().join("scratch.db");
            // Cut as the lanes cut them, but between traces: a trace has its row once.
            for part in set.chunks(2045) {
                let found = bench_support::rows(&batch(part.to_vec()), i as i64 + 1, &scratch);
                rows.extend(found.expect("rows of good spans"));
                let _ = std::fs::remove_file(&scratch);
            }
        }
        Self {
            spans: sets.iter().map(Vec::len).sum(),
            experiments: sets.len(),
            rows,
            spans_per_transaction,
        }
    }

    fn run(&self) -> Result<f64, Void> {
        let folder = tempfile::tempdir().map_err(void)?;
        let conn = bench_support::create(&folder.path().join("raw.db")).map_err(void)?;
        self.prepare(&conn).map_err(void)?;
        let started = Instant::now();
        self.insert(&conn).map_err(void)?;
        let took = started.elapsed().as_secs_f64();
        let stored: i64 = conn
            .query_row("SELECT count(*) FROM spans", [], |r| r.get(0))
            .map_err(void)?;
        if stored != self.spans as i64 {
            return Err(void(format!("raw: {stored} of {} spans", self.spans)));
        }
        Ok(self.spans as f64 / took)
    }

    fn prepare(&self, conn: &Connection) -> rusqlite::Result<()> {
        for i in 0..self.experiments as i64 {
            conn.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
                 VALUES (?1, ?2, '/mlruns', 'active')",
                (i + 1, format!("bench-{i}")),
            )?;
        }
        Ok(())
    }

    fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        let per_transaction = self.rows.len() * self.spans_per_transaction / self.spans;
        for rows in self.rows.chunks(per_transaction.max(1)) {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            for row in rows {
                conn.prepare_cached(bench_support::STATEMENTS[row.statement])?
                    .execute(rusqlite::params_from_iter(&row.values))?;
            }
            conn.execute_batch("COMMIT")?;
        }
        Ok(())
    }
}

fn main() {
    let run = Run::from_args();
    let total = run.choose(20_480, 500) as u64 / 5;
    // The second figure: what the store puts into one transaction when so many lanes are ready.
    for (experiments, spans_per_transaction) in [(1, 2048), (100, 8192)] {
        let plural = if experiments == 1 { "" } else { "s" };
        let name = format!("experiment: {experiments} experiment{plural}, spans/s");
        let mlflow = format!("{name}, against MLflow");
        if !run.wants(&name) && !run.wants(&mlflow) {
            continue;
        }
        let each = total / experiments;
        let sets: Vec<Vec<SpanRecord>> = (0..experiments).map(|i| traces(i * each, each)).collect();
        let raw = Raw::of(&sets, spans_per_transaction);
        let mut rates = Vec::new();
        Comparison::new(&name, "raw rusqlite, same rows", Goal::AtLeast(0.6))
            .with_unit(1.0, "spans/s")
            .with_note("synchronous=NORMAL, WAL")
            .run(
                &run,
                &mut || {
                    let rate = ours(&sets)?;
                    rates.push(rate);
                    Ok(Sample::from(rate))
                },
                &mut || raw.run().map(Sample::from),
            );
        let mut rates = rates.into_iter().cycle();
        Comparison::new(&mlflow, "MLflow's Python SDK", Goal::AtLeast(150.0))
            .with_unit(1.0, "spans/s")
            .with_note("MLflow 3.17.2's rate was measured once, on another machine")
            .run(
                &run,
                &mut || Ok(Sample::from(rates.next().unwrap_or_default())),
                &mut || Ok(Sample::from(MLFLOW)),
            );
    }
}
