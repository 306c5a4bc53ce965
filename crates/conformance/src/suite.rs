//! Runs the table of cases against harnesses.

use crate::case::{Case, Need, table};
use crate::failure::Failure;
use crate::harness::{Declares, HARNESS_PATIENCE, Harness};
use crate::report::{Outcome, Report, Row};
use crate::world::World;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use trace_destination_core::{Capabilities, Guarantee};

/// Longest time a case may take; a heavy one may take [`HEAVY_PATIENCE`].
const PATIENCE: Duration = Duration::from_secs(90);
const HEAVY_PATIENCE: Duration = Duration::from_secs(600);

/// A run of the suite: which cases, against which backends.
#[derive(Debug, Default)]
pub struct Suite {
    harnesses: Vec<Arc<dyn Harness>>,
    filter: Option<String>,
    promise: Option<u8>,
    without_heavy: bool,
}

impl Suite {
    /// A run of all cases, without a backend yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend.
    #[must_use]
    pub fn with_harness(mut self, harness: Arc<dyn Harness>) -> Self {
        self.harnesses.push(harness);
        self
    }

    /// Runs only cases whose name matches; `*` stands for any text.
    #[must_use]
    pub fn with_filter(mut self, glob: impl Into<String>) -> Self {
        self.filter = Some(glob.into());
        self
    }

    /// Runs only the cases of one promise.
    #[must_use]
    pub fn with_promise(mut self, promise: u8) -> Self {
        self.promise = Some(promise);
        self
    }

    /// Leaves out the heavy cases.
    #[must_use]
    pub fn without_heavy(mut self) -> Self {
        self.without_heavy = true;
        self
    }

    /// The cases that were chosen, without regard to what the backends declare.
    pub fn cases(&self) -> Vec<&'static Case> {
        table()
            .iter()
            .filter(|case| {
                self.filter
                    .as_ref()
                    .is_none_or(|g| matches_glob(g, case.name))
                    && self.promise.is_none_or(|p| p == case.promise)
                    && !(self.without_heavy && case.heavy)
            })
            .collect()
    }

    /// Runs the cases, backend by backend: several at a time, heavy ones alone. A case that panics
    /// or exceeds its time limit fails; the run goes on.
    pub fn run(&self) -> Report {
        let mut report = Report::default();
        for harness in &self.harnesses {
            report.rows.extend(self.run_on(harness));
        }
        report
    }

    fn run_on(&self, harness: &Arc<dyn Harness>) -> Vec<Row> {
        let cases = self.cases();
        let profile = match Profile::of(harness) {
            Ok(profile) => profile,
            Err(failure) => {
                let text = format!("the harness made no location: {failure}");
                return cases
                    .iter()
                    .map(|case| row(harness, case, Outcome::Fail(text.clone()), Duration::ZERO))
                    .collect();
            }
        };
        let mut rows: Vec<Option<Row>> = cases.iter().map(|_| None).collect();
        let (heavy, light): (Vec<usize>, Vec<usize>) =
            (0..cases.len()).partition(|i| cases[*i].heavy);
        let light = std::sync::Mutex::new(light.into_iter());
        let done = std::sync::Mutex::new(Vec::new());
        let run = |i: usize| {
            let case = cases[i];
            let began = Instant::now();
            let outcome = match profile.lacks(case) {
                Some(reason) => Outcome::NotApplicable(reason),
                None => run_case(case, harness),
            };
            row(harness, case, outcome, began.elapsed())
        };
        std::thread::scope(|scope| {
            for _ in 0..harness.scale().jobs {
                scope.spawn(|| {
                    loop {
                        let next = light.lock().map(|mut l| l.next()).ok().flatten();
                        let Some(i) = next else { break };
                        let row = run(i);
                        if let Ok(mut done) = done.lock() {
                            done.push((i, row));
                        }
                    }
                });
            }
        });
        for (i, row) in done.into_inner().unwrap_or_default() {
            rows[i] = Some(row);
        }
        for i in heavy {
            rows[i] = Some(run(i));
        }
        rows.into_iter().flatten().collect()
    }
}

/// Environment variable: a folder to which [`assert_conforms`] writes its report, as
/// `<backend>.json`, instead of failing. `cargo xtask conformance` makes one matrix of these.
pub const REPORT_VAR: &str = "CONFORMANCE_REPORT";
/// Environment variable: [`assert_conforms`] runs only cases whose name matches; `*` is any text.
pub const CASES_VAR: &str = "CONFORMANCE_CASES";
/// Environment variable: [`assert_conforms`] runs only for the backends in this comma-separated
/// list.
pub const BACKENDS_VAR: &str = "CONFORMANCE_BACKENDS";

