//! Calls that complete traces whose spans are stored: tried with their batch once, and apart from it
//! where that fails, so that they neither hold the lane nor have spans sent again.

use crate::mlflow::TraceMemory;
use async_trait::async_trait;
use foldhash::HashMap;
use opentelemetry::trace::TraceId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use trace_destination_core::{Error, ErrorKind, LateUpdate, LocationUri};

/// Longest time that a batch waits for its calls.
const PROMPT: Duration = Duration::from_secs(5);
/// Longest time of the last try, when the location is closed.
const LAST: Duration = Duration::from_secs(2);
/// Longest time of one round apart from the batches.
const ROUND: Duration = Duration::from_secs(30);
/// Traces tried in one round.
const AT_ONCE: usize = 64;
/// Traces of one location that are tried apart; more are given up at once.
const MOST: usize = 4096;
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How long a trace is tried: as long as the pipeline retries a batch unless it is told otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A call that was not made, or not with success.
#[derive(Clone, Debug)]
pub(crate) struct Left<J> {
    pub(crate) trace: TraceId,
    pub(crate) job: J,
    /// Why the call failed; none where it waits for something.
    pub(crate) error: Option<Error>,
}

/// Makes the calls of one location.
#[async_trait]
pub(crate) trait Complete<J>: Send + Sync + 'static {
    /// Tries each call once; gives those that are worth another try. What the server refuses for
    /// good is noted in the memory.
    async fn complete(&self, jobs: Vec<(TraceId, J)>) -> Vec<Left<J>>;
    fn memory(&self) -> &TraceMemory;
    fn uri(&self) -> &LocationUri;
}

/// The calls of one location that are tried apart.
pub(crate) struct Later<J> {
    state: Mutex<State<J>>,
}

struct State<J> {
    waiting: HashMap<TraceId, Waiting<J>>,
    /// A task tries them.
    running: bool,
    /// Rounds in a row in which every call failed.
    failures: u32,
    /// No round before this.
    resume: Instant,
    next_version: u64,
}

struct Waiting<J> {
    job: J,
    since: Instant,
    tries: u32,
    due: Instant,
    /// Why the last try failed.
    error: Option<Error>,
    late: LateUpdate,
    /// Another one whenever the job is new or replaced; never the same twice.
    version: u64,
}

impl<J> Default for Later<J> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: HashMap::default(),
                running: false,
                failures: 0,
                resume: Instant::now(),
                next_version: 0,
            }),
        }
    }
}

/// What is taken of a round: a trace, its call, and the version of it.
type Taken<J> = Vec<(TraceId, J, u64)>;

impl<J: Clone + Send + 'static> Later<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calls of a batch whose spans are stored. What fails goes on apart; while calls of
    /// the location fail, new ones are not tried here at all.
    pub(crate) async fn run(
        self: &Arc<Self>,
        with: &Arc<dyn Complete<J>>,
        jobs: Vec<(TraceId, J)>,
    ) {
        if jobs.is_empty() {
            return;
        }
        let calm = self.lock().failures == 0;
        let left = match calm {
            true => attempt(&**with, jobs.clone(), PROMPT).await,
            false => untried(jobs.clone(), || None),
        };
        self.settle_batch(&**with, jobs, left);
        let start = {
            let mut state = self.lock();
            !state.waiting.is_empty() && !std::mem::replace(&mut state.running, true)
        };
        if start {
            let driver = Driver {
                later: self.clone(),
                with: with.clone(),
                is_done: false,
            };
            tokio::spawn(driver.run());
        }
    }

    /// Tries everything that is left once more: the location may be closed for good.
    pub(crate) async fn last_try(&self, with: &Arc<dyn Complete<J>>) {
        let taken = self.take(usize::MAX, |_| true);
        if taken.is_empty() {
            return;
        }
        let left = attempt(&**with, jobs_of(&taken), LAST).await;
        self.settle(&**with, taken, left);
    }

    fn settle_batch(&self, with: &dyn Complete<J>, jobs: Vec<(TraceId, J)>, left: Vec<Left<J>>) {
        let now = Instant::now();
        let failed = is_failure(jobs.len(), &left);
        let mut full = Vec::new();
        let mut state = self.lock();
        for (trace, _) in jobs {
            if !left.iter().any(|left| left.trace == trace)
                && let Some(waiting) = state.waiting.remove(&trace)
            {
                with.memory().release(trace);
                waiting.late.stored();
            }
        }
        if failed {
            state.failed(now);
        }
        // Calls that were not tried here fail for the reason of those that wait.
        let known = match state.waiting.len() >= MOST {
            true => state.waiting.values().find_map(|w| w.error.clone()),
            false => None,
        };
        for Left { trace, job, error } in left {
            let version = state.new_version();
            let count = state.waiting.len();
            match state.waiting.get_mut(&trace) {
                Some(waiting) => {
                    waiting.job = job;
                    waiting.version = version;
                }
                None if count >= MOST => full.push((trace, error.or_else(|| known.clone()))),
                None => {
                    with.memory().hold(trace);
                    with.memory().counted_by_call(trace);
                    let waiting = Waiting {
                        job,
                        since: now,
                        tries: 1,
                        due: now + pause(0),
                        error,
                        late: LateUpdate::begin(),
                        version,
                    };
                    state.waiting.insert(trace, waiting);
                }
            }
        }
        drop(state);
        for (trace, error) in full {
            lose(
                with,
                LateUpdate::begin(),
                trace,
                error,
                "there are too many others",
            );
        }
    }

    /// The call that waits for a trace.
    pub(crate) fn job(&self, trace: TraceId) -> Option<J> {
        let state = self.lock();
        state.waiting.get(&trace).map(|waiting| waiting.job.clone())
    }

    /// Calls `act` for each of the traces that does not wait.
    pub(crate) fn unless_waiting(&self, traces: &[TraceId], act: impl Fn(TraceId)) {
        let state = self.lock();
        let others = traces.iter().filter(|of| !state.waiting.contains_key(of));
        others.for_each(|trace| act(*trace));
    }

    /// Takes up to `most` of the calls that `is_wanted`, those that wait longest first.
    fn take(&self, most: usize, is_wanted: impl Fn(&Waiting<J>) -> bool) -> Taken<J> {
        let state = self.lock();
        let wanted = state.waiting.iter().filter(|(_, w)| is_wanted(w));
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(_, waiting)| waiting.due);
        let taken = wanted.into_iter().take(most);
        taken
            .map(|(trace, waiting)| (*trace, waiting.job.clone(), waiting.version))
            .collect()
    }

    /// Accounts for what became of a round.
    fn settle(&self, with: &dyn Complete<J>, taken: Taken<J>, left: Vec<Left<J>>) {
        let now = Instant::now();
        let mut refused = with
            .memory()
            .take_lost_of(|trace| taken.iter().any(|(of, _, _)| *of == trace));
        let mut state = self.lock();
        match is_failure(taken.len(), &left) {
            true => state.failed(now),
            false => state.failures = 0,
        }
        let mut left: HashMap<TraceId, Left<J>> = left.into_iter().map(|l| (l.trace, l)).collect();
        let mut over = Vec::new();
        for (trace, _, version) in taken {
            let Some(waiting) = state.waiting.get_mut(&trace) else {
                continue;
            };
            waiting.tries = waiting.tries.saturating_add(1);
            waiting.due = now + pause(waiting.tries);
            match left.remove(&trace) {
                Some(_) if now.duration_since(waiting.since) >= PATIENCE => {}
                Some(failed) => {
                    waiting.error = failed.error.or(waiting.error.take());
                    continue;
                }
                // More was said meanwhile.
                None if waiting.version != version => {
                    waiting.due = now;
                    continue;
                }
                None => {
                    if let Some(waiting) = state.waiting.remove(&trace) {
                        with.memory().release(trace);
                        match refused.iter().position(|(lost, _)| *lost == trace) {
                            Some(i) if waiting.late.is_counted() => {
                                let (_, error) = refused.swap_remove(i);
                                waiting.late.lost(error.at(with.uri()));
                            }
                            _ => waiting.late.stored(),
                        }
                    }
                    continue;
                }
            }
            with.memory().release(trace);
            over.extend(state.waiting.remove(&trace).map(|waiting| (trace, waiting)));
        }
        drop(state);
        for (trace, waiting) in over {
            let why = "the call did not succeed for five minutes";
            lose(with, waiting.late, trace, waiting.error, why);
        }
        // Those of batches are told with the next one.
        with.memory().put_back_lost(refused);
    }
}