/// Runs the whole suite against one backend. For `tests/conformance.rs` of a backend or custom
/// sink.
///
/// # Panics
/// With the whole report, if a case fails or none ran; or if the report cannot be written to the
/// folder in [`REPORT_VAR`].
pub fn assert_conforms(harness: impl Harness) {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = harness.name().to_owned();
    if var(BACKENDS_VAR).is_some_and(|list| !list.split(',').any(|wanted| wanted == name)) {
        return;
    }
    let mut suite = Suite::new().with_harness(Arc::new(harness));
    if let Some(glob) = var(CASES_VAR) {
        suite = suite.with_filter(glob);
    }
    let report = suite.run();
    match var(REPORT_VAR) {
        Some(folder) => {
            let file = Path::new(&folder).join(format!("{name}.json"));
            let left = report
                .to_json()
                .and_then(|json| Ok(std::fs::write(&file, json)?));
            if let Err(failure) = left {
                panic!("{}: {failure}", file.display());
            }
        }
        None => {
            if let Err(failure) = report.verdict() {
                panic!("{report}\n{failure}");
            }
        }
    }
}

fn row(harness: &Arc<dyn Harness>, case: &Case, outcome: Outcome, took: Duration) -> Row {
    Row {
        backend: harness.name().to_owned(),
        case: case.name.to_owned(),
        promise: case.promise,
        says: case.says.to_owned(),
        outcome,
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What a backend declares, which decides the cases that apply.
struct Profile {
    capabilities: Capabilities,
    declares: Declares,
    has_writer: bool,
}

impl Profile {
    fn of(harness: &Arc<dyn Harness>) -> Result<Self, Failure> {
        let probe = harness.clone();
        let location = on_own_thread("probe", HARNESS_PATIENCE, move || async move {
            probe.fresh_location("probe").await
        })?;
        Ok(Self {
            capabilities: location.capabilities(),
            declares: harness.declares(),
            has_writer: harness.writer(&*location).is_some(),
        })
    }

    /// Why a case does not apply; `None` if it does.
    fn lacks(&self, case: &Case) -> Option<String> {
        case.needs.iter().find_map(|need| {
            let (there, reason) = match need {
                Need::Idempotent => (
                    self.capabilities.guarantee == Guarantee::Idempotent,
                    "it declares at_least_once",
                ),
                Need::ExclusiveStore => (
                    self.capabilities.exclusive_store.is_some(),
                    "a trace id may live at several of its places",
                ),
                Need::Unavailable => (
                    self.declares.unavailable,
                    "the harness cannot make the real place fail for a while",
                ),
                Need::Broken => (
                    self.declares.broken,
                    "the harness cannot break the real place",
                ),
                Need::Alias => (self.declares.alias, "its places have one name each"),
                Need::TraceValues => (
                    self.declares.trace_values,
                    "trace-level values cannot be read back",
                ),
                Need::NoTraceValues => (
                    !self.declares.trace_values,
                    "its places have a home for trace-level values, also for late ones",
                ),
                Need::Templates => (
                    self.declares.templates,
                    "no name may stand in the URIs of its places",
                ),
                Need::Writer => (self.has_writer, "its places do not outlive their process"),
            };
            (!there).then(|| reason.to_owned())
        })
    }
}

fn run_case(case: &'static Case, harness: &Arc<dyn Harness>) -> Outcome {
    let patience = match case.heavy {
        true => HEAVY_PATIENCE,
        false => PATIENCE * harness.scale().patience,
    };
    let world = World::new(harness.clone(), case.name);
    let notes = world.clone();
    match on_own_thread(case.name, patience, move || (case.run)(world)) {
        Ok(()) => Outcome::Pass(notes.take_notes()),
        Err(failure) => Outcome::Fail(failure.to_string()),
    }
}

/// Runs a future on its own thread and current-thread runtime. A panic is a failure. A future that
/// exceeds the time limit is a failure too, and is left running on its thread.
fn on_own_thread<T, F, Fut>(name: &str, patience: Duration, start: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, Failure>>,
{
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()?
                    .block_on(start())
            }))
            .unwrap_or_else(|panic| Err(Failure::new(format!("panicked: {}", text_of(&*panic)))));
            // Nobody listens any more if it took too long.
            let _ = send.send(result);
        })?;
    receive.recv_timeout(patience).unwrap_or_else(|_| {
        Err(Failure::new(format!(
            "did not come back within {patience:?}"
        )))
    })
}

pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text")
}

/// Whether `name` matches a glob in which `*` stands for any text.
fn matches_glob(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|i| rest.is_char_boundary(*i))
                .any(|i| matches_glob(tail, &rest[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, expected) in [
            ("scope::*", "scope::precedence", true),
            ("*flush*", "flush::reports", true),
            ("*", "anything", true),
            ("flush", "flush::reports", false),
            ("*x", "flush", false),
        ] {
            assert_eq!(matches_glob(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn a_run_of_nothing_is_an_error() {
        let report = Suite::new()
            .with_harness(Arc::new(crate::MemoryHarness::new()))
            .with_filter("no such case")
            .run();
        assert!(report.verdict().is_err());
    }

    #[test]
    fn panics_and_silence_are_failures() {
        let panicked = on_own_thread("t", Duration::from_secs(5), || async {
            if true {
                panic!("as asked");
            }
            Ok(())
        });
        assert_eq!(panicked.unwrap_err().to_string(), "panicked: as asked");
        let silent: Result<(), _> = on_own_thread("t", Duration::from_millis(20), || {
            std::future::pending::<Result<(), Failure>>()
        });
        assert!(
            silent
                .unwrap_err()
                .to_string()
                .contains("did not come back")
        );
    }
}