impl<J> State<J> {
    fn failed(&mut self, now: Instant) {
        self.resume = now + pause(self.failures);
        self.failures = self.failures.saturating_add(1);
    }

    fn new_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }
}

/// Whether calls failed for what the place is, and not one of them for its own trace: all did.
fn is_failure<J>(calls: usize, left: &[Left<J>]) -> bool {
    let failed = left.iter().filter(|left| left.error.is_some()).count();
    failed > 0 && failed >= calls
}

fn pause(tries: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << tries.min(12)).min(PAUSES.1)
}

fn jobs_of<J: Clone>(taken: &Taken<J>) -> Vec<(TraceId, J)> {
    let jobs = taken.iter().map(|(trace, job, _)| (*trace, job.clone()));
    jobs.collect()
}

fn untried<J>(jobs: Vec<(TraceId, J)>, error: impl Fn() -> Option<Error>) -> Vec<Left<J>> {
    let left = jobs.into_iter().map(|(trace, job)| Left {
        trace,
        job,
        error: error(),
    });
    left.collect()
}

async fn attempt<J: Clone + 'static>(
    with: &dyn Complete<J>,
    jobs: Vec<(TraceId, J)>,
    longest: Duration,
) -> Vec<Left<J>> {
    match timeout(longest, with.complete(jobs.clone())).await {
        Ok(left) => left,
        Err(_) => untried(jobs, || {
            let cause = format!("no answer in {longest:?}");
            let error = Error::new(ErrorKind::Timeout, "complete trace", cause).retryable();
            Some(error.mend("see whether the server is reachable; the spans are stored"))
        }),
    }
}

/// Gives the values of a trace up.
fn lose<J: 'static>(
    with: &dyn Complete<J>,
    late: LateUpdate,
    trace: TraceId,
    error: Option<Error>,
    why: &str,
) {
    with.memory().give_up(trace);
    let (kind, because) = match &error {
        Some(error) => (error.kind(), error.cause().to_owned()),
        None => (
            ErrorKind::Timeout,
            "the root of the trace, which another process has, did not end".to_owned(),
        ),
    };
    let cause = format!("values set on trace {trace} are given up, since {why}: {because}");
    let mut lost = Error::new(kind, "complete trace", cause)
        .mend("look into the server's log; the spans of the trace are stored")
        .at(with.uri());
    if let Some(error) = error {
        lost = lost.caused_by(error);
    }
    match late.is_counted() {
        true => late.lost(lost),
        false => with.memory().put_back_lost(vec![(trace, lost)]),
    }
}

/// The task that tries the calls of one location.
struct Driver<J: 'static> {
    later: Arc<Later<J>>,
    with: Arc<dyn Complete<J>>,
    /// It ended as it should.
    is_done: bool,
}

impl<J: Clone + Send + 'static> Driver<J> {
    async fn run(mut self) {
        while let Some(due) = self.next() {
            sleep_until(due).await;
            let now = Instant::now();
            let taken = self.later.take(AT_ONCE, |waiting| waiting.due <= now);
            if taken.is_empty() {
                continue;
            }
            let left = attempt(&*self.with, jobs_of(&taken), ROUND).await;
            self.later.settle(&*self.with, taken, left);
        }
        // Whoever comes next starts another one.
        self.is_done = true;
    }

    /// When there is something to do; `None` ends the task.
    fn next(&self) -> Option<Instant> {
        let mut state = self.later.lock();
        let due = state.waiting.values().map(|waiting| waiting.due).min();
        if due.is_none() {
            state.running = false;
            state.failures = 0;
        }
        due.map(|due| due.max(state.resume))
    }
}

impl<J: 'static> Drop for Driver<J> {
    /// The pipeline's runtime ended: what is left counts as lost.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let waiting = {
            let state = self.later.state.lock();
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            state.failures = 0;
            let waiting = std::mem::take(&mut state.waiting);
            for trace in waiting.keys() {
                self.with.memory().release(*trace);
            }
            waiting
        };
        drop(waiting);
    }
}

#[cfg(test)]
mod tests;
